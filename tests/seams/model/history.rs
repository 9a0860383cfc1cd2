//! One history: who acts, what happens to them, and what has to be true in the end.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use million_rps::command_log::Coverage;
use million_rps::feed::{ChangeSet, FeedError, FeedPublisher, FeedSubscriber, in_process};
use million_rps::observe::status::Status;
use million_rps::refresher::{RefreshLoop, RefresherParts};
use million_rps::snapshot::{OldLists, Snapshot};
use million_rps::store::{AppliedOffsets, Identity};
use million_rps::todo::{Action, Command, JsonParser, Timestamp, Todo, TodoId};
use million_rps::wires::inbox::{Inbox, Message};
use million_rps::worker::{Worker, WorkerMetrics};

use super::follower::Follower;
use super::log::{Log, ModelReader};
use super::redis::{ModelPublisher, ModelSubscriber, Redis};
use super::stage::{Actor, Link, Plan, Process, Random, Seat, Stage, World};
use super::table::{ModelStore, REFUSED_TITLE, Table};
use crate::samples::id;

/// Most processes of each kind at a time.
const WORKERS_MAX: usize = 3;
const APIS_MAX: usize = 2;
/// What happens after the last commands, before nothing fails any more.
const LAST_ACTS: usize = 25;
/// Turns of everybody within which all has to be well, once nothing fails any more.
const CALM_ROUNDS: u64 = 400;
/// In which of these the list's time is over.
const EXPIRY_ROUND: u64 = 200;

static STARTED_AT: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Plays the history of a seed; returns how often what happened in it.
pub fn play(seed: u64, traced: bool) -> BTreeMap<&'static str, u64> {
    let mut random = Random::new(seed);
    let plan = Plan {
        embedded: random.percent(25),
        remembers_commits: random.percent(50),
        todos: 1 + random.below(8),
        writes: 1 + random.below(60),
        troubles: if random.percent(10) { 0 } else { random.below(1 << 8) },
        fault_percent: [0, 2, 5, 15][random.below(4) as usize],
        interleave_percent: [0, 4, 12][random.below(3) as usize],
    };
    let partitions = if plan.embedded { 1 } else { 1 + random.below(4) };
    let length = 40 + random.below(200);
    let stage = Stage::new(World {
        random,
        plan,
        now_ms: 0,
        calm: false,
        store_is_down: false,
        dead: Default::default(),
        confirmed: BTreeMap::new(),
        log: Log::new(partitions),
        table: Table::default(),
        redis: Redis::default(),
        counts: BTreeMap::new(),
        trace: traced.then(Vec::new),
    });
    let told = Trace(Arc::clone(&stage));
    for _ in 0..length {
        act(&stage);
    }
    write_last(&stage);
    calm_down(&stage);
    drop(told);
    for process in stage.processes() {
        stage.end(process, false);
    }
    std::mem::take(&mut stage.world().counts)
}

/// Tells what happened when the history fails.
struct Trace(Arc<Stage>);

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.world_after_failure().trace.iter().flatten().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// By chance, somebody has a turn, or something happens.
pub fn act(stage: &Arc<Stage>) {
    let mut world = stage.world();
    world.now_ms += world.random.below(40);
    match world.random.below(100) {
        0..56 => {
            drop(world);
            let idle = stage.idle();
            if !idle.is_empty() {
                let number = idle[stage.world().random.below(idle.len() as u64) as usize];
                stage.turn(number);
            }
        }
        56..70 => write(&mut world),
        70..78 => {
            drop(world);
            start_processes(stage);
        }
        78..82 => world.now_ms += world.random.below(4_000),
        82..90 => {
            if !world.log.members().is_empty() {
                move_partitions(&mut world);
            }
        }
        _ => {
            let kind = world.random.below(8);
            if world.plan.troubles >> kind & 1 == 1 {
                make_trouble(stage, world, kind);
            }
        }
    }
}

