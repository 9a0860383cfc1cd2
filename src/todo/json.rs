//! JSON, read by simd-json into reused buffers and written by hand, so that the bytes are the same everywhere.

use simd_json::{Buffers, Node, StaticNode, Tape};

use super::Timestamp;
use super::json_fault::{judge, place};
use super::validation::BodyError;
use crate::limits::{BODY_BUFFER_KEPT_BYTES, JSON_MAX_DEPTH};

/// Bytes that are looked at together: the compiler makes a few vector instructions of a look at so many.
const LOOK_BYTES: usize = 16;

/// Whether a body is meant as an array: by the first byte that is no white space.
pub fn is_array(body: &[u8]) -> bool {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    body.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) == Some(&b'[')
}

/// Appends `text` as a JSON string, escaping only what RFC 8259 section 7 requires.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let (pieces, rest) = text.as_bytes().as_chunks::<LOOK_BYTES>();
    // Nearly every text has nothing to escape, and is copied in one go.
    let is_plain = pieces.iter().all(|piece| !has_escaped(piece)) && !has_escaped(rest);
    if is_plain {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_escaped(out, text.as_bytes());
    }
    out.push(b'"');
}

/// Whether one of these bytes has to be escaped. Without an early end, so that all are looked at together.
#[inline(always)]
fn has_escaped(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &byte| found | is_escaped(byte))
}

#[inline(always)]
fn is_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn write_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !is_escaped(byte) {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // The short forms, so that no text becomes longer than its client wrote it.
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// U+FEFF, which some programs begin a text with. A parser may ignore it (RFC 8259 section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The reusable buffers of the JSON parser; one for each thread that parses.
pub struct JsonParser {
    buffers: Buffers,
    nodes: Vec<Node<'static>>,
    /// The text as it came: parsing changes it, and what is wrong with it is looked for afterwards.
    original: Vec<u8>,
}

impl Default for JsonParser {
    fn default() -> Self {
        JsonParser { buffers: new_buffers(), nodes: Vec::new(), original: Vec::new() }
    }
}

fn new_buffers() -> Buffers {
    Buffers::with_max_depth(1024, JSON_MAX_DEPTH)
}

impl JsonParser {
    /// Parses one JSON object, in place.
    pub(super) fn parse<'p, 'a>(&'p mut self, json: &'a mut [u8]) -> Result<ObjectTape<'p, 'a>, BodyError> {
        let parsed = self.parse_text(json)?;
        match parsed.tape.0.first() {
            Some(Node::Object { .. }) => Ok(parsed),
            _ => Err(BodyError::whole("the body must be a JSON object")),
        }
    }

    /// Parses any JSON text, in place.
    pub(super) fn parse_text<'p, 'a>(&'p mut self, json: &'a mut [u8]) -> Result<ObjectTape<'p, 'a>, BodyError> {
        if json.is_empty() {
            return Err(BodyError::whole("the body is empty; a JSON object is expected"));
        }
        if let Err(error) = std::str::from_utf8(json) {
            return Err(BodyError::whole(format!("the body is not valid UTF-8, {}", place(json, error.valid_up_to()))));
        }
        if json.starts_with(BYTE_ORDER_MARK) {
            // As white space, it leaves every place as it was.
            json[..BYTE_ORDER_MARK.len()].fill(b' ');
        }
        self.original.clear();
        self.original.extend_from_slice(json);
        let text: *mut [u8] = json;
        // SAFETY: the pointer comes from the only reference to these bytes, which lives for 'a and is not used below. The
        // compiler alone does not see that what this attempt borrows has ended where the attempt has failed.
        let tape = match self.fill_tape(unsafe { &mut *text }) {
            Ok(tape) => tape,
            Err(error) => {
                self.explain(&error)?;
                // SAFETY: as above; the tape of the failed attempt, all that had pieces of the text, is gone.
                let text: &'a mut [u8] = unsafe { &mut *text };
                text.copy_from_slice(&self.original);
                self.fill_tape(text).map_err(|error| {
                    let place = place(&self.original, error.index());
                    BodyError::whole(format!("the body is not valid JSON, {place}"))
                })?
            }
        };
        if self.original.capacity() > BODY_BUFFER_KEPT_BYTES {
            self.original = Vec::new();
        }
        Ok(ObjectTape { tape, home: &mut self.nodes })
    }

    fn fill_tape<'a>(&mut self, json: &'a mut [u8]) -> Result<Tape<'a>, simd_json::Error> {
        let mut tape: Tape<'a> = Tape(std::mem::take(&mut self.nodes)).reset();
        let is_large = json.len() > BODY_BUFFER_KEPT_BYTES;
        let filled = simd_json::fill_tape(json, &mut self.buffers, &mut tape);
        if is_large {
            self.buffers = new_buffers();
        }
        if filled.is_err() {
            self.nodes = std::mem::replace(&mut tape, Tape(Vec::new())).reset().0;
        }
        filled.map(|()| tape)
    }

    /// Why a text was refused; `Ok` when it is valid, and may be tried again as it now stands in `original`.
    #[cold]
    fn explain(&mut self, error: &simd_json::Error) -> Result<(), BodyError> {
        if matches!(error.error(), simd_json::ErrorType::DepthLimitExceeded) {
            return Err(BodyError::whole(format!("the body is nested deeper than {JSON_MAX_DEPTH} levels")));
        }
        judge(&mut self.original)
    }
}

