//! The key of the tokens in the data folder of the embedded deployment.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::counted::Counted;
use crate::data_dir::private;
use crate::limits::JWT_SECRET_MIN_BYTES;

/// The file with the key, in the data folder: text, one line.
pub const KEY_FILE_NAME: &str = "jwt-secret";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The server was never started with this folder.
    #[error(
        "{} does not exist yet: start `million-rps` once with this DATA_DIR, which makes it, or set JWT_SECRET",
        .0.display()
    )]
    Missing(PathBuf),
    /// The file is there, but cannot be read.
    #[error("{path} cannot be read: {source}", path = .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds less than a key needs.
    #[error(
        "{path} holds {held}; a key needs at least {JWT_SECRET_MIN_BYTES}: put the output of `openssl rand -base64 \
         48` into it, or delete it and start `million-rps` once",
        path = .path.display(), held = Counted(*.bytes, "bytes")
    )]
    TooShort {
        /// Which file.
        path: PathBuf,
        /// How long the text in it is.
        bytes: usize,
    },
}

impl KeyFileError {
    /// What is the case, without a remedy, for whoever knows a better one.
    pub fn finding(&self) -> String {
        match self {
            KeyFileError::Missing(path) => format!("{} was deleted or moved away", path.display()),
            KeyFileError::Unreadable { path, source } => format!("{} cannot be read ({source})", path.display()),
            KeyFileError::TooShort { path, bytes } => {
                format!("{} holds {}, which is no key", path.display(), Counted(*bytes, "bytes"))
            }
        }
    }
}

/// Reads the key from the data folder, also while a server is running on it. The server and `million-rps token` both read it
/// here, so what one signs the other takes: the text without white space at its ends.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_key_file(data_dir: &Path) -> Result<Secret, KeyFileError> {
    let path = data_dir.join(KEY_FILE_NAME);
    let read = private::read(&path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it holds no text"))
    });
    let text = match read {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyFileError::Missing(path)),
        Err(source) => return Err(KeyFileError::Unreadable { path, source }),
    };
    let key = text.trim();
    if key.len() < JWT_SECRET_MIN_BYTES {
        return Err(KeyFileError::TooShort { path, bytes: key.len() });
    }
    Ok(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_trimmed_text_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(KEY_FILE_NAME), " \t0123456789abcdef0123456789abcdef\r\n\n").unwrap();
        assert_eq!(read_key_file(folder.path()).unwrap().expose(), "0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn errors_say_what_to_do_and_show_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let text = read_key_file(folder.path()).unwrap_err().to_string();
        assert!(text.contains("jwt-secret does not exist yet: start `million-rps` once"), "{text}");
        std::fs::write(folder.path().join(KEY_FILE_NAME), "SESAME").unwrap();
        let error = read_key_file(folder.path()).unwrap_err();
        assert!(error.to_string().contains("holds 6 bytes"), "{error}");
        assert!(!format!("{error} {error:?}").contains("SESAME"));
        std::fs::remove_file(folder.path().join(KEY_FILE_NAME)).unwrap();
        std::fs::create_dir(folder.path().join(KEY_FILE_NAME)).unwrap();
        assert!(matches!(read_key_file(folder.path()), Err(KeyFileError::Unreadable { .. })));
    }
}