fn make_trouble(stage: &Arc<Stage>, mut world: MutexGuard<'_, World>, kind: u64) {
    world.note(|| format!("trouble of kind {kind}"));
    match kind {
        0 | 1 => {
            drop(world);
            let processes: Vec<Process> = stage.processes().into_iter().collect();
            if !processes.is_empty() {
                let process = processes[stage.world().random.below(processes.len() as u64) as usize];
                stage.end(process, kind == 0);
            }
        }
        2 => world.store_is_down = !world.store_is_down,
        3 => world.log.delete_applied(),
        4 => world.redis.flush(),
        5 => world.redis.expire(),
        6 => {
            let keep = world.random.below(4);
            world.redis.trim(keep);
        }
        _ => {
            if world.random.percent(50) {
                world.redis.save();
            } else {
                world.redis.restore();
            }
        }
    }
}

/// A client's commands get into the log.
fn write(world: &mut World) {
    if world.plan.writes == 0 {
        return;
    }
    world.plan.writes -= 1;
    for _ in 0..1 + world.random.below(6) {
        world.count("command");
        let number = world.counts["command"];
        let (random, todos) = (&mut world.random, world.plan.todos);
        let requested_at = Timestamp::from_micros(1_700_000_000_000_000 + random.below(1 << 20) as i64);
        let user_id = if random.percent(10) { "stranger" } else { "owner" };
        let title = || format!("{number}").into();
        let (todo, action, can_be_applied) = match random.below(20) {
            0..8 => (random.below(todos), create(title()), true),
            8..13 => {
                let completed = random.percent(50).then_some(true);
                (random.below(todos), Action::Update { title: Some(title()), description: None, completed }, true)
            }
            13..19 => (random.below(todos), Action::Delete, true),
            // A todo of its own, so that nothing else depends on it.
            _ => (1_000 + number, create(REFUSED_TITLE.into()), false),
        };
        let command = Command { id: id(todo as u32), user_id: user_id.into(), requested_at, action };
        world.log.append(&mut world.random, command, can_be_applied);
    }
}

