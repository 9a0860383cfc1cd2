//! Loading the list: once for a fleet, without missing what changes meanwhile.

use std::time::Duration;

use million_rps::feed::redis::RedisOptions;
use million_rps::feed::{FeedError, FeedPublisher};
use million_rps::store::StoreError;
use million_rps::todo::Todo;

use crate::redis::{MemoryStore, Process, command, key, options, publisher, warm};
use crate::setting::{eventually, todo};

#[test]
fn an_empty_list_is_warm_too() {
    let (options, store) = (options(), MemoryStore::default());
    let mut first = Process::loaded(&options, &store);
    let mut second = Process::loaded(&options, &store);
    assert_eq!((first.follow(), second.follow(), store.scans()), (vec![], vec![], 1));
}

#[test]
fn a_shorter_lifetime_holds_for_a_list_that_is_there() {
    let (long, store) = (RedisOptions { cache_ttl: Duration::from_secs(3_600), ..options() }, MemoryStore::default());
    store.commit(0, vec![todo(1, "old")], vec![]);
    Process::loaded(&long, &store);
    let lifetime = || command::<i64>(&long, "PTTL", &[&key(&long, "todos")]);
    assert!(lifetime() > 3_000_000);
    // One that is asked for longer does not make it longer, nor does the same again.
    Process::loaded(&RedisOptions { cache_ttl: Duration::from_secs(9_000), ..long.clone() }, &store);
    assert!((3_000_000..=3_600_000).contains(&lifetime()));
    let short = RedisOptions { cache_ttl: Duration::from_secs(2), ..long.clone() };
    let mut process = Process::loaded(&short, &store);
    assert!(lifetime() <= 2_000);
    let reasons = eventually("the list to expire", || Some(process.follow()).filter(|reasons| !reasons.is_empty()));
    assert!(reasons[0].contains("expired") && store.scans() == 2, "{reasons:?}");
}

#[test]
fn a_fleet_loads_a_cold_list_once() {
    let (options, store) = (options(), MemoryStore::default());
    store.commit(0, (0..2_500).map(|number| todo(number, "t")).collect(), vec![]);
    store.during_next_scan(|| std::thread::sleep(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(Process::loaded(&options, &store).todos.len(), 2_500));
        }
    });
    assert_eq!(store.scans(), 1);
}

#[test]
fn changes_that_come_while_the_list_is_loaded_are_in_it() {
    let (options, store) = (options(), MemoryStore::default());
    let kept = todo(1, "kept");
    let gone = todo(2, "gone soon");
    let early = store.commit(0, vec![kept.clone(), gone.clone()], vec![]);
    // Committed before the store is read, published afterwards; and one that the store did not show yet.
    let (in_action, actions_options) = (store.clone(), options.clone());
    store.during_next_scan(move || {
        let mut publisher = publisher(&actions_options);
        publisher.publish(&early).expect("published");
        let changed = Todo { completed: true, ..kept };
        publisher.publish(&in_action.commit(0, vec![changed, todo(3, "late")], vec![gone.key()])).expect("published");
    });
    let mut process = Process::loaded(&options, &store);
    let mut newcomer = Process::loaded(&options, &store);
    assert_eq!(newcomer.todos, store.todos());
    assert_eq!((process.follow(), process.todos), (vec![], store.todos()));
    assert_eq!((newcomer.follow(), store.scans()), (vec![], 1));
}

#[test]
fn a_change_that_was_lost_while_the_list_is_loaded_lets_the_load_begin_again() {
    let (options, store) = (options(), MemoryStore::default());
    store.commit(0, vec![todo(1, "one")], vec![]);
    let (in_action, actions_options) = (store.clone(), options.clone());
    store.during_next_scan(move || {
        in_action.commit(0, vec![todo(2, "never published")], vec![]);
        let next = in_action.commit(0, vec![todo(3, "three")], vec![]);
        publisher(&actions_options).publish(&next).expect("published");
    });
    let mut process = Process::new(&options, &store);
    assert!(matches!(process.load(), Err(FeedError::Unavailable(_))));
    eventually("the list can be loaded", || process.load().ok());
    assert_eq!((process.follow(), process.todos), (vec![], store.todos()));

    // The same, noticed by the worker that takes over instead of by its first batch.
    let (options, store) = (self::options(), MemoryStore::default());
    store.commit(0, vec![todo(1, "one")], vec![]);
    let (in_action, actions_options) = (store.clone(), options.clone());
    store.during_next_scan(move || {
        in_action.commit(0, vec![todo(2, "never published")], vec![]);
        publisher(&actions_options).resume(&in_action.offsets()).expect("compared");
    });
    let mut process = Process::new(&options, &store);
    assert!(matches!(process.load(), Err(FeedError::Unavailable(_))));
    eventually("the list can be loaded", || process.load().ok());
    assert_eq!((process.follow(), process.todos), (vec![], store.todos()));
}

#[test]
fn a_list_is_compared_with_the_store_when_its_time_is_over() {
    let options = RedisOptions { cache_ttl: Duration::from_millis(400), ..options() };
    let store = MemoryStore::default();
    let (mut publisher, mut process) = (publisher(&options), Process::loaded(&options, &store));
    publisher.publish(&store.commit(0, vec![todo(1, "one")], vec![])).expect("published");
    // Somebody changes the store by hand: nothing tells the feed.
    store.0.lock().expect("unpoisoned").todos.clear();
    eventually("the change shows", || {
        process.follow();
        process.todos.is_empty().then_some(())
    });
    assert!(store.scans() >= 2);
}

#[test]
fn a_store_in_trouble_is_not_stormed() {
    let (options, store) = (options(), MemoryStore::default());
    store.break_down(true);
    let mut process = Process::new(&options, &store);
    assert!(matches!(process.load(), Err(FeedError::Store(StoreError::Unavailable(_)))));
    // The next attempt waits for the lock that the failure left; the store has come back by then.
    store.break_down(false);
    process.load().expect("loaded");
    assert_eq!(store.scans(), 2);
}

#[test]
fn the_lock_of_a_process_that_died_while_loading_expires() {
    let (options, store) = (options(), MemoryStore::default());
    let _: String = command(&options, "SET", &[&key(&options, "loading"), "of a dead process", "PX", "300"]);
    Process::loaded(&options, &store);
    assert_eq!(store.scans(), 1);
}

#[test]
fn a_damaged_list_is_dropped_and_loaded_from_the_store() {
    let (options, store, _, _) = warm();
    let id = store.todos().into_keys().next().expect("not empty").to_string();
    let _: usize = command(&options, "HSET", &[&key(&options, "todos"), &id, "{\"id\":"]);
    let mut process = Process::new(&options, &store);
    assert!(matches!(process.load(), Err(FeedError::Unavailable(text)) if text.contains(&id)));
    process.load().expect("loaded");
    assert_eq!((process.todos, store.scans()), (store.todos(), 2));
}
