//! Commands: what may be done to a todo, what it means, and its JSON on the log.

use std::borrow::Cow;

use super::columns::{Action, MEMBER_NAMES, TodoFields};
use super::error::CommandError;
use super::json::{JsonParser, write_json_string};
use super::validation::{BodyError, check_storable};
use super::{TIMESTAMP_TEXT_BYTES, TODO_ID_TEXT_BYTES, Timestamp, Todo, TodoId};
use crate::limits::COMMAND_MAX_BYTES;

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
    /// `action, id`, the members that clients set, `user_id, requested_at`; absent members mean "keep".
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let name: &[u8] = match self.action {
            Action::Create { .. } => b"{\"action\":\"create\",\"id\":\"",
            Action::Update { .. } => b"{\"action\":\"update\",\"id\":\"",
            Action::Delete => b"{\"action\":\"delete\",\"id\":\"",
        };
        out.reserve(ENVELOPE_BYTES + self.action.text_bytes() + self.user_id.len());
        out.extend_from_slice(name);
        out.extend_from_slice(self.id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        out.push(b'"');
        self.action.write_members(out);
        out.extend_from_slice(b",\"user_id\":");
        write_json_string(out, &self.user_id);
        out.extend_from_slice(b",\"requested_at\":\"");
        out.extend_from_slice(self.requested_at.write_text(&mut [0; TIMESTAMP_TEXT_BYTES]).as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Reads a command from the log. `logged_at` is the log's own time of the record: it stands in for a missing
    /// `requested_at`. As the original writes no empty members, an empty title in an update means "keep".
    ///
    /// `unknown` is told the name of each member that means nothing here: what a later version or another program says by it is not
    /// applied.
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
        mut unknown: impl FnMut(&str),
    ) -> Result<Command<'static>, CommandError> {
        if json.len() > COMMAND_MAX_BYTES {
            return Err(CommandError::TooLarge(json.len()));
        }
        let mut tape = parser.parse(json).map_err(CommandError::Malformed)?;
        let mut action = None;
        let mut fields = TodoFields::default();
        tape.each(MEMBER_NAMES, |name, value| match name {
            "action" => value.string("action").map(|name| action = Some(name)),
            _ if MEMBER_NAMES.contains(&name) => fields.take(name, value),
            _ => {
                unknown(name);
                Ok(())
            }
        })
        .map_err(CommandError::Malformed)?;
        let missing = |name| CommandError::Malformed(BodyError::new(name, "is missing"));
        let id = fields.id.ok_or_else(|| missing("id"))?;
        let user_id = fields.user_id.ok_or_else(|| missing("user_id"))?;
        check_storable("user_id", user_id).map_err(CommandError::Invalid)?;
        let action = match action.ok_or_else(|| missing("action"))? {
            "create" => fields.create()?,
            "update" => fields.update()?,
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
            (Action::Create { .. }, None) => self.action.made(self.id, &self.user_id, self.requested_at),
            (Action::Update { .. }, Some(mut todo)) if todo.user_id == self.user_id => {
                let differs = self.action.change(&mut todo);
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
