//! The encoder: the one thread of an API process that compresses lists, so that no shard and not the refresher does.
//!
//! A shard that is asked for a coding of a list that it does not have in it answers identity, and leaves a wish: this page,
//! in this coding, of this snapshot. What is made of it goes to every shard's inbox. So nothing is compressed that nobody
//! asks for, and nothing twice. Places are few and go by demand, which the wishes tell, also those for pages that are there:
//! no client can keep a page out that more ask for, and the whole list has places that no other page can take.

mod demand;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use self::demand::Demand;
use crate::http::Coding;
use crate::limits::{ENCODED_PAGES_MAX, ENCODED_PIECES_LIFETIME_S, ENCODER_QUEUE};
use crate::observe::counter::{Counter, Histogram};
use crate::snapshot::{Encoder, OldLists};
use crate::wires::inbox::{InboxSender, Message};
use crate::wires::pages::{EncodedPage, PageKey, Wish, WishQueue};

/// Longest wait before the thread looks whether it can let go of something.
const WISH_WAIT: Duration = Duration::from_millis(100);
/// Longest wait when there is nothing to let go of. It ends at once with the last shard.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Longest pause after a page. It pauses as long as it has worked, so that under a flood of writes it takes no more than
/// half of a CPU from the shards.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What the encoder counts.
#[derive(Debug, Default)]
pub struct EncoderMetrics {
    /// Time for encoding a page.
    pub encode_time: Histogram,
    /// Bytes of the pages before.
    pub plain_bytes: Counter,
    /// And after.
    pub encoded_bytes: Counter,
}

/// The running encoder thread.
pub struct EncoderThread {
    thread: JoinHandle<()>,
}

impl EncoderThread {
    /// Starts the thread, which sends what it makes to `inboxes`; it ends soon after `stop` is set.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start(
        inboxes: Vec<InboxSender>,
        metrics: Arc<EncoderMetrics>,
        old_lists: Arc<OldLists>,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<(WishQueue, EncoderThread)> {
        let (sender, wishes) = crossbeam_channel::bounded(ENCODER_QUEUE);
        let run = move || EncodeLoop::new(wishes, inboxes, metrics, old_lists).run(&stop);
        let thread = std::thread::Builder::new().name("encoder".into()).spawn(run)?;
        Ok((sender, EncoderThread { thread }))
    }

