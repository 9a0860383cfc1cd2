//! The text of an event stream (`text/event-stream`, HTML standard, "Server-sent events").
//!
//! Nothing here can break its lines: JSON has its line ends escaped, and positions, ids and numbers have none.

use super::ResetReason;
use crate::http::Position;
use crate::limits::EVENTS_RECONNECT_MS;

/// What ends a chunk.
pub(super) const CHUNK_END: &[u8] = b"\r\n";

/// How a stream is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In chunks.
    Chunked,
    /// By the end of the connection, for HTTP/1.0.
    Bare,
}

/// Appends the line with the position, and the empty line that ends the event.
pub(super) fn write_id(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(b"id: ");
    position.write(out);
    out.extend_from_slice(b"\n\n");
}

/// Appends the line before a chunk.
pub(super) fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = size;
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends what `write` appends, as one chunk where there are chunks; that is not nothing.
pub(super) fn write_chunk(framing: Framing, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    match framing {
        Framing::Bare => write(out),
        Framing::Chunked => {
            let mut text = Vec::with_capacity(256);
            write(&mut text);
            write_chunk_size(out, text.len());
            out.extend_from_slice(&text);
            out.extend_from_slice(CHUNK_END);
        }
    }
}

fn write_retry_line(out: &mut Vec<u8>, reconnect_ms: u64) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(itoa::Buffer::new().format(reconnect_ms).as_bytes());
    out.push(b'\n');
}

/// Begins a stream of changes behind this position; `None`: the client knows it.
pub fn write_start(framing: Framing, out: &mut Vec<u8>, position: Option<Position>) {
    write_chunk(framing, out, |out| {
        write_retry_line(out, EVENTS_RECONNECT_MS);
        match position {
            Some(position) => write_id(out, position),
            None => out.push(b'\n'),
        }
    });
}

/// Says after what time to connect again, when the connection has ended.
pub fn write_retry(framing: Framing, out: &mut Vec<u8>, reconnect_ms: u64) {
    write_chunk(framing, out, |out| {
        write_retry_line(out, reconnect_ms);
        out.push(b'\n');
    });
}

/// A sign of life, with the position that the client has come to.
pub fn write_heartbeat(framing: Framing, out: &mut Vec<u8>, position: Position) {
    write_chunk(framing, out, |out| {
        out.extend_from_slice(b":\n");
        write_id(out, position);
    });
}

/// The event that says that the list has to be read again. It has the client forget its position.
pub fn write_reset(framing: Framing, out: &mut Vec<u8>, reason: ResetReason) {
    write_chunk(framing, out, |out| {
        out.extend_from_slice(b"event: reset\ndata: {\"reason\":\"");
        out.extend_from_slice(reason.name().as_bytes());
        out.extend_from_slice(b"\"}\nid\n\n");
    });
}

const LIST_START: &[u8] = b"event: list\ndata: {\"todos\":";
const LIST_NEXT: &[u8] = b",\"next\":";

/// Begins the event with a page; the JSON array of `array_bytes` follows, and then [`write_list_end`] with the same `next` and
/// `position`. `next` is JSON: where the next page is.
pub fn write_list_start(framing: Framing, out: &mut Vec<u8>, array_bytes: u64, next: &[u8], position: Position) {
    if framing == Framing::Chunked {
        let mut end = Vec::new();
        write_list_end(Framing::Bare, &mut end, next, position);
        write_chunk_size(out, LIST_START.len() + array_bytes as usize + end.len());
    }
    out.extend_from_slice(LIST_START);
}

/// Ends the event with a page.
pub fn write_list_end(framing: Framing, out: &mut Vec<u8>, next: &[u8], position: Position) {
    out.extend_from_slice(LIST_NEXT);
    out.extend_from_slice(next);
    out.extend_from_slice(b"}\n");
    write_id(out, position);
    if framing == Framing::Chunked {
        out.extend_from_slice(CHUNK_END);
    }
}

/// Ends the stream.
pub fn write_last(framing: Framing, out: &mut Vec<u8>) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(Framing, &mut Vec<u8>)) -> [String; 2] {
        [Framing::Bare, Framing::Chunked].map(|framing| {
            let mut out = Vec::new();
            write(framing, &mut out);
            String::from_utf8(out).expect("UTF-8")
        })
    }

    #[test]
    fn each_text_stands_as_it_is_and_in_a_chunk() {
        let position = Position { progress: 5, state: 1 };
        let id = "id: 5-0000000000000001\n\n";
        for (write, expected) in [
            (
                &(|framing, out: &mut Vec<u8>| write_start(framing, out, Some(position))) as &dyn Fn(_, &mut _),
                format!("retry: 2000\n{id}"),
            ),
            (&|framing, out: &mut Vec<u8>| write_start(framing, out, None), "retry: 2000\n\n".to_owned()),
            (&|framing, out: &mut Vec<u8>| write_retry(framing, out, 0), "retry: 0\n\n".to_owned()),
            (&|framing, out: &mut Vec<u8>| write_heartbeat(framing, out, position), format!(":\n{id}")),
            (
                &|framing, out: &mut Vec<u8>| write_reset(framing, out, ResetReason::TooOld),
                "event: reset\ndata: {\"reason\":\"too_old\"}\nid\n\n".to_owned(),
            ),
            (
                &|framing, out: &mut Vec<u8>| {
                    write_list_start(framing, out, 4, b"null", position);
                    out.extend_from_slice(b"[{}]");
                    write_list_end(framing, out, b"null", position);
                },
                format!("event: list\ndata: {{\"todos\":[{{}}],\"next\":null}}\n{id}"),
            ),
        ] {
            let chunked = format!("{:x}\r\n{expected}\r\n", expected.len());
            assert_eq!(written(write), [expected, chunked]);
        }
        assert_eq!(written(write_last), ["", "0\r\n\r\n"]);
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for (size, expected) in [(0, "0\r\n"), (9, "9\r\n"), (10, "a\r\n"), (0x1234_5678, "12345678\r\n")] {
            let mut out = Vec::new();
            write_chunk_size(&mut out, size);
            assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
        }
    }
}
