//! A shard: one thread, pinned to one CPU, with its own ring, its own listener and its own connections. It shares nothing
//! that another thread writes per request, but for the rates of users, which only writes meet and only where they are limited.
//! Its tasks run on a [reactor] of its own.
//!
//! ```text
//! listener -> connection: input -> dispatch (http: parse, route) -> output -> socket
//!              |                      |  ^
//!              +-> reads: recognise,  |  writes: in_flight -> queue -> producer
//!                  serve              |  ^
//!                    ^                +--+
//!                  inbox: snapshots, acknowledgements, drain
//! ```

mod admission;
mod answer;
mod arrays;
mod authorize;
mod clock;
mod connection;
pub mod connection_memory;
mod dispatch;
mod documents;
pub mod driver;
pub mod followers;
#[cfg(test)]
mod histories;
mod input;
mod lingering;
pub mod listener;
mod lists;
mod long_writes;
mod outcome;
mod output;
pub mod page;
pub mod placement;
pub mod places;
mod reads;
pub mod registry;
mod reply;
mod settings;
mod spare_buffers;
mod turns;
mod write_watch;
pub mod writes;

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;
use reactor::{Driver, Listener, Port, Reactor};

use self::clock::{Clock, TICK};
use self::connection_memory::{ConnectionMemory, ShardMemory};
use self::documents::Document;
use self::followers::Followers;
use self::lingering::Lingering;
use self::long_writes::LongWrites;
use self::places::Places;
use self::reads::{HASH_KEY_BYTES, Reads};
use self::registry::{NEVER, Phase, Registry};
pub use self::settings::Settings;
use self::spare_buffers::{SPARE_LIFETIME, SpareBuffers};
use self::turns::Turns;
use self::writes::Writes;
use self::writes::room::ListRoom;
use self::writes::user_rates::UserRates;
use crate::auth::{KeySet, OtherKeys, Verifier};
use crate::change_feed::News;
use crate::command_log::new_ids::NewIds;
use crate::config::Auth;
use crate::limits::{CLOSINGS_TURN_MAX, LINGER_SILENCE_MS, PIPELINES_TURN_MAX};
use crate::observe::metrics::{Metrics, ShardMetrics};
use crate::producer::SubmissionQueue;
use crate::snapshot::Snapshot;
use crate::todo::JsonParser;
use crate::wires::inbox::{Inbox, InboxSender, Message};
use crate::wires::pages::WishQueue;

/// How long an idle connection gets to send one more request while the process drains. It is answered with
/// `Connection: close`; closing at once would lose a request that is on its way. Also how long a write goes on waiting until
/// it shows: a process that leaves may have no worker any more to make it so.
pub const DRAIN_IDLE_GRACE: Duration = Duration::from_millis(500);
/// How long a connection waits for its client's end, or for more of it, after the last answer.
pub const LINGER_SILENCE: Duration = Duration::from_millis(LINGER_SILENCE_MS);
/// How often a draining shard looks whether its last connection has left.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What a shard is made of.
pub struct ShardParts {
    /// Its number, from 0.
    pub number: usize,
    /// Where it runs.
    pub cpu: Option<CoreId>,
    /// How it does I/O.
    pub driver: Driver,
    /// What it accepts from.
    pub port: Port,
    /// Whether it begins to listen with the first list; else it listens already.
    pub listens_with_list: bool,
    /// Its bounds.
    pub settings: Settings,
    /// Where its connections take their places, as those of all shards.
    pub places: Arc<Places>,
    /// What the buffers of its connections are of.
    pub memory: Arc<ConnectionMemory>,
    /// The same as `places` for those that linger.
    pub lingering_places: Arc<Places>,
    /// The same for those that follow the list.
    pub follower_places: Arc<Places>,
    /// Its inbox, and the sending end for itself.
    pub inbox: (InboxSender, Inbox),
    /// Where its commands go.
    pub submissions: SubmissionQueue,
    /// Makes the ids of new todos.
    pub new_ids: Arc<NewIds>,
    /// Where it leaves wishes for lists in content codings; `None`: all answers are identity.
    pub wishes: Option<WishQueue>,
    /// The keys of the tokens.
    pub keys: Arc<KeySet>,
    /// Where it asks for newer ones; `None`: none come from an address.
    pub key_asks: Option<crossbeam_channel::Sender<()>>,
    /// Keys that tokens are not taken with, for the log.
    pub other_keys: Arc<OtherKeys>,
    /// What else a token has to have.
    pub auth: Auth,
    /// How fast users may write, where that is limited.
    pub user_rates: Option<Arc<UserRates>>,
    /// How much the list may hold, where that is limited.
    pub room: Option<Arc<ListRoom>>,
    /// All metrics of the process; its own block is `metrics.shards[number]`.
    pub metrics: Arc<Metrics>,
}

