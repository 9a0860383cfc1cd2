//! The snapshot against a plain sorted list.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limits::CHUNK_TARGET_BYTES;
use crate::todo::Timestamp;

/// What the snapshot has to equal: the todos by id, shown newest first.
#[derive(Default, Clone)]
pub(super) struct Model(BTreeMap<TodoId, Todo>);

impl Model {
    pub(super) fn apply(&mut self, changes: &Changes) {
        for key in &changes.deletes {
            self.0.remove(&key.id);
        }
        for todo in &changes.upserts {
            self.0.insert(todo.id, todo.clone());
        }
    }

    pub(super) fn list(&self) -> Vec<&Todo> {
        let mut list: Vec<&Todo> = self.0.values().collect();
        list.sort_by_key(|todo| Reverse(todo.key()));
        list
    }

    pub(super) fn snapshot(&self, version: u64) -> Snapshot {
        build(self.list(), version)
    }
}

pub(super) fn build<'t>(todos: impl IntoIterator<Item = &'t Todo>, version: u64) -> Snapshot {
    let mut builder = SnapshotBuilder::new(HashKeys::new(&[1; 32]));
    todos.into_iter().for_each(|todo| builder.push(todo));
    builder.finish(version)
}

pub(super) fn todo(id: u128, created_at_micros: i64, description: String, user_id: &str) -> Todo {
    Todo {
        id: TodoId::from_u128(id),
        title: format!("todo {id}, \"user_id\":\""),
        description,
        completed: id.is_multiple_of(3),
        user_id: user_id.to_owned(),
        created_at: Timestamp::from_micros(created_at_micros),
        updated_at: Timestamp::from_micros(created_at_micros + 1),
    }
}

fn json(todo: &Todo) -> String {
    let mut json = Vec::new();
    todo.write_json(&mut json);
    String::from_utf8(json).expect("UTF-8")
}

pub(super) fn json_objects<'t>(todos: impl IntoIterator<Item = &'t Todo>) -> Vec<String> {
    todos.into_iter().map(json).collect()
}

pub(super) fn array(objects: &[String]) -> String {
    format!("[{}]", objects.join(","))
}

fn read(run: Run, snapshot: &Snapshot) -> String {
    String::from_utf8(read_bytes(run, snapshot)).expect("UTF-8")
}

fn read_bytes(mut run: Run, snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let remaining = run.remaining_bytes();
        let Some(piece) = run.next_piece(snapshot) else {
            assert_eq!(remaining, 0);
            return bytes;
        };
        assert!(!piece.is_empty());
        assert_eq!(run.remaining_bytes(), remaining - piece.len() as u64);
        bytes.extend_from_slice(piece);
    }
}

fn check_page(snapshot: &Snapshot, page: &Page, expected: &[String]) {
    let body = read(page.body, snapshot);
    assert_eq!(body, array(expected));
    assert_eq!(page.len, expected.len());
    assert_eq!(page.content_length, body.len() as u64);
}

/// Bytes of a chunk's JSON and slots.
fn weight(chunk: &Chunk) -> usize {
    Chunk::weight_of(chunk.len(), chunk.json().len())
}

/// What the chunks of `snapshot` weigh on average.
fn average_weight(snapshot: &Snapshot) -> usize {
    let chunks = snapshot.todos.check();
    chunks.iter().map(|chunk| weight(chunk)).sum::<usize>() / chunks.len()
}

