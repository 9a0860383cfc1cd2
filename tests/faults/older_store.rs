//! An older copy of PostgreSQL's data that is put back: from a backup, a snapshot of its disk, or a standby that was behind. It
//! has neither the rows nor the offsets of the last batches, and is of the same server and the same deployment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::deployment::{Api, Deployment, PARTITIONS, required};
use crate::handover::{shown, stored, write_new};
use crate::harness::events::{EventStream, Recorder};
use crate::harness::request::{delete, post, put};
use crate::harness::token::token;
use crate::outage::Service;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

/// What an API says of it.
const OLDER: &str = "stands earlier in the command log than before";

/// A copy of the folder that PostgreSQL keeps its data in. It is removed when this is dropped.
struct Copy {
    folder: PathBuf,
    data: PathBuf,
}

impl Copy {
    /// Stops PostgreSQL as a crash does, and copies its folder; it recovers from either.
    fn take() -> Copy {
        let services = PathBuf::from(required("SERVICES_DIR"));
        let copy = Copy { folder: services.join("postgres-older"), data: services.join("postgres") };
        let outage = Service::Postgres.end_immediately();
        run(Command::new("rm").arg("-rf").arg(&copy.folder));
        run(Command::new("cp").arg("-a").arg(&copy.data).arg(&copy.folder));
        outage.end();
        copy
    }

    /// Puts it back in the place of what is there now.
    fn put_back(&self) {
        let outage = Service::Postgres.end_immediately();
        run(Command::new("rm").arg("-rf").arg(&self.data));
        run(Command::new("cp").arg("-a").arg(&self.folder).arg(&self.data));
        outage.end();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("a program of every system").success(), "{command:?}");
}

/// Todos of each kind.
const TODOS: usize = 12;

/// Titles by id.
type Titles = BTreeMap<String, String>;

fn write(api: &Api, kind: &str) -> Titles {
    (0..TODOS).map(|number| format!("{kind} {number}")).map(|title| (write_new(api, &title), title)).collect()
}

