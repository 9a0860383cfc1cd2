//! The PostgreSQL store: batches, fencing, lost connections, refused rows.

use std::time::{Duration, Instant};

use million_rps::command_log::LogId;
use million_rps::limits::{
    APPLY_BATCH_MAX_BYTES, DESCRIPTION_MAX_CHARS, LINK_MIN_BYTES_PER_SEC, POSTGRES_CONNECT_TIMEOUT_MS,
    POSTGRES_MIGRATE_TIMEOUT_MS, POSTGRES_REPLY_TIMEOUT_MS,
};
use million_rps::store::postgres::PostgresStore;
use million_rps::store::{AppliedOffsets, Changes, OffsetStep, Store, StoreError};
use million_rps::todo::{Todo, TodoId};

use crate::proxy::{Proxy, Way};
use crate::servers::Database;
use crate::setting::{eventually, required, todo};

impl Database {
    /// A store that reaches it through a proxy alone.
    fn store_behind_proxy(&self) -> (Proxy, PostgresStore) {
        let proxy = Proxy::before(&server_address());
        let store = database_store(&self.url_through(&proxy));
        (proxy, store)
    }

    /// Its URL, through a proxy.
    fn url_through(&self, proxy: &Proxy) -> String {
        self.url().replace(&server_address(), &proxy.address.to_string())
    }

    pub fn store(&self) -> PostgresStore {
        database_store(&self.url())
    }

    pub fn migrated_store(&self) -> PostgresStore {
        let mut store = self.store();
        store.migrate().expect("the schema is created");
        store
    }

    pub fn count(&self, query: &str) -> i64 {
        self.runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.expect("a connection");
            tokio::spawn(connection);
            client.query_one(query, &[]).await.expect("the query works").get(0)
        })
    }

    /// Ends every other session of this database, as an administrator would.
    pub fn end_sessions(&self) {
        self.count(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    }
}

pub fn database_store(url: &str) -> PostgresStore {
    PostgresStore::new(url, "todo-commands").expect("a usable URL")
}

fn server_address() -> String {
    let url = required("DATABASE_URL");
    let (_, rest) = url.split_once("://").expect("a URL");
    let (authority, _) = rest.split_once('/').expect("a database");
    authority.rsplit_once('@').map_or(authority, |(_, address)| address).to_owned()
}

pub fn step(from: Option<i64>, to: i64) -> OffsetStep {
    OffsetStep { partition: 3, from, to }
}

pub fn put(store: &mut PostgresStore, step: OffsetStep, todos: &[Todo]) -> Result<Changes, StoreError> {
    let ids: Vec<TodoId> = todos.iter().map(|todo| todo.id).collect();
    store.apply(&[step], &ids, &mut |_| Changes { upserts: todos.to_vec(), deletes: vec![] })
}

pub fn list(store: &mut PostgresStore) -> (Vec<Todo>, AppliedOffsets) {
    let mut todos = Vec::new();
    let offsets = store.scan(&mut |todo| todos.push(todo)).expect("the list is read");
    (todos, offsets)
}

#[test]
fn a_batch_is_stored_with_its_offsets_and_read_back_newest_first() {
    let database = Database::create();
    let mut store = database.migrated_store();
    let mut todos: Vec<Todo> = (0..2_500).map(|number| todo(number / 2, &format!("title {number}"))).collect();
    put(&mut store, step(None, 2_500), &todos).expect("stored");
    todos.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    assert_eq!(list(&mut store), (todos.clone(), AppliedOffsets::from([(3, 2_500)])));

    // The next batch sees what the first one stored, changes one row and removes another.
    let (changed, removed) = (todos[7].id, todos[8].key());
    let changes = store
        .apply(&[step(Some(2_500), 2_502)], &[changed, removed.id, TodoId::new()], &mut |mut rows| {
            assert_eq!(rows.len(), 2);
            assert_eq!(rows.get(&removed.id), Some(&todos[8]));
            let mut todo = rows.remove(&changed).expect("the row is there");
            todo.completed = true;
            Changes { upserts: vec![todo], deletes: vec![removed] }
        })
        .expect("applied");
    assert_eq!(changes.len(), 2);
    todos[7].completed = true;
    todos.remove(8);
    assert_eq!(list(&mut store), (todos, AppliedOffsets::from([(3, 2_502)])));
}

