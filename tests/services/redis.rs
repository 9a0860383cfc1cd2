//! The Redis feed: loading once for a fleet, following changes, and noticing whatever was missed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use million_rps::feed::redis::{RedisOptions, RedisPublisher, RedisSubscriber};
use million_rps::feed::{ChangeSet, FeedError, FeedEvent, FeedPublisher, FeedSubscriber};
use million_rps::store::{AppliedOffsets, Changes, Fold, OffsetStep, Store, StoreError};
use million_rps::todo::{Todo, TodoId, TodoKey};

use crate::setting::{Proxy, eventually, required, todo, unique};

const WAIT: Duration = Duration::from_millis(50);

/// A store in memory, shared by the processes of a test.
#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    todos: BTreeMap<TodoId, Todo>,
    offsets: AppliedOffsets,
    scans: usize,
    broken: bool,
    /// Runs once, after the next scan has taken its view.
    during_scan: Option<Box<dyn FnOnce() + Send>>,
}

impl MemoryStore {
    /// Commits a batch that makes or changes these todos; returns what a worker then publishes.
    fn commit(&self, partition: i32, upserts: Vec<Todo>, deletes: Vec<TodoKey>) -> ChangeSet {
        let mut memory = self.0.lock().expect("unpoisoned");
        for todo in &upserts {
            memory.todos.insert(todo.id, todo.clone());
        }
        for key in &deletes {
            memory.todos.remove(&key.id);
        }
        let from = memory.offsets.get(&partition).copied();
        let to = from.unwrap_or(0) + 10;
        memory.offsets.insert(partition, to);
        ChangeSet { steps: vec![OffsetStep { partition, from, to }], changes: Changes { upserts, deletes } }
    }

    fn scans(&self) -> usize {
        self.0.lock().expect("unpoisoned").scans
    }

    fn todos(&self) -> BTreeMap<TodoId, Todo> {
        self.0.lock().expect("unpoisoned").todos.clone()
    }

    fn offsets(&self) -> AppliedOffsets {
        self.0.lock().expect("unpoisoned").offsets.clone()
    }

    fn during_next_scan(&self, action: impl FnOnce() + Send + 'static) {
        self.0.lock().expect("unpoisoned").during_scan = Some(Box::new(action));
    }

    fn break_down(&self, broken: bool) {
        self.0.lock().expect("unpoisoned").broken = broken;
    }
}

impl Store for MemoryStore {
    fn migrate(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError> {
        Ok(self.offsets())
    }

    fn apply(&mut self, _: &[OffsetStep], _: &[TodoId], _: Fold<'_>) -> Result<Changes, StoreError> {
        Err(StoreError::Fatal("these tests commit by hand".into()))
    }

    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        let (todos, offsets, action) = {
            let mut memory = self.0.lock().expect("unpoisoned");
            memory.scans += 1;
            if memory.broken {
                return Err(StoreError::Unavailable("broken by the test".into()));
            }
            (memory.todos.clone(), memory.offsets.clone(), memory.during_scan.take())
        };
        if let Some(action) = action {
            action();
        }
        todos.into_values().for_each(each);
        Ok(offsets)
    }
}

/// What an API process has of the list.
struct Process {
    subscriber: RedisSubscriber,
    store: MemoryStore,
    todos: BTreeMap<TodoId, Todo>,
}

impl Process {
    fn new(options: &RedisOptions, store: &MemoryStore) -> Process {
        let subscriber = RedisSubscriber::new(options).expect("a usable URL");
        Process { subscriber, store: store.clone(), todos: BTreeMap::new() }
    }

    fn load(&mut self) -> Result<(), FeedError> {
        let mut todos = BTreeMap::new();
        self.subscriber.load(&mut self.store, &mut |todo| {
            assert!(todos.insert(todo.id, todo).is_none(), "each todo comes once");
        })?;
        self.todos = todos;
        Ok(())
    }

    fn loaded(options: &RedisOptions, store: &MemoryStore) -> Process {
        let mut process = Process::new(options, store);
        process.load().expect("loaded");
        process
    }

