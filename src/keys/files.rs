//! Keys of the environment, of `.env` and of files, read as a start would read them, again whenever a file changes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::auth::{
    KEY_FILE_NAME, Key, KeyFileError, SetOrigin, TooManyKeys, read_key_file, read_key_set, read_public_keys,
};
use crate::config::{Auth, DotEnv, KeySetPlace, Origin, PEM_BEGINS, Secret};
use crate::limits::KEYS_MAX_BYTES;

const DOT_ENV: &str = ".env";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file in the data folder.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// All settings and files together.
    #[error(
        "JWT_SECRET, JWT_SECRET_PREVIOUS, JWT_PUBLIC_KEY and JWT_JWKS have {0} together. Remove those that sign no tokens any more"
    )]
    TooMany(#[from] TooManyKeys),
    /// A setting, or a file that one names.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which setting, and where it is.
        setting: String,
        /// What is wrong, without any key.
        reason: String,
    },
}

/// What tells one state of a file from another; `None` when it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Where keys are read from.
pub struct KeyFiles {
    settings: Auth,
    /// The data folder of an embedded deployment.
    key_folder: Option<PathBuf>,
    watched: Vec<PathBuf>,
    read: Vec<Stamp>,
    /// A change that has been seen once: who writes a file may be in the middle of it.
    unsettled: Option<Vec<Stamp>>,
    /// What was found as `JWT_SECRET`.
    secret: Option<Secret>,
}

impl KeyFiles {
    /// The files of these settings. `key_folder` has the key of an embedded deployment, which counts where no other is set.
    pub fn new(settings: Auth, key_folder: Option<PathBuf>) -> KeyFiles {
        let mut watched = vec![PathBuf::from(DOT_ENV)];
        watched.extend(key_folder.as_ref().map(|folder| folder.join(KEY_FILE_NAME)));
        watched.extend(settings.public_key.as_ref().filter(|text| !text.contains(PEM_BEGINS)).map(PathBuf::from));
        if let Some(KeySetPlace::File(path)) = &settings.key_set {
            watched.push(path.clone());
        }
        KeyFiles { settings, key_folder, watched, read: Vec::new(), unsettled: None, secret: None }
    }

    /// Reads them all.
    ///
    /// # Errors
    /// [`KeysError`]: then none of them counts, because half of a rotation is none.
    pub fn read(&mut self) -> Result<Vec<Key>, KeysError> {
        self.read = self.stamps();
        self.unsettled = None;
        let mut keys = Vec::new();
        let secret = self.find_secret()?;
        keys.extend(secret.as_ref().map(Key::from_secret));
        let previous = (self.settings.previous_secret.clone(), self.settings.previous_secret_origin);
        if let Some(secret) = given(previous, "JWT_SECRET_PREVIOUS")? {
            keys.push(Key::from_secret(&secret));
        }
        if let Some(text) = &self.settings.public_key {
            let read = match text.contains(PEM_BEGINS) {
                true => read_public_keys(text),
                false => text_of(Path::new(text)).and_then(|pem| read_public_keys(&pem)),
            };
            let place = if text.contains(PEM_BEGINS) { String::new() } else { format!(" ({text})") };
            keys.extend(
                read.map_err(|reason| KeysError::Setting { setting: format!("JWT_PUBLIC_KEY{place}"), reason })?,
            );
        }
        if let Some(KeySetPlace::File(path)) = &self.settings.key_set {
            let read = text_of(path).and_then(|json| read_key_set(json.as_bytes(), SetOrigin::File));
            let setting = || format!("JWT_JWKS ({})", path.display());
            let set = read.map_err(|reason| KeysError::Setting { setting: setting(), reason })?;
            for reason in &set.left_out {
                tracing::warn!("{}: left out {reason}", setting());
            }
            keys.extend(set.keys);
        }
        self.secret = secret;
        Ok(keys)
    }

