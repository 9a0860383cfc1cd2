//! What a worker and an API say of a service that does not answer: which, since when, and what to do; as long as it is away and
//! no longer. A worker that has nothing to apply says it, too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deployment::{Api, Deployment};
use crate::harness::client::Client;
use crate::harness::is_well;
use crate::harness::metrics::{parse, total};
use crate::harness::process::Process;
use crate::harness::request::get;
use crate::outage::Service;
use crate::{say, within};

/// How each service is called, and the component that says whether it answers.
pub const LINKS: [(&str, &str); 3] = [("Kafka", "log_link"), ("PostgreSQL", "store_link"), ("Redis", "feed_link")];
/// How long it is looked whether what is said of a service stays as it is.
const STEADY: Duration = Duration::from_secs(2);

/// Somebody who has `/ready` and `/metrics`.
pub struct Teller {
    name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Teller {
    /// An API process.
    pub fn api(api: &Api) -> Teller {
        Teller { name: "the API", address: api.address }
    }

    /// A worker with `WORKER_HTTP_PORT=0`.
    pub fn worker(worker: &Process) -> Teller {
        let line = within("the worker's address", || worker.stdout.text().lines().next().map(str::to_owned)).0;
        let address = line.strip_prefix("million-rps worker listens on http://").expect("the line says where");
        Teller { name: "the worker", address: address.parse().expect("an address") }
    }

    fn ready(&self) -> Value {
        Client::connect(self.address).call(&get("/ready")).expect(200).json()
    }

    /// The components in trouble, and what it says of each.
    fn reasons(&self) -> BTreeMap<String, String> {
        let document = self.ready();
        let lines = document["reasons"].as_array().expect("a list").iter().filter_map(Value::as_str);
        lines.filter_map(|line| line.split_once(": ")).map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        let answer = Client::connect(self.address).call(&get("/metrics")).expect(200);
        total(&parse(answer.text()), name, label)
    }

    fn is_up(&self, component: &str) -> bool {
        self.metric("million_rps_component_up", &format!("component=\"{component}\"")) == 1.0
    }
}

/// Waits until each of them says of these services, and of no other, that it does not answer; then looks for a while whether
/// that stays so, with the same beginning.
pub fn assert_named(fault: &str, tellers: &[Teller], away: &[&str]) {
    let begun_at = Instant::now();
    let mut since = Vec::new();
    for teller in tellers {
        for (service, component) in LINKS {
            if !away.contains(&service) {
                continue;
            }
            let what = format!("{fault}: {} names {service}", teller.name);
            let (reason, _) = within(&what, || teller.reasons().remove(component));
            assert!(reason.starts_with(service) && reason.contains("See whether"), "{what}: {reason}");
            let (_, rest) = reason.split_once(" does not answer since ").expect("since when");
            since.push((teller, component, rest[..rest.find('Z').expect("a moment")].to_owned()));
        }
    }
    say(&format!("{fault}: named by all {:.1} s later", begun_at.elapsed().as_secs_f64()));
    let mut known: Vec<BTreeSet<String>> =
        tellers.iter().map(|teller| teller.reasons().into_keys().collect()).collect();
    let steady_until = Instant::now() + STEADY;
    while Instant::now() < steady_until {
        for (teller, known) in tellers.iter().zip(&mut known) {
            let reasons = teller.reasons();
            let gone: Vec<_> = known.iter().filter(|component| !reasons.contains_key(*component)).collect();
            assert!(gone.is_empty(), "{fault}: {} has said and does not say any more: {gone:?}", teller.name);
            known.extend(reasons.into_keys());
        }
        for (teller, component, beginning) in &since {
            let reason = teller.reasons().remove(*component);
            let is_same = reason.as_ref().is_some_and(|reason| reason.contains(&format!("since {beginning}Z")));
            assert!(is_same, "{fault}: {} said {component} since {beginning}, now {reason:?}", teller.name);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for teller in tellers {
        for (service, component) in LINKS {
            assert_eq!(teller.is_up(component), !away.contains(&service), "{fault}: {}: {component}", teller.name);
        }
    }
    let is_cut_off = away.iter().any(|service| *service != "Redis");
    for worker in tellers.iter().filter(|teller| teller.name == "the worker") {
        assert_eq!(worker.metric("million_rps_worker_up", ""), f64::from(u8::from(!is_cut_off)), "{fault}");
    }
}

/// Waits until nobody says anything any more.
pub fn await_well(fault: &str, tellers: &[Teller]) {
    let begun_at = Instant::now();
    for teller in tellers {
        let what = format!("{fault}: {} is well again", teller.name);
        within(&what, || (is_well(&teller.ready()) && LINKS.iter().all(|(_, link)| teller.is_up(link))).then_some(()));
    }
    say(&format!("{fault}: all are well {:.1} s later", begun_at.elapsed().as_secs_f64()));
    let worker_is_up = |teller: &Teller| teller.metric("million_rps_worker_up", "") == 1.0;
    assert!(tellers.iter().filter(|teller| teller.name == "the worker").all(worker_is_up), "{fault}");
}

#[test]
fn a_service_that_is_frozen_is_named_until_it_answers() {
    let deployment = Deployment::new().set("WORKER_HTTP_PORT", "0");
    let [worker] = deployment.workers();
    let api = deployment.serve();
    let tellers = [Teller::worker(&worker), Teller::api(&api)];
    await_well("before", &tellers);

    let postgres = Service::Postgres.freeze();
    assert_named("PostgreSQL frozen", &tellers, &["PostgreSQL"]);
    // Redis answers, which proves nothing about the store.
    let age_ms = tellers[1].ready()["snapshot"]["age_ms"].as_f64().expect("a number");
    assert!(age_ms >= STEADY.as_millis() as f64, "{age_ms} ms, while nobody could ask the store");
    let others = [Service::Kafka.freeze(), Service::Redis.freeze()];
    assert_named("all frozen", &tellers, &["Kafka", "PostgreSQL", "Redis"]);
    postgres.end();
    others.into_iter().for_each(|outage| outage.end());
    await_well("frozen", &tellers);
}
