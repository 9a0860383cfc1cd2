//! How other threads reach a shard: an unbounded lock-free queue and one wake-up.
//!
//! What may stand in it is bounded elsewhere: acknowledgements by the write queue's limits, snapshots by the refresher's
//! pace, orders by there being two.

use std::sync::Arc;
use std::task::Poll;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use futures_util::task::AtomicWaker;

use crate::auth::KeySet;
use crate::change_feed::News;
use crate::command_log::{Acknowledgement, Coverage};
use crate::snapshot::Snapshot;
use crate::todo::IdKey;
use crate::wires::pages::EncodedPage;

/// What a shard can be told.
pub enum Message {
    /// Answer from this snapshot from now on, and tell those who follow what is new in it.
    Snapshot(Arc<Snapshot>, Arc<News>),
    /// Check tokens with these keys from now on.
    Keys(Arc<KeySet>),
    /// Ids from `Idempotency-Key` are made with this key from now on.
    IdKey(IdKey),
    /// A page that some shard has wished for.
    Encoded(EncodedPage),
    /// The last snapshot has taken in this part of the log.
    Covered(Arc<Coverage>),
    /// These commands are in the log, or are not.
    Acknowledgements(Vec<Acknowledgement>),
    /// Stop accepting, answer what was read, and leave.
    Drain,
    /// The drain deadline has passed: leave now.
    Abandon,
}

/// The sending end; cheap to clone, used by the refresher, the producer and the process.
#[derive(Clone)]
pub struct InboxSender {
    queue: Sender<Message>,
    waker: Arc<AtomicWaker>,
}

impl InboxSender {
    /// Puts a message into the inbox and wakes the shard if it sleeps. A shard that has ended ignores it.
    pub fn send(&self, message: Message) {
        if self.queue.send(message).is_ok() {
            self.waker.wake();
        }
    }
}

/// The shard's end.
pub struct Inbox {
    queue: Receiver<Message>,
    waker: Arc<AtomicWaker>,
}

impl Inbox {
    /// A new inbox and its sending end.
    pub fn new() -> (InboxSender, Inbox) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let waker = Arc::new(AtomicWaker::new());
        (InboxSender { queue: sender, waker: Arc::clone(&waker) }, Inbox { queue: receiver, waker })
    }

    /// Waits for the next message; `None` when no sender is left.
    pub async fn next(&self) -> Option<Message> {
        std::future::poll_fn(|context| {
            // Register before the last look, so that a message sent between the two still wakes this task.
            if let Ok(message) = self.queue.try_recv() {
                return Poll::Ready(Some(message));
            }
            self.waker.register(context.waker());
            match self.queue.try_recv() {
                Ok(message) => Poll::Ready(Some(message)),
                Err(TryRecvError::Empty) => Poll::Pending,
                Err(TryRecvError::Disconnected) => Poll::Ready(None),
            }
        })
        .await
    }
}
