//! What the servers that only write a constant response share: their command line, the response, and the counting of
//! requests. They are limits and comparisons, not servers for use.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::PathBuf;

use clap::Parser;

/// Connections that may wait to be accepted: a load opens all of its connections at once.
const BACKLOG: libc::c_int = 4096;
/// What a request without a body ends with.
const END: &[u8] = b"\r\n\r\n";

/// The command line of a constant server.
#[derive(Debug, Clone, Parser)]
pub struct ConstantArguments {
    /// A file with the bytes of a whole response, head and body. The floors take several, and answer with them in turn
    #[arg(long, value_name = "FILE", required = true)]
    pub response: Vec<PathBuf>,
    /// The port of the loopback to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
}

impl ConstantArguments {
    /// Listens, and tells the runner where.
    ///
    /// # Errors
    /// The port is taken.
    pub fn listen(&self) -> std::io::Result<TcpListener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        lengthen_queue(&listener)?;
        Ok(listener)
    }

    /// Tells the runner where this program listens.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn announce(&self, listener: &TcpListener) -> std::io::Result<()> {
        self.announce_address(listener.local_addr()?)
    }

    /// Tells the runner where this program listens.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn announce_address(&self, address: SocketAddr) -> std::io::Result<()> {
        use std::io::Write as _;
        writeln!(std::io::stdout(), "listens on http://{address}")
    }

    /// The bytes of each response.
    ///
    /// # Errors
    /// A file cannot be read, or is empty.
    pub fn responses(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path)?;
            if bytes.is_empty() {
                return Err(std::io::Error::other(format!("{} is empty", path.display())));
            }
            Ok(bytes)
        };
        self.response.iter().map(read).collect()
    }

    /// The bytes of the response, for servers that have one.
    ///
    /// # Errors
    /// The file cannot be read or is empty, or there are several.
    pub fn response_bytes(&self) -> std::io::Result<Vec<u8>> {
        match <[Vec<u8>; 1]>::try_from(self.responses()?) {
            Ok([response]) => Ok(response),
            Err(_) => Err(std::io::Error::other("this program returns one response")),
        }
    }

    /// The parts of the response, for servers that make the head themselves.
    ///
    /// # Errors
    /// The file cannot be read, or holds no response.
    pub fn response_parts(&self) -> std::io::Result<ConstantResponse> {
        let bytes = self.response_bytes()?;
        ConstantResponse::read(&bytes)
            .ok_or_else(|| std::io::Error::other(format!("{} is no HTTP/1.1 response", self.response[0].display())))
    }
}

/// A response in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstantResponse {
    /// The status code.
    pub status: u16,
    /// Header fields, without `Date`, `Content-Length` and `Connection`, which every server writes by itself.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl ConstantResponse {
    /// Reads the bytes of a response; `None` when they are none.
    pub fn read(bytes: &[u8]) -> Option<ConstantResponse> {
        let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let mut lines = std::str::from_utf8(&bytes[..head_end]).ok()?.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let is_the_servers = |name: &str| ["date", "content-length", "connection"].contains(&name);
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        let fields: Vec<(String, String)> = fields.collect::<Option<_>>()?;
        let fields = fields.into_iter().filter(|(name, _)| !is_the_servers(name)).collect();
        Some(ConstantResponse { status, fields, body: bytes[head_end + 4..].to_vec() })
    }
}

/// Lets more connections wait to be accepted than the standard library does.
///
/// # Errors
/// The kernel refuses.
pub fn lengthen_queue(listener: &TcpListener) -> std::io::Result<()> {
    // SAFETY: the descriptor is open; listening again only changes the length of the queue (listen(2)).
    let result = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the congestion control (tcp(7)) that ours takes on loopback, so that a floor is one for it. Where the system refuses,
/// its own choice stays.
pub fn choose_congestion_control(listener: &TcpListener) {
    const NAME: &[u8] = b"reno";
    let length = NAME.len() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of the name, which lives for ever.
    unsafe {
        let name = NAME.as_ptr().cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, name, length);
    }
}

/// Makes a connection send small responses at once.
///
/// # Errors
/// The descriptor is not that of an open connection.
pub fn set_no_delay(descriptor: RawFd) -> std::io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `on`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), length) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Copies of a response in a row, or of some in turn, so that any number of answers leaves with few calls.
pub struct Repeated {
    bytes: Vec<u8>,
    /// Where each response of a turn begins, and where the turn ends.
    starts: Vec<u64>,
}

impl Repeated {
    /// Most bytes of the copies together: a deep pipeline of small responses still fits one call, and all of it stays in
    /// the second-level cache. Responses that are longer together are there once.
    const MAX_BYTES: usize = 256 * 1024;

