//! Records that can never be applied, between good ones.

use std::time::Duration;

use million_rps::todo::TodoId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::deployment::Deployment;
use crate::{say, within};

/// Payloads of each kind, with a word of the reason that is to be given.
fn poison() -> Vec<(Vec<u8>, &'static str)> {
    let id = TodoId::new();
    let command = |members: &str| format!("{{\"id\":\"{id}\",\"user_id\":\"anna\",{members}}}").into_bytes();
    let create = |title: &str| command(&format!("\"action\":\"create\",\"title\":\"{title}\""));
    vec![
        (b"{\"action\":\"create\",".to_vec(), ""),
        (Vec::new(), ""),
        (b"[1, 2]".to_vec(), ""),
        (b"{\"action\":\"create\",\"title\":\"\xff\xfe\"}".to_vec(), ""),
        (["[".repeat(5_000), "]".repeat(5_000)].concat().into_bytes(), ""),
        (command("\"action\":\"explode\""), "explode"),
        (command("\"title\":\"without action\""), "action"),
        (b"{\"action\":\"create\",\"title\":\"t\",\"user_id\":\"anna\"}".to_vec(), "id"),
        (b"{\"action\":\"create\",\"id\":\"7\",\"title\":\"t\",\"user_id\":\"anna\"}".to_vec(), "id"),
        (format!("{{\"action\":\"create\",\"id\":\"{id}\",\"title\":\"t\"}}").into_bytes(), "user_id"),
        (command("\"action\":\"create\""), "title"),
        (create("nul \\u0000 inside"), "title"),
        (command("\"action\":\"create\",\"title\":\"t\",\"completed\":\"yes\""), "completed"),
        (command("\"action\":\"create\",\"title\":\"t\",\"requested_at\":\"yesterday\""), "requested_at"),
        // As large as a broker takes by default; the headers of a letter make it larger.
        (create(&format!("{}\\u0000", "t".repeat(1_048_290))), "title"),
    ]
}

#[test]
fn poison_goes_to_the_dead_letters_and_good_commands_are_applied_in_order() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<1>();
    let api = deployment.serve();
    let id = TodoId::new().to_string();
    let good = |action: &str, title: &str| {
        let command = serde_json::json!({ "action": action, "id": id, "title": title, "user_id": "anna" });
        command.to_string().into_bytes()
    };

    // All with one key, so that they stand in one partition, in this order.
    let poison = poison();
    let mut payloads = vec![good("create", "made")];
    for (number, (payload, _)) in poison.iter().enumerate() {
        payloads.push(payload.clone());
        payloads.push(good("update", &format!("after {number}")));
    }
    produce(&deployment, &id, &payloads);
    let last = format!("after {}", poison.len() - 1);
    let is_applied = || {
        let list = api.list().json();
        let todos = list.as_array().expect("a list");
        (todos.len() == 1 && todos[0]["title"] == *last).then_some(())
    };
    let (_, healed) = within("the last good command, and nothing else", is_applied);

    let listed = letters(&deployment);
    assert_eq!(listed.len(), poison.len(), "{listed:?}");
    for (line, (payload, reason)) in listed.iter().zip(&poison) {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns.len(), 4, "{line}");
        assert!(!columns[2].is_empty() && columns[2].contains(reason), "{reason:?} is not the reason of {line}");
        let shown = payload[..payload.len().min(200)].escape_ascii().to_string();
        assert_eq!(columns[3], shown);
    }

    // Sent again, as they are, they are found wanting again.
    let replayed = deployment.command(&["dead-letters", "replay", "--all"]);
    assert!(replayed.status.success(), "{replayed:?}");
    assert!(replayed.stdout.starts_with(&format!("{} sent", poison.len())), "{replayed:?}");
    within("the same letters, from new places", || {
        let again = letters(&deployment);
        (again.len() == poison.len() && again.iter().all(|line| !listed.contains(line))).then_some(())
    });
    assert!(is_applied().is_some(), "a replay changes nothing else");
    say(&format!(
        "poison: {} records, {} dead letters listed, {} good commands applied around them, in {:.1} s",
        poison.len(),
        listed.len(),
        payloads.len() - poison.len(),
        healed.as_secs_f64()
    ));
}

#[test]
fn poison_that_the_dead_letters_do_not_take_is_noted_without_its_payload() {
    let deployment = Deployment::new();
    let admin: AdminClient<DefaultClientContext> = deployment.client_config().create().expect("a client");
    let name = format!("{}.dead-letters", deployment.topic);
    let small = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "10000");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let created = runtime.block_on(admin.create_topics([&small], &AdminOptions::new())).expect("the broker answers");
    created[0].as_ref().expect("created");
    let _workers = deployment.workers::<1>();
    let api = deployment.serve();
    let id = TodoId::new().to_string();
    let good = serde_json::json!({ "action": "create", "id": id, "title": "good", "user_id": "anna" });
    produce(&deployment, &id, &[vec![b'x'; 50_000], good.to_string().into_bytes()]);
    within("the good command", || (api.list().json()[0]["title"] == "good").then_some(()));
    let listed = letters(&deployment);
    assert!(listed.len() == 1 && listed[0].contains("50000 bytes are left out"), "{listed:?}");
}

fn letters(deployment: &Deployment) -> Vec<String> {
    let listed = deployment.command(&["dead-letters", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    listed.stdout.lines().map(str::to_owned).collect()
}

/// Writes records to the topic of commands, in this order.
pub fn produce(deployment: &Deployment, key: &str, payloads: &[Vec<u8>]) {
    let producer: BaseProducer = deployment
        .client_config()
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        // The largest is as large as the broker's own limit allows; librdkafka counts the batch's frame with it.
        .set("message.max.bytes", "2000000")
        .create()
        .expect("a producer");
    for payload in payloads {
        producer
            .send(BaseRecord::to(&deployment.topic).key(key).payload(payload))
            .map_err(|(error, _)| error)
            .expect("sent");
    }
    producer.flush(Duration::from_secs(30)).expect("all delivered");
}
