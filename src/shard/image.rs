//! A long list as a file in memory: what many clients ask for at the same time is copied once, and then sent from the pages
//! of the file, which the kernel hands to the socket as they are (sendfile(2), memfd_create(2)).
//!
//! An image is of one snapshot and is never changed: pages may be on their way to a client. The kernel keeps those until the
//! client has them, also when the file is closed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::rc::Rc;

use super::local_snapshot::LocalSnapshot;
use crate::limits::{IMAGE_MAX_BYTES, IMAGES_MAX_BYTES};
use crate::snapshot::Run;

/// Bytes that are collected before they are written to the file.
const WRITE_BYTES: usize = 64 * 1024;

/// The bytes of a body.
pub struct Image {
    file: File,
    bytes: u64,
    /// The bytes of all images of the shard.
    all_bytes: Rc<Cell<u64>>,
}

impl Image {
    /// The bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// The file that has them.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.all_bytes.set(self.all_bytes.get() - self.bytes);
    }
}

struct Entry {
    version: u64,
    limit: Option<usize>,
    image: Rc<Image>,
    /// Whether it has been asked for since the last [`Images::trim`].
    is_used: bool,
}

/// The images of the snapshot at hand.
#[derive(Default)]
pub struct Images {
    entries: Vec<Entry>,
    all_bytes: Rc<Cell<u64>>,
    has_failed: bool,
}

impl Images {
    /// The image of this body, which is the first `limit` todos of the snapshot; made if it is not there. `None`: it is too
    /// long, there are too many, or the system has no more.
    pub fn get_or_make(&mut self, snapshot: &LocalSnapshot, limit: Option<usize>, body: Run) -> Option<Rc<Image>> {
        let version = snapshot.version();
        let is_it = |entry: &&mut Entry| (entry.version, entry.limit) == (version, limit);
        if let Some(entry) = self.entries.iter_mut().find(is_it) {
            entry.is_used = true;
            return Some(Rc::clone(&entry.image));
        }
        let bytes = body.remaining_bytes();
        if bytes > IMAGE_MAX_BYTES || self.all_bytes.get() + bytes > IMAGES_MAX_BYTES {
            return None;
        }
        let made = make(snapshot, body);
        if let Err(error) = &made
            && !std::mem::replace(&mut self.has_failed, true)
        {
            tracing::warn!(%error, "long lists are sent from the heap: there is no file in memory to be had");
        }
        let file = made.ok()?;
        self.all_bytes.set(self.all_bytes.get() + bytes);
        let image = Rc::new(Image { file, bytes, all_bytes: Rc::clone(&self.all_bytes) });
        self.entries.push(Entry { version, limit, image: Rc::clone(&image), is_used: true });
        Some(image)
    }

    /// Lets go of images that nobody has asked for since the last call: their memory and their descriptors.
    pub fn trim(&mut self) {
        self.entries.retain_mut(|entry| std::mem::take(&mut entry.is_used));
    }

    /// Lets go of the images of older snapshots than this; those that are being sent stay until they have been.
    pub fn retain_from(&mut self, version: u64) {
        self.entries.retain(|entry| entry.version >= version);
    }
}

fn make(snapshot: &LocalSnapshot, mut body: Run) -> io::Result<File> {
    // SAFETY: the name is a string that ends with a zero.
    let descriptor = unsafe { libc::memfd_create(c"list".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor has just been made, and nobody else knows it.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    let mut collected = Vec::with_capacity(WRITE_BYTES);
    while body.remaining_bytes() > 0 {
        body.take_pieces(snapshot, |piece| {
            collected.extend_from_slice(piece);
            collected.len() < WRITE_BYTES
        });
        file.write_all(&collected)?;
        collected.clear();
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::SnapshotBuilder;
    use crate::todo::{Timestamp, Todo, TodoId};

    /// A list of at least so many bytes.
    fn list(version: u64, bytes: u64) -> LocalSnapshot {
        let mut builder = SnapshotBuilder::new();
        for number in 0..bytes.div_ceil(4000) {
            builder.push(&Todo {
                id: TodoId::from_u128(u128::from(number)),
                title: format!("todo {number} of list {version}"),
                description: "d".repeat(4000),
                completed: false,
                user_id: "ann".into(),
                created_at: Timestamp::from_micros(number as i64),
                updated_at: Timestamp::from_micros(number as i64),
            });
        }
        LocalSnapshot::new(Arc::new(builder.finish(version)))
    }

    fn bytes_of(snapshot: &LocalSnapshot, limit: Option<usize>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut body = snapshot.page(None, limit).body;
        while let Some(piece) = body.next_piece(snapshot) {
            bytes.extend_from_slice(piece);
        }
        bytes
    }

    #[test]
    fn an_image_has_the_bytes_of_its_list_and_is_made_once() {
        let mut images = Images::default();
        let (old, new) = (list(1, 300_000), list(2, 200_000));
        let image_of = |images: &mut Images, list: &LocalSnapshot, limit| {
            images.get_or_make(list, limit, list.page(None, limit).body).expect("there is room")
        };
        let of_old = image_of(&mut images, &old, None);
        for (list, limit) in [(&old, None), (&old, Some(50)), (&new, None), (&new, Some(50))] {
            let image = image_of(&mut images, list, limit);
            let mut bytes = vec![0; image.len() as usize];
            image.file.read_exact_at(&mut bytes, 0).expect("the file is as long as the body");
            assert!(bytes == bytes_of(list, limit));
            assert!(Rc::ptr_eq(&image, &image_of(&mut images, list, limit)));
        }
        images.retain_from(2);
        assert_eq!(images.entries.len(), 2);
        assert_eq!(Rc::strong_count(&of_old), 1, "who is still sending it keeps it");
        images.trim();
        image_of(&mut images, &new, None);
        images.trim();
        assert_eq!(images.entries.len(), 1, "one has been used since");
        images.trim();
        assert_eq!(images.all_bytes.get(), of_old.len());
        drop(of_old);
        assert_eq!(images.all_bytes.get(), 0);
    }

    #[test]
    fn lists_that_are_too_long_or_too_many_have_none() {
        let mut images = Images::default();
        let long = list(1, IMAGE_MAX_BYTES);
        assert!(images.get_or_make(&long, None, long.page(None, None).body).is_none());
        let half = list(2, IMAGE_MAX_BYTES / 2);
        let mut kept = Vec::new();
        for limit in (1..=half.len()).rev() {
            match images.get_or_make(&half, Some(limit), half.page(None, Some(limit)).body) {
                Some(image) => kept.push(image),
                None => break,
            }
        }
        assert!(images.all_bytes.get() <= IMAGES_MAX_BYTES && images.all_bytes.get() > IMAGES_MAX_BYTES / 2);
        kept.clear();
        images.retain_from(3);
        assert!(images.get_or_make(&half, None, half.page(None, None).body).is_some(), "there is room again");
    }
}
