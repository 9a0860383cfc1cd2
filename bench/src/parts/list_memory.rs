//! Part `list-memory`: how much the server grows while many readers take the whole list at the same time.

use std::io::{self, BufReader, Read};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::{Bench, PartError, USER, setting};
use crate::client::{Client, ResponseHead, get};
use crate::measurement::Measurement;
use crate::memory;
use crate::report::{Bound, Report, Row, Table};
use crate::server::{Product, Server};
use crate::writes::{Mix, WriteLoad, list_ids};

/// The server may grow by so many percent of the list's bytes.
const GROWTH_MAX_PERCENT: f64 = 10.0;
/// What a slow reader takes before it rests.
const SLOW_READ_BYTES: u64 = 256 * 1024;

/// Connections that write to as many todos as the list has, before it is measured beside writes.
const WARM_UP_CONNECTIONS: usize = 64;
/// Buffers of connections that have fallen idle are given back within it.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ListMemoryArguments {
    /// Length of the list
    #[arg(long, value_name = "TODOS", default_value_t = 100_000)]
    pub todos: u64,
    /// Readers at the same time; every second one is slow
    #[arg(long, value_name = "READERS", default_value_t = 64)]
    pub readers: usize,
    /// A slow reader rests so long after each 256 KiB
    #[arg(long, value_name = "MS", default_value_t = 50)]
    pub rest_ms: u64,
    /// Writes per second in the second table: the list changes while it is read
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 100.0)]
    pub rate: f64,
}

/// Runs the part.
///
/// # Errors
/// The server does not start, or an answer is not the whole list.
pub fn run(bench: &Bench, arguments: &ListMemoryArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "list-memory",
        "Growth of the server's resident memory while readers take the whole list (`GET /todos`) at the same time, as \
         part of the list's bytes. Every answer is checked: its length, that it is valid JSON, and the number of todos. Where writes \
         go on, as many as there are todos have gone before: a page cache that fills is not the readers' doing.",
        vec![
            setting("todos", arguments.todos),
            setting("readers", format!("{}, half of them slow", arguments.readers)),
            setting("slow readers rest", format!("{} ms after each {SLOW_READ_BYTES} bytes", arguments.rest_ms)),
        ],
    );
    eprintln!("list-memory: seeding {} todos", arguments.todos);
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed(arguments.todos, USER)?;
    for rate in [None, Some(arguments.rate)] {
        let title = rate.map_or_else(|| "No writes".to_owned(), |rate| format!("{rate} writes/s go on meanwhile"));
        let mut percent = Vec::new();
        let mut rows = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for run in 1..=bench.runs {
            eprintln!("list-memory: {title}, run {run} of {}", bench.runs);
            // A new process each time: memory that an earlier run has left behind would hide growth.
            let server = product.start(bench.server_cpu)?;
            let measured = measure(&server, &product, arguments, rate, run as u64)?;
            percent.push(measured.growth_bytes as f64 / measured.list_bytes as f64 * 100.0);
            let figures = [measured.list_bytes, measured.before_bytes, measured.growth_bytes, measured.writes];
            rows.iter_mut().zip(figures).for_each(|(runs, figure)| runs.push(figure as f64));
        }
        let [list, before, growth, writes] = rows;
        let mib = |bytes: Vec<f64>| bytes.into_iter().map(|bytes| bytes / f64::from(1 << 20)).collect();
        let growth_percent = Measurement::new("growth", "% of the list", percent);
        let claim = format!("{title}: growth in % of the list");
        report.bounds.push(Bound::at_most(claim, growth_percent.median(), GROWTH_MAX_PERCENT));
        let measurements = vec![
            growth_percent,
            Measurement::new("growth", "MiB", mib(growth)),
            Measurement::new("the list", "MiB", mib(list)),
            Measurement::new("resident before", "MiB", mib(before)),
            Measurement::new("writes meanwhile", "", writes),
        ];
        let row = Row { label: format!("{} readers", arguments.readers), measurements };
        report.tables.push(Table::new(title, vec![row]));
    }
    Ok(report)
}

struct Measured {
    list_bytes: u64,
    before_bytes: u64,
    growth_bytes: u64,
    writes: u64,
}

