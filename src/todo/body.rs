//! Request bodies: the JSON of POST and PUT, checked.

use super::Todo;
use super::json::JsonParser;
use super::validation::{BodyError, TextLimits, check_storable, check_title};

/// The body of `POST /todos`, checked; texts borrow from the request's own bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct NewTodo<'a> {
    /// The title.
    pub title: &'a str,
    /// The description; absent and null are empty.
    pub description: &'a str,
    /// Whether it starts as done; absent and null are false.
    pub completed: bool,
}

impl<'a> NewTodo<'a> {
    /// Reads and checks a body, in place: strings are unescaped inside `body`.
    ///
    /// # Errors
    /// [`BodyError`] names the member and the reason.
    pub fn from_json(
        body: &'a mut [u8],
        limits: TextLimits,
        parser: &mut JsonParser,
    ) -> Result<NewTodo<'a>, BodyError> {
        let mut tape = parser.parse(body)?;
        let mut title = None;
        let mut description = None;
        let mut completed = None;
        tape.each(|name, value| match name {
            "title" => value.optional_string("title").map(|given| title = given),
            "description" => value.optional_string("description").map(|given| description = given),
            "completed" => value.optional_bool("completed").map(|given| completed = given),
            _ => Ok(()),
        })?;
        let title = title.ok_or_else(|| BodyError::new("title", "is required"))?;
        let description = description.unwrap_or_default();
        check_title(title)?;
        limits.check_title(title)?;
        check_storable("description", description)?;
        limits.check_description(description)?;
        Ok(NewTodo { title, description, completed: completed.unwrap_or_default() })
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
    /// Reads and checks a body, but for the lengths of its texts, in place: strings are unescaped inside `body`.
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
        patch.description.map_or(Ok(()), |text| check_storable("description", text))?;
        Ok(patch)
    }

    /// Checks the lengths of its texts. A text that the todo has already may be as long as it is: clients send back what they
    /// have read, and other programs may have made it longer than this API would. `todo` looks it up.
    ///
    /// # Errors
    /// [`BodyError`] names the member and its length.
    pub fn check_lengths(&self, limits: TextLimits, todo: impl Fn() -> Option<Todo>) -> Result<(), BodyError> {
        let title = self.title.map_or(Ok(()), |title| limits.check_title(title));
        title.or_else(|error| match todo() {
            Some(todo) if self.title == Some(&todo.title) => Ok(()),
            _ => Err(error),
        })?;
        let description = self.description.map_or(Ok(()), |description| limits.check_description(description));
        description.or_else(|error| match todo() {
            Some(todo) if self.description == Some(&todo.description) => Ok(()),
            _ => Err(error),
        })
    }
}