/// A parsed text, mostly an object; gives the node buffer back when dropped.
pub(super) struct ObjectTape<'p, 'a> {
    tape: Tape<'a>,
    home: &'p mut Vec<Node<'static>>,
}

impl Drop for ObjectTape<'_, '_> {
    fn drop(&mut self) {
        let nodes = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset().0;
        // A large body may have made it large.
        if nodes.capacity() <= BODY_BUFFER_KEPT_BYTES {
            *self.home = nodes;
        }
    }
}

impl<'a> ObjectTape<'_, 'a> {
    /// [`Members::each`] of the object that the text is.
    pub(super) fn each(
        &mut self,
        known_names: &[&'static str],
        take: impl FnMut(&'a str, JsonValue<'a>) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        self.members().each(known_names, take)
    }

    /// The members of the object that the text is.
    pub(super) fn members(&self) -> Members<'_, 'a> {
        Members { nodes: &self.tape.0 }
    }

    /// Calls `take` for each element of the array that the text is, with its number, counted from 0.
    pub(super) fn each_element<'n>(
        &'n self,
        mut take: impl FnMut(usize, Members<'n, 'a>) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        let nodes = &self.tape.0;
        let Some(Node::Array { len, .. }) = nodes.first() else {
            return Err(BodyError::whole("the body must be a JSON object, or an array of them"));
        };
        let mut at = 1;
        for number in 0..*len {
            take(number, Members { nodes: &nodes[at..] })?;
            at += 1 + nodes_within(nodes[at]);
        }
        Ok(())
    }

    /// How many elements the array has that the text is; `None` when it is none.
    pub(super) fn array_len(&self) -> Option<usize> {
        match self.tape.0.first() {
            Some(Node::Array { len, .. }) => Some(*len),
            _ => None,
        }
    }
}

/// Nodes that stand within this one.
fn nodes_within(node: Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => count,
        Node::String(_) | Node::Static(_) => 0,
    }
}

/// The members of an object.
#[derive(Clone, Copy)]
pub(super) struct Members<'n, 'a> {
    /// Those of the object, and what stands behind it.
    nodes: &'n [Node<'a>],
}

impl<'a> Members<'_, 'a> {
    /// Calls `take` for each member of the object, with its known name where it differs from one in case alone: the original
    /// reads names so, and its clients may write them so. A member that stands twice, in one case or several, is an error:
    /// parsers disagree about which one counts (RFC 8259 section 4), so neither does.
    pub(super) fn each(
        self,
        known_names: &[&'static str],
        mut take: impl FnMut(&'a str, JsonValue<'a>) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        let nodes = self.nodes;
        let Some(Node::Object { len, .. }) = nodes.first() else {
            return Err(BodyError::whole("must be a JSON object"));
        };
        // A bit for each known name.
        let mut seen: u32 = 0;
        let mut at = 1;
        for _ in 0..*len {
            let Node::String(name) = nodes[at] else {
                return Err(BodyError::whole("the body is not valid JSON"));
            };
            let exact = known_names.iter().position(|known| *known == name);
            let known = exact.or_else(|| known_names.iter().position(|known| known.eq_ignore_ascii_case(name)));
            if let Some(known) = known {
                let bit = 1 << known;
                if seen & bit != 0 {
                    return Err(BodyError::new(known_names[known], "is given twice"));
                }
                seen |= bit;
            }
            let value = nodes[at + 1];
            take(known.map_or(name, |known| known_names[known]), JsonValue(value))?;
            at += 2 + nodes_within(value);
        }
        Ok(())
    }
}

/// A member's value.
#[derive(Clone, Copy)]
pub(super) struct JsonValue<'a>(Node<'a>);

impl<'a> JsonValue<'a> {
    pub(super) fn string(self, field: &'static str) -> Result<&'a str, BodyError> {
        match self.0 {
            Node::String(text) => Ok(text),
            _ => Err(BodyError::new(field, "must be a string")),
        }
    }

    pub(super) fn optional_string(self, field: &'static str) -> Result<Option<&'a str>, BodyError> {
        match self.0 {
            Node::Static(StaticNode::Null) => Ok(None),
            Node::String(text) => Ok(Some(text)),
            _ => Err(BodyError::new(field, "must be a string or null")),
        }
    }

    pub(super) fn optional_bool(self, field: &'static str) -> Result<Option<bool>, BodyError> {
        match self.0 {
            Node::Static(StaticNode::Null) => Ok(None),
            Node::Static(StaticNode::Bool(value)) => Ok(Some(value)),
            _ => Err(BodyError::new(field, "must be true, false or null")),
        }
    }

    pub(super) fn timestamp(self, field: &'static str) -> Result<Timestamp, BodyError> {
        self.string(field)?.parse().map_err(|_| BodyError::new(field, "must be an RFC 3339 date and time"))
    }
}