/// Everything that can be seen of `snapshot`, and its structure, against the model.
fn check(snapshot: &Snapshot, model: &Model) {
    let list = model.list();
    let objects = json_objects(list.iter().copied());
    let chunks = snapshot.todos.check();
    let entries: Vec<IndexEntry> = snapshot.index.check().iter().flat_map(|leaf| tree::Leaf::items(*leaf)).collect();
    assert_eq!(entries.len(), list.len());
    assert!(entries.iter().all(|entry| IndexEntry::of(&model.0[&entry.place.id.into()], &snapshot.keys()) == *entry));
    for chunk in chunks {
        assert!(weight(chunk) <= 2 * CHUNK_TARGET_BYTES || tree::Leaf::items(chunk).count() == 1);
    }

    assert_eq!(snapshot.len(), list.len());
    check_page(snapshot, &snapshot.page(None, None), &objects);
    assert_eq!(snapshot.content_length(), snapshot.page(None, None).content_length);

    let fresh = model.snapshot(1);
    assert_eq!(snapshot.entity_tag(), fresh.entity_tag());
    for limit in [1, 2, 7, 64, 10_000] {
        let mut after = None;
        let mut shown = 0;
        loop {
            let page = snapshot.page(after, Some(limit));
            check_page(snapshot, &page, &objects[shown..list.len().min(shown + limit)]);
            assert_eq!(page.entity_tag, fresh.page(after, Some(limit)).entity_tag);
            shown += page.len;
            assert_eq!(page.next, (shown < list.len()).then(|| list[shown - 1].key()));
            after = page.next;
            // Short pages of the front are enough: a thousand pages of one todo show nothing new.
            if after.is_none() || shown > 20 * limit {
                break;
            }
        }
    }

    for (rank, todo) in list.iter().enumerate() {
        let entry = snapshot.get(todo.id).expect("in the list");
        assert_eq!(entry.json(), objects[rank].as_bytes());
        assert_eq!(read(entry.body(), snapshot).as_bytes(), entry.json());
        assert_eq!((entry.key(), entry.rank()), (todo.key(), rank));
        assert_eq!(entry.entity_tag(), fresh.get(todo.id).expect("in the list").entity_tag());
        assert_eq!(snapshot.is_owned_by(todo.id, &todo.user_id), Some(true));
        assert_eq!(snapshot.is_owned_by(todo.id, "nobody"), Some(false));
    }
}

/// Ids and times from small ranges, so that changes meet each other; bodies from nothing to several chunks.
fn any_todo() -> impl Strategy<Value = Todo> {
    let description = prop_oneof![6 => Just(0usize), 3 => 1000usize..8000, 1 => 30_000usize..40_000];
    (
        1u128..250,
        0i64..300,
        description,
        0u8..50,
        prop::sample::select(vec!["ann", "a\"b\\", "é😀\u{1}", "\",\"user_id\":\""]),
    )
        .prop_map(|(id, created_at, length, letter, user)| {
            // Mostly one time for each id, as in life; now and then another, which moves the todo.
            let created_at = if letter == 0 { created_at } else { (id as i64 * 37) % 100 };
            todo(id, created_at, char::from(b'A' + letter).to_string().repeat(length), user)
        })
}

