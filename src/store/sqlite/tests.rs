//! What only this side of the seam promises; `tests/seams` has what both do.

use super::*;
use crate::observe::troubles::Troubles;
use crate::todo::Timestamp;

fn new_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("todos.sqlite");
    (folder, path)
}

fn todo(number: u128) -> Todo {
    Todo {
        id: TodoId::from_u128(number),
        title: "t".to_owned(),
        description: String::new(),
        completed: true,
        user_id: "u".to_owned(),
        created_at: Timestamp::from_micros(1_700_000_000_000_000),
        updated_at: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

fn upsert(store: &mut SqliteStore, from: Option<i64>, todos: Vec<Todo>) -> Result<Changes, StoreError> {
    let step = OffsetStep { partition: 0, from, to: from.unwrap_or(0) + 1 };
    store.apply(&[step], &[], &mut |_| Changes { upserts: todos.clone(), deletes: Vec::new() })
}

#[test]
fn a_newer_schema_is_refused() {
    let (_folder, path) = new_file();
    SqliteStore::open(&path).and_then(|mut store| store.migrate()).expect("migrated");
    Connection::open(&path).and_then(|other| other.pragma_update(None, "user_version", 99)).expect("changed");
    match SqliteStore::open(&path).map(|_| ()) {
        Err(StoreError::Fatal(reason)) => assert!(reason.contains("schema version 99"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_of_an_older_schema_keeps_its_rows_and_gets_what_a_new_one_has() {
    let schema = |store: &SqliteStore| -> Vec<(String, Option<String>)> {
        let mut statement =
            store.connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("the schema")
    };
    let (_folder, path) = new_file();
    let mut store = SqliteStore::open(&path).expect("made");
    store.connection.execute_batch(SCHEMA_STEPS[0]).expect("the first version");
    store.connection.pragma_update(None, "user_version", 1).expect("changed");
    upsert(&mut store, None, (1..=300).map(todo).collect()).expect("written");
    drop(store);

    let mut store = SqliteStore::open(&path).expect("opened");
    store.migrate().expect("migrated");
    assert_eq!(schema_version(&store.connection).expect("a version"), SCHEMA_VERSION);
    let (_new_folder, new_path) = new_file();
    let mut new = SqliteStore::open(&new_path).expect("made");
    new.migrate().expect("migrated");
    assert_eq!(schema(&store), schema(&new));
    upsert(&mut store, Some(1), vec![todo(301)]).expect("written");
    let mut rows = Vec::new();
    let offsets = store.scan(&mut |todo| rows.push(todo)).expect("scanned");
    assert_eq!(rows, (1..=301).rev().map(todo).collect::<Vec<_>>());
    assert_eq!(offsets, AppliedOffsets::from([(0, 2)]));
}

#[test]
fn the_list_is_read_in_the_order_of_its_index() {
    let (_folder, path) = new_file();
    let mut store = SqliteStore::open(&path).expect("made");
    store.migrate().expect("migrated");
    let mut statement =
        store.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", STATEMENTS.scan)).expect("a statement");
    let plan: Vec<String> = statement.query_map([], |row| row.get(3)).expect("a plan").map(Result::unwrap).collect();
    assert_eq!(plan, ["SCAN todos USING INDEX todos_by_age"]);
}

#[test]
fn errors_say_whether_to_try_again() {
    let (folder, path) = new_file();
    match SqliteStore::open_read_only(&path).map(|_| ()) {
        Err(StoreError::Fatal(reason)) => assert!(reason.contains("cannot open the store"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let mut store = SqliteStore::open(&path).expect("made");
    match store.applied_offsets() {
        Err(StoreError::Fatal(reason)) => assert!(reason.contains("million-rps migrate"), "{reason}"),
        other => panic!("{other:?}"),
    }
    store.migrate().expect("migrated");

    let other = Connection::open(&path).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    assert!(matches!(upsert(&mut store, None, vec![todo(1)]), Err(StoreError::Unavailable(_))));
    other.execute_batch("ROLLBACK").expect("unlocked");
    upsert(&mut store, None, vec![todo(1)]).expect("free again");

    // The pages that are left are too few for these rows.
    store.connection.pragma_update(None, "max_page_count", 20).expect("set");
    let large = (2..200).map(|number| Todo { description: "x".repeat(10_000), ..todo(number) }).collect();
    assert!(matches!(upsert(&mut store, Some(1), large), Err(StoreError::Unavailable(_))));
    assert_eq!(store.applied_offsets().expect("still well"), AppliedOffsets::from([(0, 1)]));
    upsert(&mut store, Some(1), vec![todo(2)]).expect("a small one fits");

    store
        .connection
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON todos BEGIN SELECT RAISE(ABORT, 'no'); END")
        .expect("made");
    assert!(matches!(upsert(&mut store, Some(2), vec![todo(3)]), Err(StoreError::Refused(_))));

    let damaged = folder.path().join("damaged.sqlite");
    std::fs::write(&damaged, "no database, but long enough to be looked at ".repeat(100)).expect("written");
    match SqliteStore::open(&damaged).map(|_| ()) {
        Err(StoreError::Fatal(reason)) => assert!(reason.contains("damaged"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rowid_that_another_row_has_taken_over_is_not_written_to() {
    let (_folder, path) = new_file();
    let mut store = SqliteStore::open(&path).expect("made");
    store.migrate().expect("migrated");
    upsert(&mut store, None, vec![todo(1), todo(2)]).expect("written");
    // The last row goes, the next new one gets its rowid, and then the one that went comes back where it was.
    let back = Todo { title: "back".to_owned(), ..todo(2) };
    let changes = Changes { deletes: vec![todo(2).key()], upserts: vec![todo(3), back.clone()] };
    let step = OffsetStep { partition: 0, from: Some(1), to: 2 };
    store.apply(&[step], &[todo(2).id], &mut |_| changes.clone()).expect("applied");
    let mut rows = Vec::new();
    store.scan(&mut |todo| rows.push(todo)).expect("scanned");
    assert_eq!(rows, [todo(3), back, todo(1)]);
}

#[test]
fn people_can_read_it() {
    let (_folder, path) = new_file();
    let mut store = SqliteStore::open(&path).expect("made");
    store.migrate().expect("migrated");
    let id: TodoId = "0190163d-8694-739b-aea5-966c26f8ad91".parse().expect("an id");
    upsert(&mut store, None, vec![Todo { id, ..todo(0) }]).expect("written");
    let row: (String, String) = store
        .connection
        .query_row("SELECT id, created_at FROM todos_readable", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("one row");
    assert_eq!(row, (id.to_string(), "2023-11-14T22:13:20Z".to_owned()));
}

#[test]
fn a_power_cut_takes_back_the_last_commits_whole_and_with_their_offsets() {
    let (folder, path) = new_file();
    let mut store = SqliteStore::open(&path).expect("made");
    let setting = |name: &str| -> String {
        let read = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0).map(|value| format!("{value:?}"));
        store.connection.pragma_query_value(None, name, read).expect("a setting")
    };
    assert_eq!(setting("journal_mode"), "Text(\"wal\")");
    assert_eq!(setting("synchronous"), "Integer(1)");
    store.migrate().expect("migrated");
    let steps: Vec<Option<i64>> = [None].into_iter().chain((1..20).map(Some)).collect();
    for (number, from) in (1..).zip(steps) {
        upsert(&mut store, from, vec![todo(number)]).expect("written");
    }
    store.make_durable().expect("synced");

    // What is not synced is lost from some place on, which need not be the end of a commit.
    let log_path = folder.path().join("todos.sqlite-wal");
    let (file, log) = (std::fs::read(&path).expect("read"), std::fs::read(&log_path).expect("read"));
    let mut seen = Vec::new();
    for kept in (0..log.len()).step_by(1111) {
        let (_copy, copy_path) = new_file();
        std::fs::write(&copy_path, &file).expect("written");
        std::fs::write(copy_path.with_file_name("todos.sqlite-wal"), &log[..kept]).expect("written");
        let mut store = SqliteStore::open(&copy_path).expect("opened");
        store.migrate().expect("migrated");
        let mut rows = Vec::new();
        let offsets = store.scan(&mut |todo| rows.push(todo)).expect("scanned");
        let applied = offsets.get(&0).copied().unwrap_or(0);
        assert_eq!(rows, (1..=applied as u128).rev().map(todo).collect::<Vec<_>>());
        seen.push(applied);
    }
    assert!(seen.is_sorted() && seen[0] == 0 && seen.last() >= Some(&19), "{seen:?}");
}

#[test]
fn a_sync_that_failed_once_is_not_made_good_by_the_next() {
    let (folder, path) = new_file();
    let troubles = Arc::new(Troubles::default());
    let footing = Arc::new(Footing::new(Arc::clone(&troubles)));
    let mut store = SqliteStore::open(&path).expect("made");
    store.migrate().expect("migrated");
    let mut store = store.standing_on(&footing).expect("its files are there");
    upsert(&mut store, None, vec![todo(1)]).expect("applied");
    store.make_durable().expect("durable");
    std::fs::write(folder.path().join("todos.fails-once"), "").expect("written");
    for _ in 0..3 {
        match store.make_durable() {
            Err(StoreError::Unavailable(reason)) => assert!(reason.contains("restart the server"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(troubles.lines()[0].contains("could not be made durable"), "{:?}", troubles.lines());
    }
    // Batches go on: the log has all their commands.
    upsert(&mut store, Some(1), vec![todo(2)]).expect("applied");
    drop(store);
    forget_cached_pages(&path);
    let mut store = SqliteStore::open(&path).expect("opened again");
    store.make_durable().expect("durable");
}

#[test]
fn batches_are_neither_applied_nor_called_durable_in_files_that_no_restart_finds() {
    for ending in ["", "-wal"] {
        let (folder, path) = new_file();
        let footing = Arc::new(Footing::default());
        let mut store = SqliteStore::open(&path).expect("made");
        store.migrate().expect("migrated");
        let mut store = store.standing_on(&footing).expect("its files are there");
        upsert(&mut store, None, vec![todo(1)]).expect("applied");
        let (file, away) = (folder.path().join(format!("todos.sqlite{ending}")), folder.path().join("away"));
        std::fs::rename(&file, &away).expect("moved");
        assert!(matches!(store.make_durable(), Err(StoreError::Unavailable(_))), "{ending}");
        assert!(matches!(upsert(&mut store, Some(1), vec![todo(2)]), Err(StoreError::Unavailable(_))), "{ending}");
        std::fs::rename(&away, &file).expect("moved back");
        store.make_durable().expect("durable");
        upsert(&mut store, Some(1), vec![todo(2)]).expect("applied");
    }
}
