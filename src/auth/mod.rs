//! Bearer tokens: from the `Authorization` field of a request to the user who sent it.
//!
//! Tokens are JWTs signed with HS256 (RFC 7519, RFC 8725). Each shard has its own [`Verifier`], with a cache of tokens
//! whose signature it has already checked. No I/O, no clock: the caller says what time it is.

mod cache;
mod claims;
mod error;
mod hs256;
mod key_file;
mod mint;
mod other_keys;
#[cfg(test)]
mod tests;
mod verifier;

pub use error::AuthError;
pub use key_file::{KEY_FILE_NAME, KeyFileError, read_key_file};
pub use mint::{MintError, mint};
pub use other_keys::{KeySource, OtherKeys};
pub use verifier::Verifier;

/// A moment in whole seconds since 1970-01-01T00:00:00Z, as tokens count time.
pub type UnixSeconds = i64;
