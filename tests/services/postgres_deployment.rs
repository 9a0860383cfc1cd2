//! What PostgreSQL does not take: because of a row, which is then told alone; because of the deployment, which is then told
//! with its remedy. No store fails for good by either.

use std::collections::HashMap;

use million_rps::store::{AppliedOffsets, Changes, Store, StoreError};
use million_rps::todo::{Todo, TodoId};

use crate::postgres::{database_store, list, put, step};
use crate::role::Role;
use crate::servers::{Database, required, unique};
use crate::setting::todo;

/// The text of a trouble that somebody has to end.
#[track_caller]
fn misconfigured<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Misconfigured(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// A role with the rights of a worker.
fn worker_role<'d>(database: &'d Database) -> Role<'d> {
    let role = Role::create(database);
    role.grant("SELECT, INSERT, UPDATE, DELETE ON todos");
    role.grant("SELECT, INSERT, UPDATE ON applied_offsets");
    role.grant("SELECT ON deployment");
    role
}

fn apply_new(store: &mut dyn Store, from: Option<i64>, to: i64, todos: &[Todo]) -> Result<Changes, StoreError> {
    let mut new: Vec<TodoId> = todos.iter().map(|todo| todo.id).collect();
    new.sort_unstable();
    let mut fold = |rows: HashMap<TodoId, Todo>| Changes {
        upserts: todos.iter().filter(|todo| !rows.contains_key(&todo.id)).cloned().collect(),
        deletes: vec![],
    };
    store.apply_new(&[step(from, to)], &[], &new, &mut fold)
}

#[test]
fn a_role_that_may_only_read_and_write_rows_works_where_the_schema_is_right() {
    let database = Database::create();
    database.migrated_store();
    let role = worker_role(&database);
    let mut store = database_store(&role.url());
    store.migrate().expect("the schema is right");
    let todos: Vec<Todo> = (0..200).map(|number| todo(number, "t")).collect();
    apply_new(&mut store, None, 1, &todos).expect("applied");
    put(&mut store, step(Some(1), 2), &[Todo { completed: true, ..todos[0].clone() }]).expect("applied");
    assert_eq!(list(&mut store).0.len(), 200);
    store.identity().expect("readable");
}

#[test]
fn each_missing_right_is_named_with_the_statement_that_grants_it() {
    let database = Database::create();
    database.migrated_store();
    let role = Role::create(&database);
    let mut store = database_store(&role.url());
    // What the text says is all that it takes, run as it stands.
    let statements = |text: &str| {
        let grants =
            text.split("GRANT ").skip(1).map(|rest| format!("GRANT {}", rest.split(';').next().expect("a part")));
        grants.collect::<Vec<_>>()
    };
    let text = misconfigured(store.migrate());
    let grants = statements(&text);
    assert_eq!(grants.len(), 3, "{text}");
    assert!(
        text.contains(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON \"public\".\"todos\" TO \"{}\"", role.name))
    );
    for grant in grants {
        database.execute(&database.url(), &grant);
    }
    store.migrate().expect("nothing is missing");

    for (table, right) in [("todos", "UPDATE"), ("todos", "SELECT"), ("todos", "INSERT"), ("applied_offsets", "INSERT")]
    {
        database.execute(&database.url(), &format!("REVOKE {right} ON {table} FROM \"{}\"", role.name));
        for text in [misconfigured(store.migrate()), misconfigured(put(&mut store, step(None, 1), &[todo(1, "t")]))] {
            assert_eq!(
                statements(&text),
                [format!("GRANT {right} ON \"public\".\"{table}\" TO \"{}\"", role.name)],
                "{text}"
            );
        }
        role.grant(&format!("{right} ON {table}"));
        store.migrate().expect("given back");
    }
    // Rights on each column are as good.
    let columns = "id, title, description, completed, user_id, created_at, updated_at";
    database.execute(&database.url(), &format!("REVOKE UPDATE ON todos FROM \"{}\"", role.name));
    role.grant(&format!("UPDATE ({columns}) ON todos"));
    store.migrate().expect("all columns may be changed");

    database.execute(&database.url(), "CREATE SCHEMA apart; ALTER TABLE todos SET SCHEMA apart");
    let text = misconfigured(store.applied_offsets().and_then(|_| store.migrate()));
    assert_eq!(statements(&text), [format!("GRANT USAGE ON SCHEMA \"apart\" TO \"{}\"", role.name)], "{text}");
    role.grant("USAGE ON SCHEMA apart");
    let text = misconfigured(store.migrate());
    assert!(text.contains(&format!("ALTER ROLE \"{}\" SET search_path", role.name)), "{text}");
}

#[test]
fn a_role_without_a_schema_is_told_who_makes_one() {
    let database = Database::create();
    let role = Role::create(&database);
    let text = misconfigured(database_store(&role.url()).migrate());
    for table in ["todos", "applied_offsets", "deployment"] {
        assert!(
            text.contains(&format!("there is no table {table}: run `million-rps migrate` once as a role")),
            "{text}"
        );
    }
}

