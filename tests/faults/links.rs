//! The network between processes and servers is slowed, cut and silenced while clients write.

use std::time::{Duration, Instant};

use million_rps::todo::TodoId;

use crate::deployment::{ACK_TIMEOUT, Api, Deployment};
use crate::harness::process::Process;
use crate::harness::proxy::{Proxy, Way};
use crate::harness::random::Random;
use crate::history::History;
use crate::network::{SERVERS, SLOW_LATENCY, SLOW_RATE};
use crate::say;
use crate::verdict::{Account, await_shown, judge};
use crate::writers::{Load, Target, Writers};

/// How much longer than its deadline an answer may take on a busy machine, before it counts as a hang.
const LENIENCY: Duration = Duration::from_secs(10);
/// How long a link is silent: longer than Redis is waited for, longer than PostgreSQL lets a transaction idle, longer than
/// a group of workers waits for a member.
const SILENCE: Duration = Duration::from_secs(10);
/// The list expires so often that it is loaded through the bad network too.
const CACHE_TTL_SEC: &str = "3";

/// Slows the link, cuts it again and again, then silences it; returns when it is well again.
fn maltreat(link: &Proxy, writers: &Writers) -> Instant {
    link.slow(SLOW_LATENCY, SLOW_RATE);
    std::thread::sleep(Duration::from_secs(2));
    for _ in 0..5 {
        link.cut();
        std::thread::sleep(Duration::from_millis(400));
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
    let deployment = Deployment::new().set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&["DATABASE_URL"]);
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
    account("link to PostgreSQL slow, cut, silent", &deployment, &both, writers, healed_at);
}

#[test]
fn the_link_to_redis_is_slowed_cut_and_silenced() {
    let deployment = Deployment::new().set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&["REDIS_URL"]);
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
    account("link to Redis slow, cut, silent", &deployment, &both, writers, healed_at);
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
    let healed_at = maltreat(&deployment.network().kafka, &writers);
    let account = account("APIs' link to Kafka slow, cut, silent", &deployment, &both, writers, healed_at);
    assert!(account.refused > 0, "nobody can take writes while the log is out of reach");
    assert_eq!(account.overtaken, 0, "a refused write came after a newer one");
}

#[test]
fn the_workers_link_to_kafka_is_slowed_cut_and_silenced() {
    let deployment = Deployment::new();
    // The schema is otherwise the workers' to make, and they come later here.
    assert!(deployment.command(&["migrate"]).status.success());
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let deployment = deployment.behind_network(&["KAFKA_BROKERS"]);
    let _workers = deployment.workers::<2>();
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    writers.await_accepted(500);
    let healed_at = maltreat(&deployment.network().kafka, &writers);
    account("workers' link to Kafka slow, cut, silent", &deployment, &both, writers, healed_at);
}

#[test]
fn all_links_fail_at_random() {
    const FAULTS: usize = 25;
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

/// Attempts to connect to one server that an API process and a worker together may make in a second while it is away: what
/// notices its return soon enough, and loads nobody.
const ATTEMPTS_MAX_PER_SECOND: f64 = 20.0;
/// Part of a core that a process may use while there is nothing to do but wait; a loop without a pause would use all of one.
const WAITING_CPU_MAX: f64 = 0.3;

#[test]
fn processes_whose_servers_are_away_wait_at_rest() {
    let deployment = Deployment::new().set("CACHE_TTL_SEC", CACHE_TTL_SEC).behind_network(&SERVERS);
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
    assert!(api.list().body == last_list, "reads go on from the last list");
    links.iter().for_each(|link| link.heal());
    let healed_at = Instant::now();
    let writers = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]);
    history.merge(writers.until_goal());
    let healed = await_shown(&[&api], &history, healed_at);
    judge("all servers away for 10 s and more", &deployment, &[&api], &history, healed);
    api.await_well();
}

/// Looks for some seconds at what two processes do that can only wait.
fn rest(fault: &str, api: &Api, worker: &Process, links: [&Proxy; 3]) {
    let processes = [&api.process, worker];
    let (attempts_before, cpu_before) = (links.map(Proxy::connections), processes.map(Process::cpu_time));
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    let seconds = start.elapsed().as_secs_f64();
    let (attempts, cpu) = (links.map(Proxy::connections), processes.map(Process::cpu_time));
    let cores = [0, 1].map(|at| (cpu[at] - cpu_before[at]).as_secs_f64() / seconds);
    let rates = [0, 1, 2].map(|at| (attempts[at] - attempts_before[at]) as f64 / seconds);
    say(&format!(
        "{fault}: the API uses {:.3} of a core, the worker {:.3}; attempts a second: PostgreSQL {:.1}, Kafka {:.1}, Redis \
         {:.1}",
        cores[0], cores[1], rates[0], rates[1], rates[2]
    ));
    assert!(cores.iter().all(|used| *used < WAITING_CPU_MAX), "{fault}: {cores:?} of a core");
    assert!(rates.iter().all(|rate| *rate < ATTEMPTS_MAX_PER_SECOND), "{fault}: {rates:?} a second");
}
