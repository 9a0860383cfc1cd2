//! A server under test: a program on one CPU, on a free port of the loopback, stopped when it is dropped.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, ResponseHead, get};
use crate::cpu;
use crate::writes::create_short_todos;

/// Every server tells where it listens within it. The product answers its probes only when its list is loaded.
const START_MAX: Duration = Duration::from_secs(120);
/// From SIGTERM until a server is killed.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Between two looks at a server that starts or stops.
const POLL: Duration = Duration::from_millis(20);

/// What the product is allowed: more than a load of 10,000 and who writes and asks beside it. The others have as many.
const MAX_CONNECTIONS: u64 = 16_384;

/// The newest todos of a list for reading, which are short; a page of 100 has no others.
const SHORT_TODOS: u64 = 100;

/// How many files a process may open at most, as set for this process and what it starts (the hard limit).
///
/// # Errors
/// The kernel refuses to tell.
pub fn file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a value on the stack that lives through the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit.rlim_max),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The product's `MAX_CONNECTIONS` under a limit of open files: three quarters of it at most, as the product demands.
const fn connections_max(file_limit: u64) -> u64 {
    let allowed = file_limit / 4 * 3;
    if allowed < MAX_CONNECTIONS { allowed } else { MAX_CONNECTIONS }
}

/// Raises the soft limit of open files to the hard one, for this process and what it starts.
///
/// # Errors
/// The kernel refuses.
pub fn raise_file_limit() -> io::Result<()> {
    let most = file_limit()?;
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is to a value on the stack that lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The program cannot be started.
    #[error("{program} cannot be started: {reason}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// It ended, or said nothing useful, before it could be used.
    #[error("{program} did not become ready: {reason}. Its log:\n{log}")]
    NotReady {
        /// Which.
        program: PathBuf,
        /// What was seen.
        reason: String,
        /// What it wrote to its standard error.
        log: String,
    },
    /// A command of the product failed.
    #[error("`{command}` failed: {log}")]
    Command {
        /// The command line.
        command: String,
        /// What it wrote to its standard error.
        log: String,
    },
    /// The system refuses something.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A running server.
pub struct Server {
    child: Child,
    program: PathBuf,
    address: SocketAddr,
    log: PathBuf,
    /// Read by nobody after the start, but open: a server may end when its output is closed.
    _output: Option<BufReader<ChildStdout>>,
    /// What it needs to work, stopped after it. Their CPU time is not the server's.
    companions: Vec<Server>,
}

impl Server {
    /// Starts a program that prints a line with `http://ADDRESS` when it listens, on these CPUs, or, when there are none
    /// given, on those of the calling thread. Its standard error goes into `folder`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(mut command: Command, cpus: &[usize], folder: &Path) -> Result<Server, ServerError> {
        command.stdout(Stdio::piped());
        let mut server = Server::spawn(command, cpus, folder, SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let mut output = server.child.stdout.take().map(BufReader::new).ok_or_else(|| io::Error::other("no pipe"))?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.split_once("http://").and_then(|(_, rest)| rest.trim().parse().ok());
        server.address = address.ok_or_else(|| server.not_ready(format!("its first line was {line:?}")))?;
        server._output = Some(output);
        Ok(server)
    }

    /// Starts a program that was told to listen at `address`, and waits until it accepts connections there.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start_at(
        mut command: Command,
        cpus: &[usize],
        folder: &Path,
        address: SocketAddr,
    ) -> Result<Server, ServerError> {
        command.stdout(Stdio::null());
        let mut server = Server::spawn(command, cpus, folder, address)?;
        server.wait_until("it accepts no connection", |server| Client::connect(server.address).is_ok())?;
        Ok(server)
    }

    fn spawn(mut command: Command, cpus: &[usize], folder: &Path, address: SocketAddr) -> Result<Server, ServerError> {
        let program = PathBuf::from(command.get_program());
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        command.stdin(Stdio::null()).stderr(std::fs::File::create(&log)?);
        if !cpus.is_empty() {
            cpu::pin_command(&mut command, cpus);
        }
        let child = command.spawn().map_err(|reason| ServerError::Start { program: program.clone(), reason })?;
        Ok(Server { child, program, address, log, _output: None, companions: Vec::new() })
    }

    /// Waits until the response to `GET target` satisfies `is_ready`.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] when it does not within two minutes, or the server ends.
    pub fn wait_for(&mut self, target: &str, is_ready: impl Fn(&ResponseHead) -> bool) -> Result<(), ServerError> {
        let request = get(target);
        self.wait_until(&format!("GET {target} was not answered as hoped"), |server| {
            let response = Client::connect(server.address).and_then(|mut client| client.exchange(&request));
            response.is_ok_and(|(head, _)| is_ready(&head))
        })
    }

    fn wait_until(&mut self, failure: &str, is_ready: impl Fn(&Server) -> bool) -> Result<(), ServerError> {
        let give_up_at = Instant::now() + START_MAX;
        while !is_ready(self) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            if Instant::now() > give_up_at {
                return Err(self.not_ready(failure.to_owned()));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn not_ready(&self, reason: String) -> ServerError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        ServerError::NotReady { program: self.program.clone(), reason, log }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of all threads of the server and of the processes that it has started.
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let mut time = cpu::process_cpu_time(self.process())?;
        for descendant in cpu::descendants(self.process())? {
            // One may end between the listing and the asking.
            time += cpu::process_cpu_time(descendant).unwrap_or_default();
        }
        Ok(time)
    }

    /// Keeps another program running for as long as the server.
    #[must_use]
    pub fn with_companion(mut self, companion: Server) -> Server {
        self.companions.push(companion);
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Ok(process) = libc::pid_t::try_from(self.child.id()) else { return };
        // SAFETY: the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(process, libc::SIGTERM) };
        let kill_at = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > kill_at {
                eprintln!("{} did not stop within {STOP_MAX:?} and is killed", self.program.display());
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The product's program and a data folder of its own, which is removed in the end.
pub struct Product {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Product {
    /// Takes a new, empty data folder below `parent`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(program: &Path, parent: &Path) -> io::Result<Product> {
        std::fs::create_dir_all(parent)?;
        let folder = tempfile::Builder::new().prefix("data-").tempdir_in(parent)?;
        Ok(Product { program: std::path::absolute(program)?, folder })
    }

    /// Fills the list; `user` owns the todos.
    ///
    /// # Errors
    /// [`ServerError::Command`].
    pub fn seed(&self, count: u64, user: &str) -> Result<(), ServerError> {
        if count > 0 {
            self.run(&["seed", "--count", &count.to_string(), "--user", user])?;
        }
        Ok(())
    }

    /// Fills the list for reading: the newest [`SHORT_TODOS`] are short, so that `limit=10` is about 2 kB.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn seed_for_reading(&self, count: u64, user: &str, server_cpu: usize) -> Result<(), ServerError> {
        let short = SHORT_TODOS.min(count);
        self.seed(count - short, user)?;
        let server = self.start(server_cpu)?;
        create_short_todos(server.address(), &self.token(user)?, short as usize)?;
        Ok(())
    }

    /// A token for `user`; there has to be a key, which the first start or a seeding makes.
    ///
    /// # Errors
    /// [`ServerError::Command`].
    pub fn token(&self, user: &str) -> Result<String, ServerError> {
        Ok(self.run(&["token", "--sub", user, "--ttl", "24h"])?.trim().to_owned())
    }

    /// Starts the server, embedded, with one shard for the one CPU, and waits until it is ready.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(&self, server_cpu: usize) -> Result<Server, ServerError> {
        self.start_on(&[server_cpu])
    }

    /// As [`start`](Self::start), with a shard for each of these CPUs.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start_on(&self, cpus: &[usize]) -> Result<Server, ServerError> {
        self.start_with(cpus, &[])
    }

    /// As [`start_on`](Self::start_on), with these settings.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start_with(&self, cpus: &[usize], settings: &[(&str, &str)]) -> Result<Server, ServerError> {
        let mut command = self.command(["run"]);
        command.envs(settings.iter().copied());
        command.env("MAX_CONNECTIONS", connections_max(file_limit()?).to_string());
        let mut server = Server::start(command, cpus, self.folder.path())?;
        server.wait_for("/ready", |head| head.status == 200)?;
        Ok(server)
    }

    fn run(&self, arguments: &[&str]) -> Result<String, ServerError> {
        let mut command = self.command(arguments);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|reason| ServerError::Start { program: self.program.clone(), reason })?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ServerError::Command { command: arguments.join(" "), log });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The program with none of the caller's settings.
    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().current_dir(self.folder.path());
        command.env("HTTP_HOST", "127.0.0.1").env("HTTP_PORT", "0").env("LOG_LEVEL", "warn");
        command.env("DATA_DIR", self.folder.path().join("data"));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_ten_thousand_and_a_writer_have_room() {
        assert!(connections_max(20_000) > 10_000, "a limit of 20,000 files has room for more than the default");
        assert_eq!(connections_max(1_048_576), MAX_CONNECTIONS);
        assert_eq!(connections_max(1_024), 768);
    }

    #[test]
    fn a_program_that_is_no_server_is_told_with_its_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let cpu = cpu::allowed_cpus().expect("Linux tells")[0];
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello; echo out of luck >&2"]);
        let error = Server::start(command, &[cpu], folder.path()).err().expect("no server");
        let text = error.to_string();
        assert!(text.contains("hello") && text.contains("sh did not become ready"), "{text}");
        let error =
            Server::start(Command::new("/nonexistent/server"), &[cpu], folder.path()).err().expect("no program");
        assert!(error.to_string().contains("/nonexistent/server cannot be started"), "{error}");
    }
}
