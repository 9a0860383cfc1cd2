//! `million-rps token`: makes a bearer token.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::TokenArguments;
use crate::auth::{
    self, Algorithm, KeyFileError, MintError, OtherKeys, SigningKey, SigningKeyError, UnixSeconds, read_key_file,
};
use crate::config::{Config, Deployment, Secret};

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no key to sign with.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// `DATABASE_URL` is set, and `JWT_SECRET` is not. Settings that were loaded for a command that needs tokens cannot
    /// come here.
    #[error("JWT_SECRET is not set; with DATABASE_URL there is no key in the data folder to use instead")]
    NoSecret,
    /// The servers check tokens with keys that only say whether others have signed them.
    #[error(
        "JWT_SECRET is not set, and JWT_PUBLIC_KEY and JWT_JWKS only check what others have signed: get a token of their issuer, or, \
         for tests, give the private key with --key FILE"
    )]
    OnlyPublicKeys,
    /// The file of `--key` cannot be read.
    #[error("--key {path}: {source}", path = .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has no key, or not the one that was asked for.
    #[error("--key {path}: {source}", path = .path.display())]
    SigningKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: SigningKeyError,
    },
    /// The token could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Makes the token that the arguments ask for, with the key that the servers of these settings check tokens with.
///
/// # Errors
/// [`TokenError`].
pub fn token(config: &Config, arguments: &TokenArguments) -> Result<String, TokenError> {
    if let Some(path) = &arguments.key {
        let pem = std::fs::read(path).map_err(|source| TokenError::Unreadable { path: path.clone(), source })?;
        let wanted = arguments.alg.as_deref().and_then(Algorithm::from_name);
        let key = SigningKey::from_pem(&pem, wanted)
            .map_err(|source| TokenError::SigningKey { path: path.clone(), source })?;
        let id = arguments.kid.as_deref();
        return Ok(auth::mint_with(&key, id, &config.auth, &arguments.sub, arguments.ttl, unix_seconds_now())?);
    }
    let secret = signing_secret(config)?;
    let keys = OtherKeys::find(&config.auth, Some(&secret));
    for other in keys.others() {
        // Not an error: which of them the server has, only the server knows.
        tracing::info!("the token is signed with the key of {}, not of {other}", keys.taken());
    }
    Ok(auth::mint(&secret, &config.auth, &arguments.sub, arguments.ttl, unix_seconds_now())?)
}

/// The key of the tokens: `JWT_SECRET`, or the one in the data folder.
///
/// # Errors
/// [`TokenError::Key`], [`TokenError::NoSecret`] and [`TokenError::OnlyPublicKeys`].
pub fn signing_secret(config: &Config) -> Result<Cow<'_, Secret>, TokenError> {
    match (&config.auth.secret, &config.deployment) {
        (Some(secret), _) => Ok(Cow::Borrowed(secret)),
        (None, _) if config.auth.has_public_keys() => Err(TokenError::OnlyPublicKeys),
        (None, Deployment::Embedded { data_dir }) => Ok(Cow::Owned(read_key_file(data_dir)?)),
        (None, Deployment::Services(_)) => Err(TokenError::NoSecret),
    }
}

fn unix_seconds_now() -> UnixSeconds {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds::try_from(since_epoch.as_secs()).unwrap_or(UnixSeconds::MAX)
}
