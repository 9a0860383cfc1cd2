//! `million-rps token`: makes a bearer token.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use super::TokenArguments;
use crate::auth::{self, KeyFileError, MintError, OtherKeys, UnixSeconds, read_key_file};
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
    /// The token could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Makes the token that the arguments ask for, with the key that the servers of these settings check tokens with.
///
/// # Errors
/// [`TokenError`].
pub fn token(config: &Config, arguments: &TokenArguments) -> Result<String, TokenError> {
    let secret = signing_secret(config)?;
    let keys = OtherKeys::find(&config.auth, &secret);
    for other in keys.others() {
        // Not an error: which of them the server has, only the server knows.
        tracing::info!("the token is signed with the key of {}, not of {other}", keys.taken());
    }
    Ok(auth::mint(&secret, &config.auth, &arguments.sub, arguments.ttl, unix_seconds_now())?)
}

/// The key of the tokens: `JWT_SECRET`, or the one in the data folder.
///
/// # Errors
/// [`TokenError::Key`] and [`TokenError::NoSecret`].
pub fn signing_secret(config: &Config) -> Result<Cow<'_, Secret>, TokenError> {
    match (&config.auth.secret, &config.deployment) {
        (Some(secret), _) => Ok(Cow::Borrowed(secret)),
        (None, Deployment::Embedded { data_dir }) => Ok(Cow::Owned(read_key_file(data_dir)?)),
        (None, Deployment::Services(_)) => Err(TokenError::NoSecret),
    }
}

fn unix_seconds_now() -> UnixSeconds {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds::try_from(since_epoch.as_secs()).unwrap_or(UnixSeconds::MAX)
}
