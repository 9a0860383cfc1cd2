//! Partitions that are added to the topic while it is in use: each todo keeps its order, and what was written is applied.

use std::time::Instant;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;

use crate::deployment::{Api, Deployment};
use crate::harness::request::{delete, post, put};
use crate::harness::token::token;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

/// Raises the number of the topic's partitions, as kafka-topics does, and waits until these processes have seen it.
fn raise(deployment: &Deployment, partitions: usize, seen_by: &[&Api]) {
    let admin: AdminClient<DefaultClientContext> = deployment.client_config().create().expect("a client");
    let more = NewPartitions::new(&deployment.topic, partitions);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let results = runtime.block_on(admin.create_partitions([&more], &AdminOptions::new()));
    results.expect("the broker answers")[0].as_ref().expect("raised");
    for api in seen_by {
        within("the metric of the topic's partitions", || {
            (api.metric("million_rps_topic_partitions") == partitions as f64).then_some(())
        });
    }
}

fn deployment(partitions: usize) -> Deployment {
    let deployment = Deployment::beside_others().set("KAFKA_PARTITIONS", &partitions.to_string());
    // A list can be loaded before the first worker comes.
    assert!(deployment.command(&["migrate"]).status.success());
    deployment
}

#[test]
fn what_was_written_before_and_after_more_partitions_came_is_applied_in_order() {
    const CREATED: usize = 3_000;
    const CHANGED: usize = 200;
    let deployment = deployment(1).with_lanes(4);
    let first = deployment.serve();
    let token = token("anna");
    let mut client = first.connect();
    let mut ids = Vec::new();
    for start in (0..CREATED).step_by(100) {
        let todo = |number: usize| post(&token, format!(r#"{{"title":"made {number}"}}"#)).bytes();
        client.send((start..start + 100).flat_map(todo).collect::<Vec<u8>>());
        for _ in 0..100 {
            let answer = client.answer().expect(202);
            ids.push(answer.json()["id"].as_str().expect("an id").to_owned());
        }
    }
    raise(&deployment, 8, &[&first]);
    // One process has been there before, the other has never known less than eight.
    let second = deployment.serve();
    let mut clients = [client, second.connect()];
    for (number, id) in ids.iter().rev().take(2 * CHANGED).enumerate() {
        let client = &mut clients[number % 2];
        let request = if number < CHANGED { put(&token, id, r#"{"title":"changed"}"#) } else { delete(&token, id) };
        client.call(&request).expect(202);
    }

    let _worker = deployment.worker();
    let count = |condition: &str| {
        let rows = deployment.query(&format!("SELECT count(*) FROM todos WHERE {condition}"));
        rows[0][0].as_deref().and_then(|text| text.parse::<usize>().ok()).expect("a number")
    };
    within("everything is applied", || {
        (count("title = 'changed'") == CHANGED && count("true") == CREATED - CHANGED).then_some(())
    });
    let deleted: Vec<String> = ids.iter().rev().skip(CHANGED).take(CHANGED).map(|id| format!("'{id}'")).collect();
    assert_eq!(count(&format!("id IN ({})", deleted.join(","))), 0, "deleted todos are back");
    assert_eq!(first.metric("million_rps_topic_partitions_written"), 1.0);
    assert_eq!(second.metric("million_rps_topic_partitions_written"), 1.0);
}

#[test]
fn partitions_are_added_under_writes_while_workers_run() {
    // Eight is no multiple of three, so todos would move between the old partitions too.
    let deployment = deployment(3);
    let _workers = [deployment.worker(), deployment.worker()];
    let first = deployment.serve();
    let targets = [Target::new(first.address), Target::new(first.address)];
    let writers = Writers::start(Load::default(), &targets);
    writers.await_accepted(500);
    raise(&deployment, 8, &[&first]);
    let raised_at = Instant::now();
    let second = deployment.serve();
    targets[1].move_to(second.address);
    writers.await_accepted(1_000);
    let history = writers.finish();
    let healed = await_shown(&[&first, &second], &history, raised_at);
    judge("3 partitions raised to 8 under writes", &deployment, &[&first, &second], &history, healed);
}

#[test]
fn a_compacted_topic_takes_no_writes_and_is_named_until_it_is_not() {
    let deployment = deployment(1);
    let api = deployment.serve();
    let token = token("anna");
    let created = api.connect().call(&post(&token, r#"{"title":"kept"}"#)).expect(202);
    let id = created.json()["id"].as_str().expect("an id").to_owned();
    alter(&deployment, "cleanup.policy", "compact");
    api.await_trouble("is compacted");
    api.await_trouble("--add-config cleanup.policy=delete");
    let refused = api.connect().call(&put(&token, &id, r#"{"title":"lost"}"#)).problem(503);
    assert!(refused.contains("nothing was written"), "Kafka was given nothing: {refused}");
    // A process that is started now does not take them either, and a worker says so too.
    let second = deployment.serve();
    second.await_trouble("is compacted");
    second.connect().call(&post(&token, r#"{"title":"lost"}"#)).problem(503);
    assert_eq!(second.metric("million_rps_topic_writes_refused"), 1.0);

    alter(&deployment, "cleanup.policy", "delete");
    // Without a worker, no API is well.
    let _worker = deployment.worker();
    api.await_well();
    second.await_well();
    api.connect().call(&put(&token, &id, r#"{"title":"kept, too"}"#)).expect(202);
    within("the todo with its last title", || {
        let rows = deployment.query("SELECT title FROM todos");
        (rows.len() == 1 && rows[0][0].as_deref() == Some("kept, too")).then_some(())
    });
}

#[test]
fn a_note_that_is_deleted_and_dead_letters_that_are_compacted_are_named_until_they_are_not() {
    let deployment = deployment(1);
    let api = deployment.run();
    deployment.query("ALTER TABLE todos ADD CONSTRAINT nothing CHECK (title <> 'refused')");
    api.connect().call(&post(&token("anna"), r#"{"title":"refused"}"#)).expect(202);
    within("a dead letter", || {
        let listed = deployment.command(&["dead-letters", "list"]);
        (listed.stdout.lines().count() == 1).then_some(())
    });
    let letters = format!("{}.dead-letters", deployment.topic);
    let note = format!("{}.partitions", deployment.topic);
    alter_topic(&deployment, &letters, "cleanup.policy", "compact");
    api.await_trouble(&format!("the topic {letters} is compacted"));
    alter_topic(&deployment, &note, "retention.ms", "600000");
    api.await_trouble(&format!("the topic {note}, in which the number of partitions is noted, deletes"));
    alter_topic(&deployment, &letters, "cleanup.policy", "delete");
    alter_topic(&deployment, &note, "retention.ms", "-1");
    api.await_well();
}

#[test]
fn a_topic_that_deletes_soon_is_named_and_so_is_what_it_is_about_to_delete() {
    let deployment = deployment(2);
    let api = deployment.serve();
    api.connect().call(&post(&token("anna"), r#"{"title":"nobody applies it"}"#)).expect(202);
    // The broker looks for what is too old once an hour (deploy/services.sh), so nothing is lost within this test.
    alter(&deployment, "retention.ms", "4000");
    api.await_trouble("deletes commands after 4 s");
    api.await_trouble("1 command of the topic");
    let _worker = deployment.worker();
    alter(&deployment, "retention.ms", "604800000");
    api.await_well();
}

#[test]
fn pipelined_creates_go_into_a_topic_of_small_batches() {
    const CREATES: usize = 400;
    let deployment = deployment(1).set("KAFKA_COMPRESSION", "none");
    let before = deployment.serve();
    let token = token("anna");
    let create_all = |api: &Api| {
        let description = "d".repeat(1_000);
        let todo = |number: usize| {
            post(&token, format!(r#"{{"title":"made {number}","description":"{description}"}}"#)).bytes()
        };
        let mut client = api.connect();
        client.send((0..CREATES).flat_map(todo).collect::<Vec<u8>>());
        for _ in 0..CREATES {
            client.answer().expect(202);
        }
    };
    create_all(&before);
    // Twenty of the commands fit: for a process that runs, and for one that has never known another bound.
    alter(&deployment, "max.message.bytes", "20000");
    create_all(&before);
    create_all(&deployment.serve());
    let _worker = deployment.worker();
    within("all todos", || {
        let rows = deployment.query("SELECT count(*) FROM todos");
        (rows[0][0].as_deref() == Some((3 * CREATES).to_string().as_str())).then_some(())
    });
}

/// Sets one of the topic's settings, as kafka-configs does.
fn alter(deployment: &Deployment, name: &str, value: &str) {
    alter_topic(deployment, &deployment.topic, name, value);
}

fn alter_topic(deployment: &Deployment, topic: &str, name: &str, value: &str) {
    use rdkafka::admin::{AlterConfig, ResourceSpecifier};
    let admin: AdminClient<DefaultClientContext> = deployment.client_config().create().expect("a client");
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let results = runtime.block_on(admin.alter_configs([&change], &AdminOptions::new()));
    results.expect("the broker answers")[0].as_ref().expect("altered");
}
