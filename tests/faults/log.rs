//! The command log as it stands, and what it means: an account of its own, beside that of the workers.

use std::collections::BTreeMap;
use std::time::Duration;

use million_rps::todo::Timestamp;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use serde_json::Value;

use crate::deployment::Deployment;
use crate::within;

/// A command, as found.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Where.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its JSON; null when it is none.
    pub command: Value,
}

impl Logged {
    /// A member that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.command[name].as_str()
    }
}

/// Reads the topic of a deployment, outside of its group.
pub struct Log {
    consumer: BaseConsumer,
    topic: String,
    /// By partition, the offset that comes next.
    next: BTreeMap<i32, i64>,
    /// All records so far; those of one partition in their order.
    pub records: Vec<Logged>,
}

impl Log {
    /// Opens it at its beginning.
    pub fn open(deployment: &Deployment) -> Log {
        let consumer: BaseConsumer = deployment
            .client_config()
            .set("group.id", "an-onlooker")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let (partitions, _) = within("the topic", || {
            let metadata = consumer.fetch_metadata(Some(&deployment.topic), Duration::from_secs(10)).ok()?;
            let count = metadata.topics().first()?.partitions().len();
            (count > 0).then_some(count)
        });
        let mut list = TopicPartitionList::new();
        let next: BTreeMap<i32, i64> = (0..).take(partitions).map(|partition| (partition, 0)).collect();
        for &partition in next.keys() {
            list.add_partition_offset(&deployment.topic, partition, rdkafka::Offset::Beginning).expect("a place");
        }
        consumer.assign(&list).expect("assigned");
        Log { consumer, topic: deployment.topic.clone(), next, records: Vec::new() }
    }

    /// Reads to the present end.
    pub fn catch_up(&mut self) {
        let partitions: Vec<i32> = self.next.keys().copied().collect();
        for partition in partitions {
            let (end, _) = within("the end of a partition", || {
                let found = self.consumer.fetch_watermarks(&self.topic, partition, Duration::from_secs(10));
                found.ok().map(|(_, latest)| latest)
            });
            within("the records up to the end of a partition", || {
                while self.next[&partition] < end {
                    let message = self.consumer.poll(Duration::from_millis(100))?.ok()?;
                    self.next.insert(message.partition(), message.offset() + 1);
                    let command = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or(Value::Null);
                    self.records.push(Logged { partition: message.partition(), offset: message.offset(), command });
                }
                Some(())
            });
        }
    }

    /// What is left when every command is applied once, in order. The writers of these tests keep to todos of their own,
    /// so owners need not be looked at.
    pub fn meaning(&self) -> BTreeMap<String, Row> {
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for record in &self.records {
            let (Some(id), Some(action)) = (record.text("id"), record.text("action")) else { continue };
            let text = |name: &str| record.text(name).map(str::to_owned);
            let requested_at: Timestamp = record.text("requested_at").expect("it says when").parse().expect("a moment");
            let requested_at = requested_at.as_micros();
            let completed = record.command["completed"].as_bool();
            match (action, rows.get_mut(id)) {
                ("create", None) => {
                    let row = Row {
                        id: id.to_owned(),
                        title: text("title").expect("a title"),
                        description: text("description").unwrap_or_default(),
                        completed: completed.unwrap_or_default(),
                        user_id: text("user_id").expect("a user"),
                        created_at_micros: requested_at,
                        updated_at_micros: requested_at,
                    };
                    rows.insert(id.to_owned(), row);
                }
                ("update", Some(row)) => {
                    let before = (row.title.clone(), row.description.clone(), row.completed);
                    row.title = text("title").unwrap_or_else(|| std::mem::take(&mut row.title));
                    row.description = text("description").unwrap_or_else(|| std::mem::take(&mut row.description));
                    row.completed = completed.unwrap_or(row.completed);
                    let differs = before != (row.title.clone(), row.description.clone(), row.completed);
                    row.updated_at_micros = (row.updated_at_micros + i64::from(differs)).max(requested_at);
                }
                ("delete", Some(_)) => {
                    rows.remove(id);
                }
                _ => {}
            }
        }
        rows
    }
}

/// A todo, as log, store and list have to agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: String,
    /// Whether it is done.
    pub completed: bool,
    /// Whose it is.
    pub user_id: String,
    /// Microseconds since the epoch.
    pub created_at_micros: i64,
    /// Microseconds since the epoch.
    pub updated_at_micros: i64,
}
