//! Bytes of a response, as a position that can be kept.

use std::ops::ControlFlow;

use super::Snapshot;

/// The bytes of a page, of the whole list or of one todo that are still to be sent: plain data, so that a connection
/// keeps it across partial writes without holding on to anything. It copies; a copy goes on from the same place.
///
/// It means something only together with the snapshot that it came from: with another one its pieces are some other
/// bytes, though nothing panics. Whoever keeps a run keeps that snapshot alive as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the list, counted over all chunks.
    position: u64,
    end: u64,
    /// Whether a bracket is still to come, before and after.
    opens: bool,
    closes: bool,
}

impl Run {
    /// The bytes `position..end` of all chunks; what they end with is left out by choosing `end`.
    pub(super) fn bare(position: u64, end: u64) -> Run {
        Run { position, end, opens: false, closes: false }
    }

    /// The same between brackets.
    pub(super) fn bracketed(position: u64, end: u64) -> Run {
        Run { position, end, opens: true, closes: true }
    }

    /// Gives `take` the next pieces to send, and steps over them, until it returns false or all are taken. Pieces are never
    /// empty and as long as the chunks allow: about [`CHUNK_TARGET_BYTES`](crate::limits::CHUNK_TARGET_BYTES), except for
    /// brackets, the first and the last; and longer from when the snapshot is [flat](Snapshot::flatten).
    pub fn take_pieces<'s>(&mut self, snapshot: &'s Snapshot, mut take: impl FnMut(&'s [u8]) -> bool) {
        if self.opens {
            self.opens = false;
            if !take(b"[") {
                return;
            }
        }
        let mut goes_on = true;
        if let Some(flat) = snapshot.flat.get() {
            while goes_on && self.position < self.end {
                let Some(rest) = flat.rest_from(self.position) else { return };
                let piece = &rest[..rest.len().min((self.end - self.position) as usize)];
                self.position += piece.len() as u64;
                goes_on = take(piece);
            }
        } else if self.position < self.end {
            snapshot.todos.visit_from_byte(self.position, |chunk, bytes_before| {
                let rest = &chunk.json()[(self.position - bytes_before) as usize..];
                let piece = &rest[..rest.len().min((self.end - self.position) as usize)];
                self.position += piece.len() as u64;
                goes_on = take(piece);
                if goes_on && self.position < self.end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        if goes_on && self.position == self.end && self.closes {
            self.closes = false;
            take(b"]");
        }
    }

    /// The next piece, as [`Run::take_pieces`] gives it; `None` at the end.
    pub fn next_piece<'s>(&mut self, snapshot: &'s Snapshot) -> Option<&'s [u8]> {
        let mut next = None;
        self.take_pieces(snapshot, |piece| {
            next = Some(piece);
            false
        });
        next
    }

    /// Steps over the next `bytes` bytes (all, if there are fewer): what a write has sent.
    pub fn advance(&mut self, mut bytes: u64) {
        if bytes > 0 && self.opens {
            self.opens = false;
            bytes -= 1;
        }
        let step = bytes.min(self.end - self.position);
        self.position += step;
        if bytes > step {
            self.closes = false;
        }
    }

    /// Bytes still to come.
    pub fn remaining_bytes(&self) -> u64 {
        u64::from(self.opens) + (self.end - self.position) + u64::from(self.closes)
    }
}
