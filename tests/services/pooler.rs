//! A PgBouncer of its own before the database server (Debian's package `pgbouncer`).

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::process::Process;

/// Runs until it is dropped.
pub struct Pooler {
    _process: Process,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// Starts one before the server of `database_url`, with so many sessions for each database, and these settings besides.
    pub fn start(database_url: &str, pool_size: usize, settings: &str) -> Pooler {
        let (host, server_port) = host_and_port(database_url);
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\nlog_connections = 0\nlog_disconnections = 0\n\
             default_pool_size = {pool_size}\n{settings}\n"
        );
        std::fs::write(&file, text).expect("written");
        // It refuses to run as root, and reads its settings as whom it becomes.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its own");
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(program.expect("pgbouncer is installed (deploy/setup.sh test)"));
        // SAFETY: it only reads a number of this process.
        if unsafe { libc::geteuid() } == 0 {
            command.args(["-u", "nobody"]);
        }
        command.arg(&file);
        let pooler = Pooler { _process: Process::start(command), port, _folder: folder };
        let give_up_at = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < give_up_at, "PgBouncer does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    /// The same database, through the pooler.
    pub fn through(&self, database_url: &str) -> String {
        let (host, port) = host_and_port(database_url);
        database_url.replace(&format!("{host}:{port}"), &format!("127.0.0.1:{}", self.port))
    }
}

fn host_and_port(url: &str) -> (String, String) {
    let (_, rest) = url.split_once("://").expect("a URL");
    let (authority, _) = rest.split_once('/').expect("a database");
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = address.rsplit_once(':').expect("a port");
    (host.to_owned(), port.to_owned())
}
