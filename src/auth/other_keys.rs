//! Where the key of the tokens comes from, and which other keys this process knows of: a token that one of those has signed is
//! refused as any other, and the log says why. That is mostly somebody with an old key, or with two terminals.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::verifier::{Parts, bearer_token};
use super::{Key, UnixSeconds, read_key_file};
use crate::config::{Auth, Origin, Secret};
use crate::limits::{OTHER_KEY_CHECKS_MAX_PER_SEC, OTHER_KEY_LOG_INTERVAL_SEC};

/// Where a key comes from; its text goes into the log and the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `JWT_SECRET` in the environment.
    Environment,
    /// `JWT_SECRET` in the file `.env` of the working directory.
    DotEnv,
    /// The file in the data folder.
    File(PathBuf),
    /// `JWT_PUBLIC_KEY`, without a secret.
    PublicKey,
    /// `JWT_JWKS`, without a secret.
    KeySet(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Environment => f.write_str("JWT_SECRET in the environment"),
            KeySource::DotEnv => f.write_str("JWT_SECRET in the file .env"),
            KeySource::File(path) => write!(f, "the file {}", path.display()),
            KeySource::PublicKey => f.write_str("JWT_PUBLIC_KEY"),
            KeySource::KeySet(place) => write!(f, "JWT_JWKS ({place})"),
        }
    }
}

impl KeySource {
    /// Of the setting `JWT_SECRET`, or of the file in the data folder where it is not set.
    pub fn of(settings: &Auth) -> KeySource {
        match (&settings.secret, settings.secret_origin) {
            (Some(_), Origin::DotEnv) => KeySource::DotEnv,
            (Some(_), _) => KeySource::Environment,
            (None, _) if settings.public_key.is_some() => KeySource::PublicKey,
            (None, _) if settings.key_set.is_some() => {
                KeySource::KeySet(settings.key_set.as_ref().map(ToString::to_string).unwrap_or_default())
            }
            (None, _) => KeySource::File(settings.key_folder.join(super::KEY_FILE_NAME)),
        }
    }
}

/// The keys that this process knows and does not take.
pub struct OtherKeys {
    taken: KeySource,
    others: Vec<(KeySource, Key)>,
    /// The second of the last line in the log.
    told_at: AtomicI64,
    /// The second in which tokens were checked last, and how many.
    checked_at: AtomicI64,
    checks: AtomicU32,
}

impl OtherKeys {
    /// Those that stronger settings have put aside: of the file `.env`, and of the data folder, also of an earlier, embedded
    /// life of a deployment that has services now. `key` is the one that is taken.
    pub fn find(settings: &Auth, key: Option<&Secret>) -> OtherKeys {
        let taken = KeySource::of(settings);
        let file = KeySource::File(settings.key_folder.join(super::KEY_FILE_NAME));
        let in_env_file = settings.overruled_secret.clone().map(|secret| (KeySource::DotEnv, secret));
        // Only for a hint: a file that is not there, or cannot be read, is nobody's trouble.
        let in_folder = read_key_file(&settings.key_folder).ok().map(|secret| (file, secret));
        let others = in_env_file
            .into_iter()
            .chain(in_folder)
            .filter(|(_, secret)| key.is_none_or(|key| secret.expose() != key.expose()));
        let others = others.map(|(source, secret)| (source, Key::from_secret(&secret)));
        OtherKeys {
            taken,
            others: others.collect(),
            told_at: AtomicI64::new(UnixSeconds::MIN),
            checked_at: AtomicI64::new(UnixSeconds::MIN),
            checks: AtomicU32::new(0),
        }
    }

    /// Where the key that is taken comes from.
    pub fn taken(&self) -> &KeySource {
        &self.taken
    }

    /// Where the others come from.
    pub fn others(&self) -> impl Iterator<Item = &KeySource> {
        self.others.iter().map(|(source, _)| source)
    }

    /// Looks whether one of the others has signed a token that was refused for its signature, and says so in the log: now and
    /// then, and without a byte of the token. Somebody who sends many wrong tokens makes it look less often, not work more.
    pub fn explain(&self, authorization: Option<&[u8]>, now: UnixSeconds) {
        if self.others.is_empty() || self.is_recent(now) || !self.may_check(now) {
            return;
        }
        if let Some(source) = self.signer(authorization) {
            self.told_at.store(now, Ordering::Relaxed);
            tracing::warn!(
                "a token was refused (401) that is signed with the key of {source}; this process takes {}: make tokens where \
                 that is set, or start the process without it",
                self.taken
            );
        }
    }

