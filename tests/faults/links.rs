//! The network between processes and servers is slowed, cut and silenced while clients write.

use std::time::{Duration, Instant};

use million_rps::todo::TodoId;

use crate::deployment::{ACK_TIMEOUT, Api, Deployment};
use crate::harness::random::Random;
use crate::history::History;
use crate::network::{SERVERS, SLOW_LATENCY, SLOW_RATE};
use crate::proxy::{Proxy, Way};
use crate::say;
use crate::verdict::{Account, await_shown, judge};
use crate::writers::{Load, Target, Writers};

/// How much longer than its deadline an answer may take on a busy machine, before it counts as a hang.
const LENIENCY: Duration = Duration::from_secs(10);
/// How long a link is silent: longer than Redis is waited for, longer than PostgreSQL lets a transaction idle, longer than
/// a group of workers waits for a member.
const SILENCE: Duration = Duration::from_secs(8);
/// The list expires so often that it is loaded through the bad network too.
const CACHE_TTL_SEC: &str = "3";

/// Slows the link, cuts it again and again, then silences it; returns when it is well again.
fn maltreat(link: &Proxy, writers: &Writers) -> Instant {
    link.slow(SLOW_LATENCY, SLOW_RATE);
    std::thread::sleep(Duration::from_millis(1_500));
    for _ in 0..5 {
        link.cut();
        std::thread::sleep(Duration::from_millis(300));
    }
    link.black_hole();
    std::thread::sleep(SILENCE);
    link.heal();
    let healed_at = Instant::now();
    writers.await_accepted(200);
    healed_at
}

/// Ends the writing, waits for convergence and checks all promises.
fn account(fault: &str, deployment: &Deployment, apis: &[&Api], writers: Writers, healed_at: Instant) -> Account {
    let history: History = writers.finish();
    let healed = await_shown(apis, &history, healed_at);
    let slowest = history.slowest_answer;
    assert!(slowest < ACK_TIMEOUT + LENIENCY, "an answer took {slowest:?}");
    let account = judge(fault, deployment, apis, &history, healed);
    say(&format!("{fault}: slowest answer {:.1} s", slowest.as_secs_f64()));
    apis.iter().for_each(|api| api.await_well());
    account
}

#[test]
fn the_link_to_postgres_is_slowed_cut_and_silenced() {
    maltreat_the_link_to_postgres(Deployment::beside_others(), "link to PostgreSQL");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn the_link_to_postgres_of_workers_of_two_lanes_is_slowed_cut_and_silenced() {
    maltreat_the_link_to_postgres(Deployment::beside_others().with_lanes(2), "two lanes' link to PostgreSQL");
}

fn maltreat_the_link_to_postgres(deployment: Deployment, link: &str) {
    let deployment = deployment.set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&["DATABASE_URL"]);
    let _workers = deployment.workers::<2>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    writers.await_accepted(500);
    // Commits of which nobody knows whether they happened.
    for _ in 0..5 {
        deployment.network().postgres.cut_reply_to("COMMIT\0");
        writers.await_accepted(100);
    }
    let healed_at = maltreat(&deployment.network().postgres, &writers);
    account(&format!("{link} slow, cut, silent"), &deployment, &both, writers, healed_at);
}

#[test]
fn the_link_to_redis_is_slowed_cut_and_silenced() {
    maltreat_the_link_to_redis(Deployment::beside_others(), "link to Redis");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn the_link_to_redis_of_workers_of_two_lanes_is_slowed_cut_and_silenced() {
    maltreat_the_link_to_redis(Deployment::beside_others().with_lanes(2), "two lanes' link to Redis");
}

fn maltreat_the_link_to_redis(deployment: Deployment, link: &str) {
    let deployment = deployment.set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&["REDIS_URL"]);
    let _workers = deployment.workers::<2>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    writers.await_accepted(500);
    // Publications of which nobody knows whether they happened.
    for _ in 0..5 {
        deployment.network().redis.cut_reply_to("\"title\"");
        writers.await_accepted(100);
    }
    let healed_at = maltreat(&deployment.network().redis, &writers);
    account(&format!("{link} slow, cut, silent"), &deployment, &both, writers, healed_at);
}