    /// The thread, for whoever waits for its end.
    pub fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

struct EncodeLoop {
    wishes: Receiver<Wish>,
    inboxes: Vec<InboxSender>,
    metrics: Arc<EncoderMetrics>,
    old_lists: Arc<OldLists>,
    encoders: Vec<(Coding, Encoder, Instant)>,
    /// The newest version that was wished for, and what was done about it.
    version: u64,
    done: Vec<PageKey>,
    demand: Demand,
    /// Pages that shards may still hold: it is this thread that frees them.
    published: Vec<PublishedPage>,
}

/// A page, and of the list that it was made of what [`replaced_bytes`](crate::snapshot::Snapshot::replaced_bytes)
/// and [`memory_bytes`](crate::snapshot::Snapshot::memory_bytes) say.
struct PublishedPage {
    page: EncodedPage,
    replaced_bytes: u64,
    list_bytes: u64,
}

impl EncodeLoop {
    fn new(
        wishes: Receiver<Wish>,
        inboxes: Vec<InboxSender>,
        metrics: Arc<EncoderMetrics>,
        old_lists: Arc<OldLists>,
    ) -> EncodeLoop {
        EncodeLoop {
            wishes,
            inboxes,
            metrics,
            old_lists,
            encoders: Vec::new(),
            version: 0,
            done: Vec::new(),
            demand: Demand::new(Instant::now()),
            published: Vec::new(),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let holds_nothing = self.published.is_empty() && self.encoders.is_empty();
            match self.wishes.recv_timeout(if holds_nothing { IDLE_WAIT } else { WISH_WAIT }) {
                Ok(wish) => {
                    for wish in self.most_wanted_first(wish) {
                        let started_at = Instant::now();
                        if self.fulfil(&wish) {
                            drop(wish);
                            std::thread::sleep(started_at.elapsed().min(PAUSE_MAX));
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.let_go();
        }
    }

    /// This wish and all that wait behind it, counted, in the order in which they are to be fulfilled.
    fn most_wanted_first(&mut self, first: Wish) -> Vec<Wish> {
        self.demand.age(Instant::now());
        let mut wishes = vec![first];
        wishes.extend(self.wishes.try_iter().take(ENCODER_QUEUE));
        for wish in &wishes {
            self.demand.add(wish.page(), wish.answers);
        }
        wishes.sort_by_cached_key(|wish| std::cmp::Reverse((wish.limit.is_none(), self.demand.of(wish.page()))));
        wishes
    }

    /// Whether there was anything to do.
    fn fulfil(&mut self, wish: &Wish) -> bool {
        let version = wish.snapshot.version();
        if version > self.version {
            self.version = version;
            self.done.clear();
        }
        if version < self.version || self.done.contains(&wish.page()) {
            return false;
        }
        let Some(replaces) = self.make_room(wish.page()) else { return false };
        self.done.push(wish.page());
        let started_at = Instant::now();
        let encoder = self.encoder(wish.coding, started_at);
        if let Some(body) = encoder.encode(&wish.snapshot, wish.limit) {
            self.metrics.encode_time.observe_time(started_at.elapsed());
            self.metrics.plain_bytes.add(wish.snapshot.page(None, wish.limit).content_length);
            self.metrics.encoded_bytes.add(body.len());
            let (limit, coding) = wish.page();
            let page = EncodedPage { version, limit, coding, body: Arc::new(body), replaces };
            for inbox in &self.inboxes {
                inbox.send(Message::Encoded(page.clone()));
            }
            self.published.push(PublishedPage {
                page,
                replaced_bytes: wish.snapshot.replaced_bytes(),
                list_bytes: wish.snapshot.memory_bytes(),
            });
        }
        true
    }

    /// Finds a place for a page: a free one, or that of the page that comes back, which is asked for least, and far less than
    /// this one. `None`: there is none.
    fn make_room(&mut self, page: PageKey) -> Option<Option<PageKey>> {
        let is_whole = |(limit, _): &PageKey| limit.is_none();
        let taken = self.done.iter().filter(|done| !is_whole(done)).count();
        if is_whole(&page) || taken < ENCODED_PAGES_MAX {
            return Some(None);
        }
        let others = self.done.iter().enumerate().filter(|(_, done)| !is_whole(done));
        let (at, least) = others.map(|(at, done)| (at, self.demand.of(*done))).min_by_key(|(_, demand)| *demand)?;
        // Half as much again is not enough: two pages that are liked alike would take turns.
        (self.demand.of(page) > 2 * least).then(|| Some(self.done.swap_remove(at)))
    }

    fn encoder(&mut self, coding: Coding, now: Instant) -> &mut Encoder {
        let at = self.encoders.iter().position(|(known, ..)| *known == coding).unwrap_or_else(|| {
            self.encoders.push((coding, Encoder::new(coding), now));
            self.encoders.len() - 1
        });
        self.encoders[at].2 = now;
        &mut self.encoders[at].1
    }

    /// At most so many bytes are held by pages of old lists: what they encode, which they keep the memory of, and what it became.
    /// As of the lists themselves, a piece counts with the last that has it.
    fn held_bytes(&self) -> u64 {
        let settled_version = self.old_lists.settled_version();
        let held_in = |coding: Coding| {
            let in_coding = self.published.iter().filter(|published| published.page.coding == coding);
            let mut later_bytes = self.old_lists.replaced_bytes();
            let mut held_bytes = 0;
            // The newest first.
            for old in in_coding.rev().filter(|published| published.page.version <= settled_version) {
                held_bytes += 2 * later_bytes.saturating_sub(old.replaced_bytes).min(old.list_bytes);
                later_bytes = later_bytes.min(old.replaced_bytes);
            }
            held_bytes
        };
        Coding::COMPRESSED.into_iter().map(held_in).sum()
    }

    fn let_go(&mut self) {
        self.published.retain(|published| Arc::strong_count(&published.page.body) > 1);
        self.old_lists.measured_encoded(self.held_bytes());
        let lifetime = Duration::from_secs(ENCODED_PIECES_LIFETIME_S);
        self.encoders.retain(|(_, _, used_at)| used_at.elapsed() < lifetime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{HashKeys, Snapshot};

    const CODING: Coding = Coding::Gzip;

    /// A loop, and the way of wishes to it. The pages of an empty list are not encoded, but have their places.
    fn encode_loop() -> (WishQueue, EncodeLoop) {
        let (sender, wishes) = crossbeam_channel::bounded(ENCODER_QUEUE);
        (sender, EncodeLoop::new(wishes, Vec::new(), Arc::default(), Arc::default()))
    }

    fn wish(limit: Option<usize>, answers: u64) -> Wish {
        Wish { snapshot: Arc::new(Snapshot::empty(HashKeys::new(&[1; 32]))), limit, coding: CODING, answers }
    }

    impl EncodeLoop {
        fn take(&mut self, wish: Wish) {
            for wish in self.most_wanted_first(wish) {
                self.fulfil(&wish);
            }
        }

        fn has(&self, limit: Option<usize>) -> bool {
            self.done.contains(&(limit, CODING))
        }
    }

    #[test]
    fn the_whole_list_has_a_place_however_many_pages_were_asked_for_before() {
        let (_queue, mut encodes) = encode_loop();
        for limit in 0..2_000 {
            encodes.take(wish(Some(limit), 1));
        }
        assert_eq!(encodes.done.len(), ENCODED_PAGES_MAX);
        for coding in Coding::COMPRESSED {
            encodes.take(Wish { coding, ..wish(None, 1) });
            assert!(encodes.done.contains(&(None, coding)), "{coding:?}");
        }
        assert_eq!(encodes.done.len(), ENCODED_PAGES_MAX + Coding::COMPRESSED.len());
        for limit in 0..2_000 {
            encodes.take(wish(Some(limit), 1_000_000 + limit as u64));
        }
        assert!(encodes.has(None), "and nobody takes it");
    }

    #[test]
    fn a_page_that_many_ask_for_takes_the_place_of_the_one_that_fewest_do() {
        let (_queue, mut encodes) = encode_loop();
        for limit in 0..ENCODED_PAGES_MAX {
            encodes.take(wish(Some(limit), if limit == 7 { 3 } else { 5_000 }));
        }
        encodes.take(wish(Some(100), 5));
        assert!(!encodes.has(Some(100)) && encodes.has(Some(7)), "nearly the same is not enough");
        encodes.take(wish(Some(100), 5));
        assert!(encodes.has(Some(100)) && !encodes.has(Some(7)));
        // A crowd of others, each asked for once, changes nothing.
        for limit in 1000..3000 {
            encodes.take(wish(Some(limit), 1));
        }
        assert!((0..ENCODED_PAGES_MAX).filter(|limit| *limit != 7).all(|limit| encodes.has(Some(limit))));
        assert_eq!(encodes.done.len(), ENCODED_PAGES_MAX);
    }

    #[test]
    fn of_what_waits_the_whole_list_is_first_and_then_what_is_asked_for_most() {
        let (queue, mut encodes) = encode_loop();
        for (limit, answers) in [(Some(1), 1), (Some(2), 9), (None, 1), (Some(3), 4)] {
            assert!(queue.try_send(wish(limit, answers)).is_ok());
        }
        let order: Vec<_> = encodes.most_wanted_first(wish(Some(4), 2)).iter().map(|wish| wish.limit).collect();
        assert_eq!(order, [None, Some(2), Some(3), Some(4), Some(1)]);
    }
}
