//! One complete answer in one piece, copied as often as pipelines ask for it.

use std::rc::Rc;

use super::served::{Form, Served, ServedBody};

/// Most bytes of the copies of one answer: a deep pipeline of small answers then leaves as one piece, and the copies stay
/// in the second-level cache.
pub(super) const COPIES_MAX_BYTES: usize = 256 * 1024;

/// A complete answer, as often in a row as pipelines have asked for it. It is never changed, because it may be in flight.
pub(super) struct PreparedAnswer {
    /// It, one time or several.
    pub(super) copies: Rc<[u8]>,
    pub(super) answer_bytes: usize,
}

impl PreparedAnswer {
    /// An answer of these bytes, not empty.
    pub(super) fn new(bytes: Vec<u8>) -> PreparedAnswer {
        PreparedAnswer { answer_bytes: bytes.len(), copies: bytes.into() }
    }

    /// The answer `times` times, or as often as one piece and the form allow; once at least.
    #[inline]
    pub(super) fn serve(&mut self, times: usize, form: Form) -> Option<Served> {
        let answers = if times > 1 { self.answers_of_one_piece(times, form)? } else { 1 };
        let length = answers * self.answer_bytes;
        Some(Served { bytes: Rc::clone(&self.copies), length, answers, body: ServedBody::Copied })
    }

    fn answers_of_one_piece(&mut self, times: usize, form: Form) -> Option<usize> {
        let answers = match form {
            Form::OnePiece if times * self.answer_bytes > COPIES_MAX_BYTES.max(self.copies.len()) => return None,
            Form::OnePiece => times,
            Form::Pieces { bytes_max } => times.min(bytes_max.div_ceil(self.answer_bytes)).max(1),
        };
        if answers * self.answer_bytes > self.copies.len() {
            self.make_copies(answers);
        }
        Some(answers.min(self.copies.len() / self.answer_bytes))
    }

    /// To copy is no more work than what it saves: the kernel copies as much out of them.
    fn make_copies(&mut self, answers: usize) {
        let wanted = answers.next_power_of_two().min(COPIES_MAX_BYTES / self.answer_bytes);
        if wanted * self.answer_bytes > self.copies.len() {
            self.copies = self.copies[..self.answer_bytes].repeat(wanted).into();
        }
    }
}