#[test]
fn todos_that_have_to_be_new_and_are_not_end_as_if_they_had_been_looked_for() {
    let database = Database::create();
    let mut store = database.migrated_store();
    let mut todos: Vec<Todo> = (0..1_000).map(|number| todo(number, &format!("title {number}"))).collect();
    todos.sort_by_key(|todo| todo.id);
    let id = |todo: &Todo| todo.id;
    let (early, late) = todos.split_at(600);
    let insert = |store: &mut PostgresStore, step, ids: &[TodoId], new: &[Todo]| {
        let new_ids: Vec<TodoId> = new.iter().map(id).collect();
        // What the worker's fold does: a create of a todo that is there changes nothing.
        store.apply_new(&[step], ids, &new_ids, &mut |rows| Changes {
            upserts: new.iter().filter(|todo| !rows.contains_key(&todo.id)).cloned().collect(),
            deletes: rows.values().filter(|todo| ids.contains(&todo.id)).map(Todo::key).collect(),
        })
    };
    insert(&mut store, step(None, 1), &[], early).expect("all are new");
    // 100 of them are there, and one that is read goes.
    let gone = early[0].key();
    let changes = insert(&mut store, step(Some(1), 2), &[gone.id], &todos[500..]).expect("applied");
    assert_eq!((changes.upserts.as_slice(), changes.deletes.as_slice()), (late, &[gone][..]));
    todos.remove(0);
    todos.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    assert_eq!(list(&mut store), (todos, AppliedOffsets::from([(3, 2)])));

    // A row that the database does not take refuses the batch, and a fenced worker writes nothing, by this way too.
    let mut strange: Vec<Todo> = (2_000..2_200).map(|number| todo(number, "title")).collect();
    strange.sort_by_key(|todo| todo.id);
    strange[150].title = "\0".into();
    let mut other = database.store();
    let refused = insert(&mut other, step(Some(2), 3), &[], &strange);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let fenced = insert(&mut database.store(), step(Some(1), 3), &[], &strange[..100]);
    assert!(matches!(fenced, Err(StoreError::Fenced { partition: 3 })), "{fenced:?}");
    assert_eq!(list(&mut store).0.len(), 999);
}

/// A session keeps the plan that was the best when it planned. Were that to read the whole table, each batch would take longer
/// as the table grows, until the server has new statistics.
#[test]
fn no_batch_reads_the_whole_table_however_small_it_was_when_the_statements_were_planned() {
    const BATCHES: i64 = 10;
    let database = Database::create();
    let todos: Vec<Todo> = (0..20).map(|number| todo(number, "one of few")).collect();
    put(&mut database.migrated_store(), step(None, 0), &todos).expect("stored");
    database.execute(&database.url(), "ANALYZE todos, applied_offsets");
    let whole_reads = |table: &str| {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        // What a session has counted shows when it has ended.
        eventually("every session ends", || (database.count(sessions) == 0).then_some(()));
        database.count(&format!("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = '{table}'"))
    };
    let before = ["todos", "applied_offsets"].map(whole_reads);

    let mut store = database.store();
    let ids: Vec<TodoId> = todos.iter().map(|todo| todo.id).collect();
    let (kept, gone) = todos.split_at(15);
    for batch in 0..BATCHES {
        let changes = Changes { upserts: kept.to_vec(), deletes: gone.iter().map(Todo::key).collect() };
        store.apply(&[step(Some(batch), batch + 1)], &ids, &mut |_| changes.clone()).expect("applied");
    }
    drop(store);
    assert_eq!(["todos", "applied_offsets"].map(whole_reads), before);
}

