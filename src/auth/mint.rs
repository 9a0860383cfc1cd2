//! Making tokens, for `million-rps token` and for the tools that talk to the API.

use std::time::Duration;

use jsonwebtoken::Header;
use serde::Serialize;

use super::{UnixSeconds, hs256};
use crate::config::{Auth, Secret};
use crate::todo::{BodyError, check_user_id};

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The user is none that a token may name.
    #[error("sub: {}", .0.reason)]
    Subject(BodyError),
    /// The signing library refused; with HS256 it has no reason to.
    #[error("the token could not be signed: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: &'a str,
    iat: UnixSeconds,
    exp: UnixSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// A token for the user `subject`, valid from `now` for `time_to_live`, with the issuer and audience of `settings`.
///
/// # Errors
/// [`MintError`].
pub fn mint(
    secret: &Secret,
    settings: &Auth,
    subject: &str,
    time_to_live: Duration,
    now: UnixSeconds,
) -> Result<String, MintError> {
    check_user_id(subject).map_err(MintError::Subject)?;
    let time_to_live_seconds = i64::try_from(time_to_live.as_secs()).unwrap_or(i64::MAX);
    let claims = MintedClaims {
        sub: subject,
        iat: now,
        exp: now.saturating_add(time_to_live_seconds),
        iss: settings.issuer.as_deref(),
        aud: settings.audience.as_deref(),
    };
    let key = hs256::encoding_key(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &key)?)
}
