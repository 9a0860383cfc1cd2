//! The sides of the seams that need real servers: Kafka, PostgreSQL, Redis.

use std::sync::Arc;

use million_rps::command_log::kafka::{KafkaAppender, KafkaOptions, KafkaReader, list_dead_letters};
use million_rps::command_log::{AcknowledgementSink, CommandAppender, CommandReader, DeadLetter};
use million_rps::feed::redis::{RedisOptions, RedisPublisher, RedisSubscriber};
use million_rps::feed::{FeedPublisher, FeedSubscriber};
use million_rps::store::Store;
use million_rps::store::postgres::PostgresStore;

use crate::embedded::Embedded;
use crate::feed_suite::FeedFixture;
use crate::log_suite::LogFixture;
use crate::servers::{Database, required, unique};
use crate::store_suite::StoreFixture;

/// A topic and a group of its own.
struct Kafka {
    options: KafkaOptions,
}

impl Kafka {
    fn new() -> Kafka {
        let topic = unique("suite");
        let options = KafkaOptions {
            partitions: 3,
            group: format!("{topic}-workers"),
            ..KafkaOptions::new(&required("KAFKA_BROKERS"), &topic)
        };
        Kafka { options }
    }
}

impl LogFixture for Kafka {
    fn open(&self, sink: Arc<dyn AcknowledgementSink>) -> (Box<dyn CommandAppender>, Box<dyn CommandReader>) {
        let appender = KafkaAppender::new(self.options.clone(), sink).expect("usable options");
        let reader = KafkaReader::new(self.options.clone()).expect("usable options");
        (Box::new(appender), Box::new(reader))
    }

    fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        list_dead_letters(&self.options, &mut |letter| letters.push(letter)).expect("readable");
        letters
    }
}

/// A database of its own.
struct Postgres {
    url: String,
    _database: Database,
}

impl Postgres {
    fn new() -> Postgres {
        let database = Database::create();
        Postgres { url: database.url(), _database: database }
    }
}

impl StoreFixture for Postgres {
    fn connect(&self) -> Box<dyn Store> {
        Box::new(PostgresStore::new(&self.url, "todo-commands").expect("a usable URL"))
    }
}

/// Keys of its own in Redis. The feed does not care which store it stands before.
struct Redis {
    options: RedisOptions,
    embedded: Embedded,
}

impl Redis {
    fn new() -> Redis {
        let cache_ttl = std::time::Duration::from_secs(300);
        let options = RedisOptions { url: required("REDIS_URL"), topic: unique("suite"), cache_ttl, fleet: None };
        Redis { options, embedded: Embedded::new() }
    }
}

impl FeedFixture for Redis {
    fn open(&self) -> (Box<dyn FeedPublisher>, Box<dyn FeedSubscriber>) {
        let publisher = RedisPublisher::new(&self.options).expect("a usable URL");
        let subscriber = RedisSubscriber::new(&self.options).expect("a usable URL");
        (Box::new(publisher), Box::new(subscriber))
    }

    fn store(&self) -> Box<dyn Store> {
        FeedFixture::store(&self.embedded)
    }
}

mod log {
    log_suite!(super::Kafka::new);
}

mod store {
    store_suite!(super::Postgres::new);
}

mod feed {
    feed_suite!(super::Redis::new);
}
