//! What the main thread waits for: a signal, or a thread that ended although it should not have.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Something that ends the process.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The name of a signal.
    Signal(&'static str),
    /// The name of a thread that ended.
    Ended(&'static str),
}

/// The events of a process.
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Starts to listen for SIGTERM and SIGINT. Call it before any thread is started, so that none of them can miss one.
    ///
    /// # Errors
    /// The signals cannot be received.
    pub fn listen() -> std::io::Result<Events> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let signal_sender = sender.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
                if signal_sender.send(Event::Signal(name)).is_err() {
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

    /// Waits for the next event.
    pub fn next(&self) -> Event {
        self.receiver.recv().unwrap_or(Event::Ended("signals"))
    }

    /// Waits for the next event, `wait` at most.
    pub fn next_within(&self, wait: Duration) -> Option<Event> {
        self.receiver.recv_timeout(wait).ok()
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
