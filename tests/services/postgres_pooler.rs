//! PostgreSQL behind PgBouncer: each transaction may have another session, which other clients use before and after it.

use std::collections::HashMap;

use million_rps::store::{AppliedOffsets, Changes, Store, StoreError};
use million_rps::todo::{Todo, TodoId};

use crate::pooler::Pooler;
use crate::postgres::{database_store, list, put, step};
use crate::servers::Database;
use crate::setting::{eventually, todo};

const TRANSACTION: &str = "pool_mode = transaction";

/// Runs a query through the pooler, as another program of the site would.
fn ask(database: &Database, url: &str, query: &str) -> String {
    database.runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let answers = client.simple_query(query).await.expect("the query works");
        answers
            .iter()
            .find_map(|answer| match answer {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .expect("a row")
    })
}

#[test]
fn several_stores_share_the_sessions_of_a_pooler_and_leave_no_trace_in_them() {
    for (pool_size, settings) in [
        (1, TRANSACTION.to_owned()),
        (3, TRANSACTION.to_owned()),
        // What the program asks for at the start is dropped in silence.
        (2, format!("{TRANSACTION}\nignore_startup_parameters = options,extra_float_digits")),
        (4, "pool_mode = session".to_owned()),
    ] {
        let database = Database::create();
        let pooler = Pooler::start(&database.url(), pool_size, &settings);
        let url = pooler.through(&database.url());
        let fresh = |setting: &str| ask(&database, &database.url(), &format!("SHOW {setting}"));
        let traces = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "enable_seqscan"];
        let expected = traces.map(fresh);
        database_store(&url).migrate().expect("the schema is created");
        let mut all: Vec<Todo> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|partition| {
                    let mut store = database_store(&url);
                    scope.spawn(move || write_much(&mut store, partition))
                })
                .collect();
            // A list is read meanwhile.
            let mut reader = database_store(&url);
            for _ in 0..20 {
                assert_eq!(list(&mut reader).0.len() % PART, 0, "a batch is seen whole");
            }
            writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
        });
        all.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
        let (todos, offsets) = list(&mut database_store(&url));
        assert_eq!(todos, all, "{settings}");
        assert_eq!(offsets, (0..4).map(|partition| (partition, BATCHES)).collect::<AppliedOffsets>());
        database_store(&url).identity().expect("readable");
        for (setting, expected) in traces.iter().zip(&expected) {
            for _ in 0..2 * pool_size {
                assert_eq!(ask(&database, &url, &format!("SHOW {setting}")), *expected, "{setting} with {settings}");
            }
        }
        let prepared = ask(&database, &url, "SELECT count(*) FROM pg_prepared_statements");
        assert_eq!(prepared, "0", "{settings}");
    }
}

/// Todos of each batch; enough for COPY.
const PART: usize = 50;
const BATCHES: i64 = 30;

fn write_much(store: &mut dyn Store, partition: i32) -> Vec<Todo> {
    let mut written = Vec::new();
    for batch in 0..BATCHES {
        let mut todos: Vec<Todo> = (0..PART as i64)
            .map(|number| todo(1_000_000 * i64::from(partition) + 1_000 * batch + number, "t"))
            .collect();
        todos.sort_by_key(|todo| todo.id);
        let ids: Vec<TodoId> = todos.iter().map(|todo| todo.id).collect();
        let step = million_rps::store::OffsetStep { partition, from: (batch > 0).then_some(batch), to: batch + 1 };
        let mut fold = |rows: HashMap<TodoId, Todo>| {
            assert!(rows.is_empty());
            Changes { upserts: todos.clone(), deletes: vec![] }
        };
        store.apply_new(&[step], &[], &ids, &mut fold).expect("applied");
        written.extend(todos);
    }
    written
}

#[test]
fn behind_a_pooler_fences_hold_refusals_are_told_and_lost_answers_found() {
    let database = Database::create();
    let pooler = Pooler::start(&database.url(), 2, TRANSACTION);
    let url = pooler.through(&database.url());
    let mut mine = database_store(&url);
    mine.migrate().expect("the schema is created");
    put(&mut mine, step(None, 1), &[todo(1, "first")]).expect("stored");
    let fenced = put(&mut database_store(&url), step(None, 2), &[todo(2, "second")]);
    assert!(matches!(fenced, Err(StoreError::Fenced { partition: 3 })), "{fenced:?}");
    let refused = put(&mut mine, step(Some(1), 2), &[todo(2, "with a NUL \0 in it")]);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    put(&mut mine, step(Some(1), 2), &[todo(2, "second")]).expect("stored");
    // The sessions end under the pooler, and it starts others.
    database.end_sessions();
    eventually("new sessions", || put(&mut mine, step(Some(2), 3), &[todo(3, "third")]).ok());
    assert_eq!(list(&mut mine).1, AppliedOffsets::from([(3, 3)]));
}

#[test]
fn a_pooler_that_gives_each_statement_another_session_is_named_with_its_remedy() {
    let database = Database::create();
    database.migrated_store();
    let pooler = Pooler::start(&database.url(), 2, "pool_mode = statement");
    let mut store = database_store(&pooler.through(&database.url()));
    match put(&mut store, step(None, 1), &[todo(1, "t")]) {
        Err(StoreError::Misconfigured(text)) if text.contains("pool_mode = transaction") => {}
        other => panic!("{other:?}"),
    }
}
