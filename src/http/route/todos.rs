//! What can be done with todos: rows of the table of routes.

use super::fields::{
    COMPLETED, CONTENT_ENCODING, CURSOR, ETAG, EVENT_POSITION, EVENTS_LIMIT, IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH,
    LAST_EVENT_ID, LAST_EVENT_ID_FIELD, LIMIT, LINK, LOCATION, OWNER, PREFER_READ, PREFER_WRITE, PREFERENCE_APPLIED,
    USER_ID, VARY,
};
use super::operation::{Answer, Content, Operation, Token};
use crate::http::words::method::Method;
use crate::http::words::problem_kind::ProblemKind;
use crate::http::words::status::Status;

/// What can be wrong with any write, beside what is wrong with any request.
const WRITE_PROBLEMS: [ProblemKind; 9] = [
    ProblemKind::TokenMissing,
    ProblemKind::TokenInvalid,
    ProblemKind::InsufficientScope,
    ProblemKind::WriteRateExceeded,
    ProblemKind::TooManyBadTokens,
    ProblemKind::WriteNotTaken,
    ProblemKind::WriteUnconfirmed,
    ProblemKind::TokenKeysAwaited,
    ProblemKind::BodyTooLarge,
];

const fn with_write_problems<const OTHERS: usize, const ALL: usize>(
    others: [ProblemKind; OTHERS],
) -> [ProblemKind; ALL] {
    assert!(OTHERS + WRITE_PROBLEMS.len() == ALL);
    let mut all = [WRITE_PROBLEMS[0]; ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < OTHERS { others[at] } else { WRITE_PROBLEMS[at - OTHERS] };
        at += 1;
    }
    all
}

const UNCHANGED: Answer = Answer {
    status: Status::NotModified,
    when: "The client has it already (`If-None-Match`).",
    content: Content::None,
    fields: &[&ETAG, &EVENT_POSITION, &VARY, &PREFERENCE_APPLIED],
};

/// What can be wrong with a read of the list, or of a part of it.
const PART_PROBLEMS: &[ProblemKind] = &[
    ProblemKind::InvalidParameter,
    ProblemKind::TokenMissing,
    ProblemKind::TokenInvalid,
    ProblemKind::TooManyBadTokens,
    ProblemKind::PreconditionFailed,
    ProblemKind::ListNotLoaded,
    ProblemKind::TokenKeysAwaited,
];

pub const LIST: &[Operation] = &[
    Operation {
        method: Method::Get,
        name: "listTodos",
        summary: "All todos, or a page of them, newest first",
        about: "A query parameter that is not known is 400; `_` alone is ignored. A token is looked at for `user_id=me` alone.",
        token: Token::Taken,
        parameters: &[&LIMIT, &CURSOR, &OWNER, &COMPLETED, &IF_NONE_MATCH, &IF_MATCH, &PREFER_READ],
        body: None,
        answers: &[
            Answer {
                status: Status::Ok,
                when: "The page.",
                content: Content::Json("TodoList"),
                fields: &[&ETAG, &EVENT_POSITION, &LINK, &VARY, &CONTENT_ENCODING],
            },
            UNCHANGED,
        ],
        problems: PART_PROBLEMS,
    },
    Operation {
        method: Method::Post,
        name: "createTodo",
        summary: "Make a todo, or an array of them",
        about: "The answer means that the write is durable; it shows in the list a moment later.",
        token: Token::Needed,
        parameters: &[&IDEMPOTENCY_KEY, &PREFER_WRITE],
        body: Some(Content::Json("NewTodos")),
        answers: &[Answer {
            status: Status::Accepted,
            when: "The create is durable.",
            content: Content::Json("Created"),
            fields: &[&LOCATION, &PREFERENCE_APPLIED],
        }],
        problems: &with_write_problems::<5, 14>([
            ProblemKind::InvalidBody,
            ProblemKind::InvalidParameter,
            ProblemKind::UnsupportedMediaType,
            ProblemKind::TooManyTodos,
            ProblemKind::ListFull,
        ]),
    },
];

