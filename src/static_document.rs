//! A document that stays the same while the process runs: its bytes in each content coding, its entity tag, its policy.

use std::io::Write;

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::http::Coding;
use crate::http::response::ContentType;

/// Quality of brotli: the last before its time multiplies tenfold. A start of the process takes some milliseconds longer for it.
const BROTLI_QUALITY: i32 = 9;
/// Level of zstd with the same measure.
const ZSTD_LEVEL: i32 = 15;
/// A shorter one goes as it is, in bytes: it is three packets, and there are dozens of these.
const COMPRESSED_MIN_BYTES: usize = 4 * 1024;

/// The document, ready to be sent.
#[derive(Debug)]
pub struct StaticDocument {
    /// By coding: identity, brotli, gzip, zstd; of a short one the first alone.
    bodies: [Vec<u8>; 4],
    /// What its entity tags are made of.
    pub tag: u64,
    /// The type that it is sent with.
    pub content_type: ContentType,
    /// The value of `Content-Security-Policy`, for what browsers show.
    pub policy: Option<String>,
}

impl StaticDocument {
    /// Compresses it.
    ///
    /// # Panics
    /// When a compressor does not take its own level.
    pub fn new(text: String, content_type: ContentType, policy: Option<String>) -> StaticDocument {
        let text = text.into_bytes();
        let digest = Sha256::digest(&text);
        let in_coding = |coding| match text.len() {
            ..COMPRESSED_MIN_BYTES => Vec::new(),
            _ => encoded(&text, coding).expect("memory takes what is written"),
        };
        let [brotli, gzip, zstd] = [Coding::Brotli, Coding::Gzip, Coding::Zstd].map(in_coding);
        StaticDocument {
            tag: u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes")),
            content_type,
            policy,
            bodies: [text, brotli, gzip, zstd],
        }
    }

    /// The coding that a client gets who prefers this one.
    pub fn coding(&self, preferred: Coding) -> Coding {
        if self.body(preferred).is_empty() { Coding::Identity } else { preferred }
    }

    /// The document in a coding.
    pub fn body(&self, coding: Coding) -> &[u8] {
        let [identity, brotli, gzip, zstd] = &self.bodies;
        match coding {
            Coding::Identity => identity,
            Coding::Brotli => brotli,
            Coding::Gzip => gzip,
            Coding::Zstd => zstd,
        }
    }
}

fn encoded(document: &[u8], coding: Coding) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match coding {
        Coding::Identity => out.extend_from_slice(document),
        Coding::Brotli => {
            let params =
                BrotliEncoderParams { quality: BROTLI_QUALITY, size_hint: document.len(), ..Default::default() };
            brotli::BrotliCompress(&mut &*document, &mut out, &params)?;
        }
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(&mut out, Compression::best());
            encoder.write_all(document)?;
            encoder.finish()?;
        }
        Coding::Zstd => out = zstd::bulk::compress(document, ZSTD_LEVEL)?,
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coding_decodes_to_the_document() {
        let text: String = (0..2_000).map(|number| format!("line {number}\n")).collect();
        let document = StaticDocument::new(text.clone(), ContentType::Text, None);
        let mut brotli = Vec::new();
        brotli::BrotliDecompress(&mut document.body(Coding::Brotli), &mut brotli).expect("brotli");
        assert_eq!(brotli, text.as_bytes());
        let zstd = zstd::bulk::decompress(document.body(Coding::Zstd), text.len()).expect("zstd");
        assert_eq!(zstd, text.as_bytes());
        let gzip = document.body(Coding::Gzip);
        let inflated = miniz_oxide::inflate::decompress_to_vec(&gzip[10..gzip.len() - 8]).expect("deflate");
        assert_eq!(inflated, text.as_bytes());
        assert_eq!(document.coding(Coding::Zstd), Coding::Zstd);
    }

    #[test]
    fn a_short_one_goes_as_it_is() {
        let document = StaticDocument::new("short".to_owned(), ContentType::Text, None);
        for preferred in Coding::COMPRESSED {
            assert_eq!(document.body(document.coding(preferred)), b"short");
        }
    }
}
