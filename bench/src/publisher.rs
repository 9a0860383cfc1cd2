//! Changes at a fixed rate, over several connections, each acknowledged before the next of its connection.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;

/// Connections at most: a hub that is busy with its followers answers late, and the rate has to be kept all the same.
const CONNECTIONS_MAX: usize = 32;

/// A load of changes.
pub struct Publisher<'p> {
    /// The hub.
    pub address: SocketAddr,
    /// Changes per second.
    pub rate: f64,
    /// The number of the first one.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// What tells of the change of a number.
    pub request: &'p (dyn Fn(usize) -> Vec<u8> + Sync),
}

impl Publisher<'_> {
    /// Sends the changes; returns when each was acknowledged, in this order. Ends early, without an error, when `stop` is set.
    ///
    /// # Errors
    /// A connection is broken, or a change was refused.
    pub fn run(&self, stop: &AtomicBool) -> io::Result<Vec<Instant>> {
        let connections = CONNECTIONS_MAX.min(self.count).min(self.rate.ceil() as usize).max(1);
        let begin = Instant::now();
        let outcomes: Vec<io::Result<Vec<Instant>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..connections)
                .map(|connection| scope.spawn(move || self.run_connection(connection, connections, begin, stop)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
            threads
                .into_iter()
                .map(|thread| join(thread).unwrap_or_else(|_| Err(io::Error::other("a panic"))))
                .collect()
        });
        let mut acknowledged_at = outcomes.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
        acknowledged_at.sort_unstable();
        Ok(acknowledged_at)
    }

    fn run_connection(
        &self,
        connection: usize,
        connections: usize,
        begin: Instant,
        stop: &AtomicBool,
    ) -> io::Result<Vec<Instant>> {
        let mut client = Client::connect(self.address)?;
        let mut acknowledged_at = Vec::new();
        for change in (connection..self.count).step_by(connections) {
            let due = begin + Duration::from_secs_f64(change as f64 / self.rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (head, body) = client.exchange(&(self.request)(self.first + change))?;
            acknowledged_at.push(Instant::now());
            if !(200..300).contains(&head.status) {
                let text = String::from_utf8_lossy(&body);
                return Err(io::Error::other(format!("a change was answered with {}: {text}", head.status)));
            }
        }
        Ok(acknowledged_at)
    }
}
