//! Reads: from the bytes of a request for the list to the pieces of its answer.
//!
//! ```text
//! connection ─ bytes ─ recognise ── a first page ───── serve ── pieces ─ reactor
//!                       │  seen      (which, in what    │  prepared        lists that are ready
//!                       │            coding, known?)    │  encoded_pages   what the encoder has made
//!                       │                               └─ local_snapshot  the list
//!                       └─ any other head ─ dispatch ─ answer ─ by_head
//! ```
//! `recognise` says what is asked, `serve` gives the answer. Whoever has bytes calls these two: the ring's fast path while the
//! task of the connection sleeps, that task, and a pipeline in it. What is no first page, or wants a head of its own, goes the
//! way of all other requests and comes back to `by_head`.

mod by_head;
mod encoded_pages;
mod local_snapshot;
mod prepared;
mod prepared_answer;
mod recognise;
mod seen;
mod selected;
mod serve;
mod served;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

pub use self::by_head::{Subject, Unchanged};
use self::encoded_pages::EncodedPages;
pub use self::encoded_pages::LocalBody;
pub use self::local_snapshot::LocalSnapshot;
use self::prepared::{ListKey, PreparedLists};
pub use self::recognise::{
    Asked, FirstPage, Recognised, begins_like_first_page, read_head, repetitions, whole_repetitions,
};
pub use self::seen::HASH_KEY_BYTES;
use self::seen::SeenHeads;
pub use self::selected::{SelectedRead, answer_count};
pub use self::serve::write_unchanged;
pub use self::served::{Form, Served, ServedBody, WHOLE_BODY_MAX_BYTES};
use super::clock::Clock;
use crate::http::accept_encoding::preferred_coding;
use crate::http::cors::Cors;
use crate::http::{Coding, Head};
use crate::limits::NEW_WISHES_PER_S_MAX;
use crate::observe::metrics::ShardMetrics;
use crate::snapshot::Snapshot;
use crate::wires::pages::{EncodedPage, Wish, WishQueue};

/// What a shard answers reads from. One thread, so no lock and no atomic.
pub struct Reads {
    /// `None` until the first one has come.
    snapshot: RefCell<Option<Rc<LocalSnapshot>>>,
    seen: RefCell<SeenHeads>,
    lists: RefCell<PreparedLists>,
    encoded: RefCell<EncodedPages>,
    /// Where wishes for content codings go; `None`: all answers are identity.
    wishes: Option<WishQueue>,
    /// A second, and the wishes in it for pages that are not kept ready.
    new_wishes: Cell<(i64, usize)>,
    clock: Rc<Clock>,
    metrics: Arc<ShardMetrics>,
    /// Which pages of other origins may read answers.
    cors: Arc<Cors>,
}

impl Reads {
    /// The reads of a shard that has no list yet. Where it remembers heads depends on `hash_key`, which no client can guess.
    pub fn new(
        wishes: Option<WishQueue>,
        clock: Rc<Clock>,
        metrics: Arc<ShardMetrics>,
        hash_key: [u8; HASH_KEY_BYTES],
        cors: Arc<Cors>,
    ) -> Reads {
        Reads {
            snapshot: RefCell::default(),
            seen: RefCell::new(SeenHeads::new(hash_key)),
            lists: RefCell::default(),
            encoded: RefCell::default(),
            wishes,
            new_wishes: Cell::default(),
            clock,
            metrics,
            cors,
        }
    }

    /// The snapshot to answer from; `None` until the first one has come.
    pub fn snapshot(&self) -> Option<Rc<LocalSnapshot>> {
        self.snapshot.borrow().clone()
    }

    /// The version of that snapshot; 0 until the first one has come.
    pub fn version(&self) -> u64 {
        self.snapshot.borrow().as_ref().map_or(0, |snapshot| snapshot.version())
    }

    /// From now on, reads are answered from this snapshot.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.lists.borrow_mut().retain_version(snapshot.version());
        self.encoded.borrow_mut().retain_from(snapshot.version());
        *self.snapshot.borrow_mut() = Some(Rc::new(LocalSnapshot::new(snapshot)));
    }

    /// From now on, this page is answered in its coding.
    pub fn take_encoded(&self, page: EncodedPage) {
        for (limit, coding) in page.replaces.into_iter().chain([(page.limit, page.coding)]) {
            self.lists.borrow_mut().forget(limit, coding);
        }
        self.encoded.borrow_mut().insert(page, self.version());
    }

    /// Tells that a page was asked for in a coding, `answers` times besides now. It is never waited for: when the queue is
    /// full, a later request asks again.
    fn wish(&self, snapshot: &LocalSnapshot, ListKey { limit, coding, .. }: ListKey, answers: u64) {
        let Some(wishes) = &self.wishes else { return };
        if answers == 0 && limit.is_some() {
            let now = self.clock.unix_seconds();
            let (second, count) = self.new_wishes.get();
            let count = if second == now { count } else { 0 };
            self.new_wishes.set((now, count + 1));
            if count >= NEW_WISHES_PER_S_MAX {
                return;
            }
        }
        let _ = wishes.try_send(Wish { snapshot: snapshot.share(), limit, coding, answers: answers + 1 });
    }

    /// The coding that the client prefers, where there are any.
    #[inline]
    pub fn coding(&self, head: &Head<'_>) -> Coding {
        coding_of(head, self.has_codings())
    }

    /// Whether answers are sent in content codings.
    #[inline]
    fn has_codings(&self) -> bool {
        self.wishes.is_some()
    }

    #[inline]
    fn count_encoded(&self, encoded: &LocalBody, plain_bytes: u64, responses: usize) {
        let metrics = &self.metrics.encoded[encoded.coding() as usize];
        metrics.responses.add(responses as u64);
        metrics.plain_bytes.add(responses as u64 * plain_bytes);
        metrics.encoded_bytes.add(responses as u64 * encoded.len());
    }
}

/// The coding that the client prefers, where answers have any.
#[inline]
fn coding_of(head: &Head<'_>, has_codings: bool) -> Coding {
    if !has_codings || !head.has_accept_encoding() {
        return Coding::Identity;
    }
    preferred_coding(head.accept_encoding())
}
