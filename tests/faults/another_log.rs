//! A topic that is made anew under its name: by the store's offsets, its first commands would count as applied.

use std::collections::BTreeMap;
use std::time::Duration;

use million_rps::todo::TodoId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use crate::deployment::{Api, Deployment, PARTITIONS};
use crate::handover::{migrate, shown, stored, write_new};
use crate::harness::request::post;
use crate::harness::token::token;
use crate::within;

/// Todos that are made through the API before.
const BEFORE: usize = 40;
/// Commands that the new topic is given at once: in each partition more than were applied of the old one.
const ANEW: usize = 400;
/// What a process says of the other topic.
const ANOTHER: &str = "the store holds the offsets of another command log";

/// What it says of one that ended before the offsets.
const REJECTED: &str = "is not the one whose offsets the store holds";

/// Titles by id.
type Titles = BTreeMap<String, String>;

fn write_before(api: &Api) -> Titles {
    let titles: Vec<String> = (0..BEFORE).map(|number| format!("before {number}")).collect();
    titles.iter().map(|title| (write_new(api, title), title.clone())).collect()
}

/// The same by a worker, now killed, that noted no id, as those of an older version do.
fn write_before_ids(deployment: &Deployment, api: &Api) -> Titles {
    let worker = deployment.worker();
    let titles = write_before(api);
    worker.signal(libc::SIGKILL);
    drop(worker);
    forget_ids(deployment);
    titles
}

/// Deletes the topic, makes it again and fills it. Returns what a store holds that has applied all of it.
fn make_anew(deployment: &Deployment) -> Titles {
    make_anew_and_empty(deployment);
    fill(deployment, ANEW)
}

fn make_anew_and_empty(deployment: &Deployment) {
    let admin: AdminClient<DefaultClientContext> = deployment.client_config().create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (topic, options) = (&deployment.topic, AdminOptions::new());
    let deleted = runtime.block_on(admin.delete_topics(&[topic], &options)).expect("the broker answers");
    deleted[0].as_ref().expect("deleted");
    within("the topic anew", || {
        let new = NewTopic::new(topic, PARTITIONS as i32, TopicReplication::Fixed(1));
        let made = runtime.block_on(admin.create_topics([&new], &options)).expect("the broker answers");
        made[0].as_ref().ok().map(drop)
    });
}

/// Writes to the topic what was accepted elsewhere, as by an API whose store is another: two commands for each todo.
fn fill(deployment: &Deployment, todos: usize) -> Titles {
    let producer: BaseProducer =
        deployment.client_config().set("partitioner", "murmur2_random").create().expect("a producer");
    let mut expected = Titles::new();
    for number in 0..todos {
        let (id, title) = (TodoId::new().to_string(), format!("anew {number}"));
        for (action, title) in [("create", "at first"), ("update", title.as_str())] {
            let command = json!({ "action": action, "id": id, "title": title, "user_id": "anna" }).to_string();
            let record = BaseRecord::to(&deployment.topic).key(&id).payload(&command);
            producer.send(record).map_err(|(error, _)| error).expect("sent");
        }
        expected.insert(id, title);
    }
    producer.flush(Duration::from_secs(30)).expect("all delivered");
    expected
}

/// Says that the store follows the new topic, and makes sure that everything is there, and that all goes on.
fn take_up(deployment: &Deployment, api: &Api, mut expected: Titles) {
    migrate(deployment, &["--from-beginning"]);
    within("all of the new topic", || (stored(deployment) == expected).then_some(()));
    api.await_well();
    within("writes to be taken", || (api.metric("million_rps_topic_writes_refused") == 0.0).then_some(()));
    let new = write_new(api, "after all");
    expected.insert(new, "after all".to_owned());
    assert_eq!((shown(api), stored(deployment)), (expected.clone(), expected));
}

