//! Commands: what may be done to a todo, what it means, and its JSON on the log.

use std::borrow::Cow;

use super::json::{JsonParser, TodoFields, write_json_string};
use super::validation::{BodyError, check_storable};
use super::{TIMESTAMP_TEXT_BYTES, TODO_ID_TEXT_BYTES, Timestamp, Todo, TodoId};
use crate::limits::COMMAND_MAX_BYTES;

/// What a command does to its todo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// Makes the todo, unless it is there.
    Create {
        /// Its title.
        title: Cow<'a, str>,
        /// Its description.
        description: Cow<'a, str>,
        /// Whether it starts as done.
        completed: bool,
    },
    /// Changes the members that are given, of a todo that is there and belongs to the user.
    Update {
        /// The new title; `None` keeps it.
        title: Option<Cow<'a, str>>,
        /// The new description; `None` keeps it, an empty one clears it.
        description: Option<Cow<'a, str>>,
        /// Whether it is done; `None` keeps it.
        completed: Option<bool>,
    },
    /// Removes a todo that belongs to the user.
    Delete,
}

/// Bytes of a command's JSON besides its texts, at most: what is reserved for it at once.
const ENVELOPE_BYTES: usize = 192;

/// An intent to change one todo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'a> {
    /// The todo that it changes.
    pub id: TodoId,
    /// The user who asked for it.
    pub user_id: Cow<'a, str>,
    /// When the API accepted it.
    pub requested_at: Timestamp,
    /// What to do.
    pub action: Action<'a>,
}

