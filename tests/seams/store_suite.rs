//! What every store has to do.

use std::collections::{BTreeMap, HashMap};

use million_rps::command_log::{KnownLogs, LogId};
use million_rps::store::{AppliedOffsets, Changes, Identity, OffsetStep, Store, StoreError};
use million_rps::todo::{Timestamp, Todo, TodoId};
use million_rps::worker::fold;

use crate::samples::{create, delete, history, id, list_after, list_of, todo};

/// An empty store of its own for one case; its schema is not there yet.
pub trait StoreFixture: Sync {
    /// A new connection to the one store.
    fn connect(&self) -> Box<dyn Store>;
}

/// Runs the suite: `store_suite!(make)`, where `make()` is a new [`StoreFixture`].
macro_rules! store_suite {
    ($make:expr) => {
        suite!(
            store_suite,
            $make,
            [
                migrating_twice_or_at_once_does_no_harm,
                a_deployment_has_one_identity_for_good,
                an_empty_store_holds_nothing,
                rows_and_offsets_are_written_together,
                an_offset_that_is_elsewhere_fences,
                the_log_that_was_noted_first_is_followed,
                logs_that_were_rejected_are_known_as_such_and_are_no_offsets,
                an_offset_moves_back_only_from_where_it_is,
                the_fold_gets_the_rows_that_exist,
                an_upsert_replaces_every_field,
                deleted_and_made_again_stands_at_its_new_place,
                every_text_comes_back_as_it_was,
                the_list_is_newest_first,
                a_scan_sees_one_moment,
                the_offsets_of_a_scan_are_those_of_its_rows,
                a_batch_of_the_largest_size_is_applied,
                rivals_apply_each_step_once,
            ]
        );
    };
}

fn migrated(fixture: &impl StoreFixture) -> Box<dyn Store> {
    let mut store = fixture.connect();
    store.migrate().expect("migrated");
    store
}

fn step(partition: i32, from: Option<i64>, to: i64) -> OffsetStep {
    OffsetStep { partition, from, to }
}

fn write(store: &mut dyn Store, steps: &[OffsetStep], upserts: &[Todo], deletes: &[&Todo]) -> Result<(), StoreError> {
    let changes = Changes { upserts: upserts.to_vec(), deletes: deletes.iter().map(|todo| todo.key()).collect() };
    let mut applied = store.apply(steps, &[], &mut |_| changes.clone())?;
    // In an order of the store's own: no todo is among the upserts twice.
    let by_place = |todo: &Todo| upserts.iter().position(|upsert| upsert.id == todo.id);
    applied.upserts.sort_by_key(by_place);
    assert_eq!(applied, changes, "what the fold decided is returned");
    Ok(())
}

pub fn migrating_twice_or_at_once_does_no_harm(fixture: &impl StoreFixture) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fixture.connect().migrate().expect("migrated"));
        }
    });
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 1)], &[todo(1)], &[]).expect("applied");
    store.migrate().expect("migrated again");
    assert_eq!(list_of(store.as_mut()), [todo(1)]);
}

