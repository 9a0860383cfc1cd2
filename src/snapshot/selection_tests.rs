//! Selections against a plain sorted list.

use proptest::prelude::*;

use super::facets::FacetIndex;
use super::tests::{Model, array, build, json_objects, todo};
use super::tree::Leaf;
use super::*;
use crate::limits::GATHERED_PAGE_MAX_TODOS;
use crate::todo::Timestamp;

const USERS: [&str; 4] = ["ann", "bob", "é😀", "nobody"];

/// Ids and times from small ranges; few of the todos are done, and those of one user never.
fn any_todo() -> impl Strategy<Value = Todo> {
    (1u128..200, 0usize..3, 0u8..10, 0usize..600).prop_map(|(id, user, dice, length)| {
        let created_at = if dice == 0 { length as i64 } else { (id as i64 * 37) % 100 };
        let todo = todo(id, created_at, "x".repeat(length), USERS[user]);
        Todo { completed: user != 2 && dice < 3, ..todo }
    })
}

fn any_changes() -> impl Strategy<Value = Changes> {
    let upserts = prop_oneof![prop::collection::vec(any_todo(), 0..4), prop::collection::vec(any_todo(), 0..150)];
    let deletes = prop::collection::vec(1u128..200, 0..60);
    (upserts, deletes).prop_map(|(upserts, deletes)| {
        let key = |id| TodoKey { created_at: Timestamp::from_micros(0), id: TodoId::from_u128(id) };
        Changes { upserts, deletes: deletes.into_iter().map(key).collect() }
    })
}