fn create(title: std::borrow::Cow<'static, str>) -> Action<'static> {
    Action::Create { title, description: "".into(), completed: false }
}

fn move_partitions(world: &mut World) {
    let members = world.log.members();
    let throw_out = world.random.percent(40);
    for partition in 0..world.log.partitions.len() as i32 {
        if world.random.percent(60) {
            let to = members[world.random.below(members.len() as u64) as usize];
            world.log.move_partition(partition, to, throw_out);
            world.note(|| format!("partition {partition} goes to {to}, thrown out: {throw_out}"));
        }
    }
}

/// Starts processes where there may be more.
fn start_processes(stage: &Arc<Stage>) {
    let (embedded, starts_api, process) = {
        let mut world = stage.world();
        world.count("process");
        (world.plan.embedded, world.random.percent(50), world.counts["process"] as Process)
    };
    let (workers, apis) = (stage.world().log.members().len(), stage.lists().len());
    let seat = Seat { stage: Arc::clone(stage), process };
    if embedded {
        if stage.processes().is_empty() {
            let (publisher, subscriber) = in_process::channel();
            let publisher = FaultyPublisher { seat: seat.clone(), inner: publisher };
            stage.add(process, Box::new(WorkerProcess::new(seat.clone(), publisher)));
            stage.add(process, Box::new(Api::new(seat, subscriber)));
        }
    } else if starts_api && apis < APIS_MAX {
        stage.add(process, Box::new(Api::new(seat.clone(), ModelSubscriber::new(seat))));
    } else if !starts_api && workers < WORKERS_MAX {
        stage.add(process, Box::new(WorkerProcess::new(seat.clone(), ModelPublisher::new(seat))));
    }
}

/// The in-process feed, whose answer the worker may miss.
struct FaultyPublisher {
    seat: Seat,
    inner: in_process::InProcessPublisher,
}

impl FeedPublisher for FaultyPublisher {
    fn identify(&mut self, _: &Identity) {}

    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        let inner = &mut self.inner;
        let published = self.seat.call(Link::Wire, |_| inner.publish(set));
        published.unwrap_or_else(|| Err(FeedError::Unavailable("by chance".to_owned())))
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError> {
        let inner = &mut self.inner;
        let resumed = self.seat.call(Link::Wire, |_| inner.resume(offsets));
        resumed.unwrap_or_else(|| Err(FeedError::Unavailable("by chance".to_owned())))
    }
}

struct WorkerProcess {
    seat: Seat,
    worker: Worker,
}

impl WorkerProcess {
    fn new(seat: Seat, publisher: impl FeedPublisher + 'static) -> WorkerProcess {
        seat.stage.world().log.join(seat.process);
        let (reader, store) = (ModelReader(seat.clone()), ModelStore::new(seat.clone()));
        let metrics = Arc::new(WorkerMetrics::default());
        let worker = Worker::new(Box::new(reader), Box::new(store), Box::new(publisher), metrics);
        let (timed, chancy) = (Arc::clone(&seat.stage), Arc::clone(&seat.stage));
        let clock = move || *STARTED_AT + Duration::from_millis(timed.world().now_ms);
        let chance = move || chancy.world().random.below(u64::MAX);
        WorkerProcess { seat, worker: worker.with_clock_and_chance(clock, chance) }
    }
}

impl Actor for WorkerProcess {
    fn turn(&mut self) {
        let turned = self.worker.turn(Duration::ZERO, &AtomicBool::new(false));
        if let Err(error) = turned {
            assert!(self.seat.is_dead(), "the worker gives up: {error}");
        }
    }

    fn stop(self: Box<Self>) {
        self.worker.run(&AtomicBool::new(true)).expect("there is nothing to give up");
    }

    fn list(&self) -> Option<Vec<u8>> {
        None
    }
}

struct Api {
    seat: Seat,
    refresh: RefreshLoop,
    /// What a shard is told.
    inbox: Inbox,
    /// How far each partition is said to be in the list.
    covered: AppliedOffsets,
    /// Which version of each todo it showed.
    shown: BTreeMap<TodoId, usize>,
    follower: Follower,
    parser: JsonParser,
}

impl Api {
    fn new(seat: Seat, feed: impl FeedSubscriber + 'static) -> Api {
        let (inbox_sender, inbox) = Inbox::new();
        let parts = RefresherParts {
            feed: Box::new(feed),
            store: Box::new(ModelStore::new(seat.clone())),
            inboxes: vec![inbox_sender],
            status: Arc::new(Status::default()),
            metrics: Arc::default(),
            // The feed alone has to do; the list's expiry is one of its faults.
            verify_interval: Duration::from_secs(3600),
            room: None,
            old_lists: OldLists::new(None, 1),
            event_batch_max_bytes: 1 << 20,
        };
        let (timed, chancy) = (Arc::clone(&seat.stage), Arc::clone(&seat.stage));
        let clock = move || *STARTED_AT + Duration::from_millis(timed.world().now_ms);
        let chance = move || chancy.world().random.below(u64::MAX);
        let refresh = RefreshLoop::new(parts, Arc::default()).with_clock_and_chance(clock, chance);
        Api {
            seat,
            refresh,
            inbox,
            covered: AppliedOffsets::new(),
            shown: BTreeMap::new(),
            follower: Follower::default(),
            parser: JsonParser::default(),
        }
    }

    /// Each todo is shown as it was after some commit, never as it was before what was shown already, and with all that the
    /// list is said to have taken in. What is said to be current is the store's list.
    fn look(&mut self) {
        let snapshot = self.refresh.snapshot();
        let confirmed = self.seat.stage.world().confirmed.remove(&self.seat.process);
        if let Some(rows) = confirmed {
            let missing = rows.values().find(|todo| !shows(snapshot, todo));
            assert_eq!(
                (missing, snapshot.len()),
                (None, rows.len()),
                "what is missing of the current list, its length"
            );
        }
        let mut is_told = false;
        while let Some(Some(message)) = self.inbox.next().now_or_never() {
            is_told = true;
            match message {
                Message::Covered(coverage) => match &*coverage {
                    Coverage::Whole(offsets) => self.covered.clone_from(offsets),
                    Coverage::Steps(steps) => self.covered.extend(steps.iter().copied()),
                },
                Message::Snapshot(snapshot, news) => self.follower.take(&snapshot, &news),
                _ => {}
            }
        }
        if !is_told {
            return;
        }
        let world = self.seat.stage.world();
        let mut count = 0;
        for id in world.table.known() {
            let todo = snapshot.get(id).map(|entry| {
                Todo::from_json(&mut entry.json().to_vec(), &mut self.parser).expect("the JSON of a todo")
            });
            count += usize::from(todo.is_some());
            let covered =
                self.covered.get(&world.log.partition_of(id)).map_or(0, |next| world.table.version_at(id, *next));
            let shown = self.shown.get(&id).copied().unwrap_or(0);
            let from = if world.redis.was_restored { 0 } else { shown.max(covered) };
            let version = world.table.find_version(id, from, todo.as_ref());
            let version = version.unwrap_or_else(|| {
                panic!("{id} never was {todo:?}, or not since its version {from} (covered: {covered})")
            });
            self.shown.insert(id, version);
        }
        assert_eq!(snapshot.len(), count, "todos that were never stored");
    }
}

fn shows(snapshot: &Snapshot, todo: &Todo) -> bool {
    let mut json = Vec::new();
    todo.write_json(&mut json);
    snapshot.get(todo.id).is_some_and(|entry| entry.json() == json)
}

/// The list, as it is sent.
pub fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut body = snapshot.page(None, None).body;
    let mut bytes = Vec::new();
    while let Some(piece) = body.next_piece(snapshot) {
        bytes.extend_from_slice(piece);
    }
    bytes
}

