//! Seeded histories of a whole shard, without a kernel: connections, requests, writes, deadlines and the drain on the simulated
//! backend of the reactor, judged against a plain model of HTTP.
//!
//! `SHARD_SEED=42 cargo test --lib histories -- --nocapture` plays one history again, the same to the byte but for new ids.

mod judge;
mod lists;
mod plan;
mod planted;
mod writer;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reactor::{Driver, Port, Reactor, Simulation};

use self::lists::{LISTS, List, USER};
use self::plan::Plan;
pub use self::planted::Fault;
use self::writer::{Fate, Fates};
use super::connection_memory::ConnectionMemory;
use super::followers::EventSettings;
use super::page::Desk;
use super::places::Places;
use super::{Settings, ShardParts};
use crate::auth::{Key, KeySet, OtherKeys, mint};
use crate::change_feed::News;
use crate::config::{Auth, ReadyDetails, Secret};
use crate::contract::{Bounds, Contract};
use crate::observe::metrics::{Metrics, ShardMetrics};
use crate::snapshot::OldLists;
use crate::static_document::StaticDocument;
use crate::wires::inbox::{Inbox, InboxSender, Message};

/// Histories of a run.
const HISTORIES: u64 = 10_000;
/// Most clients of a history.
const CLIENTS_MAX: u64 = 5;
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest life of a history before its drain: each client's requests, silences, and the deadlines of all of them.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// Longest drain: the longest of all deadlines, of a client that still sends.
const DRAIN_MAX: Duration = Duration::from_secs(40);
/// When a drain begins that does not wait for the clients.
const EARLY_MAX_MS: u64 = 400;
/// The same for the next version of the list.
const NEXT_LIST_MS: u64 = 60;

static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new("0123456789abcdef0123456789abcdef"));
static KEYS: LazyLock<Arc<KeySet>> =
    LazyLock::new(|| Arc::new(KeySet::new([Key::from_secret(&SECRET)]).expect("one is not too many")));
static PAGE: LazyLock<Arc<StaticDocument>> = LazyLock::new(|| Arc::new(crate::page::document()));
static CONTRACT: LazyLock<Arc<Contract>> = LazyLock::new(|| Arc::new(Contract::new(&Bounds::default())));
/// A token that is good for the time of all histories.
static TOKEN: LazyLock<String> = LazyLock::new(|| {
    mint(&SECRET, &Auth::default(), USER, Duration::from_secs(3600), 1_800_000_000).expect("a plain name")
});

/// What a history was like.
pub struct History {
    lists: &'static [List],
    /// Versions of them that the shard was given.
    versions: usize,
    fates: Vec<Fate>,
    /// The process drained while clients were there.
    drained_early: bool,
    is_drained: bool,
    /// Descriptors ran short.
    is_short: bool,
    /// There were more clients than places.
    has_few_places: bool,
}

fn settings(simulation: &Simulation) -> Settings {
    Settings {
        header_timeout: HEADER_TIMEOUT,
        body_timeout: HEADER_TIMEOUT,
        write_timeout: Duration::from_secs(2),
        write_rate_min_bytes: 1,
        write_rate_grace: Duration::from_secs(2),
        idle_timeout: IDLE_TIMEOUT,
        ack_timeout: ACK_TIMEOUT,
        body_max_bytes: 64 * 1024,
        array_body_max_bytes: 64 * 1024,
        array_max_todos: 100,
        text_limits: Default::default(),
        ready_details: ReadyDetails::Off,
        commands_max: [3, 1_000][simulation.below(2) as usize],
        command_bytes_max: 1 << 20,
        events: EventSettings {
            heartbeat: Duration::from_secs(10),
            history_max_bytes: 1 << 20,
            history_age: Duration::from_secs(60),
            unsent_max_bytes: 1 << 20,
        },
        cors: Arc::default(),
        desk: Desk {
            page: Arc::clone(&PAGE),
            contract: Arc::clone(&CONTRACT),
            minter: None,
            user_claim: Arc::default(),
        },
    }
}

