//! Processes whose servers are away: they wait at rest, and serve what they have.

use std::time::{Duration, Instant};

use crate::deployment::{Api, Deployment};
use crate::harness::process::Process;
use crate::network::SERVERS;
use crate::proxy::Proxy;
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

/// So short that the list is to be loaded anew while the servers are away.
const CACHE_TTL_SEC: &str = "3";
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
    judge("all servers away for a while", &deployment, &[&api], &history, healed);
    api.await_well();
}

/// Looks for some seconds at what two processes do that can only wait.
fn rest(fault: &str, api: &Api, worker: &Process, links: [&Proxy; 3]) {
    let processes = [&api.process, worker];
    let (attempts_before, cpu_before) = (links.map(Proxy::connections), processes.map(cpu_time));
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    let seconds = start.elapsed().as_secs_f64();
    let (attempts, cpu) = (links.map(Proxy::connections), processes.map(cpu_time));
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

/// CPU time that all threads of a process together have used so far, to the hundredth of a second.
fn cpu_time(process: &Process) -> Duration {
    let line = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("it runs");
    // Behind the name, which may hold spaces: utime and stime are fields 14 and 15 of proc_pid_stat(5), in ticks.
    let (_, fields) = line.rsplit_once(") ").expect("the name ends");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    // SAFETY: plain call of the C library that only returns a number.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64)
}