pub fn a_deployment_has_one_identity_for_good(fixture: &impl StoreFixture) {
    let identities: Vec<Identity> = std::thread::scope(|scope| {
        let ask = || {
            let mut store = migrated(fixture);
            store.identity().expect("made or found")
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
    let mut later = migrated(fixture);
    assert_eq!(later.identity().expect("found"), identities[0]);
    assert_ne!(identities[0].id(), [0; 16]);
    assert_ne!(identities[0].key(b"a"), Identity::new(identities[0].id(), [0; 32], &[]).key(b"a"));
}

pub fn an_empty_store_holds_nothing(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    assert_eq!(store.applied_offsets().expect("readable"), AppliedOffsets::new());
    assert_eq!(list_of(store.as_mut()), []);
}

pub fn rows_and_offsets_are_written_together(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    let steps = [step(0, None, 7), step(3, None, 1 << 40)];
    write(store.as_mut(), &steps, &[todo(1), todo(2)], &[]).expect("applied");
    write(store.as_mut(), &[step(0, Some(7), 8)], &[], &[&todo(1)]).expect("applied");
    let expected = AppliedOffsets::from([(0, 8), (3, 1 << 40)]);
    let mut other = fixture.connect();
    assert_eq!(other.applied_offsets().expect("readable"), expected);
    let mut list = Vec::new();
    assert_eq!(other.scan(&mut |todo| list.push(todo)).expect("readable"), expected);
    assert_eq!(list, [todo(2)]);
}

pub fn an_offset_that_is_elsewhere_fences(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 5), step(1, None, 5)], &[todo(1)], &[]).expect("applied");
    for (steps, fenced) in [
        (vec![step(0, None, 9)], 0),
        (vec![step(0, Some(4), 9)], 0),
        (vec![step(0, Some(6), 9)], 0),
        (vec![step(2, Some(5), 9)], 2),
        (vec![step(0, Some(5), 9), step(1, Some(4), 9)], 1),
    ] {
        match write(store.as_mut(), &steps, &[todo(2)], &[&todo(1)]) {
            Err(StoreError::Fenced { partition }) => assert_eq!(partition, fenced, "{steps:?}"),
            other => panic!("{steps:?}: {other:?}"),
        }
        assert_eq!(store.applied_offsets().expect("readable"), AppliedOffsets::from([(0, 5), (1, 5)]));
        assert_eq!(list_of(store.as_mut()), [todo(1)], "nothing was written by {steps:?}");
    }
    write(store.as_mut(), &[step(0, Some(5), 9)], &[todo(2)], &[]).expect("the right place is free");
}

pub fn the_log_that_was_noted_first_is_followed(fixture: &impl StoreFixture) {
    let log = |bits| LogId::from_bits(bits).expect("not zero");
    let mut store = migrated(fixture);
    assert_eq!(store.known_logs().expect("readable"), KnownLogs::default());
    let noted: Vec<LogId> = std::thread::scope(|scope| {
        let note = |number: u128| {
            // Halves that look alike, and such as are negative in a database.
            let log = log(u128::MAX - (number << 64 | number));
            fixture.connect().note_log(log).expect("noted")
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || note(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(noted.iter().all(|log| *log == noted[0]), "{noted:?}");
    assert_eq!(store.note_log(log(7)).expect("readable"), noted[0]);
    assert_eq!(store.known_logs().expect("readable"), KnownLogs { followed: Some(noted[0]), rejected: vec![] });
    // It is no offset.
    write(store.as_mut(), &[step(0, None, 5)], &[todo(1)], &[]).expect("applied");
    let expected = AppliedOffsets::from([(0, 5)]);
    assert_eq!(store.applied_offsets().expect("readable"), expected);
    assert_eq!(store.scan(&mut |_| ()).expect("readable"), expected);
}

pub fn logs_that_were_rejected_are_known_as_such_and_are_no_offsets(fixture: &impl StoreFixture) {
    let log = |bits| LogId::from_bits(bits).expect("not zero");
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 5)], &[todo(1)], &[]).expect("applied");
    let logs: Vec<LogId> = (0..3_u128).map(|number| log(u128::MAX - (number << 64 | number))).collect();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for log in logs.iter().chain(&logs) {
                scope.spawn(|| fixture.connect().reject_log(*log).expect("noted"));
            }
        });
        let mut known = store.known_logs().expect("readable");
        known.rejected.sort_unstable_by_key(|log| std::cmp::Reverse(log.bits()));
        assert_eq!(known, KnownLogs { followed: None, rejected: logs.clone() });
    }
    let expected = AppliedOffsets::from([(0, 5)]);
    assert_eq!(store.applied_offsets().expect("readable"), expected);
    assert_eq!(store.scan(&mut |_| ()).expect("readable"), expected);
    assert_eq!(store.note_log(log(7)).expect("noted"), log(7));
    assert_eq!(store.known_logs().expect("readable").admit(log(7)), Ok(()));
}