/// Hands out newer lists, and has the shard drain when its clients have had all that they wait for, or before.
async fn direct(
    simulation: Simulation,
    reactor: Rc<Reactor>,
    inbox: InboxSender,
    lists: &'static [List],
    early: Option<Duration>,
    ended: Rc<Cell<Ended>>,
) {
    let mut version = 1;
    let drained_at = loop {
        reactor.sleep(Duration::from_millis(5 + simulation.below(NEXT_LIST_MS))).await;
        if let Some(List { snapshot, .. }) = lists.get(version).filter(|_| simulation.below(4) == 0) {
            let base = lists[version - 1].snapshot.position();
            inbox.send(Message::Snapshot(Arc::clone(snapshot), Arc::new(News::since(base))));
            version += 1;
            ended.set(Ended { versions: version, ..ended.get() });
        }
        let (now, is_over) = (simulation.elapsed(), simulation.is_over());
        if is_over || early.is_some_and(|early| now >= early) || now >= LIFE_MAX {
            ended.set(Ended { is_early: !is_over, is_late: now >= LIFE_MAX, ..ended.get() });
            break now;
        }
    };
    inbox.send(Message::Drain);
    while simulation.elapsed() < drained_at + DRAIN_MAX {
        reactor.sleep(Duration::from_millis(200)).await;
    }
    ended.set(Ended { is_late: true, ..ended.get() });
    inbox.send(Message::Abandon);
}

/// How a history has ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    versions: usize,
    is_early: bool,
    /// The clients, or the drain, took longer than all deadlines.
    is_late: bool,
}