/// Changes what is there: a third is deleted, a third has another title, and as many are new.
fn change(api: &Api, titles: &Titles) -> Titles {
    let mut changed = titles.clone();
    let mut client = api.connect();
    for (number, id) in titles.keys().enumerate() {
        match number % 3 {
            0 => {
                client.call(&delete(&token("anna"), id)).expect(202);
                changed.remove(id);
            }
            1 => {
                client.call(&put(&token("anna"), id, r#"{"title":"changed"}"#)).expect(202);
                changed.insert(id.clone(), "changed".into());
            }
            _ => {}
        }
    }
    changed.extend(write(api, "later"));
    within("all changes", || (shown(api) == changed).then_some(()));
    changed
}

fn kill(worker: crate::harness::process::Process) {
    worker.signal(libc::SIGKILL);
}

#[test]
fn what_an_older_copy_lacks_leaves_the_lists_while_no_worker_runs_and_is_applied_again_by_the_next() {
    let deployment = Deployment::new();
    let worker = deployment.workers::<1>();
    let apis = [deployment.serve(), deployment.serve()];
    let before = write(&apis[0], "before");
    let copy = Copy::take();
    let after = change(&apis[0], &before);
    within("one list", || apis.iter().all(|api| shown(api) == after).then_some(()));
    let mut recorders = apis.each_ref().map(|api| Recorder::start(api.address));
    recorders.iter_mut().zip(&apis).for_each(|(recorder, api)| recorder.await_list_of(api.address));
    let newest = apis[0].list().required("Event-Position").to_owned();
    worker.into_iter().for_each(kill);

    copy.put_back();
    assert_eq!(stored(&deployment), before);
    for api in &apis {
        within("the list of the copy", || (shown(api) == before).then_some(()));
        api.await_trouble(OLDER);
        assert!(api.ready().1["reasons"].to_string().contains("Start a worker"), "{:?}", api.ready());
        assert_eq!(api.metric("million_rps_component_up{component=\"store\"}"), 0.0);
    }
    // Whoever follows is told, and a position that was reached before is none any more.
    for recorder in &mut recorders {
        within("a reset", || {
            recorder.take();
            recorder.resets.last().cloned()
        });
    }
    let mut behind = EventStream::open_behind(apis[0].address, &newest);
    assert_eq!(behind.next().kind, "reset");
    // One that is started now takes no list that the store does not have, be Redis as warm as it was.
    let third = deployment.serve();
    within("the list of the copy", || (shown(&third) == before).then_some(()));
    // Writes are kept meanwhile.
    let answer = apis[1].connect().call(&post(&token("anna"), r#"{"title":"meanwhile"}"#)).expect(202);
    let mut expected = after;
    expected.insert(answer.json()["id"].as_str().expect("an id").to_owned(), "meanwhile".into());

    let _worker = deployment.worker();
    within("all of the log", || (stored(&deployment) == expected).then_some(()));
    for api in apis.iter().chain([&third]) {
        within("the list", || (shown(api) == expected).then_some(()));
        api.await_well();
    }
    recorders.iter_mut().zip(&apis).for_each(|(recorder, api)| recorder.await_list_of(api.address));
}

#[test]
fn what_an_older_copy_lacks_is_applied_again_under_running_workers_and_writes() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    let mut recorder = Recorder::start(apis[0].address);
    writers.await_accepted(300);
    let copy = Copy::take();
    for _ in 0..2 {
        writers.await_accepted(500);
        copy.put_back();
        writers.await_accepted(300);
    }
    let history = writers.finish();
    let healed = await_shown(&both, &history, Instant::now());
    recorder.await_list_of(apis[0].address);
    judge("an older copy of PostgreSQL put back twice", &deployment, &both, &history, healed);
    both.iter().for_each(|api| api.await_well());
}

/// Deletes the records of these partitions, as a topic does with old ones.
fn delete_records(deployment: &Deployment) {
    let admin: AdminClient<DefaultClientContext> = deployment.client_config().create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut up_to = TopicPartitionList::new();
    for partition in 0..PARTITIONS as i32 {
        let all = rdkafka::Offset::End;
        up_to.add_partition_offset(&deployment.topic, partition, all).expect("an offset");
    }
    runtime.block_on(admin.delete_records(&up_to, &AdminOptions::new())).expect("the broker answers");
}

/// The log has deleted what the copy lacks.
#[test]
fn what_neither_the_older_copy_nor_the_log_holds_is_named_with_its_remedy() {
    let deployment = Deployment::new();
    let api = deployment.run();
    // In each partition something that the copy has, and something that it lacks.
    let fill = |kind: &str| -> Titles {
        let rows = "SELECT count(DISTINCT partition) FROM applied_offsets WHERE partition >= 0";
        let before = deployment.query("SELECT partition, next FROM applied_offsets WHERE partition >= 0");
        let mut titles = Titles::new();
        let is_done = || {
            let now = deployment.query("SELECT partition, next FROM applied_offsets WHERE partition >= 0");
            now.len() == PARTITIONS && now.iter().all(|row| !before.contains(row))
        };
        while !is_done() {
            let title = format!("{kind} {}", titles.len());
            titles.insert(write_new(&api, &title), title);
        }
        assert_eq!(deployment.query(rows)[0][0].as_deref(), Some("8"));
        titles
    };
    let before = fill("before");
    let older = Copy::take();
    fill("lost");
    delete_records(&deployment);
    older.put_back();
    api.await_trouble("were deleted from the log before this store applied them");
    let reasons = api.ready().1["reasons"].to_string();
    assert!(reasons.contains("set the offset of this partition in the table applied_offsets to "), "{reasons}");
    assert_eq!(api.metric("million_rps_component_up{component=\"store\"}"), 0.0);
    // Nothing that is written meanwhile is applied in the place of what is missing.
    let kept = api.connect().call(&post(&token("anna"), r#"{"title":"kept"}"#)).expect(202).json();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stored(&deployment), before);
    within("the list of the copy", || (shown(&api) == before).then_some(()));

    // What the reason says to do, for each partition.
    let begins = |partition: usize| {
        let text = format!("partition {partition} of the command log begins at ");
        let stderr = api.process.stderr.text();
        let line = stderr.rsplit_once(&text).unwrap_or_else(|| panic!("{partition} is not named")).1;
        line.split(|c: char| !c.is_ascii_digit()).next().expect("a number").parse::<i64>().expect("a number")
    };
    for partition in 0..PARTITIONS {
        let next = begins(partition);
        deployment.query(&format!("UPDATE applied_offsets SET next = {next} WHERE partition = {partition}"));
    }
    let mut expected = before;
    expected.insert(kept["id"].as_str().expect("an id").to_owned(), "kept".into());
    within("what was written meanwhile", || (stored(&deployment) == expected).then_some(()));
    expected.insert(write_new(&api, "after all"), "after all".into());
    api.await_well();
    assert_eq!((shown(&api), stored(&deployment)), (expected.clone(), expected));
}