impl Command<'_> {
    /// Appends the command as one JSON object, as it stands on the command log:
    /// `action, id, title, description, completed, user_id, requested_at`; absent members mean "keep".
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let name: &[u8] = match self.action {
            Action::Create { .. } => b"{\"action\":\"create\",\"id\":\"",
            Action::Update { .. } => b"{\"action\":\"update\",\"id\":\"",
            Action::Delete => b"{\"action\":\"delete\",\"id\":\"",
        };
        let (title, description, completed) = match &self.action {
            Action::Create { title, description, completed } => (Some(title), Some(description), Some(*completed)),
            Action::Update { title, description, completed } => (title.as_ref(), description.as_ref(), *completed),
            Action::Delete => (None, None, None),
        };
        let texts_bytes = [title, description].iter().flatten().map(|text| text.len()).sum::<usize>();
        out.reserve(ENVELOPE_BYTES + texts_bytes + self.user_id.len());
        out.extend_from_slice(name);
        out.extend_from_slice(self.id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        out.push(b'"');
        if let Some(title) = title {
            out.extend_from_slice(b",\"title\":");
            write_json_string(out, title);
        }
        if let Some(description) = description {
            out.extend_from_slice(b",\"description\":");
            write_json_string(out, description);
        }
        if let Some(completed) = completed {
            out.extend_from_slice(if completed { b",\"completed\":true" } else { b",\"completed\":false" });
        }
        out.extend_from_slice(b",\"user_id\":");
        write_json_string(out, &self.user_id);
        out.extend_from_slice(b",\"requested_at\":\"");
        out.extend_from_slice(self.requested_at.write_text(&mut [0; TIMESTAMP_TEXT_BYTES]).as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Reads a command from the log. `logged_at` is the log's own time of the record: it stands in for a missing
    /// `requested_at`. As the original writes no empty members, an empty title in an update means "keep".
    ///
    /// The limits of requests do not hold here: what is on the log has been acknowledged, by this API or another program.
    /// Only what no store can keep is refused.
    ///
    /// # Errors
    /// [`CommandError`] says why the record can never be applied; such a record is a dead letter.
    pub fn from_json(
        json: &mut [u8],
        logged_at: Timestamp,
        parser: &mut JsonParser,
    ) -> Result<Command<'static>, CommandError> {
        if json.len() > COMMAND_MAX_BYTES {
            return Err(CommandError::TooLarge(json.len()));
        }
        let mut tape = parser.parse(json).map_err(CommandError::Malformed)?;
        let mut action = None;
        let mut fields = TodoFields::default();
        tape.each(|name, value| match name {
            "action" => value.string("action").map(|name| action = Some(name)),
            _ => fields.take(name, value),
        })
        .map_err(CommandError::Malformed)?;
        let missing = |name| CommandError::Malformed(BodyError::new(name, "is missing"));
        let id = fields.id.ok_or_else(|| missing("id"))?;
        let user_id = fields.user_id.ok_or_else(|| missing("user_id"))?;
        let storable = |field, text| check_storable(field, text).map_err(CommandError::Invalid);
        storable("user_id", user_id)?;
        let action = match action.ok_or_else(|| missing("action"))? {
            "create" => {
                let title = fields.title.ok_or_else(|| missing("title"))?;
                let description = fields.description.unwrap_or_default();
                storable("title", title)?;
                storable("description", description)?;
                Action::Create {
                    title: Cow::Owned(title.to_owned()),
                    description: Cow::Owned(description.to_owned()),
                    completed: fields.completed.unwrap_or_default(),
                }
            }
            "update" => {
                let title = fields.title.filter(|title| !title.is_empty());
                title.map_or(Ok(()), |text| storable("title", text))?;
                fields.description.map_or(Ok(()), |text| storable("description", text))?;
                Action::Update {
                    title: title.map(|title| Cow::Owned(title.to_owned())),
                    description: fields.description.map(|description| Cow::Owned(description.to_owned())),
                    completed: fields.completed,
                }
            }
            "delete" => Action::Delete,
            other => return Err(CommandError::UnknownAction(other.chars().take(32).collect())),
        };
        Ok(Command {
            id,
            user_id: Cow::Owned(user_id.to_owned()),
            requested_at: fields.requested_at.unwrap_or(logged_at),
            action,
        })
    }

    /// What becomes of the todo when this command is applied to it: the whole meaning of a command. Applying a command
    /// of another user, an update or delete of a todo that is not there, or a create of one that is, changes nothing.
    pub fn apply(&self, prior: Option<Todo>) -> Option<Todo> {
        match (&self.action, prior) {
            (Action::Create { title, description, completed }, None) => Some(Todo {
                id: self.id,
                title: title.clone().into_owned(),
                description: description.clone().into_owned(),
                completed: *completed,
                user_id: self.user_id.clone().into_owned(),
                created_at: self.requested_at,
                updated_at: self.requested_at,
            }),
            (Action::Update { title, description, completed }, Some(mut todo)) if todo.user_id == self.user_id => {
                let mut differs = false;
                if let Some(title) = title {
                    differs |= *title != todo.title;
                    title.as_ref().clone_into(&mut todo.title);
                }
                if let Some(description) = description {
                    differs |= *description != todo.description;
                    description.as_ref().clone_into(&mut todo.description);
                }
                let completed = completed.unwrap_or(todo.completed);
                differs |= completed != todo.completed;
                todo.completed = completed;
                // Clocks of several API processes differ, and clocks are set back: a later command never makes a todo look older,
                // and one that changes it never makes it what it was before, with the entity tag that it had then.
                let earliest = todo.updated_at.as_micros().saturating_add(i64::from(differs));
                todo.updated_at = Timestamp::from_micros(earliest).max(self.requested_at);
                Some(todo)
            }
            (Action::Delete, Some(todo)) if todo.user_id == self.user_id => None,
            (_, prior) => prior,
        }
    }
}

/// Why a record of the command log can never be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not the JSON of a command.
    #[error("{0}")]
    Malformed(BodyError),
    /// A member cannot be stored.
    #[error("{0}")]
    Invalid(BodyError),
    /// Longer than [`COMMAND_MAX_BYTES`].
    #[error("the command has {0} bytes; at most {COMMAND_MAX_BYTES} are applied")]
    TooLarge(usize),
    /// `action` is none of create, update, delete.
    #[error("unknown action {0:?}: expected create, update or delete")]
    UnknownAction(String),
}
