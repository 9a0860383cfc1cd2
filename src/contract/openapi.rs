//! The contract as a document of OpenAPI 3.1.

use serde_json::{Map, Value, json};

use super::Bounds;
use super::responses::{Response, by_status, responses};
use super::schemas::{problem_example, schemas};
use crate::http::route::{
    ANY_REQUEST, CACHE_CONTROL, Content, FIELDS, Field, Operation, Parameter, Place, RESOURCES, Resource, Token,
    Value as FieldValue,
};
use crate::http::{Method, ProblemKind, Status};

/// The document.
pub fn openapi(bounds: &Bounds) -> Value {
    let paths: Map<String, Value> =
        RESOURCES.iter().map(|resource| (resource.path.to_owned(), path(resource))).collect();
    let examples: Map<String, Value> =
        ProblemKind::ALL.iter().map(|kind| (kind.slug().to_owned(), problem_example(*kind))).collect();
    let headers: Map<String, Value> = FIELDS.iter().map(|field| (header_name(field), header(field))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "million-rps",
            "summary": "Todos: reads from memory, durable and ordered writes",
            "description": format!(
                "A write is answered with 202 when it is durable, and shows in every read a moment later. Lists, pages and single \
                 todos have entity tags. Errors are `application/problem+json` (RFC 9457); each `type` is an address that says \
                 what to do. A body has at most {} bytes, a head 16,384, and its target 4,096. HEAD works wherever GET does, and OPTIONS \
                 says with 204 and `Allow` what a resource allows.",
                bounds.body_max_bytes
            ),
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "This server" }],
        "tags": [
            { "name": "todos", "description": "The list and what is in it" },
            { "name": "server", "description": "What the server says of itself" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(bounds),
            "responses": common_answers(),
            "headers": headers,
            "examples": examples,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A JWT that names the user, of the server's own key or of its issuer. Reads need none.",
                },
            },
        },
    })
}

fn path(resource: &'static Resource) -> Value {
    let mut item = Map::new();
    if let Some(variable) = resource.variable() {
        item.insert("parameters".to_owned(), json!([parameter(variable)]));
    }
    for of in resource.operations {
        let name = of.method.name().unwrap_or_default().to_lowercase();
        item.insert(name, operation(resource, of, false));
        if of.method == Method::Get {
            item.insert("head".to_owned(), operation(resource, of, true));
        }
    }
    Value::Object(item)
}

fn tag(resource: &Resource) -> &'static str {
    if resource.path.starts_with("/todos") { "todos" } else { "server" }
}

fn operation(resource: &Resource, of: &'static Operation, is_head: bool) -> Value {
    let parameters: Vec<Value> = of.parameters.iter().map(|of| parameter(of)).collect();
    let answers: Map<String, Value> = responses(of)
        .iter()
        .map(|response| (response.status.code().to_string(), answer_of(response, is_head)))
        .collect();
    let mut value = json!({
        "operationId": if is_head { format!("{}Head", of.name) } else { of.name.to_owned() },
        "summary": if is_head { format!("{}: the head alone", of.summary) } else { of.summary.to_owned() },
        "tags": [tag(resource)],
        "parameters": parameters,
        "responses": answers,
        "security": match of.token {
            Token::None => json!([]),
            Token::Taken => json!([{}, { "token": [] }]),
            Token::Needed => json!([{ "token": [] }]),
        },
    });
    if !of.about.is_empty() {
        value["description"] = of.about.into();
    }
    if let Some(content) = of.body.and_then(content) {
        value["requestBody"] = json!({ "required": true, "content": { "application/json": content.1 } });
    }
    value
}

/// An answer, by reference where any request may get it: most are so, and to each operation.
fn answer_of(response: &Response, is_head: bool) -> Value {
    match common_name(response) {
        Some(name) => json!({ "$ref": format!("#/components/responses/{name}{}", if is_head { "-head" } else { "" }) }),
        None => answer(response, is_head),
    }
}

/// The name of what any request may be answered.
fn common_name(response: &Response) -> Option<&'static str> {
    let is_common = response.answer.is_none() && response.problems.iter().all(|kind| ANY_REQUEST.contains(kind));
    response.problems.first().filter(|_| is_common).map(|kind| kind.slug())
}

/// What any request may be answered, to HEAD without a body.
fn common_answers() -> Map<String, Value> {
    let mut answers = Map::new();
    for response in by_status(&[], &[]) {
        let name = common_name(&response).unwrap_or_default();
        answers.insert(name.to_owned(), answer(&response, false));
        answers.insert(format!("{name}-head"), answer(&response, true));
    }
    answers
}