/// Starts a shard's thread. It ends when it has drained, or when it is told to abandon its connections; `at_end` is
/// dropped then, also after a panic.
///
/// # Errors
/// The system refuses another thread.
pub fn start(parts: ShardParts, at_end: impl Send + 'static) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    std::thread::Builder::new().name(format!("shard-{}", parts.number)).spawn(move || {
        let _at_end = at_end;
        if !placement::pin(parts.cpu) {
            tracing::warn!(shard = parts.number, "the thread could not be pinned to its CPU; going on without");
        }
        let driver = parts.driver;
        let reactor = Reactor::new(driver).map_err(|reason| driver::cannot_be_had(driver, reason))?;
        reactor.block_on(run(parts, Rc::clone(&reactor)))?
    })
}

async fn run(parts: ShardParts, reactor: Rc<Reactor>) -> std::io::Result<()> {
    let mut idle_port = Some(parts.port);
    let (own_inbox, inbox) = parts.inbox;
    let registry = Rc::new(Registry::new(parts.settings.shortest_timeout(), parts.settings.write_limits()));
    let own_metrics = Arc::clone(&parts.metrics.shards[parts.number]);
    let mut hash_key = [0; HASH_KEY_BYTES];
    reactor.fill_random(&mut hash_key)?;
    let clock = Rc::new(Clock::new(&reactor));
    let cors = Arc::clone(&parts.settings.cors);
    let shard = Rc::new(Shard {
        writes: Writes::new(
            parts.number,
            &parts.settings,
            parts.submissions,
            parts.new_ids,
            parts.user_rates,
            parts.room,
            Arc::clone(&own_metrics),
        ),
        followers: Rc::new(Followers::new(parts.settings.events.clone(), parts.follower_places)),
        settings: parts.settings,
        places: parts.places,
        memory: ShardMemory::new(parts.memory),
        lingering: RefCell::new(Lingering::new(parts.lingering_places)),
        reads: Reads::new(parts.wishes, Rc::clone(&clock), Arc::clone(&own_metrics), hash_key, cors),
        verifier: RefCell::new(Verifier::new(parts.keys, &parts.auth).asking(parts.key_asks)),
        other_keys: parts.other_keys,
        parser: RefCell::default(),
        body: RefCell::default(),
        metrics: own_metrics,
        all_metrics: parts.metrics,
        metrics_text: RefCell::default(),
        ready_texts: RefCell::default(),
        clock,
        registry,
        spare_buffers: RefCell::default(),
        long_writes: LongWrites::new(parts.driver, &reactor),
        pipelines: Rc::new(Turns::new(PIPELINES_TURN_MAX)),
        closings: Rc::new(Turns::new(CLOSINGS_TURN_MAX)),
        has_closed: Cell::new(false),
        draining: Cell::new(false),
        is_accepting: Cell::new(false),
        reactor: Rc::clone(&reactor),
    });
    let fast_path: Weak<Shard> = Rc::downgrade(&shard);
    reactor.set_fast_path(fast_path);
    reactor.spawn(Rc::clone(&shard).tick_for_ever(parts.number));
    for turns in [&shard.pipelines, &shard.closings] {
        reactor.spawn(Rc::clone(turns).turn_for_ever(Rc::clone(&reactor)));
    }
    let mut accepting = None;
    if !parts.listens_with_list
        && let Some(port) = idle_port.take()
    {
        accepting = Some(shard.accept(port)?);
    }

    while let Some(message) = inbox.next().await {
        match message {
            Message::Snapshot(snapshot, news) => {
                shard.swap(snapshot, &news);
                if let Some(port) = idle_port.take() {
                    port.socket().map_or(Ok(()), listener::listen)?;
                    tracing::info!(shard = parts.number, "listening");
                    accepting = Some(shard.accept(port)?);
                }
            }
            Message::Keys(keys) => shard.verifier.borrow_mut().use_keys(keys),
            Message::IdKey(key) => shard.writes.take_id_key(key),
            Message::Encoded(page) => shard.reads.take_encoded(page),
            Message::Covered(coverage) => shard.writes.show(&coverage),
            Message::Acknowledgements(acknowledgements) => {
                shard.writes.acknowledge(&acknowledgements, shard.clock.now());
            }
            Message::Drain => {
                idle_port = None;
                if !shard.draining.replace(true) {
                    reactor.spawn(Rc::clone(&shard).drain(accepting.take(), own_inbox.clone()));
                }
            }
            Message::Abandon => break,
        }
    }
    shard.registry.each(|connection| connection.socket.shut_down(libc::SHUT_RDWR));
    shard.writes.end();
    Ok(())
}