#[test]
fn a_worker_whose_offset_was_moved_writes_nothing() {
    let database = Database::create();
    let (mut mine, mut theirs) = (database.migrated_store(), database.store());
    let (first, second) = (todo(1, "first"), todo(2, "second"));
    put(&mut mine, step(None, 10), std::slice::from_ref(&first)).expect("stored");
    for stale in [step(None, 11), step(Some(9), 11), step(Some(11), 12)] {
        let refused = put(&mut theirs, stale, std::slice::from_ref(&second));
        assert!(matches!(refused, Err(StoreError::Fenced { partition: 3 })), "{refused:?}");
    }
    // One stale partition of two refuses the whole batch.
    let steps = [OffsetStep { partition: 4, from: None, to: 1 }, step(Some(9), 11)];
    let refused = theirs.apply(&steps, &[], &mut |_| panic!("a fenced batch is not folded"));
    assert!(matches!(refused, Err(StoreError::Fenced { partition: 3 })), "{refused:?}");
    assert_eq!(list(&mut mine), (vec![first], AppliedOffsets::from([(3, 10)])));
    put(&mut theirs, step(Some(10), 11), &[second]).expect("the connection is in order after a refusal");
}

#[test]
fn of_two_workers_with_the_same_step_one_wins() {
    let database = Database::create();
    let mut store = database.migrated_store();
    put(&mut store, step(None, 0), &[]).expect("stored");
    for round in 0..20 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let mut store = database.store();
                    scope.spawn(move || {
                        put(&mut store, step(Some(round), round + 1), &[todo(round, &format!("by {worker}"))])
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        let fenced = results.iter().filter(|result| matches!(result, Err(StoreError::Fenced { .. }))).count();
        assert_eq!((fenced, results.iter().filter(|result| result.is_ok()).count()), (1, 1), "{results:?}");
    }
    assert_eq!(list(&mut store).0.len(), 20);
}

#[test]
fn offsets_of_several_topics_do_not_mix() {
    let database = Database::create();
    let mut one = database.migrated_store();
    let mut other = PostgresStore::new(&database.url(), "other").expect("a usable URL");
    put(&mut one, step(None, 5), &[]).expect("stored");
    put(&mut other, step(None, 7), &[]).expect("stored");
    assert_eq!(one.applied_offsets().expect("read"), AppliedOffsets::from([(3, 5)]));
    assert_eq!(other.applied_offsets().expect("read"), AppliedOffsets::from([(3, 7)]));
}

/// The place is set anew, for another log, while a worker is about to apply what it has read of the one before. By their
/// offsets alone its steps would be right.
#[test]
fn a_batch_of_a_log_that_is_not_followed_any_more_is_not_applied() {
    let log = |bits| LogId::from_bits(bits).expect("not zero");
    for from in [None, Some(5)] {
        let database = Database::create();
        let mut worker = database.migrated_store();
        let offsets: AppliedOffsets = from.map(|from| (3, from)).into_iter().collect();
        worker.set_log_place(Some(log(1)), &offsets).expect("set");
        assert_eq!(worker.known_logs().expect("read").followed, Some(log(1)));
        for another in [log(2), log(1 << 64), log(1 << 64 | 1)] {
            database.store().set_log_place(Some(another), &offsets).expect("set");
            let refused = put(&mut worker, step(from, 9), &[todo(1, "of the log before")]);
            assert!(matches!(refused, Err(StoreError::Fenced { partition: 3 })), "{refused:?}");
            assert_eq!(list(&mut worker), (vec![], offsets.clone()));
        }
        // One without an id, as after a tool of the version before.
        database.store().set_log_place(None, &offsets).expect("set");
        put(&mut worker, step(from, 9), &[todo(1, "of a log without an id")]).expect("applied");
    }
}

#[test]
fn a_row_that_the_database_refuses_is_told_from_a_failure() {
    let database = Database::create();
    let mut store = database.migrated_store();
    let refused = put(&mut store, step(None, 1), &[todo(1, "with a NUL \0 in it")]);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(list(&mut store), (vec![], AppliedOffsets::new()));
    put(&mut store, step(None, 1), &[todo(1, "without")]).expect("the connection is in order after a refusal");
}

#[test]
fn ended_sessions_are_opened_again_unseen() {
    let database = Database::create();
    let mut store = database.migrated_store();
    for round in 0..3 {
        put(&mut store, step((round > 0).then_some(round), round + 1), &[todo(round, "t")]).expect("stored");
        database.end_sessions();
        assert_eq!(list(&mut store).0.len() as i64, round + 1);
        database.end_sessions();
    }
    assert_eq!(store.applied_offsets().expect("read"), AppliedOffsets::from([(3, 3)]));
}

#[test]
fn a_session_ended_in_mid_transaction_leaves_nothing_behind() {
    let database = Database::create();
    let mut store = database.migrated_store();
    let interrupted = store.apply(&[step(None, 1)], &[], &mut |_| {
        database.end_sessions();
        Changes { upserts: vec![todo(1, "never stored")], deletes: vec![] }
    });
    assert!(matches!(interrupted, Err(StoreError::Unavailable(_))), "{interrupted:?}");
    assert_eq!(list(&mut store), (vec![], AppliedOffsets::new()));
    put(&mut store, step(None, 1), &[todo(1, "stored")]).expect("the next attempt works");
}

#[test]
fn a_commit_whose_answer_was_lost_is_found_to_have_happened() {
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    put(&mut store, step(None, 1), &[todo(1, "first")]).expect("stored");

    // The server can be asked at once.
    let second = todo(2, "second");
    proxy.cut_reply_to("COMMIT\0");
    let changes = put(&mut store, step(Some(1), 2), std::slice::from_ref(&second)).expect("found to have been stored");
    assert_eq!(changes.upserts, [second]);

    // The server can be asked only later, when the caller tries again; the batch is not folded a second time.
    let third = todo(3, "third");
    proxy.cut_reply_to("COMMIT\0");
    let unanswered = store.apply(&[step(Some(2), 3)], &[third.id], &mut |_| {
        proxy.refuse();
        Changes { upserts: vec![third.clone()], deletes: vec![] }
    });
    assert!(matches!(unanswered, Err(StoreError::Unavailable(_))), "{unanswered:?}");
    proxy.heal();
    let changes = eventually("the store has asked", || {
        match store.apply(&[step(Some(2), 3)], &[third.id], &mut |_| panic!("it was applied already")) {
            Ok(changes) => Some(changes),
            Err(StoreError::Unavailable(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    });
    assert_eq!(changes.upserts, [third]);
    assert_eq!(list(&mut store).1, AppliedOffsets::from([(3, 3)]));
}

#[test]
fn a_batch_that_was_cut_before_its_commit_is_applied_by_the_next_attempt() {
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    put(&mut store, step(None, 1), &[todo(1, "first")]).expect("stored");
    let second = todo(2, "cut off here");
    proxy.cut_reply_to("cut off here");
    let cut = put(&mut store, step(Some(1), 2), std::slice::from_ref(&second));
    assert!(matches!(cut, Err(StoreError::Unavailable(_))), "{cut:?}");
    put(&mut store, step(Some(1), 2), &[second]).expect("stored");
    assert_eq!(list(&mut store).0.len(), 2);
}

#[test]
fn a_worker_that_slept_through_the_end_of_its_transaction_writes_nothing() {
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    // Whether the end of the session is seen before the next statement is sent is a matter of microseconds.
    for round in 0..5 {
        put(&mut store, step((round > 0).then_some(2 * round), 2 * round + 1), &[]).expect("stored");
        // The answers to the first half of the transaction arrive together with the news of its end.
        proxy.silence(Way::ToClient);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                eventually("an open transaction", || {
                    let open = "SELECT count(*) FROM pg_stat_activity \
                                WHERE datname = current_database() AND state = 'idle in transaction'";
                    (database.count(open) == 1).then_some(())
                });
                database.end_sessions();
                proxy.heal();
            });
            let stale = put(&mut store, step(Some(2 * round + 1), 2 * round + 2), &[todo(1, "stale")]);
            assert!(matches!(stale, Err(StoreError::Unavailable(_))), "round {round}: {stale:?}");
        });
        assert_eq!(database.count("SELECT count(*) FROM todos"), 0, "round {round}");
        put(&mut store, step(Some(2 * round + 1), 2 * round + 2), &[]).expect("stored");
    }
}

