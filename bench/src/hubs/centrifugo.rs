//! Centrifugo, with its engine in memory and one-way event streams.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{get_stream, post};
use crate::tools;

/// The program.
///
/// # Errors
/// There is none: in words.
pub(super) fn program() -> Result<OsString, String> {
    tools::find("centrifugo", "version")
        .ok_or_else(|| "there is no centrifugo (deploy/setup.sh bench builds it)".into())
}

/// As open as it can be: what is measured is the way of a change to its followers.
const CONFIGURATION: &str = r#"{
  "http_api": { "insecure": true },
  "uni_sse": { "enabled": true },
  "client": { "insecure": true },
  "channel": { "without_namespace": { "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true } },
  "log": { "level": "error" }
}
"#;

pub(super) fn command(folder: &Path, address: SocketAddr) -> io::Result<Command> {
    let path = folder.join("centrifugo.json");
    std::fs::write(&path, CONFIGURATION)?;
    let mut command = Command::new(program().map_err(io::Error::other)?);
    command.arg("--config").arg(path).arg("--http_server.address").arg(address.ip().to_string());
    command.arg("--http_server.port").arg(address.port().to_string());
    Ok(command)
}

pub(super) fn follow() -> Vec<u8> {
    // {"subs":{"todos":{}}}
    get_stream("/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22todos%22%3A%7B%7D%7D%7D")
}

pub(super) fn publish(todo: &str) -> Vec<u8> {
    post("/api/publish", "Content-Type: application/json\r\n", &format!("{{\"channel\":\"todos\",\"data\":{todo}}}"))
}
