//! The check of a request's token.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};

use super::cache::{TokenCache, Validity, Verified};
use super::claims::{Claims, Payload};
use super::{AuthError, UnixSeconds, hs256};
use crate::config::{Auth, Secret};
use crate::limits::TOKEN_MAX_BYTES;
use crate::todo::check_user_id;

/// Checks tokens; each shard has its own.
pub struct Verifier {
    key: DecodingKey,
    signature_only: Validation,
    issuer: Option<String>,
    audience: Option<String>,
    takes_endless: bool,
    leeway_seconds: i64,
    cache: TokenCache,
}

impl Verifier {
    /// A verifier for tokens signed with `secret`.
    pub fn new(secret: &Secret, settings: &Auth) -> Verifier {
        Verifier {
            key: hs256::decoding_key(secret.expose().as_bytes()),
            signature_only: signature_only(),
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            takes_endless: settings.takes_endless,
            leeway_seconds: i64::try_from(settings.leeway.as_secs()).unwrap_or(i64::MAX),
            cache: TokenCache::new(),
        }
    }

    /// The user of a request, from the value of its `Authorization` field. A token that was verified before costs a
    /// look-up and the comparison of its dates with `now`, and allocates nothing.
    ///
    /// # Errors
    /// [`AuthError`]; refusals are not remembered, so that they cannot put valid tokens out of the cache.
    pub fn verify(&mut self, authorization: Option<&[u8]>, now: UnixSeconds) -> Result<Rc<str>, AuthError> {
        let token = bearer_token(authorization.ok_or(AuthError::Missing)?)?;
        if let Some(verified) = self.cache.get(token) {
            verified.validity.check(now)?;
            return Ok(Rc::clone(&verified.user));
        }
        let verified = self.check(token)?;
        verified.validity.check(now)?;
        let user = Rc::clone(&verified.user);
        self.cache.insert(token, verified, now);
        Ok(user)
    }

    /// Everything about a token but its dates, which depend on when they are looked at.
    fn check(&self, token: &[u8]) -> Result<Verified, AuthError> {
        // base64url and dots: anything else, a second token behind a space too, is refused before any work.
        if !token.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(AuthError::Malformed);
        }
        check_header(&jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            ErrorKind::Json(_) => AuthError::WrongHeader,
            _ => AuthError::Malformed,
        })?)?;
        let decoded = jsonwebtoken::decode::<Payload>(token, &self.key, &self.signature_only);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => AuthError::WrongSignature,
            ErrorKind::InvalidAlgorithm => AuthError::WrongHeader,
            // The signature has been checked by now: whoever holds the key wrote these claims.
            ErrorKind::Json(_) => refused_claim(token),
            _ => AuthError::Malformed,
        })?;
        self.check_claims(claims.claims.0?)
    }

    fn check_claims(&self, claims: Claims) -> Result<Verified, AuthError> {
        let user = claims.subject.ok_or(AuthError::InvalidSubject)?;
        check_user_id(&user).map_err(|_| AuthError::InvalidSubject)?;
        if self.issuer.is_some() && self.issuer != claims.issuer {
            return Err(AuthError::WrongIssuer);
        }
        if let Some(expected) = &self.audience
            && !claims.audience.is_some_and(|audience| audience.names(expected))
        {
            return Err(AuthError::WrongAudience);
        }
        let expires_at = match claims.expires_at {
            Some(expires_at) => expires_at,
            None if self.takes_endless => UnixSeconds::MAX,
            None => return Err(AuthError::MissingExpiry),
        };
        let not_before = claims.not_before.unwrap_or(UnixSeconds::MIN);
        let validity = Validity {
            from: not_before.saturating_sub(self.leeway_seconds),
            until: expires_at.saturating_add(self.leeway_seconds),
        };
        Ok(Verified { user: user.into(), validity })
    }
}

/// Splits `Bearer <token>` (RFC 6750 section 2.1; the scheme in any case, RFC 9110 section 11.1).
pub(super) fn bearer_token(authorization: &[u8]) -> Result<&[u8], AuthError> {
    const SCHEME: &[u8] = b"bearer";
    let Some((scheme, rest)) = authorization.split_at_checked(SCHEME.len()) else {
        return Err(AuthError::Missing);
    };
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(AuthError::Missing);
    }
    let token = match rest.iter().position(|byte| *byte != b' ') {
        // Another scheme that begins with these letters.
        Some(0) => return Err(AuthError::Missing),
        Some(start) => &rest[start..],
        None => return Err(AuthError::Malformed),
    };
    if token.len() > TOKEN_MAX_BYTES {
        return Err(AuthError::TooLong);
    }
    Ok(token)
}

/// Which claim of a token with the right signature is refused, where the library's own reading stumbles over it.
#[cold]
fn refused_claim(token: &[u8]) -> AuthError {
    let payload = token.split(|byte| *byte == b'.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    match serde_json::from_slice(&payload) {
        Ok(Payload(Err(error))) => error,
        _ => AuthError::MalformedClaims,
    }
}

/// The library checks shape, algorithm and signature. Claims are checked here: its own checks round dates, ignore dates
/// of a wrong type, and would have to be repeated for cached tokens.
pub(super) fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Refuses other algorithms, and what the library leaves to its caller: kinds and extensions (RFC 7515 section 4.1.11,
/// RFC 7797, RFC 8725 section 3.11).
fn check_header(header: &Header) -> Result<(), AuthError> {
    if header.alg != Algorithm::HS256 {
        return Err(AuthError::WrongHeader);
    }
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    // at+jwt is an OAuth 2.0 access token (RFC 9068). Others, such as logout+jwt, were never meant to give access.
    let is_access_token = matches!(kind, "jwt" | "at+jwt");
    // crit lists extensions that a receiver has to know; none is known here. b64 changes what is signed.
    let has_extension = header.crit.is_some() || header.extras.inner().contains_key("b64");
    if is_access_token && !has_extension { Ok(()) } else { Err(AuthError::Unsupported) }
}
