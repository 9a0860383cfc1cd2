//! The feed within one process: a bounded channel from the worker to the refresher.
//!
//! The worker's end only sends. The refresher's end knows which offsets its list stands for: it skips what the list
//! already has and notices what it never got.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use super::{Acquaintance, ChangeSet, FeedError, FeedEvent, FeedPublisher, FeedSubscriber};
use crate::limits::{FEED_CHANGE_SETS_MAX, FEED_PUBLISH_WAIT_MS};
use crate::store::{AppliedOffsets, Identity, OffsetStep, Store};
use crate::todo::Todo;

/// Makes both ends of a feed.
pub fn channel() -> (InProcessPublisher, InProcessSubscriber) {
    let (sender, receiver) = crossbeam_channel::bounded(FEED_CHANGE_SETS_MAX);
    (InProcessPublisher { sender }, InProcessSubscriber { receiver, seen: None })
}

enum Message {
    Changed(ChangeSet),
    /// The store stands here.
    Resumed(AppliedOffsets),
}

/// The worker's end.
pub struct InProcessPublisher {
    sender: Sender<Message>,
}

impl InProcessPublisher {
    /// A subscriber that is gone is no error: a worker runs without an API, too.
    fn send(&self, message: Message) -> Result<(), FeedError> {
        match self.sender.send_timeout(message, Duration::from_millis(FEED_PUBLISH_WAIT_MS)) {
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => Err(FeedError::Busy(format!(
                "{FEED_CHANGE_SETS_MAX} change sets wait for the refresher, which is busy"
            ))),
        }
    }
}

impl FeedPublisher for InProcessPublisher {
    /// One process is one deployment.
    fn identify(&mut self, _: &Identity) {}

    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        self.send(Message::Changed(set.clone()))
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError> {
        self.send(Message::Resumed(offsets.clone()))
    }
}

/// The refresher's end.
pub struct InProcessSubscriber {
    receiver: Receiver<Message>,
    /// The offsets that the list stands for; `None` until it is loaded, and after changes were lost.
    seen: Option<AppliedOffsets>,
}

/// How a change set stands to the list.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Next,
    Seen,
    Gap,
}

impl InProcessSubscriber {
    /// Takes one message; `Err` says what is missing before it.
    fn take(seen: &mut AppliedOffsets, message: Message, sets: &mut Vec<ChangeSet>) -> Result<(), String> {
        match message {
            Message::Changed(set) => match standing(seen, &set.steps) {
                Standing::Seen => {}
                Standing::Next => {
                    seen.extend(set.steps.iter().map(|step| (step.partition, step.to)));
                    sets.push(set);
                }
                Standing::Gap => {
                    return Err(format!("the list stands at {seen:?}, the next change set makes {:?}", set.steps));
                }
            },
            Message::Resumed(offsets) => {
                if offsets.iter().any(|(partition, offset)| seen.get(partition).is_none_or(|seen| seen < offset)) {
                    return Err(format!("the list stands at {seen:?}, the store at {offsets:?}"));
                }
            }
        }
        Ok(())
    }
}

fn standing(seen: &AppliedOffsets, steps: &[OffsetStep]) -> Standing {
    if steps.iter().all(|step| seen.get(&step.partition).is_some_and(|seen| *seen >= step.to)) {
        Standing::Seen
    } else if steps.iter().all(|step| seen.get(&step.partition).copied() == step.from) {
        Standing::Next
    } else {
        Standing::Gap
    }
}

impl FeedSubscriber for InProcessSubscriber {
    fn identify(&mut self, store: &mut dyn Store) -> Result<Acquaintance, FeedError> {
        Ok(store.identity()?.into())
    }

    fn may_fall_behind(&self) -> bool {
        false
    }

    /// Scans the store. What is published meanwhile waits in the channel; [`FeedSubscriber::next`] skips those sets that
    /// the scan has already seen.
    fn load(
        &mut self,
        store: &mut dyn Store,
        _at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        self.seen = None;
        Ok(self.seen.insert(store.scan(each)?).clone())
    }

    fn next(&mut self, max_wait: Duration) -> Result<FeedEvent, FeedError> {
        let Some(seen) = &mut self.seen else {
            return Ok(FeedEvent::Lost { reason: "the list is not loaded".to_owned() });
        };
        let give_up_at = Instant::now() + max_wait;
        let mut sets = Vec::new();
        let mut first = Some(match self.receiver.recv_deadline(give_up_at) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => return Ok(FeedEvent::Current),
            Err(RecvTimeoutError::Disconnected) => {
                // The caller comes back at once: without a wait it would spin.
                std::thread::sleep(give_up_at.saturating_duration_since(Instant::now()));
                return Err(FeedError::Unavailable("the worker has ended".to_owned()));
            }
        });
        // As many as the channel holds, so that a busy worker cannot keep the refresher here.
        for _ in 0..=FEED_CHANGE_SETS_MAX {
            let Some(message) = first.take().or_else(|| self.receiver.try_recv().ok()) else { break };
            if let Err(reason) = InProcessSubscriber::take(seen, message, &mut sets) {
                self.seen = None;
                return Ok(FeedEvent::Lost { reason });
            }
        }
        if sets.is_empty() { Ok(FeedEvent::Current) } else { Ok(FeedEvent::Changes(sets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    fn set(from: i64) -> ChangeSet {
        ChangeSet { steps: vec![OffsetStep { partition: 0, from: Some(from), to: from + 1 }], ..ChangeSet::default() }
    }

    #[test]
    fn a_full_channel_refuses_and_takes_the_same_set_later() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut store = SqliteStore::open(&folder.path().join("todos.sqlite")).expect("made");
        store.migrate().expect("migrated");
        let step = OffsetStep { partition: 0, from: None, to: 0 };
        store.apply(&[step], &[], &mut |_| Default::default()).expect("applied");
        let (mut publisher, mut subscriber) = channel();
        subscriber.load(&mut store, &AppliedOffsets::new(), &mut |_| {}).expect("loaded");

        let most = FEED_CHANGE_SETS_MAX as i64;
        for from in 0..most {
            publisher.publish(&set(from)).expect("there is room");
        }
        assert!(matches!(publisher.publish(&set(most)), Err(FeedError::Busy(_))));
        match subscriber.next(Duration::ZERO).expect("linked") {
            FeedEvent::Changes(sets) => assert_eq!(sets, (0..most).map(set).collect::<Vec<_>>()),
            other => panic!("{other:?}"),
        }
        publisher.publish(&set(most)).expect("there is room again");
        assert_eq!(subscriber.next(Duration::ZERO).expect("linked"), FeedEvent::Changes(vec![set(most)]));
    }

    #[test]
    fn each_end_lives_without_the_other() {
        let (mut publisher, subscriber) = channel();
        drop(subscriber);
        for from in 0..2 * FEED_CHANGE_SETS_MAX as i64 {
            publisher.publish(&set(from)).expect("nobody listens");
        }
        let (publisher, mut subscriber) = channel();
        drop(publisher);
        subscriber.seen = Some(AppliedOffsets::new());
        assert!(matches!(subscriber.next(Duration::ZERO), Err(FeedError::Unavailable(_))));
    }
}
