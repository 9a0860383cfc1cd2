//! A move from another program to this one, and back: the other one (here the test itself, in its manner) keeps its place in
//! a consumer group of Kafka, scatters the commands of a todo over partitions, and leaves a table of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use million_rps::todo::TodoId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::deployment::{Api, Deployment, PARTITIONS};
use crate::harness::request::{post, put};
use crate::harness::token::token;
use crate::within;

/// Todos that the other program has applied.
const TODOS: usize = 40;
/// Todos whose creates it has left in the topic.
const LEFT: usize = 5;

/// The other program: its group, what it has written to the topic, and how far it has come.
struct Original<'d> {
    deployment: &'d Deployment,
    group: String,
    producer: BaseProducer,
    /// Records of each partition.
    written: BTreeMap<i32, i64>,
}

impl<'d> Original<'d> {
    /// Makes the topic and the table as the other program does.
    fn new(deployment: &'d Deployment) -> Original<'d> {
        let admin: AdminClient<DefaultClientContext> = deployment.client_config().create().expect("a client");
        let topic = NewTopic::new(&deployment.topic, PARTITIONS as i32, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let created =
            runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("the broker answers");
        created[0].as_ref().expect("created");
        deployment.query(
            "CREATE TABLE todos (id VARCHAR(36) PRIMARY KEY, title VARCHAR(500) NOT NULL, description TEXT,
                 completed BOOLEAN DEFAULT FALSE, user_id VARCHAR(255) NOT NULL,
                 created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
        );
        Original {
            deployment,
            group: format!("{}-original", deployment.topic),
            producer: deployment.client_config().create().expect("a producer"),
            written: BTreeMap::new(),
        }
    }

    /// Writes a command to the partition whose turn it is.
    fn write(&mut self, command: &Value) {
        let partition = self.written.values().sum::<i64>() as i32 % PARTITIONS as i32;
        let (payload, key) = (command.to_string(), command["id"].as_str().expect("an id").to_owned());
        let record = BaseRecord::to(&self.deployment.topic).partition(partition).key(&key).payload(&payload);
        self.producer.send(record).map_err(|(error, _)| error).expect("sent");
        *self.written.entry(partition).or_default() += 1;
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).expect("all delivered");
    }

    fn client(&self, group: &str) -> BaseConsumer {
        let mut config = self.deployment.client_config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.create().expect("a consumer")
    }

    /// Notes in its group that it has applied all that it has written.
    fn commit(&self, group: &str) {
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in &self.written {
            offsets.add_partition_offset(&self.deployment.topic, *partition, Offset::Offset(*next)).expect("an offset");
        }
        within("the group's offsets", || self.client(group).commit(&offsets, CommitMode::Sync).ok());
    }

    /// Creates, updates and half of the deletes of many todos, all applied; a few rows were changed by hand since. The table
    /// holds every second todo afterwards, less one.
    fn work(&mut self) {
        let ids: Vec<String> = (0..TODOS).map(|_| TodoId::new().to_string()).collect();
        for (number, id) in ids.iter().enumerate() {
            self.write(&command("create", id, &format!("old {number}")));
        }
        for (number, id) in ids.iter().enumerate() {
            self.write(&command("update", id, &format!("new {number}")));
        }
        for id in ids.iter().skip(1).step_by(2) {
            self.write(&json!({ "action": "delete", "id": id, "user_id": "anna" }));
        }
        self.flush();
        for (number, id) in ids.iter().enumerate().step_by(2).skip(1) {
            self.deployment
                .query(&format!("INSERT INTO todos (id, title, user_id) VALUES ('{id}', 'new {number}', 'anna')"));
        }
        self.deployment.query(&format!("UPDATE todos SET title = 'by hand' WHERE id = '{}'", ids[2]));
    }

    /// Writes creates that it does not come to apply.
    fn leave_work(&mut self) -> Vec<String> {
        let ids: Vec<String> = (0..LEFT).map(|_| TodoId::new().to_string()).collect();
        ids.iter().for_each(|id| self.write(&command("create", id, "left")));
        self.flush();
        ids
    }

    /// Where a group stands in each partition.
    fn place(&self, group: &str) -> BTreeMap<i32, i64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.deployment.topic, 0, PARTITIONS as i32 - 1);
        let committed =
            self.client(group).committed_offsets(asked, Duration::from_secs(10)).expect("the broker answers");
        let places = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(next) = element.offset() else { return None };
            Some((element.partition(), next))
        });
        places.collect()
    }

    /// What it reads when it goes on from the place of its group.
    fn unread(&self) -> Vec<Value> {
        let consumer = self.client(&self.group);
        let mut from = TopicPartitionList::new();
        let place = self.place(&self.group);
        for partition in 0..PARTITIONS as i32 {
            let next = place.get(&partition).copied().unwrap_or(0);
            from.add_partition_offset(&self.deployment.topic, partition, Offset::Offset(next)).expect("an offset");
        }
        consumer.assign(&from).expect("assigned");
        let mut unread = Vec::new();
        while let Some(message) = consumer.poll(Duration::from_secs(3)) {
            let message = message.expect("a message");
            unread.push(serde_json::from_slice(rdkafka::Message::payload(&message).expect("a payload")).expect("JSON"));
        }
        unread
    }
}

