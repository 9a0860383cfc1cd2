//! The resource: a todo, the commands that change it, their validation and their JSON. No I/O.
//!
//! This is the one room to change for another resource. JSON names and their order are those of the original system, so
//! that its workers and ours can read each other's topic.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use simd_json::{Buffers, Node, StaticNode, Tape};

use crate::limits::{DESCRIPTION_MAX_CHARS, JSON_MAX_DEPTH, TITLE_MAX_CHARS, USER_ID_MAX_BYTES};

/// The id of a todo: a UUID, written in lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TodoId(u128);

/// Length of a written [`TodoId`], in bytes.
pub const TODO_ID_TEXT_BYTES: usize = 36;

impl TodoId {
    /// A new id, UUIDv7 (RFC 9562 section 5.7): ids made later sort later, which keeps the store's index dense.
    pub fn new() -> TodoId {
        TodoId(uuid::Uuid::now_v7().as_u128())
    }

    /// The id with these 128 bits.
    pub const fn from_u128(bits: u128) -> TodoId {
        TodoId(bits)
    }

    /// The 128 bits of the id.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Writes the id as 36 bytes of text and returns them.
    pub fn write_text(self, buffer: &mut [u8; TODO_ID_TEXT_BYTES]) -> &str {
        uuid::Uuid::from_u128(self.0).hyphenated().encode_lower(buffer)
    }
}

impl Default for TodoId {
    fn default() -> Self {
        TodoId::new()
    }
}

/// Text that is no [`TodoId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
pub struct InvalidTodoId;

impl FromStr for TodoId {
    type Err = InvalidTodoId;

    /// Reads the hyphenated form, in either case; no other form of a UUID (braces, URN, no hyphens) is accepted, so
    /// that one todo has one URI.
    fn from_str(text: &str) -> Result<TodoId, InvalidTodoId> {
        if text.len() != TODO_ID_TEXT_BYTES {
            return Err(InvalidTodoId);
        }
        uuid::Uuid::try_parse(text).map(|id| TodoId(id.as_u128())).map_err(|_| InvalidTodoId)
    }
}

impl fmt::Display for TodoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_text(&mut [0; TODO_ID_TEXT_BYTES]))
    }
}

impl fmt::Debug for TodoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A moment, in microseconds since 1970-01-01T00:00:00Z: the resolution that PostgreSQL keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Length of a written [`Timestamp`], in bytes: `2026-01-31T23:59:59.123456Z`.
pub const TIMESTAMP_TEXT_BYTES: usize = 27;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

impl Timestamp {
    /// The earliest moment that can be written: 0000-01-01T00:00:00Z.
    pub const MIN: Timestamp = Timestamp(-62_167_219_200 * MICROS_PER_SECOND);
    /// The latest moment that can be written: 9999-12-31T23:59:59.999999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// The present moment, by the system's clock.
    pub fn now() -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    /// The moment `micros` microseconds after the epoch, held within [`Timestamp::MIN`] and [`Timestamp::MAX`].
    pub fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros.clamp(Timestamp::MIN.0, Timestamp::MAX.0))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Writes the moment in RFC 3339, UTC, always with six decimals, so that every todo has the same width and text
    /// sorts as time does.
    pub fn write_text(self, buffer: &mut [u8; TIMESTAMP_TEXT_BYTES]) -> &str {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        *buffer = *b"0000-00-00T00:00:00.000000Z";
        write_digits(&mut buffer[0..4], year);
        write_digits(&mut buffer[5..7], month);
        write_digits(&mut buffer[8..10], day);
        write_digits(&mut buffer[11..13], second_of_day / 3600);
        write_digits(&mut buffer[14..16], second_of_day / 60 % 60);
        write_digits(&mut buffer[17..19], second_of_day % 60);
        write_digits(&mut buffer[20..26], micros);
        std::str::from_utf8(buffer).expect("only ASCII digits and separators were written")
    }
}