/// What takes writes learns that nobody would apply them.
fn assert_refuses_writes(api: &Api) {
    within("writes to be refused", || (api.metric("million_rps_topic_writes_refused") == 1.0).then_some(()));
    // From the first refusal on: its answer says that the reason is there.
    let document = api.ready().1;
    assert!(document["reasons"].to_string().contains("Until then writes are refused"), "{document}");
    api.connect().call(&post(&token("anna"), r#"{"title":"to the wrong topic"}"#)).problem(503);
}

/// The halves of the topic's id, as the store has them.
fn noted(deployment: &Deployment) -> Vec<Vec<Option<String>>> {
    deployment.query("SELECT partition, next FROM applied_offsets WHERE partition IN (-2, -3) ORDER BY partition")
}

/// Starts a worker, kills it, does something and starts another: each says this, stays, and applies nothing.
fn assert_workers_apply_nothing(deployment: &Deployment, reason: &str, between: impl FnOnce()) {
    let before = stored(deployment);
    let look = || {
        let mut worker = deployment.worker();
        within("the reason", || worker.stderr.text().contains(reason).then_some(()));
        std::thread::sleep(Duration::from_secs(3));
        assert!(worker.status().is_none(), "it ended: {}", worker.stderr.text());
        worker.signal(libc::SIGKILL);
    };
    look();
    between();
    look();
    assert_eq!(stored(deployment), before, "nothing of it is applied");
}

/// The store becomes one of the version before, which noted no ids.
fn forget_ids(deployment: &Deployment) {
    deployment.query("DELETE FROM applied_offsets WHERE partition < -1");
}

/// A worker that finds the new topic while that is shorter than the store's offsets, and is started again when it is longer.
#[test]
fn a_topic_that_an_older_versions_store_was_too_long_for_is_not_taken_when_it_has_grown() {
    // The second topic has some commands, though in few of its partitions, or in none, as many as were applied.
    for todos_at_first in [0, 4] {
        let deployment = Deployment::beside_others();
        migrate(&deployment, &[]);
        let api = deployment.serve();
        let mut expected = write_before_ids(&deployment, &api);

        make_anew_and_empty(&deployment);
        expected.extend(fill(&deployment, todos_at_first));
        assert_workers_apply_nothing(&deployment, REJECTED, || expected.extend(fill(&deployment, ANEW)));
        assert_eq!(noted(&deployment), [] as [Vec<Option<String>>; 0]);
        // The API that was there, and one that is started now.
        assert_refuses_writes(&api);
        assert_refuses_writes(&deployment.serve());
        let _worker = deployment.worker();
        take_up(&deployment, &api, expected);
    }
}

/// Settings that led to another topic for a while have not spoilt anything.
#[test]
fn a_store_of_an_older_version_goes_on_with_its_topic_after_another_was_rejected() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    let mut expected = write_before(&api);
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());
    let offsets = deployment.query("SELECT partition, next FROM applied_offsets WHERE partition >= 0");
    forget_ids(&deployment);
    // The same name in another cluster: here the offsets are what differs.
    deployment.query("UPDATE applied_offsets SET next = next + 1000 WHERE partition >= 0");
    let id = || deployment.query("SELECT next FROM applied_offsets WHERE partition IN (-4, -5) ORDER BY partition");
    let worker = deployment.worker();
    within("the reason", || worker.stderr.text().contains(REJECTED).then_some(()));
    worker.signal(libc::SIGKILL);
    drop(worker);
    assert_eq!(id().len(), 2);
    // The right one has another id than the one that was rejected.
    deployment.query("UPDATE applied_offsets SET next = next # 1 WHERE partition IN (-4, -5)");
    for row in offsets {
        let [Some(partition), Some(next)] = row.as_slice() else { panic!("{row:?}") };
        deployment.query(&format!("UPDATE applied_offsets SET next = {next} WHERE partition = {partition}"));
    }
    let api = deployment.run();
    expected.insert(write_new(&api, "with the right topic"), "with the right topic".to_owned());
    api.await_well();
    assert_eq!((shown(&api), stored(&deployment)), (expected.clone(), expected));
    assert_eq!(noted(&deployment).len(), 2);
}

/// A broker that was behind has answered the first look. That it is long enough later proves nothing, so somebody has to say it.
#[test]
fn a_topic_that_was_too_short_for_a_moment_is_looked_at_again_when_that_is_said() {
    const LOOK_AGAIN: &str = "DELETE FROM applied_offsets WHERE partition BETWEEN -999999 AND -4";
    let deployment = Deployment::beside_others();
    migrate(&deployment, &[]);
    let api = deployment.serve();
    let mut expected = write_before_ids(&deployment, &api);
    deployment.query("UPDATE applied_offsets SET next = next + 1000 WHERE partition >= 0");
    assert_workers_apply_nothing(&deployment, REJECTED, || {
        deployment.query("UPDATE applied_offsets SET next = next - 1000 WHERE partition >= 0");
    });
    let worker = deployment.worker();
    within("the remedy", || worker.stderr.text().contains(LOOK_AGAIN).then_some(()));
    assert_refuses_writes(&api);
    deployment.query(LOOK_AGAIN);
    within("the id", || (noted(&deployment).len() == 2).then_some(()));
    within("writes to be taken", || (api.metric("million_rps_topic_writes_refused") == 0.0).then_some(()));
    expected.insert(write_new(&api, "after all"), "after all".to_owned());
    api.await_well();
    assert_eq!((shown(&api), stored(&deployment)), (expected.clone(), expected));
}

#[test]
fn a_topic_made_anew_while_no_worker_runs_is_not_taken_for_the_one_before() {
    let deployment = Deployment::beside_others();
    migrate(&deployment, &[]);
    let api = deployment.serve();
    let worker = deployment.worker();
    let mut expected = write_before(&api);
    // A deployment of the version before takes the id that it finds.
    worker.signal(libc::SIGKILL);
    drop(worker);
    let id = noted(&deployment);
    assert_eq!(id.len(), 2);
    forget_ids(&deployment);
    let worker = deployment.worker();
    let new = write_new(&api, "by a worker that knew no id");
    expected.insert(new.clone(), "by a worker that knew no id".to_owned());
    within("the id", || (noted(&deployment) == id).then_some(()));
    worker.signal(libc::SIGKILL);
    drop(worker);

    expected.extend(make_anew(&deployment));
    assert_refuses_writes(&api);
    // Workers apply nothing of it, however often they are started.
    assert_workers_apply_nothing(&deployment, ANOTHER, || ());
    let _worker = deployment.worker();
    take_up(&deployment, &api, expected);
}

