//! A client that sees every byte: it checks each answer for what all answers have in common.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use million_rps::http::ProblemKind;
use serde_json::Value;

use super::PATIENCE;
use super::request::Request;

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When the server does not take the connection.
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server takes the connection");
        Client::new(stream)
    }

    /// A client on a connection that somebody else made.
    pub fn new(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a deadline can be set");
        Client { stream, received: Vec::new(), taken: 0 }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the server does not take them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes the request");
    }

    /// Sends bytes to a server that may have closed already.
    ///
    /// # Errors
    /// It has.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Makes the end of this client a reset (SO_LINGER of zero seconds).
    pub fn reset_when_dropped(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER can be set");
    }

    /// A second handle on the connection, for a thread that only sends.
    pub fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor is free")
    }

    /// Sends a request and takes its answer.
    pub fn call(&mut self, request: &Request) -> Answer {
        self.send(request.bytes());
        self.answer_to(request)
    }

    /// Takes the next answer, which is for this request.
    pub fn answer_to(&mut self, request: &Request) -> Answer {
        if request.is_head() { self.answer_to_head() } else { self.answer() }
    }

    /// Takes the next answer, to any request but HEAD.
    ///
    /// # Panics
    /// When none comes, or when it breaks a rule that holds for all answers.
    pub fn answer(&mut self) -> Answer {
        self.next_answer(false).expect("an answer comes")
    }

    /// Takes the next answer, to a HEAD request.
    ///
    /// # Panics
    /// As [`Client::answer`].
    pub fn answer_to_head(&mut self) -> Answer {
        self.next_answer(true).expect("an answer comes")
    }

    /// Takes the next answer; `None` when the server has ended the connection instead, between two answers.
    ///
    /// # Panics
    /// When an answer is cut off, or breaks a rule.
    pub fn next_answer(&mut self, to_head: bool) -> Option<Answer> {
        let head_end = loop {
            let pending = &self.received[self.taken..];
            if let Some(at) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(pending.len() < 64 * 1024, "the head of the answer does not end: {}", lossy(pending));
            if !self.receive() {
                let pending = &self.received[self.taken..];
                assert!(pending.is_empty(), "the connection ended within the head of an answer: {}", lossy(pending));
                return None;
            }
        };
        let mut answer = Answer::from_head(&self.received[self.taken..self.taken + head_end]);
        self.taken += head_end;
        let length = if to_head { 0 } else { answer.body_length() };
        while self.received.len() - self.taken < length {
            assert!(self.receive(), "the connection ended within the body of {answer:?}");
        }
        answer.body = self.received[self.taken..self.taken + length].to_vec();
        self.taken += length;
        if self.taken == self.received.len() {
            self.received.clear();
            self.taken = 0;
        }
        Some(answer)
    }

    /// Takes what has come, and more of it; `false` at the end of the connection.
    fn receive(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => {
                    self.received.extend_from_slice(&piece[..length]);
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The server may reset a connection that it had closed while we were still sending.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return false,
                Err(error) => {
                    panic!("nothing more has come ({error}); so far: {}", lossy(&self.received[self.taken..]))
                }
            }
        }
    }

    /// Takes the next answer; `None` when the connection ends before it is complete, as when the server is killed.
    pub fn answer_unless_cut_off(&mut self) -> Option<Answer> {
        while !self.has_whole_answer() {
            if !self.receive() {
                return None;
            }
        }
        self.next_answer(false)
    }

    fn has_whole_answer(&self) -> bool {
        let pending = &self.received[self.taken..];
        let head_end = pending.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        head_end.is_some_and(|at| pending.len() >= at + Answer::from_head(&pending[..at]).body_length())
    }

    /// Waits until something has come, and takes nothing of it.
    pub fn wait_for_bytes(&self) {
        let length = loop {
            match self.stream.peek(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                peeked => break peeked.expect("something comes"),
            }
        };
        assert!(length > 0, "the connection has ended");
    }

    /// Takes all that still comes, whatever it is, until the connection ends; returns the number of bytes.
    pub fn read_to_end(&mut self) -> usize {
        let mut bytes = self.received.len() - self.taken;
        self.received.clear();
        self.taken = 0;
        while self.receive() {
            bytes += self.received.len();
            self.received.clear();
        }
        bytes
    }

    /// Checks that nothing more comes, and that the server ends the connection.
    pub fn assert_ended(&mut self) {
        if let Some(answer) = self.next_answer(false) {
            panic!("the connection should have ended, but an answer came: {answer:?}");
        }
    }

    /// Checks that the connection still serves: one more request is answered.
    pub fn assert_goes_on(&mut self) {
        let answer = self.call(&super::request::get("/health"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Bytes as text for a failure's message, cut to what a person reads.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// An answer.
#[derive(Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields, in their order, names as sent.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        self.fields.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))?;
        write!(f, "\n{}", lossy(&self.body))
    }
}

impl Answer {
    fn from_head(head: &[u8]) -> Answer {
        let head = std::str::from_utf8(head).expect("heads are ASCII");
        let mut lines = head.strip_suffix("\r\n\r\n").expect("the head is whole").split("\r\n");
        let status_line = lines.next().expect("there is a first line");
        let status: u16 = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(code, reason)| (!reason.is_empty() && code.len() == 3).then(|| code.parse().ok())?)
            .unwrap_or_else(|| panic!("{status_line:?} is no status line"));
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no field"));
                assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{line:?}");
                assert!(value.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{line:?}");
                (name.to_owned(), value.to_owned())
            })
            .collect();
        let answer = Answer { status, fields, body: Vec::new() };
        answer.check();
        answer
    }

    /// What holds for all answers.
    fn check(&self) {
        for (at, (name, _)) in self.fields.iter().enumerate() {
            let again = self.fields[..at].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
            // A list may come in several lines (RFC 9110 section 5.3); this one does where CORS_ORIGINS names some.
            let is_list = name.eq_ignore_ascii_case("Vary");
            assert!(!again || is_list, "{name} is sent twice: {self:?}");
        }
        assert_eq!(self.field("Transfer-Encoding"), None, "every length is known beforehand: {self:?}");
        if self.status < 200 {
            assert_eq!(self.field("Content-Length"), None, "RFC 9110 section 8.6 forbids it: {self:?}");
            return;
        }
        let date = self.field("Date").unwrap_or_else(|| panic!("Date is missing: {self:?}"));
        let moment = httpdate::parse_http_date(date).unwrap_or_else(|_| panic!("{date:?} is no date"));
        assert_eq!(httpdate::fmt_http_date(moment), date, "dates are written in one form (RFC 9110 section 5.6.7)");
        match self.status {
            204 => assert_eq!(self.field("Content-Length"), None, "RFC 9110 section 8.6 forbids it: {self:?}"),
            304 => {}
            _ => assert!(self.field("Content-Length").is_some(), "Content-Length is missing: {self:?}"),
        }
    }

    fn body_length(&self) -> usize {
        match self.status {
            100..200 | 204 | 304 => 0,
            _ => self.content_length(),
        }
    }

    /// The value of `Content-Length`.
    pub fn content_length(&self) -> usize {
        let length = self.field("Content-Length").expect("Content-Length is there");
        length.parse().unwrap_or_else(|_| panic!("{length:?} is no length"))
    }

    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The value of a header field that has to be there.
    pub fn required(&self, name: &str) -> &str {
        self.field(name).unwrap_or_else(|| panic!("{name} is missing: {self:?}"))
    }

    /// Whether the server says that the connection ends.
    pub fn closes(&self) -> bool {
        self.field("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Checks the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Checks that this is a problem (RFC 9457) of this status, complete and with the text in `error` that clients of
    /// the original look for, and returns all its texts.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.required("Content-Type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        for member in ["title", "error"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} is missing: {self:?}");
        }
        let slug = problem["type"].as_str().and_then(|reference| reference.strip_prefix("/docs/problems/"));
        let kind = slug.and_then(|slug| ProblemKind::from_slug(slug.as_bytes())).expect("a type that has its page");
        assert_eq!((problem["title"].as_str(), kind.status().code()), (Some(kind.title()), status), "{self:?}");
        problem.to_string()
    }
}
