//! A worker whose store, log and group fail under it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use million_rps::command_log::embedded::{EmbeddedReader, PARTITION, list_dead_letters, open_with_segment_bytes};
use million_rps::command_log::{
    CommandAppender, CommandReader, LogError, LogEvent, Offset, PartitionId, Record, RecordBatch,
};
use million_rps::feed::in_process;
use million_rps::store::sqlite::SqliteStore;
use million_rps::store::{AppliedOffsets, Changes, Fold, Identity, OffsetStep, Store, StoreError};
use million_rps::todo::{Timestamp, Todo, TodoId};
use million_rps::worker::{WorkerError, WorkerState, fold};

use crate::samples::{Acknowledged, create, history, id, json, list_after, list_of, submissions};
use crate::worker::{
    HookedStore, RecordingPublisher, Told, append, applied_offset, count, migrated, open_log, run_to, run_worker,
};

/// A reader with hooks: one may take fewer records than a poll asks for, the other hears how far the store is, and whether
/// the log would delete for it.
struct HookedReader<P, A> {
    inner: EmbeddedReader,
    on_poll: P,
    on_applied: A,
}

impl<P, A> CommandReader for HookedReader<P, A>
where
    P: FnMut(usize) -> usize + Send,
    A: FnMut(Offset, bool) + Send,
{
    fn poll(&mut self, max_records: usize, max_bytes: usize, max_wait: Duration) -> Result<LogEvent, LogError> {
        self.inner.poll((self.on_poll)(max_records), max_bytes, max_wait)
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        self.inner.start(partition, next)
    }

    fn applied(&mut self, partition: PartitionId, next: Offset) {
        (self.on_applied)(next, self.inner.would_delete(partition, next));
        self.inner.applied(partition, next);
        assert!(!self.inner.would_delete(partition, next), "there is no more to delete");
    }

    fn would_delete(&self, partition: PartitionId, next: Offset) -> bool {
        self.inner.would_delete(partition, next)
    }

    fn lag(&mut self) -> Option<u64> {
        self.inner.lag()
    }

    fn dead_letter(&mut self, partition: PartitionId, record: &Record, reason: &str) -> Result<(), LogError> {
        self.inner.dead_letter(partition, record, reason)
    }
}

/// What a store has committed, and what of it no power cut takes back.
#[derive(Default)]
struct Reached {
    applied: Offset,
    durable: Offset,
    /// How often the store was to be durable.
    syncs: u64,
    /// How often the log deleted.
    deletions: u64,
}

/// A store that fails every other time that it is to be durable.
struct LazyStore {
    inner: SqliteStore,
    reached: Arc<Mutex<Reached>>,
}

impl Store for LazyStore {
    fn migrate(&mut self) -> Result<(), StoreError> {
        self.inner.migrate()
    }

    fn identity(&mut self) -> Result<Identity, StoreError> {
        self.inner.identity()
    }

    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError> {
        self.inner.applied_offsets()
    }

    fn apply(&mut self, steps: &[OffsetStep], ids: &[TodoId], fold: Fold<'_>) -> Result<Changes, StoreError> {
        let changes = self.inner.apply(steps, ids, fold)?;
        self.reached.lock().expect("not poisoned").applied = steps[0].to;
        Ok(changes)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        self.inner.scan(each)
    }

    fn make_durable(&mut self) -> Result<(), StoreError> {
        let mut reached = self.reached.lock().expect("not poisoned");
        reached.syncs += 1;
        if reached.syncs % 2 == 1 {
            return Err(StoreError::Unavailable("the disk does not answer".to_owned()));
        }
        self.inner.make_durable()?;
        reached.durable = reached.applied;
        Ok(())
    }
}

