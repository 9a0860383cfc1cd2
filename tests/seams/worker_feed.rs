//! A worker whose feed does not take its changes: the store gets them all the same, and the feed is told when it is back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use million_rps::command_log::CommandAppender;
use million_rps::feed::{ChangeSet, FeedError, FeedPublisher};
use million_rps::observe::troubles::Component;
use million_rps::store::{AppliedOffsets, Identity};

use crate::samples::{history, list_after, list_of, submissions};
use crate::worker::{append, applied_offset, count, migrated, open_log, run_worker};

/// How a feed refuses.
#[derive(Clone, Copy)]
enum Refusal {
    Unavailable,
    Fatal,
    /// It takes the question, and the answer does not come.
    Unanswered,
    /// The second and the third question alone.
    Briefly,
}

#[derive(Default)]
struct Told {
    attempts: usize,
    published: Vec<ChangeSet>,
    resumed: Vec<AppliedOffsets>,
}

/// A feed that takes nothing while it is away.
struct AwayPublisher {
    refusal: Refusal,
    away: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    begun: Option<ChangeSet>,
}

impl AwayPublisher {
    fn ask(&self) -> Result<(), FeedError> {
        let mut told = self.told.lock().expect("not poisoned");
        told.attempts += 1;
        match (self.away.load(Ordering::Relaxed), self.refusal) {
            (_, Refusal::Briefly) if (2..4).contains(&told.attempts) => Err(FeedError::Unavailable("away".into())),
            (false, _) => Ok(()),
            (true, Refusal::Fatal) => Err(FeedError::Fatal("no rights".into())),
            (true, _) => Err(FeedError::Unavailable("away".into())),
        }
    }
}

impl FeedPublisher for AwayPublisher {
    fn identify(&mut self, _: &Identity) {}

    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        self.ask()?;
        self.told.lock().expect("not poisoned").published.push(set.clone());
        Ok(())
    }

    fn begin(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        if !matches!(self.refusal, Refusal::Unanswered) {
            self.ask()?;
        }
        self.begun = Some(set.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), FeedError> {
        match self.begun.take() {
            Some(set) => self.publish(&set),
            None => Ok(()),
        }
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError> {
        self.ask()?;
        self.told.lock().expect("not poisoned").resumed.push(offsets.clone());
        Ok(())
    }
}

#[test]
fn the_store_gets_everything_while_the_feed_takes_nothing_and_the_feed_is_told_when_it_is_back() {
    for (refusal, from_the_start) in [
        (Refusal::Unavailable, false),
        (Refusal::Unavailable, true),
        (Refusal::Fatal, false),
        (Refusal::Fatal, true),
        (Refusal::Unanswered, false),
    ] {
        let fixture = migrated();
        let commands = history(9, 600);
        let (mut appender, reader) = open_log(&fixture);
        let (away, told) = (Arc::new(AtomicBool::new(from_the_start)), Arc::<Mutex<Told>>::default());
        let publisher = AwayPublisher { refusal, away: Arc::clone(&away), told: Arc::clone(&told), begun: None };
        appender.append(&mut submissions(&commands[..100]));
        let mut rest = commands[100..].chunks(50);
        let mut was_told_of = None;
        let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |metrics| {
            let applied = applied_offset(&fixture);
            if applied < 100 {
                return false;
            }
            if let Some(batch) = rest.next() {
                away.store(true, Ordering::Relaxed);
                appender.append(&mut submissions(batch));
                return false;
            }
            if applied < 600 {
                return false;
            }
            let noted = || metrics.troubles.all().iter().any(|(component, _)| *component == Component::Feed);
            if was_told_of.is_none() && noted() {
                was_told_of = Some(told.lock().expect("not poisoned").published.len());
                away.store(false, Ordering::Relaxed);
            }
            was_told_of.is_some() && !noted()
        });
        result.expect("stopped as told");
        assert_eq!(list_of(&mut fixture.sqlite()), list_after(&commands));
        let told = told.lock().expect("not poisoned");
        let last = told.resumed.last().expect("the feed is told where the store stands");
        assert_eq!(last.values().copied().collect::<Vec<_>>(), [600]);
        assert!(told.attempts < 300, "{} attempts: it is not asked for each batch", told.attempts);
        assert_eq!(count(&metrics.commands), 600, "nothing is applied twice");
    }
}

#[test]
fn a_set_that_the_feed_takes_a_moment_later_is_not_left_out() {
    let fixture = migrated();
    let commands = history(10, 100);
    append(&fixture, submissions(&commands));
    let (_appender, reader) = open_log(&fixture);
    let told = Arc::<Mutex<Told>>::default();
    let publisher =
        AwayPublisher { refusal: Refusal::Briefly, away: Arc::default(), told: Arc::clone(&told), begun: None };
    let (result, metrics) = run_worker(reader, fixture.sqlite(), publisher, |_| {
        told.lock().expect("not poisoned").published.iter().any(|set| set.steps[0].to == 100)
    });
    result.expect("stopped as told");
    assert!(metrics.troubles.all().is_empty());
    assert!(count(&metrics.retries) >= 2);
    assert_eq!(told.lock().expect("not poisoned").resumed.len(), 1, "at the start alone");
}
