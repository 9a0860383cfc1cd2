//! A pipelined load that costs less than wrk: where one CPU of wrk cannot keep one CPU of a server busy, this can. It reads
//! large pieces, looks at the status and the length of each response, and skips the body. It also keeps each batch's own
//! latency, which wrk estimates again after the run, and wrongly so for pipelines.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use crate::cpu::current_thread_cpu_time;
use crate::epoll::{Epoll, room_for_events};

/// Bytes of one receive.
const RECEIVE_BYTES: usize = 256 * 1024;
/// A server that says nothing for so long has failed, in milliseconds.
const SILENCE_MAX_MS: libc::c_int = 10_000;
/// The longest response head that is read, in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// What is sent: every connection sends `depth` requests together, and the next ones when all are answered.
#[derive(Debug, Clone)]
pub struct PipelineLoad {
    /// The server.
    pub address: SocketAddr,
    /// The bytes of one request.
    pub request: Vec<u8>,
    /// Requests that a connection sends together.
    pub depth: usize,
    /// Connections.
    pub connections: usize,
    /// How long.
    pub duration: Duration,
    /// The status of every response.
    pub status: u16,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineResult {
    /// Responses, each with the status that was asked for.
    pub responses: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Over which time.
    pub elapsed: Duration,
    /// From sending each batch of requests until its last response, in microseconds.
    pub latencies_us: Vec<f64>,
    /// CPU time of the load itself.
    pub cpu_time: Duration,
}

struct Connection {
    socket: TcpStream,
    responses: ResponseStream,
    unanswered: u64,
    sent_at: Instant,
}

impl PipelineLoad {
    /// Runs the load in the calling thread.
    ///
    /// # Errors
    /// A connection breaks, the server falls silent, or answers with another status.
    pub fn run(&self) -> io::Result<PipelineResult> {
        let batch = self.request.repeat(self.depth);
        let epoll = Epoll::new()?;
        let mut connections = Vec::with_capacity(self.connections);
        for number in 0..self.connections {
            let socket = TcpStream::connect(self.address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            epoll.add(socket.as_raw_fd(), libc::EPOLLIN, number as u64)?;
            connections.push(Connection {
                socket,
                responses: ResponseStream::new(self.status),
                unanswered: 0,
                sent_at: Instant::now(),
            });
        }
        let begin = Instant::now();
        let cpu_before = current_thread_cpu_time()?;
        for connection in &mut connections {
            connection.send(&batch, self.depth)?;
        }
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut events = room_for_events(self.connections);
        let mut result = PipelineResult {
            responses: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            latencies_us: Vec::new(),
            cpu_time: Duration::ZERO,
        };
        while begin.elapsed() < self.duration {
            let ready = epoll.wait(&mut events, SILENCE_MAX_MS)?;
            if ready.is_empty() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server has fallen silent"));
            }
            for event in ready {
                let connection = &mut connections[event.u64 as usize];
                let received = connection.socket.read(&mut buffer)?;
                let responses = connection.responses.count(&buffer[..received])?;
                if received == 0 || responses > connection.unanswered {
                    return Err(io::Error::other("a connection was closed, or answered more than it was asked"));
                }
                result.bytes += received as u64;
                result.responses += responses;
                connection.unanswered -= responses;
                if connection.unanswered == 0 {
                    result.latencies_us.push(connection.sent_at.elapsed().as_secs_f64() * 1e6);
                    connection.send(&batch, self.depth)?;
                }
            }
        }
        result.elapsed = begin.elapsed();
        result.cpu_time = current_thread_cpu_time()?.saturating_sub(cpu_before);
        Ok(result)
    }
}

impl Connection {
    /// All earlier requests are answered, so the socket has room for these.
    fn send(&mut self, batch: &[u8], depth: usize) -> io::Result<()> {
        self.unanswered = depth as u64;
        self.sent_at = Instant::now();
        self.socket.write_all(batch)
    }
}

/// Counts the responses of a stream that comes in pieces.
#[derive(Debug)]
struct ResponseStream {
    /// How every response begins.
    beginning: String,
    /// The beginning of a head that has not come to its end.
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    body_bytes: u64,
    is_in_body: bool,
}

impl ResponseStream {
    fn new(status: u16) -> ResponseStream {
        ResponseStream { beginning: format!("HTTP/1.1 {status} "), head: Vec::new(), body_bytes: 0, is_in_body: false }
    }

    /// The number of responses that end in this piece.
    fn count(&mut self, mut piece: &[u8]) -> io::Result<u64> {
        let mut responses = 0;
        loop {
            if self.is_in_body {
                let skipped = (piece.len() as u64).min(self.body_bytes);
                piece = &piece[skipped as usize..];
                self.body_bytes -= skipped;
                if self.body_bytes > 0 {
                    return Ok(responses);
                }
                responses += 1;
                self.is_in_body = false;
            }
            if piece.is_empty() {
                return Ok(responses);
            }
            let (content_length, rest) = if self.head.is_empty()
                && let Some(end) = memchr::memmem::find(piece, b"\r\n\r\n")
            {
                (content_length(&piece[..end], &self.beginning)?, &piece[end + 4..])
            } else {
                let before = self.head.len();
                self.head.extend_from_slice(piece);
                // The empty line may have begun in the piece before.
                let from = before.saturating_sub(3);
                let Some(end) = memchr::memmem::find(&self.head[from..], b"\r\n\r\n") else {
                    if self.head.len() > HEAD_MAX_BYTES {
                        return Err(io::Error::other("a response head that does not end"));
                    }
                    return Ok(responses);
                };
                let end = from + end;
                let content_length = content_length(&self.head[..end], &self.beginning)?;
                self.head.clear();
                (content_length, &piece[end + 4 - before..])
            };
            piece = rest;
            self.body_bytes = content_length;
            self.is_in_body = true;
        }
    }
}

/// The length of the body behind this head, which has to begin so.
fn content_length(head: &[u8], beginning: &str) -> io::Result<u64> {
    let text = String::from_utf8_lossy(&head[..head.len().min(64)]);
    if !head.starts_with(beginning.as_bytes()) {
        return Err(io::Error::other(format!("a response that is no {beginning}: {text}")));
    }
    const NAME: &[u8] = b"\r\nContent-Length: ";
    let digits = memchr::memmem::find(head, NAME).map(|at| &head[at + NAME.len()..]);
    let digits = digits.map(|rest| rest.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default());
    let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    length.ok_or_else(|| io::Error::other(format!("a response without Content-Length: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_counted_however_they_are_cut() {
        let one = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX: y\r\n\r\n[\r\n\r\n12";
        let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let stream = [&one[..], one, empty, one].concat();
        for size in 1..=stream.len() {
            let mut responses = ResponseStream::new(200);
            let counts: Vec<u64> =
                stream.chunks(size).map(|piece| responses.count(piece).expect("well-formed")).collect();
            // An empty body ends with its head.
            assert_eq!(counts.iter().sum::<u64>(), 4, "in pieces of {size}");
        }
    }

    #[test]
    fn other_responses_are_errors() {
        for text in ["HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(ResponseStream::new(200).count(text.as_bytes()).is_err(), "{text}");
        }
    }
}
