//! Answers that a shard has ready: the same bytes are answered without being parsed, and still follow the list.

use crate::harness::client::Answer;
use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity => repeated_requests_follow_the_list);

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
