//! Following the changes, and noticing whatever was missed.

use million_rps::feed::redis::RedisOptions;
use million_rps::feed::{FeedEvent, FeedPublisher};
use million_rps::todo::{Todo, TodoKey};

use crate::redis::{MemoryStore, Process, command, key, options, publisher, warm};
use crate::setting::{required, todo};

#[test]
fn changes_reach_those_who_follow_and_a_warm_list_needs_no_store() {
    let (options, store, mut publisher, mut process) = warm();
    let (changed, gone) = {
        let todos: Vec<Todo> = store.todos().into_values().collect();
        (Todo { completed: true, ..todos[1].clone() }, todos[2].key())
    };
    let set = store.commit(0, vec![changed, todo(9, "new \u{1F600}")], vec![gone]);
    publisher.publish(&set).expect("published");
    assert_eq!(process.step(), FeedEvent::Changes(vec![set]));
    assert_eq!(process.todos, store.todos());

    let scans = store.scans();
    store.break_down(true);
    let mut newcomer = Process::loaded(&options, &store);
    assert_eq!((newcomer.follow(), &newcomer.todos), (vec![], &store.todos()));
    assert_eq!(store.scans(), scans);

    // As a person would look at it.
    let count: usize = command(&options, "HLEN", &[&key(&options, "todos")]);
    assert_eq!(count, store.todos().len() + 1);
    let ttl: i64 = command(&options, "TTL", &[&key(&options, "todos")]);
    assert!((1..=60).contains(&ttl), "{ttl}");
    let keys: Vec<String> = command(&options, "KEYS", &[&format!("million-rps:?{}*", options.topic)]);
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
fn what_is_published_twice_or_too_late_is_ignored() {
    let (_, store, mut publisher, mut process) = warm();
    let first = store.commit(0, vec![todo(10, "first")], vec![]);
    let second = store.commit(0, vec![Todo { title: "second".into(), ..first.changes.upserts[0].clone() }], vec![]);
    for set in [&first, &first, &second, &first, &second] {
        publisher.publish(set).expect("published");
    }
    assert_eq!(process.step(), FeedEvent::Changes(vec![first, second]));
    assert_eq!(process.step(), FeedEvent::Current);
    assert_eq!(process.todos, store.todos());
}

#[test]
fn a_worker_that_died_between_commit_and_publish_is_noticed_by_the_next_batch() {
    let (options, store, mut publisher, mut process) = warm();
    let _never_published = store.commit(0, vec![todo(10, "hidden")], vec![]);
    let next = store.commit(0, vec![todo(11, "next")], vec![]);
    publisher.publish(&next).expect("published");
    let reasons = process.follow();
    assert!(reasons.len() == 1 && reasons[0].contains("partition 0"), "{reasons:?}");
    assert_eq!(process.todos, store.todos());
    // The publisher goes on as usual, and others find a warm list.
    publisher.publish(&store.commit(0, vec![todo(12, "later")], vec![])).expect("published");
    assert_eq!((process.follow(), &process.todos), (vec![], &store.todos()));
    assert_eq!(Process::loaded(&options, &store).todos, store.todos());
    assert_eq!(store.scans(), 2);
}

#[test]
fn a_worker_that_takes_over_tells_where_the_store_stands() {
    let (_, store, mut publisher, mut process) = warm();
    publisher.resume(&store.offsets()).expect("compared");
    assert_eq!(process.follow(), Vec::<String>::new(), "nothing is missing");
    store.commit(0, vec![todo(10, "hidden")], vec![]);
    publisher.resume(&store.offsets()).expect("compared");
    assert_eq!(process.follow().len(), 1);
    assert_eq!(process.todos, store.todos());
}

#[test]
fn an_emptied_redis_is_noticed_with_and_without_later_changes() {
    // FLUSHDB needs a database of its own.
    let number = 9;
    let url = required("REDIS_URL");
    let (server, _) = url.rsplit_once('/').expect("REDIS_URL ends with a database number");
    let options = RedisOptions { url: format!("{server}/{number}"), ..options() };
    let store = MemoryStore::default();
    let (mut publisher, mut process) = (publisher(&options), Process::loaded(&options, &store));
    let flush = || {
        let client = redis::Client::open(options.url.as_str()).expect("a URL");
        redis::cmd("FLUSHDB").exec(&mut client.get_connection().expect("connected")).expect("emptied");
    };
    publisher.publish(&store.commit(0, vec![todo(1, "one")], vec![])).expect("published");
    process.follow();

    flush();
    assert_eq!((process.follow().len(), &process.todos), (1, &store.todos()));

    flush();
    publisher.publish(&store.commit(0, vec![todo(2, "two")], vec![])).expect("published");
    publisher.publish(&store.commit(1, vec![todo(3, "three")], vec![])).expect("published");
    assert_eq!((process.follow().len(), &process.todos), (1, &store.todos()));
    assert_eq!(store.scans(), 3);
    flush();
}

#[test]
fn a_reader_that_is_left_behind_by_the_stream_loads_anew() {
    let (options, store, mut publisher, mut process) = warm();
    for number in 0..5 {
        publisher.publish(&store.commit(0, vec![todo(number, "t")], vec![])).expect("published");
    }
    let _: usize = command(&options, "XTRIM", &[&key(&options, "changes"), "MAXLEN", "2"]);
    let reasons = process.follow();
    assert!(reasons.len() == 1 && reasons[0].contains("comes after change"), "{reasons:?}");
    assert_eq!(process.todos, store.todos());
    assert_eq!(store.scans(), 1, "the list itself was warm");

    publisher.publish(&store.commit(0, vec![todo(20, "t")], vec![])).expect("published");
    let _: usize = command(&options, "DEL", &[&key(&options, "changes")]);
    assert_eq!(process.follow().len(), 1);
    assert_eq!(process.todos, store.todos());
}

#[test]
fn older_data_in_redis_is_used_by_nobody() {
    let (options, store, mut publisher, mut process) = warm();
    let backup: Vec<u8> = command(&options, "DUMP", &[&key(&options, "offsets")]);
    publisher.publish(&store.commit(0, vec![todo(10, "t")], vec![])).expect("published");
    process.follow();
    let client = redis::Client::open(options.url.as_str()).expect("a URL");
    let mut connection = client.get_connection().expect("connected");
    let mut restore = redis::cmd("RESTORE");
    restore.arg(key(&options, "offsets")).arg(0).arg(backup).arg("REPLACE").exec(&mut connection).expect("restored");
    let reasons = process.follow();
    assert!(reasons.len() == 1 && reasons[0].contains("this process has seen"), "{reasons:?}");
    assert_eq!((process.todos, store.scans()), (store.todos(), 2));
}

#[test]
fn a_large_batch_arrives_whole() {
    let (options, store, mut publisher, mut process) = warm();
    let deleted: Vec<TodoKey> = store.todos().values().map(Todo::key).collect();
    let first: Vec<Todo> = (0..2_500).map(|number| todo(number, "t")).collect();
    let mut deletes: Vec<TodoKey> = first.iter().take(1_200).map(Todo::key).collect();
    publisher.publish(&store.commit(0, first, vec![])).expect("published");
    deletes.extend(deleted);
    publisher
        .publish(&store.commit(0, (0..1_500).map(|number| todo(number, "u")).collect(), deletes))
        .expect("published");
    assert_eq!((process.follow(), &process.todos), (vec![], &store.todos()));
    assert_eq!(Process::loaded(&options, &store).todos, store.todos());
}
