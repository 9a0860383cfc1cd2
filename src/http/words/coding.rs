//! Content codings (RFC 9110 section 8.4.1).

/// A content coding (RFC 9110 section 8.4.1) that answers are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Coding {
    /// The bytes as they are; no `Content-Encoding`.
    #[default]
    Identity,
    /// RFC 1952
    Gzip,
    /// RFC 7932
    Brotli,
    /// RFC 8878
    Zstd,
}

impl Coding {
    /// The codings that compress, the one first that is taken among equals: it makes pieces of a few KiB smallest, and
    /// costs an answer no more than the others. A long list in zstd is a row of frames, which RFC 8878 section 3 allows
    /// and not every client may have met: it comes last, for those who prefer it.
    pub const COMPRESSED: [Coding; 3] = [Coding::Brotli, Coding::Gzip, Coding::Zstd];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    pub(in crate::http) fn is_called(self, name: &[u8]) -> bool {
        // RFC 9110 section 8.4.1.3: `x-gzip` is the same.
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}
