//! The check of a request's token.

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossbeam_channel::Sender;

use super::cache::{TokenCache, Validity, Verified};
use super::claims::{ClaimNames, Claims};
use super::failures::FailedChecks;
use super::header::Header;
use super::{AuthError, Key, KeySet, UnixSeconds};
use crate::config::{Auth, Secret};
use crate::limits::TOKEN_MAX_BYTES;
use crate::todo::check_user_id;

/// Checks tokens; each shard has its own.
pub struct Verifier {
    keys: Arc<KeySet>,
    /// Where it asks for newer keys, when a part of them comes from an address.
    asks: Option<Sender<()>>,
    names: ClaimNames,
    issuer: Option<String>,
    audiences: Vec<String>,
    write_scope: Option<String>,
    takes_endless: bool,
    leeway_seconds: i64,
    cache: TokenCache,
    failed: FailedChecks,
}

impl Verifier {
    /// A verifier for tokens signed with any of `keys`.
    pub fn new(keys: Arc<KeySet>, settings: &Auth) -> Verifier {
        Verifier {
            keys,
            asks: None,
            names: settings.claim_names(),
            issuer: settings.issuer.clone(),
            audiences: settings.audiences.clone(),
            write_scope: settings.write_scope.clone(),
            takes_endless: settings.takes_endless,
            leeway_seconds: i64::try_from(settings.leeway.as_secs()).unwrap_or(i64::MAX),
            cache: TokenCache::new(),
            failed: FailedChecks::default(),
        }
    }

    /// A verifier for tokens signed with this secret (HS256).
    pub fn of_secret(secret: &Secret, settings: &Auth) -> Verifier {
        Verifier::new(Arc::new(KeySet::from(Key::from_secret(secret))), settings)
    }

    /// The verifier, which asks here for newer keys. The channel holds one wish; more are the same wish.
    pub fn asking(self, asks: Option<Sender<()>>) -> Verifier {
        Verifier { asks, ..self }
    }

    /// The keys of now.
    pub fn keys(&self) -> &Arc<KeySet> {
        &self.keys
    }

    /// Takes these keys from now on, and forgets the tokens of those that are not among them.
    pub fn use_keys(&mut self, keys: Arc<KeySet>) {
        self.cache.retain(|verified| keys.contains(&verified.key));
        self.keys = keys;
    }

    /// The user of a request, from the value of its `Authorization` field. A token that was verified before costs a
    /// look-up and the comparison of its dates with `now`, and allocates nothing. `connection` counts the costly checks that its
    /// tokens failed.
    ///
    /// # Errors
    /// [`AuthError`]; refusals are not remembered, so that they cannot put valid tokens out of the cache.
    pub fn verify(
        &mut self,
        authorization: Option<&[u8]>,
        now: UnixSeconds,
        connection: &FailedChecks,
    ) -> Result<Rc<str>, AuthError> {
        let (user, may_write) = self.identify(authorization, now, connection)?;
        may_write.then_some(user).ok_or(AuthError::MissingScope)
    }

    /// The user of a request, whatever the scopes of its token, and whether it may write, as [`Verifier::verify`] finds out.
    ///
    /// # Errors
    /// [`AuthError`], but for [`AuthError::MissingScope`].
    pub fn identify(
        &mut self,
        authorization: Option<&[u8]>,
        now: UnixSeconds,
        connection: &FailedChecks,
    ) -> Result<(Rc<str>, bool), AuthError> {
        let token = bearer_token(authorization.ok_or(AuthError::Missing)?)?;
        if let Some(verified) = self.cache.get(token) {
            verified.validity.check(now)?;
            return Ok((Rc::clone(&verified.user), verified.may_write));
        }
        let verified = self.check(token, now, connection)?;
        let (user, may_write) = (Rc::clone(&verified.user), verified.may_write);
        self.cache.insert(token, verified, now);
        Ok((user, may_write))
    }

    /// Everything about a token but its scope. What a costly key has signed rightly and is refused all the same counts as a failure:
    /// it is not remembered, so it costs as much each time.
    fn check(&self, token: &[u8], now: UnixSeconds, connection: &FailedChecks) -> Result<Verified, AuthError> {
        let parts = Parts::of(token)?;
        let header = Header::read(&parts.header)?;
        let key = self.signer(&header, &parts, now, connection)?;
        let is_costly = key.algorithm().is_costly();
        let verified = self.check_payload(&parts, key, now);
        if is_costly && verified.is_err() {
            self.failed.count(connection, now, 1);
        }
        verified
    }

