//! Mercure's hub, with its transport in memory: a Go program of the bench around Mercure's library.

use std::path::Path;
use std::process::Command;

use super::{get_stream, post};
use crate::tools;

/// The program's name among those of the bench.
const PROGRAM: &str = "go_mercure";
/// Where its sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go-mercure");
/// Where it takes changes and followers.
const TARGET: &str = "/.well-known/mercure";
/// `{"mercure":{"publish":["*"]}}`, signed (HS256) with the key that stands in the sources; for this machine's loopback alone.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.2jDKUjrzX1CwezvNdtaqb7dmFBZilhqmhHNl0d5ctMo";

pub(super) fn prepare(programs: &Path, build: bool) -> Result<(), String> {
    tools::build_go(SOURCES, &programs.join(PROGRAM), build)
}

pub(super) fn command(programs: &Path) -> Command {
    Command::new(programs.join(PROGRAM))
}

pub(super) fn follow() -> Vec<u8> {
    get_stream(&format!("{TARGET}?topic=todos"))
}

pub(super) fn publish(todo: &str) -> Vec<u8> {
    let fields = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
    post(TARGET, &fields, &format!("topic=todos&data={}", percent_encoded(todo)))
}

/// Everything but letters and digits as `%XX`.
fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}