fn measure(
    server: &Server,
    product: &Product,
    arguments: &ListMemoryArguments,
    rate: Option<f64>,
    variety: u64,
) -> Result<Measured, PartError> {
    let (address, process) = (server.address(), server.process());
    let token = product.token(USER)?;
    let ids = list_ids(address)?;
    let written_before = ids.len() as u64;
    if rate.is_some() {
        // The store's page cache fills with what is written to, readers or not, and never shrinks: it has to be full before.
        let load = WriteLoad {
            address,
            token: &token,
            todo_ids: &ids,
            mix: Mix::Completions,
            connections: WARM_UP_CONNECTIONS,
            rate: None,
            writes: ids.len(),
            variety,
        };
        load.run(&AtomicBool::new(false))?;
        std::thread::sleep(SETTLED_AFTER);
    }
    let before_bytes = memory::resident_bytes(process)?;
    memory::reset_peak(process)?;

    let stop = AtomicBool::new(false);
    let (answers, writes) = std::thread::scope(|scope| {
        let writer = rate.map(|rate| {
            let load = WriteLoad {
                address,
                token: &token,
                todo_ids: &ids,
                mix: Mix::CreatesAndUpdates,
                connections: 4,
                rate: Some(rate),
                writes: usize::MAX,
                variety,
            };
            let stop = &stop;
            scope.spawn(move || load.run(stop))
        });
        let answers = read_all(address, arguments);
        stop.store(true, Ordering::Relaxed);
        let writes = writer.map_or(Ok(0), |writer| {
            writer
                .join()
                .map_err(|_| io::Error::other("the writer panicked"))?
                .map(|written| written.latencies_us.len())
        });
        (answers, writes)
    });
    let growth_bytes = memory::peak_resident_bytes(process)?.saturating_sub(before_bytes);
    let (answers, writes) = (answers?, writes? as u64);
    for (head, todos) in &answers {
        // Each writer's first and third write creates, and so on: rounded up, half of the writes per connection.
        let most = written_before + writes / 2 + 4;
        let is_whole = if rate.is_none() { *todos == written_before } else { (written_before..=most).contains(todos) };
        if head.status != 200 || !is_whole {
            return Err(format!("a reader got status {} with {todos} todos of {written_before}", head.status).into());
        }
    }
    let list_bytes = answers.iter().map(|(head, _)| head.content_length).max().unwrap_or_default();
    Ok(Measured { list_bytes, before_bytes, growth_bytes, writes })
}

/// All readers start together; the head of each answer and the number of its todos.
fn read_all(address: SocketAddr, arguments: &ListMemoryArguments) -> io::Result<Vec<(ResponseHead, u64)>> {
    let start = Barrier::new(arguments.readers);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..arguments.readers)
            .map(|reader| {
                let start = &start;
                let rest = (reader % 2 == 1).then(|| Duration::from_millis(arguments.rest_ms));
                scope.spawn(move || read_list(address, rest, start))
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))).collect()
    })
}

fn read_list(address: SocketAddr, rest: Option<Duration>, start: &Barrier) -> io::Result<(ResponseHead, u64)> {
    let client = Client::connect(address);
    // Every reader comes to the barrier, also one that has failed: the others would wait for it.
    start.wait();
    let mut client = client?;
    client.send(&get("/todos"))?;
    let head = client.receive_head()?;
    let mut body = Slow { inner: client.body(&head), rest, until_rest_bytes: SLOW_READ_BYTES, read_bytes: 0 };
    let count: TodoCount = serde_json::from_reader(BufReader::with_capacity(64 * 1024, &mut body))?;
    if body.read_bytes != head.content_length {
        return Err(io::Error::other(format!("{} bytes of {} came", body.read_bytes, head.content_length)));
    }
    Ok((head, count.0))
}

/// A reader that counts, and rests now and then.
struct Slow<R> {
    inner: R,
    rest: Option<Duration>,
    until_rest_bytes: u64,
    read_bytes: u64,
}

impl<R: Read> Read for Slow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.until_rest_bytes == 0 {
            self.rest.iter().for_each(|rest| std::thread::sleep(*rest));
            self.until_rest_bytes = SLOW_READ_BYTES;
        }
        let room = buffer.len().min(usize::try_from(self.until_rest_bytes).unwrap_or(usize::MAX));
        let received = self.inner.read(&mut buffer[..room])?;
        self.until_rest_bytes -= received as u64;
        self.read_bytes += received as u64;
        Ok(received)
    }
}

/// The number of elements of a JSON list, read without keeping any.
struct TodoCount(u64);

impl<'de> Deserialize<'de> for TodoCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TodoCount, D::Error> {
        struct Counter;

        impl<'de> Visitor<'de> for Counter {
            type Value = TodoCount;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a list of todos")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TodoCount, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(TodoCount(count))
            }
        }

        deserializer.deserialize_seq(Counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn todos_are_counted_and_broken_lists_are_errors() {
        let count = |text: &str| serde_json::from_reader::<_, TodoCount>(text.as_bytes()).map(|count| count.0);
        assert_eq!(count("[{\"id\":1},{\"id\":[2]}]").expect("a list"), 2);
        assert_eq!(count("[]").expect("a list"), 0);
        for broken in ["[{\"id\":1},", "[{}]x", "{}", ""] {
            assert!(count(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_slow_reader_reads_the_same() {
        let bytes: Vec<u8> = (0..600 * 1024_u32).map(|byte| byte as u8).collect();
        let mut slow = Slow { inner: &bytes[..], rest: None, until_rest_bytes: SLOW_READ_BYTES, read_bytes: 0 };
        let mut read = Vec::new();
        slow.read_to_end(&mut read).expect("memory can be read");
        assert_eq!((read.len(), slow.read_bytes), (bytes.len(), bytes.len() as u64));
        assert!(read == bytes);
    }
}
