//! Seeding through the HTTP API of a running server, as any client would.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::{Answer, Connection, ConnectionError, PIPELINE_DEPTH};
use super::progress::SeedProgress;
use super::texts::SeedTodo;
use crate::counted::Counted;

/// Connections, each with a thread. With [`PIPELINE_DEPTH`] requests on each, about a thousand are in flight: enough to
/// fill the batches of the command log.
const CONNECTIONS: u64 = 8;
/// How long a server may answer nothing but 503 before the seeding gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedPlan {
    /// How many todos.
    pub count: u64,
    /// Which series of [`SeedTodo`].
    pub variety: u64,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedReport {
    /// Todos that the server took: each is durable.
    pub accepted: u64,
    /// 503 answers on the way; their todos were sent again.
    pub retried: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for SeedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        write!(f, "{} in {seconds:.1} s ({:.0}/s)", Counted(self.accepted, "todos"), self.accepted as f64 / seconds)?;
        if self.retried > 0 {
            write!(f, ", tried again: {} of 503", Counted(self.retried, "answers"))?;
        }
        Ok(())
    }
}

/// Why a seeding ended early.
#[derive(Debug, thiserror::Error)]
#[error("stopped after {}: {reason}", Counted(*accepted, "todos"))]
pub struct SeedError {
    /// Todos that the server took before; they stay.
    pub accepted: u64,
    /// What went wrong.
    pub reason: SeedFailure,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SeedFailure {
    /// A connection failed, or the server refused a todo.
    #[error("{address}: {error}")]
    Connection {
        /// The server.
        address: SocketAddr,
        /// What happened.
        error: ConnectionError,
    },
    /// The server could take no writes for too long.
    #[error("{address} answered nothing but 503 for {} s; its log and /ready say why", PATIENCE.as_secs())]
    Unavailable {
        /// The server.
        address: SocketAddr,
    },
}

/// Sends the todos of `plan` to the server at `address`, in the name of the token's user. A todo whose 503 was wrong about the log may turn up twice.
///
/// # Errors
/// [`SeedError`] says how many were taken before it.
pub fn seed_through_api(
    address: SocketAddr,
    token: &str,
    plan: SeedPlan,
    progress: &SeedProgress,
) -> Result<SeedReport, SeedError> {
    let seeding = Seeding {
        address,
        token,
        plan,
        progress,
        next: AtomicU64::new(0),
        retried: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
    };
    let connections = plan.count.div_ceil(PIPELINE_DEPTH as u64).clamp(1, CONNECTIONS);
    let outcome = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(|| seeding.run_connection())).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("a seeding thread does not panic"));
        // All are joined before the first failure is looked at.
        outcomes.collect::<Vec<_>>().into_iter().collect::<Result<(), SeedFailure>>()
    });
    progress.finish();
    let accepted = progress.done();
    match outcome {
        Ok(()) => {
            Ok(SeedReport { accepted, retried: seeding.retried.load(Ordering::Relaxed), elapsed: progress.elapsed() })
        }
        Err(reason) => Err(SeedError { accepted, reason }),
    }
}

/// What the threads share.
struct Seeding<'a> {
    address: SocketAddr,
    token: &'a str,
    plan: SeedPlan,
    progress: &'a SeedProgress,
    /// The number of the next todo that no thread has taken yet.
    next: AtomicU64,
    retried: AtomicU64,
    /// One thread has failed: the others end after what they have in flight.
    stopped: AtomicBool,
}

impl Seeding<'_> {
    fn run_connection(&self) -> Result<(), SeedFailure> {
        let outcome = self.send_until_done();
        if outcome.is_err() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn send_until_done(&self) -> Result<(), SeedFailure> {
        let mut connection = self.named(Connection::open(self.address, self.token))?;
        let mut numbers: Vec<u64> = Vec::with_capacity(PIPELINE_DEPTH);
        let mut last_accepted = Instant::now();
        loop {
            self.take_numbers(&mut numbers);
            if numbers.is_empty() || self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            let round = self.round(&mut connection, &mut numbers)?;
            if round.accepted > 0 {
                last_accepted = Instant::now();
            } else if last_accepted.elapsed() > PATIENCE {
                return Err(SeedFailure::Unavailable { address: self.address });
            }
            thread::sleep(round.wait);
        }
    }

    /// Fills `numbers` up with todos that no thread has taken yet.
    fn take_numbers(&self, numbers: &mut Vec<u64>) {
        let wanted = (PIPELINE_DEPTH - numbers.len()) as u64;
        let first = self.next.fetch_add(wanted, Ordering::Relaxed).min(self.plan.count);
        numbers.extend(first..(first + wanted).min(self.plan.count));
    }

    /// Sends the todos `numbers` together and waits for all answers; leaves those that have to be sent again.
    fn round(&self, connection: &mut Connection, numbers: &mut Vec<u64>) -> Result<Round, SeedFailure> {
        self.named(connection.send(numbers.iter().map(|number| SeedTodo::new(self.plan.variety, *number))))?;
        let mut round = Round { accepted: 0, wait: Duration::ZERO };
        let mut again = Vec::new();
        for number in numbers.iter() {
            match self.named(connection.receive()) {
                Ok(Answer::Accepted) => round.accepted += 1,
                Ok(Answer::TryAgain(wait)) => {
                    again.push(*number);
                    round.wait = round.wait.max(wait);
                }
                Err(failure) => {
                    self.progress.add(round.accepted);
                    return Err(failure);
                }
            }
        }
        self.progress.add(round.accepted);
        self.retried.fetch_add(again.len() as u64, Ordering::Relaxed);
        *numbers = again;
        Ok(round)
    }

    fn named<T>(&self, result: Result<T, ConnectionError>) -> Result<T, SeedFailure> {
        result.map_err(|error| SeedFailure::Connection { address: self.address, error })
    }
}

/// What came of one round on one connection.
struct Round {
    accepted: u64,
    /// How long to wait before the next.
    wait: Duration,
}