#[test]
fn a_database_that_cannot_hold_every_text_is_named_at_the_start() {
    let server = required("DATABASE_URL");
    let database = Database::create();
    for encoding in ["LATIN1", "WIN1252"] {
        let name = unique("encoded");
        let create =
            format!("CREATE DATABASE \"{name}\" ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        database.execute(&server, &create);
        let mut store = database_store(&database.url().replace(&database.name, &name));
        let text = misconfigured(store.migrate());
        drop(store);
        database.execute(&server, &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
        assert!(text.contains(encoding) && text.contains("ENCODING 'UTF8'"), "{text}");
    }
}

#[test]
fn a_column_of_the_site_without_a_default_is_named_at_the_start_and_when_it_comes_later() {
    let database = Database::create();
    let mut store = database.migrated_store();
    let alter = |statement: &str| database.execute(&database.url(), &format!("ALTER TABLE todos {statement}"));
    alter("ADD COLUMN tenant integer NOT NULL");
    let todos: Vec<Todo> = (0..100).map(|number| todo(number, "t")).collect();
    // By COPY and by INSERT.
    for count in [100, 1] {
        let text = misconfigured(apply_new(&mut store, None, 1, &todos[..count]));
        assert!(text.contains("column tenant") && text.contains("SET DEFAULT"), "{text}");
    }
    let text = misconfigured(store.migrate());
    assert!(text.contains("column tenant") && text.contains("SET DEFAULT"), "{text}");
    // Each remedy works, without a restart.
    for remedy in
        ["ALTER COLUMN tenant SET DEFAULT 7", "ALTER COLUMN tenant DROP DEFAULT, ALTER COLUMN tenant DROP NOT NULL"]
    {
        alter(remedy);
        store.migrate().expect("nothing is in the way");
    }
    alter("ALTER COLUMN tenant SET NOT NULL, ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY");
    database.execute(
        &database.url(),
        "CREATE FUNCTION give_tenant() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.tenant := 3; RETURN NEW; END';
         CREATE TRIGGER tenants BEFORE INSERT ON todos FOR EACH ROW EXECUTE FUNCTION give_tenant()",
    );
    store.migrate().expect("a trigger may give the value");
    apply_new(&mut store, None, 1, &todos).expect("and it does");
}

#[test]
fn what_a_site_checks_by_itself_refuses_the_row_and_not_the_deployment() {
    let raise = |raising: &str| {
        format!(
            "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.title = 'bad' THEN {raising}; END IF; RETURN NEW; END $$;
             CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON todos FOR EACH ROW EXECUTE FUNCTION judge()"
        )
    };
    let rules = [
        raise("RAISE EXCEPTION 'not this one'"),
        raise("RAISE EXCEPTION 'not this one' USING ERRCODE = 'UE001'"),
        raise("PERFORM 1 / 0"),
        raise("NEW.title := NULL"),
        raise("ASSERT false, 'not this one'"),
        "ALTER TABLE todos ADD CONSTRAINT decent CHECK (title <> 'bad')".to_owned(),
        "CREATE EXTENSION IF NOT EXISTS btree_gist; ALTER TABLE todos ADD CONSTRAINT alone EXCLUDE USING gist (title WITH =) \
         WHERE (title = 'bad'); INSERT INTO todos VALUES (gen_random_uuid()::text, 'bad', '', false, 'u', now(), now())"
            .to_owned(),
        "CREATE TABLE titles (title text PRIMARY KEY); INSERT INTO titles VALUES ('good'); ALTER TABLE todos \
         ADD FOREIGN KEY (title) REFERENCES titles DEFERRABLE INITIALLY DEFERRED"
            .to_owned(),
        "CREATE INDEX narrow ON todos (description)".to_owned(),
    ];
    for rule in rules {
        let database = Database::create();
        let mut store = database.migrated_store();
        database.execute(&database.url(), &rule);
        let before = list(&mut store).0.len();
        let mut todos: Vec<Todo> = (0..100).map(|number| todo(number, "good")).collect();
        todos[70].title = "bad".into();
        if rule.starts_with("CREATE INDEX") {
            // Too wide for an index, however it is compressed.
            let random = (0..2_000).map(|_| TodoId::new().to_string() + &unique("")).collect::<String>();
            todos[70].description = random;
        }
        for part in [&todos[..], &todos[70..71]] {
            let refused = apply_new(&mut store, None, 1, part);
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{rule}: {refused:?}");
        }
        assert_eq!(list(&mut store).0.len(), before, "{rule}");
        apply_new(&mut store, None, 1, &todos[..70]).unwrap_or_else(|error| panic!("{rule}: {error}"));
        apply_new(&mut store, Some(1), 2, &todos[71..]).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(list(&mut store).1, AppliedOffsets::from([(3, 2)]), "{rule}");
    }
}

#[test]
fn a_server_that_takes_no_writes_is_waited_for() {
    let database = Database::create();
    let mut store = database.migrated_store();
    let set = |value: &str| {
        let alter = format!("ALTER DATABASE \"{}\" SET default_transaction_read_only = {value}", database.name);
        database.execute(&required("DATABASE_URL"), &alter);
    };
    set("on");
    let text = misconfigured(database.store().migrate());
    assert!(text.contains("takes no writes") && text.contains("default_transaction_read_only"), "{text}");
    set("off");
    put(&mut store, step(None, 1), &[todo(1, "t")]).expect("it takes writes again");
}

#[test]
fn a_full_table_of_connections_is_named() {
    let database = Database::create();
    database.migrated_store();
    let role = worker_role(&database);
    database.execute(&database.url(), &format!("ALTER ROLE \"{}\" CONNECTION LIMIT 1", role.name));
    let mut first = database_store(&role.url());
    first.applied_offsets().expect("the first has a place");
    let text = misconfigured(database_store(&role.url()).applied_offsets());
    assert!(text.contains("CONNECTION LIMIT"), "{text}");
}
