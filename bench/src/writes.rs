//! The write load: over several connections, each write acknowledged before the next.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::client::{Client, get};
use crate::measurement::percentile;

/// Between two looks at whether the writes are applied.
const APPLIED_POLL: Duration = Duration::from_millis(10);
/// Everything that was acknowledged is applied within it.
const APPLIED_MAX: Duration = Duration::from_secs(120);

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Each connection creates and updates in turn.
    CreatesAndUpdates,
    /// Nothing but creates.
    Creates,
    /// Todos are marked as completed and as open again: the list changes, and keeps its length.
    Completions,
}

/// A load of writes.
#[derive(Debug, Clone)]
pub struct WriteLoad<'l> {
    /// The server.
    pub address: SocketAddr,
    /// The bearer token; its user owns the todos to be updated.
    pub token: &'l str,
    /// The todos to be updated, at least one.
    pub todo_ids: &'l [String],
    /// What is written.
    pub mix: Mix,
    /// How many connections write at the same time.
    pub connections: usize,
    /// Writes per second of all connections together; `None` sends the next write as soon as the last is acknowledged.
    pub rate: Option<f64>,
    /// How many writes of all connections together.
    pub writes: usize,
    /// Different loads update different todos.
    pub variety: u64,
}

/// What a load has done.
#[derive(Debug, Default)]
pub struct Written {
    /// Ids of the todos that were created, in order for each connection.
    pub created: Vec<String>,
    /// From sending each write until its acknowledgement, in microseconds.
    pub latencies_us: Vec<f64>,
    /// From the first write to the last acknowledgement.
    pub elapsed: Duration,
}

impl Written {
    /// The latency below which `percent` of the writes were acknowledged, in microseconds.
    pub fn latency_us(&mut self, percent: f64) -> f64 {
        percentile(&mut self.latencies_us, percent)
    }
}

#[derive(Deserialize)]
struct TodoId {
    id: String,
}

impl WriteLoad<'_> {
    /// Sends the writes; every one has to be answered with 202. Ends early, without an error, when `stop` is set.
    ///
    /// # Errors
    /// A connection is broken, or a write was refused.
    pub fn run(&self, stop: &AtomicBool) -> io::Result<Written> {
        self.run_and_tell(stop, &|_| {})
    }

    /// Does the same, and calls `created` with the id of each todo that it creates, as soon as it is acknowledged.
    ///
    /// # Errors
    /// A connection is broken, or a write was refused.
    pub fn run_and_tell(&self, stop: &AtomicBool, created: &(dyn Fn(&str) + Sync)) -> io::Result<Written> {
        let begin = Instant::now();
        let outcomes: Vec<io::Result<Written>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.connections)
                .map(|connection| scope.spawn(move || self.run_connection(connection, begin, stop, created)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))))
                .collect()
        });
        let mut all = Written::default();
        for outcome in outcomes {
            let one = outcome?;
            all.created.extend(one.created);
            all.latencies_us.extend(one.latencies_us);
        }
        all.elapsed = begin.elapsed();
        Ok(all)
    }

    fn run_connection(
        &self,
        connection: usize,
        begin: Instant,
        stop: &AtomicBool,
        created: &(dyn Fn(&str) + Sync),
    ) -> io::Result<Written> {
        let mut client = Client::connect(self.address)?;
        let mut written = Written::default();
        let mut numbers = Numbers::new(self.variety, connection as u64);
        for write in (connection..self.writes).step_by(self.connections) {
            if let Some(rate) = self.rate {
                let due = begin + Duration::from_secs_f64(write as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Connection c has the writes c, c + connections, …: the turn has to be taken per connection.
            let is_even = (write / self.connections).is_multiple_of(2);
            let is_create = self.mix == Mix::Creates || is_even && self.mix == Mix::CreatesAndUpdates;
            let request = match self.mix {
                _ if is_create => self.create(write),
                Mix::Creates | Mix::CreatesAndUpdates => self.update(write, &mut numbers),
                Mix::Completions => self.complete(is_even, &mut numbers),
            };
            let sent_at = Instant::now();
            let (head, body) = client.exchange(&request)?;
            written.latencies_us.push(sent_at.elapsed().as_secs_f64() * 1e6);
            if head.status != 202 {
                let text = String::from_utf8_lossy(&body);
                return Err(io::Error::other(format!("a write was answered with {}: {text}", head.status)));
            }
            if is_create {
                let id = serde_json::from_slice::<TodoId>(&body)?.id;
                created(&id);
                written.created.push(id);
            }
        }
        Ok(written)
    }

    fn create(&self, write: usize) -> Vec<u8> {
        let body = format!(
            "{{\"title\":\"Bench {} write {write}\",\"description\":\"Made to be measured: what does this todo cost?\"}}",
            self.variety
        );
        request("POST", "/todos", self.token, &body)
    }

    fn update(&self, write: usize, numbers: &mut Numbers) -> Vec<u8> {
        let id = &self.todo_ids[numbers.below(self.todo_ids.len())];
        let body = format!("{{\"title\":\"Changed by bench {} write {write}\",\"completed\":true}}", self.variety);
        request("PUT", &format!("/todos/{id}"), self.token, &body)
    }

    fn complete(&self, completed: bool, numbers: &mut Numbers) -> Vec<u8> {
        let id = &self.todo_ids[numbers.below(self.todo_ids.len())];
        request("PUT", &format!("/todos/{id}"), self.token, &format!("{{\"completed\":{completed}}}"))
    }
}

/// One request with a bearer token; an empty body has no content type.
pub fn request(method: &str, target: &str, token: &str, body: &str) -> Vec<u8> {
    let content = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{content}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The ids of all todos of the list.
///
/// # Errors
/// The connection is broken, or the list is no list.
pub fn list_ids(address: SocketAddr) -> io::Result<Vec<String>> {
    let mut client = Client::connect(address)?;
    client.send(&get("/todos"))?;
    let head = client.receive_head()?;
    let mut body = Vec::new();
    client.body(&head).read_to_end(&mut body)?;
    let todos: Vec<TodoId> = serde_json::from_slice(&body)?;
    Ok(todos.into_iter().map(|todo| todo.id).collect())
}

/// Creates todos with a short title and no description, about 200 bytes of JSON each, and waits until the list has them.
///
/// # Errors
/// A create was refused, or not applied in time.
pub fn create_short_todos(address: SocketAddr, token: &str, count: usize) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    let creates =
        (0..count).map(|number| request("POST", "/todos", token, &format!("{{\"title\":\"Todo {number:04}\"}}")));
    client.send(&creates.collect::<Vec<_>>().concat())?;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        let head = client.receive_head()?;
        let mut body = Vec::new();
        client.body(&head).read_to_end(&mut body)?;
        if head.status != 202 {
            return Err(io::Error::other(format!("a create was answered with {}", head.status)));
        }
        ids.push(serde_json::from_slice::<TodoId>(&body)?.id);
    }
    wait_for_status(address, &ids, 200)
}

