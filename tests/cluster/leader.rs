//! The leader of partitions dies, falls silent, stops or is moved, with several requests on their way.

use std::time::{Duration, Instant};

use crate::brokers::{BROKERS, await_in_sync, deployment, leaders, rotate_leaders};
use crate::deployment::{ACK_TIMEOUT, Api, Deployment};
use crate::history::{Fate, History};
use crate::log::Log;
use crate::outage::{Outage, Service};
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};
use crate::{rounds, say};

/// How much longer than its deadline an answer may take on a busy machine, before it counts as a hang.
pub const LENIENCY: Duration = Duration::from_secs(15);
/// How long a broker is away: longer than the cluster waits for it.
const AWAY: Duration = Duration::from_secs(10);

/// Several requests of each client are on their way at any time.
pub const LOAD: Load = Load {
    connections: 8,
    depth: 16,
    todos: 20,
    writes_of_a_todo: 9,
    description_bytes: 0,
    goal: usize::MAX,
    pause: Duration::from_millis(20),
};

/// Ends the writing, waits for convergence and checks all promises.
pub fn account(fault: &str, deployment: &Deployment, api: &Api, writers: Writers, healed_at: Instant) -> History {
    let history = writers.finish();
    let healed = await_shown(&[api], &history, healed_at);
    let slowest = history.slowest_answer;
    let account = judge(fault, deployment, &[api], &history, healed);
    let in_sync = await_in_sync(deployment);
    say(&format!(
        "{fault}: slowest answer {:.1} s; replicas in sync {:.1} s later",
        slowest.as_secs_f64(),
        in_sync.as_secs_f64()
    ));
    assert!(slowest < ACK_TIMEOUT + LENIENCY, "an answer took {slowest:?}");
    assert_eq!(account.overtaken, 0, "a refused write came after a newer one");
    api.await_well();
    history
}

/// Says how many refused writes were for partitions of the broker that was away, and how many for others.
fn say_who_suffered(fault: &str, deployment: &Deployment, history: &History, of_the_broker: &[i32]) {
    let mut log = Log::open(deployment);
    log.catch_up();
    let partition_of =
        |id: &str| log.records.iter().find(|record| record.text("id") == Some(id)).map(|it| it.partition);
    let (mut own, mut others, mut unknown) = (0, 0, 0);
    for life in &history.lives {
        let refused = life.writes.iter().filter(|write| write.fate == Fate::Refused).count();
        match life.id.as_deref().and_then(partition_of) {
            Some(partition) if of_the_broker.contains(&partition) => own += refused,
            Some(_) => others += refused,
            None => unknown += refused,
        }
    }
    say(&format!(
        "{fault}: refused for its own partitions {own}, for those of the other brokers {others}, creates {unknown}"
    ));
}

/// Waits while a broker is away, and says how many writes were taken and refused in each second.
fn watch(fault: &str, writers: &Writers) {
    let counts = || (writers.accepted(), writers.refused());
    let mut seconds = Vec::new();
    for _ in 0..AWAY.as_secs() {
        let before = counts();
        std::thread::sleep(Duration::from_secs(1));
        let after = counts();
        seconds.push(format!("{}/{}", after.0 - before.0, after.1 - before.1));
    }
    say(&format!("{fault}: taken/refused by the second: {}", seconds.join(" ")));
}

fn led_by(deployment: &Deployment, broker: i32) -> Vec<i32> {
    leaders(deployment).into_iter().filter(|(_, leader)| *leader == broker).map(|(partition, _)| partition).collect()
}

/// Has a broker that leads partitions go away under writes, and come back.
fn leave(broker: i32, how: &str, go: impl FnOnce(Service) -> Outage) {
    let deployment = deployment();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(LOAD, &[Target::new(api.address)]);
    writers.await_accepted(1_000);
    let own = led_by(&deployment, broker);
    let outage = go(Service::Broker(broker));
    let gone_at = Instant::now();
    watch(&format!("broker {broker} {how}"), &writers);
    writers.await_accepted(1_000);
    say(&format!(
        "broker {broker} {how}: 1,000 writes taken without it {:.1} s later",
        gone_at.elapsed().as_secs_f64()
    ));
    outage.end();
    let back_at = Instant::now();
    writers.await_accepted(500);
    let fault = format!("broker {broker}, leader of {} partitions, {how}", own.len());
    let history = account(&fault, &deployment, &api, writers, back_at);
    say_who_suffered(&fault, &deployment, &history, &own);
}

#[test]
fn the_leader_is_killed() {
    BROKERS.into_iter().take(rounds()).for_each(|broker| leave(broker, "killed (-9)", Service::kill));
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn the_leader_is_frozen() {
    BROKERS.into_iter().rev().take(rounds()).for_each(|broker| leave(broker, "frozen (SIGSTOP)", Service::freeze));
}

#[test]
fn leaders_are_moved() {
    let deployment = deployment();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(LOAD, &[Target::new(api.address)]);
    writers.await_accepted(1_000);
    for _ in 0..2 * rounds() {
        rotate_leaders(&deployment);
        writers.await_accepted(500);
    }
    account(&format!("leaders moved {} times", 2 * rounds()), &deployment, &api, writers, Instant::now());
}

#[test]
fn all_brokers_are_restarted_in_turn() {
    let deployment = deployment();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(LOAD, &[Target::new(api.address)]);
    writers.await_accepted(500);
    for _ in 0..rounds() {
        for broker in BROKERS {
            let outage = Service::Broker(broker).stop();
            writers.await_accepted(300);
            outage.end();
            await_in_sync(&deployment);
        }
    }
    account("all brokers restarted in turn", &deployment, &api, writers, Instant::now());
}
