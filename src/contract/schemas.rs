//! What the bodies are: schemas of OpenAPI, with the limits that are set.

use serde_json::{Value, json};

use super::Bounds;
use crate::http::ProblemKind;

const ID: &str = "01a22cdd-6e57-7642-b8f3-1c4c9c08ec62";
const AT: &str = "2026-11-30T14:30:38.935729Z";
/// Any text without the character NUL, which stores do not keep.
const STORABLE: &str = "^[^\\u0000]*$";

/// All schemas by their names.
pub fn schemas(bounds: &Bounds) -> Value {
    let title_max = bounds.texts.title_max_chars;
    let description_max = bounds.texts.description_max_chars;
    let title = json!({
        "type": "string", "minLength": 1, "maxLength": title_max, "pattern": STORABLE,
        "description": "What is to be done.",
    });
    let description = json!({
        "type": ["string", "null"], "maxLength": description_max, "pattern": STORABLE,
        "description": "More about it. Null is the same as absent; an empty text clears it.",
    });
    let completed =
        json!({ "type": ["boolean", "null"], "description": "Whether it is done. Null is the same as absent." });
    let mut changed_title = title.clone();
    changed_title["type"] = json!(["string", "null"]);
    let todo = json!({
        "id": ID, "title": "Try it", "description": "", "completed": false, "user_id": "me", "created_at": AT, "updated_at": AT,
    });
    json!({
        "Todo": {
            "type": "object",
            "required": ["id", "title", "description", "completed", "user_id", "created_at", "updated_at"],
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "Set by the server; a UUID in lower case." },
                "title": { "type": "string" },
                "description": { "type": "string" },
                "completed": { "type": "boolean" },
                "user_id": { "type": "string", "minLength": 1, "description": "Who made it: the user of the token." },
                "created_at": { "type": "string", "format": "date-time", "description": "Set by the server, in UTC." },
                "updated_at": { "type": "string", "format": "date-time", "description": "Moves on with every change." },
            },
            "example": todo,
        },
        "TodoList": { "type": "array", "items": { "$ref": "#/components/schemas/Todo" } },
        "Count": {
            "type": "object",
            "required": ["count"],
            "properties": { "count": { "type": "integer", "minimum": 0 } },
            "example": { "count": 12 },
        },
        "NewTodo": {
            "type": "object",
            "description": "Names of members count in any case. What is not known, and what the server sets, is ignored.",
            "required": ["title"],
            "properties": { "title": title, "description": description, "completed": completed },
            "example": { "title": "Try it", "description": "from another program" },
        },
        "NewTodos": {
            "description": "A todo, or an array of them, which are made together or not at all.",
            "oneOf": [
                { "$ref": "#/components/schemas/NewTodo" },
                {
                    "type": "array", "minItems": 1, "maxItems": bounds.array_max_todos,
                    "items": { "$ref": "#/components/schemas/NewTodo" },
                },
            ],
            "example": { "title": "Try it" },
        },
        "Created": {
            "description": "Of an array, all ids, in its order.",
            "anyOf": [
                { "$ref": "#/components/schemas/Accepted" },
                { "$ref": "#/components/schemas/AcceptedArray" },
            ],
            "example": { "id": ID, "message": "Todo creation queued" },
        },
        "AcceptedArray": {
            "type": "object",
            "required": ["ids", "message"],
            "properties": {
                "ids": {
                    "type": "array", "minItems": 1, "items": { "type": "string", "format": "uuid" },
                    "description": "The todos, in the array's order.",
                },
                "message": { "type": "string", "description": "For people." },
            },
            "example": { "ids": [ID], "message": "Todo creation queued" },
        },
        "TodoChange": {
            "type": "object",
            "description": "What is absent or null stays. A text that the todo has already may be longer than the limit.",
            "properties": { "title": changed_title, "description": description, "completed": completed },
            "example": { "completed": true },
        },
        "Accepted": {
            "type": "object",
            "required": ["id", "message"],
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "The todo." },
                "message": { "type": "string", "description": "For people." },
            },
            "example": { "id": ID, "message": "Todo creation queued" },
        },
        "Problem": {
            "type": "object",
            "description": "RFC 9457. More members may come.",
            "required": ["type", "title", "status", "detail", "error"],
            "properties": {
                "type": {
                    "type": "string", "format": "uri-reference",
                    "description": "What is wrong, for programs: an address on this server that says what to do. More may come.",
                },
                "title": { "type": "string", "description": "What is wrong, the same for each problem of the type." },
                "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                "detail": { "type": "string", "description": "What is wrong with this request." },
                "error": { "type": "string", "description": "A short text, for clients of the program that this one replaces." },
            },
            "example": problem(ProblemKind::NoSuchTodo),
        },
        "Health": {
            "type": "object",
            "required": ["status"],
            "properties": { "status": { "type": "string" } },
            "example": { "status": "ok" },
        },
        "Readiness": {
            "type": "object",
            "required": ["status", "reasons", "snapshot"],
            "properties": {
                "status": { "type": "string", "enum": ["ready", "degraded", "not ready"] },
                "reasons": { "type": "array", "items": { "type": "string" }, "description": "What is in trouble." },
                "snapshot": {
                    "type": "object",
                    "description": "The list that reads are answered from.",
                    "properties": {
                        "age_ms": { "type": ["integer", "null"], "minimum": 0 },
                        "version": { "type": "integer", "minimum": 0 },
                        "todos": { "type": "integer", "minimum": 0 },
                        "bytes": { "type": "integer", "minimum": 0 },
                    },
                },
            },
            "example": { "reasons": [], "snapshot": { "age_ms": 8, "bytes": 207, "todos": 1, "version": 4 }, "status": "ready" },
        },
        "PageSettings": {
            "type": "object",
            "required": ["makes_tokens", "user_claim", "heartbeat_s"],
            "properties": {
                "makes_tokens": { "type": "boolean" },
                "user_claim": { "type": "array", "items": { "type": "string" } },
                "heartbeat_s": { "type": "integer", "minimum": 1 },
            },
        },
        "PageUser": {
            "type": "object",
            "required": ["sub"],
            "properties": { "sub": { "type": "string", "minLength": 1, "description": "The user that the token is for." } },
            "example": { "sub": "me" },
        },
        "PageToken": {
            "type": "object",
            "required": ["token"],
            "properties": { "token": { "type": "string" } },
        },
    })
}

/// A problem of this kind, as an example.
pub fn problem_example(kind: ProblemKind) -> Value {
    json!({ "summary": kind.title(), "value": problem(kind) })
}

fn problem(kind: ProblemKind) -> Value {
    json!({
        "type": kind.reference(),
        "title": kind.title(),
        "status": kind.status().code(),
        "detail": kind.meaning(),
        "error": kind.meaning(),
    })
}