#[test]
fn a_frozen_database_is_given_up_and_used_again_when_it_thaws() {
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    put(&mut store, step(None, 1), &[todo(1, "first")]).expect("stored");
    let second = todo(2, "second");
    let frozen = store.apply(&[step(Some(1), 2)], &[], &mut |_| {
        proxy.silence(Way::ToClient);
        Changes { upserts: vec![second.clone()], deletes: vec![] }
    });
    assert!(matches!(frozen, Err(StoreError::Unavailable(_))), "{frozen:?}");
    proxy.heal();
    eventually("the batch is applied", || put(&mut store, step(Some(1), 2), std::slice::from_ref(&second)).ok());
    assert_eq!(list(&mut store).1, AppliedOffsets::from([(3, 2)]));
}

#[test]
fn a_link_that_falls_silent_is_noticed_within_its_bound() {
    // For a busy machine.
    let leniency = Duration::from_secs(5);
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    store.applied_offsets().expect("it answers");
    // In the middle of a conversation, and while connecting.
    proxy.black_hole();
    let start = Instant::now();
    assert!(matches!(store.applied_offsets(), Err(StoreError::Unavailable(_))));
    // What was thought to be a good connection gets the first bound; the attempt to replace it gets the second.
    let bound = Duration::from_millis(POSTGRES_REPLY_TIMEOUT_MS + 2 * POSTGRES_CONNECT_TIMEOUT_MS);
    assert!(start.elapsed() < bound + leniency, "{:?}", start.elapsed());
    proxy.heal();
    eventually("the database is found", || store.applied_offsets().ok());
}

