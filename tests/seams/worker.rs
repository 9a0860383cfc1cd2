//! A worker over the embedded sides: whatever happens, the store ends as if each acknowledged command had been applied
//! once, in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use million_rps::command_log::embedded::{
    EmbeddedAppender, EmbeddedReader, PARTITION, list_dead_letters, open, replay_dead_letters,
};
use million_rps::command_log::{CommandAppender, Submission};
use million_rps::feed::{ChangeSet, FeedError, FeedEvent, FeedPublisher, FeedSubscriber, in_process};
use million_rps::store::{AppliedOffsets, Changes, Fold, Identity, OffsetStep, Store, StoreError};
use million_rps::todo::Todo;
use million_rps::worker::{Worker, WorkerError, WorkerMetrics, WorkerState};

use crate::embedded::Embedded;
use crate::samples::{Acknowledged, create, delete, history, id, list_after, list_of, submission, submissions, update};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn migrated() -> Embedded {
    let fixture = Embedded::new();
    fixture.sqlite().migrate().expect("migrated");
    fixture
}

pub fn open_log(fixture: &Embedded) -> (EmbeddedAppender, EmbeddedReader) {
    open(&fixture.data_dir, Acknowledged::new()).expect("opened")
}

/// Appends durably, as one batch.
pub fn append(fixture: &Embedded, mut batch: Vec<Submission>) {
    let sink = Acknowledged::new();
    let (mut appender, _reader) = open(&fixture.data_dir, sink.clone()).expect("opened");
    appender.append(&mut batch);
    assert!(sink.all().iter().all(|(_, result)| result.is_ok()));
}

pub fn applied_offset(fixture: &Embedded) -> i64 {
    fixture.sqlite().applied_offsets().expect("readable").get(&PARTITION).copied().unwrap_or(0)
}

/// Stops the worker also when a check panics: the scope waits for its thread.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a worker over these ends until `done`, and stops it.
pub fn run_worker(
    reader: impl million_rps::command_log::CommandReader + 'static,
    store: impl Store + 'static,
    publisher: impl FeedPublisher + 'static,
    mut done: impl FnMut(&WorkerMetrics) -> bool,
) -> (Result<(), WorkerError>, Arc<WorkerMetrics>) {
    let metrics = Arc::new(WorkerMetrics::default());
    let worker = Worker::new(Box::new(reader), Box::new(store), Box::new(publisher), Arc::clone(&metrics));
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let running = scope.spawn(|| worker.run(&stop));
        let stopper = StopOnDrop(&stop);
        let give_up_at = Instant::now() + PATIENCE;
        while !running.is_finished() && !done(&metrics) && Instant::now() < give_up_at {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(stopper);
        running.join().expect("no panic")
    });
    (result, metrics)
}

/// Runs a worker until the store has applied everything up to `offset`.
pub fn run_to(fixture: &Embedded, offset: i64) -> Arc<WorkerMetrics> {
    let (_appender, reader) = open_log(fixture);
    let (publisher, _) = in_process::channel();
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |_| applied_offset(fixture) >= offset);
    result.expect("stopped as told");
    assert_eq!(applied_offset(fixture), offset);
    assert_eq!((metrics.state(), metrics.last_error()), (WorkerState::Stopped, None));
    metrics
}

pub fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A store whose `apply` goes through a hook.
pub struct HookedStore<F> {
    pub inner: million_rps::store::sqlite::SqliteStore,
    pub hook: F,
}

impl<F> Store for HookedStore<F>
where
    F: FnMut(
            &mut dyn Store,
            &[OffsetStep],
            &mut dyn FnMut(&mut dyn Store) -> Result<Changes, StoreError>,
        ) -> Result<Changes, StoreError>
        + Send,
{
    fn migrate(&mut self) -> Result<(), StoreError> {
        self.inner.migrate()
    }

    fn identity(&mut self) -> Result<Identity, StoreError> {
        self.inner.identity()
    }

    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError> {
        self.inner.applied_offsets()
    }

    fn apply(
        &mut self,
        steps: &[OffsetStep],
        ids: &[million_rps::todo::TodoId],
        fold: Fold<'_>,
    ) -> Result<Changes, StoreError> {
        (self.hook)(&mut self.inner, steps, &mut |inner| inner.apply(steps, ids, fold))
    }

    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        self.inner.scan(each)
    }

    fn make_durable(&mut self) -> Result<(), StoreError> {
        self.inner.make_durable()
    }
}

