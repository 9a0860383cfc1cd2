//! A log that has lost records which were applied, and was given others in their place before a worker looked: it is as long as
//! the store's offsets again, or longer.

use std::collections::BTreeMap;

use crate::deployment::{Api, Deployment};
use crate::handover::{shown, stored, write_new};
use crate::outage::Service;
use crate::within;

/// Todos of each leader.
const TODOS: usize = 40;

fn write(api: &Api, leader: &str) -> BTreeMap<String, String> {
    (0..TODOS).map(|number| format!("{leader} {number}")).map(|title| (write_new(api, &title), title)).collect()
}

fn stop(api: Api) {
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());
}

/// By partition, what the store has in these rows.
fn rows(deployment: &Deployment, condition: &str) -> BTreeMap<i64, i64> {
    let number = |text: &Option<String>| text.as_ref().expect("no column is null").parse::<i64>().expect("a number");
    let rows = deployment.query(&format!("SELECT partition, next FROM applied_offsets WHERE {condition}"));
    rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// The log is whole here. It is the store that becomes what it would be had it applied, at the same offsets, records of the first
/// leader which the second one never had.
#[test]
fn records_of_a_later_leader_at_offsets_that_count_as_applied_are_applied() {
    let deployment = Deployment::new();
    let api = deployment.run();
    let mut expected = write(&api, "first");
    stop(api);
    let parted = rows(&deployment, "partition >= 0");
    let epochs = rows(&deployment, "partition <= -1000000");
    Service::Kafka.kill().end();
    let api = deployment.run();
    let lost_places = |api: &Api| api.metric("million_rps_worker_lost_places_total");
    let of_second = write(&api, "second");
    assert_eq!(lost_places(&api), 0.0, "a leader may change without any loss");
    stop(api);

    let mut moved = 0.0;
    for (partition, end) in rows(&deployment, "partition >= 0") {
        let from = parted[&partition];
        if from == end {
            continue;
        }
        // The log goes just as far as the store's place, or farther.
        let place = (end - partition % 2).max(from + 1);
        let epoch = epochs.get(&(-1_000_000 - partition)).map_or(0, |row| row >> 40);
        let row = epoch << 40 | place;
        deployment.query(&format!(
            "UPDATE applied_offsets SET next = {place} WHERE partition = {partition};
             UPDATE applied_offsets SET next = {row} WHERE partition = {}",
            -1_000_000 - partition
        ));
        moved += 1.0;
    }
    assert!(moved > 1.0, "{moved} partitions");
    deployment.query("DELETE FROM todos WHERE title LIKE 'second %'");

    let api = deployment.run();
    expected.extend(of_second);
    within("the records of the later leader", || (stored(&deployment) == expected).then_some(()));
    assert_eq!(lost_places(&api), moved);
    expected.insert(write_new(&api, "after all"), "after all".to_owned());
    api.await_well();
    assert_eq!((shown(&api), stored(&deployment)), (expected.clone(), expected));
    // And nothing is found where nothing was lost.
    stop(api);
    let api = deployment.run();
    write_new(&api, "at last");
    assert_eq!(lost_places(&api), 0.0);
}