#[test]
fn a_topic_made_anew_under_a_worker_is_not_taken_for_the_one_before() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    let mut expected = write_before(&api);
    expected.extend(make_anew(&deployment));
    api.await_trouble(&format!("store: {ANOTHER}"));
    assert_refuses_writes(&api);
    take_up(&deployment, &api, expected);
}

/// The worker learns nothing of it: to its fetches, the new topic has what comes next.
#[test]
fn a_topic_made_anew_while_the_process_stands_still_is_not_read_on() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    let mut expected = write_before(&api);
    api.process.signal(libc::SIGSTOP);
    let before = expected.clone();
    expected.extend(make_anew(&deployment));
    // Longer than between two questions of which topic it is.
    std::thread::sleep(Duration::from_secs(3));
    api.process.signal(libc::SIGCONT);
    api.await_trouble(ANOTHER);
    assert_eq!(stored(&deployment), before, "nothing of it is applied");
    // The worker is first to notice. An API that notices only now would refuse what is written after all is well.
    assert_refuses_writes(&api);
    take_up(&deployment, &api, expected);
}

/// The place is moved in the topic that is followed, under workers that have nothing to apply.
#[test]
fn a_place_that_is_moved_under_idle_workers_is_gone_to_and_what_it_means_is_told() {
    let deployment = Deployment::beside_others().with_lanes(2);
    let api = deployment.run();
    let mut expected = write_before(&api);
    deployment.query("DELETE FROM todos");
    let told = migrate(&deployment, &["--from-beginning"]);
    let all = format!("{BEFORE} commands left to apply, {BEFORE} of them for a second time");
    assert!(told.contains(&all), "{told}");
    within("all again", || (stored(&deployment) == expected).then_some(()));
    within("the list", || (shown(&api) == expected).then_some(()));
    // As when an older copy of the database is put back in place, which has neither the rows nor the offsets of the last batches.
    deployment.query("DELETE FROM todos; UPDATE applied_offsets SET next = 0 WHERE partition >= 0");
    within("all once more", || (stored(&deployment) == expected).then_some(()));
    // The end is where they are: nothing changes.
    let told = migrate(&deployment, &["--from-end"]);
    assert!(told.contains("0 commands left to apply. Workers"), "{told}");
    expected.insert(write_new(&api, "after the move"), "after the move".to_owned());
    api.await_well();
    assert_eq!((shown(&api), stored(&deployment)), (expected.clone(), expected.clone()));
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());

    let api = deployment.serve();
    for number in 0..3 {
        api.connect().call(&post(&token("anna"), json!({ "title": number.to_string() }).to_string())).expect(202);
    }
    let told = migrate(&deployment, &["--from-end"]);
    assert!(told.contains("0 commands left to apply; 3 commands skipped, which this store has not applied"), "{told}");
    let _worker = deployment.worker();
    expected.insert(write_new(&api, "behind what was skipped"), "behind what was skipped".to_owned());
    assert_eq!(stored(&deployment), expected);
}

/// Writes todos until each partition has stored a new one: which it goes to is decided by its id.
fn write_to_each_partition(deployment: &Deployment, api: &Api, title: &str, expected: &mut Titles) {
    let places = || deployment.query("SELECT partition, next FROM applied_offsets WHERE partition >= 0");
    let before = places();
    let is_new = |place: &Vec<Option<String>>| !before.contains(place);
    for number in 0.. {
        if number >= BEFORE && places().iter().filter(|place| is_new(place)).count() == PARTITIONS {
            return;
        }
        assert!(number < 10 * BEFORE, "{number} todos went to {:?}, and before to {before:?}", places());
        let title = format!("{title} {number}");
        expected.insert(write_new(api, &title), title);
    }
}

/// A log that has lost what was applied: a broker that was behind came to lead it, or its disk was an older copy.
#[test]
fn what_is_written_after_the_log_has_lost_records_is_applied() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    let mut expected = Titles::new();
    write_to_each_partition(&deployment, &api, "before", &mut expected);
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());
    deployment.query("UPDATE applied_offsets SET next = next + 50 WHERE partition >= 0");
    let api = deployment.run();
    // What is written before it is noticed cannot be told from what was applied.
    let is_noticed = || api.metric("million_rps_worker_lost_places_total") == PARTITIONS as f64;
    within("the loss in each partition", || is_noticed().then_some(()));
    write_to_each_partition(&deployment, &api, "after", &mut expected);
    api.await_well();
    assert_eq!((shown(&api), stored(&deployment)), (expected.clone(), expected));
}
