//! The chunked transfer coding, taken apart byte by byte (RFC 9112 section 7.1).

use super::words::problem_kind::ProblemKind;
use super::words::rejection::Rejection;
use super::words::syntax::{TOKEN, hex_value, is_field_value_byte};
use crate::limits::{CHUNK_EXTENSIONS_MAX_BYTES, CHUNK_LINE_MAX_BYTES, TRAILERS_MAX_BYTES};

/// Takes a chunked body apart, as its bytes come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    body_max_bytes: usize,
    /// Size of the present chunk while its line is read, then what is left of its data, in bytes.
    chunk_left_bytes: usize,
    body_bytes: usize,
    line_bytes: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to the body and have been read.
    pub consumed: usize,
    /// Whether the body has ended. If not, everything was consumed.
    pub done: bool,
}

/// What the next byte has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    FirstSizeDigit,
    Size,
    BeforeSemicolon,
    BeforeExtensionName,
    ExtensionName,
    AfterExtensionName,
    BeforeExtensionValue,
    ExtensionToken,
    ExtensionQuoted,
    ExtensionEscaped,
    AfterExtensionQuoted,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
    Done,
}

impl Decoder {
    /// A decoder of a body of at most so many bytes.
    pub fn new(body_max_bytes: usize) -> Decoder {
        Decoder {
            state: State::default(),
            body_max_bytes,
            chunk_left_bytes: 0,
            body_bytes: 0,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Reads `input` on from where the last call stopped, and appends the data of the chunks to `body`. Extensions are
    /// checked and ignored; trailers are checked and dropped, because none is known here that may be merged into the
    /// head (RFC 9110 section 6.5.1).
    ///
    /// # Errors
    /// 400 for what is no chunked body, 413 for a body over its limit, 431 for too many trailer bytes. The
    /// connection has to close, and the decoder is not to be used again.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<Progress, Rejection> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let taken = self.chunk_left_bytes.min(input.len() - at);
                body.extend_from_slice(&input[at..at + taken]);
                at += taken;
                self.chunk_left_bytes -= taken;
                if self.chunk_left_bytes == 0 {
                    self.state = State::DataCarriageReturn;
                }
            } else {
                self.state = self.step(input[at])?;
                self.count()?;
                at += 1;
            }
        }
        Ok(Progress { consumed: at, done: self.state == State::Done })
    }

    /// The state after one byte that is not chunk data.
    fn step(&mut self, byte: u8) -> Result<State, Rejection> {
        use State::*;
        let next = match (self.state, byte) {
            (FirstSizeDigit | Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = hex_value(byte).map_or(0, usize::from);
                // Both factors are bounded by the check below, so that this cannot overflow.
                self.chunk_left_bytes = self.chunk_left_bytes * 16 + digit;
                if self.chunk_left_bytes > self.body_max_bytes - self.body_bytes {
                    return Err(Rejection::BODY_TOO_LARGE);
                }
                Size
            }
            // chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
            (
                Size | BeforeSemicolon | ExtensionName | AfterExtensionName | ExtensionToken | AfterExtensionQuoted,
                b';',
            ) => BeforeExtensionName,
            (Size | ExtensionToken | AfterExtensionQuoted, b' ' | b'\t') => BeforeSemicolon,
            (ExtensionName, b' ' | b'\t') => AfterExtensionName,
            (BeforeSemicolon | BeforeExtensionName | AfterExtensionName | BeforeExtensionValue, b' ' | b'\t') => {
                self.state
            }
            (ExtensionName | AfterExtensionName, b'=') => BeforeExtensionValue,
            (BeforeExtensionName | ExtensionName, _) if TOKEN.contains(byte) => ExtensionName,
            (BeforeExtensionValue | ExtensionToken, _) if TOKEN.contains(byte) => ExtensionToken,
            (BeforeExtensionValue, b'"') => ExtensionQuoted,
            (ExtensionQuoted, b'"') => AfterExtensionQuoted,
            (ExtensionQuoted, b'\\') => ExtensionEscaped,
            (ExtensionQuoted | ExtensionEscaped, _) if is_field_value_byte(byte) => ExtensionQuoted,
            (Size | ExtensionName | ExtensionToken | AfterExtensionQuoted, b'\r') => SizeLineFeed,
            (SizeLineFeed, b'\n') => self.start_chunk(),
            (DataCarriageReturn, b'\r') => DataLineFeed,
            (DataLineFeed, b'\n') => FirstSizeDigit,
            (TrailerStart, b'\r') => EndLineFeed,
            (TrailerName, b':') => TrailerValue,
            (TrailerStart | TrailerName, _) if TOKEN.contains(byte) => TrailerName,
            (TrailerValue, _) if is_field_value_byte(byte) => TrailerValue,
            (TrailerValue, b'\r') => TrailerLineFeed,
            (TrailerLineFeed, b'\n') => TrailerStart,
            (EndLineFeed, b'\n') => Done,
            (state, _) => return Err(refuse(state)),
        };
        Ok(next)
    }

    /// The line of a chunk has ended: its data follows, or the trailers behind the last chunk.
    fn start_chunk(&mut self) -> State {
        self.body_bytes += self.chunk_left_bytes;
        if self.chunk_left_bytes == 0 { State::TrailerStart } else { State::Data }
    }

    /// Counts the byte just read against the limits of what is not data.
    fn count(&mut self) -> Result<(), Rejection> {
        use State::*;
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_MAX_BYTES {
            return Err(Rejection::bad_request("a chunk line or trailer line is longer than 1024 bytes"));
        }
        match self.state {
            BeforeSemicolon | BeforeExtensionName | ExtensionName | AfterExtensionName | BeforeExtensionValue
            | ExtensionToken | ExtensionQuoted | ExtensionEscaped | AfterExtensionQuoted => {
                self.extension_bytes += 1;
                if self.extension_bytes > CHUNK_EXTENSIONS_MAX_BYTES {
                    return Err(Rejection::bad_request("the chunk extensions have more than 16384 bytes together"));
                }
            }
            TrailerName | TrailerValue | TrailerLineFeed => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > TRAILERS_MAX_BYTES {
                    return Err(Rejection::new(
                        ProblemKind::HeadTooLarge,
                        "the trailers have more than 4096 bytes together",
                    ));
                }
            }
            FirstSizeDigit | Data | TrailerStart => self.line_bytes = 0,
            _ => {}
        }
        Ok(())
    }
}