    fn check_payload(&self, parts: &Parts<'_>, key: Arc<Key>, now: UnixSeconds) -> Result<Verified, AuthError> {
        let verified = self.check_claims(self.names.read(&parts.payload()?)?, key)?;
        verified.validity.check(now)?;
        Ok(verified)
    }

    /// The key that has signed the token.
    fn signer(
        &self,
        header: &Header<'_>,
        parts: &Parts<'_>,
        now: UnixSeconds,
        connection: &FailedChecks,
    ) -> Result<Arc<Key>, AuthError> {
        let algorithm = header.algorithm().ok_or_else(|| self.wrong_algorithm())?;
        let may_be_unknown = self.keys.may_lack_a_key(now);
        if !self.keys.has(algorithm) && !may_be_unknown {
            return Err(self.wrong_algorithm());
        }
        header.check_kind()?;
        let mut checks = 0;
        for key in self.keys.candidates(header.key_id(), algorithm) {
            if algorithm.is_costly() && checks == 0 && !self.failed.admits(connection, now) {
                return Err(AuthError::TooManyFailed);
            }
            if key.verifies(parts.message, &parts.signature) {
                return Ok(Arc::clone(key));
            }
            checks += 1;
        }
        if algorithm.is_costly() && checks > 0 {
            self.failed.count(connection, now, checks);
        }
        let is_unknown = header.key_id().is_some_and(|id| !self.keys.names(id));
        match is_unknown || self.keys.is_awaited() {
            true if may_be_unknown => {
                // A wish that waits already is this one.
                let _ = self.asks.as_ref().map(|asks| asks.try_send(()));
                Err(AuthError::KeysAwaited)
            }
            true if checks == 0 => Err(AuthError::UnknownKey),
            _ => Err(AuthError::WrongSignature),
        }
    }

    /// With keys of HS256 alone, as they are made at a first start, the text can say what is wanted.
    fn wrong_algorithm(&self) -> AuthError {
        let is_plain = self.keys.iter().all(|key| key.algorithm() == super::Algorithm::Hs256);
        if is_plain && !self.keys.is_empty() { AuthError::WrongHeader } else { AuthError::WrongAlgorithm }
    }

    fn check_claims(&self, claims: Claims, key: Arc<Key>) -> Result<Verified, AuthError> {
        let no_user = if self.names.user_is_subject() { AuthError::InvalidSubject } else { AuthError::InvalidUser };
        let user = claims.user.ok_or(no_user)?;
        check_user_id(&user).map_err(|_| no_user)?;
        if self.issuer.is_some() && self.issuer != claims.issuer {
            return Err(AuthError::WrongIssuer);
        }
        let is_meant = |audience: super::claims::Audience| self.audiences.iter().any(|one| audience.names(one));
        if !self.audiences.is_empty() && !claims.audience.is_some_and(is_meant) {
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
        let may_write = self.write_scope.as_ref().is_none_or(|scope| claims.scopes.contains(scope));
        Ok(Verified { user: user.into(), validity, may_write, key })
    }
}

/// A token taken apart (RFC 7515 section 7.1), and nothing of it believed.
pub(super) struct Parts<'a> {
    header: Vec<u8>,
    payload: &'a [u8],
    signature: Vec<u8>,
    /// What is signed.
    message: &'a [u8],
}

impl<'a> Parts<'a> {
    /// # Errors
    /// [`AuthError::Malformed`].
    pub(super) fn of(token: &'a [u8]) -> Result<Parts<'a>, AuthError> {
        // base64url and dots: anything else, a second token behind a space too, is refused before any work.
        if !token.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(AuthError::Malformed);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthError::Malformed);
        };
        Ok(Parts {
            header: decoded(header)?,
            payload,
            signature: decoded(signature)?,
            message: &token[..header.len() + 1 + payload.len()],
        })
    }

    /// Whether this key has signed it, whatever its header says.
    pub(super) fn are_signed_by(&self, key: &Key) -> bool {
        key.verifies(self.message, &self.signature)
    }

    fn payload(&self) -> Result<Vec<u8>, AuthError> {
        decoded(self.payload)
    }
}

/// Without padding, and with zeros in the bits that are left: each value has one spelling.
fn decoded(part: &[u8]) -> Result<Vec<u8>, AuthError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)
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
