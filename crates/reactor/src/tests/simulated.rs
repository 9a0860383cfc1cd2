//! Seeded histories without a kernel: echoes in all manners, judged against what an echo is.
//!
//! `REACTOR_SEED=42 cargo test -p reactor simulated` plays one history again.

use super::*;
use crate::backend::simulated::{Ending, Script, Seen, Simulation};

/// Histories of a run.
const HISTORIES: u64 = 2_000;
/// Most clients of a history.
const CLIENTS_MAX: u64 = 6;
/// Most bytes that a client sends.
const BYTES_MAX: u64 = 60_000;
/// How long an echo looks away now and then, at most, in microseconds.
const PAUSE_MAX_US: u64 = 5_000;

/// Sends back what comes of a client, in one manner or another at each time; then the end.
async fn echo(simulation: Simulation, reactor: Rc<Reactor>, socket: Socket) {
    loop {
        if simulation.below(20) == 0 {
            reactor.sleep(Duration::from_micros(simulation.below(PAUSE_MAX_US))).await;
        }
        if simulation.below(20) == 0 {
            reactor.next_turn().await;
        }
        let asks = simulation.below(2) == 0;
        let received = poll_fn(|_| {
            if let Some(unsent) = socket.take_unsent() {
                return Poll::Ready(Err(unsent));
            }
            let received = if asks { socket.poll_request() } else { socket.poll_receive() };
            received.map_ok(|received| received.to_vec()).map(Ok)
        })
        .await;
        let bytes = match received {
            Err(Unsent { bytes, length, sent: Ok(sent) }) => bytes[sent..length].to_vec(),
            Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
            // The end, or a reset.
            Ok(_) | Err(_) => return,
        };
        let manner = match simulation.below(4) {
            0 => SendManner::Expected,
            1 => SendManner::Urgent,
            2 => SendManner::Patient,
            _ => {
                let length = bytes.len();
                socket.send_shared(bytes.into(), length);
                continue;
            }
        };
        if send_all(&socket, bytes, manner).await.is_err() {
            return;
        }
    }
}

/// Echoes what comes in whole buffers that begin with an even byte.
struct EvenAtOnce;

impl FastPath for EvenAtOnce {
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        received[0].is_multiple_of(2).then(|| (received.into(), received.len()))
    }

    fn idle_until(&self) -> u64 {
        1
    }
}

/// Plays a history, judges it, and gives its trace.
fn play(seed: u64) -> u64 {
    let simulation = Simulation::new(seed);
    let clients: Vec<(Script, RawFd)> = (0..1 + simulation.below(CLIENTS_MAX))
        .map(|_| {
            let length = simulation.below(1 + simulation.below(BYTES_MAX)) as usize;
            let from = simulation.below(251) as usize;
            let sends: Vec<u8> = (from..from + length).map(|at| (at * 7 % 251) as u8).collect();
            let resets = simulation.below(4) == 0;
            let ending =
                if resets { Ending::ResetsAfter(simulation.below(BYTES_MAX) as usize) } else { Ending::ShutsDown };
            let slowness = 1 + simulation.below(3) * simulation.below(100);
            let script = Script { sends, ending, slowness, ..Script::default() };
            (script.clone(), simulation.connect(script))
        })
        .collect();
    let reactor = Reactor::simulated(simulation.clone(), Driver::IoUring).expect("a descriptor");
    let fast_path = Rc::new(EvenAtOnce);
    let weak: Weak<EvenAtOnce> = Rc::downgrade(&fast_path);
    reactor.set_fast_path(weak);
    let goal = Goal::default();
    let left = Rc::new(Cell::new(clients.len()));
    for (_, descriptor) in &clients {
        let socket = Socket::new(Detached::of(&reactor, *descriptor)).expect("a socket");
        let (simulation, own, left, goal) = (simulation.clone(), Rc::clone(&reactor), Rc::clone(&left), goal.clone());
        reactor.spawn(async move {
            echo(simulation, own, socket).await;
            left.set(left.get() - 1);
            if left.get() == 0 {
                goal.reach();
            }
        });
    }
    let (reader, all) = (simulation.clone(), clients.clone());
    let own = Rc::clone(&reactor);
    let ended = reactor.block_on(async move {
        goal.wait().await;
        // Those who read slowly still read.
        let reading = Goal::default();
        let read = reading.clone();
        let sleeper = Rc::clone(&own);
        own.spawn(async move {
            let has_seen_all = || {
                all.iter()
                    .all(|(_, descriptor)| matches!(reader.seen(*descriptor), Seen { end, reset, .. } if end || reset))
            };
            while !has_seen_all() {
                sleeper.sleep(Duration::from_millis(100)).await;
            }
            read.reach();
        });
        reading.wait().await;
    });
    assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    assert!(
        reactor.is_at_rest() && simulation.descriptors() == 0,
        "seed {seed}: sockets, or bytes that were received, have not come back"
    );
    for (script, descriptor) in clients {
        let Seen { read, end, reset, .. } = simulation.seen(descriptor);
        assert!(script.sends.starts_with(&read), "seed {seed}: client {descriptor} has read something else");
        assert!(reset || end && read == script.sends, "seed {seed}: client {descriptor}: {} bytes", read.len());
        assert!(!reset || script.ending != Ending::ShutsDown, "seed {seed}: client {descriptor} was reset");
    }
    simulation.trace()
}

#[test]
fn each_echo_is_whole_and_in_order_whatever_happens_when() {
    let seed = std::env::var("REACTOR_SEED").ok().map(|seed| seed.parse().expect("a number"));
    match seed {
        Some(seed) => println!("seed {seed}: trace {:x}", play(seed)),
        None => (0..HISTORIES).for_each(|seed| {
            play(seed);
        }),
    }
}

#[test]
fn a_seed_plays_the_same_history_again_and_another_seed_another_one() {
    for seed in 0..20 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
        assert_ne!(play(seed), play(seed + 1), "seed {seed}");
    }
}

#[test]
fn a_task_that_nobody_wakes_is_found() {
    let reactor = Reactor::simulated(Simulation::new(1), Driver::IoUring).expect("a descriptor");
    let never = reactor.block_on(std::future::pending::<()>());
    assert!(never.expect_err("it cannot go on").to_string().contains("nothing can happen"));
}

#[test]
fn a_day_passes_in_a_moment() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let reactor = Reactor::simulated(Simulation::new(1), Driver::IoUring).expect("a descriptor");
    let began_at = reactor.now();
    let (goal, sleeper) = (Goal::default(), Rc::clone(&reactor));
    let ended = goal.clone();
    reactor.spawn(async move {
        sleeper.sleep(DAY).await;
        ended.reach();
    });
    reactor.block_on(goal.wait()).expect("time passes");
    assert!(reactor.now() - began_at >= DAY);
}
