//! Answers that a shard has ready: the same bytes are answered without being parsed, and still follow the list.

use crate::harness::client::Answer;
use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity => repeated_requests_follow_the_list, long_lists_are_those_of_their_time);

fn id_of(answer: &Answer) -> String {
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// The same bytes again and again are answered from what the shard has ready: for small and large pages, whole and
/// unchanged, until the list changes.
fn repeated_requests_follow_the_list(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let token = token("repeated");
    let mut client = server.connect();
    let title = "t".repeat(400);
    for _ in 0..60 {
        client.call(&post(&token, format!(r#"{{"title":"{title}"}}"#))).expect(202);
    }
    for target in ["/todos?limit=3", "/todos?limit=50"] {
        let mut tags: Vec<String> = Vec::new();
        for round in 0..4 {
            let id = id_of(&client.call(&post(&token, format!(r#"{{"title":"round {round}"}}"#))).expect(202));
            eventually("the new todo shows", || client.call(&get("/todos?limit=1")).text().contains(&id).then_some(()));

            client.send(get(target).bytes().repeat(40));
            let answers: Vec<_> = (0..40).map(|_| client.answer().expect(200)).collect();
            assert!(answers[0].json()[0]["id"] == id.as_str(), "the list as it was before");
            assert!(answers.iter().all(|answer| answer.text() == answers[0].text()));
            let tag = answers[0].required("ETag").to_owned();

            client.send(get(target).field("If-None-Match", &tag).bytes().repeat(40));
            assert!((0..40).all(|_| client.answer().expect(304).required("ETag") == tag));
            if let Some(last) = tags.last() {
                client.send(get(target).field("If-None-Match", last).bytes().repeat(3));
                assert!((0..3).all(|_| client.answer().expect(200).required("ETag") == tag));
            }
            tags.push(tag);
        }
        // What was remembered as unchanged is looked at again when the list is another.
        let unchanged = get(target).field("If-None-Match", tags.last().expect("four rounds"));
        client.call(&unchanged).expect(304);
        let id = id_of(&client.call(&post(&token, r#"{"title":"last"}"#)).expect(202));
        eventually("the last todo shows", || {
            let answer = client.call(&unchanged);
            (answer.status == 200 && answer.text().contains(&id)).then_some(())
        });
    }
}

/// A client that takes its time with a long list gets it as it was, while others get what has come since.
fn long_lists_are_those_of_their_time(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    setup.run_successfully(&["seed", "--count", "9000"]);
    let server = setup.start();
    let token = token("long");
    let mut writer = server.connect();
    for round in 0..3 {
        let title = format!("round {round}");
        let id = id_of(&writer.call(&post(&token, format!(r#"{{"title":"{title}"}}"#))).expect(202));
        let page = get("/todos?limit=1");
        eventually("the new todo shows", || writer.call(&page).text().contains(&id).then_some(()));
        let mut reader = server.connect();
        reader.send(get("/todos").bytes().repeat(8));
        let answers: Vec<_> = (0..8).map(|_| reader.answer().expect(200)).collect();
        assert!(answers[0].json()[0]["id"] == id.as_str());
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));

        let mut slow = server.connect();
        slow.send(get("/todos").bytes().repeat(2));
        let later = id_of(&writer.call(&post(&token, r#"{"title":"meanwhile"}"#)).expect(202));
        eventually("the later todo shows", || writer.call(&page).text().contains(&later).then_some(()));
        reader.send(get("/todos").bytes().repeat(8));
        let newer: Vec<_> = (0..8).map(|_| reader.answer().expect(200)).collect();
        assert!(newer.iter().all(|answer| answer.json()[0]["id"] == later.as_str()));
        for answer in [slow.answer().expect(200), slow.answer().expect(200)] {
            assert!(answer.body == answers[0].body || answer.body == newer[0].body, "a list of one moment, whole");
        }
    }
}
