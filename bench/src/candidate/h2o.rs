//! h2o, one thread that serves a file: its way to return a constant.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Setting, free_address};
use crate::constant::ConstantResponse;
use crate::server::{Server, ServerError};

/// Starts it.
///
/// # Errors
/// [`ServerError`].
pub(super) fn start(setting: &Setting<'_>) -> Result<Server, ServerError> {
    // It makes an entity tag by itself, and answers conditional requests with it.
    let response = ConstantResponse::read(setting.unconditional).ok_or_else(|| io::Error::other("no response"))?;
    let address = free_address()?;
    let folder = std::path::absolute(setting.folder)?;
    std::fs::write(folder.join("todos"), &response.body)?;
    let mut fields = String::new();
    let mut content_type = "text/plain";
    for (name, value) in &response.fields {
        match name.as_str() {
            "content-type" => content_type = value,
            "etag" => {}
            // Writing into a string cannot fail.
            _ => writeln!(fields, "      - header.set: {}", quoted(&format!("{name}: {value}"))).unwrap_or_default(),
        }
    }
    let configuration = format!(
        "{user}num-threads: 1\nmax-connections: 16384\nlisten:\n  host: 127.0.0.1\n  port: {port}\n\
         error-log: {log}\npid-file: {pid}\n\
         hosts:\n  default:\n    paths:\n      /todos:\n      - file.file: {file}\n      - file.mime.setdefaulttype: {content_type}\n{fields}",
        // Started by root it becomes `nobody`, who cannot write into our folder.
        // SAFETY: no arguments, and it cannot fail.
        user = if unsafe { libc::geteuid() } == 0 { "user: root\n" } else { "" },
        port = address.port(),
        log = quoted(&folder.join("h2o.log").to_string_lossy()),
        pid = quoted(&folder.join("h2o.pid").to_string_lossy()),
        file = quoted(&folder.join("todos").to_string_lossy()),
    );
    let path = folder.join("h2o.conf");
    std::fs::write(&path, configuration)?;
    let mut command = Command::new("h2o");
    command.arg("-m").arg("worker").arg("-c").arg(path);
    Server::start_at(command, &[setting.server_cpu], setting.folder, address)
}

/// A string of YAML.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
