//! The kinds of members that clients give a todo: how each is held, read from JSON, checked and written. A kind is written down
//! once, whichever columns are of it.

use std::borrow::Cow;

use super::column::{ColumnKind, ColumnSink, ColumnSource};
use super::json::{JsonValue, write_json_string};
use super::validation::{BodyError, check_storable};

/// A kind of member. Its values have three forms: a todo keeps one, a command carries one, and all work is done on a view.
pub(super) trait Member {
    /// As a todo has it.
    type Kept;
    /// As a command has it: often borrowed from a request.
    type Carried<'a>: From<Self::View<'a>>;
    /// As it is looked at.
    type View<'a>: Copy + PartialEq;

    const KIND: ColumnKind;

    fn of_kept(kept: &Self::Kept) -> Self::View<'_>;
    fn of_carried<'a>(carried: &'a Self::Carried<'_>) -> Self::View<'a>;
    fn keep(view: Self::View<'_>) -> Self::Kept;
    fn carry_owned(view: Self::View<'_>) -> Self::Carried<'static>;
    /// Puts a value into the place of another, in the memory of that one where it is enough.
    fn replace(kept: &mut Self::Kept, view: Self::View<'_>);

    /// What a new todo has where its client said nothing; `None`: the client has to say something. `'a: 'a` makes the lifetime one
    /// that an implementation may leave unused.
    fn absent<'a>() -> Option<Self::View<'a>>
    where
        'a: 'a;
    /// Whether an update on the log that brings this value means "keep": the original writes no empty members.
    fn means_keep(view: Self::View<'_>) -> bool;
    /// Checks what a request brings, but for its length.
    fn check(name: &'static str, view: Self::View<'_>) -> Result<(), BodyError>;
    /// Checks that a store can keep it.
    fn check_storable(name: &'static str, view: Self::View<'_>) -> Result<(), BodyError>;
    /// Bytes of a text; other kinds have next to none.
    fn text_bytes(view: Self::View<'_>) -> usize;

    /// Reads it from JSON. Null is as good as absent.
    fn read<'a>(name: &'static str, value: JsonValue<'a>) -> Result<Option<Self::View<'a>>, BodyError>;
    fn write(view: Self::View<'_>, json: &mut Vec<u8>);
    fn give<'t>(view: Self::View<'t>, columns: &mut impl ColumnSink<'t>);
    fn take<S: ColumnSource>(columns: &mut S) -> Result<Self::Kept, S::Error>;
}

/// [`Member::Kept`] of a kind, as it stands in types that all may see.
macro_rules! kept {
    (Flag) => {
        bool
    };
    ($text:ident) => {
        String
    };
}

/// [`Member::Carried`]. Besides, the compiler takes what it has to look up in a trait for invariant in its lifetime, and commands
/// that borrow are handed to what takes any command.
macro_rules! carried {
    (Flag, $lifetime:lifetime) => { bool };
    ($text:ident, $lifetime:lifetime) => { std::borrow::Cow<$lifetime, str> };
}

/// [`Member::View`].
macro_rules! view {
    (Flag, $lifetime:lifetime) => { bool };
    ($text:ident, $lifetime:lifetime) => { &$lifetime str };
}

pub(super) use {carried, kept, view};

/// A text that may be empty, and is where it is absent.
pub(super) struct Text;

/// A text that each todo has.
pub(super) struct RequiredText;

/// True or false; false where it is absent.
pub(super) struct Flag;

/// What both kinds of texts have in common.
macro_rules! of_texts {
    () => {
        type Kept = String;
        type Carried<'a> = Cow<'a, str>;
        type View<'a> = &'a str;

        const KIND: ColumnKind = ColumnKind::Text;

        fn of_kept(kept: &String) -> &str {
            kept
        }

        fn of_carried<'a>(carried: &'a Cow<'_, str>) -> &'a str {
            carried
        }

        fn keep(view: &str) -> String {
            view.to_owned()
        }

        fn carry_owned(view: &str) -> Cow<'static, str> {
            Cow::Owned(view.to_owned())
        }

        fn replace(kept: &mut String, view: &str) {
            view.clone_into(kept);
        }

        fn check_storable(name: &'static str, view: &str) -> Result<(), BodyError> {
            check_storable(name, view)
        }

        fn text_bytes(view: &str) -> usize {
            view.len()
        }

        fn read<'a>(name: &'static str, value: JsonValue<'a>) -> Result<Option<&'a str>, BodyError> {
            value.optional_string(name)
        }

        fn write(view: &str, json: &mut Vec<u8>) {
            write_json_string(json, view);
        }

        fn give<'t>(view: &'t str, columns: &mut impl ColumnSink<'t>) {
            columns.text(view);
        }

        fn take<S: ColumnSource>(columns: &mut S) -> Result<String, S::Error> {
            columns.text()
        }
    };
}

impl Member for Text {
    of_texts!();

    fn absent<'a>() -> Option<&'a str>
    where
        'a: 'a,
    {
        Some("")
    }

    fn means_keep(_: &str) -> bool {
        false
    }

    fn check(name: &'static str, view: &str) -> Result<(), BodyError> {
        check_storable(name, view)
    }
}

impl Member for RequiredText {
    of_texts!();

    fn absent<'a>() -> Option<&'a str>
    where
        'a: 'a,
    {
        None
    }

    fn means_keep(view: &str) -> bool {
        view.is_empty()
    }

    fn check(name: &'static str, view: &str) -> Result<(), BodyError> {
        if view.is_empty() {
            return Err(BodyError::new(name, "must not be empty"));
        }
        check_storable(name, view)
    }
}

impl Member for Flag {
    type Kept = bool;
    type Carried<'a> = bool;
    type View<'a> = bool;

    const KIND: ColumnKind = ColumnKind::Flag;

    fn of_kept(kept: &bool) -> bool {
        *kept
    }

    fn of_carried(carried: &bool) -> bool {
        *carried
    }

    fn keep(view: bool) -> bool {
        view
    }

    fn carry_owned(view: bool) -> bool {
        view
    }

    fn replace(kept: &mut bool, view: bool) {
        *kept = view;
    }

    fn absent<'a>() -> Option<bool>
    where
        'a: 'a,
    {
        Some(false)
    }

    fn means_keep(_: bool) -> bool {
        false
    }

    fn check(_: &'static str, _: bool) -> Result<(), BodyError> {
        Ok(())
    }

    fn check_storable(_: &'static str, _: bool) -> Result<(), BodyError> {
        Ok(())
    }

    fn text_bytes(_: bool) -> usize {
        0
    }

    fn read(name: &'static str, value: JsonValue<'_>) -> Result<Option<bool>, BodyError> {
        value.optional_bool(name)
    }

    fn write(view: bool, json: &mut Vec<u8>) {
        json.extend_from_slice(if view { b"true" } else { b"false" });
    }

    fn give<'t>(view: bool, columns: &mut impl ColumnSink<'t>) {
        columns.flag(view);
    }

    fn take<S: ColumnSource>(columns: &mut S) -> Result<bool, S::Error> {
        columns.flag()
    }
}
