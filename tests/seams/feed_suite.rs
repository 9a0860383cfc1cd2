//! What every feed has to do: whatever happens between worker and API process, the list becomes that of the store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use million_rps::feed::{ChangeSet, FeedError, FeedEvent, FeedPublisher, FeedSubscriber};
use million_rps::store::{AppliedOffsets, Changes, OffsetStep, Store};
use million_rps::todo::{Todo, TodoId};

use crate::samples::{list_of, todo};

/// A feed of its own, with a store, for one case.
pub trait FeedFixture {
    /// Both ends; called once.
    fn open(&self) -> (Box<dyn FeedPublisher>, Box<dyn FeedSubscriber>);

    /// A new connection to the store, its schema made.
    fn store(&self) -> Box<dyn Store>;
}

/// Runs the suite: `feed_suite!(make)`, where `make()` is a new [`FeedFixture`].
macro_rules! feed_suite {
    ($make:expr) => {
        suite!(
            feed_suite,
            $make,
            [
                changes_follow_the_load,
                changes_between_commit_and_publishing_are_seen_once_published,
                what_the_load_has_seen_does_not_come_back_older,
                a_set_that_is_published_twice_does_no_harm,
                steps_that_were_never_published_are_noticed_by_the_next,
                steps_that_were_never_published_are_noticed_when_a_worker_takes_over,
                a_worker_that_takes_over_where_the_feed_stands_disturbs_nobody,
                nothing_new_is_current,
                deleted_and_made_again_is_shown_once,
            ]
        );
    };
}

const PATIENCE: Duration = Duration::from_secs(60);

/// A worker's side: commits to the store, and publishes what it is told to.
struct Committer {
    store: Box<dyn Store>,
    next: Option<i64>,
}

impl Committer {
    fn commit(&mut self, upserts: &[Todo], deletes: &[&Todo]) -> ChangeSet {
        let step = OffsetStep { partition: 0, from: self.next, to: self.next.unwrap_or(0) + 1 };
        let changes = Changes { upserts: upserts.to_vec(), deletes: deletes.iter().map(|todo| todo.key()).collect() };
        let changes = self.store.apply(&[step], &[], &mut |_| changes.clone()).expect("applied");
        self.next = Some(step.to);
        ChangeSet { steps: vec![step], changes }
    }
}

/// An API process's side: the list as the feed makes it.
struct View {
    subscriber: Box<dyn FeedSubscriber>,
    store: Box<dyn Store>,
    todos: BTreeMap<TodoId, Todo>,
    /// How far the log is said to be in the list.
    covered: AppliedOffsets,
    lost: usize,
}

impl View {
    fn load(&mut self) {
        self.todos.clear();
        let todos = &mut self.todos;
        let mut each = |todo: Todo| {
            todos.insert(todo.id, todo);
        };
        self.subscriber.identify(self.store.as_mut()).expect("the store answers");
        self.covered = self.subscriber.load(self.store.as_mut(), &AppliedOffsets::new(), &mut each).expect("loaded");
        self.check_coverage();
    }

    /// A list that is said to go as far as the store has all that the store has.
    fn check_coverage(&mut self) {
        if self.covered == self.store.applied_offsets().expect("readable") {
            let mut expected = list_of(self.store.as_mut());
            expected.sort_by_key(|todo| todo.id);
            assert!(self.todos.values().eq(&expected), "the list is {:?}, the store has {expected:?}", self.todos);
        }
    }

