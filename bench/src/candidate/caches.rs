//! HAProxy and Varnish, with the response in their caches. Their origin is a floor of the bench, on the load's CPU: it is
//! asked once, before anything is measured.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Setting, free_address, start_program};
use crate::constant::ConstantResponse;
use crate::server::{Server, ServerError, file_limit};

/// Fields that tell caches what to do. The origin does not send ours, which forbid what is measured; they are added again
/// on the way to the client, so that the heads are alike.
const CACHE_FIELDS: [&str; 2] = ["cache-control", "vary"];

/// Connections that HAProxy takes, where the file limit allows it.
const CONNECTIONS_MAX: u64 = 16_384;
/// Files that HAProxy opens beside connections.
const OTHER_FILES: u64 = 100;

/// Starts HAProxy, one thread, with its small cache in memory.
///
/// # Errors
/// [`ServerError`].
pub(super) fn start_haproxy(setting: &Setting<'_>) -> Result<Server, ServerError> {
    let (origin, fields) = start_origin(setting)?;
    // wrk would wait for the body of a 304 that tells the length which a 200 would have.
    let mut lines = String::from("  http-after-response del-header content-length if { status 304 }\n");
    for (name, value) in fields {
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "  http-after-response set-header {name} {}", haproxy_string(&value));
    }
    let address = free_address()?;
    let folder = std::path::absolute(setting.folder)?;
    // A connection to the client may need one to the origin, and HAProxy does not start when the file limit is too low.
    let connections_max = (file_limit()?.saturating_sub(OTHER_FILES) / 2).min(CONNECTIONS_MAX);
    // An object may take half of a cache.
    let configuration = format!(
        "global\n  nbthread 1\n  maxconn {connections_max}\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         cache todos\n  total-max-size 256\n  max-object-size 67108864\n  max-age 86400\n\
         frontend public\n  bind {address} backlog 4096\n  http-request cache-use todos\n{lines}  default_backend origin\n\
         backend origin\n  http-response cache-store todos\n  server origin {origin}\n",
        origin = origin.address(),
    );
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, configuration)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path);
    let server = Server::start_at(command, &[setting.server_cpu], setting.folder, address)?;
    Ok(server.with_companion(origin))
}

/// Starts Varnish: a manager and the process with the cache, in which one pool of threads works.
///
/// # Errors
/// [`ServerError`].
pub(super) fn start_varnish(setting: &Setting<'_>) -> Result<Server, ServerError> {
    let (origin, fields) = start_origin(setting)?;
    let mut lines = String::new();
    for (name, value) in fields {
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "  set resp.http.{name} = {{\"{value}\"}};");
    }
    let (host, port) = (origin.address().ip(), origin.address().port());
    let vcl = format!(
        "vcl 4.1;\nbackend origin {{ .host = \"{host}\"; .port = \"{port}\"; }}\n\
         sub vcl_recv {{ return (hash); }}\n\
         sub vcl_backend_response {{ set beresp.ttl = 1d; return (deliver); }}\n\
         sub vcl_deliver {{\n{lines}}}\n"
    );
    let address = free_address()?;
    let folder = std::path::absolute(setting.folder)?;
    let path = folder.join("todos.vcl");
    std::fs::write(&path, vcl)?;
    let mut command = Command::new("varnishd");
    // No jail: it would change the user, who cannot write into our folder.
    command.args(["-F", "-j", "none", "-a", &address.to_string(), "-s", "malloc,256m", "-T", "none"]);
    command.arg("-f").arg(path).arg("-n").arg(folder.join("varnish"));
    command.args(["-p", "thread_pools=1", "-p", "thread_pool_min=50", "-p", "listen_depth=4096"]);
    let server = Server::start_at(command, &[setting.server_cpu], setting.folder, address)?;
    Ok(server.with_companion(origin))
}

/// The origin, and the fields that the cache has to add.
fn start_origin(setting: &Setting<'_>) -> Result<(Server, Vec<(String, String)>), ServerError> {
    let response = ConstantResponse::read(setting.unconditional).ok_or_else(|| io::Error::other("no response"))?;
    let is_for_caches = |(name, _): &(String, String)| CACHE_FIELDS.contains(&name.as_str());
    let (added, kept): (Vec<_>, Vec<_>) = response.fields.into_iter().partition(is_for_caches);
    // A cache has an Age and a Date of its own; a Date far in the past would make the response stale.
    let mut head = String::from("HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\n");
    for (name, value) in kept {
        // Writing into a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", response.body.len());
    let origin = start_program("floor_epoll", &[&[head.as_bytes(), &response.body].concat()], setting, None)?;
    Ok((origin, added))
}

/// A word of HAProxy's configuration.
fn haproxy_string(text: &str) -> String {
    // A percent sign begins a variable of its log formats.
    format!("'{}'", text.replace('%', "%%").replace('\'', "'\\''"))
}
