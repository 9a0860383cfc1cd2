//! The header of a token, which nobody has vouched for when it is read.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Algorithm, AuthError};

/// The members that are looked at (RFC 7515 section 4.1). What names keys to be fetched or brings one along (`jku`, `jwk`,
/// `x5u`, `x5c`) is skipped: keys come from the settings alone. A member that stands twice is an error.
#[derive(Deserialize)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    /// Whatever it is, also null: see [`Header::check_kind`].
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
    /// As `crit`.
    #[serde(default, deserialize_with = "is_there")]
    b64: bool,
}

/// Takes any value, and says that there was one.
fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'a> Header<'a> {
    /// Reads the JSON of a header.
    ///
    /// # Errors
    /// [`AuthError::WrongHeader`].
    pub(super) fn read(json: &'a [u8]) -> Result<Header<'a>, AuthError> {
        // Derived code would take an array too.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(AuthError::WrongHeader);
        }
        serde_json::from_slice(json).map_err(|_| AuthError::WrongHeader)
    }

    /// What the signer says it has used; `None` when that is nothing that is known here.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::from_name(&self.alg)
    }

    /// What the signer calls its key: a text to compare, and nothing to look for anywhere.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Refuses kinds and extensions that are not known (RFC 7515 section 4.1.11, RFC 7797, RFC 8725 section 3.11).
    ///
    /// # Errors
    /// [`AuthError::Unsupported`].
    pub(super) fn check_kind(&self) -> Result<(), AuthError> {
        let kind = self.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        // at+jwt is an OAuth 2.0 access token (RFC 9068). Others, such as logout+jwt, were never meant to give access.
        let is_access_token = matches!(kind, "jwt" | "at+jwt");
        // crit lists extensions that a receiver has to know; none is known here. b64 changes what is signed.
        let has_extension = self.crit || self.b64;
        if is_access_token && !has_extension { Ok(()) } else { Err(AuthError::Unsupported) }
    }
}