/// Plays a history, judges it, and gives its trace; `Err` says what is wrong with it.
fn play(seed: u64) -> Result<u64, String> {
    // Another test of the same program may have a log written, which has thousands of lines of descriptors that run out.
    let _quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    let simulation = Simulation::new(seed);
    let below = |bound: u64| simulation.below(bound);
    let list = below(LISTS.len() as u64) as usize;
    let lists = LISTS[list].as_slice();
    let clients = 1 + below(CLIENTS_MAX);
    let plans: Vec<(Plan, _)> = (0..clients)
        .map(|client| {
            let plan = plan::plan(&simulation, list, client as usize);
            let descriptor = simulation.connect(plan.script.clone());
            (plan, descriptor)
        })
        .collect();
    let driver = if below(2) == 0 { Driver::IoUring } else { Driver::Epoll };
    let (is_short, has_few_places, is_early) = (below(6) == 0, below(10) == 0, below(6) == 0);
    if is_short {
        simulation.run_short_of_descriptors(8);
    }
    if Fault::BufferReturnedTwice.is_planted() {
        simulation.give_back_twice();
    }
    let reactor = Reactor::simulated(simulation.clone(), driver).map_err(|error| error.to_string())?;
    let places_max = if has_few_places { 1 } else { clients as usize };
    let (inbox, submissions) = (Inbox::new(), crossbeam_channel::bounded(64));
    let metrics = Arc::new(ShardMetrics::default());
    let (places, memory) = (Places::new(places_max), ConnectionMemory::new(64 << 20));
    let parts = ShardParts {
        number: 0,
        cpu: None,
        driver,
        port: Port::Simulated,
        listens_with_list: below(2) == 0,
        settings: settings(&simulation),
        places: Arc::clone(&places),
        memory,
        lingering_places: Places::new(clients as usize),
        follower_places: Places::new(4),
        inbox: (inbox.0.clone(), inbox.1),
        submissions: submissions.0,
        new_ids: Arc::default(),
        wishes: None,
        keys: Arc::clone(&KEYS),
        key_asks: None,
        other_keys: Arc::new(OtherKeys::find(&Auth::default(), None)),
        auth: Auth::default(),
        user_rates: None,
        room: None,
        metrics: Arc::new(Metrics {
            shards: vec![Arc::clone(&metrics)],
            producer: Arc::default(),
            refresher: Arc::default(),
            encoder: Arc::default(),
            old_lists: OldLists::new(None, 1),
            status: Arc::default(),
            worker: None,
        }),
    };
    let news = News::since(lists[0].snapshot.position());
    inbox.0.send(Message::Snapshot(Arc::clone(&lists[0].snapshot), Arc::new(news)));
    let (fates, ended) = (Fates::default(), Rc::new(Cell::new(Ended { versions: 1, ..Ended::default() })));
    let early = is_early.then(|| Duration::from_millis(below(EARLY_MAX_MS)));
    let writing =
        writer::write(simulation.clone(), Rc::clone(&reactor), submissions.1, inbox.0.clone(), Rc::clone(&fates));
    let directing = direct(simulation.clone(), Rc::clone(&reactor), inbox.0.clone(), lists, early, Rc::clone(&ended));
    let main = {
        let reactor = Rc::clone(&reactor);
        async move {
            reactor.spawn(writing);
            reactor.spawn(directing);
            super::run(parts, reactor).await
        }
    };
    reactor.block_on(main).and_then(|ended| ended).map_err(|error| error.to_string())?;

    let ended = ended.get();
    let history = History {
        lists,
        versions: ended.versions,
        fates: fates.take(),
        drained_early: ended.is_early,
        is_drained: ended.is_early,
        is_short,
        has_few_places,
    };
    for (at, (plan, descriptor)) in plans.iter().enumerate() {
        let seen = simulation.seen(*descriptor);
        judge::judge(&history, plan, &seen).map_err(|wrong| format!("client {at}: {wrong}"))?;
    }
    let open = simulation.descriptors();
    let not_accepted = clients - metrics.connections_accepted.get().min(clients);
    match () {
        () if ended.is_late => Err("clients or the drain took longer than all deadlines".to_owned()),
        () if metrics.panics.get() > 0 => Err("a connection panicked".to_owned()),
        () if !reactor.is_at_rest() => Err("sockets are open, or received bytes have not come back once".to_owned()),
        () if u64::from(open) > not_accepted => Err(format!("{open} descriptors are open")),
        () if !has_all_places(&places, places_max) => Err("a place has not been given back".to_owned()),
        () => Ok(simulation.trace()),
    }
}

fn has_all_places(places: &Arc<Places>, number: usize) -> bool {
    (0..number).map(|_| places.take()).collect::<Vec<_>>().iter().all(Option::is_some)
}

/// The same, with a panic as what is wrong.
fn judge_seed(seed: u64) -> Result<u64, String> {
    let played = std::panic::catch_unwind(|| play(seed));
    played.unwrap_or_else(|_| Err("a panic".to_owned()))
}

#[test]
fn each_request_is_answered_once_in_order_and_in_time_whatever_happens_when() {
    if let Some(seed) = std::env::var("SHARD_SEED").ok().map(|seed| seed.parse().expect("a number")) {
        println!("seed {seed}: {:x?}", play(seed));
        return;
    }
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (thread..HISTORIES).step_by(threads as usize) {
                    if let Err(wrong) = judge_seed(seed) {
                        panic!("SHARD_SEED={seed}: {wrong}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_seed_plays_the_same_history_of_the_shard_again() {
    for seed in 0..20 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
        assert_ne!(play(seed), play(seed + 1), "seed {seed}");
    }
}

#[test]
fn each_planted_fault_is_found() {
    let found = planted::FOUND_BY.map(|(fault, _)| {
        let _planted = planted::plant(fault);
        (fault, (0..HISTORIES).find(|seed| judge_seed(*seed).is_err()).unwrap_or(HISTORIES))
    });
    assert_eq!(found, planted::FOUND_BY);
}
