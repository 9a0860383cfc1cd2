//! The table of calls in README.

use std::fmt::Write;

use super::responses::responses;
use crate::http::route::{Parameter, Place, RESOURCES, Token};
use crate::http::{ProblemKind, Status};

/// The table, as Markdown.
pub fn markdown() -> String {
    let mut text = "| call | what it does | query | answers |\n|---|---|---|---|\n".to_owned();
    for resource in RESOURCES {
        for operation in resource.operations {
            let method = operation.method.name().unwrap_or_default();
            let in_query = |parameter: &&&Parameter| parameter.place == Place::Query;
            let query = operation.parameters.iter().filter(in_query).map(|parameter| format!("`{}`", parameter.name));
            let query: Vec<String> = query.collect();
            // What any request can get stands below the table.
            let is_own = |kind: &ProblemKind| operation.problems.contains(kind);
            let statuses: Vec<String> = responses(operation)
                .iter()
                .filter(|response| response.answer.is_some() || response.problems.iter().any(is_own))
                .map(|response| response.status)
                .map(|status: Status| status.code().to_string())
                .collect();
            let token = if operation.token == Token::Needed { ", with a token" } else { "" };
            let (path, summary) = (resource.path, operation.summary);
            let (query, statuses) = (query.join(", "), statuses.join(", "));
            writeln!(text, "| `{method} {path}` | {summary}{token} | {query} | {statuses} |").expect("memory takes it");
        }
    }
    text
}
