//! The lists that a history's shard answers from, each beside what a plain list of texts would be.

use std::sync::{Arc, LazyLock};

use crate::snapshot::{HashKeys, Snapshot, SnapshotBuilder};
use crate::todo::{Timestamp, Todo, TodoId};

/// The user whose token the clients have.
pub const USER: &str = "alice";
/// Owns the other half of the todos.
const STRANGER: &str = "bob";
/// Todos of the longest list; its answers do not fit into a socket.
const LONG: usize = 400;

/// A list in both forms.
pub struct List {
    /// The form that is tested.
    pub snapshot: Arc<Snapshot>,
    /// Each todo: its id and its JSON, newest first.
    pub todos: Vec<(TodoId, String)>,
}

impl List {
    /// What an answer with `limit` todos has as its body.
    pub fn body(&self, limit: usize) -> String {
        let todos: Vec<&str> = self.todos.iter().take(limit).map(|(_, json)| json.as_str()).collect();
        format!("[{}]", todos.join(","))
    }

    /// The JSON of a todo.
    pub fn todo(&self, id: TodoId) -> Option<&str> {
        self.todos.iter().find(|(of, _)| *of == id).map(|(_, json)| json.as_str())
    }
}

/// The id of the todo of this number.
pub fn id(number: usize) -> TodoId {
    TodoId::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | number as u128)
}

/// Whether the clients' user owns it.
pub fn is_own(number: usize) -> bool {
    number.is_multiple_of(2)
}

fn todo(number: usize, version: usize) -> Todo {
    Todo {
        id: id(number),
        title: format!("todo {number}"),
        description: format!("of version {version}, and some words that make it as long as a todo is"),
        completed: version.is_multiple_of(2),
        user_id: if is_own(number) { USER } else { STRANGER }.to_owned(),
        created_at: Timestamp::from_micros(1_700_000_000_000_000 + number as i64),
        updated_at: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

fn text(todo: &Todo) -> (TodoId, String) {
    let Todo { id, title, description, completed, user_id, created_at, updated_at } = todo;
    let json = format!(
        "{{\"id\":\"{id}\",\"title\":\"{title}\",\"description\":\"{description}\",\"completed\":{completed},\
         \"user_id\":\"{user_id}\",\"created_at\":\"{created_at}\",\"updated_at\":\"{updated_at}\"}}"
    );
    (*id, json)
}

/// The same list of this length in some versions, each after a change of one todo.
fn versions(length: usize) -> Vec<List> {
    let mut todos: Vec<Todo> = (0..length).rev().map(|number| todo(number, 0)).collect();
    (0..4)
        .map(|version| {
            if version > 0 && length > 0 {
                let at = version * 7 % length;
                todos[at] = todo(length - 1 - at, version);
            }
            let mut builder = SnapshotBuilder::new(HashKeys::new(&[7; 32]));
            todos.iter().for_each(|todo| builder.push(todo));
            let snapshot = Arc::new(builder.finish(version as u64 + 1));
            List { snapshot, todos: todos.iter().map(text).collect() }
        })
        .collect()
}

/// By their length: the versions of a list.
pub static LISTS: LazyLock<Vec<Vec<List>>> = LazyLock::new(|| [0, 1, 30, LONG].map(versions).into());
