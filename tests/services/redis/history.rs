//! Random histories of workers that die, keys that vanish and readers that come late.

use std::collections::BTreeMap;
use std::time::Duration;

use million_rps::feed::{ChangeSet, FeedEvent, FeedPublisher, FeedSubscriber};
use million_rps::todo::Todo;

use crate::harness::random::Random;
use crate::redis::{MemoryStore, Process, command, key, options, publisher};
use crate::setting::todo;

#[test]
fn whatever_happens_every_process_ends_with_the_stores_list() {
    for seed in 1..=60 {
        let mut random = Random::new(seed);
        let (options, store) = (options(), MemoryStore::default());
        let mut publisher = publisher(&options);
        let mut processes = [Process::new(&options, &store), Process::new(&options, &store)];
        let mut waiting: BTreeMap<i32, Vec<ChangeSet>> = BTreeMap::new();
        for number in 0..40 {
            let partition = random.below(3) as i32;
            match random.below(12) {
                0..4 => {
                    let known: Vec<Todo> = store.todos().into_values().collect();
                    let (mut upserts, mut deletes) = (vec![todo(number, "new")], vec![]);
                    // A todo belongs to one partition for good.
                    if let Some(old) = known.iter().find(|old| old.user_id == partition.to_string()) {
                        match random.below(2) {
                            0 => deletes.push(old.key()),
                            _ => upserts.push(Todo { completed: !old.completed, ..old.clone() }),
                        }
                    }
                    upserts[0].user_id = partition.to_string();
                    waiting.entry(partition).or_default().push(store.commit(partition, upserts, deletes));
                }
                4..8 => {
                    for set in waiting.remove(&partition).unwrap_or_default() {
                        publisher.publish(&set).expect("published");
                    }
                }
                // A worker dies between commit and publishing; another takes over, sooner or later.
                8 => drop(waiting.remove(&partition)),
                9 => {
                    let all = store.offsets();
                    let own = all.into_iter().filter(|(owned, _)| *owned == partition && !waiting.contains_key(owned));
                    publisher.resume(&own.collect()).expect("compared");
                }
                10 => {
                    let part = ["todos", "offsets", "changes"][random.below(3)];
                    let _: usize = command(&options, "DEL", &[&key(&options, part)]);
                }
                _ => {
                    let process = &mut processes[random.below(2)];
                    match process.subscriber.next(Duration::ZERO).expect("Redis answers") {
                        FeedEvent::Changes(sets) => {
                            for set in sets {
                                process.todos.extend(set.changes.upserts.into_iter().map(|todo| (todo.id, todo)));
                                for key in set.changes.deletes {
                                    process.todos.remove(&key.id);
                                }
                            }
                        }
                        // It may fail when a change was lost; the next event tries again.
                        FeedEvent::Lost { .. } => drop(process.load()),
                        FeedEvent::Current => {}
                    }
                }
            }
        }
        for set in std::mem::take(&mut waiting).into_values().flatten() {
            publisher.publish(&set).expect("published");
        }
        publisher.resume(&store.offsets()).expect("compared");
        for process in &mut processes {
            process.follow();
            assert_eq!(process.todos, store.todos(), "seed {seed}");
        }
    }
}
