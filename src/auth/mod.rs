//! Bearer tokens: from the `Authorization` field of a request to the user who sent it.
//!
//! Tokens are JWTs (RFC 7519, RFC 8725). Each shard has its own [`Verifier`], with a cache of tokens whose signature it has
//! already checked. Where keys come from and when they change is for `crate::keys`. No I/O but for the key file, no clock: the
//! caller says what time it is.

mod algorithm;
#[cfg(test)]
mod attack_tests;
mod cache;
mod claims;
mod error;
mod failures;
mod header;
mod jwk;
mod key;
mod key_file;
mod key_set;
mod mint;
mod other_keys;
mod page_key;
mod pem;
#[cfg(test)]
mod signer_tests;
mod signing;
#[cfg(test)]
mod tests;
mod verifier;
#[cfg(test)]
mod wycheproof_tests;

pub use algorithm::Algorithm;
pub use claims::ClaimNames;
pub use error::AuthError;
pub use failures::FailedChecks;
pub use jwk::{ReadSet, SetOrigin, read_key_set};
pub use key::{Key, KeyFault};
pub use key_file::{KEY_FILE_NAME, KeyFileError, read_key_file};
pub use key_set::{Fetch, KeySet, TooManyKeys};
pub use mint::{MintError, mint, mint_with};
pub use other_keys::{KeySource, OtherKeys};
pub use page_key::{is_page_key, page_key};
pub use pem::read_public_keys;
pub use signing::{SigningKey, SigningKeyError};
pub use verifier::Verifier;

/// A moment in whole seconds since 1970-01-01T00:00:00Z, as tokens count time.
pub type UnixSeconds = i64;
