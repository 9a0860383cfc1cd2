//! A name for a worker that outlives it, so that the next one takes its place in Kafka's group at once.
//!
//! The group keeps the partitions of a member that was killed until its session has run out. It knows a member again by its
//! `group.instance.id`, and then goes on without a pause. No two living members may have the same: so the name is made of
//! chance, in a file that is locked as long as the process lives. The file lies in memory (`/dev/shm`): it is gone with the
//! machine or the container, and no copy of a disk has it, too.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::command_log::kafka::options::KafkaOptions;
use crate::limits::KAFKA_SEATS_MAX;

/// Where the files are.
const FOLDER: &str = "/dev/shm";
const NAME_PREFIX: &str = "million-rps-";
/// Bytes of chance in a name.
const CHANCE_BYTES: usize = 16;

/// A place in the group; gone when this is dropped, and left to a successor when the process is killed.
#[derive(Debug)]
pub struct Seat {
    name: String,
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Seat {
    /// The first place that nobody on this machine has, of this user and these workers; `None` where there is no such folder.
    pub fn take(options: &KafkaOptions) -> Option<Seat> {
        Seat::take_in(Path::new(FOLDER), options)
    }

    fn take_in(folder: &Path, options: &KafkaOptions) -> Option<Seat> {
        let KafkaOptions { brokers, topic, group, .. } = options;
        let workers = xxhash_rust::xxh3::xxh3_64(format!("{brokers}\n{topic}\n{group}").as_bytes());
        // SAFETY: plain system call that only returns a number.
        let user = unsafe { libc::geteuid() };
        for number in 0..KAFKA_SEATS_MAX {
            let path = folder.join(format!("{NAME_PREFIX}{user}-{workers:016x}-{number}"));
            match Seat::open(&path, user) {
                Ok(Some(seat)) => return Some(seat),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "no name that outlives this worker");
                    return None;
                }
            }
        }
        None
    }

    /// What the group knows this worker by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `None` when another process has it.
    fn open(path: &Path, user: u32) -> io::Result<Option<Seat>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != user {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another's"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        // What is no text is no name.
        let _ = Read::by_ref(&mut file).take(256).read_to_string(&mut text);
        if !is_name(&text) {
            text = new_name()?;
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())?;
        }
        Ok(Some(Seat { name: text, path: path.to_owned(), _file: file }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Before the lock goes: whoever has opened the file already gets the name alone, and all others a new one.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_name(text: &str) -> bool {
    let digits = text.strip_prefix(NAME_PREFIX).unwrap_or_default();
    digits.len() == 2 * CHANCE_BYTES && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn new_name() -> io::Result<String> {
    let mut chance = [0; CHANCE_BYTES];
    getrandom::fill(&mut chance).map_err(io::Error::other)?;
    Ok(NAME_PREFIX.to_owned() + &chance.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the end of a process: the lock goes, the file stays.
    fn kill(mut seat: Seat) {
        seat.path.clear();
    }

    #[test]
    fn a_place_is_one_processs_and_its_name_the_successors_of_one_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let options = KafkaOptions::new("b:1", "t");
        let take = || Seat::take_in(folder.path(), &options).expect("a place");
        let (first, second) = (take(), take());
        assert!(is_name(first.name()) && is_name(second.name()) && first.name() != second.name());
        let names = [first.name().to_owned(), second.name().to_owned()];
        kill(first);
        let third = take();
        assert_eq!(third.name(), names[0]);
        kill(second);
        let fourth = take();
        assert_eq!(fourth.name(), names[1]);
        // One that ends in order leaves nothing.
        drop((third, fourth));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!names.iter().any(|name| name == take().name()));
        // Other workers have other places.
        let others = KafkaOptions { group: "others".to_owned(), ..options.clone() };
        let other = Seat::take_in(folder.path(), &others).expect("a place");
        assert!(!names.iter().any(|name| name == other.name()));
    }

    #[test]
    fn what_is_no_name_is_replaced_and_what_is_no_file_of_ours_is_left_alone() {
        let options = KafkaOptions::new("b:1", "t");
        for content in [&b"nonsense"[..], b"\xff\xff", b"million-rps-", &[b'x'; 1000]] {
            let folder = tempfile::tempdir().unwrap();
            kill(Seat::take_in(folder.path(), &options).expect("a place"));
            let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
            std::fs::write(&path, content).unwrap();
            let seat = Seat::take_in(folder.path(), &options).expect("a place");
            assert!(is_name(seat.name()), "{}", seat.name());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), seat.name());
            drop(seat);
            std::os::unix::fs::symlink("/dev/null", &path).unwrap();
            assert!(Seat::take_in(folder.path(), &options).is_none(), "a link");
        }
        assert!(Seat::take_in(Path::new("/nowhere"), &options).is_none());
    }
}
