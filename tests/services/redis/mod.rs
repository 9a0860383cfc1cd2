//! The Redis feed: loading once for a fleet, following changes, and noticing whatever was missed.

mod changes;
mod deployments;
mod history;
mod link;
mod list;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use million_rps::feed::redis::{RedisOptions, RedisPublisher, RedisSubscriber};
use million_rps::feed::{ChangeSet, FeedError, FeedEvent, FeedPublisher, FeedSubscriber};
use million_rps::store::{AppliedOffsets, Changes, Fold, Identity, OffsetStep, Store, StoreError};
use million_rps::todo::{Todo, TodoId, TodoKey};

use crate::setting::{eventually, required, todo, unique};

const WAIT: Duration = Duration::from_millis(50);

/// The identity of a store; 1 is that of the tests that need only one.
fn identity(number: u8) -> Identity {
    Identity::new([number; 16], [7; 32], &[])
}

/// A store in memory, shared by the processes of a test.
#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<Memory>>);

struct Memory {
    identity: Identity,
    todos: BTreeMap<TodoId, Todo>,
    offsets: AppliedOffsets,
    scans: usize,
    broken: bool,
    away: bool,
    /// Runs once, after the next scan has taken its view.
    during_scan: Option<Box<dyn FnOnce() + Send>>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            identity: identity(1),
            todos: BTreeMap::new(),
            offsets: AppliedOffsets::new(),
            scans: 0,
            broken: false,
            away: false,
            during_scan: None,
        }
    }
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

    /// Becomes the store of another deployment.
    fn be(&self, identity: Identity) {
        self.0.lock().expect("unpoisoned").identity = identity;
    }

    /// From now on nobody reaches it, or it is back.
    fn take_away(&self, away: bool) {
        self.0.lock().expect("unpoisoned").away = away;
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

    fn identity(&mut self) -> Result<Identity, StoreError> {
        let memory = self.0.lock().expect("unpoisoned");
        if memory.away {
            return Err(StoreError::Unavailable("taken away by the test".into()));
        }
        Ok(memory.identity.clone())
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
            if memory.broken || memory.away {
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

    fn make_durable(&mut self) -> Result<(), StoreError> {
        Err(StoreError::Fatal("these tests commit by hand".into()))
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
        self.subscriber.identify(&mut self.store)?;
        self.subscriber.load(&mut self.store, &AppliedOffsets::new(), &mut |todo| {
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
    RedisOptions {
        url: required("REDIS_URL"),
        topic: unique("todo-commands"),
        cache_ttl: Duration::from_secs(60),
        fleet: None,
    }
}

fn publisher(options: &RedisOptions) -> RedisPublisher {
    publisher_of(options, &identity(1))
}

fn publisher_of(options: &RedisOptions, identity: &Identity) -> RedisPublisher {
    let mut publisher = RedisPublisher::new(options).expect("a usable URL");
    publisher.identify(identity);
    publisher
}

/// Runs one command of redis-cli.
fn command<T: redis::FromRedisValue>(options: &RedisOptions, name: &str, arguments: &[&str]) -> T {
    let client = redis::Client::open(options.url.as_str()).expect("a URL");
    redis::cmd(name).arg(arguments).query(&mut client.get_connection().expect("connected")).expect("it works")
}

fn key(options: &RedisOptions, part: &str) -> String {
    format!("million-rps:{{{}:{}}}:{part}", options.topic, identity(1).name())
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
