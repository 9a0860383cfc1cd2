//! nginx, one process that answers with `return`.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setting, free_address};
use crate::constant::ConstantResponse;
use crate::server::{Server, ServerError};

/// Bytes of one string in nginx's configuration; it takes at most 4 KiB with everything around it.
const NGINX_STRING_BYTES: usize = 2048;

/// Starts it.
///
/// # Errors
/// [`ServerError`].
pub(super) fn start(setting: &Setting<'_>) -> Result<Server, ServerError> {
    let response = ConstantResponse::read(setting.response).ok_or_else(|| io::Error::other("no response for nginx"))?;
    let address = free_address()?;
    let path = setting.folder.join("nginx.conf");
    std::fs::write(&path, configuration(&response, address, setting.folder))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(std::path::absolute(&path)?).arg("-p").arg(std::path::absolute(setting.folder)?);
    Server::start_at(command, &[setting.server_cpu], setting.folder, address)
}

/// One process, no log, and `return` with the response.
fn configuration(response: &ConstantResponse, address: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    let mut fields = String::new();
    let mut content_type = "text/plain";
    for (name, value) in &response.fields {
        if name == "content-type" {
            content_type = value;
        } else {
            // Writing into a string cannot fail.
            let _ = writeln!(fields, "      add_header {name} {} always;", nginx_string(value));
        }
    }
    let body = String::from_utf8_lossy(&response.body);
    let (mut pieces, mut joined) = (String::new(), String::new());
    for (number, piece) in nginx_pieces(&body).iter().enumerate() {
        let _ = writeln!(pieces, "      set $piece{number} {};", nginx_string(piece));
        let _ = write!(joined, "${{piece{number}}}");
    }
    // A short body needs no variables.
    let (pieces, body) = if body.len() <= NGINX_STRING_BYTES {
        (String::new(), nginx_string(&body))
    } else {
        (pieces, format!("\"{joined}\""))
    };
    let status = response.status;
    let action = match response.body.is_empty() {
        true => format!("return {status};"),
        false => format!("return {status} {body};"),
    };
    format!(
        "master_process off;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  server_tokens off;\n  keepalive_requests 1000000000;\n  tcp_nodelay on;\n\
         \x20 client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n\
         \x20 fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n\
         \x20 geo $dollar {{ default \"$\"; }}\n\
         \x20 server {{\n    listen {address} backlog=4096;\n    location / {{\n      default_type {content_type};\n\
         {fields}{pieces}      {action}\n    }}\n  }}\n}}\n",
        content_type = nginx_string(content_type),
    )
}

fn nginx_pieces(body: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let fits = |end: &usize| rest.is_char_boundary(*end);
        let end = (0..=NGINX_STRING_BYTES.min(rest.len())).rev().find(fits).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// A string of nginx's configuration language: in quotes, and a dollar sign as the variable that holds one.
fn nginx_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('$', "${dollar}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::CANDIDATES;
    use crate::client::{Client, get};
    use crate::cpu;
    use crate::server::Product;

    #[test]
    fn nginx_returns_the_same_bytes() {
        let nginx = CANDIDATES.iter().find(|candidate| candidate.name == "nginx").expect("it is in the list");
        if let Err(reason) = nginx.prepare(Path::new("."), true) {
            eprintln!("not tested: {reason}");
            return;
        }
        for length in [0, 100, 30_000] {
            let body: String = "[{\"it's\":\"$5 \\\"é\\\\\"}] ".chars().cycle().take(length).collect();
            let response = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"x\"\r\n\r\n{body}");
            let folder = tempfile::tempdir().expect("a folder");
            let product = Product::new(Path::new("unused"), folder.path()).expect("a folder");
            let server_cpu = cpu::allowed_cpus().expect("Linux tells")[0];
            let (programs, response) = (folder.path(), response.as_bytes());
            let setting = Setting {
                product: &product,
                programs,
                target: "/todos",
                response,
                unconditional: response,
                in_turn: &[],
                folder: folder.path(),
                server_cpu,
                kafka_brokers: None,
            };
            let server = nginx.start(&setting).expect("it starts");
            let mut client = Client::connect(server.address()).expect("it listens");
            let (head, received) = client.exchange(&get("/todos")).expect("a response");
            assert_eq!((head.status, head.field("content-type")), (200, Some("application/json")));
            assert_eq!((head.field("etag"), String::from_utf8_lossy(&received)), (Some("\"x\""), body.into()));
        }
    }
}