    /// Takes what comes next.
    fn step(&mut self) -> FeedEvent {
        let event = self.subscriber.next(WAIT).expect("Redis answers");
        if let FeedEvent::Changes(sets) = &event {
            for set in sets {
                for todo in &set.changes.upserts {
                    self.todos.insert(todo.id, todo.clone());
                }
                for key in &set.changes.deletes {
                    self.todos.remove(&key.id);
                }
            }
        }
        event
    }

    /// Follows until the list is current, loading it anew where that is asked for; returns the reasons.
    fn follow(&mut self) -> Vec<String> {
        let mut reasons = Vec::new();
        eventually("the list is current", || match self.step() {
            FeedEvent::Current => Some(()),
            FeedEvent::Changes(_) => None,
            FeedEvent::Lost { reason } => {
                reasons.push(reason);
                eventually("the list can be loaded", || self.load().ok());
                None
            }
        });
        reasons
    }
}

fn options() -> RedisOptions {
    RedisOptions { url: required("REDIS_URL"), topic: unique("todo-commands"), cache_ttl: Duration::from_secs(60) }
}

fn publisher(options: &RedisOptions) -> RedisPublisher {
    RedisPublisher::new(options).expect("a usable URL")
}

/// Runs one command of redis-cli.
fn command<T: redis::FromRedisValue>(options: &RedisOptions, name: &str, arguments: &[&str]) -> T {
    let client = redis::Client::open(options.url.as_str()).expect("a URL");
    redis::cmd(name).arg(arguments).query(&mut client.get_connection().expect("connected")).expect("it works")
}

fn key(options: &RedisOptions, part: &str) -> String {
    format!("million-rps:{{{}}}:{part}", options.topic)
}