fn command(action: &str, id: &str, title: &str) -> Value {
    json!({ "action": action, "id": id, "title": title, "user_id": "anna" })
}

/// Titles by id, as the list shows them.
pub fn shown(api: &Api) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    api.list().json().as_array().expect("a list").iter().map(|todo| (text(&todo["id"]), text(&todo["title"]))).collect()
}

/// Titles by id, as the table holds them.
pub fn stored(deployment: &Deployment) -> BTreeMap<String, String> {
    let text = |column: &Option<String>| column.clone().expect("no column is null");
    deployment.query("SELECT id, title FROM todos").iter().map(|row| (text(&row[0]), text(&row[1]))).collect()
}

pub fn migrate(deployment: &Deployment, arguments: &[&str]) -> String {
    let finished = deployment.command(&[&["migrate"], arguments].concat());
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout
}

/// Writes through the API and waits until it shows.
pub fn write_new(api: &Api, title: &str) -> String {
    // A machine that is too busy for ACK_TIMEOUT has it refused, though the log may have it: with a key it is one todo all the same.
    let key = TodoId::new().to_string();
    let create = post(&token("anna"), json!({ "title": title }).to_string()).field("Idempotency-Key", &key);
    let taken = || Some(api.connect().call(&create)).filter(|answer| answer.status != 503);
    let answer = within("the write to be taken", taken).0.expect(202);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    within("the new todo", || (shown(api).get(&id).map(String::as_str) == Some(title)).then_some(()));
    id
}