#[test]
fn the_log_keeps_commands_until_the_store_has_them_durably() {
    let fixture = migrated();
    let commands = history(7, 500);
    let sink = Acknowledged::new();
    let (mut appender, inner) = open_with_segment_bytes(&fixture.data_dir, sink.clone(), 4 * 1024).expect("opened");
    // Only a batch that begins behind a full segment begins a new one.
    let mut unwritten = submissions(&commands);
    while !unwritten.is_empty() {
        appender.append(&mut unwritten.drain(..10).collect());
    }
    assert!(sink.all().iter().all(|(_, result)| result.is_ok()));
    let segments = || std::fs::read_dir(fixture.data_dir.log_path()).expect("a folder").count();
    let before = segments();
    assert!(before > 10, "{before} segments");
    let reached = Arc::new(Mutex::new(Reached::default()));
    let seen = Arc::clone(&reached);
    let on_applied = move |next: Offset, deletes: bool| {
        let mut reached = seen.lock().expect("not poisoned");
        assert!(!deletes || next <= reached.durable, "{next} is to be deleted, {} are durable", reached.durable);
        reached.deletions += u64::from(deletes);
    };
    let reader = HookedReader { inner, on_poll: |max_records: usize| max_records.min(10), on_applied };
    let store = LazyStore { inner: fixture.sqlite(), reached: Arc::clone(&reached) };
    let (publisher, _) = in_process::channel();
    let (result, metrics) =
        run_worker(reader, store, publisher, |metrics| metrics.lag() == Some(0) && segments() < before / 2);
    result.expect("stopped as told");
    let reached = reached.lock().expect("not poisoned");
    assert!(reached.deletions > 0 && reached.syncs >= 2 * reached.deletions, "{} syncs", reached.syncs);
    assert_eq!(count(&metrics.retries), reached.syncs - reached.deletions, "a failed sync is tried again");
    assert_eq!(count(&metrics.commands), 500, "and no batch because of it");
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn while_the_store_is_away_the_worker_polls_and_then_goes_on_in_order() {
    let fixture = migrated();
    let commands = history(1, 500);
    append(&fixture, submissions(&commands));
    let (_appender, inner) = open_log(&fixture);
    let paused_polls = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&paused_polls);
    let on_poll = move |max_records| {
        seen.fetch_add(u64::from(max_records == 0), Ordering::Relaxed);
        max_records
    };
    let reader = HookedReader { inner, on_poll, on_applied: |_, _| {} };
    let mut failures = 0;
    let hook = move |inner: &mut dyn Store, _: &[OffsetStep], apply: &mut dyn FnMut(&mut dyn Store) -> _| {
        failures += 1;
        if failures <= 4 { Err(StoreError::Unavailable("away".to_owned())) } else { apply(inner) }
    };
    let (publisher, _) = in_process::channel();
    let store = HookedStore { inner: fixture.sqlite(), hook };
    let mut seen_retrying = false;
    let (result, metrics) = run_worker(reader, store, publisher, |metrics| {
        if metrics.state() == WorkerState::Retrying {
            seen_retrying = true;
            assert_eq!(metrics.last_error().as_deref().unwrap_or_default(), "the store is unavailable: away");
        }
        applied_offset(&fixture) == 500
    });
    result.expect("stopped as told");
    assert!(seen_retrying);
    assert_eq!((count(&metrics.retries), count(&metrics.commands)), (4, 500));
    assert!(count(&paused_polls) >= 4, "the group was not forgotten");
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn a_commit_that_was_reported_as_failed_is_not_made_twice_and_is_shown() {
    let fixture = migrated();
    let commands = history(2, 500);
    append(&fixture, submissions(&commands));
    let (_appender, reader) = open_log(&fixture);
    let mut first = true;
    let hook = move |inner: &mut dyn Store, _: &[OffsetStep], apply: &mut dyn FnMut(&mut dyn Store) -> _| {
        let applied = apply(inner);
        if std::mem::take(&mut first) {
            Err(StoreError::Unavailable("cut while committing".to_owned()))
        } else {
            applied
        }
    };
    let told = Arc::new(Told::default());
    let publisher = RecordingPublisher { told: Arc::clone(&told), broken: Arc::default() };
    let store = HookedStore { inner: fixture.sqlite(), hook };
    let (result, metrics) = run_worker(reader, store, publisher, |_| {
        told.resumed.lock().expect("not poisoned").len() == 2 && applied_offset(&fixture) == 500
    });
    result.expect("stopped as told");
    assert_eq!(count(&metrics.fenced), 1, "the worker found its own commit");
    let resumed = told.resumed.lock().expect("not poisoned")[1][&PARTITION];
    assert!(resumed > 0, "the feed learns of the step that was not published");
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn a_fenced_worker_writes_nothing_and_goes_on_behind_its_rival() {
    let fixture = migrated();
    let commands = history(3, 100);
    append(&fixture, submissions(&commands));
    let (_appender, reader) = open_log(&fixture);
    let mut rival = fixture.sqlite();
    let rivals = commands[..40].to_vec();
    let mut first = true;
    let hook = move |inner: &mut dyn Store, _: &[OffsetStep], apply: &mut dyn FnMut(&mut dyn Store) -> _| {
        if !std::mem::take(&mut first) {
            return apply(inner);
        }
        let ids: Vec<TodoId> = rivals.iter().map(|command| command.id).collect();
        let step = OffsetStep { partition: PARTITION, from: None, to: 40 };
        rival.apply(&[step], &ids, &mut |existing| fold(&rivals, existing).changes).expect("the rival is first");
        let applied = apply(inner);
        assert!(matches!(applied, Err(StoreError::Fenced { partition: PARTITION })));
        assert_eq!(list_of(inner), list_after(&rivals), "the fenced worker has written nothing");
        applied
    };
    let (publisher, _) = in_process::channel();
    let store = HookedStore { inner: fixture.sqlite(), hook };
    let (result, metrics) = run_worker(reader, store, publisher, |_| applied_offset(&fixture) == 100);
    result.expect("stopped as told");
    assert_eq!((count(&metrics.fenced), count(&metrics.commands)), (1, 60));
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn what_the_store_refuses_is_found_and_put_aside_alone() {
    let fixture = migrated();
    let connection = rusqlite::Connection::open(fixture.data_dir.store_path()).expect("opened");
    connection
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON todos WHEN NEW.title = 'poison' \
             BEGIN SELECT RAISE(ABORT, 'no poison here'); END",
        )
        .expect("made");
    let poison = [0, 1, 77, 500, 999];
    let commands: Vec<_> =
        (0..1000).map(|number| create(number, if poison.contains(&number) { "poison" } else { "good" })).collect();
    append(&fixture, submissions(&commands));
    let metrics = run_to(&fixture, 1000);
    assert_eq!(count(&metrics.dead_letters), 5);
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(commands.iter().filter(|command| !is_poison(command))));
    let letters = list_dead_letters(&fixture.data_dir).expect("readable");
    assert_eq!(letters.iter().map(|letter| letter.record.offset as u32).collect::<Vec<_>>(), poison);
    assert!(letters.iter().all(|letter| letter.reason.contains("no poison here")));
    assert_eq!(letters[0].record.payload, json(&commands[0]));
}

fn is_poison(command: &million_rps::todo::Command<'_>) -> bool {
    matches!(&command.action, million_rps::todo::Action::Create { title, .. } if title == "poison")
}

#[test]
fn a_log_that_is_behind_the_store_is_named_and_never_skipped() {
    let fixture = migrated();
    let commands = history(4, 50);
    append(&fixture, submissions(&commands));
    let step = OffsetStep { partition: PARTITION, from: None, to: 1000 };
    fixture.sqlite().apply(&[step], &[], &mut |_| Default::default()).expect("applied");
    let (_appender, reader) = open_log(&fixture);
    let log = reader.id();
    let (publisher, _) = in_process::channel();
    let mut repaired = false;
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
        if !repaired && metrics.last_error().is_some() {
            assert_eq!(metrics.state(), WorkerState::Retrying);
            let troubles = metrics.troubles.all();
            assert!(troubles[0].1.contains("it ended before them"), "{troubles:?}");
            assert_eq!(count(&metrics.commands), 0);
            // What the message says to do: migrate --from-beginning.
            fixture.sqlite().set_log_place(log, PARTITION, 0).expect("set");
            repaired = true;
        }
        repaired && applied_offset(&fixture) == 50
    });
    result.expect("stopped as told");
    assert_eq!(count(&metrics.commands), 50);
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn a_feed_that_is_away_gets_each_set_once_and_in_order() {
    let fixture = migrated();
    let commands = history(5, 300);
    let (mut appender, reader) = open_log(&fixture);
    let told = Arc::new(Told::default());
    let broken = Arc::new(AtomicBool::new(true));
    let publisher = RecordingPublisher { told: Arc::clone(&told), broken: Arc::clone(&broken) };
    let mut batches = commands.chunks(50);
    let (result, _) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
        if let Some(batch) = batches.next() {
            appender.append(&mut submissions(batch));
        }
        if count(&metrics.retries) >= 3 {
            broken.store(false, Ordering::Relaxed);
        }
        let published = told.published.lock().expect("not poisoned");
        published.last().is_some_and(|set| set.steps[0].to == 300)
    });
    result.expect("stopped as told");
    let published = told.published.lock().expect("not poisoned");
    let mut at = None;
    let mut view = std::collections::BTreeMap::new();
    for set in published.iter() {
        assert_eq!((set.steps.len(), set.steps[0].from), (1, at), "no step is missing or doubled");
        at = Some(set.steps[0].to);
        set.changes.deletes.iter().for_each(|key| drop(view.remove(&key.id)));
        view.extend(set.changes.upserts.iter().map(|todo| (todo.id, todo.clone())));
    }
    let mut list: Vec<_> = view.into_values().collect();
    list.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    assert_eq!(list, list_after(&commands));
}