#[test]
fn the_apis_link_to_kafka_is_slowed_cut_and_silenced() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let deployment = deployment.behind_network(&["KAFKA_BROKERS"]);
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    writers.await_accepted(500);
    let healed_at = maltreat(deployment.network().kafka(), &writers);
    let account = account("APIs' link to Kafka slow, cut, silent", &deployment, &both, writers, healed_at);
    assert!(account.refused > 0, "nobody can take writes while the log is out of reach");
    assert_eq!(account.overtaken, 0, "a refused write came after a newer one");
}

/// Kafka gets the requests and none of its answers comes back, until the first write has waited too long and the last has not:
/// what librdkafka does when it gives one up must not put the others into the log again.
#[test]
fn writes_whose_acknowledgements_are_lost_stand_in_the_log_once() {
    /// As many as librdkafka has on their way at a time.
    const WRITES: u32 = 5;
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let deployment = deployment.behind_network(&["KAFKA_BROKERS"]);
    let api = deployment.serve();
    let target = [Target::new(api.address)];
    // Each waits for one answer at a time.
    let one = Load { connections: 1, depth: 1, ..Load::default() };
    let first = Writers::start(one, &target);
    first.await_accepted(20);
    let mut history = first.finish();
    deployment.network().kafka().silence(Way::ToClient);
    let silent_since = Instant::now();
    let writers: Vec<Writers> = (0..WRITES)
        .map(|_| {
            let writer = Writers::start(one, &target);
            std::thread::sleep(ACK_TIMEOUT / WRITES);
            writer
        })
        .collect();
    // librdkafka looks once a second.
    std::thread::sleep((ACK_TIMEOUT + Duration::from_millis(1_050)).saturating_sub(silent_since.elapsed()));
    deployment.network().kafka().heal();
    let healed_at = Instant::now();
    writers.iter().for_each(|writer| writer.await_accepted(20));
    writers.into_iter().for_each(|writer| history.merge(writer.finish()));
    let healed = await_shown(&[&api], &history, healed_at);
    let account = judge("acknowledgements of Kafka lost", &deployment, &[&api], &history, healed);
    assert!(account.refused > 0, "the first has waited too long");
    assert_eq!(account.overtaken, 0, "a refused write came after a newer one");
    api.await_well();
}

#[test]
fn the_workers_link_to_kafka_is_slowed_cut_and_silenced() {
    maltreat_the_workers_link_to_kafka(Deployment::beside_others(), "workers' link to Kafka");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn the_link_to_kafka_of_workers_of_two_lanes_is_slowed_cut_and_silenced() {
    maltreat_the_workers_link_to_kafka(Deployment::beside_others().with_lanes(2), "two lanes' link to Kafka");
}

fn maltreat_the_workers_link_to_kafka(deployment: Deployment, link: &str) {
    // The schema is otherwise the workers' to make, and they come later here.
    assert!(deployment.command(&["migrate"]).status.success());
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let deployment = deployment.behind_network(&["KAFKA_BROKERS"]);
    let _workers = deployment.workers::<2>();
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    writers.await_accepted(500);
    let healed_at = maltreat(deployment.network().kafka(), &writers);
    account(&format!("{link} slow, cut, silent"), &deployment, &both, writers, healed_at);
}

#[test]
fn all_links_fail_at_random() {
    const FAULTS: usize = 20;
    let seed = std::env::var("FAULTS_SEED")
        .map_or_else(|_| TodoId::new().as_u128() as u64, |text| text.parse().expect("FAULTS_SEED is a number"));
    say(&format!("all links at random: FAULTS_SEED={seed} replays the choice of the faults"));
    let mut random = Random::new(seed);
    let deployment = Deployment::new().set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&SERVERS);
    let _workers = deployment.workers::<2>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    writers.await_accepted(300);
    for _ in 0..FAULTS {
        let link = deployment.network().links()[random.below(3)];
        match random.below(8) {
            0 => link.slow(SLOW_LATENCY, SLOW_RATE),
            1 => link.silence(Way::ToServer),
            2 => link.silence(Way::ToClient),
            3 => link.black_hole(),
            4 => link.refuse(),
            5 => link.cut(),
            _ => link.heal(),
        }
        std::thread::sleep(Duration::from_millis(100 + random.below(1_000) as u64));
    }
    deployment.network().links().iter().for_each(|link| link.heal());
    let healed_at = Instant::now();
    writers.await_accepted(200);
    account(&format!("all links at random ({seed})"), &deployment, &both, writers, healed_at);
}