/// The state of a shard that its tasks share; one thread, so no lock and no atomic.
pub(crate) struct Shard {
    settings: Settings,
    places: Arc<Places>,
    memory: ShardMemory,
    lingering: RefCell<Lingering>,
    reads: Reads,
    writes: Writes,
    verifier: RefCell<Verifier>,
    other_keys: Arc<OtherKeys>,
    parser: RefCell<JsonParser>,
    /// The body of the request at hand.
    body: RefCell<Vec<u8>>,
    followers: Rc<Followers>,
    metrics: Arc<ShardMetrics>,
    all_metrics: Arc<Metrics>,
    metrics_text: RefCell<Document<String>>,
    /// Of `/ready`: what anyone sees, and what an operator does.
    ready_texts: RefCell<[Document<(bool, String)>; 2]>,
    clock: Rc<Clock>,
    registry: Rc<Registry>,
    spare_buffers: RefCell<SpareBuffers>,
    long_writes: LongWrites,
    /// Requests that stand behind [`PIPELINE_FREE`](crate::limits::PIPELINE_FREE) others of their connection.
    pipelines: Rc<Turns>,
    /// Connections that are closed.
    closings: Rc<Turns>,
    /// Connections have been closed since memory was last given back.
    has_closed: Cell<bool>,
    draining: Cell<bool>,
    is_accepting: Cell<bool>,
    reactor: Rc<Reactor>,
}

impl Shard {
    /// Reads the clock, ends what has lasted too long, refuses writes that the log does not answer, frees buffers.
    async fn tick_for_ever(self: Rc<Shard>, number: usize) {
        let (mut trim_at, mut collect_at) = (0, NEVER);
        let mut last_excess = None;
        loop {
            self.reactor.sleep(TICK).await;
            self.clock.advance();
            if self.clock.ticks() >= trim_at {
                trim_at = self.after(SPARE_LIFETIME);
                self.reactor.trim();
                if self.spare_buffers.borrow_mut().trim() > 0 || self.has_closed.take() {
                    collect_at = self.after(SPARE_LIFETIME);
                }
            }
            if self.clock.ticks() >= collect_at {
                collect_at = NEVER;
                crate::memory::give_back(false);
            }
            self.registry.sweep(self.clock.ticks(), |expiry| self.metrics.deadlines_expired[expiry as usize].add(1));
            let excess = self.all_metrics.old_lists.excess();
            if excess.is_some() && excess != last_excess {
                let version = self.reads.version();
                let agree = |slowest| self.all_metrics.old_lists.agree(number, slowest);
                self.registry.cut_off_slowest(self.clock.ticks(), version, agree, |expiry| {
                    self.metrics.deadlines_expired[expiry as usize].add(1);
                });
            } else if excess.is_none() && last_excess.is_some() {
                self.all_metrics.old_lists.agree(number, u64::MAX);
                self.registry.stop_waiting();
            }
            last_excess = excess;
            self.look_at_memory();
            self.followers.tick(self.clock.ticks(), self.reads.snapshot().as_deref().map(|snapshot| &**snapshot));
            self.metrics.reads_waiting.set(self.followers.waiting_reads.len() as u64);
            self.metrics.event_history_bytes.set(self.followers.history.borrow().memory_bytes());
            self.writes.expire(self.clock.now(), self.settings.ack_timeout);
        }
    }

    fn swap(&self, snapshot: Arc<Snapshot>, news: &News) {
        self.metrics.snapshot_taken_at_ms.set(self.all_metrics.status.now_ms());
        self.metrics.snapshot_version.set(snapshot.version());
        self.followers.take(news, &snapshot, self.clock.ticks());
        self.reads.swap(snapshot);
    }

    /// Lets every connection finish what it has begun, and ends the shard when the last one has left.
    async fn drain(self: Rc<Shard>, accepting: Option<Weak<Listener>>, own_inbox: InboxSender) {
        self.writes.shorten_waits(self.clock.now() + DRAIN_IDLE_GRACE);
        let deadline = self.after(DRAIN_IDLE_GRACE);
        self.registry.shorten(self.settings.shortest_timeout().min(DRAIN_IDLE_GRACE));
        self.followers.wake_all();
        self.registry.each(|connection| {
            // What was answered before the drain moves no deadline in it.
            connection.socket.take_idle_until();
            if connection.phase() == Phase::Idle {
                connection.enter(Phase::Idle, deadline);
            }
        });
        if let Some(listener) = accepting.and_then(|accepting| accepting.upgrade()) {
            if let Some(socket) = listener.port().socket() {
                listener::yield_newcomers(socket.as_raw_fd(), self.all_metrics.shards.len());
            }
            self.reactor.sleep(listener::LEAVE_GRACE).await;
            self.reactor.stop_accepting();
        }
        while self.is_accepting.get() || !self.registry.is_empty() || !self.lingering.borrow().is_empty() {
            self.reactor.sleep(DRAIN_POLL).await;
        }
        own_inbox.send(Message::Abandon);
    }

    fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The tick at which `duration` will have passed.
    fn after(&self, duration: Duration) -> u64 {
        self.clock.after(duration)
    }
}
