//! The one table of what a todo holds beside its id, its user and its times. A line is a member that clients set: its name in
//! JSON and in the tables of the stores, its kind, and for a text the limit of [`TextLimits`] that requests keep to. Types, JSON, the
//! commands and what they do, and the columns of both stores are made of it (`resource.rs`); what is left to write by hand is the
//! schemas. `docs/adding-a-field.md` adds a line.

use super::member::{Flag, RequiredText, Text};
use super::resource::resource;

resource! {
    /// The title. Requests bring 1 to `TITLE_MAX_CHARS` characters; other programs any number.
    title: RequiredText, at most title_max_chars;
    /// The description. Requests bring 0 to `DESCRIPTION_MAX_CHARS` characters; other programs any number.
    description: Text, at most description_max_chars;
    /// Whether it is done.
    completed: Flag;
}