impl Actor for Api {
    fn turn(&mut self) {
        self.refresh.turn(Duration::ZERO);
        self.look();
    }

    fn stop(self: Box<Self>) {}

    fn list(&self) -> Option<Vec<u8>> {
        Some(bytes_of(self.refresh.snapshot()))
    }
}

/// The last commands meet worse than those before, and nothing comes later that would heal what they leave broken.
fn write_last(stage: &Arc<Stage>) {
    {
        let mut world = stage.world();
        world.plan.writes = 1;
        write(&mut world);
        if world.plan.fault_percent > 0 {
            world.plan.fault_percent = 30;
        }
        // Processes may end, if they did before.
        world.plan.troubles &= 0b11;
    }
    for _ in 0..LAST_ACTS {
        act(stage);
    }
}

/// Nothing fails any more: everything that was written is applied, and every API shows it.
fn calm_down(stage: &Arc<Stage>) {
    {
        let mut world = stage.world();
        (world.calm, world.store_is_down) = (true, false);
        world.note(|| "calm".to_owned());
    }
    while stage.world().log.members().is_empty() || stage.lists().is_empty() {
        start_processes(stage);
    }
    for round in 0..CALM_ROUNDS {
        {
            let mut world = stage.world();
            let World { log, random, .. } = &mut *world;
            log.settle(random);
            world.now_ms += 500;
            if round == EXPIRY_ROUND && world.redis.was_restored {
                world.redis.expire();
            }
        }
        for number in stage.idle() {
            stage.turn(number);
        }
        let may_end = round > EXPIRY_ROUND || !stage.world().redis.was_restored;
        if may_end && is_well(stage) {
            break;
        }
    }
    // And it stays so.
    for number in stage.idle().repeat(3) {
        stage.turn(number);
    }
    let world = stage.world();
    for (partition, content) in (0..).zip(&world.log.partitions) {
        let applied = world.table.offsets.get(&partition).copied().unwrap_or(0);
        let last = content.records.last().map_or(-1, |(record, _)| record.offset);
        assert!(applied > last, "partition {partition} is applied up to {applied}, and goes on to {last}");
    }
    let expected = expected_list(&world);
    drop(world);
    for list in stage.lists() {
        assert_eq!(String::from_utf8_lossy(&list), expected, "an API's list, and the store's");
    }
}

fn is_well(stage: &Stage) -> bool {
    let world = stage.world();
    let applied = (0..).zip(&world.log.partitions).all(|(partition, content)| {
        let last = content.records.last().map(|(record, _)| record.offset);
        last.is_none_or(|last| world.table.offsets.get(&partition).is_some_and(|next| *next > last))
    });
    let expected = expected_list(&world);
    drop(world);
    applied && stage.lists().iter().all(|list| list == expected.as_bytes())
}

fn expected_list(world: &World) -> String {
    let items: Vec<String> = world
        .table
        .list()
        .iter()
        .map(|todo| {
            let mut json = Vec::new();
            todo.write_json(&mut json);
            String::from_utf8(json).expect("JSON is UTF-8")
        })
        .collect();
    format!("[{}]", items.join(","))
}