/// What a worker told its feed.
#[derive(Default)]
pub struct Told {
    pub resumed: Mutex<Vec<AppliedOffsets>>,
    pub published: Mutex<Vec<ChangeSet>>,
}

/// A feed that writes down what it is told, and fails while `broken`.
pub struct RecordingPublisher {
    pub told: Arc<Told>,
    pub broken: Arc<AtomicBool>,
}

impl FeedPublisher for RecordingPublisher {
    fn identify(&mut self, _: &Identity) {}

    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(FeedError::Unavailable("broken".to_owned()));
        }
        self.told.published.lock().expect("not poisoned").push(set.clone());
        Ok(())
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError> {
        self.told.resumed.lock().expect("not poisoned").push(offsets.clone());
        Ok(())
    }
}

#[test]
fn a_history_is_applied_and_shown() {
    for seed in 0..5 {
        let fixture = migrated();
        let commands = history(seed, 2_000);
        append(&fixture, submissions(&commands));
        let (_appender, reader) = open_log(&fixture);
        let (publisher, mut subscriber) = in_process::channel();
        let mut view = Vec::new();
        let mut store = fixture.sqlite();
        subscriber.load(&mut store, &AppliedOffsets::new(), &mut |todo| view.push(todo)).expect("loaded");
        let mut view: std::collections::BTreeMap<_, _> = view.into_iter().map(|todo| (todo.id, todo)).collect();
        let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |_| {
            if let FeedEvent::Changes(sets) = subscriber.next(Duration::from_millis(1)).expect("linked") {
                for changes in sets.into_iter().map(|set| set.changes) {
                    changes.deletes.iter().for_each(|key| drop(view.remove(&key.id)));
                    view.extend(changes.upserts.into_iter().map(|todo| (todo.id, todo)));
                }
            }
            let shown = list_after(&commands);
            view.len() == shown.len() && shown.iter().all(|todo| view.get(&todo.id) == Some(todo))
        });
        result.expect("stopped as told");
        assert_eq!(list_of(&mut store), list_after(&commands), "seed {seed}");
        assert_eq!((count(&metrics.commands), metrics.lag()), (2_000, Some(0)));
    }
}

#[test]
fn poison_between_good_records_is_put_aside_and_can_be_replayed() {
    let fixture = migrated();
    let poison: [(&[u8], &str); 7] = [
        (b"no JSON", "not valid JSON"),
        (b"", "empty"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "must be a JSON object"),
        (
            b"{\"action\":\"explode\",\"id\":\"0190163d-8694-739b-0000-000000000001\",\"user_id\":\"u\"}",
            "unknown action",
        ),
        (b"{\"action\":\"delete\",\"id\":\"1\",\"user_id\":\"u\"}", "id is not a UUID"),
        (
            b"{\"action\":\"create\",\"id\":\"0190163d-8694-739b-0000-000000000001\",\"user_id\":\"u\",\"title\":\"\\u0000\"}",
            "title contains a NUL",
        ),
    ];
    let mut batch = submissions(&[create(0, "first")]);
    for (number, (payload, _)) in (1..).zip(poison) {
        batch.push(submission(0, id(number), payload));
        batch.extend(submissions(&[create(number, "good")]));
    }
    let length = batch.len() as i64;
    append(&fixture, batch);
    let metrics = run_to(&fixture, length);
    assert_eq!((count(&metrics.dead_letters), count(&metrics.commands)), (7, 8));
    assert_eq!(list_of(&mut fixture.sqlite()).len(), 8);
    let letters = list_dead_letters(&fixture.data_dir).expect("readable");
    for (letter, (payload, reason)) in letters.iter().zip(poison) {
        assert_eq!(letter.record.payload, payload);
        assert!(letter.reason.contains(reason), "{}", letter.reason);
    }
    // They are as poisonous as before.
    assert_eq!(replay_dead_letters(&fixture.data_dir, |_| true).expect("replayed").replayed, 7);
    run_to(&fixture, length + 7);
    let again = list_dead_letters(&fixture.data_dir).expect("readable");
    assert_eq!(
        again.iter().map(|letter| letter.record.offset).collect::<Vec<_>>(),
        (length..length + 7).collect::<Vec<_>>()
    );
}

