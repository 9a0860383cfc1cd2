//! Kafka's own Java tools at both ends of the whole path.

use std::io::Write;
use std::process::{Command, Stdio};

use million_rps::todo::TodoId;
use serde_json::{Value, json};

use crate::deployment::{Deployment, required};
use crate::harness::request::put;
use crate::harness::token::token;
use crate::{HEALING_MAX, say, within};

const TODOS: usize = 30;

#[test]
fn javas_tools_write_commands_that_are_applied_and_read_ours() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let ids: Vec<String> = (0..TODOS).map(|_| TodoId::new().to_string()).collect();

    // As the original writes them: with Go's times, empty members left out of updates. Every third is deleted at the end.
    let mut lines = Vec::new();
    for (round, second) in (0..4).zip(10..) {
        for (number, id) in ids.iter().enumerate() {
            let requested_at = format!("2026-01-02T03:04:{second}.123456789+02:00");
            let command = match (round, number % 3) {
                (0, _) => {
                    json!({ "action": "create", "id": id, "title": format!("todo {number}"), "description": "made",
                    "completed": false, "user_id": "anna", "requested_at": requested_at })
                }
                (3, 0) => json!({ "action": "delete", "id": id, "user_id": "anna", "requested_at": requested_at }),
                (3, _) => json!({ "action": "update", "id": id, "completed": true, "user_id": "anna",
                    "requested_at": requested_at }),
                _ => json!({ "action": "update", "id": id, "title": format!("todo {number} in round {round}"),
                    "user_id": "anna", "requested_at": requested_at }),
            };
            lines.push(format!("{id}|{command}"));
        }
    }
    produce(&deployment, &lines);
    let (_, healed) = within("the result of Java's commands", || {
        let list = api.list().json();
        let todos = list.as_array().expect("a list");
        let is_right = |(number, id): (usize, &String)| {
            let todo = todos.iter().find(|todo| todo["id"] == **id);
            match number % 3 {
                0 => todo.is_none(),
                _ => todo.is_some_and(|todo| {
                    todo["title"] == format!("todo {number} in round 2")
                        && todo["description"] == "made"
                        && todo["completed"] == true
                        && todo["created_at"] == "2026-01-02T01:04:10.123456Z"
                        && todo["updated_at"] == "2026-01-02T01:04:13.123456Z"
                }),
            }
        };
        ids.iter().enumerate().all(is_right).then_some(())
    });

    // Ours behind theirs, in the same partitions, and readable for them.
    let mut client = api.connect();
    let last: Vec<&String> = ids.iter().skip(1).step_by(3).collect();
    for id in &last {
        client.call(&put(&token("anna"), id, json!({ "title": "by the API" }).to_string())).expect(202);
    }
    within("the API's updates of Java's todos", || {
        let list = api.list().json();
        let todos = list.as_array().expect("a list");
        last.iter()
            .all(|id| todos.iter().any(|todo| todo["id"] == ***id && todo["title"] == "by the API"))
            .then_some(())
    });
    let read = consume(&deployment, lines.len() + last.len());
    for id in &last {
        let own: Vec<&(String, String, Value)> = read.iter().filter(|(_, key, _)| key == *id).collect();
        assert_eq!(own.len(), 5, "four by Java, one by the API: {own:?}");
        assert!(own.iter().all(|(partition, ..)| *partition == own[0].0), "one partition: {own:?}");
        let (_, key, command) = own.last().expect("five");
        assert_eq!(
            (&command["action"], &command["id"], &command["title"]),
            (&json!("update"), &json!(key), &json!("by the API"))
        );
        assert_eq!(command["user_id"], "anna");
    }
    say(&format!(
        "Java's tools: {} commands produced, applied in order in {:.1} s; {} of ours consumed with their keys",
        lines.len(),
        healed.as_secs_f64(),
        last.len()
    ));
}

fn java(class: &str, deployment: &Deployment) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-cp", &format!("{}/*", required("KAFKA_JARS")), class]);
    command.args(["--bootstrap-server", &required("KAFKA_BROKERS"), "--topic", &deployment.topic]);
    command.stderr(Stdio::null());
    command
}

fn produce(deployment: &Deployment, lines: &[String]) {
    let mut producer = java("org.apache.kafka.tools.ConsoleProducer", deployment)
        .args(["--property", "parse.key=true", "--property", "key.separator=|"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("java runs");
    let mut input = producer.stdin.take().expect("piped");
    for line in lines {
        writeln!(input, "{line}").expect("the tool reads");
    }
    drop(input);
    assert!(producer.wait().expect("it ends").success());
}

/// Partition, key and command of the topic's messages, those of one partition in their order.
fn consume(deployment: &Deployment, count: usize) -> Vec<(String, String, Value)> {
    let output = java("org.apache.kafka.tools.consumer.ConsoleConsumer", deployment)
        .args(["--from-beginning", "--max-messages", &count.to_string()])
        // A JVM on a busy machine starts, joins a group and gets its first message: it may take what all healing may.
        .args(["--timeout-ms", &HEALING_MAX.as_millis().to_string()])
        .args(["--property", "print.key=true", "--property", "print.partition=true"])
        .output()
        .expect("java runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let message = |line: &str| {
        let columns: Vec<&str> = line.splitn(3, '\t').collect();
        assert_eq!(columns.len(), 3, "{line}");
        (columns[0].to_owned(), columns[1].to_owned(), serde_json::from_str(columns[2]).expect("JSON"))
    };
    text.lines().map(message).collect()
}
