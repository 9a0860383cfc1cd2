//! The data folder of the embedded deployment: its format, its owner, its paths and the JWT secret kept in it.
//!
//! ```text
//! data/
//!   format         version of this layout, as text
//!   lock           flock(2)ed by the owning process; pid and HTTP address as text
//!   jwt-secret     made by the first start, 64 hexadecimal digits, mode 0600
//!   todos.sqlite   the store (with -wal and -shm beside it while open)
//!   log/           the command log
//!   dead-letters/  records that could never be applied
//! ```
//!
//! Everything in it is for this process's user alone: see [`private`].

mod anchor;
mod footing;
pub mod private;

use std::fmt;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use anchor::{Anchor, Displaced};
pub use footing::{Fault, Footing, displaced_text};
pub use private::FileError;

use crate::auth::{KEY_FILE_NAME, KeyFileError, read_key_file};
use crate::config::Secret;
use crate::limits::JWT_SECRET_MIN_BYTES;
use crate::observe::troubles::Troubles;

/// Version of the folder's layout that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// How long [`DataDir::lock`] goes on trying. [`DataDir::owner`] probes with a lock of its own for a moment, and a
/// killed process keeps its lock until the kernel has taken it apart: neither is a second owner.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// An opened data folder, its format checked.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    footing: Arc<Footing>,
}

/// The process that holds a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Where it answers HTTP, as `host:port`; empty for a tool that serves nothing.
    pub address: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        if !self.address.is_empty() {
            write!(f, ", which serves on {}", self.address)?;
        }
        Ok(())
    }
}

/// What can be wrong with a data folder.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file or folder could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder has a layout of another version, or none that can be told.
    #[error(
        "the data folder {} has {found}, but this program reads format {FORMAT_VERSION}: start the version of million-rps \
         that wrote it, or point DATA_DIR at another folder", path.display()
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// What was found instead, such as "format 7".
        found: String,
    },
    /// Another process owns the folder.
    #[error(
        "the data folder {} is in use by {}: stop it, or point DATA_DIR at another folder", path.display(),
        owner.as_ref().map_or_else(|| "another process".to_owned(), Owner::to_string)
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who holds it; `None` when it has not written its name yet.
        owner: Option<Owner>,
    },
    /// There is no usable secret.
    #[error(transparent)]
    Secret(#[from] KeyFileError),
}

impl DataDir {
    /// Opens the folder and checks its format; makes it, readable by this user alone, when it is not there.
    ///
    /// # Errors
    /// [`DataDirError::Format`] for a folder of another version, [`DataDirError::File`].
    pub fn open(path: impl Into<PathBuf>) -> Result<DataDir, DataDirError> {
        DataDir::open_with_troubles(path, Arc::default())
    }

