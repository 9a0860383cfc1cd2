//! The pages that the encoder has sent to a shard.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::http::Coding;
use crate::snapshot::EncodedBody;
use crate::wires::pages::EncodedPage;

/// A page in a coding, wrapped once for each shard, as [`LocalSnapshot`](super::LocalSnapshot) is.
pub struct LocalBody {
    body: Arc<EncodedBody>,
    version: u64,
}

impl LocalBody {
    /// The version of the list that it is of.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl Deref for LocalBody {
    type Target = EncodedBody;

    fn deref(&self) -> &EncodedBody {
        &self.body
    }
}

struct Entry {
    version: u64,
    limit: Option<usize>,
    coding: Coding,
    body: Rc<LocalBody>,
}

/// What a shard has of the snapshot at hand, and of newer ones that are still on their way to it: the encoder may be asked
/// by another shard that has them already.
#[derive(Default)]
pub struct EncodedPages {
    entries: Vec<Entry>,
}

impl EncodedPages {
    /// Takes a page in, unless it is of an older list than `version`.
    pub fn insert(&mut self, page: EncodedPage, version: u64) {
        if let Some((limit, coding)) = page.replaces {
            let is_it = |entry: &Entry| (entry.version, entry.limit, entry.coding) == (page.version, limit, coding);
            self.entries.retain(|entry| !is_it(entry));
        }
        if page.version >= version {
            let EncodedPage { version, limit, coding, body, replaces: _ } = page;
            self.entries.push(Entry { version, limit, coding, body: Rc::new(LocalBody { body, version }) });
        }
    }

    /// The first `limit` todos of this version in this coding, if they are here.
    pub fn get(&self, version: u64, limit: Option<usize>, coding: Coding) -> Option<Rc<LocalBody>> {
        let is_it = |entry: &&Entry| (entry.version, entry.limit, entry.coding) == (version, limit, coding);
        self.entries.iter().find(is_it).map(|entry| Rc::clone(&entry.body))
    }

    /// Lets go of all that is older than `version`.
    pub fn retain_from(&mut self, version: u64) {
        self.entries.retain(|entry| entry.version >= version);
    }
}
