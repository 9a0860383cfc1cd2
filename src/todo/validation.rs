//! What a todo may contain, and how a wrong one is named.

use std::borrow::Cow;
use std::fmt;

use crate::limits::{DESCRIPTION_MAX_CHARS, TITLE_MAX_CHARS, USER_ID_MAX_BYTES};

/// How long the texts of a request may be, in characters. What stands on the log is applied however long it is, up to
/// [`COMMAND_MAX_BYTES`](crate::limits::COMMAND_MAX_BYTES): it has been acknowledged, here or by another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLimits {
    /// Of a title.
    pub title_max_chars: usize,
    /// Of a description.
    pub description_max_chars: usize,
}

impl Default for TextLimits {
    fn default() -> TextLimits {
        TextLimits { title_max_chars: TITLE_MAX_CHARS, description_max_chars: DESCRIPTION_MAX_CHARS }
    }
}

/// What is wrong with a request body: which member, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyError {
    /// In an array of todos, the number of the wrong one, counted from 0.
    pub index: Option<usize>,
    /// The member, or `None` when the body as a whole is wrong.
    pub field: Option<&'static str>,
    /// What is wrong with it, to be read after the member's name.
    pub reason: Cow<'static, str>,
}

impl BodyError {
    pub(super) fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> BodyError {
        BodyError { index: None, field: Some(field), reason: reason.into() }
    }

    pub(super) fn whole(reason: impl Into<Cow<'static, str>>) -> BodyError {
        BodyError { index: None, field: None, reason: reason.into() }
    }

    /// The same of the todo with this number.
    pub(super) fn at(self, index: usize) -> BodyError {
        BodyError { index: Some(index), ..self }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "[{index}] ")?;
        }
        match self.field {
            Some(field) => write!(f, "{field} {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for BodyError {}

/// Checks the length of a request's text, in characters.
pub(super) fn check_length(field: &'static str, text: &str, max_chars: usize) -> Result<(), BodyError> {
    // A text is never longer in characters than in bytes, so most texts need no count.
    if text.len() > max_chars {
        let chars = text.chars().count();
        if chars > max_chars {
            return Err(BodyError::new(field, format!("has {chars} characters; at most {max_chars} are allowed")));
        }
    }
    Ok(())
}

/// Checks that a text can be stored.
pub(super) fn check_storable(field: &'static str, text: &str) -> Result<(), BodyError> {
    if text.as_bytes().contains(&0) {
        return Err(BodyError::new(field, "contains a NUL character (\\u0000), which cannot be stored"));
    }
    Ok(())
}

/// Checks the `sub` of a token.
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
