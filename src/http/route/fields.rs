//! The parameters that operations take, and the fields of their answers.

use super::operation::{Field, Parameter, Place, Value};
use crate::http::words::cursor::CURSOR_TEXT_BYTES;
use crate::http::words::event_position::POSITION_TEXT_MAX_BYTES;
use crate::limits::{PAGE_LIMIT_MAX, TARGET_MAX_BYTES, USER_ID_MAX_BYTES};

const _: () = assert!(USER_ID_MAX_BYTES == 4_096 && TARGET_MAX_BYTES == 4_096, "texts here name them");

const fn parameter(
    name: &'static str,
    place: Place,
    value: Value,
    example: &'static str,
    about: &'static str,
) -> Parameter {
    Parameter { name, place, is_required: matches!(place, Place::Path), about, value, example }
}

const fn field(name: &'static str, is_always: bool, value: Value, example: &'static str, about: &'static str) -> Field {
    Field { name, is_always, about, value, example }
}

const NAMES: Value = Value::TEXT;

/// The id in the path of a todo.
pub static ID: Parameter =
    parameter("id", Place::Path, Value::Uuid, "01a22cdd-6e57-7642-b8f3-1c4c9c08ec62", "The id of the todo, a UUID.");
/// The type in the path of a problem.
pub static TYPE: Parameter = parameter(
    "type",
    Place::Path,
    Value::Text { min: 1, max: 0, pattern: "^[a-z-]+$" },
    "no-such-todo",
    "The last part of a problem's `type`.",
);
pub static LIMIT: Parameter = parameter(
    "limit",
    Place::Query,
    Value::Whole(1, PAGE_LIMIT_MAX as u64),
    "10",
    "Most todos of the page. Without it, all.",
);
pub static CURSOR: Parameter = parameter(
    "cursor",
    Place::Query,
    Value::Cursor { chars: CURSOR_TEXT_BYTES },
    "AQAGYYuON3LgAaIwA6Oyc7CP_Bh50wwEAGCm",
    "Where the page begins: opaque, from the field `Link` of the page before. Any other text is refused.",
);
pub static EVENTS_LIMIT: Parameter = parameter(
    "limit",
    Place::Query,
    Value::Whole(1, PAGE_LIMIT_MAX as u64),
    "10",
    "Begin with a page of so many todos. Not together with `user_id`.",
);
pub static USER_ID: Parameter = parameter(
    "user_id",
    Place::Query,
    Value::Text { min: 1, max: 0, pattern: "" },
    "me",
    "The todos of this user alone. Not together with `limit`. At most 4,096 bytes, of which the whole target may have no more either.",
);
pub static OWNER: Parameter = parameter(
    "user_id",
    Place::Query,
    Value::Text { min: 1, max: 0, pattern: "" },
    "alice",
    "The todos of this user alone; `me` is the user of the token. At most 4,096 bytes, of which the whole target may have no more either.",
);
pub static COMPLETED: Parameter =
    parameter("completed", Place::Query, Value::Flag, "false", "Those alone that are done, or that are not.");
pub static LAST_EVENT_ID: Parameter = parameter(
    "last_event_id",
    Place::Query,
    Value::TEXT,
    "4-5b1f0a6c2d3e4f90",
    "Go on behind this position, for clients that cannot set the field `Last-Event-ID`.",
);
pub static LAST_EVENT_ID_FIELD: Parameter = parameter(
    "Last-Event-ID",
    Place::Head,
    Value::TEXT,
    "4-5b1f0a6c2d3e4f90",
    "Go on behind this position, from `Event-Position` or from the `id` of an event. It counts for more than the query.",
);
pub static IF_NONE_MATCH: Parameter = parameter(
    "If-None-Match",
    Place::Head,
    Value::TEXT,
    "\"89abcdef01234567\"",
    "Entity tags that the client has: the answer is 304 where it would be one of these.",
);
pub static IF_MATCH: Parameter = parameter(
    "If-Match",
    Place::Head,
    Value::TEXT,
    "\"89abcdef01234567\"",
    "Only if what is there has one of these entity tags, or, with `*`, is there at all; else 412, and nothing is written.",
);
pub static PREFER_READ: Parameter = parameter(
    "Prefer",
    Place::Head,
    Value::TEXT,
    "wait=5",
    "Long polling (RFC 7240): with `If-None-Match`, the answer comes when it is another than the client has, or with 304 after so \
     many seconds, 30 at most. What is not understood is ignored.",
);
pub static PREFER_WRITE: Parameter = parameter(
    "Prefer",
    Place::Head,
    Value::TEXT,
    "wait=10",
    "The 202 comes when the write shows on this connection, then with `Preference-Applied: wait`; after so many seconds, 30 at \
     most, without. What is not understood is ignored.",
);
pub static IDEMPOTENCY_KEY: Parameter = parameter(
    "Idempotency-Key",
    Place::Head,
    Value::Text { min: 1, max: 255, pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~:/-]{1,255}$" },
    "8e03978e-40d5-43e8-bc93-6894a57f9324",
    "The same key of the same user is the same todo, however often it is sent. 1 to 255 printable ASCII characters; in quotes, \
     blanks and other signs are taken, too.",
);
pub static PAGE_TOKEN: Parameter = Parameter {
    name: "Page-Token",
    place: Place::Head,
    is_required: true,
    about: "The page's key, which the server prints in the page's address.",
    value: Value::TEXT,
    example: "3q2-7w",
};

