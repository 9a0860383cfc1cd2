//! Compression of pieces that can be put one behind the other, and still be one encoded body.
//!
//! ```text
//! gzip    header, deflate blocks up to a byte boundary … last block, CRC-32, length     one member (RFC 1952)
//! br      window size, meta-blocks up to a byte boundary … empty last meta-block        one stream (RFC 7932)
//! zstd    frame, frame, …                                                               RFC 8878 section 3
//! ```
//! No piece refers to bytes, distances or tables of another, so the order and the neighbours of a piece do not matter.

use brotli::enc::{BrotliEncoderParams, backward_references::BrotliEncoderMode};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::bulk::Compressor;

use crate::http::Coding;

/// Level of deflate: zlib's own default.
const DEFLATE_LEVEL: u32 = 6;
/// Level of zstd: its own default.
const ZSTD_LEVEL: i32 = 3;
/// Quality of brotli: the last before its time multiplies.
const BROTLI_QUALITY: i32 = 5;
/// The window of brotli is 2 to this, less 16 bytes: more than any piece.
const BROTLI_WINDOW_BITS: i32 = 18;
/// RFC 1952: deflate, no flags, no time, no file system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The last and empty meta-block of RFC 7932 section 9.2: two bits, and padding.
const BROTLI_END: u8 = 3;

/// The check sum and the length of some bytes, as gzip ends with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plain {
    pub crc32: u32,
    pub bytes: u64,
}

impl Plain {
    /// Of these bytes; where the coding has no use for it, the check sum is left out.
    fn of(bytes: &[u8], coding: Coding) -> Plain {
        let crc32 = if coding == Coding::Gzip { crc32fast::hash(bytes) } else { 0 };
        Plain { crc32, bytes: bytes.len() as u64 }
    }

    /// Of these bytes and those that follow.
    pub fn then(self, next: Plain) -> Plain {
        let mut crc32 = crc32fast::Hasher::new_with_initial_len(self.crc32, self.bytes);
        crc32.combine(&crc32fast::Hasher::new_with_initial_len(next.crc32, next.bytes));
        Plain { crc32: crc32.finalize(), bytes: self.bytes + next.bytes }
    }
}

/// A compressor of one coding.
pub(super) struct Codec {
    coding: Coding,
    /// Kept from piece to piece, because each is larger than a piece.
    deflate: Compress,
    zstd: Compressor<'static>,
}

impl Codec {
    /// For a coding that compresses.
    pub fn new(coding: Coding) -> Codec {
        Codec {
            coding,
            deflate: Compress::new(Compression::new(DEFLATE_LEVEL), false),
            zstd: Compressor::new(ZSTD_LEVEL).expect("the level is one of zstd's"),
        }
    }

    /// What this coding ends a body of these parts with needs to know.
    pub fn join(&self, first: Plain, second: Plain) -> Plain {
        match self.coding {
            Coding::Gzip => first.then(second),
            _ => Plain { crc32: 0, bytes: first.bytes + second.bytes },
        }
    }

    /// A whole body.
    pub fn whole(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match self.coding {
            Coding::Brotli => brotli_into(&mut out, bytes, |_| {}),
            _ => {
                self.open_into(&mut out);
                self.close_into(&mut out, Plain::default(), bytes);
            }
        }
        out
    }

    /// The start of a body: what stands before the first piece, with these bytes.
    pub fn opening(&mut self, bytes: &[u8]) -> (Vec<u8>, Plain) {
        let mut out = Vec::new();
        match self.coding {
            // Only the first piece has the size of the window before it.
            Coding::Brotli => brotli_into(&mut out, bytes, |params| {
                params.appendable = true;
                params.bare_stream = true;
                params.byte_align = true;
            }),
            _ => {
                self.open_into(&mut out);
                self.piece_into(&mut out, bytes);
            }
        }
        (out, Plain::of(bytes, self.coding))
    }

    /// A piece that may stand anywhere between an opening and a closing.
    pub fn piece(&mut self, bytes: &[u8]) -> (Vec<u8>, Plain) {
        let mut out = Vec::new();
        self.piece_into(&mut out, bytes);
        (out, Plain::of(bytes, self.coding))
    }

    /// The end of a body: these last bytes, behind those that `before` tells of.
    pub fn closing(&mut self, before: Plain, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.close_into(&mut out, before, bytes);
        out
    }

    fn open_into(&mut self, out: &mut Vec<u8>) {
        if self.coding == Coding::Gzip {
            out.extend_from_slice(&GZIP_HEADER);
        }
    }

    fn piece_into(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self.coding {
            Coding::Identity => out.extend_from_slice(bytes),
            // The empty block that it ends with brings it to a byte boundary (RFC 1951 section 3.2.4).
            Coding::Gzip => self.deflate_into(out, bytes, FlushCompress::Full),
            Coding::Brotli => brotli_into(out, bytes, |params| {
                params.catable = true;
                params.appendable = true;
                params.bare_stream = true;
                params.byte_align = true;
                // A word of the dictionary is a distance beyond all bytes before, which a piece cannot know.
                params.use_dictionary = false;
            }),
            Coding::Zstd => {
                out.extend_from_slice(&self.zstd.compress(bytes).expect("memory is all it needs"));
            }
        }
    }

    fn close_into(&mut self, out: &mut Vec<u8>, before: Plain, bytes: &[u8]) {
        if self.coding != Coding::Gzip {
            self.piece_into(out, bytes);
            if self.coding == Coding::Brotli {
                out.push(BROTLI_END);
            }
            return;
        }
        self.deflate_into(out, bytes, FlushCompress::Finish);
        let all = before.then(Plain::of(bytes, self.coding));
        out.extend_from_slice(&all.crc32.to_le_bytes());
        // Modulo 2^32, RFC 1952 section 2.3.1.
        out.extend_from_slice(&(all.bytes as u32).to_le_bytes());
    }

    fn deflate_into(&mut self, out: &mut Vec<u8>, bytes: &[u8], flush: FlushCompress) {
        self.deflate.reset();
        loop {
            // Room for what cannot be compressed: a flush is complete when it leaves some.
            out.reserve(bytes.len() + bytes.len() / 256 + 64);
            let rest = &bytes[self.deflate.total_in() as usize..];
            let status = self.deflate.compress_vec(rest, out, flush).expect("a new stream is in no wrong state");
            let is_complete = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => self.deflate.total_in() as usize == bytes.len() && out.len() < out.capacity(),
            };
            if is_complete {
                return;
            }
        }
    }
}

fn brotli_into(out: &mut Vec<u8>, mut bytes: &[u8], change: impl FnOnce(&mut BrotliEncoderParams)) {
    let mut params = BrotliEncoderParams {
        mode: BrotliEncoderMode::BROTLI_MODE_TEXT,
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW_BITS,
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    change(&mut params);
    brotli::BrotliCompress(&mut bytes, out, &params).expect("memory is all it needs");
}
