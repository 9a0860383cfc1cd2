//! `/ready`: what is wrong is told to whoever runs the process, and to nobody else.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::request::{Request, get};
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;

on_both_drivers!(std::convert::identity =>
    reasons_are_for_this_machine_by_default,
    reasons_are_for_all_or_nobody_where_the_setting_says_so,
);

/// An address of this machine that is not loopback, where it has one.
fn other_address_of_this_machine() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses a route.
    socket.connect("203.0.113.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// An API whose PostgreSQL, Kafka and Redis are nowhere: it has reasons to give. Port 9 discards.
fn lonely(driver: Driver, details: Option<&str>) -> (Process, u16) {
    let mut setup = Setup::new()
        .driver(driver)
        .set("HTTP_HOST", "0.0.0.0")
        .set("DATABASE_URL", "postgres://todos:hush@127.0.0.1:9/todos")
        .set("REDIS_URL", "redis://127.0.0.1:9/0")
        .set("KAFKA_BROKERS", "127.0.0.1:9");
    if let Some(details) = details {
        setup = setup.set("READY_DETAILS", details);
    }
    let process = Process::start(setup.command(&["serve"]));
    let port = eventually("the line with the address", || {
        let line = process.stdout.text().lines().next()?.to_owned();
        line.trim_end_matches('/').rsplit(':').next()?.parse().ok()
    });
    (process, port)
}

/// What `/ready` answers, once it has a reason that comes from a service.
fn reasons(address: SocketAddr, request: &Request) -> Answer {
    let mut client = Client::connect(address);
    eventually("a reason", || {
        let answer = client.call(request).expect(503);
        let reasons = answer.json()["reasons"].clone();
        reasons
            .as_array()
            .expect("a list")
            .iter()
            .any(|reason| {
                ["feed:", "store:", "topic:", "command_log:"]
                    .iter()
                    .any(|name| reason.as_str().unwrap().starts_with(name))
            })
            .then_some(answer)
    })
}

fn assert_shown(answer: &Answer) {
    let text = answer.text();
    assert!(text.contains("127.0.0.1:9") || text.contains("refused"), "what the system or the service says: {text}");
    assert!(!text.contains("hush") && answer.json().get("details").is_none(), "{text}");
}

fn assert_hidden(answer: &Answer) {
    let text = answer.text();
    assert!(!text.contains("127.0.0.1") && !text.contains("refused") && !text.contains("hush"), "{text}");
    assert!(answer.json()["details"].as_str().is_some_and(|text| text.contains("READY_DETAILS")), "{text}");
}

fn reasons_are_for_this_machine_by_default(driver: &Driver) {
    let (_process, port) = lonely(*driver, None);
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    assert_shown(&reasons(local, &get("/ready")));
    assert_shown(&reasons(SocketAddr::from(([127, 0, 0, 2], port)), &get("/ready")));
    for field in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"] {
        assert_hidden(&reasons(local, &get("/ready").field(field, "192.0.2.60")));
    }
    for target in ["http://todos.example/ready", "http://192.0.2.1:8080/ready"] {
        assert_hidden(&reasons(local, &get(target)));
    }
    match other_address_of_this_machine() {
        Some(ip) => assert_hidden(&reasons(SocketAddr::new(ip, port), &get("/ready"))),
        None => eprintln!("not tried: this machine has no address but loopback"),
    }
    let metrics = Client::connect(local).call(&get("/metrics").field("Via", "1.1 proxy")).expect(200);
    assert!(metrics.text().contains("million_rps_component_up") && !metrics.text().contains("127.0.0.1"));
}

fn reasons_are_for_all_or_nobody_where_the_setting_says_so(driver: &Driver) {
    let forwarded = get("/ready").field("X-Forwarded-For", "192.0.2.60");
    let (_process, port) = lonely(*driver, Some("off"));
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    assert_hidden(&reasons(local, &get("/ready")));
    assert_hidden(&reasons(local, &forwarded));
    let (_process, port) = lonely(*driver, Some("on"));
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    assert_shown(&reasons(local, &get("/ready")));
    assert_shown(&reasons(local, &forwarded));
}