const _: () = {
    assert!(CHUNK_LINE_MAX_BYTES == 1024, "the text of the 400 names the limit");
    assert!(CHUNK_EXTENSIONS_MAX_BYTES == 16384, "the text of the 400 names the limit");
    assert!(TRAILERS_MAX_BYTES == 4096, "the text of the 431 names the limit");
};

#[cold]
fn refuse(state: State) -> Rejection {
    use State::*;
    Rejection::bad_request(match state {
        FirstSizeDigit | Size => "a chunk does not start with its size as a hexadecimal number",
        DataCarriageReturn | DataLineFeed => "the data of a chunk is longer than its size, or not followed by CRLF",
        TrailerStart | TrailerName | TrailerValue => "a trailer field is malformed",
        SizeLineFeed | TrailerLineFeed | EndLineFeed => "a line of the chunked body does not end in CRLF",
        _ => "a chunk extension is malformed",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::BODY_MAX_BYTES;

    /// The whole outcome: body and bytes consumed, or the status; `None` while more is needed.
    fn decode(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, u16> {
        decode_in_pieces(input, std::iter::repeat(input.len().max(1)))
    }

    fn decode_in_pieces(input: &[u8], sizes: impl Iterator<Item = usize>) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let (mut decoder, mut body, mut consumed) = (Decoder::new(BODY_MAX_BYTES), Vec::new(), 0);
        for size in sizes {
            let piece = &input[consumed..input.len().min(consumed + size)];
            let progress = decoder.decode(piece, &mut body).map_err(|rejection| rejection.status().code())?;
            consumed += progress.consumed;
            if progress.done {
                return Ok(Some((body, consumed)));
            }
            assert_eq!(progress.consumed, piece.len());
            if consumed == input.len() {
                return Ok(None);
            }
        }
        unreachable!("sizes never end")
    }

    fn whole(body: &str, input: &str) -> Result<Option<(Vec<u8>, usize)>, u16> {
        Ok(Some((body.into(), input.len())))
    }

    #[test]
    fn well_formed_bodies() {
        let cases = [
            ("0\r\n\r\n", ""),
            ("000\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("1\r\nh\r\n00004\r\nello\r\n0\r\n\r\n", "hello"),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
            ("1;a=b\r\nh\r\n0\r\n\r\n", "h"),
            ("1 ; a = b ;c\t;d = \"x\\\"y;\" ; e\r\nh\r\n0;f\r\n\r\n", "h"),
            ("0\r\nA: b\r\nC:\r\nD:\t e \r\n\r\n", ""),
        ];
        for (input, body) in cases {
            assert_eq!(decode(input.as_bytes()), whole(body, input), "{input:?}");
            // What follows belongs to the next request.
            let followed = format!("{input}GET / HTTP/1.1\r\n");
            assert_eq!(decode(followed.as_bytes()), whole(body, input), "{input:?}");
            for length in 0..input.len() {
                assert_eq!(decode(&input.as_bytes()[..length]), Ok(None), "{input:?} {length}");
            }
        }
    }

    #[test]
    fn malformed_bodies() {
        let cases = [
            "\r\n",
            "\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "0x1\r\n",
            "1 \r\n",
            "1\t\r\n",
            "1 1\r\n",
            "1\n",
            "1\r\r",
            "1\rh",
            "1\r\nhh",
            "1\r\nh\n",
            "1\r\nh\r\r",
            "1\r\nh1\r\n",
            "1\r\nh\r\n\r\n",
            "1;\r\n",
            "1;;\r\n",
            "1;a;\r\n",
            "1;a=\r\n",
            "1;=b\r\n",
            "1;a=b=c\r\n",
            "1;a \r\n",
            "1;a=b \r\n",
            "1;a b\r\n",
            "1;a=\"b\r\n",
            "1;a=\"b\\\r\n",
            "1;a=\"b\"c\r\n",
            "1;a=\"\u{7f}\"\r\n",
            "1;a\n",
            "1;\0\r\n",
            "1,a\r\n",
            "0\r\nA\r\n",
            "0\r\n: b\r\n",
            "0\r\nA : b\r\n",
            "0\r\n A: b\r\n",
            "0\r\nA: b\n",
            "0\r\nA: b\r\n c\r\n",
            "0\r\nA: \0\r\n",
            "0\r\nA: b\rc",
            "0\r\n\n",
            "0\r\n\r\r",
            "0\n\r\n",
            "0\r\n\rG",
        ];
        for input in cases {
            assert_eq!(decode(input.as_bytes()), Err(400), "{input:?}");
        }
    }

    #[test]
    fn the_body_is_bounded() {
        assert_eq!(decode(b"10000\r\n"), Ok(None));
        assert_eq!(decode(b"10001\r\n"), Err(413));
        assert_eq!(decode(b"FFFFFFFFFFFFFFFF\r\n"), Err(413));
        assert_eq!(decode(b"10000000000000000\r\n"), Err(413));
        let padded = "00000000000000000000001\r\nh\r\n0\r\n\r\n";
        assert_eq!(decode(padded.as_bytes()), whole("h", padded));

        let mut input = format!("{BODY_MAX_BYTES:x}\r\n").into_bytes();
        input.resize(input.len() + BODY_MAX_BYTES, b'x');
        input.extend_from_slice(b"\r\n0\r\n\r\n");
        assert_eq!(decode(&input), Ok(Some((vec![b'x'; BODY_MAX_BYTES], input.len()))));
        let end = input.len() - b"0\r\n\r\n".len();
        input.truncate(end);
        input.extend_from_slice(b"1\r\n");
        assert_eq!(decode(&input), Err(413));
    }

    #[test]
    fn lines_extensions_and_trailers_are_bounded_without_an_end() {
        let zeros = |count| vec![b'0'; count];
        assert_eq!(decode(&zeros(CHUNK_LINE_MAX_BYTES)), Ok(None));
        assert_eq!(decode(&zeros(CHUNK_LINE_MAX_BYTES + 1)), Err(400));

        let mut chunk = b"1;".to_vec();
        chunk.resize(1000, b'a');
        chunk.extend_from_slice(b"\r\nh\r\n");
        let chunks_allowed = CHUNK_EXTENSIONS_MAX_BYTES / 999;
        assert_eq!(decode(&chunk.repeat(chunks_allowed)), Ok(None));
        assert_eq!(decode(&chunk.repeat(chunks_allowed + 1)), Err(400));

        let trailers = |count| [&b"0\r\n"[..], &b"A: b\r\n".repeat(count)].concat();
        assert_eq!(decode(&trailers(TRAILERS_MAX_BYTES / 6)), Ok(None));
        assert_eq!(decode(&trailers(TRAILERS_MAX_BYTES)), Err(431));
    }

    fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
        let chunk =
            ("[0-9a-f]{1,3}", prop::sample::select(vec!["", ";a", " ; a=\"b;c\"", ";a=b;c"]), "[a-f0-9;\r\n]{0,40}");
        let well_formed =
            (prop::collection::vec(chunk, 0..4), prop::sample::select(vec!["", "A: b\r\n", "A:\r\nB: \r\n"])).prop_map(
                |(chunks, trailers)| {
                    let mut input = Vec::new();
                    for (_, extension, data) in chunks.iter().filter(|(_, _, data)| !data.is_empty()) {
                        input.extend_from_slice(format!("{:x}{extension}\r\n{data}\r\n", data.len()).as_bytes());
                    }
                    input.extend_from_slice(format!("0\r\n{trailers}\r\nGET").as_bytes());
                    input
                },
            );
        let noise = prop::collection::vec(prop::sample::select(b"05aF;=\"\\ \t\r\n:x\0".to_vec()), 0..60);
        let mutated =
            (well_formed.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut input, at, byte)| {
                let at = at.index(input.len());
                input[at] = byte;
                input
            });
        prop_oneof![well_formed, mutated, noise]
    }

    proptest! {
        #[test]
        fn splits_do_not_change_the_outcome(input in chunked_body(), sizes in prop::collection::vec(1usize..9, 1..20)) {
            let expected = decode(&input);
            prop_assert_eq!(&decode_in_pieces(&input, std::iter::repeat(1)), &expected);
            prop_assert_eq!(&decode_in_pieces(&input, sizes.into_iter().cycle()), &expected);
        }

        #[test]
        fn random_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&input);
        }
    }
}
