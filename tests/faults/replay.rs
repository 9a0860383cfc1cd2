//! The topic is consumed again from its beginning.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::deployment::{Deployment, PARTITIONS};
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

#[test]
fn a_group_that_is_reset_to_the_beginning_applies_nothing_again() {
    let deployment = Deployment::new();
    let [worker] = deployment.workers();
    let api = deployment.serve();
    // Short lives: most todos are deleted again, and would come back.
    let load = Load { writes_of_a_todo: 3, goal: 1_000, ..Load::default() };
    let target = Target::new(api.address);
    let mut history = Writers::start(load, std::slice::from_ref(&target)).until_goal();
    await_shown(&[&api], &history, Instant::now());
    worker.signal(libc::SIGTERM);
    assert!(worker.finish().status.success());

    // The transaction that wrote each row last.
    let versions = || deployment.query("SELECT id, xmin FROM todos ORDER BY id");
    let before = versions();
    assert!(!before.is_empty());
    reset_group(&deployment);

    let worker = deployment.run();
    let started_at = Instant::now();
    deployment.await_members(1);
    // What is written now shows that everything before it has been passed.
    let target = Target::new(worker.address);
    let later = Writers::start(Load { connections: 8, goal: 100, ..Load::default() }, &[target]).until_goal();
    let sent = later.lives.iter().map(|life| life.writes.len()).sum::<usize>();
    history.merge(later);
    let healed = await_shown(&[&api, &worker], &history, started_at);
    within("exactly the new commands applied", || {
        let applied = worker.metric("million_rps_worker_commands_total");
        assert!(applied <= sent as f64, "{applied} commands were applied, {sent} are new");
        (applied == sent as f64).then_some(())
    });
    let after = versions();
    assert!(before.iter().all(|row| after.contains(row)), "rows were written again");
    judge("group reset to offset 0", &deployment, &[&api, &worker], &history, healed);
}

/// What `kafka-consumer-groups --reset-offsets --to-earliest` does.
fn reset_group(deployment: &Deployment) {
    let consumer: BaseConsumer = deployment
        .client_config()
        .set("group.id", &deployment.group)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS as i32 {
        offsets.add_partition_offset(&deployment.topic, partition, Offset::Offset(0)).expect("an offset");
    }
    // Refused as long as the group has members.
    within("the reset of the group", || consumer.commit(&offsets, CommitMode::Sync).ok());
    let committed = consumer.committed_offsets(offsets, Duration::from_secs(10)).expect("the broker answers");
    assert!(committed.elements().iter().all(|element| element.offset() == Offset::Offset(0)));
}