    /// The secret of those that were read last; `None` when all keys are those of others.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Whether a file has changed since it was read, and has stayed so since the last look.
    pub fn have_changed(&mut self) -> bool {
        let now = self.stamps();
        if now == self.read {
            self.unsettled = None;
            return false;
        }
        let is_settled = self.unsettled.as_ref() == Some(&now);
        self.unsettled = Some(now);
        is_settled
    }

    fn find_secret(&self) -> Result<Option<Secret>, KeysError> {
        if let Some(secret) = given((self.settings.secret.clone(), self.settings.secret_origin), "JWT_SECRET")? {
            return Ok(Some(secret));
        }
        let is_lost = KeysError::Setting {
            setting: "JWT_SECRET".to_owned(),
            reason: format!("the file {DOT_ENV} does not have it any more"),
        };
        match &self.key_folder {
            // A file that is missing or half written is no wish for other keys, wherever those would come from.
            _ if self.settings.secret_origin == Origin::DotEnv => Err(is_lost),
            _ if self.settings.has_public_keys() => Ok(None),
            Some(folder) => Ok(Some(read_key_file(folder)?)),
            None => Err(is_lost),
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.watched.iter().map(|path| stamp(path)).collect()
    }
}

/// A secret of the environment, which stays as it was at the start, or else what `.env` has now.
fn given((at_start, origin): (Option<Secret>, Origin), name: &'static str) -> Result<Option<Secret>, KeysError> {
    if matches!(origin, Origin::Environment | Origin::Flag) {
        return Ok(at_start);
    }
    match DotEnv::read(Path::new(DOT_ENV)).setting(name) {
        Ok(text) => Ok(text.map(Secret::new)),
        Err(reason) => Err(KeysError::Setting { setting: format!("{name} in the file {DOT_ENV}"), reason }),
    }
}

fn stamp(path: &Path) -> Stamp {
    let data = path.metadata().ok()?;
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()))
}

/// The text of a file of reasonable size.
fn text_of(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(KEYS_MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() > KEYS_MAX_BYTES {
        return Err(format!("it has more than {KEYS_MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it holds no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(KEY_FILE_NAME);
        std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
        let mut files = KeyFiles::new(Auth::default(), Some(folder.path().to_owned()));
        let first = files.read().unwrap();
        assert!(!files.have_changed());
        std::fs::write(&file, "0123456789abcdef").unwrap();
        assert!(!files.have_changed(), "perhaps half of it");
        std::fs::write(&file, "0123456789abcdef0123456789ABCDEF!").unwrap();
        assert!(!files.have_changed());
        assert!(files.have_changed() && files.have_changed());
        assert_ne!(files.read().unwrap(), first);
        assert!(!files.have_changed());
        std::fs::remove_file(&file).unwrap();
        assert!(!files.have_changed() && files.have_changed());
        assert!(matches!(files.read(), Err(KeysError::KeyFile(KeyFileError::Missing(_)))));
        assert!(!files.have_changed(), "said once");
    }

    #[test]
    fn one_file_that_is_wrong_keeps_all_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("keys.json");
        std::fs::write(&set, "{}").unwrap();
        let settings = Auth {
            secret: Some(Secret::new("0123456789abcdef0123456789abcdef")),
            secret_origin: Origin::Environment,
            key_set: Some(KeySetPlace::File(set.clone())),
            ..Auth::default()
        };
        let mut files = KeyFiles::new(settings, None);
        let text = files.read().unwrap_err().to_string();
        assert!(text.starts_with("JWT_JWKS (") && text.contains("no key set"), "{text}");
        std::fs::write(&set, " ".repeat(KEYS_MAX_BYTES + 1)).unwrap();
        assert!(files.read().unwrap_err().to_string().contains("more than"));
        std::fs::remove_file(&set).unwrap();
        assert!(files.read().unwrap_err().to_string().contains("cannot be read"));
    }
}
