//! The server under test: the real binary, embedded, in a folder of its own.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::client::Client;
use super::eventually;
use super::process::{Finished, Process};
use super::request::get;
use super::token::SECRET;

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_million-rps");

/// How shards talk to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `IO_DRIVER=epoll`
    Epoll,
    /// `IO_DRIVER=io_uring`
    IoUring,
}

impl Driver {
    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Epoll => "epoll",
            Driver::IoUring => "io_uring",
        }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        self == Driver::Epoll || io_uring::IoUring::new(8).is_ok()
    }
}

/// A folder and the settings of the processes that run in it. The folder goes when the last of its users has gone.
#[derive(Debug, Clone)]
pub struct Setup {
    folder: Arc<TempDir>,
    settings: Vec<(String, String)>,
    /// The error number that io_uring_setup(2) gives inside the process, in place of its work.
    io_uring_error: Option<u16>,
}

impl Setup {
    /// An empty folder, and the settings of an embedded server on a free port of the loopback interface.
    pub fn new() -> Setup {
        Setup::bare().set("HTTP_HOST", "127.0.0.1").set("HTTP_PORT", "0").set("JWT_SECRET", SECRET)
    }

    /// An empty folder, and no settings at all.
    pub fn bare() -> Setup {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made");
        Setup { folder: Arc::new(folder), settings: Vec::new(), io_uring_error: None }
    }

    /// Sets an environment variable.
    pub fn set(mut self, name: &str, value: &str) -> Setup {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes an environment variable back.
    pub fn unset(mut self, name: &str) -> Setup {
        self.settings.retain(|(known, _)| known != name);
        self
    }

    /// Chooses the driver.
    pub fn driver(self, driver: Driver) -> Setup {
        self.set("IO_DRIVER", driver.name())
    }

    /// Makes io_uring_setup(2) fail with this error, as a container's filter does.
    pub fn without_io_uring(mut self, error: i32) -> Setup {
        self.io_uring_error = Some(u16::try_from(error).expect("error numbers are small and positive"));
        self
    }

    /// The folder in which the processes run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// DATA_DIR, by default.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The program with these arguments, in the folder, with these settings and no others.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Puts any command into the folder, with these settings and no others.
    pub fn prepare(&self, command: &mut Command) {
        command.current_dir(self.folder()).env_clear();
        // The second is of a build under AddressSanitizer.
        for name in ["PATH", "ASAN_OPTIONS"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        if let Some(error) = self.io_uring_error {
            // SAFETY: between fork and exec the closure only makes system calls on memory of its own.
            unsafe {
                command.pre_exec(move || refuse_io_uring(error));
            }
        }
    }

    /// Runs the program with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Process::start(self.command(arguments)).finish()
    }

    /// Runs the program with these arguments, which has to succeed, and returns its stdout.
    pub fn run_successfully(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments);
        assert!(finished.status.success(), "{arguments:?}: {finished:?}");
        finished.stdout
    }

    /// Starts a server and waits until it is ready.
    pub fn start(&self) -> Server {
        self.start_changed(|_| {})
    }

    /// Starts a server, with a change to its command, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn start_changed(&self, change: impl FnOnce(&mut Command)) -> Server {
        let server = self.start_unready(change);
        let mut client = server.connect();
        eventually("readiness", || (client.call(&get("/ready")).status == 200).then_some(()));
        server
    }

    /// Starts a server, with a change to its command, and waits only until it listens.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn start_unready(&self, change: impl FnOnce(&mut Command)) -> Server {
        let mut command = self.command(&[]);
        change(&mut command);
        let mut process = Process::start(command);
        let address = eventually("the line with the address", || {
            if let Some(status) = process.status() {
                panic!("the server ended ({status}): {}\n{}", process.stdout.text(), process.stderr.text());
            }
            listens_on(&process.stdout.text())
        });
        Server { process, address, setup: self.clone() }
    }
}

/// The address in the first line that a server prints.
fn listens_on(stdout: &str) -> Option<SocketAddr> {
    let (line, _) = stdout.split_once('\n')?;
    let address = line
        .strip_prefix("million-rps listens on http://")
        .unwrap_or_else(|| panic!("the first line should say where the server listens: {line:?}"));
    Some(address.trim_end_matches('/').parse().unwrap_or_else(|_| panic!("{address:?} is no address")))
}

/// A seccomp filter (seccomp(2)) that gives `error` for io_uring_setup and lets everything else pass.
fn refuse_io_uring(error: u16) -> std::io::Result<()> {
    const NUMBER_OFFSET: u32 = 0;
    let statement = |code: u32, jump_if: u8, jump_else: u8, operand: u32| libc::sock_filter {
        code: code as u16,
        jt: jump_if,
        jf: jump_else,
        k: operand,
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER_OFFSET),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | u32::from(error)),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain system calls; the program lives until the second has copied it.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A running server. Dropping it kills it, and shows its log when a test has failed.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    setup: Setup,
}

impl Server {
    /// The address of the page, with its key, as the server prints it.
    pub fn page_address(&self) -> String {
        eventually("the address of the page", || {
            let text = self.process.stdout.text();
            let (_, rest) = text.split_once("Open ")?;
            rest.split_once(' ').map(|(address, _)| address.to_owned())
        })
    }

    /// Its folder and settings.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Connects to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// How many sockets it has open.
    pub fn open_sockets(&self) -> usize {
        self.open_files().iter().filter(|file| file.starts_with("socket:")).count()
    }

    /// Whether it has an io_uring instance open.
    pub fn has_ring(&self) -> bool {
        self.open_files().iter().any(|file| file.contains("[io_uring]"))
    }

    /// What its descriptors stand for, as proc(5) says it.
    fn open_files(&self) -> Vec<String> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("the process is there");
        // A descriptor may be closed between the listing and the look at it.
        let targets = descriptors.flatten().filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        targets.map(|target| target.to_string_lossy().into_owned()).collect()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.stderr.text()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(self) -> Finished {
        self.process.signal(libc::SIGTERM);
        self.process.finish()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(self) -> Finished {
        self.process.signal(libc::SIGKILL);
        self.process.finish()
    }
}