fn answer(response: &Response, is_head: bool) -> Value {
    let headers: Map<String, Value> =
        response.fields().into_iter().map(|field| (field.name.to_owned(), header_of(field))).collect();
    let mut value = json!({ "description": response.when(), "headers": headers });
    let mut contents = Map::new();
    if let Some((media_type, of)) = response.answer.and_then(|answer| content(answer.content)) {
        contents.insert(media_type.to_owned(), of);
    }
    if !response.problems.is_empty() {
        let examples: Map<String, Value> = response
            .problems
            .iter()
            .map(|kind| (kind.slug().to_owned(), json!({ "$ref": format!("#/components/examples/{}", kind.slug()) })))
            .collect();
        let of = json!({ "schema": { "$ref": "#/components/schemas/Problem" }, "examples": examples });
        contents.insert("application/problem+json".to_owned(), of);
    }
    if !is_head && !contents.is_empty() {
        value["content"] = Value::Object(contents);
    }
    let finds = match response.answer {
        Some(answer) if answer.status == Status::Accepted => Some("$response.body#/id"),
        _ => None,
    };
    if let Some(id) = finds.filter(|_| !is_head) {
        let link = |operation: &str| json!({ "operationId": operation, "parameters": { "id": id } });
        value["links"] = json!({ "get": link("getTodo"), "update": link("updateTodo"), "delete": link("deleteTodo") });
    }
    value
}

/// The media type of what is sent, and what is said of it.
fn content(content: Content) -> Option<(&'static str, Value)> {
    match content {
        Content::Json(name) => {
            Some(("application/json", json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } })))
        }
        Content::AnyJson => Some(("application/json", json!({ "schema": { "type": "object" } }))),
        // What a schema of 3.1 would be of, the stream or each event, readers disagree about.
        Content::Text("text/event-stream") => Some(("text/event-stream", json!({}))),
        Content::Text(media_type) => Some((media_type, json!({ "schema": { "type": "string" } }))),
        Content::None => None,
    }
}

fn header_of(field: &Field) -> Value {
    json!({ "$ref": format!("#/components/headers/{}", header_name(field)) })
}

/// Its name among all fields, of which some are in answers always and in others at times.
fn header_name(field: &Field) -> String {
    let suffix = if field.is_always || !FIELDS.iter().any(|other| other.name == field.name && other.is_always) {
        ""
    } else {
        "-at-times"
    };
    format!("{}{suffix}", field.name)
}

fn header(field: &Field) -> Value {
    let example = example(field.value, field.example);
    let mut value = json!({ "description": field.about, "schema": value_schema(field.value), "example": example });
    value["required"] = field.is_always.into();
    if std::ptr::eq(field, &CACHE_CONTROL) {
        value["schema"] = json!({ "type": "string", "enum": ["no-cache", "private, no-cache", "no-store"] });
    }
    value
}

fn parameter(of: &Parameter) -> Value {
    let place = match of.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Head => "header",
    };
    json!({
        "name": of.name,
        "in": place,
        "required": of.is_required,
        "description": of.about,
        "schema": value_schema(of.value),
        "example": example(of.value, of.example),
    })
}

fn example(value: FieldValue, example: &str) -> Value {
    match value {
        FieldValue::Whole(..) => example.parse::<u64>().map_or(Value::Null, Value::from),
        FieldValue::Flag => (example == "true").into(),
        _ => example.into(),
    }
}

fn value_schema(value: FieldValue) -> Value {
    match value {
        FieldValue::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        FieldValue::Flag => json!({ "type": "boolean" }),
        FieldValue::Uuid => json!({ "type": "string", "format": "uuid" }),
        FieldValue::Cursor { chars } => json!({
            "type": "string", "format": "cursor", "minLength": chars, "maxLength": chars, "pattern": "^[A-Za-z0-9_-]*$",
        }),
        FieldValue::Text { min, max, pattern } => {
            let mut schema = json!({ "type": "string" });
            for (name, chars) in [("minLength", min), ("maxLength", max)] {
                if chars > 0 {
                    schema[name] = chars.into();
                }
            }
            if !pattern.is_empty() {
                schema["pattern"] = pattern.into();
            }
            schema
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_every_reference_of_the_document_is_there() {
        let document = openapi(&Bounds::default());
        let mut names = Vec::new();
        for resource in RESOURCES {
            let item = &document["paths"][resource.path];
            for name in ["get", "head", "post", "put", "delete"] {
                let method = Method::from_name(name.to_uppercase().as_bytes());
                assert_eq!(item[name].is_object(), resource.methods.has(method), "{} {name}", resource.path);
                names.extend(item[name]["operationId"].as_str().map(str::to_owned));
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "each operation has a name of its own");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        for kind in ProblemKind::ALL {
            let is_told = text.contains(&format!("\"#/components/examples/{}\"", kind.slug()));
            assert!(is_told || crate::http::route::NO_OPERATION.contains(kind), "{kind:?} belongs to no operation");
        }
    }

    #[test]
    fn limits_that_are_set_are_told() {
        let mut bounds = Bounds { body_max_bytes: 12_345, ..Bounds::default() };
        bounds.texts.title_max_chars = 77;
        bounds.texts.description_max_chars = 88;
        bounds.array_max_todos = 99;
        let document = openapi(&bounds);
        assert_eq!(document["components"]["schemas"]["NewTodo"]["properties"]["title"]["maxLength"], 77);
        assert_eq!(document["components"]["schemas"]["NewTodo"]["properties"]["description"]["maxLength"], 88);
        assert_eq!(document["components"]["schemas"]["NewTodos"]["oneOf"][1]["maxItems"], 99);
        assert!(document["info"]["description"].as_str().is_some_and(|text| text.contains("12345 bytes")));
    }
}
