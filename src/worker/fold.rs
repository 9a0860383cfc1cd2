//! The fold of a batch: what many commands in a row do to the rows that they touch. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::store::Changes;
use crate::todo::{Action, Command, Timestamp, Todo, TodoId, TodoKey};

/// A touched todo, before the batch and now.
struct Touched {
    id: TodoId,
    /// When the first of its commands was accepted.
    asked_at: Timestamp,
    before: Option<Todo>,
    now: Option<Todo>,
}

/// The todos that these commands touch: those whose rows decide what happens, and those that are new as far as the commands
/// tell, because they are created first and not deleted afterwards. Both sorted.
pub(super) fn ids<'c>(commands: impl IntoIterator<Item = &'c Command<'c>>) -> (Vec<TodoId>, Vec<TodoId>) {
    let mut is_new_by_id: HashMap<TodoId, bool> = HashMap::new();
    for command in commands {
        let is_create = matches!(command.action, Action::Create { .. });
        let is_new = is_new_by_id.entry(command.id).or_insert(is_create);
        *is_new &= !matches!(command.action, Action::Delete);
    }
    let (mut ids, mut new_ids) = (Vec::new(), Vec::new());
    for (id, is_new) in is_new_by_id {
        if is_new { new_ids.push(id) } else { ids.push(id) }
    }
    ids.sort_unstable();
    new_ids.sort_unstable();
    (ids, new_ids)
}

/// What a batch comes to.
#[derive(Debug, Default)]
pub struct Folded {
    /// What is different in the end: for the store, and for the lists.
    pub changes: Changes,
    /// What the batch left as it had found it: the rows that are there, and a delete for each todo that is not. The store
    /// has all that already. The lists may not: another program that reads the same log may have been first, and tells
    /// no feed of ours.
    pub found: Changes,
}