/// Deletes todos, and waits until the list does not have them.
///
/// # Errors
/// A delete was refused, or not applied in time.
pub fn delete_all(address: SocketAddr, token: &str, ids: &[String]) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    // In groups, so that the log takes many at a time.
    for group in ids.chunks(100) {
        let requests: Vec<u8> =
            group.iter().flat_map(|id| request("DELETE", &format!("/todos/{id}"), token, "")).collect();
        client.send(&requests)?;
        for _ in group {
            let head = client.receive_head()?;
            io::copy(&mut client.body(&head), &mut io::sink())?;
            if head.status != 202 {
                return Err(io::Error::other(format!("a delete was answered with {}", head.status)));
            }
        }
    }
    wait_for_status(address, ids, 404)
}

/// Counters of the server that say whether writes are through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Commands that the worker has applied since the server's start.
    pub applied: f64,
    /// Whether every shard answers from the newest snapshot.
    pub is_current: bool,
}

impl Progress {
    /// Asks the server.
    ///
    /// # Errors
    /// The connection is broken, or the metrics lack a counter.
    pub fn ask(client: &mut Client) -> io::Result<Progress> {
        let (_, text) = client.exchange(&get("/metrics"))?;
        Progress::read(&String::from_utf8_lossy(&text)).ok_or_else(|| io::Error::other("/metrics lacks a counter"))
    }

    fn read(metrics: &str) -> Option<Progress> {
        let values = |name: &'static str| {
            let samples = metrics.lines().filter_map(move |line| line.strip_prefix(name));
            let samples = samples.filter(|rest| rest.starts_with([' ', '{']));
            samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        };
        let applied = values("million_rps_worker_commands_total").next()?;
        let newest = values("million_rps_snapshot_version").next()?;
        let mut shards = values("million_rps_shard_snapshot_version").peekable();
        shards.peek()?;
        Some(Progress { applied, is_current: shards.all(|version| version == newest) })
    }
}

/// Waits until `writes` more commands than `before` are applied, every one of `created` is in the list, and all shards
/// answer from the same snapshot.
///
/// # Errors
/// That takes more than two minutes, or the connection is broken.
pub fn wait_until_applied(address: SocketAddr, before: Progress, writes: usize, created: &[String]) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    poll("the writes are not applied", || {
        let now = Progress::ask(&mut client)?;
        Ok(now.applied >= before.applied + writes as f64 && now.is_current)
    })?;
    let newest = created.len().saturating_sub(1);
    wait_for_status(address, &created[newest..], 200)
}

/// Waits until every one of these todos is answered with `status`.
fn wait_for_status(address: SocketAddr, ids: &[String], status: u16) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    for id in ids {
        let request = get(&format!("/todos/{id}"));
        poll("a write does not show", || Ok(client.exchange(&request)?.0.status == status))?;
    }
    Ok(())
}

fn poll(failure: &str, mut is_done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let give_up_at = Instant::now() + APPLIED_MAX;
    while !is_done()? {
        if Instant::now() > give_up_at {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{failure} after {APPLIED_MAX:?}")));
        }
        std::thread::sleep(APPLIED_POLL);
    }
    Ok(())
}

/// Numbers that look random and are the same in each run of the bench (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn new(variety: u64, stream: u64) -> Numbers {
        Numbers(variety.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (stream << 32))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((mixed ^ (mixed >> 31)) >> 11) % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE million_rps_worker_commands_total counter\nmillion_rps_worker_commands_total 12\n\
                           million_rps_snapshot_version 7\nmillion_rps_shard_snapshot_version{shard=\"0\"} 7\n";

    #[test]
    fn progress_is_read_from_the_metrics() {
        assert_eq!(Progress::read(METRICS), Some(Progress { applied: 12.0, is_current: true }));
        let behind = format!("{METRICS}million_rps_shard_snapshot_version{{shard=\"1\"}} 6\n");
        assert_eq!(Progress::read(&behind), Some(Progress { applied: 12.0, is_current: false }));
        assert_eq!(Progress::read("million_rps_snapshot_version 7\n"), None);
    }

    #[test]
    fn updates_are_spread_over_the_list() {
        let mut numbers = Numbers::new(1, 1);
        let mut hits = [0; 10];
        (0..10_000).for_each(|_| hits[numbers.below(10)] += 1);
        assert!(hits.iter().all(|count| (800..1200).contains(count)), "{hits:?}");
    }
}
