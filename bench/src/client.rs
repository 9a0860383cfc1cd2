//! A small HTTP/1.1 client for the loads that wrk cannot make: one blocking connection that stays open.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that says nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The longest response head that is read, in bytes.
const HEAD_MAX_BYTES: u64 = 64 * 1024;

/// An open connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// Its bytes, with the empty line.
    pub bytes: Vec<u8>,
    /// The status code.
    pub status: u16,
    /// The length of the body: 0 where there is no `Content-Length`.
    pub content_length: u64,
}

impl ResponseHead {
    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Sends the bytes of one or more requests.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// Reads the head of the next response.
    ///
    /// # Errors
    /// The connection is broken, or what comes is no response.
    pub fn receive_head(&mut self) -> io::Result<ResponseHead> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if (&mut self.stream).take(HEAD_MAX_BYTES).read_until(b'\n', &mut bytes)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
            if bytes.len() as u64 > HEAD_MAX_BYTES {
                return Err(invalid("the response head is too long"));
            }
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
        let status = status.and_then(|digits| digits.parse().ok()).ok_or_else(|| invalid("no HTTP/1.1 status line"))?;
        let mut head = ResponseHead { bytes, status, content_length: 0 };
        if status != 304 && status != 204 {
            let length = head.field("content-length").and_then(|value| value.parse().ok());
            head.content_length = length.ok_or_else(|| invalid("no Content-Length"))?;
        }
        Ok(head)
    }

    /// The body of the response with this head, to be read to its end before the next response.
    pub fn body(&mut self, head: &ResponseHead) -> io::Take<&mut BufReader<TcpStream>> {
        (&mut self.stream).take(head.content_length)
    }

    /// Sends one request and reads its response.
    ///
    /// # Errors
    /// The connection is broken, or what comes is no response.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<(ResponseHead, Vec<u8>)> {
        self.send(request)?;
        let head = self.receive_head()?;
        let mut body = Vec::new();
        self.body(&head).read_to_end(&mut body)?;
        if body.len() as u64 != head.content_length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body is shorter than its Content-Length"));
        }
        Ok((head, body))
    }
}

/// The bytes of a GET request.
pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};

    fn served(response: &'static [u8]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client connects");
            stream.write_all(response).expect("the client reads");
            stream.shutdown(Shutdown::Write).expect("it is open");
            // Closing with unread requests would reset the connection, and the response might be lost.
            io::copy(&mut stream, &mut io::sink()).expect("the client closes");
        });
        Client::connect(address).expect("it listens")
    }

    #[test]
    fn responses_that_follow_each_other_are_told_apart() {
        let mut client =
            served(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
        let (head, body) = client.exchange(&get("/")).expect("a response");
        assert_eq!((head.status, body.as_slice()), (200, b"ab".as_slice()));
        let (head, body) = client.exchange(&get("/")).expect("a response");
        assert_eq!((head.status, head.field("etag"), body.len()), (304, Some("\"x\""), 0));
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        let mut client = served(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab");
        assert_eq!(client.exchange(&get("/")).expect_err("too short").kind(), io::ErrorKind::UnexpectedEof);
        let mut client = served(b"SSH-2.0\r\n\r\n");
        assert_eq!(client.exchange(&get("/")).expect_err("not HTTP").kind(), io::ErrorKind::InvalidData);
    }
}
