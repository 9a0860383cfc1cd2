//! A worker whose log is another one, or becomes another one, or has lost what was applied.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use million_rps::command_log::{CommandReader, KnownLogs, LogError, LogEvent, LogId, Offset, PartitionId, Record};
use million_rps::feed::in_process;
use million_rps::observe::troubles::Component;
use million_rps::store::{AppliedOffsets, Changes, OffsetStep, Store};
use million_rps::worker::WorkerMetrics;

use crate::samples::id;
use crate::worker::{count, migrated, run_worker};
use crate::worker_faults::{ScriptedReader, Start, batch};

fn log(bits: u128) -> LogId {
    LogId::from_bits(bits).expect("not zero")
}

/// A scripted log with an id, which may change: by a test, or to [`log`]`(2)` when the log is replaced.
struct NamedReader {
    inner: ScriptedReader,
    log: Arc<Mutex<LogId>>,
    /// How far each of its partitions goes.
    end: Offset,
}

impl CommandReader for NamedReader {
    fn poll(&mut self, max_records: usize, max_bytes: usize, max_wait: Duration) -> Result<LogEvent, LogError> {
        let polled = self.inner.poll(max_records, max_bytes, max_wait);
        if matches!(polled, Err(LogError::Replaced)) {
            *self.log.lock().expect("not poisoned") = log(2);
        }
        polled
    }

    fn log_id(&mut self) -> Result<Option<LogId>, LogError> {
        Ok(Some(*self.log.lock().expect("not poisoned")))
    }

    fn reaches(&mut self, offsets: &AppliedOffsets) -> Result<bool, LogError> {
        Ok(offsets.values().all(|next| *next <= self.end))
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        self.inner.start(partition, next)
    }

    fn applied(&mut self, partition: PartitionId, next: Offset) {
        self.inner.applied(partition, next);
    }

    fn would_delete(&self, partition: PartitionId, next: Offset) -> bool {
        self.inner.would_delete(partition, next)
    }

    fn lag(&mut self) -> Option<u64> {
        None
    }

    fn dead_letter(&mut self, partition: PartitionId, record: &Record, reason: &str) -> Result<(), LogError> {
        self.inner.dead_letter(partition, record, reason)
    }
}

type Script = Vec<Result<LogEvent, LogError>>;
type Shared<T> = Arc<Mutex<T>>;

/// A log that does what the script says, its id, and what was started of it.
fn scripted(script: Script, id: LogId) -> (NamedReader, Shared<LogId>, Shared<Vec<Start>>) {
    let script: VecDeque<_> = script.into_iter().map(|event| (0, event)).collect();
    let (id, started) = (Arc::new(Mutex::new(id)), Arc::new(Mutex::new(Vec::new())));
    let inner = ScriptedReader { script, started: Arc::clone(&started), ..ScriptedReader::default() };
    (NamedReader { inner, log: Arc::clone(&id), end: 30 }, id, started)
}

fn names_another_log(metrics: &WorkerMetrics) -> bool {
    names(metrics, "offsets of another command log")
}

fn names(metrics: &WorkerMetrics, text: &str) -> bool {
    metrics.troubles.all().iter().any(|(component, reason)| *component == Component::Store && reason.contains(text))
}

#[test]
fn a_log_that_the_store_does_not_follow_is_not_read_and_named_until_it_is_the_right_one() {
    let fixture = migrated();
    assert_eq!(fixture.sqlite().note_log(log(1)).expect("noted"), log(1));
    let script = vec![Ok(LogEvent::Assigned(vec![3])), Ok(LogEvent::Records(vec![batch(3, 1, 10)]))];
    let (reader, id_now, started) = scripted(script, log(2));
    let (publisher, _) = in_process::channel();
    let mut was_named = false;
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
        if !was_named && names_another_log(metrics) && count(&metrics.retries) > 2 {
            was_named = true;
            assert_eq!(*started.lock().expect("not poisoned"), [] as [Start; 0]);
            *id_now.lock().expect("not poisoned") = log(1);
        }
        !started.lock().expect("not poisoned").is_empty()
    });
    result.expect("it has not ended");
    assert!(was_named);
    assert_eq!(*started.lock().expect("not poisoned"), [(3, None)]);
    assert_eq!(fixture.sqlite().applied_offsets().expect("readable"), AppliedOffsets::new(), "it came too early");
    assert_eq!(metrics.troubles.all(), []);
}