#[test]
fn a_damaged_store_ends_the_worker() {
    let fixture = migrated();
    append(&fixture, submissions(&history(6, 10)));
    let (_appender, reader) = open_log(&fixture);
    let hook = |_: &mut dyn Store, _: &[OffsetStep], _: &mut dyn FnMut(&mut dyn Store) -> _| {
        Err(StoreError::Fatal("damaged".to_owned()))
    };
    let (publisher, _) = in_process::channel();
    let store = HookedStore { inner: fixture.sqlite(), hook };
    let (result, metrics) = run_worker(reader, store, publisher, |_| false);
    assert!(matches!(result, Err(WorkerError::Store(StoreError::Fatal(_)))));
    assert_eq!((metrics.state(), metrics.last_error().as_deref()), (WorkerState::Failed, Some("damaged")));
}

/// What a reader was told to start.
pub type Start = (PartitionId, Option<Offset>);

/// A group of several partitions, played from a script: an event is given when the store has been asked often enough.
#[derive(Default)]
pub struct ScriptedReader {
    pub script: VecDeque<(u64, Result<LogEvent, LogError>)>,
    pub store_calls: Arc<AtomicU64>,
    pub started: Arc<Mutex<Vec<Start>>>,
    pub applied: Arc<Mutex<Vec<(PartitionId, Offset)>>>,
}

