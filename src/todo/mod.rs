//! The resource: a todo, the commands that change it, their validation and their JSON. No I/O.
//!
//! This is the one room to change for another resource. JSON names and their order are those of the original system, so
//! that its workers and ours can read each other's topic. What a request may bring is bounded by settings ([`TextLimits`]); what
//! stands on the log has been acknowledged, and is applied whoever wrote it.

mod body;
mod command;
mod id;
mod json;
mod json_fault;
#[cfg(test)]
mod tests;
mod timestamp;
mod validation;

pub use body::{NewTodo, TodoPatch};
pub use command::{Action, Command, CommandError};
pub use id::{IDEMPOTENCY, IdKey, InvalidTodoId, TODO_ID_TEXT_BYTES, TodoId};
pub use json::{JsonParser, write_json_string};
pub use timestamp::{InvalidTimestamp, TIMESTAMP_TEXT_BYTES, Timestamp};
pub use validation::{BodyError, TextLimits, check_user_id};

use json::TodoFields;

/// The place of a todo in the list: the list is sorted by this key, greatest (newest) first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TodoKey {
    /// When the todo was created.
    pub created_at: Timestamp,
    /// Decides between todos of the same microsecond.
    pub id: TodoId,
}

/// A todo, as stored and as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Todo {
    /// Its id, given by the API that accepted it.
    pub id: TodoId,
    /// Its title. Requests bring 1 to `TITLE_MAX_CHARS` characters; other programs any number.
    pub title: String,
    /// Its description. Requests bring 0 to `DESCRIPTION_MAX_CHARS` characters; other programs any number.
    pub description: String,
    /// Whether it is done.
    pub completed: bool,
    /// The `sub` of the token that created it; only that user may change it.
    pub user_id: String,
    /// `requested_at` of the command that created it.
    pub created_at: Timestamp,
    /// The latest `requested_at` of the commands that changed it.
    pub updated_at: Timestamp,
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
        out.extend_from_slice(b"\",\"title\":");
        write_json_string(out, &self.title);
        out.extend_from_slice(b",\"description\":");
        write_json_string(out, &self.description);
        out.extend_from_slice(if self.completed {
            b",\"completed\":true,\"user_id\":"
        } else {
            b",\"completed\":false,\"user_id\":"
        });
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
        tape.each(|name, value| fields.take(name, value)).map_err(CommandError::Malformed)?;
        let missing = |name| CommandError::Malformed(BodyError::new(name, "is missing"));
        Ok(Todo {
            id: fields.id.ok_or_else(|| missing("id"))?,
            title: fields.title.ok_or_else(|| missing("title"))?.to_owned(),
            description: fields.description.unwrap_or_default().to_owned(),
            completed: fields.completed.unwrap_or_default(),
            user_id: fields.user_id.ok_or_else(|| missing("user_id"))?.to_owned(),
            created_at: fields.created_at.ok_or_else(|| missing("created_at"))?,
            updated_at: fields.updated_at.ok_or_else(|| missing("updated_at"))?,
        })
    }
}