#[test]
fn a_log_that_is_replaced_while_it_is_read_is_not_read_any_more() {
    let fixture = migrated();
    let script = vec![
        Ok(LogEvent::Assigned(vec![3])),
        Ok(LogEvent::Records(vec![batch(3, 1, 10)])),
        Err(LogError::Replaced),
        Ok(LogEvent::Records(vec![batch(3, 2, 13)])),
    ];
    let (reader, _, started) = scripted(script, log(1));
    let (publisher, _) = in_process::channel();
    // What the log brings behind its first reason is not taken either.
    let (result, _) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
        names_another_log(metrics) && count(&metrics.retries) > 2
    });
    result.expect("it has not ended");
    assert_eq!(started.lock().expect("not poisoned")[0], (3, None));
    assert_eq!(fixture.sqlite().applied_offsets().expect("readable"), AppliedOffsets::from([(3, 13)]));
    assert_eq!(fixture.sqlite().known_logs().expect("readable").followed, Some(log(1)));
}

fn applied_to(fixture: &crate::embedded::Embedded, partition: PartitionId, next: Offset) {
    let step = OffsetStep { partition, from: None, to: next };
    fixture.sqlite().apply(&[step], &[], &mut |_| Changes::default()).expect("applied");
}

/// What is written behind the end of a log that has lost records stands at offsets that were applied before.
#[test]
fn in_a_log_that_has_lost_applied_records_the_place_moves_back_to_its_end() {
    let fixture = migrated();
    applied_to(&fixture, 5, 90);
    fixture.sqlite().note_log(log(1)).expect("noted");
    let script = vec![
        Ok(LogEvent::Assigned(vec![5])),
        Err(LogError::OffsetOutOfRange { partition: 5, requested: 90, earliest: 0, latest: 30 }),
        Ok(LogEvent::Idle),
        Ok(LogEvent::Records(vec![batch(5, 1, 30)])),
    ];
    let (reader, _, started) = scripted(script, log(1));
    let (publisher, _) = in_process::channel();
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| count(&metrics.commands) == 1);
    result.expect("it has not ended");
    assert_eq!(*started.lock().expect("not poisoned"), [(5, Some(90)), (5, Some(30))]);
    assert_eq!(fixture.sqlite().applied_offsets().expect("readable"), AppliedOffsets::from([(5, 33)]));
    assert_eq!(crate::samples::list_of(&mut fixture.sqlite()).len(), 1, "{:?}", id(1));
    assert_eq!(count(&metrics.moved_back), 1);
}

/// The log has deleted what the store would apply next, as when an older copy of that was put back in place.
#[test]
fn a_partition_that_begins_behind_the_place_is_named_until_somebody_moves_it() {
    let fixture = migrated();
    applied_to(&fixture, 5, 90);
    fixture.sqlite().note_log(log(1)).expect("noted");
    let script = vec![
        Ok(LogEvent::Assigned(vec![5])),
        Err(LogError::OffsetOutOfRange { partition: 5, requested: 90, earliest: 100, latest: 130 }),
    ];
    let (mut reader, _, started) = scripted(script, log(1));
    reader.inner.script.push_back((1, Ok(LogEvent::Records(vec![batch(5, 1, 100)]))));
    let may_read = Arc::clone(&reader.inner.store_calls);
    let (publisher, _) = in_process::channel();
    let mut reasons = None;
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
        if reasons.is_none() && !metrics.troubles.all().is_empty() {
            reasons = Some(metrics.troubles.all());
            let store = rusqlite::Connection::open(fixture.data_dir.store_path()).expect("opened");
            store
                .execute("UPDATE applied_offsets SET next_offset = 100 WHERE partition = 5", [])
                .expect("as it is said");
        }
        may_read.store(u64::from(started.lock().expect("not poisoned").len() == 2), Ordering::Relaxed);
        count(&metrics.commands) == 1
    });
    result.expect("it has not ended");
    let reasons = reasons.expect("it was named");
    assert!(
        matches!(&reasons[..], [(Component::Store, text)] if text.contains("10 commands were deleted from the log")
        && text.contains("in the table applied_offsets to 100")),
        "{reasons:?}"
    );
    assert_eq!(*started.lock().expect("not poisoned"), [(5, Some(90)), (5, Some(100))]);
    assert_eq!((metrics.troubles.all(), count(&metrics.moved_back)), (vec![], 0));
}