#[test]
fn a_worker_killed_before_its_commit_starts_over() {
    let fixture = migrated();
    let commands = history(1, 300);
    append(&fixture, submissions(&commands));
    let (appender, reader) = open_log(&fixture);
    let hook = |_: &mut dyn Store, _: &[OffsetStep], _: &mut dyn FnMut(&mut dyn Store) -> _| {
        Err(StoreError::Unavailable("killed".to_owned()))
    };
    let (publisher, _) = in_process::channel();
    let store = HookedStore { inner: fixture.sqlite(), hook };
    let (result, metrics) = run_worker(reader, store, publisher, |metrics| count(&metrics.retries) > 2);
    result.expect("stopped as told");
    assert_eq!((applied_offset(&fixture), count(&metrics.commands)), (0, 0));
    drop(appender);
    run_to(&fixture, 300);
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn a_worker_killed_between_commit_and_publishing_tells_the_feed_at_its_next_start() {
    let fixture = migrated();
    let commands = history(2, 300);
    append(&fixture, submissions(&commands));
    let told = Arc::new(Told::default());
    let recorder = |broken: bool| RecordingPublisher { told: Arc::clone(&told), broken: Arc::new(broken.into()) };
    let (appender, reader) = open_log(&fixture);
    let (result, _) = run_worker(reader, fixture.sqlite(), recorder(true), |metrics| count(&metrics.retries) > 2);
    result.expect("stopped as told");
    assert_eq!(told.published.lock().expect("not poisoned").len(), 0);
    let committed = applied_offset(&fixture);
    assert!(committed > 0, "the batch was committed");
    drop(appender);

    let (_appender, reader) = open_log(&fixture);
    let (result, metrics) = run_worker(reader, fixture.sqlite(), recorder(false), |_| {
        !told.resumed.lock().expect("not poisoned")[1..].is_empty() && applied_offset(&fixture) == 300
    });
    result.expect("stopped as told");
    let resumed = told.resumed.lock().expect("not poisoned");
    assert_eq!(*resumed, [AppliedOffsets::new(), AppliedOffsets::from([(PARTITION, committed)])]);
    assert_eq!(count(&metrics.commands), (300 - committed) as u64, "nothing is applied twice");
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}

#[test]
fn a_worker_killed_before_it_told_the_log_applies_nothing_twice() {
    let fixture = migrated();
    let commands = [create(1, "a"), update(1, "b"), delete(2), create(2, "kept"), create(3, "gone"), delete(3)];
    append(&fixture, submissions(&commands));
    run_to(&fixture, 6);
    let list = list_of(&mut fixture.sqlite());
    assert_eq!(list, list_after(&commands));
    // The embedded log keeps its last segment, so every record is still there: only the store's offset says no.
    for _ in 0..3 {
        let (_appender, reader) = open_log(&fixture);
        let told = Arc::new(Told::default());
        let publisher = RecordingPublisher { told: Arc::clone(&told), broken: Arc::default() };
        let (result, metrics) =
            run_worker(reader, fixture.sqlite(), publisher, |_| !told.resumed.lock().expect("not poisoned").is_empty());
        result.expect("stopped as told");
        assert_eq!((count(&metrics.batches), count(&metrics.commands)), (0, 0));
        assert_eq!(list_of(&mut fixture.sqlite()), list);
    }
}

#[test]
fn stopping_and_starting_under_writes_loses_nothing() {
    let fixture = migrated();
    let commands = history(3, 4_000);
    let mut rest = commands.as_slice();
    while !rest.is_empty() {
        let (mut appender, reader) = open_log(&fixture);
        let (publisher, subscriber) = in_process::channel();
        drop(subscriber);
        let (now, later) = rest.split_at(rest.len().min(400));
        rest = later;
        let mut batches = now.chunks(20);
        // Stopped as soon as the last batch is written: usually in the middle of things.
        let (result, _) = run_worker(reader, fixture.sqlite(), publisher, |_| match batches.next() {
            Some(batch) => {
                appender.append(&mut submissions(batch));
                false
            }
            None => true,
        });
        result.expect("stopped as told");
    }
    run_to(&fixture, 4_000);
    assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
}
