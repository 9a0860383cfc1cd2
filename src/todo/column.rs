//! A todo as a row: what stores know of its columns, without their names.

use super::{Timestamp, TodoId};

/// A column of the table of todos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name: the member's name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A [`TodoId`].
    Id,
    /// A text without NUL.
    Text,
    /// True or false.
    Flag,
    /// A [`Timestamp`].
    Time,
}

/// Takes the values of a todo one after the other, in the order of [`TODO_COLUMNS`](super::TODO_COLUMNS).
pub trait ColumnSink<'t> {
    /// The value of a column of [`ColumnKind::Id`].
    fn id(&mut self, id: TodoId);
    /// The value of a column of [`ColumnKind::Text`].
    fn text(&mut self, text: &'t str);
    /// The value of a column of [`ColumnKind::Flag`].
    fn flag(&mut self, flag: bool);
    /// The value of a column of [`ColumnKind::Time`].
    fn time(&mut self, time: Timestamp);
}

/// Gives the values of a todo one after the other, in the order of [`TODO_COLUMNS`](super::TODO_COLUMNS).
pub trait ColumnSource {
    /// Why a value cannot be had.
    type Error;

    /// The value of a column of [`ColumnKind::Id`].
    ///
    /// # Errors
    /// The column holds something else, or nothing.
    fn id(&mut self) -> Result<TodoId, Self::Error>;
    /// The value of a column of [`ColumnKind::Text`].
    ///
    /// # Errors
    /// As for an id.
    fn text(&mut self) -> Result<String, Self::Error>;
    /// The value of a column of [`ColumnKind::Flag`].
    ///
    /// # Errors
    /// As for an id.
    fn flag(&mut self) -> Result<bool, Self::Error>;
    /// The value of a column of [`ColumnKind::Time`].
    ///
    /// # Errors
    /// As for an id.
    fn time(&mut self) -> Result<Timestamp, Self::Error>;
}
