//! Answers that a shard has ready: the same bytes are answered without being parsed, and still follow the list.

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity =>
    repeated_requests_follow_the_list,
    unlike_requests_in_turn_get_their_own_answers,
    long_lists_are_those_of_their_time,
);

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

/// Clients whose heads differ get what each asked for, also when the shard has seen all of them often, and until the list changes:
/// in a pipeline, one at a time, and as heads that differ in a word from one that is known.
fn unlike_requests_in_turn_get_their_own_answers(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let token = token("unlike");
    let mut client = server.connect();
    for number in 0..30 {
        client.call(&post(&token, format!(r#"{{"title":"todo {number}"}}"#))).expect(202);
    }
    let newest = |title: &str, client: &mut crate::harness::client::Client| {
        let shows = |answer: &Answer| answer.text().contains(title);
        eventually("the newest todo shows", || shows(&client.call(&get("/todos?limit=1"))).then_some(()));
    };
    newest("todo 29", &mut client);
    for round in 0..3 {
        let heads: Vec<(Request, Answer)> = (1..=12)
            .flat_map(|limit| ["curl/8.14", "okhttp/5.1"].map(|agent| (limit, agent)))
            .map(|(limit, agent)| {
                let request = || get(format!("/todos?limit={limit}")).field("User-Agent", agent);
                // A connection that closes is answered by its head alone.
                let expected = server.connect().call(&request().field("Connection", "close")).expect(200);
                assert_eq!(expected.json().as_array().map(Vec::len), Some(limit));
                (request(), expected)
            })
            .collect();
        let is_same = |answer: &Answer, expected: &Answer| {
            answer.text() == expected.text() && answer.required("ETag") == expected.required("ETag")
        };
        for turn in 0..6 {
            let in_turn = || heads.iter().cycle().skip(7 * turn).take(heads.len());
            client.send(in_turn().flat_map(|(request, _)| request.bytes()).collect::<Vec<u8>>());
            for (_, expected) in in_turn() {
                assert!(is_same(&client.answer().expect(200), expected));
            }
            for (request, expected) in in_turn() {
                assert!(is_same(&client.call(request).expect(200), expected));
            }
        }
        for ((request, expected), (_, of_another)) in heads.iter().zip(heads.iter().rev()) {
            for _ in 0..4 {
                let known = request.clone().field("If-None-Match", expected.required("ETag"));
                client.call(&known).expect(304);
                let other = request.clone().field("If-None-Match", of_another.required("ETag"));
                assert!(is_same(&client.call(&other).expect(200), expected));
                client.call(&request.clone().field("If-Match", of_another.required("ETag"))).expect(412);
            }
        }
        let title = format!("round {round}");
        client.call(&post(&token, format!(r#"{{"title":"{title}"}}"#))).expect(202);
        newest(&title, &mut client);
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
        // Each shard hears of a change by itself, and a connection is at one of them.
        let shows = |client: &mut Client, id: &str| {
            eventually("the todo shows", || client.call(&get("/todos?limit=1")).text().contains(id).then_some(()));
        };
        let (mut reader, mut slow) = (server.connect(), server.connect());
        shows(&mut reader, &id);
        shows(&mut slow, &id);
        reader.send(get("/todos").bytes().repeat(8));
        let answers: Vec<_> = (0..8).map(|_| reader.answer().expect(200)).collect();
        assert!(answers[0].json()[0]["id"] == id.as_str());
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));

        slow.send(get("/todos").bytes().repeat(2));
        let later = id_of(&writer.call(&post(&token, r#"{"title":"meanwhile"}"#)).expect(202));
        shows(&mut reader, &later);
        reader.send(get("/todos").bytes().repeat(8));
        let newer: Vec<_> = (0..8).map(|_| reader.answer().expect(200)).collect();
        assert!(newer.iter().all(|answer| answer.json()[0]["id"] == later.as_str()));
        for answer in [slow.answer().expect(200), slow.answer().expect(200)] {
            assert!(answer.body == answers[0].body || answer.body == newer[0].body, "a list of one moment, whole");
        }
    }
}