impl CommandReader for ScriptedReader {
    fn poll(&mut self, max_records: usize, _: usize, _: Duration) -> Result<LogEvent, LogError> {
        let due = self.script.front().is_some_and(|(after_calls, event)| {
            count(&self.store_calls) >= *after_calls && (max_records > 0 || !matches!(event, Ok(LogEvent::Records(_))))
        });
        let event = if due { self.script.pop_front() } else { None };
        event.map_or(Ok(LogEvent::Idle), |(_, event)| event)
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        self.started.lock().expect("not poisoned").push((partition, next));
        Ok(())
    }

    fn applied(&mut self, partition: PartitionId, next: Offset) {
        self.applied.lock().expect("not poisoned").push((partition, next));
    }

    fn would_delete(&self, _: PartitionId, _: Offset) -> bool {
        false
    }

    fn lag(&mut self) -> Option<u64> {
        None
    }

    fn dead_letter(&mut self, _: PartitionId, record: &Record, reason: &str) -> Result<(), LogError> {
        panic!("{record:?}: {reason}");
    }
}

/// A batch that creates one todo. Offsets skip, as they do in Kafka.
pub fn batch(partition: PartitionId, number: u32, offset: Offset) -> RecordBatch {
    let record = Record {
        offset,
        logged_at: Timestamp::now(),
        key: id(number).to_string().into_bytes(),
        payload: json(&create(number, "t")),
    };
    RecordBatch { partition, records: vec![record], next: offset + 3, leader_epoch: None }
}

