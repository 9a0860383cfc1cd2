//! Servers that are not there when a process starts.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::deployment::{Deployment, required};
use crate::harness::request::get;
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
    assert!(second.list().body == first.list().body, "the list comes from Redis");
    let healed = started_at.elapsed();
    outage.end();
    judge("API started on a warm Redis without PostgreSQL", &deployment, &[&first, &second], &history, healed);
}

#[test]
fn absent_servers_are_named_and_waited_for() {
    let doors =
        ["KAFKA_BROKERS", "REDIS_URL", "DATABASE_URL"].map(|name| Door::before(&host_and_port(&required(name))));
    let [kafka, redis, postgres] = &doors;
    let mut deployment = Deployment::new();
    for (name, door) in ["REDIS_URL", "DATABASE_URL"].into_iter().zip([redis, postgres]) {
        let url = deployment.setting(name);
        deployment = deployment.set(name, &url.replace(&door.target, &door.address));
    }
    deployment = deployment.set("KAFKA_BROKERS", &kafka.address);

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

    redis.open();
    names(&api, "store");
    postgres.open();
    let start = Instant::now();
    // The schema is the worker's to make; then the list, empty as it is, can be loaded.
    within("readiness without a broker", || (api.ready().0 == 200).then_some(()));
    api.await_trouble("command_log: ");
    kafka.open();
    // Also while nobody writes.
    api.await_well();
    let target = Target::new(api.address);
    let history = Writers::start(Load { goal: 300, ..Load::default() }, &[target]).until_goal();
    let healed = await_shown(&[&api], &history, start);
    assert!(worker.status().is_none() && api.process.status().is_none(), "nobody has ended");
    judge("all three servers absent at start", &deployment, &[&api], &history, healed);
}

/// `host:port` within a URL, or the text itself.
fn host_and_port(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().expect("split gives one").to_owned()
}

/// A TCP proxy on loopback that is closed until it is opened: whoever connects is turned away.
struct Door {
    target: String,
    address: String,
    is_open: Arc<AtomicBool>,
}

impl Door {
    fn before(target: &str) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let door = Door { target: target.to_owned(), address, is_open: Arc::default() };
        let (target, is_open) = (door.target.clone(), door.is_open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !is_open.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else { continue };
                pump(&client, &server);
                pump(&server, &client);
            }
        });
        door
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

/// Moves bytes one way, until an end closes.
fn pump(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
    std::thread::spawn(move || {
        // Either end may go at any time.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
