//! Child processes that never outlive the test process.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::eventually;

/// A child process with its output collected. Dropping it kills it, and shows its stderr when a test has failed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it has written to stdout so far.
    pub stdout: Collected,
    /// What it has written to stderr so far.
    pub stderr: Collected,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to stdout.
    pub stdout: String,
    /// All that it wrote to stderr.
    pub stderr: String,
}

impl Process {
    /// Starts `command`, without input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure only makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let name = format!("{command:?}");
        let mut child = spawn(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = Collected::from(child.stdout.take().expect("stdout is piped"));
        let stderr = Collected::from(child.stderr.take().expect("stderr is piped"));
        Process { child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.pid()).expect("process ids are positive and small");
        // SAFETY: plain system call; the process has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal}: {}", io::Error::last_os_error());
    }

    /// Lets its files grow up to so many bytes from now on (prlimit(2)).
    pub fn limit_files(&self, max_bytes: u64) {
        let pid = libc::pid_t::try_from(self.pid()).expect("process ids are positive and small");
        let limit = libc::rlimit { rlim_cur: max_bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: plain system call; the new limit is read during it, and the old one is not asked for.
        let done = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let status = eventually("the end of the process", || self.status());
        Finished { status, stdout: self.stdout.finish(), stderr: self.stderr.finish() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of process {}:\n{}---", self.child.id(), self.stderr.text());
        }
    }
}

/// Spawns from one thread that lives as long as the test process, because the kernel ties PR_SET_PDEATHSIG to the thread
/// that forked (prctl(2)), and tests come and go with threads of their own.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                // The one who asked waits for it.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = channel();
    orders.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).expect("the spawning thread lives on");
    answer.recv().expect("the spawning thread answers")
}

/// What comes out of a pipe, collected by a thread so that the writer never blocks.
#[derive(Debug)]
pub struct Collected {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Collected {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..length]);
            }
        });
        Collected { text, reader: Some(reader) }
    }

    /// The text so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reading thread does not panic");
        }
        self.text()
    }
}
