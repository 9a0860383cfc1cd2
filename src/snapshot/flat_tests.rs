//! Flat lists against the same lists in chunks.

use super::tests::{Model, build, todo};
use super::*;
use crate::limits::{CHUNK_TARGET_BYTES, FLAT_LIST_PIECE_BYTES};

/// One and a half times the usual length, and the rest of the chunk in which that ends.
const PIECE_MAX_BYTES: usize = FLAT_LIST_PIECE_BYTES * 3 / 2 + 2 * CHUNK_TARGET_BYTES;

fn bytes_of(mut run: Run, snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    run.take_pieces(snapshot, |piece| {
        assert!(!piece.is_empty() && piece.len() <= PIECE_MAX_BYTES);
        bytes.extend_from_slice(piece);
        true
    });
    assert_eq!(run.remaining_bytes(), 0);
    bytes
}

#[test]
fn a_flat_list_has_the_same_bytes_in_fewer_pieces() {
    let todos: Vec<Todo> = (1..=4000).map(|id| todo(id, id as i64, "d".repeat(id as usize % 90), "ann")).collect();
    let (chunked, flat) = (build(&todos, 1), build(&todos, 1));
    flat.flatten();
    flat.flatten();
    let whole = flat.page(None, None);
    assert!(whole.content_length > 2 * FLAT_LIST_PIECE_BYTES as u64);
    for after in [None, Some(todos[3998].key()), Some(todos[2000].key()), Some(todos[0].key())] {
        for limit in [None, Some(1), Some(10), Some(1500)] {
            let page = flat.page(after, limit);
            assert_eq!(page, chunked.page(after, limit));
            assert!(bytes_of(page.body, &flat) == bytes_of(page.body, &chunked), "{after:?}, {limit:?}");
        }
    }
    let pieces = |snapshot| {
        let mut run = whole.body;
        std::iter::from_fn(|| run.next_piece(snapshot)).count()
    };
    let large = whole.content_length as f64 / FLAT_LIST_PIECE_BYTES as f64;
    assert_eq!(pieces(&flat), 2 + large.round() as usize);
    assert!(pieces(&chunked) > 10 * pieces(&flat));

    // A run goes on where it was when the list becomes flat meanwhile, and an empty list stays empty.
    let late = build(&todos, 1);
    let mut run = whole.body;
    let mut bytes = Vec::new();
    for _ in 0..5 {
        bytes.extend_from_slice(run.next_piece(&late).expect("there are more"));
    }
    late.flatten();
    bytes.extend(bytes_of(run, &late));
    assert!(bytes == bytes_of(whole.body, &chunked));
    let empty = Snapshot::empty(HashKeys::new(&[1; 32]));
    empty.flatten();
    assert_eq!(bytes_of(empty.page(None, None).body, &empty), b"[]");
    assert_eq!(whole.body.clone().next_piece(&empty), Some(&b"["[..]), "another list's run panics nowhere");
    let mut foreign = whole.body;
    while foreign.next_piece(&empty).is_some() {}
}

#[test]
fn a_flat_list_shares_what_has_not_changed_with_the_one_before() {
    let mut model = Model::default();
    let mut chance = 7_u64;
    let mut random = |below: usize| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (chance >> 33) as usize % below
    };
    let change = |model: &mut Model, snapshot: &Snapshot, todos: &[Todo], deletes: &[Todo]| {
        let deletes = deletes.iter().map(Todo::key).collect();
        let changes = Changes { upserts: todos.to_vec(), deletes };
        model.apply(&changes);
        snapshot.apply([&changes])
    };
    let first: Vec<Todo> = (1..=8000).map(|id| todo(id, id as i64, "d".repeat(id as usize % 90), "ann")).collect();
    let mut snapshot = change(&mut model, &Snapshot::empty(HashKeys::new(&[1; 32])), &first, &[]);
    assert!(!snapshot.was_flat());
    snapshot.flatten();

    // One changed todo costs one piece.
    let mut one = first[3000].clone();
    one.title = "another".to_owned();
    let next = change(&mut model, &snapshot, &[one], &[]);
    assert!(next.was_flat() && next.flat.get().is_none());
    next.flatten();
    let (before, after) = (snapshot.flat.get().expect("flat"), next.flat.get().expect("flat"));
    assert_eq!(after.piece_lengths().len(), before.piece_lengths().len());
    assert_eq!(after.shared_pieces(before), before.piece_lengths().len() - 1);

    // However it grows and shrinks, it has the right bytes, and no crumbs and no lumps.
    snapshot = next;
    for step in 0..60 {
        let list: Vec<Todo> = model.list().into_iter().cloned().collect();
        let at = random(list.len());
        let (upserts, deletes): (Vec<Todo>, Vec<Todo>) = match step % 3 {
            0 => {
                let id = 10_000 * (step + 1);
                let newer = |at: u128| todo(id + at, (id + at) as i64, "n".repeat(random(200)), "bob");
                ((0..1 + step % 700).map(newer).collect(), Vec::new())
            }
            1 => (Vec::new(), list[at..list.len().min(at + random(900))].to_vec()),
            _ => {
                let mut changed = list[at].clone();
                changed.description = "c".repeat(random(500));
                (vec![changed], Vec::new())
            }
        };
        let next = change(&mut model, &snapshot, &upserts, &deletes);
        next.flatten();
        let fresh = model.snapshot(1);
        assert!(bytes_of(next.page(None, None).body, &next) == bytes_of(fresh.page(None, None).body, &fresh), "{step}");
        let flat = next.flat.get().expect("flat");
        let lengths = flat.piece_lengths();
        let fits = |length: &usize| (FLAT_LIST_PIECE_BYTES / 4..=PIECE_MAX_BYTES).contains(length);
        // The last piece has nobody behind it to join.
        assert!(lengths[..lengths.len() - 1].iter().all(fits), "{step}: {lengths:?}");
        snapshot = next;
    }

    // What nobody wants any more is given up.
    for _ in 0..FLAT_LIST_KEPT_VERSIONS {
        assert!(snapshot.flat.get().is_some() || snapshot.was_flat());
        snapshot = snapshot.apply([&Changes::default()]);
    }
    assert!(snapshot.was_flat() && !snapshot.apply([&Changes::default()]).was_flat());
}

#[test]
fn a_list_that_is_too_long_stays_in_chunks() {
    let todos = |count| (1..=count).map(|id| todo(id, id as i64, "d".repeat(2000), "ann")).collect::<Vec<Todo>>();
    let (short, long) = (build(&todos(1000), 1), build(&todos(2000), 1));
    assert!(long.content_length() > FLAT_LIST_MAX_BYTES && short.content_length() < FLAT_LIST_MAX_BYTES);
    short.flatten();
    long.flatten();
    assert!(short.flat.get().is_some() && long.flat.get().is_none());
}