    /// As many copies as are worth it, at least one; of one response at least.
    pub fn new(responses: &[Vec<u8>]) -> Repeated {
        let mut starts = vec![0];
        starts.extend(responses.iter().scan(0, |end, response| {
            *end += response.len() as u64;
            Some(*end)
        }));
        let turn = responses.concat();
        let copies = (Repeated::MAX_BYTES / turn.len()).clamp(1, 128);
        Repeated { bytes: turn.repeat(copies), starts }
    }

    fn turn_bytes(&self) -> u64 {
        *self.starts.last().unwrap_or(&1)
    }

    /// Bytes of the next `count` responses to a client that has been sent, or is owed, `owed_bytes` in all: whole responses.
    #[inline]
    pub fn bytes_of_next(&self, count: u64, owed_bytes: u64) -> u64 {
        let turn = self.starts.len() as u64 - 1;
        if turn == 1 {
            return count * self.starts[1];
        }
        let at = self.starts.partition_point(|start| *start < owed_bytes % self.turn_bytes()) as u64;
        let end = at + count;
        end / turn * self.turn_bytes() + self.starts[(end % turn) as usize] - self.starts[at as usize]
    }

    /// What to send next to a client that has been sent `sent_bytes` in all and is owed `owed_bytes` more.
    #[inline]
    pub fn next(&self, sent_bytes: u64, owed_bytes: u64) -> &[u8] {
        let start = (sent_bytes % self.turn_bytes()) as usize;
        let length = owed_bytes.min((self.bytes.len() - start) as u64) as usize;
        &self.bytes[start..start + length]
    }
}

/// Counts the ends of requests (`\r\n\r\n`) in a stream that comes in pieces. Bodies are not known to it.
#[derive(Debug, Default, Clone, Copy)]
pub struct RequestEnds {
    /// How many bytes of an end the last piece ended with.
    matched: u8,
}

impl RequestEnds {
    /// The number of ends in the next piece.
    #[inline]
    pub fn count(&mut self, piece: &[u8]) -> u64 {
        let mut ends = 0;
        let mut at = 0;
        // An end may have begun in the piece before.
        while self.matched > 0 && at < piece.len() {
            ends += self.step(piece[at]);
            at += 1;
        }
        let rest = at;
        for found in memchr::memmem::find_iter(&piece[rest..], END) {
            ends += 1;
            at = rest + found + END.len();
        }
        // And one may begin in the last bytes of this one.
        let tail = at.max(piece.len().saturating_sub(END.len() - 1));
        piece[tail..].iter().for_each(|byte| ends += self.step(*byte));
        ends
    }

    fn step(&mut self, byte: u8) -> u64 {
        self.matched = match (self.matched, byte) {
            (0 | 2, b'\r') => self.matched + 1,
            (1, b'\n') => 2,
            (3, b'\n') => 4,
            (_, b'\r') => 1,
            _ => 0,
        };
        let is_end = self.matched == 4;
        self.matched %= 4;
        u64::from(is_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_however_the_stream_is_cut() {
        let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nA: \r\r\n\r\nGET / HTTP/1.1\r\n\r";
        for size in 1..=stream.len() {
            let mut ends = RequestEnds::default();
            let count: u64 = stream.chunks(size).map(|piece| ends.count(piece)).sum();
            assert_eq!(count, 2, "in pieces of {size}");
            assert_eq!(ends.count(b"\n"), 1);
        }
    }

    #[test]
    fn what_is_owed_is_sent_in_order_from_any_place() {
        let repeated = Repeated::new(&[vec![b'x'; 100_000]]);
        assert_eq!(repeated.next(0, 300_000).len(), 200_000, "two copies fit");
        assert_eq!(repeated.next(150_000, 300_000).len(), 150_000);
        let repeated = Repeated::new(&[b"abc".to_vec()]);
        assert_eq!(repeated.bytes_of_next(2, 3), 6);
        assert_eq!(repeated.next(4, 3), b"bca");
        assert_eq!(repeated.next(3, 6), b"abcabc");
    }

    #[test]
    fn several_responses_come_in_turn() {
        let repeated = Repeated::new(&[b"a".to_vec(), b"bb".to_vec(), b"cccc".to_vec()]);
        let mut owed = 0;
        let mut sent = Vec::new();
        for count in [1, 1, 2, 3, 1, 7, 0, 3] {
            let bytes = repeated.bytes_of_next(count, owed);
            sent.extend_from_slice(repeated.next(owed, bytes));
            owed += bytes;
        }
        assert_eq!(sent, b"abbcccc".repeat(6));
    }

    #[test]
    fn a_response_is_taken_apart() {
        let bytes = b"HTTP/1.1 304 Not Modified\r\nDate: now\r\nETag: \"a:b\"\r\nConnection: close\r\n\r\nbody";
        let response = ConstantResponse::read(bytes).expect("a response");
        assert_eq!(response.fields, [("etag".to_owned(), "\"a:b\"".to_owned())]);
        assert_eq!((response.status, response.body.as_slice()), (304, b"body".as_slice()));
        assert_eq!(ConstantResponse::read(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