fn any_changes() -> impl Strategy<Value = Changes> {
    let upserts = prop_oneof![prop::collection::vec(any_todo(), 0..4), prop::collection::vec(any_todo(), 0..150)];
    let deletes = prop_oneof![
        prop::collection::vec((1u128..250, 0i64..100), 0..4),
        prop::collection::vec((1u128..250, 0i64..100), 0..200),
    ];
    (upserts, deletes).prop_map(|(upserts, deletes)| {
        let key = |(id, micros)| TodoKey { created_at: Timestamp::from_micros(micros), id: TodoId::from_u128(id) };
        Changes { upserts, deletes: deletes.into_iter().map(key).collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_changes_equal_a_sorted_list(
        batches in prop::collection::vec(prop::collection::vec(any_changes(), 1..3), 1..6),
    ) {
        let mut model = Model::default();
        let mut snapshot = Snapshot::empty(HashKeys::new(&[1; 32]));
        let mut versions = Vec::new();
        for batch in &batches {
            let next = snapshot.apply(batch);
            batch.iter().for_each(|changes| model.apply(changes));
            prop_assert_eq!(next.version(), snapshot.version() + 1);
            check(&next, &model);

            let again = next.apply([batch.last().expect("at least one")]);
            prop_assert_eq!(again.entity_tag(), next.entity_tag());
            check(&again, &model);
            versions.push((next.clone(), array(&json_objects(model.list()))));
            snapshot = next;
        }
        for (snapshot, shown) in versions {
            prop_assert_eq!(read(snapshot.page(None, None).body, &snapshot), shown, "an old snapshot never changes");
        }
    }

    #[test]
    fn a_build_in_any_order_keeps_the_last_of_each_id(
        todos in prop::collection::vec(any_todo(), 0..400),
        sorted: bool,
        late_run_bytes in 1usize..300_000,
    ) {
        let mut todos = todos;
        if sorted {
            todos.sort_by_key(|todo| Reverse(todo.key()));
        }
        let mut model = Model::default();
        model.apply(&Changes { upserts: todos.clone(), deletes: Vec::new() });
        let mut builder = SnapshotBuilder::with_late_runs_of(late_run_bytes, HashKeys::new(&[1; 32]));
        todos.iter().for_each(|todo| builder.push(todo));
        let snapshot = builder.finish(7);
        prop_assert_eq!(snapshot.version(), 7);
        check(&snapshot, &model);
    }

    #[test]
    fn a_cursor_of_a_todo_that_is_gone_goes_on_at_the_next(
        todos in prop::collection::vec(any_todo(), 0..100),
        created_at in -1i64..320,
        id in 0u128..260,
    ) {
        let mut model = Model::default();
        model.apply(&Changes { upserts: todos, deletes: Vec::new() });
        let after = TodoKey { created_at: Timestamp::from_micros(created_at), id: TodoId::from_u128(id) };
        let list: Vec<&Todo> = model.list().into_iter().filter(|todo| todo.key() < after).collect();
        let rest = json_objects(list.iter().copied());
        let snapshot = model.snapshot(1);
        check_page(&snapshot, &snapshot.page(Some(after), None), &rest);
        let page = snapshot.page(Some(after), Some(3));
        check_page(&snapshot, &page, &rest[..rest.len().min(3)]);
        prop_assert_eq!(page.next, list.get(3).map(|_| list[2].key()));
    }

    #[test]
    fn a_run_goes_on_wherever_a_write_stopped(
        todos in prop::collection::vec(any_todo(), 0..60),
        steps in prop::collection::vec(1u64..30_000, 1..9),
    ) {
        let snapshot = build(&todos, 1);
        let mut bodies = vec![snapshot.page(None, None).body];
        bodies.extend(todos.first().and_then(|todo| snapshot.get(todo.id)).map(|entry| entry.body()));
        for body in bodies {
            let whole = read_bytes(body, &snapshot);
            let mut run = body;
            for step in steps.iter().copied().cycle() {
                let sent = whole.len() as u64 - run.remaining_bytes();
                // A write may stop within a character.
                prop_assert_eq!(read_bytes(run, &snapshot), &whole[sent as usize..]);
                if run.remaining_bytes() == 0 {
                    break;
                }
                run.advance(step);
                prop_assert_eq!(run.remaining_bytes(), (whole.len() as u64).saturating_sub(sent + step));
            }
            prop_assert_eq!(run.next_piece(&snapshot), None);
        }
    }

    #[test]
    fn reconciling_turns_the_snapshot_into_the_scan(
        todos in prop::collection::vec(any_todo(), 0..200),
        drift in any_changes(),
        newest_first: bool,
    ) {
        let mut model = Model::default();
        model.apply(&Changes { upserts: todos, deletes: Vec::new() });
        let snapshot = model.snapshot(1);
        let reconcile = |store: &Model| {
            let mut reconciler = Reconciler::new(&snapshot);
            if newest_first {
                store.list().into_iter().cloned().for_each(|todo| reconciler.push(todo));
            } else {
                store.0.values().cloned().for_each(|todo| reconciler.push(todo));
            }
            reconciler.finish()
        };
        prop_assert_eq!(reconcile(&model), Changes::default());

        let mut store = model.clone();
        store.apply(&drift);
        let found = reconcile(&store);
        let different = store.0.values().filter(|todo| model.0.get(&todo.id) != Some(todo)).count();
        prop_assert_eq!(found.upserts.len(), different);
        check(&snapshot.apply([&found]), &store);
    }
}

#[test]
fn an_empty_list_is_an_empty_array() {
    let snapshot = Snapshot::empty(HashKeys::new(&[1; 32]));
    check(&snapshot, &Model::default());
    assert_eq!(snapshot.content_length(), 2);
    assert_eq!(read(snapshot.page(None, Some(10)).body, &snapshot), "[]");
    assert!(snapshot.get(TodoId::from_u128(1)).is_none());
    assert!(snapshot.is_empty());
}

#[test]
fn entity_tags_tell_content_from_content() {
    let todos: Vec<Todo> = (1..=20).map(|id| todo(id, id as i64, String::new(), "ann")).collect();
    let snapshot = build(&todos, 1);
    let mut tags = vec![snapshot.entity_tag(), Snapshot::empty(HashKeys::new(&[1; 32])).entity_tag()];
    tags.extend((1..20).map(|limit| snapshot.page(None, Some(limit)).entity_tag));
    tags.extend(todos.iter().filter_map(|todo| snapshot.get(todo.id)).map(|entry| entry.entity_tag()));
    // The same ten todos, with and without a next page.
    tags.push(build(&todos[10..], 1).page(None, Some(10)).entity_tag);
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), count);
    assert_eq!(snapshot.page(None, Some(20)).entity_tag, snapshot.entity_tag());
}

#[test]
fn entity_tags_are_of_the_deployment_and_show_no_hash() {
    let todos: Vec<Todo> = (1..=20).map(|id| todo(id, id as i64, "d".repeat(id as usize), "ann")).collect();
    let of = |key: u8| {
        let keys = HashKeys::new(&[key; 32]);
        let mut builder = SnapshotBuilder::new(keys);
        todos.iter().for_each(|todo| builder.push(todo));
        let snapshot = builder.finish(1);
        let single = snapshot.get(todos[3].id).expect("in the list");
        let hash = keys.todo(single.json());
        assert_ne!(single.entity_tag(), hash, "the summand stays inside");
        assert_ne!(snapshot.page(None, Some(1)).entity_tag, hash);
        (snapshot.entity_tag(), snapshot.page(None, Some(5)).entity_tag, single.entity_tag())
    };
    assert_eq!(of(1), of(1), "two processes of a deployment");
    let (one, other) = (of(1), of(2));
    assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2, "two deployments");
    assert_ne!(
        Snapshot::empty(HashKeys::new(&[1; 32])).entity_tag(),
        Snapshot::empty(HashKeys::new(&[2; 32])).entity_tag()
    );
}

