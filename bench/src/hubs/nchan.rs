//! nchan, a module of nginx: one worker process.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{get_stream, post};
use crate::candidate::can_be_started;

/// Where Debian has it.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// The module's file.
///
/// # Errors
/// It, or nginx, is missing: in words.
pub(super) fn module() -> Result<PathBuf, String> {
    can_be_started("nginx", "-v", "nginx-light")?;
    let module = PathBuf::from(MODULE);
    match module.exists() {
        true => Ok(module),
        false => Err(format!("{MODULE} is missing (Debian: apt install libnginx-mod-nchan, or deploy/setup.sh bench)")),
    }
}

pub(super) fn command(folder: &Path, address: SocketAddr) -> io::Result<Command> {
    let module = module().map_err(io::Error::other)?;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    // Messages are kept for those who come late, as ours are; without a bound here they would be for an hour.
    let configuration = format!(
        "load_module {module};\nuser root;\nworker_processes 1;\ndaemon off;\npid {folder}/nchan.pid;\n\
         error_log stderr crit;\nevents {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  tcp_nodelay on;\n  nchan_shared_memory_size 256M;\n\
         {paths}  server {{\n    listen {address} backlog=4096;\n\
         \x20   location = /follow {{ nchan_subscriber eventsource; nchan_channel_id todos; nchan_subscriber_first_message \
         newest; }}\n\
         \x20   location = /publish {{ nchan_publisher; nchan_channel_id todos; nchan_message_buffer_length 1000; \
         nchan_message_timeout 60s; }}\n  }}\n}}\n",
        module = module.display(),
        folder = folder.display(),
    );
    let path = folder.join("nchan.conf");
    std::fs::write(&path, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(path).arg("-p").arg(folder);
    Ok(command)
}

pub(super) fn follow() -> Vec<u8> {
    get_stream("/follow")
}

pub(super) fn publish(todo: &str) -> Vec<u8> {
    post("/publish", "Content-Type: application/json\r\n", todo)
}
