//! Servers that are not there when a process starts.

use std::time::Instant;

use crate::away::Teller;
use crate::deployment::Deployment;
use crate::harness::client::Client;
use crate::harness::request::{Request, get, post};
use crate::harness::token::token;
use crate::network::SERVERS;
use crate::outage::Service;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

#[test]
fn an_api_starts_on_a_warm_redis_while_postgres_is_stopped() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<1>();
    let first = deployment.serve();
    let target = Target::new(first.address);
    let history = Writers::start(Load { goal: 300, ..Load::default() }, &[target]).until_goal();
    await_shown(&[&first], &history, Instant::now());

    let outage = Service::Postgres.end_immediately();
    let started_at = Instant::now();
    let second = deployment.serve();
    let (list, expected) = (second.list(), first.list());
    assert!(list.body == expected.body, "the list comes from Redis");
    assert_eq!(list.required("ETag"), expected.required("ETag"));
    let healed = started_at.elapsed();
    // The secret of ids does not.
    let create = post(&token("repeater"), "{\"title\":\"t\"}").field("Idempotency-Key", "k");
    let refused = second.connect().call(&create).expect(503);
    assert!(refused.text().contains("Idempotency-Key") && refused.required("Retry-After") == "2", "{}", refused.text());
    outage.end();
    within("an API that has asked the store", || {
        let request = Request::new("POST", "/todos").field("Idempotency-Key", "k").json("{}");
        let request = request.field("Authorization", &format!("Bearer {}", token("repeater")));
        (second.connect().call(&request).status != 503).then_some(())
    });
    judge("API started on a warm Redis without PostgreSQL", &deployment, &[&first, &second], &history, healed);
}

#[test]
fn absent_servers_are_named_and_waited_for() {
    let deployment = Deployment::new().behind_network(&SERVERS);
    let network = deployment.network();
    network.links().iter().for_each(|link| link.refuse());
    let mut worker = deployment.worker();
    let mut api = deployment.serve_unready("serve");
    let names = |api: &crate::deployment::Api, wanted: &str| {
        within(&format!("{wanted:?} in /ready"), || {
            let (status, document) = api.ready();
            (status == 503 && document["reasons"].to_string().contains(wanted)).then_some(())
        });
    };
    names(&api, "feed: ");
    names(&api, "command_log: ");
    // Nothing to show yet, which is said at once.
    api.connect().call(&get("/todos")).expect(503);

    network.redis.heal();
    names(&api, "store");
    network.postgres.heal();
    let start = Instant::now();
    // The schema is the worker's to make; then the list, empty as it is, can be loaded.
    within("the list without a broker", || (api.connect().call(&get("/todos")).status == 200).then_some(()));
    // Nobody knows yet whether a write could be kept, so a rollout waits.
    names(&api, "command log has not been reached yet");
    names(&api, "command_log: ");
    network.kafka().heal();
    // Also while nobody writes.
    api.await_well();
    let target = Target::new(api.address);
    let history = Writers::start(Load { goal: 300, ..Load::default() }, &[target]).until_goal();
    let healed = await_shown(&[&api], &history, start);
    assert!(worker.status().is_none() && api.process.status().is_none(), "nobody has ended");
    judge("all three servers absent at start", &deployment, &[&api], &history, healed);
}

/// Kafka's client takes some seconds until it says that no broker answers. Nobody knows until then whether it can work.
#[test]
fn a_worker_is_not_ready_before_a_broker_has_answered() {
    let deployment = Deployment::beside_others().set("WORKER_HTTP_PORT", "0").behind_network(&SERVERS);
    deployment.network().kafka().refuse();
    let worker = deployment.worker();
    let address = Teller::worker(&worker).address;
    let ready = || {
        let answer = Client::connect(address).call(&get("/ready"));
        (answer.status, answer.json()["status"].as_str().expect("a text").to_owned())
    };
    // The schema is its first work; it is what the worker does between the first and the last look.
    let has_schema = || worker.stderr.text().contains("the worker looks for Kafka's topic");
    within("the worker to look for its topic", || {
        assert_eq!(ready(), (503, "not ready".to_owned()));
        has_schema().then_some(())
    });
    within("the reason", || {
        assert_eq!(ready(), (503, "not ready".to_owned()));
        Client::connect(address).call(&get("/ready")).json()["reasons"]
            .to_string()
            .contains("command log")
            .then_some(())
    });
    deployment.network().kafka().heal();
    within("a worker that is ready", || (ready().0 == 200).then_some(()));
}