    /// [`DataDir::open`], with the place where faults of the open folder are noted.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_with_troubles(path: impl Into<PathBuf>, troubles: Arc<Troubles>) -> Result<DataDir, DataDirError> {
        let path = path.into();
        // A relative name goes on leading to the same folder when a folder above it is moved: a restart would not find it.
        let path = std::path::absolute(&path).map_err(FileError::io("find", &path))?;
        DirBuilder::new()
            .recursive(true)
            .mode(private::FOLDER_MODE)
            .create(&path)
            .map_err(FileError::io("create", &path))?;
        private::check_folder(&path)?;
        let dir = DataDir { path, footing: Arc::new(Footing::new(troubles)) };
        let _one_at_a_time = dir.exclusive()?;
        dir.admit_all()?;
        dir.check_format()?;
        let log = dir.log_path();
        match DirBuilder::new().mode(private::FOLDER_MODE).create(&log) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FileError::io("create", &log)(error).into());
            }
            _ => {}
        }
        private::admit_folder(&log, "log")?;
        private::sync_folder(&dir.path)?;
        dir.footing.stand_on(Anchor::at_target_of(&dir.path).map_err(FileError::io("open", &dir.path))?);
        dir.footing.stand_on(Anchor::at(&log).map_err(FileError::io("open", &log))?);
        Ok(dir)
    }

    /// Refuses what others could have put here, and takes their rights to the rest away.
    fn admit_all(&self) -> Result<(), DataDirError> {
        for name in ["format", "lock", KEY_FILE_NAME] {
            private::admit_file(&self.path.join(name))?;
            private::admit_unfinished(&private::unfinished(&self.path.join(name)))?;
        }
        for ending in ["", "-wal", "-shm", "-journal"] {
            private::admit_file(&self.path.join(format!("todos.sqlite{ending}")))?;
        }
        match self.dead_letters_path().symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Ok(private::admit_folder(&self.dead_letters_path(), "letter")?),
        }
    }

    fn check_format(&self) -> Result<(), DataDirError> {
        let path = self.path.join("format");
        match private::read(&path) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                match text.trim().parse::<u32>() {
                    Ok(FORMAT_VERSION) => Ok(()),
                    Ok(version) => Err(self.wrong_format(format!("format {version}"))),
                    Err(_) => {
                        Err(self.wrong_format(format!("no version number in its file `format` ({:?})", text.trim())))
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The format is written before anything else: a folder with data but without it is not ours to touch.
                if self.store_path().exists() || self.log_path().exists() {
                    return Err(self.wrong_format("data but no file `format`".to_owned()));
                }
                Ok(private::write_whole(&path, format!("{FORMAT_VERSION}\n").as_bytes())?)
            }
            Err(error) => Err(FileError::io("read", &path)(error).into()),
        }
    }

    fn wrong_format(&self, found: String) -> DataDirError {
        DataDirError::Format { path: self.path.clone(), found }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has to stay where it is while the folder is in use.
    pub fn footing(&self) -> &Arc<Footing> {
        &self.footing
    }

    /// The SQLite file.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("todos.sqlite")
    }

    /// The folder of the command log's segments.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The folder of dead letters; made with the first one.
    pub fn dead_letters_path(&self) -> PathBuf {
        self.path.join("dead-letters")
    }

    /// The file of the JWT secret.
    pub fn jwt_secret_path(&self) -> PathBuf {
        self.path.join(KEY_FILE_NAME)
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Makes this process the folder's owner until the lock is dropped. `address` is where it answers HTTP
    /// (`host:port`, or empty), for [`DataDir::owner`] in other processes.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] names the process that owns it already.
    pub fn lock(&self, address: &str) -> Result<DataDirLock, DataDirError> {
        let path = self.lock_path();
        let mut file = open_lock_file(&path).map_err(FileError::io("open", &path))?;
        let give_up_at = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < give_up_at => std::thread::sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => {
                    return Err(DataDirError::InUse { path: self.path.clone(), owner: read_owner(&mut file) });
                }
                Err(TryLockError::Error(error)) => return Err(FileError::io("lock", &path)(error).into()),
            }
        }
        let text = format!("pid {}\naddress {address}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(FileError::io("write", &path))?;
        Ok(DataDirLock { file })
    }

    /// The process that owns the folder now, whether it is this one or another; `None` when nobody does.
    pub fn owner(&self) -> Option<Owner> {
        let mut file = private::open(&self.lock_path()).ok()?;
        let give_up_at = Instant::now() + LOCK_PATIENCE;
        loop {
            // Held for a moment only; `lock` tries again for longer than that.
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => {}
                Ok(()) | Err(TryLockError::Error(_)) => return None,
            }
            let owner = read_owner(&mut file);
            // An owner that has just locked writes its name next.
            if owner.is_some() || Instant::now() >= give_up_at {
                return owner;
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    /// The secret that signs tokens; made from 32 random bytes when it is not there. Every process that asks gets the same
    /// one, by the same reader.
    ///
    /// # Errors
    /// [`DataDirError::Secret`] when the file holds less than a secret or cannot be read, [`DataDirError::File`].
    pub fn jwt_secret(&self) -> Result<Secret, DataDirError> {
        let _one_at_a_time = self.exclusive()?;
        if let Err(KeyFileError::Missing(path)) = read_key_file(&self.path) {
            let secret = random_secret().map_err(FileError::io("get random bytes for", &path))?;
            private::write_whole(&path, format!("{secret}\n").as_bytes())?;
        }
        Ok(read_key_file(&self.path)?)
    }

    /// Keeps other processes out of the short steps that make files, until it is dropped: flock(2) on the folder
    /// itself, apart from the owner's lock, which is held for a process's life.
    fn exclusive(&self) -> Result<File, DataDirError> {
        let folder = File::open(&self.path).map_err(FileError::io("open", &self.path))?;
        folder.lock().map_err(FileError::io("lock", &self.path))?;
        Ok(folder)
    }
}

/// Ownership of a data folder; ends when dropped, or with the process.
#[derive(Debug)]
pub struct DataDirLock {
    file: File,
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // Only so that no one reads an old name: the lock itself ends when the file closes.
        let _ = self.file.set_len(0);
    }
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    private::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn read_owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.strip_prefix("pid ")?.parse().ok()?;
    let address = lines.next()?.strip_prefix("address ")?.to_owned();
    Some(Owner { pid, address })
}

fn random_secret() -> io::Result<String> {
    let mut bytes = [0u8; JWT_SECRET_MIN_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
