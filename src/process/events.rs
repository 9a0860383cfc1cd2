//! What the main thread waits for: a signal, or a thread that ended although it should not have.

use std::fs::File;
use std::io;
use std::os::raw::c_int;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::limits::SIGNAL_ECHO_MS;

/// The signals that stop a process, which then drains: an orchestrator's, Ctrl-C, a terminal that closes, Ctrl-\, a power supply
/// that ends, a limit of processor time. SIGHUP from anybody but a terminal that closes has keys read again.
const STOPPING: [(c_int, &str); 6] = [
    (SIGTERM, "SIGTERM"),
    (SIGINT, "SIGINT"),
    (SIGHUP, "SIGHUP"),
    (SIGQUIT, "SIGQUIT"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGXCPU, "SIGXCPU"),
];

/// Signals that mean nothing here and would end the process at once: those that are sent to programs of other habits, timers
/// that an ancestor has set, and SIGXFSZ, with which the kernel tells of a limit of file sizes. The write that reaches the
/// limit fails all the same, and that is treated as a full disk.
const IGNORED: [c_int; 8] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGSTKFLT,
    libc::SIGXFSZ,
];

/// Something that happens to the process.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The name of a signal.
    Signal(&'static str),
    /// The name of a thread that ended.
    Ended(&'static str),
    /// Files are to be read again.
    Reload,
}

/// How long after a SIGHUP it is looked once more whether the terminal is there: a shell that ends signals its jobs a moment
/// before its terminal goes.
const TERMINAL_GOES: Duration = Duration::from_millis(100);

/// The terminal of whichever process opens it.
const TERMINAL: &str = "/dev/tty";

/// The events of a process.
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Starts to listen for the signals that stop a process. Call it before any thread is started, so that none of them can
    /// miss one. SIGHUP stays ignored where it was at the start, as nohup(1) has it. SIGPIPE is ignored by Rust itself, and
    /// [`IGNORED`] here.
    ///
    /// # Errors
    /// The signals cannot be received.
    pub fn listen() -> io::Result<Events> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        for signal in IGNORED {
            // SAFETY: no handler runs for a signal that is ignored, and nothing else here has set one for these.
            if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        let wanted = STOPPING.iter().map(|(signal, _)| *signal);
        let mut signals = Signals::new(wanted.filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP)))?;
        let signal_sender = sender.clone();
        let had_terminal = has_terminal();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut heard = Heard::default();
            for signal in signals.forever() {
                if signal == SIGHUP && !(had_terminal && is_terminal_gone()) {
                    if signal_sender.send(Event::Reload).is_err() {
                        return;
                    }
                    continue;
                }
                let name = STOPPING.iter().find(|(known, _)| *known == signal).map_or("a signal", |(_, name)| name);
                if heard.is_news(signal, Instant::now()) && signal_sender.send(Event::Signal(name)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Events { sender, receiver })
    }

    /// A guard for a thread: its end, also by a panic, is reported.
    pub fn reporter(&self, thread: &'static str) -> EndReporter {
        EndReporter { thread, sender: self.sender.clone() }
    }

    /// Reports the end of a thread that somebody else watches.
    #[cfg(feature = "services")]
    pub fn teller(&self) -> impl Fn(&'static str) + Send + Sync + use<> {
        let sender = self.sender.clone();
        move |thread| {
            // Nobody listens any more when the process is on its way out.
            let _ = sender.send(Event::Ended(thread));
        }
    }

    /// Waits for the next event.
    pub fn next(&self) -> Event {
        self.receiver.recv().unwrap_or(Event::Ended("signals"))
    }

    /// Waits for the next event, `wait` at most.
    pub fn next_within(&self, wait: Duration) -> Option<Event> {
        self.receiver.recv_timeout(wait).ok()
    }
}

/// Whether this process belongs to a terminal, and that one is there.
fn has_terminal() -> bool {
    File::open(TERMINAL).is_ok()
}

/// Whether the terminal that was there at the start has closed. The kernel takes it from its processes before it sends SIGHUP.
fn is_terminal_gone() -> bool {
    let is_gone = || File::open(TERMINAL).is_err_and(|error| says_it_is_gone(&error));
    is_gone() || {
        std::thread::sleep(TERMINAL_GOES);
        is_gone()
    }
}

/// Whether this error of an open says that there is no terminal. Others, such as too many open files, say nothing about it.
fn says_it_is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EIO))
}

fn is_ignored(signal: c_int) -> bool {
    // SAFETY: a `sigaction` of zeros is valid; with no new action the call only writes the present one into it.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut present) == 0 && present.sa_sigaction == libc::SIG_IGN
    }
}

/// The signals so far. A second one ends the wait for what is being finished, so it has to be somebody's second thought.
#[derive(Default)]
struct Heard {
    last_at: Option<Instant>,
}

impl Heard {
    /// Whether a signal says something that the ones before it did not. A terminal's end does not after the first: shells and
    /// service managers send SIGHUP behind other signals. Nor does what comes within [`SIGNAL_ECHO_MS`], because timeout(1),
    /// for one, signals the process and then its group.
    fn is_news(&mut self, signal: c_int, now: Instant) -> bool {
        let is_news = self.last_at.is_none_or(|last_at| {
            signal != SIGHUP && now.saturating_duration_since(last_at) >= Duration::from_millis(SIGNAL_ECHO_MS)
        });
        if is_news {
            self.last_at = Some(now);
        }
        is_news
    }
}

/// Reports the end of a thread when it is dropped.
pub struct EndReporter {
    thread: &'static str,
    sender: Sender<Event>,
}

impl Drop for EndReporter {
    fn drop(&mut self) {
        // Nobody listens any more when the process is on its way out.
        let _ = self.sender.send(Event::Ended(self.thread));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_errors_of_a_closed_terminal_say_that_it_is_gone() {
        for (error, is_gone) in [
            (libc::ENXIO, true),
            (libc::EIO, true),
            (libc::EMFILE, false),
            (libc::ENFILE, false),
            (libc::EACCES, false),
            (libc::ENOMEM, false),
        ] {
            let error = io::Error::from_raw_os_error(error);
            assert_eq!(says_it_is_gone(&error), is_gone, "{error}");
        }
    }

    #[test]
    fn a_second_signal_is_one_that_somebody_sends_again() {
        let (begun, echo) = (Instant::now(), Duration::from_millis(SIGNAL_ECHO_MS));
        for first in STOPPING.map(|(signal, _)| signal) {
            let mut heard = Heard::default();
            assert!(heard.is_news(first, begun));
            assert!(!heard.is_news(first, begun + echo / 2), "its echo");
            assert!(!heard.is_news(SIGTERM, begun + echo / 2), "another of the same moment");
            assert!(!heard.is_news(SIGHUP, begun + echo * 9), "nobody waits at a terminal that has closed");
            for (again, second) in [(1, SIGTERM), (2, SIGINT), (3, SIGQUIT)] {
                assert!(heard.is_news(second, begun + echo * again));
            }
        }
    }
}
