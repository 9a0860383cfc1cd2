//! The small HTTP listener of a process that is a worker and nothing else: `/health`, `/ready`, `/metrics`, for probes and
//! Prometheus.
//!
//! One thread serves all connections, as each is ready: one request, one answer, and the end, within deadlines. Whoever
//! comes when all places are taken gets that of the oldest connection that is idle, so no number of clients that say nothing,
//! or say it slowly, keeps a probe out. It ends with the process.

mod answer;
mod connection;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::answer::Answers;
use self::connection::{Connection, Progress};
use super::error::ProcessError;
use crate::config::ReadyDetails;
use crate::limits::WORKER_HTTP_CONNECTIONS_MAX;
use crate::worker::WorkerMetrics;

/// Pause after a failed accept, which mostly means that file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before those that are open get their turn again: each newcomer may be pushed out again only by as
/// many that come after it.
const ACCEPTS_PER_TURN: usize = WORKER_HTTP_CONNECTIONS_MAX / 4;

/// Starts the listener; returns where it listens.
///
/// # Errors
/// [`ProcessError::BindWorker`], or no further thread.
pub fn start(
    address: SocketAddr,
    metrics: Arc<WorkerMetrics>,
    details: ReadyDetails,
) -> Result<SocketAddr, ProcessError> {
    let bind_error = |reason| ProcessError::BindWorker { address, reason };
    let listener = TcpListener::bind(address).map_err(bind_error)?;
    listener.set_nonblocking(true).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let answers = Answers::new(metrics, details);
    let mut server = Server { listener, answers, connections: Vec::new(), accepts_from: None };
    std::thread::Builder::new().name("worker-http".into()).spawn(move || server.serve_for_ever())?;
    Ok(address)
}

struct Server {
    listener: TcpListener,
    answers: Answers,
    /// In the order in which they came.
    connections: Vec<Connection>,
    /// When to accept again, after it failed.
    accepts_from: Option<Instant>,
}

impl Server {
    fn serve_for_ever(&mut self) {
        loop {
            if let Err(error) = self.wait() {
                // Only memory or limits of the system; what is ready shows when it is tried.
                tracing::debug!(%error, "connections to the worker cannot be waited for");
                std::thread::sleep(ACCEPT_PAUSE);
            }
            self.advance_all();
            if self.accepts_from.is_none_or(|from| from <= Instant::now()) {
                self.accepts_from = None;
                self.accept_some();
            }
        }
    }

    /// Waits until something can be done, or a deadline has passed.
    fn wait(&self) -> io::Result<()> {
        let accepts = if self.accepts_from.is_some() { -1 } else { self.listener.as_raw_fd() };
        let mut polled = vec![libc::pollfd { fd: accepts, events: libc::POLLIN, revents: 0 }];
        polled.extend(self.connections.iter().map(Connection::poll));
        let deadlines = self.connections.iter().map(Connection::deadline).chain(self.accepts_from);
        let timeout_ms = match deadlines.min() {
            // A millisecond more, so that the deadline has passed.
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).as_millis() as libc::c_int + 1,
            None => -1,
        };
        // SAFETY: the pointer and the count are those of `polled`, which lives through the call.
        match unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Goes on with each connection as far as it goes without waiting.
    fn advance_all(&mut self) {
        let answers = &self.answers;
        self.connections.retain_mut(|connection| advance(connection, answers));
    }

    fn accept_some(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    if self.connections.len() >= WORKER_HTTP_CONNECTIONS_MAX {
                        self.give_up_one();
                    }
                    let mut newcomer = Connection::new(stream, peer.ip());
                    // Its request has mostly come already.
                    if advance(&mut newcomer, &self.answers) {
                        self.connections.push(newcomer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the worker cannot be accepted");
                    self.give_up_one();
                    self.accepts_from = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Closes the oldest connection that waits for its client's next byte, else the oldest.
    fn give_up_one(&mut self) {
        let idle = self.connections.iter().position(Connection::is_idle);
        if !self.connections.is_empty() {
            self.connections.remove(idle.unwrap_or(0));
        }
    }
}

/// Goes on with a connection; `false` when it has ended. A panic ends this one alone.
fn advance(connection: &mut Connection, answers: &Answers) -> bool {
    match catch_unwind(AssertUnwindSafe(|| connection.advance(answers))) {
        Ok(progress) => progress == Progress::Open,
        Err(_panic) => {
            tracing::error!("an answer about the worker panicked; its connection is closed");
            false
        }
    }
}