pub fn an_offset_moves_back_only_from_where_it_is(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 5), step(1, None, 5)], &[todo(1)], &[]).expect("applied");
    assert!(matches!(store.move_back(0, 4, 2), Err(StoreError::Fenced { partition: 0 })));
    store.move_back(0, 5, 2).expect("moved");
    assert_eq!(store.applied_offsets().expect("readable"), AppliedOffsets::from([(0, 2), (1, 5)]));
    assert_eq!(list_of(store.as_mut()), [todo(1)]);
}

pub fn the_fold_gets_the_rows_that_exist(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 1)], &[todo(1), todo(2), todo(3)], &[]).expect("applied");
    let mut given = HashMap::new();
    let mut calls = 0;
    store
        .apply(&[step(0, Some(1), 2)], &[id(1), id(3), id(4)], &mut |existing| {
            calls += 1;
            given = existing;
            Changes::default()
        })
        .expect("applied");
    assert_eq!(calls, 1);
    assert_eq!(given, HashMap::from([(id(1), todo(1)), (id(3), todo(3))]));
}

pub fn an_upsert_replaces_every_field(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 1)], &[todo(1)], &[]).expect("applied");
    let other = Todo { id: id(1), completed: !todo(1).completed, user_id: "other".to_owned(), ..todo(99) };
    let other = Todo { description: String::new(), updated_at: Timestamp::from_micros(7), ..other };
    write(store.as_mut(), &[step(0, Some(1), 2)], std::slice::from_ref(&other), &[]).expect("applied");
    assert_eq!(list_of(store.as_mut()), [other]);
}

pub fn deleted_and_made_again_stands_at_its_new_place(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    write(store.as_mut(), &[step(0, None, 1)], &[todo(1), todo(2)], &[]).expect("applied");
    let again = Todo { id: id(1), ..todo(3) };
    write(store.as_mut(), &[step(0, Some(1), 2)], std::slice::from_ref(&again), &[&todo(1)]).expect("applied");
    assert_eq!(list_of(store.as_mut()), [again, todo(2)]);
}

pub fn every_text_comes_back_as_it_was(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    let texts = [
        "é😀\u{10ffff}\u{feff}".to_owned(),
        "\t\r\n\u{1}\u{7f}\\N\\.,\"'{}".to_owned(),
        "NULL".to_owned(),
        " ".to_owned(),
        "😀".repeat(500),
    ];
    let mut todos: Vec<Todo> = (0..)
        .zip(texts)
        .map(|(number, text)| Todo { title: text.clone(), user_id: text.chars().take(60).collect(), ..todo(number) })
        .collect();
    todos.push(Todo { description: "😀".repeat(10_000), created_at: Timestamp::MIN, ..todo(20) });
    todos.push(Todo { id: TodoId::from_u128(0), created_at: Timestamp::MAX, updated_at: Timestamp::MIN, ..todo(21) });
    todos.push(Todo { id: TodoId::from_u128(u128::MAX), description: String::new(), ..todo(22) });
    write(store.as_mut(), &[step(0, None, 1)], &todos, &[]).expect("applied");
    todos.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    assert_eq!(list_of(fixture.connect().as_mut()), todos);
}

pub fn the_list_is_newest_first(fixture: &impl StoreFixture) {
    let mut store = migrated(fixture);
    // Groups of three share their moment: the id decides.
    let mut todos: Vec<Todo> = (0..60)
        .map(|number| Todo { created_at: Timestamp::from_micros(i64::from(number % 20)), ..todo(number) })
        .collect();
    write(store.as_mut(), &[step(0, None, 1)], &todos, &[]).expect("applied");
    todos.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    assert_eq!(list_of(store.as_mut()), todos);
}