pub const COUNT: &[Operation] = &[Operation {
    method: Method::Get,
    name: "countTodos",
    summary: "How many todos there are",
    about: "Of the whole list, or of a part of it. A token is looked at for `user_id=me` alone.",
    token: Token::Taken,
    parameters: &[&OWNER, &COMPLETED, &IF_NONE_MATCH, &IF_MATCH, &PREFER_READ],
    body: None,
    answers: &[
        Answer {
            status: Status::Ok,
            when: "The number.",
            content: Content::Json("Count"),
            fields: &[&ETAG, &EVENT_POSITION, &VARY],
        },
        UNCHANGED,
    ],
    problems: PART_PROBLEMS,
}];

pub const TODO: &[Operation] = &[
    Operation {
        method: Method::Get,
        name: "getTodo",
        summary: "One todo",
        about: "",
        token: Token::None,
        parameters: &[&IF_NONE_MATCH, &IF_MATCH, &PREFER_READ],
        body: None,
        answers: &[
            Answer {
                status: Status::Ok,
                when: "The todo.",
                content: Content::Json("Todo"),
                fields: &[&ETAG, &EVENT_POSITION, &VARY],
            },
            UNCHANGED,
        ],
        problems: &[
            ProblemKind::InvalidTodoId,
            ProblemKind::NoSuchTodo,
            ProblemKind::PreconditionFailed,
            ProblemKind::ListNotLoaded,
        ],
    },
    Operation {
        method: Method::Put,
        name: "updateTodo",
        summary: "Change a todo",
        about: "What is absent or null stays. A todo that the list does not have is 202, too: its create may be on its way. With \
                `If-Match` it is 412.",
        token: Token::Needed,
        parameters: &[&IF_MATCH, &IF_NONE_MATCH, &PREFER_WRITE],
        body: Some(Content::Json("TodoChange")),
        answers: &[Answer {
            status: Status::Accepted,
            when: "The change is durable.",
            content: Content::Json("Accepted"),
            fields: &[&PREFERENCE_APPLIED],
        }],
        problems: &with_write_problems::<6, 15>([
            ProblemKind::InvalidTodoId,
            ProblemKind::InvalidBody,
            ProblemKind::NotOwner,
            ProblemKind::PreconditionFailed,
            ProblemKind::UnsupportedMediaType,
            ProblemKind::ListFull,
        ]),
    },
    Operation {
        method: Method::Delete,
        name: "deleteTodo",
        summary: "Delete a todo",
        about: "A repeated delete is 202 each time, so that it can be sent again after a lost answer.",
        token: Token::Needed,
        parameters: &[&IF_MATCH, &IF_NONE_MATCH, &PREFER_WRITE],
        body: None,
        answers: &[Answer {
            status: Status::Accepted,
            when: "The delete is durable.",
            content: Content::Json("Accepted"),
            fields: &[&PREFERENCE_APPLIED],
        }],
        problems: &with_write_problems::<3, 12>([
            ProblemKind::InvalidTodoId,
            ProblemKind::NotOwner,
            ProblemKind::PreconditionFailed,
        ]),
    },
];

pub const EVENTS: &[Operation] = &[Operation {
    method: Method::Get,
    name: "followTodos",
    summary: "Changes as they come, as server-sent events",
    about: "Events are `put` (a whole todo), `delete` (its id), `list` (the page that `limit` asks for) and `reset` (read the list \
            again). The stream does not end by itself.",
    token: Token::None,
    parameters: &[&EVENTS_LIMIT, &USER_ID, &LAST_EVENT_ID, &LAST_EVENT_ID_FIELD],
    body: None,
    answers: &[Answer {
        status: Status::Ok,
        when: "The stream.",
        content: Content::Text("text/event-stream"),
        fields: &[],
    }],
    problems: &[
        ProblemKind::InvalidParameter,
        ProblemKind::NotAcceptable,
        ProblemKind::ListNotLoaded,
        ProblemKind::TooManyFollowers,
        ProblemKind::ServerLeaving,
    ],
}];
