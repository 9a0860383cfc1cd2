//! The encoder: the one thread of an API process that compresses lists, so that no shard and not the refresher does.
//!
//! A shard that is asked for a coding of a list that it does not have in it answers identity, and leaves a wish: this page,
//! in this coding, of this snapshot. What is made of it goes to every shard's inbox. So nothing is compressed that nobody
//! asks for, and nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::http::Coding;
use crate::limits::{ENCODED_PAGES_MAX, ENCODED_PIECES_LIFETIME_S, ENCODER_QUEUE};
use crate::observe::counter::{Counter, Histogram};
use crate::shard::inbox::{InboxSender, Message};
use crate::snapshot::{EncodedBody, Encoder, Snapshot};

/// Longest wait before the thread looks whether it can let go of something.
const WISH_WAIT: Duration = Duration::from_millis(100);
/// Longest wait when there is nothing to let go of. It ends at once with the last shard.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Longest pause after a page. It pauses as long as it has worked, so that under a flood of writes it takes no more than
/// half of a CPU from the shards.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A first page that a shard would rather answer with in a coding.
pub struct Wish {
    /// The list.
    pub snapshot: Arc<Snapshot>,
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding.
    pub coding: Coding,
}

/// A first page in a coding.
#[derive(Clone)]
pub struct EncodedPage {
    /// The version of its snapshot.
    pub version: u64,
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding that was wished for.
    pub coding: Coding,
    /// The bytes.
    pub body: Arc<EncodedBody>,
}

/// The way of wishes to the encoder: bounded, and whoever finds it full goes on without.
pub type WishQueue = Sender<Wish>;

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
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<(WishQueue, EncoderThread)> {
        let (sender, wishes) = crossbeam_channel::bounded(ENCODER_QUEUE);
        let run = move || EncodeLoop::new(wishes, inboxes, metrics).run(&stop);
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
    encoders: Vec<(Coding, Encoder, Instant)>,
    /// The newest version that was wished for, and what was done about it.
    version: u64,
    done: Vec<(Option<usize>, Coding)>,
    /// Pages that shards may still hold: it is this thread that frees them.
    published: Vec<EncodedPage>,
}

impl EncodeLoop {
    fn new(wishes: Receiver<Wish>, inboxes: Vec<InboxSender>, metrics: Arc<EncoderMetrics>) -> EncodeLoop {
        EncodeLoop {
            wishes,
            inboxes,
            metrics,
            encoders: Vec::new(),
            version: 0,
            done: Vec::new(),
            published: Vec::new(),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let holds_nothing = self.published.is_empty() && self.encoders.is_empty();
            match self.wishes.recv_timeout(if holds_nothing { IDLE_WAIT } else { WISH_WAIT }) {
                Ok(wish) => {
                    let started_at = Instant::now();
                    if self.fulfil(&wish) {
                        drop(wish);
                        std::thread::sleep(started_at.elapsed().min(PAUSE_MAX));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.let_go();
        }
    }

    /// Whether there was anything to do.
    fn fulfil(&mut self, wish: &Wish) -> bool {
        let version = wish.snapshot.version();
        if version > self.version {
            self.version = version;
            self.done.clear();
        }
        let page = (wish.limit, wish.coding);
        if version < self.version || self.done.contains(&page) || self.done.len() >= ENCODED_PAGES_MAX {
            return false;
        }
        self.done.push(page);
        let started_at = Instant::now();
        let encoder = self.encoder(wish.coding, started_at);
        if let Some(body) = encoder.encode(&wish.snapshot, wish.limit) {
            self.metrics.encode_time.observe_time(started_at.elapsed());
            self.metrics.plain_bytes.add(wish.snapshot.page(None, wish.limit).content_length);
            self.metrics.encoded_bytes.add(body.len());
            let page = EncodedPage { version, limit: wish.limit, coding: wish.coding, body: Arc::new(body) };
            for inbox in &self.inboxes {
                inbox.send(Message::Encoded(page.clone()));
            }
            self.published.push(page);
        }
        true
    }

    fn encoder(&mut self, coding: Coding, now: Instant) -> &mut Encoder {
        let at = self.encoders.iter().position(|(known, ..)| *known == coding).unwrap_or_else(|| {
            self.encoders.push((coding, Encoder::new(coding), now));
            self.encoders.len() - 1
        });
        self.encoders[at].2 = now;
        &mut self.encoders[at].1
    }

    fn let_go(&mut self) {
        self.published.retain(|page| Arc::strong_count(&page.body) > 1);
        let lifetime = Duration::from_secs(ENCODED_PIECES_LIFETIME_S);
        self.encoders.retain(|(_, _, used_at)| used_at.elapsed() < lifetime);
    }
}