/// A store with a few todos, a publisher that has published them, and a process that follows.
fn warm() -> (RedisOptions, MemoryStore, RedisPublisher, Process) {
    let (options, store) = (options(), MemoryStore::default());
    let mut publisher = publisher(&options);
    let process = Process::loaded(&options, &store);
    publisher.publish(&store.commit(0, (0..5).map(|number| todo(number, "t")).collect(), vec![])).expect("published");
    let mut process = process;
    assert_eq!(process.follow(), Vec::<String>::new());
    assert_eq!(process.todos, store.todos());
    (options, store, publisher, process)
}

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
fn an_empty_list_is_warm_too() {
    let (options, store) = (options(), MemoryStore::default());
    let mut first = Process::loaded(&options, &store);
    let mut second = Process::loaded(&options, &store);
    assert_eq!((first.follow(), second.follow(), store.scans()), (vec![], vec![], 1));
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
fn a_lost_link_is_opened_again_and_nothing_is_missed() {
    let (direct, store, mut publisher, _) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::start(&address);
    let through = RedisOptions { url: format!("127.0.0.1:{}", proxy.port), ..direct.clone() };
    let mut process = Process::loaded(&through, &store);
    proxy.cut();
    publisher.publish(&store.commit(0, vec![todo(10, "while the link was cut")], vec![])).expect("published");
    assert_eq!((process.follow(), &process.todos), (vec![], &store.todos()));

    proxy.refuse(true);
    proxy.cut();
    assert!(matches!(process.subscriber.next(WAIT), Err(FeedError::Unavailable(_))));
    publisher.publish(&store.commit(0, vec![todo(11, "while Redis was away")], vec![])).expect("published");
    proxy.refuse(false);
    eventually("Redis is back", || {
        process.subscriber.next(Duration::ZERO).ok().map(|event| {
            let FeedEvent::Changes(sets) = event else { panic!("{event:?}") };
            process.todos.extend(sets.into_iter().flat_map(|set| set.changes.upserts).map(|todo| (todo.id, todo)));
        })
    });
    assert_eq!((process.follow(), process.todos, store.scans()), (vec![], store.todos(), 1));
}

#[test]
fn a_frozen_redis_is_noticed_and_used_again_when_it_thaws() {
    let (direct, store, mut publisher, _) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::start(&address);
    let through = RedisOptions { url: format!("127.0.0.1:{}", proxy.port), ..direct };
    let mut process = Process::loaded(&through, &store);
    let mut frozen_out = self::publisher(&through);
    proxy.stall(true);
    assert!(matches!(process.subscriber.next(WAIT), Err(FeedError::Unavailable(_))));
    assert!(matches!(frozen_out.resume(&store.offsets()), Err(FeedError::Unavailable(_))));
    publisher.publish(&store.commit(0, vec![todo(10, "while it was frozen")], vec![])).expect("published");
    proxy.stall(false);
    eventually("Redis is back", || frozen_out.resume(&store.offsets()).ok());
    let event = eventually("the link is back", || process.subscriber.next(WAIT).ok());
    assert!(matches!(&event, FeedEvent::Changes(sets) if sets[0].changes.upserts[0].title == "while it was frozen"));
}

#[test]
fn a_publication_whose_answer_was_lost_is_not_doubled() {
    let (direct, store, _, mut process) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::start(&address);
    let through = RedisOptions { url: format!("127.0.0.1:{}", proxy.port), ..direct };
    let mut publisher = publisher(&through);
    publisher.publish(&store.commit(0, vec![todo(10, "first")], vec![])).expect("published");
    process.follow();
    let set = store.commit(0, vec![todo(11, "cut off here")], vec![]);
    proxy.cut_reply_to("cut off here");
    publisher.publish(&set).expect("published at the second attempt, which finds it known");
    assert_eq!(process.step(), FeedEvent::Changes(vec![set]));
    assert_eq!(process.step(), FeedEvent::Current);
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

/// xorshift64*: reproducible, and good enough to choose the next event of a history.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

#[test]
fn whatever_happens_every_process_ends_with_the_stores_list() {
    for seed in 1..=60 {
        let mut random = Random(seed);
        let (options, store) = (options(), MemoryStore::default());
        let mut publisher = publisher(&options);
        let mut processes = [Process::new(&options, &store), Process::new(&options, &store)];
        let mut waiting: BTreeMap<i32, Vec<ChangeSet>> = BTreeMap::new();
        for number in 0..40 {
            let partition = random.below(3) as i32;
            match random.below(12) {
                0..4 => {
                    let known: Vec<Todo> = store.todos().into_values().collect();
                    let (mut upserts, mut deletes) = (vec![todo(number, "new")], vec![]);
                    // A todo belongs to one partition for good.
                    if let Some(old) = known.iter().find(|old| old.user_id == partition.to_string()) {
                        match random.below(2) {
                            0 => deletes.push(old.key()),
                            _ => upserts.push(Todo { completed: !old.completed, ..old.clone() }),
                        }
                    }
                    upserts[0].user_id = partition.to_string();
                    waiting.entry(partition).or_default().push(store.commit(partition, upserts, deletes));
                }
                4..8 => {
                    for set in waiting.remove(&partition).unwrap_or_default() {
                        publisher.publish(&set).expect("published");
                    }
                }
                // A worker dies between commit and publishing; another takes over, sooner or later.
                8 => drop(waiting.remove(&partition)),
                9 => {
                    let all = store.offsets();
                    let own = all.into_iter().filter(|(owned, _)| *owned == partition && !waiting.contains_key(owned));
                    publisher.resume(&own.collect()).expect("compared");
                }
                10 => {
                    let part = ["todos", "offsets", "changes"][random.below(3) as usize];
                    let _: usize = command(&options, "DEL", &[&key(&options, part)]);
                }
                _ => {
                    let process = &mut processes[random.below(2) as usize];
                    match process.subscriber.next(Duration::ZERO).expect("Redis answers") {
                        FeedEvent::Changes(sets) => {
                            for set in sets {
                                process.todos.extend(set.changes.upserts.into_iter().map(|todo| (todo.id, todo)));
                                for key in set.changes.deletes {
                                    process.todos.remove(&key.id);
                                }
                            }
                        }
                        // It may fail when a change was lost; the next event tries again.
                        FeedEvent::Lost { .. } => drop(process.load()),
                        FeedEvent::Current => {}
                    }
                }
            }
        }
        for set in std::mem::take(&mut waiting).into_values().flatten() {
            publisher.publish(&set).expect("published");
        }
        publisher.resume(&store.offsets()).expect("compared");
        for process in &mut processes {
            process.follow();
            assert_eq!(process.todos, store.todos(), "seed {seed}");
        }
    }
}
