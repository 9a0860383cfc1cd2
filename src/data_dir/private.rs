//! Files that nobody but this process's user may put there, read or write.
//!
//! Whoever may write to the folder could lay a link in the way of a name that the server writes to, or a file of their own
//! whose content it believes. So names are never followed as links, files are made exclusively, and what others own or may
//! write to is refused. Once the folder is this user's alone, looking at a name and then using it is no race.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of every file in the folder.
pub const FILE_MODE: u32 = 0o600;
/// Mode of the folder and those in it.
pub const FOLDER_MODE: u32 = 0o700;
/// The ending of a file that is being written.
const UNFINISHED: &str = "unfinished";
/// Bits that let group and others write.
const OTHERS_WRITE: u32 = 0o022;
/// Bits that let group and others do anything.
const OTHERS: u32 = 0o077;
/// Bit of a folder in which others may not touch what is not theirs.
const STICKY: u32 = 0o1000;

/// Why a file or folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "create", "read".
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder or something in it can be changed by others.
    #[error("{} is not used: {reason}. {remedy}", path.display())]
    Unsafe {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

impl FileError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError::Io { action, path, source }
    }
}

/// How every file of the folder is opened: a symbolic link is an error (ELOOP), and what is no file does not block.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

/// Reads a file, which is not reached by a link.
///
/// # Errors
/// The system's; ELOOP for a link, EISDIR for a folder.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

/// Opens a file for reading.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path) -> io::Result<File> {
    options().read(true).open(path)
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let unfinished = unfinished(path);
    // One that is there was left by a crash: neither its mode nor its target is ours.
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::io("remove", &unfinished)(error));
        }
        _ => {}
    }
    let write = || {
        let mut file = options().write(true).create_new(true).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(FileError::io("write", path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes an empty file, if there is none.
///
/// # Errors
/// The system's; nothing is followed.
pub fn create_if_missing(path: &Path) -> io::Result<()> {
    match options().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Refuses a folder that others own, or in which others may put, replace or remove files. The folder itself may be reached
/// by a link.
///
/// # Errors
/// [`FileError::Unsafe`], with what to do.
pub fn check_folder(path: &Path) -> Result<(), FileError> {
    let found = std::fs::metadata(path).map_err(FileError::io("look at", path))?;
    // The whole machine's, such as /tmp: neither its owner nor its mode is this server's to change.
    let is_everybodys = found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY != 0;
    if !is_everybodys {
        check_owner(path, &found)?;
    }
    if found.mode() & OTHERS_WRITE != 0 {
        let reason = format!("other users may write to it (mode {:o})", found.mode() & 0o7777);
        let remedy = match is_everybodys {
            true => {
                format!("Point DATA_DIR at a folder of its own, which may lie in it: DATA_DIR={}", own_folder_in(path))
            }
            false => format!("Take their right away: chmod go-w {}", path.display()),
        };
        return Err(FileError::Unsafe { path: path.to_owned(), reason, remedy });
    }
    Ok(())
}

fn own_folder_in(path: &Path) -> String {
    path.join("million-rps").display().to_string()
}

/// Refuses a folder within the data folder that is a link or unsafe, and takes others' rights to it, and to its files of
/// this ending, away.
///
/// # Errors
/// [`FileError::Unsafe`] and [`FileError::Io`].
pub fn admit_folder(path: &Path, ending: &str) -> Result<(), FileError> {
    let found = std::fs::symlink_metadata(path).map_err(FileError::io("look at", path))?;
    check_no_link(path, &found)?;
    check_folder(path)?;
    for entry in std::fs::read_dir(path).map_err(FileError::io("read", path))? {
        let entry = entry.map_err(FileError::io("read", path))?.path();
        // What has another name is not opened: a disk that is mounted here has folders of its own.
        if entry.extension().is_some_and(|found| found == ending) {
            admit_file(&entry)?;
        } else if entry.extension().is_some_and(|found| found == UNFINISHED) {
            admit_unfinished(&entry)?;
        }
    }
    narrow(path, &found, FOLDER_MODE)
}

/// Refuses a file that is a link or that others own, and takes others' rights to it away. No file is fine.
///
/// # Errors
/// [`FileError::Unsafe`] and [`FileError::Io`].
pub fn admit_file(path: &Path) -> Result<(), FileError> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(FileError::io("look at", path))?,
    };
    check_no_link(path, &found)?;
    check_owner(path, &found)?;
    // A folder at the name of a file is an error of whoever opens it.
    if found.is_file() { narrow(path, &found, FILE_MODE) } else { Ok(()) }
}

/// Refuses what another user has left where [`write_whole`] writes first. This user's own, of a start that was killed, is
/// removed there, whatever it is.
///
/// # Errors
/// [`FileError::Unsafe`] and [`FileError::Io`].
pub fn admit_unfinished(path: &Path) -> Result<(), FileError> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(FileError::io("look at", path))?,
    };
    check_owner(path, &found).map_err(|error| match error {
        FileError::Unsafe { path, reason, .. } => {
            let remedy = format!(
                "The server makes such a file for a moment, so somebody else has put it there: find out who may, and delete it: \
                 rm {}",
                path.display()
            );
            FileError::Unsafe { path, reason, remedy }
        }
        error => error,
    })
}

/// The name under which [`write_whole`] writes first.
pub fn unfinished(path: &Path) -> PathBuf {
    path.with_extension(UNFINISHED)
}

fn check_no_link(path: &Path, found: &Metadata) -> Result<(), FileError> {
    if !found.is_symlink() {
        return Ok(());
    }
    let reason = "it is a symbolic link, which the server does not follow".to_owned();
    let remedy = "Put what it leads to in its place; a folder on another disk can be mounted there".to_owned();
    Err(FileError::Unsafe { path: path.to_owned(), reason, remedy })
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), FileError> {
    // SAFETY: a plain system call without arguments.
    let user = unsafe { libc::geteuid() };
    if found.uid() == user {
        return Ok(());
    }
    let reason = format!("it belongs to user {}, and this process runs as user {user}", found.uid());
    let remedy = format!(
        "Whoever owns it can change what the server believes. Run the server as its owner; or chown -R {user} {}; or point \
         DATA_DIR at a new folder, which may lie in one of others",
        path.display()
    );
    Err(FileError::Unsafe { path: path.to_owned(), reason, remedy })
}

fn narrow(path: &Path, found: &Metadata, mode: u32) -> Result<(), FileError> {
    let was = found.mode() & 0o7777;
    if was & OTHERS == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(FileError::io("chmod", path))?;
    tracing::warn!("{} had mode {was:o}, so that other users could read it; it has {mode:o} now", path.display());
    Ok(())
}

/// Makes the names in a folder durable: fsync(2) of a file does not cover the folder's entry for it.
pub(crate) fn sync_folder(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::io("sync", path))
}
