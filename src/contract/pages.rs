//! The contract as pages for people.

use serde_json::Value;

use super::Bounds;
use super::html::{Html, link, marked};
use super::responses::{Response, responses};
use super::schemas::schemas;
use crate::http::ProblemKind;
use crate::http::route::{
    ANY_REQUEST, Content, Operation, Parameter, Place, RESOURCES, Resource, Token, Value as FieldValue,
};

/// What a newcomer types first. `HOST` is this server.
const FIRST_CALLS: &str = "\
HOST=http://localhost:8080    # the server that this page is from
TOKEN=...                     # a JWT that names you; whoever runs the server gives it: million-rps token --sub me

curl -i $HOST/todos -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\
     -H 'Prefer: wait=10' -d '{\"title\":\"Try it\"}'        # 202, with the id; it shows already
curl -i \"$HOST/todos?limit=10\"                           # 200, with ETag and, where there is more, Link
curl -i -X PUT $HOST/todos/ID -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\
     -H 'If-Match: ETAG' -d '{\"completed\":true}'         # 202; 412 when somebody has changed it meanwhile
curl -i -X DELETE $HOST/todos/ID -H \"Authorization: Bearer $TOKEN\"";

/// The page of the whole contract.
pub fn docs(bounds: &Bounds) -> String {
    let mut page = Html::new("million-rps: the API");
    page.text("h1", "The API of this server")
        .text(
            "p",
            "A write is answered with 202 when it is durable, and shows in every read a moment later; with `Prefer: wait=10` the \
             answer comes when it shows. Reads need no token. HEAD works wherever GET does, and OPTIONS says what is allowed.",
        )
        .text("p", &format!("A body has at most {} bytes, a head 16,384, and its target 4,096.", bounds.body_max_bytes))
        .code(FIRST_CALLS);
    page.table(
        ["Call", "What it does"],
        RESOURCES.iter().flat_map(|resource| {
            resource.operations.iter().map(|of| {
                let name = format!("`{} {}`", of.method.name().unwrap_or_default(), resource.path);
                [link(&format!("#{}", of.name), &name), marked(of.summary)]
            })
        }),
    );
    let machines = [[link("/openapi.json", "`/openapi.json`"), marked("The same for programs: OpenAPI 3.1.")]];
    let people =
        [[link("/docs/problems", "`/docs/problems`"), marked("All types of problems: what they mean, what to do.")]];
    page.table(["See also", ""], machines.into_iter().chain(people));
    for resource in RESOURCES {
        page.heading(2, resource.path, &format!("`{}`", resource.path));
        for of in resource.operations {
            write_operation(&mut page, resource, of);
        }
    }
    write_any(&mut page);
    page.heading(2, "schemas", "What is sent");
    let schemas = schemas(bounds);
    for (name, schema) in schemas.as_object().into_iter().flatten() {
        write_schema(&mut page, name, schema);
    }
    page.finish()
}

fn write_operation(page: &mut Html, resource: &Resource, of: &'static Operation) {
    page.heading(3, of.name, &format!("`{} {}`", of.method.name().unwrap_or_default(), resource.path));
    let token = match of.token {
        Token::None => "",
        Token::Taken => " Takes a token: `Authorization: Bearer <token>`.",
        Token::Needed => " Needs a token: `Authorization: Bearer <token>`.",
    };
    let about = if of.about.is_empty() { String::new() } else { format!(" {}", of.about) };
    page.text("p", &format!("{}.{about}{token}", of.summary));
    page.table(
        ["Takes", "In the", "What it is", "What it does"],
        resource.variable().into_iter().chain(of.parameters.iter().copied()).map(parameter),
    );
    if let Some(Content::Json(name)) = of.body {
        page.raw("p", &format!("The body is {}.", link(&format!("#{name}"), &format!("`{name}`"))));
    }
    let own = responses(of).into_iter().filter(|response| {
        response.answer.is_some() || response.problems.iter().any(|kind| of.problems.contains(kind))
    });
    page.table(["Answers", "When", "Fields"], own.map(|response| answer(&response, of)));
}

fn answer(response: &Response, of: &Operation) -> [String; 3] {
    let mut when = String::new();
    if let Some(answer) = response.answer {
        when += &marked(answer.when);
        if let Content::Json(name) = answer.content {
            when += &format!(" {}", link(&format!("#{name}"), &format!("`{name}`")));
        }
    }
    for kind in response.problems.iter().filter(|kind| of.problems.contains(kind)) {
        when += if when.is_empty() { "" } else { "<br>" };
        when += &link(kind.reference(), kind.title());
    }
    let fields: Vec<String> = response.fields().iter().map(|field| format!("`{}`", field.name)).collect();
    [format!("{}", response.status.code()), when, marked(&fields.join(", "))]
}