/// Applies `commands` in their order to the rows that exist, and says what is different in the end: one row for each
/// todo, however many commands it got, and none where nothing changed. The changes stand in the order in which their
/// todos were first touched.
pub fn fold<'c>(commands: impl IntoIterator<Item = &'c Command<'c>>, mut existing: HashMap<TodoId, Todo>) -> Folded {
    let mut touched: Vec<Touched> = Vec::new();
    let mut places: HashMap<TodoId, usize> = HashMap::new();
    for command in commands {
        let place = match places.entry(command.id) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(free) => {
                let before = existing.remove(&command.id);
                touched.push(Touched { id: command.id, asked_at: command.requested_at, now: before.clone(), before });
                *free.insert(touched.len() - 1)
            }
        };
        let todo = &mut touched[place].now;
        *todo = command.apply(todo.take());
    }
    let Folded { mut changes, mut found } = Folded::default();
    for Touched { id, asked_at, before, now } in touched {
        debug_assert!(now.as_ref().is_none_or(|todo| todo.id == id));
        if before == now {
            match now {
                Some(todo) => found.upserts.push(todo),
                // A list finds what is gone by its id; nobody knows any more where it stood.
                None => found.deletes.push(TodoKey { created_at: asked_at, id }),
            }
            continue;
        }
        let old_key = before.map(|todo| todo.key());
        let new_key = now.as_ref().map(Todo::key);
        // Deleted, or deleted and made again at another place of the list.
        changes.deletes.extend(old_key.filter(|key| new_key != Some(*key)));
        changes.upserts.extend(now);
    }
    Folded { changes, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Rows = BTreeMap<TodoId, Todo>;

    fn write(rows: &mut Rows, changes: &Changes) {
        for key in &changes.deletes {
            assert_eq!(rows.remove(&key.id).map(|todo| todo.key()), Some(*key), "only rows that exist are deleted");
        }
        for todo in &changes.upserts {
            assert_ne!(rows.get(&todo.id), Some(todo), "unchanged rows are no changes");
            rows.insert(todo.id, todo.clone());
        }
    }

    fn existing(rows: &Rows, commands: &[Command<'static>]) -> HashMap<TodoId, Todo> {
        commands.iter().filter_map(|command| rows.get(&command.id)).map(|todo| (todo.id, todo.clone())).collect()
    }

    fn one_by_one(rows: &mut Rows, commands: &[Command<'static>]) {
        for command in commands {
            if let Some(todo) = command.apply(rows.remove(&command.id)) {
                rows.insert(todo.id, todo);
            }
        }
    }

    fn any_command() -> impl Strategy<Value = Command<'static>> {
        let text = prop::sample::select(vec!["a", "b", "c"]);
        let action = prop_oneof![
            (text.clone(), text.clone(), any::<bool>()).prop_map(|(title, description, completed)| {
                Action::Create { title: title.into(), description: description.into(), completed }
            }),
            (prop::option::of(text.clone()), prop::option::of(text), prop::option::of(any::<bool>())).prop_map(
                |(title, description, completed)| Action::Update {
                    title: title.map(Into::into),
                    description: description.map(Into::into),
                    completed
                }
            ),
            Just(Action::Delete),
        ];
        (0u128..4, 0..4u8, 0i64..3, action).prop_map(|(id, user, micros, action)| Command {
            id: TodoId::from_u128(id),
            user_id: if user == 0 { "stranger" } else { "owner" }.into(),
            requested_at: Timestamp::from_micros(micros),
            action,
        })
    }

    proptest! {
        #[test]
        fn any_split_of_a_history_ends_where_its_commands_end(
            commands in prop::collection::vec(any_command(), 0..60),
            batch_sizes in prop::collection::vec(1usize..20, 60),
        ) {
            let mut expected = Rows::new();
            let mut rows = Rows::new();
            let mut rest = commands.as_slice();
            for size in batch_sizes {
                let (batch, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                one_by_one(&mut expected, batch);
                let before = rows.clone();
                let Folded { changes, found } = fold(batch, existing(&rows, batch));
                write(&mut rows, &changes);
                prop_assert_eq!(&rows, &expected);
                prop_assert_eq!(changes.is_empty(), before == rows);
                // Whoever takes in both knows each todo that the batch names.
                let touched: BTreeSet<TodoId> = batch.iter().map(|command| command.id).collect();
                let told = [&changes, &found].into_iter().flat_map(|part| {
                    let deleted = part.deletes.iter().map(|key| key.id);
                    part.upserts.iter().map(|todo| todo.id).chain(deleted)
                });
                prop_assert_eq!(told.collect::<BTreeSet<_>>(), touched);
                prop_assert!(found.upserts.iter().all(|todo| rows.get(&todo.id) == Some(todo)));
                prop_assert!(found.deletes.iter().all(|key| !rows.contains_key(&key.id)));
            }
        }
    }

    fn command(action: Action<'static>, micros: i64) -> Command<'static> {
        let requested_at = Timestamp::from_micros(micros);
        Command { id: TodoId::from_u128(1), user_id: "owner".into(), requested_at, action }
    }

    fn create(micros: i64) -> Command<'static> {
        command(Action::Create { title: "t".into(), description: "".into(), completed: false }, micros)
    }

    #[test]
    fn many_commands_of_one_todo_become_one_row() {
        let update = |title: &'static str, micros| {
            command(Action::Update { title: Some(title.into()), description: None, completed: None }, micros)
        };
        let Folded { changes, .. } = fold(&[create(1), update("u", 2), update("v", 3)], HashMap::new());
        assert_eq!(changes.deletes, []);
        assert_eq!(changes.upserts.len(), 1);
        assert_eq!((changes.upserts[0].title.as_str(), changes.upserts[0].updated_at.as_micros()), ("v", 3));
    }

    #[test]
    fn new_is_what_is_created_first_and_stays() {
        let of = |actions: &[Action<'static>]| {
            let commands: Vec<Command<'_>> = actions.iter().map(|action| command(action.clone(), 1)).collect();
            ids(&commands)
        };
        let (create, delete) = (create(1).action, Action::Delete);
        let update = Action::Update { title: None, description: None, completed: Some(true) };
        let one = vec![TodoId::from_u128(1)];
        assert_eq!(of(&[create.clone(), update.clone()]), (vec![], one.clone()));
        // Were it there already, the create would change nothing and the delete would remove it.
        assert_eq!(of(&[create.clone(), delete.clone(), create.clone()]), (one.clone(), vec![]));
        assert_eq!(of(&[update, create]), (one.clone(), vec![]));
        assert_eq!(of(&[delete]), (one, vec![]));
    }

    #[test]
    fn created_and_deleted_leaves_nothing() {
        let Folded { changes, found } = fold(&[create(1), command(Action::Delete, 2)], HashMap::new());
        assert!(changes.is_empty());
        // Another program may have made it and taken it away again, and a list been loaded in between.
        assert_eq!(found.deletes.iter().map(|key| key.id).collect::<Vec<_>>(), [TodoId::from_u128(1)]);
    }

    #[test]
    fn deleted_and_created_again_leaves_its_old_place() {
        let old = create(1).apply(None).expect("created");
        let rows = HashMap::from([(old.id, old.clone())]);
        let Folded { changes, .. } = fold(&[command(Action::Delete, 2), create(3)], rows);
        assert_eq!(changes.deletes, [old.key()]);
        assert_eq!(changes.upserts, [create(3).apply(None).expect("created")]);
    }
}
