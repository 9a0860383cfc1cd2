//! nginx in front of servers, as it is when little is said to it.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::server::Setup;

/// Starts it in the folder of this setup; returns it and where it listens. Nothing is said about failures: so it takes a server out
/// for ten seconds. `of_location` are further lines about how it passes requests on.
pub fn proxy_of(setup: &Setup, servers: &[SocketAddr], of_location: &str) -> (Process, PathBuf) {
    let folder = setup.folder();
    let socket = folder.join("nginx.sock");
    let servers: String = servers.iter().map(|address| format!("server {address}; ")).collect();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    let settings = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
         events {{}}
         http {{
             access_log off; client_max_body_size 0;
             {paths}
             upstream api {{ {servers} }}
             server {{ listen unix:{socket}; location / {{ proxy_pass http://api; {of_location} }} }}
         }}",
        folder = folder.display(),
        socket = socket.display(),
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, settings).expect("a file can be written");
    let search_path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("nginx");
    command.env("PATH", search_path).arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg(folder.join("nginx.log"));
    let process = Process::start(command);
    eventually("the proxy", || UnixStream::connect(&socket).ok());
    (process, socket)
}