#[test]
fn a_place_that_is_found_missing_while_reading_is_tried_again_and_holds_up_no_other_partition() {
    let fixture = migrated();
    let missing = LogError::OffsetOutOfRange { partition: 5, requested: 90, earliest: 0, latest: 30 };
    let script = VecDeque::from([
        (0, Ok(LogEvent::Assigned(vec![3, 5]))),
        (0, Err(missing)),
        (0, Ok(LogEvent::Records(vec![batch(3, 1, 10)]))),
        (1, Ok(LogEvent::Records(vec![batch(3, 2, 13)]))),
    ]);
    let started = Arc::new(Mutex::new(Vec::new()));
    let reader = ScriptedReader {
        script,
        store_calls: Arc::new(AtomicU64::new(1)),
        started: Arc::clone(&started),
        applied: Arc::default(),
    };
    let (publisher, _) = in_process::channel();
    let mut was_named = false;
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
        was_named |= metrics.last_error().is_some_and(|error| error.contains("partition 5 holds offsets 0 to 30"));
        started.lock().expect("not poisoned").len() == 3
    });
    result.expect("it has not ended");
    assert!(was_named);
    assert_eq!(*started.lock().expect("not poisoned"), [(3, None), (5, None), (5, None)]);
    assert_eq!(fixture.sqlite().applied_offsets().expect("readable"), AppliedOffsets::from([(3, 16)]));
    assert_eq!(metrics.last_error(), None);
}

#[test]
fn work_of_a_revoked_partition_is_dropped_and_that_of_the_others_stays() {
    let fixture = migrated();
    let script = VecDeque::from([
        (0, Ok(LogEvent::Assigned(vec![3, 5]))),
        (0, Ok(LogEvent::Records(vec![batch(3, 1, 10), batch(5, 2, 20)]))),
        (2, Ok(LogEvent::Revoked(vec![5]))),
        (0, Ok(LogEvent::Records(vec![batch(3, 3, 15), batch(5, 4, 25)]))),
        (0, Ok(LogEvent::Assigned(vec![5]))),
        (0, Ok(LogEvent::Records(vec![batch(5, 2, 20)]))),
    ]);
    let store_calls = Arc::new(AtomicU64::new(0));
    let started = Arc::new(Mutex::new(Vec::new()));
    let applied = Arc::new(Mutex::new(Vec::new()));
    let reader = ScriptedReader {
        script,
        store_calls: Arc::clone(&store_calls),
        started: Arc::clone(&started),
        applied: Arc::clone(&applied),
    };
    let steps_made = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let steps_made = Arc::clone(&steps_made);
        move |inner: &mut dyn Store, steps: &[OffsetStep], apply: &mut dyn FnMut(&mut dyn Store) -> _| {
            // Away until the partition is revoked.
            store_calls.fetch_add(1, Ordering::Relaxed);
            if steps.len() == 2 {
                return Err(StoreError::Unavailable("away".to_owned()));
            }
            steps_made.lock().expect("not poisoned").extend_from_slice(steps);
            apply(inner)
        }
    };
    let (publisher, _) = in_process::channel();
    let store = HookedStore { inner: fixture.sqlite(), hook };
    let (result, _) = run_worker(reader, store, publisher, |_| applied.lock().expect("not poisoned").len() == 3);
    result.expect("stopped as told");
    let step = |partition, from, to| OffsetStep { partition, from, to };
    assert_eq!(
        *steps_made.lock().expect("not poisoned"),
        [step(3, None, 13), step(3, Some(13), 18), step(5, None, 23)]
    );
    assert_eq!(*started.lock().expect("not poisoned"), [(3, None), (5, None), (5, None)]);
    assert_eq!(*applied.lock().expect("not poisoned"), [(3, 13), (3, 18), (5, 23)]);
    assert_eq!(fixture.sqlite().applied_offsets().expect("readable"), AppliedOffsets::from([(3, 18), (5, 23)]));
    let ids: Vec<TodoId> = list_of(&mut fixture.sqlite()).iter().map(|todo| todo.id).collect();
    assert_eq!(ids, [id(3), id(2), id(1)]);
}