    fn is_recent(&self, now: UnixSeconds) -> bool {
        now.saturating_sub(self.told_at.load(Ordering::Relaxed)) < OTHER_KEY_LOG_INTERVAL_SEC
    }

    fn may_check(&self, now: UnixSeconds) -> bool {
        if self.checked_at.swap(now, Ordering::Relaxed) != now {
            self.checks.store(0, Ordering::Relaxed);
        }
        self.checks.fetch_add(1, Ordering::Relaxed) < OTHER_KEY_CHECKS_MAX_PER_SEC
    }

    fn signer(&self, authorization: Option<&[u8]>) -> Option<&KeySource> {
        let token = bearer_token(authorization?).ok()?;
        // Whatever it claims: the signature comes first.
        let parts = Parts::of(token).ok()?;
        self.others.iter().find(|(_, key)| parts.are_signed_by(key)).map(|(source, _)| source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{KEY_FILE_NAME, mint};
    use std::time::Duration;

    const NOW: UnixSeconds = 1_800_000_000;

    fn secret(letter: &str) -> Secret {
        Secret::new(letter.repeat(32))
    }

    fn field_by(key: &Secret) -> Vec<u8> {
        let token = mint(key, &Auth::default(), "anna", Duration::from_secs(60), NOW).unwrap();
        format!("Bearer {token}").into_bytes()
    }

    #[test]
    fn the_signer_of_a_token_is_recognised_among_the_keys_that_were_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(KEY_FILE_NAME), secret("f").expose()).unwrap();
        let settings = Auth {
            secret: Some(secret("e")),
            secret_origin: Origin::Environment,
            overruled_secret: Some(secret("d")),
            key_folder: folder.path().to_owned(),
            ..Auth::default()
        };
        let keys = OtherKeys::find(&settings, Some(&secret("e")));
        let file = KeySource::File(folder.path().join(KEY_FILE_NAME));
        assert_eq!((keys.taken(), keys.others().count()), (&KeySource::Environment, 2));
        assert_eq!(keys.signer(Some(&field_by(&secret("d")))), Some(&KeySource::DotEnv));
        assert_eq!(keys.signer(Some(&field_by(&secret("f")))), Some(&file));
        for stranger in [field_by(&secret("x")), b"Bearer a.b.c".to_vec(), b"Basic YTpi".to_vec(), Vec::new()] {
            assert_eq!(keys.signer(Some(&stranger)), None);
        }
        assert_eq!(keys.signer(None), None);
        // The same key in two places is no other key.
        let same = OtherKeys::find(&settings, Some(&secret("f")));
        assert_eq!(same.others().collect::<Vec<_>>(), [&KeySource::DotEnv]);
        let none = OtherKeys::find(&Auth { key_folder: "/nowhere".into(), ..Auth::default() }, Some(&secret("e")));
        assert_eq!(none.others().count(), 0);
    }

    #[test]
    fn it_is_told_once_in_a_while_and_looked_for_not_too_often() {
        let settings = Auth { overruled_secret: Some(secret("d")), secret: Some(secret("e")), ..Auth::default() };
        let keys = OtherKeys::find(&settings, Some(&secret("e")));
        assert!(!keys.is_recent(NOW));
        keys.explain(Some(&field_by(&secret("x"))), NOW);
        assert!(!keys.is_recent(NOW), "a stranger's token");
        keys.explain(Some(&field_by(&secret("d"))), NOW);
        assert!(keys.is_recent(NOW) && keys.is_recent(NOW + OTHER_KEY_LOG_INTERVAL_SEC - 1));
        assert!(!keys.is_recent(NOW + OTHER_KEY_LOG_INTERVAL_SEC));
        let later = NOW + OTHER_KEY_LOG_INTERVAL_SEC;
        let looks = (0..3 * OTHER_KEY_CHECKS_MAX_PER_SEC).filter(|_| keys.may_check(later)).count();
        assert_eq!(looks, OTHER_KEY_CHECKS_MAX_PER_SEC as usize);
        assert!(keys.may_check(later + 1));
    }

    #[test]
    fn sources_are_named_and_keys_are_not() {
        let from =
            |origin| KeySource::of(&Auth { secret: Some(secret("e")), secret_origin: origin, ..Auth::default() });
        assert_eq!(from(Origin::Environment).to_string(), "JWT_SECRET in the environment");
        assert_eq!(from(Origin::DotEnv).to_string(), "JWT_SECRET in the file .env");
        let file = KeySource::of(&Auth { key_folder: "data".into(), ..Auth::default() });
        assert_eq!(file.to_string(), "the file data/jwt-secret");
    }
}