fn write_digits(buffer: &mut [u8], mut number: i64) {
    for digit in buffer.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of the proleptic Gregorian calendar, `days` days after 1970-01-01.
///
/// Counts from 0000-03-01 in eras of 400 years (146,097 days), so that the leap day is the last of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Text that is no RFC 3339 moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 date and time")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 with any offset and up to nine decimals (Go writes nanoseconds); what is finer than a microsecond
    /// is cut off.
    fn from_str(text: &str) -> Result<Timestamp, InvalidTimestamp> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        Ok(Timestamp::from_micros(moment.as_microsecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_text(&mut [0; TIMESTAMP_TEXT_BYTES]))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
    /// 1 to [`TITLE_MAX_CHARS`] characters.
    pub title: String,
    /// 0 to [`DESCRIPTION_MAX_CHARS`] characters.
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

impl Todo {
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
        out.extend_from_slice(name);
        out.extend_from_slice(self.id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        out.push(b'"');
        let (title, description, completed) = match &self.action {
            Action::Create { title, description, completed } => (Some(title), Some(description), Some(*completed)),
            Action::Update { title, description, completed } => (title.as_ref(), description.as_ref(), *completed),
            Action::Delete => (None, None, None),
        };
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
    /// # Errors
    /// [`CommandError`] says why the record can never be applied; such a record is a dead letter.
    pub fn from_json(
        json: &mut [u8],
        logged_at: Timestamp,
        parser: &mut JsonParser,
    ) -> Result<Command<'static>, CommandError> {
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
        check_user_id(user_id).map_err(CommandError::Invalid)?;
        let action = match action.ok_or_else(|| missing("action"))? {
            "create" => {
                let title = fields.title.ok_or_else(|| missing("title"))?;
                let description = fields.description.unwrap_or_default();
                check_title(title).map_err(CommandError::Invalid)?;
                check_description(description).map_err(CommandError::Invalid)?;
                Action::Create {
                    title: Cow::Owned(title.to_owned()),
                    description: Cow::Owned(description.to_owned()),
                    completed: fields.completed.unwrap_or_default(),
                }
            }
            "update" => {
                let title = fields.title.filter(|title| !title.is_empty());
                title.map_or(Ok(()), check_title).map_err(CommandError::Invalid)?;
                fields.description.map_or(Ok(()), check_description).map_err(CommandError::Invalid)?;
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
                if let Some(title) = title {
                    title.as_ref().clone_into(&mut todo.title);
                }
                if let Some(description) = description {
                    description.as_ref().clone_into(&mut todo.description);
                }
                todo.completed = completed.unwrap_or(todo.completed);
                // Clocks of several API processes differ: a later command never makes a todo look older.
                todo.updated_at = todo.updated_at.max(self.requested_at);
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
    /// A member breaks its limit.
    #[error("{0}")]
    Invalid(BodyError),
    /// `action` is none of create, update, delete.
    #[error("unknown action {0:?}: expected create, update or delete")]
    UnknownAction(String),
}

/// What is wrong with a request body: which member, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyError {
    /// The member, or `None` when the body as a whole is wrong.
    pub field: Option<&'static str>,
    /// What is wrong with it, to be read after the member's name.
    pub reason: Cow<'static, str>,
}

impl BodyError {
    fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> BodyError {
        BodyError { field: Some(field), reason: reason.into() }
    }

    fn whole(reason: impl Into<Cow<'static, str>>) -> BodyError {
        BodyError { field: None, reason: reason.into() }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field} {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for BodyError {}

/// The body of `POST /todos`, checked; texts borrow from the request's own bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct NewTodo<'a> {
    /// The title.
    pub title: &'a str,
    /// The description; absent and null are empty.
    pub description: &'a str,
}

impl<'a> NewTodo<'a> {
    /// Reads and checks a body, in place: strings are unescaped inside `body`.
    ///
    /// # Errors
    /// [`BodyError`] names the member and the reason.
    pub fn from_json(body: &'a mut [u8], parser: &mut JsonParser) -> Result<NewTodo<'a>, BodyError> {
        let mut tape = parser.parse(body)?;
        let mut title = None;
        let mut description = None;
        tape.each(|name, value| match name {
            "title" => value.optional_string("title").map(|given| title = given),
            "description" => value.optional_string("description").map(|given| description = given),
            _ => Ok(()),
        })?;
        let title = title.ok_or_else(|| BodyError::new("title", "is required"))?;
        let description = description.unwrap_or_default();
        check_title(title)?;
        check_description(description)?;
        Ok(NewTodo { title, description })
    }
}

/// The body of `PUT /todos/:id`, checked; `None` keeps what the todo has.
#[derive(Debug, PartialEq, Eq)]
pub struct TodoPatch<'a> {
    /// The new title.
    pub title: Option<&'a str>,
    /// The new description; an empty one clears it.
    pub description: Option<&'a str>,
    /// Whether it is done.
    pub completed: Option<bool>,
}

impl<'a> TodoPatch<'a> {
    /// Reads and checks a body, in place: strings are unescaped inside `body`.
    ///
    /// # Errors
    /// [`BodyError`] names the member and the reason.
    pub fn from_json(body: &'a mut [u8], parser: &mut JsonParser) -> Result<TodoPatch<'a>, BodyError> {
        let mut tape = parser.parse(body)?;
        let mut patch = TodoPatch { title: None, description: None, completed: None };
        tape.each(|name, value| match name {
            "title" => value.optional_string("title").map(|given| patch.title = given),
            "description" => value.optional_string("description").map(|given| patch.description = given),
            "completed" => value.optional_bool("completed").map(|given| patch.completed = given),
            _ => Ok(()),
        })?;
        patch.title.map_or(Ok(()), check_title)?;
        patch.description.map_or(Ok(()), check_description)?;
        Ok(patch)
    }
}

fn check_title(title: &str) -> Result<(), BodyError> {
    if title.is_empty() {
        return Err(BodyError::new("title", "must not be empty"));
    }
    check_text("title", title, TITLE_MAX_CHARS)
}

fn check_description(description: &str) -> Result<(), BodyError> {
    check_text("description", description, DESCRIPTION_MAX_CHARS)
}

fn check_text(field: &'static str, text: &str, max_chars: usize) -> Result<(), BodyError> {
    // A text is never longer in characters than in bytes, so most texts need no count.
    if text.len() > max_chars {
        let chars = text.chars().count();
        if chars > max_chars {
            return Err(BodyError::new(field, format!("has {chars} characters; at most {max_chars} are allowed")));
        }
    }
    if text.bytes().any(|byte| byte == 0) {
        return Err(BodyError::new(field, "contains a NUL character (\\u0000), which cannot be stored"));
    }
    Ok(())
}

/// Checks the `sub` of a token or the `user_id` of a command.
///
/// # Errors
/// Empty, longer than [`USER_ID_MAX_BYTES`], or with a control character.
pub fn check_user_id(user_id: &str) -> Result<(), BodyError> {
    if user_id.is_empty() {
        return Err(BodyError::new("user_id", "must not be empty"));
    }
    if user_id.len() > USER_ID_MAX_BYTES {
        return Err(BodyError::new(
            "user_id",
            format!("has {} bytes; at most {USER_ID_MAX_BYTES} are allowed", user_id.len()),
        ));
    }
    if user_id.chars().any(char::is_control) {
        return Err(BodyError::new("user_id", "contains a control character"));
    }
    Ok(())
}

/// Appends `text` as a JSON string, escaping only what RFC 8259 section 7 requires.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// The reusable buffers of the JSON parser; one for each thread that parses.
pub struct JsonParser {
    buffers: Buffers,
    nodes: Vec<Node<'static>>,
}

impl Default for JsonParser {
    fn default() -> Self {
        JsonParser { buffers: Buffers::with_max_depth(1024, JSON_MAX_DEPTH), nodes: Vec::new() }
    }
}

impl JsonParser {
    /// Parses one JSON object, in place.
    fn parse<'p, 'a>(&'p mut self, json: &'a mut [u8]) -> Result<ObjectTape<'p, 'a>, BodyError> {
        if json.is_empty() {
            return Err(BodyError::whole("the body is empty; a JSON object is expected"));
        }
        if std::str::from_utf8(json).is_err() {
            return Err(BodyError::whole("the body is not valid UTF-8"));
        }
        let mut tape: Tape<'a> = Tape(std::mem::take(&mut self.nodes)).reset();
        let parsed = simd_json::fill_tape(json, &mut self.buffers, &mut tape);
        let object = ObjectTape { tape, home: &mut self.nodes };
        match parsed {
            Err(error) if matches!(error.error(), simd_json::ErrorType::DepthLimitExceeded) => {
                Err(BodyError::whole(format!("the body is nested deeper than {JSON_MAX_DEPTH} levels")))
            }
            Err(error) => Err(BodyError::whole(format!("the body is not valid JSON (near byte {})", error.index()))),
            Ok(()) if matches!(object.tape.0.first(), Some(Node::Object { .. })) => Ok(object),
            Ok(()) => Err(BodyError::whole("the body must be a JSON object")),
        }
    }
}

/// A parsed object; gives the node buffer back when dropped.
struct ObjectTape<'p, 'a> {
    tape: Tape<'a>,
    home: &'p mut Vec<Node<'static>>,
}

impl Drop for ObjectTape<'_, '_> {
    fn drop(&mut self) {
        *self.home = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset().0;
    }
}

impl<'a> ObjectTape<'_, 'a> {
    /// Calls `take` for each member of the object. A member that stands twice is an error: parsers disagree about which
    /// one counts (RFC 8259 section 4), so neither does.
    fn each(&mut self, mut take: impl FnMut(&'a str, JsonValue<'a>) -> Result<(), BodyError>) -> Result<(), BodyError> {
        const KNOWN: [&str; 9] = [
            "action",
            "id",
            "title",
            "description",
            "completed",
            "user_id",
            "requested_at",
            "created_at",
            "updated_at",
        ];
        let nodes = &self.tape.0;
        let Some(Node::Object { len, .. }) = nodes.first() else {
            return Err(BodyError::whole("the body must be a JSON object"));
        };
        let mut seen = [false; KNOWN.len()];
        let mut at = 1;
        for _ in 0..*len {
            let Node::String(name) = nodes[at] else {
                return Err(BodyError::whole("the body is not valid JSON"));
            };
            if let Some(known) = KNOWN.iter().position(|known| *known == name)
                && std::mem::replace(&mut seen[known], true)
            {
                return Err(BodyError::new(KNOWN[known], "is given twice"));
            }
            let value = nodes[at + 1];
            take(name, JsonValue(value))?;
            at += 2 + match value {
                Node::Object { count, .. } | Node::Array { count, .. } => count,
                Node::String(_) | Node::Static(_) => 0,
            };
        }
        Ok(())
    }
}

/// A member's value.
#[derive(Clone, Copy)]
struct JsonValue<'a>(Node<'a>);

impl<'a> JsonValue<'a> {
    fn string(self, field: &'static str) -> Result<&'a str, BodyError> {
        match self.0 {
            Node::String(text) => Ok(text),
            _ => Err(BodyError::new(field, "must be a string")),
        }
    }

    fn optional_string(self, field: &'static str) -> Result<Option<&'a str>, BodyError> {
        match self.0 {
            Node::Static(StaticNode::Null) => Ok(None),
            Node::String(text) => Ok(Some(text)),
            _ => Err(BodyError::new(field, "must be a string or null")),
        }
    }

    fn optional_bool(self, field: &'static str) -> Result<Option<bool>, BodyError> {
        match self.0 {
            Node::Static(StaticNode::Null) => Ok(None),
            Node::Static(StaticNode::Bool(value)) => Ok(Some(value)),
            _ => Err(BodyError::new(field, "must be true, false or null")),
        }
    }

    fn timestamp(self, field: &'static str) -> Result<Timestamp, BodyError> {
        self.string(field)?.parse().map_err(|_| BodyError::new(field, "must be an RFC 3339 date and time"))
    }
}

/// The members that a todo and a command share.
#[derive(Default)]
struct TodoFields<'a> {
    id: Option<TodoId>,
    title: Option<&'a str>,
    description: Option<&'a str>,
    completed: Option<bool>,
    user_id: Option<&'a str>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    requested_at: Option<Timestamp>,
}

impl<'a> TodoFields<'a> {
    fn take(&mut self, name: &str, value: JsonValue<'a>) -> Result<(), BodyError> {
        match name {
            "id" => {
                let id = value
                    .string("id")?
                    .parse()
                    .map_err(|error: InvalidTodoId| BodyError::new("id", format!("is {error}")))?;
                self.id = Some(id);
            }
            "title" => self.title = value.optional_string("title")?,
            "description" => self.description = value.optional_string("description")?,
            "completed" => self.completed = value.optional_bool("completed")?,
            "user_id" => self.user_id = value.optional_string("user_id")?,
            "created_at" => self.created_at = Some(value.timestamp("created_at")?),
            "updated_at" => self.updated_at = Some(value.timestamp("updated_at")?),
            "requested_at" => self.requested_at = Some(value.timestamp("requested_at")?),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new_todo(json: &str) -> Result<(String, String), String> {
        let mut body = json.as_bytes().to_vec();
        NewTodo::from_json(&mut body, &mut JsonParser::default())
            .map(|todo| (todo.title.to_owned(), todo.description.to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_is_read_or_refused_with_its_field() {
        assert_eq!(
            new_todo(r#"{"title":"a\u00e9\n","description":null,"x":[{"y":1}]}"#),
            Ok(("aé\n".into(), String::new()))
        );
        for (json, expected) in [
            ("", "the body is empty; a JSON object is expected"),
            ("{}", "title is required"),
            (r#"{"title":null}"#, "title is required"),
            (r#"{"title":""}"#, "title must not be empty"),
            (r#"{"title":7}"#, "title must be a string or null"),
            (r#"{"title":"a","title":"b"}"#, "title is given twice"),
            (r#"{"title":"a\u0000"}"#, "title contains a NUL character (\\u0000), which cannot be stored"),
            (r#"{"title":"a","description":[]}"#, "description must be a string or null"),
            ("[]", "the body must be a JSON object"),
            ("\"title\"", "the body must be a JSON object"),
        ] {
            assert_eq!(new_todo(json), Err(expected.to_owned()), "{json}");
        }
        for json in [
            r#"{"title":"a""#,
            r#"{"title":"a"} x"#,
            r#"{"title":"\ud800"}"#,
            "{\"title\":\"\u{1}\"}",
            "{title:1}",
            "\u{feff}{}",
        ] {
            let error = new_todo(json).expect_err(json);
            assert!(error.starts_with("the body is not valid JSON"), "{json}: {error}");
        }
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let title = |chars: usize| format!(r#"{{"title":"{}"}}"#, "é".repeat(chars));
        assert!(new_todo(&title(TITLE_MAX_CHARS)).is_ok());
        assert_eq!(
            new_todo(&title(TITLE_MAX_CHARS + 1)),
            Err("title has 501 characters; at most 500 are allowed".into())
        );
        let description = |chars: usize| format!(r#"{{"title":"t","description":"{}"}}"#, "x".repeat(chars));
        assert!(new_todo(&description(DESCRIPTION_MAX_CHARS)).is_ok());
        assert!(new_todo(&description(DESCRIPTION_MAX_CHARS + 1)).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_and_the_parser_goes_on() {
        let nested =
            |depth: usize| format!(r#"{{"title":"t","x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes();
        let mut parser = JsonParser::default();
        let error = NewTodo::from_json(&mut nested(20_000), &mut parser).expect_err("too deep").to_string();
        assert_eq!(error, "the body is nested deeper than 32 levels");
        assert!(NewTodo::from_json(&mut nested(JSON_MAX_DEPTH - 2), &mut parser).is_ok());
    }

    #[test]
    fn invalid_utf8_is_named() {
        let mut body = b"{\"title\":\"\xff\"}".to_vec();
        let error = NewTodo::from_json(&mut body, &mut JsonParser::default()).expect_err("invalid");
        assert_eq!(error.to_string(), "the body is not valid UTF-8");
    }

    #[test]
    fn a_patch_keeps_what_is_absent_or_null() {
        let mut body = br#"{"title":null,"description":"","completed":true}"#.to_vec();
        let patch = TodoPatch::from_json(&mut body, &mut JsonParser::default()).expect("valid");
        assert_eq!(patch, TodoPatch { title: None, description: Some(""), completed: Some(true) });
        for wrong in [r#"{"title":""}"#, r#"{"completed":1}"#, r#"{"completed":"true"}"#] {
            assert!(
                TodoPatch::from_json(&mut wrong.as_bytes().to_vec(), &mut JsonParser::default()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn commands_of_the_original_are_read() {
        let json = br#"{"action":"update","id":"0190163D-8694-739B-AEA5-966C26F8AD91","title":"","completed":true,"user_id":"u","requested_at":"2026-01-02T03:04:05.123456789+02:00"}"#;
        let command =
            Command::from_json(&mut json.to_vec(), Timestamp::default(), &mut JsonParser::default()).expect("valid");
        assert_eq!(command.action, Action::Update { title: None, description: None, completed: Some(true) });
        assert_eq!(command.requested_at.to_string(), "2026-01-02T01:04:05.123456Z");
        assert_eq!(command.id.to_string(), "0190163d-8694-739b-aea5-966c26f8ad91");
        for (wrong, reason) in [
            (
                r#"{"action":"drop","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u"}"#,
                "unknown action \"drop\": expected create, update or delete",
            ),
            (
                r#"{"action":"delete","id":"x","user_id":"u"}"#,
                "id is not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
            ),
            (r#"{"action":"delete","id":"0190163d-8694-739b-aea5-966c26f8ad91"}"#, "user_id is missing"),
            (
                r#"{"action":"create","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u","title":""}"#,
                "title must not be empty",
            ),
        ] {
            let error =
                Command::from_json(&mut wrong.as_bytes().to_vec(), Timestamp::default(), &mut JsonParser::default());
            assert_eq!(error.expect_err(wrong).to_string(), reason);
        }
    }

    #[test]
    fn another_users_command_changes_nothing() {
        let id = TodoId::new();
        let command = |user: &'static str, action| Command {
            id,
            user_id: user.into(),
            requested_at: Timestamp::from_micros(7),
            action,
        };
        let create = command("owner", Action::Create { title: "t".into(), description: "".into(), completed: false });
        let todo = create.apply(None);
        assert!(todo.is_some());
        let stranger = command("stranger", Action::Delete).apply(todo.clone());
        assert_eq!(stranger, todo);
        assert_eq!(create.apply(todo.clone()), todo, "a create of a todo that is there changes nothing");
        assert_eq!(command("owner", Action::Delete).apply(todo), None);
    }

    proptest! {
        #[test]
        fn timestamps_are_written_as_jiff_writes_them(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let text = Timestamp(micros).to_string();
            prop_assert_eq!(text.parse::<Timestamp>(), Ok(Timestamp(micros)), "{}", text);
            let expected = format!("{:.6}", jiff::Timestamp::from_microsecond(micros).expect("in range"));
            prop_assert_eq!(text, expected);
        }

        #[test]
        fn what_is_written_is_read_back(title in "\\PC{1,40}|[\\x01-\\x1f\"\\\\é😀]{1,20}", description in ".{0,40}", completed: bool, micros in 0i64..=Timestamp::MAX.0) {
            let description = description.replace('\0', "");
            let todo = Todo {
                id: TodoId::new(), title: title.clone(), description: description.clone(), completed,
                user_id: "usér \"1\"".into(), created_at: Timestamp(micros), updated_at: Timestamp(micros),
            };
            let mut json = Vec::new();
            todo.write_json(&mut json);
            let parsed: serde_json::Value = serde_json::from_slice(&json).expect("valid JSON");
            prop_assert_eq!(parsed["title"].as_str(), Some(title.as_str()));
            prop_assert_eq!(Todo::from_json(&mut json, &mut JsonParser::default()), Ok(todo));

            let command = Command {
                id: TodoId::new(), user_id: "u".into(), requested_at: Timestamp(micros),
                action: Action::Create { title: title.into(), description: description.into(), completed },
            };
            let mut json = Vec::new();
            command.write_json(&mut json);
            prop_assert_eq!(Command::from_json(&mut json, Timestamp::default(), &mut JsonParser::default()), Ok(command));
        }
    }
}
