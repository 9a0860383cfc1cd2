//! Several deployments share a Redis, and a deployment's store is away when one of its processes starts.

use std::time::Duration;

use million_rps::feed::redis::RedisOptions;
use million_rps::feed::{FeedError, FeedPublisher, FeedSubscriber};
use million_rps::store::{AppliedOffsets, StoreError};

use crate::redis::{MemoryStore, Process, command, identity, options, publisher_of};
use crate::setting::{todo, unique};

/// The same topic and the same Redis, before another store.
fn other_store(number: u8) -> MemoryStore {
    let store = MemoryStore::default();
    store.be(identity(number));
    store
}

#[test]
fn deployments_of_one_topic_do_not_list_each_others_todos() {
    let options = options();
    let stores = [other_store(1), other_store(2), other_store(3)];
    let mut publishers: Vec<_> = (1..=3).map(|number| publisher_of(&options, &identity(number))).collect();
    for (number, (store, publisher)) in (0..).zip(stores.iter().zip(&mut publishers)) {
        publisher.publish(&store.commit(0, vec![todo(number, "own")], vec![])).expect("published");
    }
    let mut processes: Vec<Process> = stores.iter().map(|store| Process::loaded(&options, store)).collect();
    for (number, (store, publisher)) in (10..).zip(stores.iter().zip(&mut publishers)) {
        publisher.publish(&store.commit(0, vec![todo(number, "later")], vec![])).expect("published");
    }
    for (process, store) in processes.iter_mut().zip(&stores) {
        assert_eq!(process.follow(), Vec::<String>::new(), "nobody disturbs anybody");
        assert_eq!(process.todos, store.todos());
        // Started again, on a warm Redis.
        assert_eq!(Process::loaded(&options, store).todos, store.todos());
        assert_eq!(store.scans(), 1);
    }
}

#[test]
fn a_process_that_cannot_ask_the_store_takes_the_list_that_its_fleet_has_left() {
    let options = RedisOptions { fleet: Some(unique("fleet")), ..options() };
    let store = other_store(1);
    let mut publisher = publisher_of(&options, &identity(1));
    publisher.publish(&store.commit(0, vec![todo(1, "t")], vec![])).expect("published");
    let mut first = Process::loaded(&options, &store);
    let known = first.subscriber.identify(&mut first.store).expect("known");
    store.take_away(true);
    let mut second = Process::new(&options, &store);
    second.load().expect("Redis says whose list it is");
    assert_eq!(second.todos, store.todos());
    let found = second.subscriber.identify(&mut second.store).expect("known");
    assert_eq!(
        (found.entity_tag_key, found.identity),
        (known.entity_tag_key, None),
        "the secret does not leave the store"
    );

    // Neither those who know nothing of it, nor those who are not of the fleet.
    for fleet in [None, Some(unique("others"))] {
        let mut stranger = Process::new(&RedisOptions { fleet, ..options.clone() }, &store);
        assert!(matches!(stranger.load(), Err(FeedError::Store(StoreError::Unavailable(_)))));
    }
    store.take_away(false);
    let found = second.subscriber.identify(&mut second.store).expect("known");
    assert_eq!(found, known);
}

#[test]
fn where_one_address_means_two_stores_nobody_guesses() {
    let options = RedisOptions { fleet: Some(unique("fleet")), ..options() };
    let stores = [other_store(1), other_store(2)];
    for store in &stores {
        Process::loaded(&options, store);
    }
    for store in &stores {
        store.take_away(true);
        assert!(matches!(Process::new(&options, store).load(), Err(FeedError::Store(StoreError::Unavailable(_)))));
        store.take_away(false);
        assert_eq!(Process::loaded(&options, store).todos, store.todos());
    }
}

#[test]
fn a_list_that_is_behind_the_store_is_not_taken() {
    let options = options();
    let store = other_store(1);
    let mut publisher = publisher_of(&options, &identity(1));
    publisher.publish(&store.commit(0, vec![todo(1, "t")], vec![])).expect("published");
    let mut process = Process::loaded(&options, &store);
    let never_published = store.commit(0, vec![todo(2, "t")], vec![]);
    let mut other = Process::new(&options, &store);
    other.subscriber.identify(&mut other.store).expect("known");
    let mut load = |at_least: &AppliedOffsets| other.subscriber.load(&mut other.store, at_least, &mut |_| {});
    let refused = load(&store.offsets());
    assert!(matches!(&refused, Err(FeedError::Unavailable(text)) if text.contains("behind the store")), "{refused:?}");
    publisher.publish(&never_published).expect("published");
    load(&store.offsets()).expect("it has come that far");
    assert_eq!(process.follow(), Vec::<String>::new());
}

#[test]
fn the_keys_say_whose_they_are_and_go_by_themselves() {
    let options = RedisOptions { fleet: Some(unique("fleet")), cache_ttl: Duration::from_secs(5), ..options() };
    let store = other_store(7);
    publisher_of(&options, &identity(7)).publish(&store.commit(0, vec![todo(1, "t")], vec![])).expect("published");
    let _process = Process::loaded(&options, &store);
    let keys: Vec<String> = command(&options, "KEYS", &[&format!("million-rps:*{}*", options.topic)]);
    assert!(keys.len() >= 4, "{keys:?}");
    for key in &keys {
        assert!(key.contains(&identity(7).name()) || key.contains("}:deployment:"), "{key}");
        assert!(command::<i64>(&options, "PTTL", &[key]) > 0, "{key} expires");
    }
}
