//! Processes whose servers are away: they wait at rest, and serve what they have.

use std::time::Instant;

use crate::away::{Teller, assert_named, await_well};
use crate::deployment::{Api, Deployment, required};
use crate::harness::process::Process;
use crate::network::{SERVERS, host_and_port};
use crate::outage::Service;
use crate::poison::produce;
use crate::proxy::Proxy;
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::waiting::{DeadPort, assert_at_rest};
use crate::within;
use crate::writers::{Load, Target, Writers};

/// So short that the list is to be loaded anew while the servers are away.
const CACHE_TTL_SEC: &str = "3";
#[test]
fn processes_whose_servers_are_away_wait_at_rest() {
    let deployment =
        Deployment::new().set("WORKER_HTTP_PORT", "0").set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&SERVERS);
    let [worker] = deployment.workers();
    let api = deployment.serve();
    let mut history = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]).until_goal();
    await_shown(&[&api], &history, Instant::now());
    let last_list = api.list().body;

    let links = deployment.network().links();
    let postgres = &deployment.network().postgres;
    postgres.refuse();
    postgres.cut();
    // Work that waits for the store.
    history.merge(Writers::start(Load { goal: 100, ..Load::default() }, &[Target::new(api.address)]).until_goal());
    api.await_trouble("feed: ");
    rest("PostgreSQL refuses", &api, &worker, links);
    links.iter().for_each(|link| {
        link.refuse();
        link.cut();
    });
    api.await_trouble("command_log: ");
    rest("all servers refuse", &api, &worker, links);
    links.iter().for_each(|link| {
        link.heal();
        link.black_hole();
    });
    rest("all servers are silent", &api, &worker, links);
    let tellers = [Teller::worker(&worker), Teller::api(&api)];
    assert_named("all servers are silent", &tellers, &["Kafka", "PostgreSQL", "Redis"]);
    assert!(api.list().body == last_list, "reads go on from the last list");
    links.iter().for_each(|link| link.heal());
    let healed_at = Instant::now();
    let writers = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]);
    history.merge(writers.until_goal());
    let healed = await_shown(&[&api], &history, healed_at);
    judge("all servers away for a while", &deployment, &[&api], &history, healed);
    await_well("all servers away for a while", &tellers);
}

/// What two processes do that can only wait, with all links between them and the servers.
fn rest(fault: &str, api: &Api, worker: &Process, [postgres, kafka, redis]: [&Proxy; 3]) {
    let attempts: [(&str, &dyn Fn() -> u64); 3] = [
        ("PostgreSQL", &|| postgres.connections()),
        ("Kafka", &|| kafka.connections()),
        ("Redis", &|| redis.connections()),
    ];
    assert_at_rest(fault, &[("the API", &api.process), ("the worker", worker)], attempts);
}

/// Unlike behind a link that refuses, the broker has told its clients its name.
#[test]
fn processes_whose_servers_are_killed_wait_at_rest_and_say_so() {
    // Two lanes, and a client for dead letters in one of them.
    let deployment = Deployment::new().set("WORKER_HTTP_PORT", "0").set("CACHE_TTL_SEC", CACHE_TTL_SEC).with_lanes(2);
    let [worker] = deployment.workers();
    let api = deployment.serve();
    produce(&deployment, "poison", &[b"no command".to_vec()]);
    let mut history = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]).until_goal();
    await_shown(&[&api], &history, Instant::now());
    within("the dead letter", || worker.stderr.text().contains("is a dead letter now").then_some(()));
    let processes = [("the API", &api.process), ("the worker", &worker)];
    let tellers = [Teller::worker(&worker), Teller::api(&api)];

    let store_and_feed = [Service::Postgres.kill(), Service::Redis.kill()];
    // Work that waits for the store.
    history.merge(Writers::start(Load { goal: 100, ..Load::default() }, &[Target::new(api.address)]).until_goal());
    assert_named("PostgreSQL and Redis killed", &tellers, &["PostgreSQL", "Redis"]);
    assert_at_rest("PostgreSQL and Redis killed", &processes, []);
    let log = Service::Kafka.kill();
    assert_named("all killed", &tellers, &["Kafka", "PostgreSQL", "Redis"]);
    assert_at_rest("all killed", &processes, []);
    let ports = ["DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL"].map(|name| DeadPort::at(host_and_port(&required(name))));
    let attempts: [(&str, &dyn Fn() -> u64); 3] = [
        ("PostgreSQL", &|| ports[0].connections()),
        ("Kafka", &|| ports[1].connections()),
        ("Redis", &|| ports[2].connections()),
    ];
    assert_at_rest("all killed, their ports close each connection", &processes, attempts);
    assert!(ports.iter().all(|port| port.connections() > 0), "they look whether it is back");
    drop(ports);
    store_and_feed.into_iter().for_each(|outage| outage.end());
    log.end();
    let healed_at = Instant::now();
    let writers = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]);
    history.merge(writers.until_goal());
    let healed = await_shown(&[&api], &history, healed_at);
    say(&format!("all killed, at rest: shown {:.1} s after their return", healed.as_secs_f64()));
    await_well("killed", &tellers);
}
