//! What says something of the server: rows of the table of routes.

use super::fields::{CONTENT_ENCODING, ETAG, IF_MATCH, IF_NONE_MATCH, PAGE_TOKEN, POLICY, RETRY_AFTER, VARY};
use super::operation::{Answer, Content, Operation, Parameter, Token};
use crate::http::words::method::Method;
use crate::http::words::problem_kind::ProblemKind;
use crate::http::words::status::Status;

const CONDITIONS: &[&Parameter] = &[&IF_NONE_MATCH, &IF_MATCH];
const PAGE_ANSWERS: &[Answer] = &[
    Answer {
        status: Status::Ok,
        when: "The page.",
        content: Content::Text("text/html"),
        fields: &[&ETAG, &VARY, &CONTENT_ENCODING, &POLICY],
    },
    Answer {
        status: Status::NotModified,
        when: "The client has it already (`If-None-Match`).",
        content: Content::None,
        fields: &[&ETAG, &VARY, &POLICY],
    },
];

const fn page(
    name: &'static str,
    summary: &'static str,
    about: &'static str,
    problems: &'static [ProblemKind],
) -> Operation {
    Operation {
        method: Method::Get,
        name,
        summary,
        about,
        token: Token::None,
        parameters: CONDITIONS,
        body: None,
        answers: PAGE_ANSWERS,
        problems,
    }
}

pub const PAGE: &[Operation] =
    &[page("getPage", "The page for people: the list, live", "", &[ProblemKind::PreconditionFailed])];

pub const DOCS: &[Operation] =
    &[page("getDocs", "This contract as a page for people", "", &[ProblemKind::PreconditionFailed])];

pub const PROBLEMS: &[Operation] =
    &[page("getProblems", "All types of problems", "", &[ProblemKind::PreconditionFailed])];

pub const PROBLEM: &[Operation] = &[page(
    "getProblem",
    "What a type of problem means, and what to do",
    "",
    &[ProblemKind::NoSuchPath, ProblemKind::PreconditionFailed],
)];

pub const OPENAPI: &[Operation] = &[Operation {
    method: Method::Get,
    name: "getOpenApi",
    summary: "This contract as a document of OpenAPI 3.1",
    about: "With the limits that are set for this process.",
    token: Token::None,
    parameters: CONDITIONS,
    body: None,
    answers: &[
        Answer {
            status: Status::Ok,
            when: "The document.",
            content: Content::AnyJson,
            fields: &[&ETAG, &VARY, &CONTENT_ENCODING],
        },
        Answer {
            status: Status::NotModified,
            when: "The client has it already (`If-None-Match`).",
            content: Content::None,
            fields: &[&ETAG, &VARY],
        },
    ],
    problems: &[ProblemKind::PreconditionFailed],
}];

pub const PAGE_TOKENS: &[Operation] = &[
    Operation {
        method: Method::Get,
        name: "getPageToken",
        summary: "Whether the page can get a token for whoever asks",
        about: "",
        token: Token::None,
        parameters: &[],
        body: None,
        answers: &[Answer {
            status: Status::Ok,
            when: "What the page has to know.",
            content: Content::Json("PageSettings"),
            fields: &[],
        }],
        problems: &[],
    },
    Operation {
        method: Method::Post,
        name: "makePageToken",
        summary: "A token for whoever sits at the server's machine",
        about: "In an embedded deployment, for the page at `/`. `PAGE_TOKENS=off` ends it.",
        token: Token::None,
        parameters: &[&PAGE_TOKEN],
        body: Some(Content::Json("PageUser")),
        answers: &[Answer { status: Status::Ok, when: "The token.", content: Content::Json("PageToken"), fields: &[] }],
        problems: &[
            ProblemKind::InvalidBody,
            ProblemKind::PageTokenRefused,
            ProblemKind::NoSuchPath,
            ProblemKind::UnsupportedMediaType,
        ],
    },
];

const fn of_process(name: &'static str, summary: &'static str, answers: &'static [Answer]) -> Operation {
    Operation {
        method: Method::Get,
        name,
        summary,
        about: "",
        token: Token::None,
        parameters: &[],
        body: None,
        answers,
        problems: &[],
    }
}

const HEALTH_ANSWERS: &[Answer] =
    &[Answer { status: Status::Ok, when: "It does.", content: Content::Json("Health"), fields: &[] }];
const READY_ANSWERS: &[Answer] = &[
    Answer {
        status: Status::Ok,
        when: "It can, perhaps with something in trouble (`degraded`).",
        content: Content::Json("Readiness"),
        fields: &[],
    },
    Answer {
        status: Status::ServiceUnavailable,
        when: "It cannot; `reasons` says why.",
        content: Content::Json("Readiness"),
        fields: &[&RETRY_AFTER],
    },
];
const METRICS_ANSWERS: &[Answer] =
    &[Answer { status: Status::Ok, when: "The counters.", content: Content::Text("text/plain"), fields: &[] }];

pub const HEALTH: &[Operation] = &[of_process("getHealth", "Whether the process answers", HEALTH_ANSWERS)];
pub const READY: &[Operation] =
    &[of_process("getReadiness", "Whether the server can serve, and how old its list is", READY_ANSWERS)];
pub const METRICS: &[Operation] = &[of_process("getMetrics", "Counters for Prometheus", METRICS_ANSWERS)];