    fn turn(&mut self) {
        match self.subscriber.next(Duration::from_millis(20)) {
            Ok(FeedEvent::Changes(sets)) => {
                for set in sets {
                    for key in &set.changes.deletes {
                        self.todos.remove(&key.id);
                    }
                    self.todos.extend(set.changes.upserts.into_iter().map(|todo| (todo.id, todo)));
                    self.covered.extend(set.steps.iter().map(|step| (step.partition, step.to)));
                }
                self.check_coverage();
            }
            Ok(FeedEvent::Lost { reason }) => {
                assert!(!reason.is_empty());
                self.lost += 1;
                self.load();
            }
            Ok(FeedEvent::Current) | Err(FeedError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes what comes until the list is that of the store.
    fn converge(&mut self) {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let mut expected = list_of(self.store.as_mut());
            expected.sort_by_key(|todo| todo.id);
            let reaches = self.covered == self.store.applied_offsets().expect("readable");
            if reaches && self.todos.values().eq(&expected) {
                return;
            }
            assert!(Instant::now() < give_up_at, "the list stays {:?}, the store has {expected:?}", self.todos);
            self.turn();
        }
    }
}

fn open(fixture: &impl FeedFixture) -> (Committer, Box<dyn FeedPublisher>, View) {
    let (mut publisher, subscriber) = fixture.open();
    let mut committer = Committer { store: fixture.store(), next: None };
    publisher.identify(&committer.store.identity().expect("the store answers"));
    (
        committer,
        publisher,
        View { subscriber, store: fixture.store(), todos: BTreeMap::new(), covered: AppliedOffsets::new(), lost: 0 },
    )
}

/// Opens a feed whose worker has committed and published todos 0 to 9, and whose list is loaded.
fn open_warm(fixture: &impl FeedFixture) -> (Committer, Box<dyn FeedPublisher>, View) {
    let (mut committer, mut publisher, mut view) = open(fixture);
    publisher.resume(&committer.store.applied_offsets().expect("readable")).expect("linked");
    let set = committer.commit(&(0..10).map(todo).collect::<Vec<_>>(), &[]);
    publisher.publish(&set).expect("published");
    view.load();
    view.converge();
    view.lost = 0;
    (committer, publisher, view)
}

pub fn changes_follow_the_load(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    for round in 0..5 {
        for number in 0..3 {
            let new = todo(100 + round * 10 + number);
            let set = committer.commit(&[new], &[&todo(round)]);
            publisher.publish(&set).expect("published");
        }
        view.converge();
    }
    assert_eq!(view.lost, 0, "changes are enough");
}

pub fn changes_between_commit_and_publishing_are_seen_once_published(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    let set = committer.commit(&[todo(20)], &[]);
    view.turn();
    publisher.publish(&set).expect("published");
    view.converge();
    assert_eq!(view.lost, 0);
}

pub fn what_the_load_has_seen_does_not_come_back_older(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    let first = Todo { title: "first".to_owned(), ..todo(1) };
    let second = Todo { title: "second".to_owned(), ..todo(1) };
    let first_set = committer.commit(&[first], &[]);
    publisher.publish(&first_set).expect("published");
    let second_set = committer.commit(std::slice::from_ref(&second), &[&todo(2)]);
    view.load();
    publisher.publish(&second_set).expect("published");
    view.converge();
    for _ in 0..3 {
        view.turn();
    }
    assert_eq!(view.todos.get(&second.id), Some(&second));
    view.converge();
}

pub fn a_set_that_is_published_twice_does_no_harm(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    let first_set = committer.commit(&[todo(20)], &[]);
    publisher.publish(&first_set).expect("published");
    publisher.publish(&first_set).expect("published again");
    let second_set = committer.commit(&[], &[&todo(20)]);
    publisher.publish(&second_set).expect("published");
    publisher.publish(&first_set).expect("published late");
    view.converge();
    for _ in 0..3 {
        view.turn();
    }
    view.converge();
    assert_eq!(view.lost, 0);
}

pub fn steps_that_were_never_published_are_noticed_by_the_next(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    let _never_published = committer.commit(&[todo(20)], &[&todo(1)]);
    let set = committer.commit(&[todo(21)], &[]);
    publisher.publish(&set).expect("published");
    view.converge();
    assert!(view.lost > 0, "the list had to be loaded anew");
    let set = committer.commit(&[todo(22)], &[]);
    publisher.publish(&set).expect("published");
    view.lost = 0;
    view.converge();
    assert_eq!(view.lost, 0, "after the load, changes are enough again");
}

pub fn steps_that_were_never_published_are_noticed_when_a_worker_takes_over(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    let _never_published = committer.commit(&[todo(20)], &[&todo(1)]);
    publisher.resume(&committer.store.applied_offsets().expect("readable")).expect("linked");
    view.converge();
    assert!(view.lost > 0, "the list had to be loaded anew");
}

pub fn a_worker_that_takes_over_where_the_feed_stands_disturbs_nobody(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    for number in 20..25 {
        publisher.resume(&committer.store.applied_offsets().expect("readable")).expect("linked");
        let set = committer.commit(&[todo(number)], &[]);
        publisher.publish(&set).expect("published");
        view.converge();
    }
    assert_eq!(view.lost, 0);
}

pub fn nothing_new_is_current(fixture: &impl FeedFixture) {
    let (_committer, _publisher, mut view) = open_warm(fixture);
    // What the load has already seen may still be told.
    let give_up_at = Instant::now() + PATIENCE;
    while view.subscriber.next(Duration::from_millis(50)).expect("linked") != FeedEvent::Current {
        assert!(Instant::now() < give_up_at, "it never says that the list is current");
    }
    view.converge();
    assert_eq!(view.lost, 0);
}

pub fn deleted_and_made_again_is_shown_once(fixture: &impl FeedFixture) {
    let (mut committer, mut publisher, mut view) = open_warm(fixture);
    let again = Todo { id: todo(1).id, ..todo(50) };
    let set = committer.commit(std::slice::from_ref(&again), &[&todo(1)]);
    publisher.publish(&set).expect("published");
    view.converge();
    assert_eq!(view.todos.get(&again.id), Some(&again));
    view.load();
    view.converge();
}
