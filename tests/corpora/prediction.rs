//! What the parser, as a pure function of the bytes, makes of the requests on one connection.

use million_rps::http::Connection;
use million_rps::http::chunked::Decoder;
use million_rps::http::{Framing, Method, Parsed, Rejection, Version, parse_head};
use million_rps::limits::BODY_MAX_BYTES;

/// One request that was read, or the reason why none was.
#[derive(Debug)]
pub struct Predicted {
    /// Method and target as sent; empty when the request was refused.
    pub start: Vec<u8>,
    /// The version.
    pub version: Version,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the answer has no body.
    pub is_head: bool,
    /// Whether `100 Continue` may come first, or an answer that ends the connection because of it.
    pub waits: bool,
    /// Whether the connection ends behind the answer.
    pub closes: bool,
    /// The status, where the parser decides it.
    pub status: Option<u16>,
}

/// What becomes of the connection when all bytes have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It waits for the next request.
    Open,
    /// It ends.
    Closed,
    /// A request has begun and is not complete.
    Incomplete,
}

/// All requests, and the end.
#[derive(Debug)]
pub struct Prediction {
    pub requests: Vec<Predicted>,
    pub end: End,
}

impl Prediction {
    /// The status with which the parser refuses, if it does.
    pub fn refusal(&self) -> Option<u16> {
        self.requests.last().and_then(|last| last.status)
    }
}

/// Reads all requests of one connection.
pub fn predict(input: &[u8]) -> Prediction {
    let mut requests = Vec::new();
    let mut rest = input;
    let end = loop {
        match read_one(rest) {
            Ok(Some((request, consumed))) => {
                rest = &rest[consumed..];
                let closes = request.closes;
                requests.push(request);
                if closes {
                    break End::Closed;
                }
                if rest.is_empty() {
                    break End::Open;
                }
            }
            Ok(None) => break End::Incomplete,
            Err((rejection, waits)) => {
                requests.push(Predicted {
                    start: Vec::new(),
                    version: Version::Http11,
                    body: Vec::new(),
                    is_head: without_empty_lines(rest).starts_with(b"HEAD "),
                    waits,
                    closes: true,
                    status: Some(rejection.status().code()),
                });
                break End::Closed;
            }
        }
    };
    Prediction { requests, end }
}

fn read_one(input: &[u8]) -> Result<Option<(Predicted, usize)>, (Rejection, bool)> {
    let Parsed::Complete { head, consumed } = parse_head(input).map_err(|rejection| (rejection, false))? else {
        return Ok(None);
    };
    let mut body = Vec::new();
    let body_bytes = match head.framing {
        Framing::None => 0,
        Framing::Length(length) => {
            if length > BODY_MAX_BYTES as u64 {
                return Err((Rejection::BODY_TOO_LARGE, false));
            }
            let length = length as usize;
            let Some(bytes) = input.get(consumed..consumed + length) else { return Ok(None) };
            body.extend_from_slice(bytes);
            length
        }
        Framing::Chunked => {
            let progress = Decoder::new(BODY_MAX_BYTES)
                .decode(&input[consumed..], &mut body)
                .map_err(|rejection| (rejection, head.expect_continue))?;
            if !progress.done {
                return Ok(None);
            }
            progress.consumed
        }
    };
    let line = without_empty_lines(input);
    let line_end = line.windows(2).position(|pair| pair == b"\r\n").expect("a line ends");
    let start_end = line[..line_end].iter().rposition(|&byte| byte == b' ').expect("a version stands behind a space");
    let request = Predicted {
        start: line[..start_end].to_vec(),
        version: head.version,
        body,
        is_head: head.method == Method::Head,
        waits: head.expect_continue,
        closes: head.connection() == Connection::Close,
        status: None,
    };
    Ok(Some((request, consumed + body_bytes)))
}

fn without_empty_lines(input: &[u8]) -> &[u8] {
    &input[input.iter().take_while(|byte| b"\r\n".contains(byte)).count()..]
}

/// The same bytes with `Host` in each HTTP/1.1 request that has none. Many requests of the corpora are older than the rule
/// that refuses them for that alone (RFC 9112 section 3.2), and are meant to show something else.
pub fn with_hosts(input: &[u8]) -> Vec<u8> {
    let mut repaired = input.to_vec();
    let mut at = 0;
    while at < repaired.len() {
        match read_one(&repaired[at..]) {
            Ok(Some((_, consumed))) => at += consumed,
            Err((rejection, _)) if rejection.detail == "Host is missing" => {
                let start = at + repaired[at..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
                let line_end = repaired[start..].windows(2).position(|pair| pair == b"\r\n").expect("a line ends");
                let behind = start + line_end + 2;
                repaired.splice(behind..behind, *b"Host: corpus.example\r\n");
            }
            _ => break,
        }
    }
    repaired
}