#[test]
fn a_migration_does_not_wait_for_a_server_that_has_fallen_silent() {
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    store.applied_offsets().expect("it answers");
    proxy.black_hole();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(store.migrate()));
    let end = end.recv_timeout(Duration::from_millis(POSTGRES_MIGRATE_TIMEOUT_MS / 10));
    assert!(matches!(end, Ok(Err(StoreError::Unavailable(_)))), "{end:?}");
}

#[test]
fn the_largest_batch_gets_through_a_narrow_link() {
    let database = Database::create();
    database.migrated_store();
    let (proxy, mut store) = database.store_behind_proxy();
    put(&mut store, step(None, 1), &[todo(1, "first")]).expect("stored");
    let count = APPLY_BATCH_MAX_BYTES / DESCRIPTION_MAX_CHARS;
    let large = |number| Todo { description: "d".repeat(DESCRIPTION_MAX_CHARS), ..todo(number, "large") };
    let todos: Vec<Todo> = (0..count).map(|number| large(number as i64)).collect();
    proxy.slow(Duration::from_millis(20), LINK_MIN_BYTES_PER_SEC as u32 * 5 / 4);
    put(&mut store, step(Some(1), 2), &todos).expect("stored at the first attempt");
    assert_eq!(database.count("SELECT count(*) FROM todos"), count as i64 + 1);
}

#[test]
fn a_database_that_is_not_there_yet_is_reported_as_unavailable_and_found_later() {
    let database = Database::create();
    database.migrated_store();
    let proxy = Proxy::before(&server_address());
    proxy.refuse();
    let mut store = database_store(&database.url_through(&proxy));
    let absent = store.applied_offsets();
    assert!(matches!(absent, Err(StoreError::Unavailable(_))), "{absent:?}");
    let absent = store.scan(&mut |_| panic!("there is nothing to read from"));
    assert!(matches!(absent, Err(StoreError::Unavailable(_))), "{absent:?}");
    proxy.heal();
    eventually("the database is found", || store.applied_offsets().ok());
    proxy.cut();
    store.applied_offsets().expect("a cut connection is opened again unseen");
}

#[test]
fn a_stopped_worker_does_not_hold_up_its_successor() {
    let database = Database::create();
    let (mut stopped, mut successor) = (database.migrated_store(), database.store());
    put(&mut stopped, step(None, 1), &[]).expect("stored");
    let late = stopped.apply(&[step(Some(1), 2)], &[], &mut |_| {
        // While this worker sleeps in mid transaction, holding the row of its offset, another one takes over.
        let taken = eventually("the server has ended the silent session", || {
            put(&mut successor, step(Some(1), 2), &[todo(1, "by the successor")]).ok()
        });
        assert_eq!(taken.len(), 1);
        Changes { upserts: vec![todo(1, "too late")], deletes: vec![] }
    });
    assert!(late.is_err(), "{late:?}");
    let (todos, _) = list(&mut successor);
    assert_eq!(todos.iter().map(|todo| todo.title.as_str()).collect::<Vec<_>>(), ["by the successor"]);
}
