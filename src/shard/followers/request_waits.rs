//! A read that would be answered with 304: whether it waits instead.

use std::rc::Rc;
use std::time::Duration;

use super::super::answer::Request;
use super::super::reads::{Subject, Unchanged, write_unchanged};
use super::waiting_reads::{ReadWait, WaitingRead};
use crate::http::prefer::wait_s;
use crate::http::{ResponseHead, Status};
use crate::limits::PREFER_WAIT_MAX_S;

impl Request<'_> {
    /// Answers a read whose client has what it asks for: waits for something else, or 304.
    pub(in super::super) fn answer_unchanged(&mut self, unchanged: Option<Unchanged>) {
        let Some(unchanged) = unchanged else { return };
        let Unchanged { subject, subject_tag, entity_tag, coding, position, cache_control } = unchanged;
        if self.waits_for(subject, subject_tag) {
            return;
        }
        let (connection, waited_s) = (self.reply.connection(), self.waited_s());
        self.reply.head(Status::NotModified, |head| {
            let head = waited_s.into_iter().fold(head, ResponseHead::preference_applied_wait_s);
            write_unchanged(head, entity_tag, coding, position, cache_control, connection);
        });
    }

    /// Whether a read waits that would be answered with 304, because its client has what the subject is now, with this tag.
    ///
    /// RFC 7240 section 2 lets a server leave a preference aside. Where there are as many followers as may be, 304 at once is
    /// an answer that is right, and that every client understands; 503 would end a client that polls as well without the wait.
    fn waits_for(&mut self, subject: Subject, entity_tag: u64) -> bool {
        self.wait = match std::mem::replace(&mut self.wait, ReadWait::Over(None)) {
            ReadWait::May => self.begin_wait(subject, entity_tag).map_or(ReadWait::Over(None), ReadWait::Waits),
            // The client knows the new one, too.
            ReadWait::LooksAgain(read) => {
                read.registration.wait_on(entity_tag);
                ReadWait::Waits(read)
            }
            other => other,
        };
        matches!(self.wait, ReadWait::Waits(_))
    }

    fn begin_wait(&self, subject: Subject, entity_tag: u64) -> Option<WaitingRead> {
        let wait_s = wait_s(self.head.prefer()).filter(|wait_s| *wait_s > 0)?.min(PREFER_WAIT_MAX_S);
        // `*` names nothing that could become another.
        if self.shard.is_draining() || self.head.if_none_match().any(|tags| tags == b"*") {
            return None;
        }
        let followers = &self.shard.followers;
        let Some(place) = followers.places.take() else {
            self.shard.metrics.read_waits_refused.add(1);
            return None;
        };
        let until = self.shard.after(Duration::from_secs(wait_s));
        let registration = followers.waiting_reads.begin(subject, entity_tag, Rc::clone(self.state), until);
        Some(WaitingRead { registration, wait_s, _place: place })
    }

    /// The seconds that the request has waited, where the client is told.
    fn waited_s(&self) -> Option<u64> {
        match self.wait {
            ReadWait::Over(waited_s) => waited_s,
            _ => None,
        }
    }
}