#[test]
fn a_change_copies_one_chunk_of_many() {
    let mut todos: Vec<Todo> = (1..=3000).map(|id| todo(id, id as i64, String::new(), "ann")).collect();
    let before = build(&todos, 1);
    todos[1234].completed = true;
    todos[1234].title = "changed".to_owned();
    let changes = Changes { upserts: vec![todos[1234].clone()], deletes: Vec::new() };
    let after = before.apply([&changes]);
    let same = |before: &Snapshot, after: &Snapshot| {
        let (before, after) = (before.todos.check(), after.todos.check());
        assert_eq!(before.len(), after.len());
        before.iter().zip(&after).filter(|(before, after)| Arc::ptr_eq(before.shared(), after.shared())).count()
    };
    let chunks = before.todos.check().len();
    assert!(chunks > 2 * crate::limits::LIST_BRANCH_TARGET_CHILDREN, "{chunks} chunks: more than one branch");
    assert_eq!(same(&before, &after), chunks - 1);
    assert_eq!(same(&after, &after.apply([&changes])), chunks, "what is there already copies nothing");
}

#[test]
fn a_batch_may_be_longer_than_what_is_prefetched_at_once() {
    let mut model = Model::default();
    let todos = (1..=3000).map(|id| todo(id, id as i64, String::new(), "ann"));
    model.apply(&Changes { upserts: todos.collect(), deletes: Vec::new() });
    let before = model.snapshot(1);
    let mut changes = Changes::default();
    for id in (1..=3000).step_by(10) {
        match id / 10 % 3 {
            0 => changes.deletes.push(todo(id, id as i64, String::new(), "ann").key()),
            1 => changes.upserts.push(todo(id, id as i64, "changed".to_owned(), "ann")),
            _ => changes.upserts.push(todo(id, 3001 - id as i64, "moved".to_owned(), "ben")),
        }
    }
    assert!(changes.len() > 4 * PREFETCH_KEYS_MAX);
    model.apply(&changes);
    let after = before.apply([&changes]);
    check(&after, &model);
    check(&after.apply([&changes]), &model);
}

#[test]
fn inserts_at_the_head_leave_full_chunks_behind() {
    let mut snapshot = Snapshot::empty(HashKeys::new(&[1; 32]));
    let mut model = Model::default();
    for id in 1..=1500 {
        let changes = Changes { upserts: vec![todo(id, id as i64, String::new(), "ann")], deletes: Vec::new() };
        snapshot = snapshot.apply([&changes]);
        model.apply(&changes);
    }
    check(&snapshot, &model);
    let average_bytes = average_weight(&snapshot);
    assert!(average_bytes >= CHUNK_TARGET_BYTES * 9 / 10, "{average_bytes} bytes a chunk");
}

#[test]
fn a_build_fills_chunks_up_to_their_target_and_not_beyond() {
    let todos: Vec<Todo> = (1..=1500).map(|id| todo(id, id as i64, "d".repeat(id as usize % 90), "ann")).collect();
    for newest_first in [true, false] {
        let mut todos = todos.clone();
        if newest_first {
            todos.reverse();
        }
        let snapshot = build(&todos, 1);
        assert!(snapshot.todos.check().iter().all(|chunk| weight(chunk) <= CHUNK_TARGET_BYTES), "{newest_first}");
        let average_bytes = average_weight(&snapshot);
        assert!(average_bytes >= CHUNK_TARGET_BYTES * 9 / 10, "{average_bytes} bytes a chunk");
    }
}

#[test]
fn snapshots_can_be_handed_to_other_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Snapshot>();
}
