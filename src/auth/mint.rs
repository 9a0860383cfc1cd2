//! Making tokens, for `million-rps token` and for the tools that talk to the API.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{SigningKey, SigningKeyError, UnixSeconds};
use crate::config::{Auth, Secret};
use crate::todo::{BodyError, check_user_id};

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The user is none that a token may name.
    #[error("sub: {}", .0.reason)]
    Subject(BodyError),
    /// It could not be signed.
    #[error("the token could not be signed: {0}")]
    Signing(#[from] SigningKeyError),
}

#[derive(Serialize)]
struct MintedHeader<'a> {
    typ: &'static str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    /// The claim of the user, where that is not `sub`.
    #[serde(flatten)]
    user: Map<String, Value>,
}

/// A token for the user `subject`, signed with HS256, valid from `now` for `time_to_live`, with what `settings` ask of tokens.
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
    mint_with(&SigningKey::from_secret(secret), None, settings, subject, time_to_live, now)
}

/// The same with any key, which the token calls `key_id`.
///
/// # Errors
/// [`MintError`].
pub fn mint_with(
    key: &SigningKey,
    key_id: Option<&str>,
    settings: &Auth,
    subject: &str,
    time_to_live: Duration,
    now: UnixSeconds,
) -> Result<String, MintError> {
    check_user_id(subject).map_err(MintError::Subject)?;
    let time_to_live_seconds = i64::try_from(time_to_live.as_secs()).unwrap_or(i64::MAX);
    let names = settings.claim_names();
    let claims = MintedClaims {
        sub: subject,
        iat: now,
        exp: now.saturating_add(time_to_live_seconds),
        iss: settings.issuer.as_deref(),
        aud: settings.audiences.first().map(String::as_str),
        scope: settings.write_scope.as_deref(),
        user: if names.user_is_subject() { Map::new() } else { nested(names.user(), subject) },
    };
    let header = MintedHeader { typ: "JWT", alg: key.algorithm().name(), kid: key_id };
    let message = format!("{}.{}", encoded(&header), encoded(&claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

/// An object with this text at the end of these members.
fn nested(members: &[String], text: &str) -> Map<String, Value> {
    let mut object = Map::new();
    if let Some((first, below)) = members.split_first() {
        let value = if below.is_empty() { Value::from(text) } else { Value::from(nested(below, text)) };
        object.insert(first.clone(), value);
    }
    object
}

fn encoded(part: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).expect("texts and numbers are JSON"))
}