pub fn a_scan_sees_one_moment(fixture: &impl StoreFixture) {
    let mut writer = migrated(fixture);
    let todos: Vec<Todo> = (0..100).map(todo).collect();
    write(writer.as_mut(), &[step(0, None, 1)], &todos, &[]).expect("applied");
    let mut reader = fixture.connect();
    let mut next = 1;
    let mut list = Vec::new();
    let offsets = reader
        .scan(&mut |found| {
            // While the list is read, it changes; in a thread of its own, because a store may be busy in this one.
            let number = next as u32;
            let steps = [step(0, Some(next), next + 1)];
            let change = || write(writer.as_mut(), &steps, &[todo(1000 + number)], &[&todo(number - 1)]);
            std::thread::scope(|scope| scope.spawn(change).join()).expect("no panic").expect("a scan stops no writer");
            next += 1;
            list.push(found);
        })
        .expect("readable");
    let mut view: BTreeMap<TodoId, Todo> = todos.into_iter().map(|todo| (todo.id, todo)).collect();
    for number in 1..offsets[&0] as u32 {
        view.remove(&id(number - 1));
        view.insert(id(1000 + number), todo(1000 + number));
    }
    let mut expected: Vec<Todo> = view.into_values().collect();
    expected.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    assert_eq!(list, expected, "the list is that of the returned offsets");
}

pub fn the_offsets_of_a_scan_are_those_of_its_rows(fixture: &impl StoreFixture) {
    const COMMITS: i64 = 1000;
    let row = |at: i64| Todo { title: at.to_string(), ..todo(1) };
    let mut writer = migrated(fixture);
    write(writer.as_mut(), &[step(0, None, 0)], &[row(0)], &[]).expect("applied");
    let mut reader = fixture.connect();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for at in 0..COMMITS {
                write(writer.as_mut(), &[step(0, Some(at), at + 1)], &[row(at + 1)], &[]).expect("applied");
            }
        });
        let mut seen = 0;
        while seen < COMMITS {
            let mut list = Vec::new();
            let offsets = reader.scan(&mut |todo| list.push(todo)).expect("readable");
            assert_eq!(list, [row(offsets[&0])]);
            assert!(offsets[&0] >= seen, "time runs forward");
            seen = offsets[&0];
        }
    });
}

pub fn a_batch_of_the_largest_size_is_applied(fixture: &impl StoreFixture) {
    let most = million_rps::limits::APPLY_BATCH_MAX_COMMANDS as u32;
    let mut store = migrated(fixture);
    let ids: Vec<TodoId> = (0..most).map(id).collect();
    let commands: Vec<_> = (0..most).map(|number| create(number, "t")).collect();
    store.apply(&[step(0, None, 1)], &ids, &mut |existing| fold(&commands, existing).changes).expect("applied");
    assert_eq!(list_of(store.as_mut()), list_after(&commands));
    let commands: Vec<_> = (0..most).map(delete).collect();
    let mut found = 0;
    let deleted = store.apply(&[step(0, Some(1), 2)], &ids, &mut |existing| {
        found = existing.len();
        fold(&commands, existing).changes
    });
    assert_eq!((found, deleted.expect("applied").deletes.len()), (ids.len(), ids.len()));
    assert_eq!(list_of(store.as_mut()), []);
}

/// Four workers believe that they own the partition. Each step is made by one of them, and the list ends as if one worker
/// had done it all.
pub fn rivals_apply_each_step_once(fixture: &impl StoreFixture) {
    migrated(fixture);
    let commands = history(1, 400);
    let batches: Vec<_> = commands.chunks(10).collect();
    let won: usize = std::thread::scope(|scope| {
        let rivals: Vec<_> = (0..4).map(|_| scope.spawn(|| apply_as_rival(fixture, &batches))).collect();
        rivals.into_iter().map(|rival| rival.join().expect("no panic")).sum()
    });
    assert_eq!(won, batches.len());
    assert_eq!(list_of(fixture.connect().as_mut()), list_after(&commands));
}

fn apply_as_rival(fixture: &impl StoreFixture, batches: &[&[million_rps::todo::Command<'static>]]) -> usize {
    let mut store = fixture.connect();
    let mut won = 0;
    loop {
        let from = match store.applied_offsets() {
            Ok(offsets) => offsets.get(&0).copied(),
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        let at = from.unwrap_or(0);
        let Some(batch) = batches.get(at as usize) else { return won };
        let ids: Vec<TodoId> = batch.iter().map(|command| command.id).collect();
        match store.apply(&[step(0, from, at + 1)], &ids, &mut |existing| fold(*batch, existing).changes) {
            Ok(_) => won += 1,
            Err(StoreError::Fenced { partition: 0 } | StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
