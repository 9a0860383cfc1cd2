//! One keep-alive connection to a running server: pipelined POSTs out, answers back in their order.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::texts::SeedTodo;
use crate::limits::{HEADERS_MAX, PIPELINE_DEPTH_MAX};
use crate::todo::write_json_string;

/// Requests in flight on one connection. Half of what a connection of the server may hold, so that it is always read.
pub const PIPELINE_DEPTH: usize = 128;
/// Longest wait for the connection itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer or for room to send: longer than the longest `ACK_TIMEOUT_MS`, after which a server says
/// 503.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Largest head, and largest body, of an answer that is taken, in bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// How much of an unexpected answer's body is shown, in characters.
const SHOWN_BODY_CHARS: usize = 500;
/// Longest wait that a Retry-After is granted.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(PIPELINE_DEPTH <= PIPELINE_DEPTH_MAX / 2);

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The network or the server.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server ended the connection between answers.
    #[error("the server closed the connection")]
    Closed,
    /// An answer that is neither 202 nor 503.
    #[error("the server answered {status}: {body}")]
    Refused {
        /// Its status code.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// What came is no HTTP/1.1 answer with a Content-Length.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(&'static str),
}

/// What the server said to one todo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 202: it is durable.
    Accepted,
    /// 503: try again after this time.
    TryAgain(Duration),
}

pub struct Connection {
    stream: TcpStream,
    head_start: Vec<u8>,
    outgoing: Vec<u8>,
    body: Vec<u8>,
    incoming: Vec<u8>,
    /// Bytes at the start of `incoming` that have been answered for.
    consumed: usize,
}

impl Connection {
    /// # Errors
    /// [`ConnectionError::Io`].
    pub fn open(address: SocketAddr, token: &str) -> Result<Connection, ConnectionError> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let head_start = format!(
            "POST /todos HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: \
             application/json\r\nContent-Length: "
        );
        Ok(Connection {
            stream,
            head_start: head_start.into_bytes(),
            outgoing: Vec::new(),
            body: Vec::new(),
            incoming: Vec::new(),
            consumed: 0,
        })
    }

    /// Sends these todos in one go.
    ///
    /// # Errors
    /// [`ConnectionError::Io`].
    pub fn send(&mut self, todos: impl Iterator<Item = SeedTodo>) -> Result<(), ConnectionError> {
        self.outgoing.clear();
        for todo in todos {
            self.body.clear();
            self.body.extend_from_slice(b"{\"title\":");
            write_json_string(&mut self.body, &todo.title);
            self.body.extend_from_slice(b",\"description\":");
            write_json_string(&mut self.body, &todo.description);
            self.body.extend_from_slice(if todo.completed { b",\"completed\":true}" } else { b"}" });
            self.outgoing.extend_from_slice(&self.head_start);
            write!(self.outgoing, "{}\r\n\r\n", self.body.len())?;
            self.outgoing.extend_from_slice(&self.body);
        }
        Ok(self.stream.write_all(&self.outgoing)?)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// [`ConnectionError`]; the connection is of no use afterwards.
    pub fn receive(&mut self) -> Result<Answer, ConnectionError> {
        loop {
            let head = match read_head(&self.incoming[self.consumed..])? {
                Some(head) => head,
                None => {
                    self.read_more()?;
                    continue;
                }
            };
            while self.incoming.len() - self.consumed < head.bytes + head.body_bytes {
                self.read_more()?;
            }
            let body = self.consumed + head.bytes..self.consumed + head.bytes + head.body_bytes;
            self.consumed = body.end;
            match head.status {
                // Interim answers (RFC 9110 section 15.2) come before the one that counts.
                100..=199 => {}
                202 => return Ok(Answer::Accepted),
                503 => return Ok(Answer::TryAgain(head.retry_after)),
                status => {
                    let body = String::from_utf8_lossy(&self.incoming[body]);
                    let body = body.chars().filter(|c| !c.is_control()).take(SHOWN_BODY_CHARS).collect();
                    return Err(ConnectionError::Refused { status, body });
                }
            }
        }
    }

    fn read_more(&mut self) -> Result<(), ConnectionError> {
        self.incoming.drain(..self.consumed);
        self.consumed = 0;
        let filled = self.incoming.len();
        if filled >= 2 * ANSWER_MAX_BYTES {
            return Err(ConnectionError::Unreadable("it is too long"));
        }
        self.incoming.resize(filled + ANSWER_MAX_BYTES / 4, 0);
        let read = loop {
            match self.stream.read(&mut self.incoming[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.incoming.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(_) => Ok(()),
            // What a socket says when its read timeout has passed.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {ANSWER_TIMEOUT:?}")).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What matters of the head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Length of the head itself.
    bytes: usize,
    body_bytes: usize,
    retry_after: Duration,
}

/// Reads a head from the start of `bytes`; `None` when it is not complete yet.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, ConnectionError> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() > ANSWER_MAX_BYTES => {
            return Err(ConnectionError::Unreadable("its head is too long"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ConnectionError::Unreadable("it is not HTTP/1.1")),
    };
    let status = response.code.unwrap_or_default();
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let body_bytes = match field("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length <= ANSWER_MAX_BYTES => length,
        Some(Ok(_)) => return Err(ConnectionError::Unreadable("its body is too long")),
        None if status < 200 => 0,
        Some(Err(_)) | None => return Err(ConnectionError::Unreadable("it has no Content-Length")),
    };
    // A date instead of seconds is allowed (RFC 9110 section 10.2.3) and counts as a second here.
    let retry_after = field("retry-after").and_then(|value| value.parse().ok()).unwrap_or(1);
    let retry_after = Duration::from_secs(retry_after).clamp(Duration::from_millis(100), RETRY_AFTER_MAX);
    Ok(Some(Head { status, bytes: head_bytes, body_bytes, retry_after }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, String> {
        read_head(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn heads_give_status_length_and_patience() {
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\nRetry-After: 3\r\n\r\n{\"a\":1}";
        let expected = Head { status: 503, bytes: text.len() - 7, body_bytes: 7, retry_after: Duration::from_secs(3) };
        assert_eq!(head(text), Ok(Some(expected)));
        for end in 0..text.len() - 7 {
            assert_eq!(head(&text[..end]), Ok(None), "{end}");
        }
        let patience = |value: &str| {
            head(&format!("HTTP/1.1 503 x\r\nContent-Length: 0\r\n{value}\r\n")).unwrap().unwrap().retry_after
        };
        assert_eq!(patience(""), Duration::from_secs(1));
        assert_eq!(patience("Retry-After: 0\r\n"), Duration::from_millis(100));
        assert_eq!(patience("Retry-After: 86400\r\n"), RETRY_AFTER_MAX);
        assert_eq!(patience("Retry-After: Fri, 31 Dec 2027 23:59:59 GMT\r\n"), Duration::from_secs(1));
    }

    #[test]
    fn answers_that_cannot_be_framed_are_errors() {
        for (text, reason) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", "it is not HTTP/1.1"),
            ("HTTP/1.1 202 x\r\n\r\n", "it has no Content-Length"),
            ("HTTP/1.1 202 x\r\nContent-Length: -1\r\n\r\n", "it has no Content-Length"),
            ("HTTP/1.1 202 x\r\nContent-Length: 99999999\r\n\r\n", "its body is too long"),
        ] {
            assert_eq!(head(text), Err(format!("the server's answer cannot be read: {reason}")), "{text}");
        }
        let endless = format!("HTTP/1.1 202 x\r\nA: {}", "a".repeat(ANSWER_MAX_BYTES));
        assert!(head(&endless).unwrap_err().ends_with("its head is too long"));
    }
}