fn parameter(of: &'static Parameter) -> [String; 4] {
    let place = match of.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Head => "head",
    };
    let value = match of.value {
        FieldValue::Whole(min, max) => format!("{min} to {max}"),
        FieldValue::Flag => "true or false".to_owned(),
        FieldValue::Uuid => "a UUID".to_owned(),
        FieldValue::Cursor { chars } => format!("{chars} characters"),
        FieldValue::Text { max: 0, .. } => "text".to_owned(),
        FieldValue::Text { min, max, .. } => format!("text of {min} to {max} characters"),
    };
    [
        marked(&format!("`{}`", of.name)),
        place.to_owned(),
        value,
        marked(&format!("{} Such as `{}`.", of.about, of.example)),
    ]
}

/// What any request can get, whatever it asks for.
fn write_any(page: &mut Html) {
    page.heading(2, "any", "What any request can get").table(
        ["Answers", "When"],
        ANY_REQUEST.iter().map(|kind| [kind.status().code().to_string(), link(kind.reference(), kind.title())]),
    );
}

fn write_schema(page: &mut Html, name: &str, schema: &Value) {
    page.heading(3, name, &format!("`{name}`"));
    if let Some(about) = schema["description"].as_str() {
        page.text("p", about);
    }
    let required = |member: &str| {
        let mut names = schema["required"].as_array().into_iter().flatten();
        if names.any(|name| name == member) { "yes" } else { "" }
    };
    let members = schema["properties"].as_object().into_iter().flatten();
    page.table(
        ["Member", "Type", "Always", ""],
        members.map(|(member, of)| {
            let about = of["description"].as_str().unwrap_or_default();
            [marked(&format!("`{member}`")), type_of(of), required(member).to_owned(), marked(about)]
        }),
    );
    if let Some(item) = named(&schema["items"]) {
        page.text("p", &format!("An array of `{item}`."));
    }
    let choices = ["oneOf", "anyOf"].iter().flat_map(|word| schema[word].as_array().into_iter().flatten());
    let choices: Vec<String> = choices
        .filter_map(|choice| match named(choice) {
            Some(name) => Some(format!("`{name}`")),
            None => named(&choice["items"]).map(|item| format!("an array of at most {} `{item}`", choice["maxItems"])),
        })
        .collect();
    if !choices.is_empty() {
        page.text("p", &format!("Either {}.", choices.join(", or ")));
    }
    if !schema["example"].is_null() {
        page.code(&schema["example"].to_string());
    }
}

/// The name of the schema that is meant here.
fn named(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// The type of a member, with its limits.
fn type_of(schema: &Value) -> String {
    let names: Vec<&str> = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    };
    let mut text = names.join(" or ");
    for (limit, words) in [("format", ", "), ("minLength", ", characters at least "), ("maxLength", ", at most ")] {
        match &schema[limit] {
            Value::Null => {}
            Value::String(value) => text += &format!("{words}{value}"),
            value => text += &format!("{words}{value}"),
        }
    }
    text
}

/// The page of all types of problems.
pub fn problems() -> String {
    let mut page = Html::new("million-rps: types of problems");
    page.text("h1", "Types of problems")
        .text(
            "p",
            "An error is `application/problem+json` (RFC 9457). Its `type` is the address of one of these pages on the server that \
             sent it; `detail` says what is wrong with the request at hand. More types may come: decide by `status` where a type is \
             not known.",
        )
        .table(
            ["Status", "Type", "What it is"],
            ProblemKind::ALL.iter().map(|kind| {
                let slug = format!("`{}`", kind.slug());
                [kind.status().code().to_string(), link(kind.reference(), &slug), marked(kind.title())]
            }),
        );
    page.finish()
}

/// The page of one.
pub fn problem(kind: ProblemKind) -> String {
    let mut page = Html::new(kind.title());
    page.text("h1", kind.title())
        .text("p", &format!("`{}`, status {} ({})", kind.reference(), kind.status().code(), kind.status().reason()))
        .text("h2", "What it means")
        .text("p", kind.meaning())
        .text("h2", "What to do")
        .text("p", kind.remedy());
    page.raw("p", &format!("{} · {}", link("/docs/problems", "All types of problems"), link("/docs", "The API")));
    page.finish()
}