fn read(mut run: SelectedRun, snapshot: &Snapshot, pieces_at_once: usize) -> String {
    let mut bytes = Vec::new();
    while run.remaining_bytes() > 0 {
        let (before, mut taken) = (run.remaining_bytes(), 0);
        let start = bytes.len();
        run.take_pieces(snapshot, |piece| {
            assert!(!piece.is_empty());
            bytes.extend_from_slice(piece);
            taken += 1;
            taken < pieces_at_once
        });
        assert_eq!(run.remaining_bytes(), before - (bytes.len() - start) as u64);
        assert!(taken > 0, "it goes on");
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn selections(snapshot: &Snapshot) -> Vec<(Selection, Option<&'static str>)> {
    let owners = std::iter::once(None).chain(USERS.into_iter().map(Some));
    let of_owner = |user: Option<&'static str>| {
        let owner = user.map(|user| snapshot.owner_number(user));
        [None, Some(false), Some(true)].map(|is_marked| (Selection { owner, is_marked }, user))
    };
    owners.flat_map(of_owner).collect()
}

/// All that can be seen of all selections, against the model.
fn check(snapshot: &Snapshot, model: &Model) {
    let list = model.list();
    check_places(snapshot);
    for (selection, user) in selections(snapshot) {
        let is_wanted = |todo: &&Todo| {
            user.is_none_or(|user| todo.user_id == user)
                && selection.is_marked.is_none_or(|mark| todo.completed == mark)
        };
        let todos: Vec<&Todo> = list.iter().copied().filter(is_wanted).collect();
        let objects = json_objects(todos.iter().copied());
        assert_eq!(snapshot.count(selection), todos.len(), "{selection:?} {user:?}");
        let whole = snapshot.selected_page(selection, None, None).page;
        assert_eq!(read(whole.body, snapshot, 3), array(&objects));
        assert_eq!((whole.len, whole.content_length), (todos.len(), array(&objects).len() as u64));
        assert_eq!(whole.next, None);
        // The same todos as a list of their own have the same tag: it is a function of the content.
        let alone = build(todos.iter().copied(), 1);
        assert_eq!(whole.entity_tag, alone.entity_tag());
        for limit in [1, 3, GATHERED_PAGE_MAX_TODOS, GATHERED_PAGE_MAX_TODOS + 1, 10_000] {
            let (mut after, mut shown) = (None, 0);
            loop {
                let SelectedPage { page, gathered } = snapshot.selected_page(selection, after, Some(limit));
                let expected = &objects[shown..todos.len().min(shown + limit)];
                assert_eq!(read(page.body, snapshot, 1), array(expected), "{selection:?} {limit} from {shown}");
                assert_eq!(page.entity_tag, alone.page(after, Some(limit)).entity_tag);
                assert_eq!(page.content_length, array(expected).len() as u64);
                assert_eq!(gathered.is_some(), limit <= GATHERED_PAGE_MAX_TODOS);
                if let Some(gathered) = gathered {
                    let bare = |json: &[u8]| String::from_utf8(json[..json.len() - 1].to_vec()).expect("UTF-8");
                    assert_eq!(gathered.into_iter().map(bare).collect::<Vec<_>>(), expected);
                }
                shown += page.len;
                assert_eq!(page.next, (shown < todos.len()).then(|| todos[shown - 1].key()));
                after = page.next;
                if after.is_none() || shown > 20 * limit {
                    break;
                }
            }
        }
    }
}

/// The index has each todo once, and in the tree that a build of the same list makes.
fn check_places(snapshot: &Snapshot) {
    let leaves = snapshot.index.check();
    let entries: Vec<IndexEntry> = leaves.iter().flat_map(|leaf| leaf.items()).collect();
    assert_eq!(snapshot.facets.check(), FacetIndex::new(&snapshot.todos, &entries).check());
    assert_eq!(snapshot.facets.check().len(), snapshot.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn selections_equal_a_filtered_list(
        batches in prop::collection::vec(prop::collection::vec(any_changes(), 1..3), 1..6),
    ) {
        let mut model = Model::default();
        let mut snapshot = Snapshot::empty(HashKeys::new(&[1; 32]));
        check(&snapshot, &model);
        let counts = |snapshot: &Snapshot| -> Vec<usize> {
            selections(snapshot).into_iter().map(|(selection, _)| snapshot.count(selection)).collect()
        };
        let mut versions = Vec::new();
        for batch in &batches {
            versions.push((snapshot.clone(), counts(&snapshot)));
            snapshot = snapshot.apply(batch);
            batch.iter().for_each(|changes| model.apply(changes));
            check(&snapshot, &model);
            check(&model.snapshot(1), &model);
        }
        for (old, counted) in versions {
            prop_assert_eq!(counts(&old), counted, "an old version never changes");
        }
        let todos: Vec<TodoKey> = model.list().iter().map(|todo| todo.key()).collect();
        let emptied = snapshot.apply([&Changes { upserts: Vec::new(), deletes: todos }]);
        check(&emptied, &Model::default());
    }

    #[test]
    fn a_cursor_of_a_todo_that_is_gone_goes_on_at_the_next(
        todos in prop::collection::vec(any_todo(), 0..100),
        created_at in -1i64..320,
        id in 0u128..220,
    ) {
        let mut model = Model::default();
        model.apply(&Changes { upserts: todos, deletes: Vec::new() });
        let after = TodoKey { created_at: Timestamp::from_micros(created_at), id: TodoId::from_u128(id) };
        let snapshot = model.snapshot(1);
        for (selection, user) in selections(&snapshot) {
            let rest = model.list().into_iter().filter(|todo| {
                todo.key() < after
                    && user.is_none_or(|user| todo.user_id == user)
                    && selection.is_marked.is_none_or(|mark| todo.completed == mark)
            });
            let rest = json_objects(rest);
            let page = snapshot.selected_page(selection, Some(after), None).page;
            prop_assert_eq!(read(page.body, &snapshot, 2), array(&rest));
            let page = snapshot.selected_page(selection, Some(after), Some(3)).page;
            prop_assert_eq!(read(page.body, &snapshot, 2), array(&rest[..rest.len().min(3)]));
        }
    }
}

#[test]
fn tags_of_selections_and_counts_change_with_them_and_with_nothing_else() {
    let todos: Vec<Todo> = (1..=30).map(|id| todo(id, id as i64, String::new(), USERS[id as usize % 2])).collect();
    let before = build(&todos, 1);
    let ann = Selection { owner: Some(before.owner_number("ann")), is_marked: None };
    let bob = Selection { owner: Some(before.owner_number("bob")), is_marked: None };
    let done = Selection { owner: None, is_marked: Some(true) };
    let changed = Todo { title: "changed".to_owned(), ..todos[10].clone() };
    assert_eq!((changed.user_id.as_str(), changed.completed), ("bob", false));
    let upserts = vec![changed];
    let after = before.apply([&Changes { upserts, deletes: Vec::new() }]);
    for (selection, is_changed) in [(ann, false), (bob, true), (done, false), (Selection::default(), true)] {
        assert_eq!(before.selection_tag(selection) != after.selection_tag(selection), is_changed, "{selection:?}");
        assert_eq!(before.count_entity_tag(selection), after.count_entity_tag(selection));
    }
    assert_ne!(before.count_entity_tag(done), before.count_entity_tag(ann));
}

#[test]
fn a_change_costs_what_it_changes() {
    let mut todos: Vec<Todo> =
        (1..=20_000).map(|id| todo(id, id as i64, String::new(), &format!("user {}", id % 200))).collect();
    let before = build(&todos, 1);
    // A title alone: the places stay as they are.
    todos[7_000].title = "changed".to_owned();
    let after = before.apply([&Changes { upserts: vec![todos[7_000].clone()], deletes: Vec::new() }]);
    let memory = |snapshot: &Snapshot| {
        let mut pieces = std::collections::BTreeSet::new();
        snapshot.facets.visit_memory(&mut |address, _| {
            pieces.insert(address);
        });
        pieces
    };
    let new_pieces = |before: &Snapshot, after: &Snapshot| memory(after).difference(&memory(before)).count();
    assert!(new_pieces(&before, &after) <= 4, "the sums of its owner, and the branches over them");
    todos[7_000].completed ^= true;
    let marked = after.apply([&Changes { upserts: vec![todos[7_000].clone()], deletes: Vec::new() }]);
    assert!((2..=10).contains(&new_pieces(&after, &marked)), "one leaf of places, too");
    assert_eq!(
        new_pieces(&marked, &marked.apply([&Changes { upserts: vec![todos[7_000].clone()], deletes: Vec::new() }])),
        0
    );
}