#[test]
fn a_topic_that_another_program_has_applied_is_taken_over_where_it_stands_and_handed_back() {
    let deployment = Deployment::beside_others();
    let mut original = Original::new(&deployment);
    original.work();
    let group = original.group.clone();
    original.commit(&group);
    let left = original.leave_work();
    let before = stored(&deployment);

    // Nothing is applied until somebody has said from where on; the process stays and says so.
    let api = deployment.run();
    api.await_trouble("--from-group");
    let accepted = api.connect().call(&post(&token("anna"), r#"{"title":"early"}"#)).expect(202).json();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((stored(&deployment), shown(&api)), (before.clone(), before.clone()));
    assert!(
        api.ready().1["reasons"].to_string().contains("store: the store does not say how far"),
        "{:?}",
        api.ready()
    );

    // A group that is none is named, with those that are some.
    let wrong = deployment.command(&["migrate", "--from-group", "nobody"]);
    assert!(!wrong.status.success() && wrong.stderr.contains(&group), "{wrong:?}");

    // Under the eyes of the worker that waits for it.
    migrate(&deployment, &["--from-group", &group]);
    let mut expected = before;
    expected.extend(left.iter().map(|id| (id.clone(), "left".to_owned())));
    expected.insert(accepted["id"].as_str().expect("an id").to_owned(), "early".to_owned());
    within("exactly what was left", || (shown(&api) == expected).then_some(()));
    api.await_well();
    assert_eq!(stored(&deployment), expected);

    // On our own for a while, through a restart too.
    let changed = expected.keys().next().expect("a todo").clone();
    api.connect().call(&put(&token("anna"), &changed, r#"{"title":"ours"}"#)).expect(202);
    expected.insert(changed, "ours".to_owned());
    expected.insert(write_new(&api, "new of ours"), "new of ours".to_owned());
    let busy = deployment.command(&["migrate", "--to-group", &group]);
    assert!(!busy.status.success() && busy.stderr.contains("stop them"), "{busy:?}");
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());
    let api = deployment.run();
    expected.insert(write_new(&api, "after a restart"), "after a restart".to_owned());
    assert_eq!(shown(&api), expected);
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());

    // And back: the other program reads what came after us, and nothing else.
    migrate(&deployment, &["--to-group", &group]);
    assert_eq!(original.unread(), [] as [Value; 0]);
    let api = deployment.serve();
    api.connect().call(&post(&token("anna"), r#"{"title":"for the original"}"#)).expect(202);
    let unread = original.unread();
    assert_eq!(unread.len(), 1, "{unread:?}");
    assert_eq!(unread[0]["title"], "for the original");
    assert_eq!(stored(&deployment), expected);
}

#[test]
fn without_a_group_it_is_said_whether_all_is_applied_or_nothing() {
    for (argument, old_todos_return) in [("--from-end", false), ("--from-beginning", true)] {
        let deployment = Deployment::beside_others();
        let mut original = Original::new(&deployment);
        original.work();
        let before = stored(&deployment);
        let api = deployment.run();
        api.await_trouble("--from-end");
        migrate(&deployment, &[argument]);
        let new = write_new(&api, "new");
        api.await_well();
        within("the whole topic", || (shown(&api).len() > before.len() + 1 || !old_todos_return).then_some(()));
        assert_eq!(shown(&api).get(&new).map(String::as_str), Some("new"));
        if !old_todos_return {
            let mut expected = before;
            expected.insert(new, "new".to_owned());
            assert_eq!(stored(&deployment), expected);
        }
    }
}

#[test]
fn rows_that_were_deleted_by_hand_do_not_return_even_if_all_were() {
    let deployment = Deployment::beside_others();
    let mut original = Original::new(&deployment);
    original.work();
    // The same group as that of the workers: it has read the topic, though the table is empty.
    original.commit(&deployment.group);
    deployment.query("DELETE FROM todos");
    let api = deployment.run();
    api.await_trouble(&format!("--from-group {}", deployment.group));
    migrate(&deployment, &["--from-group", &deployment.group]);
    let new = write_new(&api, "new");
    api.await_well();
    assert_eq!(stored(&deployment), BTreeMap::from([(new, "new".to_owned())]));
}

#[test]
fn a_fresh_deployment_applies_what_was_accepted_before_its_first_worker() {
    let deployment = Deployment::beside_others();
    migrate(&deployment, &[]);
    let api = deployment.serve();
    let accepted = api.connect().call(&post(&token("anna"), r#"{"title":"early"}"#)).expect(202).json();
    // Rows that were brought in otherwise are no reason to wait once a worker has begun.
    let [worker] = deployment.workers();
    within("the early todo", || (shown(&api).len() == 1).then_some(()));
    worker.signal(libc::SIGKILL);
    drop(worker);
    deployment.query("DELETE FROM applied_offsets WHERE partition >= 0");
    let _worker = deployment.worker();
    write_new(&api, "later");
    assert!(shown(&api).contains_key(accepted["id"].as_str().expect("an id")));
}

#[test]
fn a_group_that_another_program_works_for_is_told_of_and_waited_for() {
    let deployment = Deployment::beside_others();
    migrate(&deployment, &[]);
    let api = deployment.serve();
    // It divides partitions as the original does.
    let mut config = deployment.client_config();
    config.set("group.id", &deployment.group).set("partition.assignment.strategy", "range");
    let other: BaseConsumer = config.create().expect("a consumer");
    other.subscribe(&[&deployment.topic]).expect("subscribed");
    within("the other program to have the partitions", || {
        let _ = other.poll(Duration::from_millis(100));
        other.assignment().is_ok_and(|list| list.count() == PARTITIONS).then_some(())
    });
    let mut worker = deployment.worker();
    let advice = format!("another program is at work for the consumer group {}", deployment.group);
    let look = |worker: &mut crate::harness::process::Process| {
        let _ = other.poll(Duration::from_millis(100));
        assert!(worker.status().is_none(), "it ended: {}", worker.stderr.text());
        worker.stderr.text().matches(&advice).count()
    };
    within("the advice", || (look(&mut worker) > 0).then_some(()));
    for _ in 0..50 {
        assert_eq!(look(&mut worker), 1, "it is told once: {}", worker.stderr.text());
    }
    drop(other);
    assert!(!write_new(&api, "applied when the other has gone").is_empty());
}
