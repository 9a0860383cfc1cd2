//! What a person sees of the stages while a server is in trouble, of an API and of a worker that is nothing else.

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::deployment::Deployment;
use crate::harness::client::{Answer, Client};
use crate::harness::is_well;
use crate::harness::metrics::{Samples, parse, total};
use crate::harness::request::{Request, get, post};
use crate::harness::token::token;
use crate::outage::Service;
use crate::within;

/// Asks a worker, which gives one answer a connection.
fn ask(address: SocketAddr, request: &Request) -> Answer {
    let mut client = Client::connect(address);
    let answer = client.call(request);
    assert!(answer.closes(), "{answer:?}");
    client.assert_ended();
    answer
}

fn scrape(address: SocketAddr) -> Samples {
    let answer = ask(address, &get("/metrics")).expect(200);
    assert_eq!(answer.required("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    parse(answer.text())
}

#[test]
fn the_document_has_each_metric_of_the_topic_and_no_other() {
    let deployment = Deployment::new();
    let [_worker] = deployment.workers();
    let api = deployment.serve();
    let names = |text: &str, before: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(before));
        let names = lines
            .filter_map(|rest| rest.split(['`', ' ']).next())
            .filter(|name| name.starts_with("million_rps_topic_"));
        names.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("readable");
    let told = names(&document, "| `");
    assert!(told.len() >= 7, "{told:?}");
    // They are shown once the topic has been looked at.
    let shown = || names(api.connect().call(&get("/metrics")).expect(200).text(), "# TYPE ");
    let shown = within("metrics of the topic", || Some(shown()).filter(|shown| !shown.is_empty())).0;
    assert_eq!(told, shown, "docs/metrics.md, and what /metrics shows");
}

#[test]
fn a_worker_and_an_api_tell_what_waits_for_whom() {
    let deployment = Deployment::new().set("WORKER_HTTP_PORT", "0").set("ACK_TIMEOUT_MS", "20000");
    let [worker] = deployment.workers();
    let line = within("the worker's address", || worker.stdout.text().lines().next().map(str::to_owned)).0;
    let address = line.strip_prefix("million-rps worker listens on http://").expect("the line says where");
    let address: SocketAddr = address.parse().expect("an address");

    ask(address, &get("/health")).expect(200);
    assert!(is_well(&ask(address, &get("/ready")).expect(200).json()));
    ask(address, &Request::new("HEAD", "/ready")).expect(200);
    assert_eq!(ask(address, &Request::new("DELETE", "/ready")).expect(405).required("Allow"), "GET, HEAD");
    ask(address, &get("/todos")).expect(404);
    let mut nonsense = std::net::TcpStream::connect(address).expect("connected");
    nonsense.write_all(b"no request\r\n\r\n").expect("taken");
    let mut answer = String::new();
    nonsense.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");

    let api = deployment.serve();
    let post = post(&token("measured"), r#"{"title":"measured"}"#);
    for _ in 0..20 {
        let answer = api.connect().call(&post.clone().field("Prefer", "wait=30")).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait");
    }
    let samples = scrape(address);
    for (name, least) in [
        ("million_rps_worker_up", 1.0),
        ("million_rps_worker_commands_total", 20.0),
        ("million_rps_worker_apply_seconds_count", 1.0),
        ("million_rps_worker_publish_seconds_count", 1.0),
    ] {
        assert!(total(&samples, name, "") >= least, "{name}: {samples:?}");
    }
    assert!(api.metric("million_rps_refresh_seconds_count") >= 1.0);

    // The store is away: what is written waits before it.
    let outage = Service::Postgres.end_immediately();
    for _ in 0..5 {
        api.connect().call(&post).expect(202);
    }
    within("a lag", || {
        let samples = scrape(address);
        let lags = total(&samples, "million_rps_worker_lag_records", "") == 5.0;
        (lags && total(&samples, "million_rps_worker_lag_seconds", "") > 0.2).then_some(())
    });
    within("a degraded worker", || {
        let document = ask(address, &get("/ready")).expect(200).json();
        (document["status"] == "degraded" && document["reasons"][0].is_string()).then_some(())
    });
    outage.end();
    within("no lag", || {
        let samples = scrape(address);
        let lag = |name| total(&samples, name, "");
        (lag("million_rps_worker_lag_records") == 0.0 && lag("million_rps_worker_lag_seconds") == 0.0).then_some(())
    });

    // The log is silent: what is written waits before it.
    let outage = Service::Kafka.freeze();
    let mut waiting = api.connect();
    waiting.send(post.bytes());
    within("an old command", || (api.metric("million_rps_oldest_command_seconds") > 0.5).then_some(()));
    assert_eq!(api.metric("million_rps_commands_in_flight"), 1.0);
    outage.end();
    waiting.answer().expect(202);
    within("no old command", || (api.metric("million_rps_oldest_command_seconds") == 0.0).then_some(()));
}