pub static ETAG: Field = field(
    "ETag",
    true,
    NAMES,
    "\"89abcdef01234567\"",
    "The entity tag of the answer: strong, other in each content coding, good for `If-None-Match` and `If-Match`.",
);
pub static EVENT_POSITION: Field = field(
    "Event-Position",
    true,
    Value::Text { min: 18, max: POSITION_TEXT_MAX_BYTES, pattern: "^[0-9]+-[0-9a-f]{16}$" },
    "4-5b1f0a6c2d3e4f90",
    "The state of the list that the answer is of; who follows `/todos/events` from there has every change once.",
);
pub static LINK: Field = field(
    "Link",
    false,
    NAMES,
    "</todos?limit=10&cursor=AQAGYYuON3LgAaIwA6Oyc7CP_Bh50wwEAGCm>; rel=\"next\"",
    "The next page (RFC 8288), unless this is the last.",
);
pub static VARY: Field =
    field("Vary", true, NAMES, "Accept-Encoding", "The answer depends on these fields of the request.");
pub static CONTENT_ENCODING: Field = field(
    "Content-Encoding",
    false,
    NAMES,
    "gzip",
    "`br`, `gzip` or `zstd`, as `Accept-Encoding` likes best, where it pays.",
);
pub static LOCATION: Field = field(
    "Location",
    true,
    NAMES,
    "/todos/01a22cdd-6e57-7642-b8f3-1c4c9c08ec62",
    "Where the todo is as soon as it shows.",
);
pub static PREFERENCE_APPLIED: Field = field(
    "Preference-Applied",
    false,
    NAMES,
    "wait",
    "`wait`: the write shows on this connection. `wait=N`: the read has waited N seconds, and nothing has changed.",
);
/// `Allow`
pub static ALLOW: Field = field("Allow", true, NAMES, "GET, HEAD, OPTIONS", "The methods that the resource allows.");
/// `Retry-After`, always.
pub static RETRY_AFTER: Field =
    field("Retry-After", true, Value::Whole(1, 4_294_967_295), "1", "Seconds after which to try again.");
/// `Retry-After`, with some of the answers.
pub static RETRY_AFTER_AT_TIMES: Field = Field { is_always: false, ..copied(&RETRY_AFTER) };
/// `WWW-Authenticate`, always.
pub static CHALLENGE: Field = field(
    "WWW-Authenticate",
    true,
    NAMES,
    "Bearer realm=\"million-rps\"",
    "How to say who one is, and what was wrong with the token (RFC 6750).",
);
/// `WWW-Authenticate`, with some of the answers.
pub static CHALLENGE_AT_TIMES: Field = Field { is_always: false, ..copied(&CHALLENGE) };
/// `Accept-Encoding`
pub static ACCEPT_ENCODING: Field =
    field("Accept-Encoding", false, NAMES, "identity", "The content codings that bodies of requests may have: none.");
pub static POLICY: Field = field(
    "Content-Security-Policy",
    true,
    NAMES,
    "default-src 'none'",
    "What browsers let the document do: nothing but what is in it.",
);
/// `Cache-Control`
pub static CACHE_CONTROL: Field = field(
    "Cache-Control",
    true,
    NAMES,
    "no-cache",
    "`no-cache`: keep it, and ask each time with its entity tag; with `private` for this client alone. `no-store`: keep nothing.",
);

/// Every field of an answer.
pub static FIELDS: &[&Field] = &[
    &ACCEPT_ENCODING,
    &ALLOW,
    &CACHE_CONTROL,
    &CHALLENGE,
    &CHALLENGE_AT_TIMES,
    &CONTENT_ENCODING,
    &ETAG,
    &EVENT_POSITION,
    &LINK,
    &LOCATION,
    &POLICY,
    &PREFERENCE_APPLIED,
    &RETRY_AFTER,
    &RETRY_AFTER_AT_TIMES,
    &VARY,
];

/// The same with other parts.
const fn copied(field: &Field) -> Field {
    Field {
        name: field.name,
        is_always: field.is_always,
        about: field.about,
        value: field.value,
        example: field.example,
    }
}
