//! `Prefer: wait` where log, store and feed are servers: the answer comes when the API that gives it shows the write.

use serde_json::json;

use crate::deployment::{Api, Deployment};
use crate::harness::request::{delete, get, post, put};
use crate::harness::token::token;
use crate::outage::Service;

/// Creates, changes and deletes; each shows as soon as it is answered.
fn write_and_read(api: &Api, rounds: usize) {
    let token = token("reader");
    for round in 0..rounds {
        let mut client = api.connect();
        let wait = |request: crate::harness::request::Request| request.field("Prefer", "wait=30");
        let title = format!("mine {round}");
        let answer = client.call(&wait(post(&token, json!({ "title": title }).to_string()))).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let target = format!("/todos/{id}");
        assert_eq!(client.call(&get(&target)).expect(200).json()["title"], title);
        let answer = client.call(&wait(put(&token, &id, r#"{"completed":true}"#))).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait");
        assert_eq!(client.call(&get(&target)).expect(200).json()["completed"], true);
        if round % 2 == 0 {
            let answer = client.call(&wait(delete(&token, &id))).expect(202);
            assert_eq!(answer.required("Preference-Applied"), "wait");
            client.call(&get(&target)).expect(404);
        }
    }
}

#[test]
fn a_write_that_waits_shows_on_the_api_that_answers() {
    let deployment = Deployment::new();
    let [worker] = deployment.workers();
    let first = deployment.serve();
    worker.signal(libc::SIGTERM);
    assert!(worker.finish().status.success());
    // Nobody applies anything: the wait runs out, and the write is durable all the same.
    let post_of_one_second = post(&token("reader"), r#"{"title":"early"}"#).field("Prefer", "wait=1");
    let answer = first.connect().call(&post_of_one_second).expect(202);
    assert_eq!(answer.field("Preference-Applied"), None);
    let _workers = deployment.workers::<2>();
    write_and_read(&first, 20);
    // A list that comes from Redis says how far it goes.
    let second = deployment.serve();
    std::thread::scope(|scope| {
        for api in [&first, &second] {
            scope.spawn(|| write_and_read(api, 20));
        }
    });
    // And one that is loaded from the store again, because Redis has lost it.
    Service::Redis.kill().end();
    for api in [&first, &second] {
        write_and_read(api, 10);
    }
}