/// By `migrate`, or by an older copy of the store that was put back in place: a worker that has nothing to apply goes there, too.
#[test]
fn a_place_that_somebody_else_moves_is_gone_to_while_nothing_is_applied() {
    let places: [(Option<Offset>, Option<Offset>); 4] =
        [(Some(90), Some(30)), (Some(30), Some(90)), (Some(30), None), (None, Some(30))];
    for (before, after) in places {
        let fixture = migrated();
        let set = |next: Option<Offset>| {
            let store = rusqlite::Connection::open(fixture.data_dir.store_path()).expect("opened");
            store.execute("DELETE FROM applied_offsets WHERE partition = 5", []).expect("deleted");
            if let Some(next) = next {
                store.execute("INSERT INTO applied_offsets VALUES (5, ?1)", [next]).expect("inserted");
            }
        };
        set(before);
        let from = after.unwrap_or(0);
        let (mut reader, _, started) = scripted(vec![Ok(LogEvent::Assigned(vec![5, 7]))], log(1));
        reader.end = 1_000;
        reader.inner.script.push_back((1, Ok(LogEvent::Records(vec![batch(5, 1, from)]))));
        let may_read = Arc::clone(&reader.inner.store_calls);
        let (publisher, _) = in_process::channel();
        let mut is_moved = false;
        let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
            if !is_moved && started.lock().expect("not poisoned").len() == 2 {
                is_moved = true;
                set(after);
            }
            may_read.store(u64::from(started.lock().expect("not poisoned").len() == 3), Ordering::Relaxed);
            count(&metrics.commands) == 1
        });
        result.expect("it has not ended");
        assert_eq!(*started.lock().expect("not poisoned"), [(5, before), (7, None), (5, after)]);
        assert_eq!(fixture.sqlite().applied_offsets().expect("readable")[&5], from + 3);
        assert_eq!((metrics.troubles.all(), count(&metrics.fenced)), (vec![], 0));
    }
}

/// A store of a version that noted no id: its offsets may be of any log.
#[test]
fn a_log_that_ends_before_the_offsets_of_an_older_version_is_not_taken_for_the_own_however_long_it_becomes() {
    // The second has a partition that goes far enough.
    for offsets in [AppliedOffsets::from([(5, 90)]), AppliedOffsets::from([(3, 10), (5, 90)])] {
        let fixture = migrated();
        offsets.iter().for_each(|(partition, next)| applied_to(&fixture, *partition, *next));
        let partitions: Vec<PartitionId> = offsets.keys().copied().collect();
        for end in [30, 1_000] {
            let script = vec![
                Ok(LogEvent::Assigned(partitions.clone())),
                Ok(LogEvent::Records(vec![batch(partitions[0], 1, offsets[&partitions[0]])])),
            ];
            let (reader, _, started) = scripted(script, log(1));
            let (publisher, _) = in_process::channel();
            let (result, _) = run_worker(NamedReader { end, ..reader }, fixture.sqlite(), publisher, |metrics| {
                names(metrics, "is not the one whose offsets the store holds") && count(&metrics.retries) > 2
            });
            result.expect("it has not ended");
            assert_eq!(*started.lock().expect("not poisoned"), [] as [Start; 0], "nothing of it is read");
            assert_eq!(fixture.sqlite().applied_offsets().expect("readable"), offsets);
            let rejected = KnownLogs { followed: None, rejected: vec![log(1)] };
            assert_eq!(fixture.sqlite().known_logs().expect("readable"), rejected);
        }
        // The settings had led to a wrong log, and do no longer.
        let script = vec![Ok(LogEvent::Assigned(partitions)), Ok(LogEvent::Records(vec![batch(5, 1, 90)]))];
        let (reader, _, _) = scripted(script, log(2));
        let (publisher, _) = in_process::channel();
        let own = NamedReader { end: 1_000, ..reader };
        let (result, metrics) = run_worker(own, fixture.sqlite(), publisher, |metrics| count(&metrics.commands) == 1);
        result.expect("it has not ended");
        assert_eq!(fixture.sqlite().applied_offsets().expect("readable")[&5], 93);
        assert_eq!(fixture.sqlite().known_logs().expect("readable").followed, Some(log(2)));
        assert_eq!(metrics.troubles.all(), []);
    }
}
