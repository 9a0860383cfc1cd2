//! Commands that wait for the topic to be known.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::command_log::kafka::link::BatchBounds;
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::{Refusal, Submission, Ticket};

/// Commands that wait, in their order.
#[derive(Default)]
pub(super) struct Held {
    submissions: VecDeque<(Instant, Submission)>,
    bytes: usize,
}

impl Held {
    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.submissions.is_empty()
    }

    /// Takes one more, within the bounds of librdkafka's own queue.
    pub(super) fn add(&mut self, submission: Submission, options: &KafkaOptions) -> Result<(), (Ticket, Refusal)> {
        let bytes = submission.payload.len();
        if !BatchBounds::of(None).takes(&submission.payload) {
            return Err((submission.ticket, Refusal::TooLarge));
        }
        if self.submissions.len() >= options.queue_max_messages as usize
            || self.bytes + bytes > options.queue_max_kb as usize * 1024
        {
            return Err((submission.ticket, Refusal::Full));
        }
        self.bytes += bytes;
        self.submissions.push_back((Instant::now(), submission));
        Ok(())
    }

    /// The oldest, if it has waited for so long.
    pub(super) fn overdue(&mut self, longest: Duration) -> Option<Submission> {
        let (held_at, _) = self.submissions.front()?;
        if held_at.elapsed() < longest {
            return None;
        }
        let (_, submission) = self.submissions.pop_front()?;
        self.bytes -= submission.payload.len();
        Some(submission)
    }

    /// All of them, in their order.
    pub(super) fn take_all(&mut self) -> Vec<Submission> {
        self.bytes = 0;
        std::mem::take(&mut self.submissions).into_iter().map(|(_, submission)| submission).collect()
    }
}
