//! What can be said of a resource: its operations, what they take, and what they answer.

use crate::http::words::method::{Method, Methods};
use crate::http::words::problem_kind::ProblemKind;
use crate::http::words::status::Status;

/// What a client may do with a resource by one method. HEAD, which is allowed wherever GET is, and OPTIONS, which is allowed
/// everywhere, follow from the others.
#[derive(Debug)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// Its name for programs.
    pub name: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What else a client has to know.
    pub about: &'static str,
    /// Whether it takes a token.
    pub token: Token,
    /// What it takes beside the path's own parameters.
    pub parameters: &'static [&'static Parameter],
    /// The body that it takes.
    pub body: Option<Content>,
    /// What it answers when nothing is wrong.
    pub answers: &'static [Answer],
    /// What can be wrong, beside [`ANY_REQUEST`].
    pub problems: &'static [ProblemKind],
}

/// Whether an operation takes a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// It is not looked at.
    None,
    /// It may say who asks.
    Taken,
    /// It has to say who asks.
    Needed,
}

/// What can be wrong with any request.
pub const ANY_REQUEST: &[ProblemKind] = &[
    ProblemKind::MalformedRequest,
    ProblemKind::RequestTimeout,
    ProblemKind::BodyTooLarge,
    ProblemKind::UriTooLong,
    ProblemKind::ExpectationFailed,
    ProblemKind::MisdirectedRequest,
    ProblemKind::HeadTooLarge,
    ProblemKind::InternalError,
    ProblemKind::NotImplemented,
    ProblemKind::ShortOfMemory,
    ProblemKind::VersionNotSupported,
];

/// What is said to whoever asks for something else than any operation: a path that is none, and a method that a resource does
/// not allow.
pub const NO_OPERATION: &[ProblemKind] = &[ProblemKind::NoSuchPath, ProblemKind::MethodNotAllowed];

/// What is sent and received, by its place in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// JSON of the schema of this name.
    Json(&'static str),
    /// JSON of any form.
    AnyJson,
    /// Text of this media type.
    Text(&'static str),
    /// Nothing.
    None,
}

/// An answer when nothing is wrong.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: Status,
    /// When it comes.
    pub when: &'static str,
    /// What is in it.
    pub content: Content,
    /// The fields that it has, beside those of every answer.
    pub fields: &'static [&'static Field],
}

/// A field of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether each answer has it that names it.
    pub is_always: bool,
    /// What it says.
    pub about: &'static str,
    /// What its value is.
    pub value: Value,
    /// A value that it may have.
    pub example: &'static str,
}

/// A parameter of the path, of the query, or of the head.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Whether it has to be there.
    pub is_required: bool,
    /// What it does.
    pub about: &'static str,
    /// What its value is.
    pub value: Value,
    /// A value that it may have.
    pub example: &'static str,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// In the head.
    Head,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A whole number from the one to the other.
    Whole(u64, u64),
    /// True or false.
    Flag,
    /// A UUID.
    Uuid,
    /// A cursor, of so many characters.
    Cursor {
        /// Characters, exactly.
        chars: usize,
    },
    /// Text of so many characters that matches the pattern, if there is one.
    Text {
        /// Characters at least.
        min: usize,
        /// Characters at most; 0 for no bound of its own.
        max: usize,
        /// A regular expression for all of it.
        pattern: &'static str,
    },
}

impl Value {
    /// Any text.
    pub const TEXT: Value = Value::Text { min: 0, max: 0, pattern: "" };
}

/// The methods of these operations, with those that follow from them.
pub const fn methods_of(operations: &[Operation]) -> Methods {
    let mut methods = Methods::NONE.with(Method::Options);
    let mut at = 0;
    while at < operations.len() {
        methods = methods.with(operations[at].method);
        if matches!(operations[at].method, Method::Get) {
            methods = methods.with(Method::Head);
        }
        at += 1;
    }
    methods
}
