//! The resource: a todo, the commands that change it, their validation and their JSON. No I/O.
//!
//! This is the one room to change for another resource: its members stand in one table (`columns.rs`). JSON names and their order are those of the original system, so
//! that its workers and ours can read each other's topic. What a request may bring is bounded by settings ([`TextLimits`]); what
//! stands on the log has been acknowledged, and is applied whoever wrote it.

mod column;
mod columns;
mod command;
mod error;
mod id;
mod json;
mod json_fault;
mod member;
mod resource;
#[cfg(test)]
mod tests;
mod timestamp;
mod validation;

pub use column::{Column, ColumnKind, ColumnSink, ColumnSource};
pub use columns::{Action, NewTodo, TODO_COLUMNS, Todo, TodoPatch};
pub use command::Command;
pub use error::CommandError;
pub use id::{IDEMPOTENCY, IdKey, InvalidTodoId, TODO_ID_TEXT_BYTES, TodoId};
pub use json::{JsonParser, is_array, write_json_string};
pub use timestamp::{InvalidTimestamp, TIMESTAMP_TEXT_BYTES, Timestamp};
pub use validation::{BodyError, TextLimits, check_user_id};

use columns::{MEMBER_NAMES, TodoFields};

/// The place of a todo in the list: the list is sorted by this key, greatest (newest) first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TodoKey {
    /// When the todo was created.
    pub created_at: Timestamp,
    /// Decides between todos of the same microsecond.
    pub id: TodoId,
}

/// What lists are asked for by, beside the place of a todo: the rooms below know it by this and by no member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facets<'t> {
    /// Whose it is: `user_id`.
    pub owner: &'t str,
    /// Whether it is marked: `completed`.
    pub is_marked: bool,
}

impl Todo {
    /// What lists ask for it by.
    pub fn facets(&self) -> Facets<'_> {
        Facets { owner: &self.user_id, is_marked: self.completed }
    }

    /// The place of this todo in the list.
    pub fn key(&self) -> TodoKey {
        TodoKey { created_at: self.created_at, id: self.id }
    }

    /// Appends the todo as one JSON object, members in the original's order. The bytes are a function of the todo
    /// alone: every process writes the same.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(self.id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        out.push(b'"');
        self.write_members(out);
        out.extend_from_slice(b",\"user_id\":");
        write_json_string(out, &self.user_id);
        out.extend_from_slice(b",\"created_at\":\"");
        out.extend_from_slice(self.created_at.write_text(&mut [0; TIMESTAMP_TEXT_BYTES]).as_bytes());
        out.extend_from_slice(b"\",\"updated_at\":\"");
        out.extend_from_slice(self.updated_at.write_text(&mut [0; TIMESTAMP_TEXT_BYTES]).as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Reads back what [`Todo::write_json`] wrote. Member order and unknown members do not matter.
    ///
    /// # Errors
    /// [`CommandError`] when `json` is no such object.
    pub fn from_json(json: &mut [u8], parser: &mut JsonParser) -> Result<Todo, CommandError> {
        let mut tape = parser.parse(json).map_err(CommandError::Malformed)?;
        let mut fields = TodoFields::default();
        tape.each(MEMBER_NAMES, |name, value| fields.take(name, value)).map_err(CommandError::Malformed)?;
        fields.into_todo().map_err(CommandError::Malformed)
    }
}
