//! The schema in PostgreSQL: made, taken over from other tables, and missing.

use million_rps::store::postgres::SCHEMA;
use million_rps::store::{AppliedOffsets, Store, StoreError};
use million_rps::todo::{Timestamp, Todo};

use crate::postgres::{database_store, list, put, step};
use crate::servers::Database;
use crate::setting::todo;

#[test]
fn schema_upgrades_the_originals_table_in_place() {
    let database = Database::create();
    database.execute(
        &database.url(),
        "CREATE TABLE todos (
             id VARCHAR(36) PRIMARY KEY DEFAULT gen_random_uuid()::text, title VARCHAR(500) NOT NULL, description TEXT,
             completed BOOLEAN DEFAULT FALSE, user_id VARCHAR(255) NOT NULL,
             created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
         CREATE INDEX idx_todos_created_at ON todos (created_at DESC);
         INSERT INTO todos VALUES ('018F3A6B-0000-7000-8000-0000000000AA', 'old', NULL, NULL, 'anna',
             '2020-01-02 03:04:05.678901', NULL)",
    );
    let mut store = database.migrated_store();
    store.migrate().expect("a second run changes nothing");
    let created_at: Timestamp = "2020-01-02T03:04:05.678901Z".parse().expect("a moment");
    let expected = Todo {
        id: "018f3a6b-0000-7000-8000-0000000000aa".parse().expect("an id"),
        title: "old".into(),
        description: String::new(),
        completed: false,
        user_id: "anna".into(),
        created_at,
        updated_at: created_at,
    };
    assert_eq!(list(&mut store).0, std::slice::from_ref(&expected));
    put(&mut store, step(None, 1), &[Todo { completed: true, ..expected }]).expect("the upgraded table takes changes");
}

#[test]
fn schema_upgrades_a_table_with_uuid_ids_and_names_ids_that_are_none() {
    let database = Database::create();
    let columns =
        "title text, description text, completed boolean, user_id text, created_at timestamptz, updated_at timestamptz";
    database.execute(
        &database.url(),
        &format!(
            "CREATE TABLE todos (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), {columns});
             INSERT INTO todos VALUES (DEFAULT, 't', 'd', true, 'u', now(), now())"
        ),
    );
    assert_eq!(list(&mut database.migrated_store()).0.len(), 1);

    let database = Database::create();
    database.execute(
        &database.url(),
        &format!(
            "CREATE TABLE todos (id text PRIMARY KEY, {columns});
             INSERT INTO todos VALUES ('todo-1', 't', 'd', true, 'u', now(), now())"
        ),
    );
    let refused = database.store().migrate();
    assert!(matches!(&refused, Err(StoreError::Misconfigured(text)) if text.contains("todo-1")), "{refused:?}");
    assert_eq!(database.count("SELECT count(*) FROM todos WHERE id = 'todo-1'"), 1, "a failed upgrade changes nothing");
}

#[test]
fn ids_that_differ_only_in_case_are_named() {
    let database = Database::create();
    let [upper, lower] = ["018F3A6B-0000-7000-8000-0000000000AA", "018f3a6b-0000-7000-8000-0000000000aa"];
    database.execute(
        &database.url(),
        &format!(
            "CREATE TABLE todos (id varchar(36) PRIMARY KEY, title text, user_id text);
             INSERT INTO todos VALUES ('{upper}', 'a', 'u'), ('{lower}', 'b', 'u'), (gen_random_uuid(), 'c', 'u')"
        ),
    );
    let refused = database.store().migrate();
    let Err(StoreError::Misconfigured(text)) = &refused else { panic!("{refused:?}") };
    assert!(text.contains(upper) && text.contains(lower) && text.contains("upper and lower case"), "{text}");
    database.execute(&database.url(), &format!("DELETE FROM todos WHERE id = '{upper}'"));
    assert_eq!(list(&mut database.migrated_store()).0.len(), 2);
}

#[test]
fn several_processes_may_migrate_at_once() {
    let database = Database::create();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| database_store(&database.url()).migrate().expect("created or found"));
        }
    });
    assert_eq!(list(&mut database.store()), (vec![], AppliedOffsets::new()));
}

#[test]
fn psql_takes_the_schema_file_as_it_is() {
    let database = Database::create();
    let run = || {
        std::process::Command::new("psql")
            .args(["-v", "ON_ERROR_STOP=1", "-q", "-d", &database.url(), "-f", "src/store/postgres/schema.sql"])
            .output()
            .expect("psql is installed with PostgreSQL")
    };
    for _ in 0..2 {
        let output = run();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    put(&mut database.store(), step(None, 1), &[todo(1, "t")]).expect("the schema is the one that the store uses");
    assert!(SCHEMA.contains("psql"), "the file says how it is used");
}

#[test]
fn a_missing_schema_or_database_says_what_to_do() {
    let database = Database::create();
    let missing = database.store().applied_offsets();
    assert!(matches!(&missing, Err(StoreError::Misconfigured(text)) if text.contains("migrate")), "{missing:?}");
    let missing = database_store(&database.url().replace(&database.name, "no-such-database")).applied_offsets();
    assert!(
        matches!(&missing, Err(StoreError::Misconfigured(text)) if text.contains("no-such-database")),
        "{missing:?}"
    );
}
