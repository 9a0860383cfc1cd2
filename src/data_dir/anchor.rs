//! Whether a file or folder in use is still the one that its name leads to.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file or folder, and the name under which a restart will look for it.
///
/// A descriptor says nothing about a name: what is deleted, moved away, covered by a mount or lazily unmounted can be
/// written and synced as before. An anchor keeps a descriptor (O_PATH: it reads nothing, writes nothing, and gives up no
/// lock of SQLite when it closes), so that the system cannot give the number of its inode to another file meanwhile.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    held: File,
    /// Whether the name itself may be a symbolic link.
    follows: bool,
}

/// Why a name does not lead to what is in use.
#[derive(Debug, thiserror::Error)]
pub enum Displaced {
    /// Nothing has the name.
    #[error("it was deleted, moved away or unmounted")]
    Gone,
    /// Something else has the name.
    #[error("something else stands at its place")]
    Replaced,
    /// The system does not say.
    #[error("it cannot be looked at: {0}")]
    Unreachable(io::Error),
}

impl Anchor {
    /// An anchor at a file or folder that is no symbolic link.
    ///
    /// # Errors
    /// The system does not open it.
    pub fn at(path: &Path) -> io::Result<Anchor> {
        Anchor::new(path, false)
    }

    /// An anchor at what a name leads to, also by symbolic links.
    ///
    /// # Errors
    /// The system does not open it.
    pub fn at_target_of(path: &Path) -> io::Result<Anchor> {
        Anchor::new(path, true)
    }

    fn new(path: &Path, follows: bool) -> io::Result<Anchor> {
        let flags = libc::O_PATH | if follows { 0 } else { libc::O_NOFOLLOW };
        let held = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Anchor { path: path.to_owned(), held, follows })
    }

    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands under the name now, if it is what was anchored. Two system calls that touch no disk.
    ///
    /// # Errors
    /// [`Displaced`].
    pub fn check(&self) -> Result<Metadata, Displaced> {
        // Both are asked each time: an overlay may give a file another number when it is first written.
        let held = self.held.metadata().map_err(Displaced::Unreachable)?;
        let named = if self.follows { std::fs::metadata(&self.path) } else { std::fs::symlink_metadata(&self.path) };
        match named {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(named),
            Ok(_) => Err(Displaced::Replaced),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(Displaced::Gone)
            }
            Err(error) => Err(Displaced::Unreachable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_followed_through_moves_and_replacements() {
        let parent = tempfile::tempdir().expect("temporary folder");
        let folder = parent.path().join("data");
        std::fs::create_dir(&folder).expect("made");
        let file = folder.join("file");
        std::fs::write(&file, "1").expect("written");
        let anchors = [Anchor::at_target_of(&folder).expect("there"), Anchor::at(&file).expect("there")];
        let states = || anchors.each_ref().map(|anchor| anchor.check().map(|_| ()).map_err(|error| error.to_string()));
        let gone = || Err(Displaced::Gone.to_string());
        let replaced = || Err(Displaced::Replaced.to_string());
        assert_eq!(states(), [Ok(()), Ok(())]);
        let away = parent.path().join("away");
        std::fs::rename(&folder, &away).expect("moved");
        assert_eq!(states(), [gone(), gone()]);
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(&file, "1").expect("written");
        assert_eq!(states(), [replaced(), replaced()]);
        std::fs::remove_dir_all(&folder).expect("removed");
        std::fs::rename(&away, &folder).expect("moved back");
        assert_eq!(states(), [Ok(()), Ok(())]);
        std::fs::remove_file(&file).expect("removed");
        // The number of its inode is still in use, so the new file cannot have it.
        std::fs::write(&file, "1").expect("written");
        assert_eq!(states(), [Ok(()), replaced()]);
        let elsewhere = parent.path().join("elsewhere");
        std::fs::rename(&folder, &elsewhere).expect("moved");
        std::os::unix::fs::symlink(&elsewhere, &folder).expect("linked");
        assert_eq!(states()[0], Ok(()), "the folder may be reached by a link");
        std::fs::remove_file(&folder).expect("removed");
        std::fs::write(&folder, "a file").expect("written");
        assert_eq!(states(), [replaced(), gone()]);
    }
}
