//! Answers with a page of the list: prepared ones, their heads, and the 304 to whoever has it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use reactor::FastPath;

use super::Shard;
use super::encoded_pages::LocalBody;
use super::local_snapshot::LocalSnapshot;
use super::memo::Meaning;
use super::output::Output;
use super::prepared::PreparedList;
use crate::http::accept_encoding::preferred_coding;
use crate::http::response::{CacheControl, ContentType};
use crate::http::{Coding, Connection, Head, Position, ResponseHead, Status};
use crate::limits::ENCODING_MIN_BYTES;
use crate::snapshot::Page;

impl Shard {
    /// The coding that the client prefers, where there are any.
    #[inline]
    pub(super) fn coding(&self, head: &Head<'_>) -> Coding {
        if !head.has_accept_encoding() || self.wishes.is_none() {
            return Coding::Identity;
        }
        preferred_coding(head.accept_encoding())
    }

    /// Calls `use_list` with the prepared first page for `limit`, in this coding if the encoder has made it.
    #[inline]
    pub(super) fn with_list<R>(
        &self,
        snapshot: &Rc<LocalSnapshot>,
        limit: Option<usize>,
        coding: Coding,
        use_list: impl FnOnce(&mut PreparedList) -> R,
    ) -> R {
        let mut lists = self.lists.borrow_mut();
        let page = || snapshot.page(None, limit);
        let prepare = |answers| prepare_list(self, snapshot, limit, coding, answers);
        use_list(lists.get(limit, coding, snapshot.version(), self.clock.unix_seconds(), page, prepare))
    }

    /// The answer to what has been received, if that is the last request for a first page, once or several times and nothing
    /// else, and its answer is ready as one piece: a buffer, and how much of it. The shortest way from request to answer; all
    /// others, and every other moment of a connection, go through the input.
    #[inline]
    pub(super) fn answer_repeated(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        if self.is_draining() {
            return None;
        }
        let memo = self.memo.borrow();
        let count = memo.whole_repetitions(received)?;
        let Meaning { limit, coding, unchanged } = memo.meaning();
        let snapshot = self.snapshot.borrow();
        let answer = self.with_list(snapshot.as_ref()?, limit, coding, |list| {
            if unchanged.is_some_and(|(tag, _)| tag != list.page.entity_tag) {
                return None;
            }
            let answer = list.share(unchanged.map(|(_, coding)| coding), count)?;
            count_lists(self, list, unchanged.is_some(), count);
            Some(answer)
        })?;
        self.metrics.memo_hits.add(count as u64);
        Some(answer)
    }

    #[inline]
    pub(super) fn count_encoded(&self, encoded: &LocalBody, page: &Page, responses: usize) {
        let metrics = &self.metrics.encoded[encoded.coding() as usize];
        metrics.responses.add(responses as u64);
        metrics.plain_bytes.add(responses as u64 * page.content_length);
        metrics.encoded_bytes.add(responses as u64 * encoded.len());
    }
}

impl FastPath for Shard {
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        let answered = catch_unwind(AssertUnwindSafe(|| self.answer_repeated(received)));
        // After a panic the task looks at the request, and answers for it.
        let (bytes, length) = answered.ok().flatten()?;
        self.metrics.bytes_received.add(received.len() as u64);
        self.metrics.bytes_sent.add(length as u64);
        Some((bytes, length))
    }

    fn idle_until(&self) -> u64 {
        self.after(self.settings.idle_timeout)
    }
}

/// Makes a list ready that was asked for `answers` times since it was last made ready. That is so once a second while clients
/// ask for it: the encoder hears of it then, whether the list has its coding or not.
fn prepare_list(
    shard: &Shard,
    snapshot: &Rc<LocalSnapshot>,
    limit: Option<usize>,
    coding: Coding,
    answers: u64,
) -> PreparedList {
    let page = snapshot.page(None, limit);
    let mut encoded = None;
    if coding != Coding::Identity && page.content_length >= ENCODING_MIN_BYTES {
        encoded = shard.encoded.borrow().get(snapshot.version(), limit, coding);
        shard.wish(snapshot, limit, coding, answers);
    }
    let mut head = Vec::with_capacity(512);
    let start = ResponseHead::start(&mut head, Status::Ok, &shard.clock.date());
    write_list_head(start, &page, encoded.as_deref(), limit, snapshot.position(), Connection::KeepAlive);
    PreparedList::new(snapshot, page, encoded, head)
}

/// Appends a prepared list, or the answer that it is unchanged, with the tag of the coding given for it, as often as `count` says, given how many the output takes;
/// returns how often.
#[inline]
pub fn push_list(
    shard: &Shard,
    list: &mut PreparedList,
    snapshot: &Rc<LocalSnapshot>,
    unchanged: Option<Coding>,
    count: impl FnOnce(usize) -> usize,
    output: &mut Output,
) -> usize {
    let answered = match unchanged {
        Some(coding) => {
            let write = |page: &Page, text: &mut Vec<u8>| {
                let head = ResponseHead::start(text, Status::NotModified, &shard.clock.date());
                write_unchanged(head, page.entity_tag, coding, snapshot.position(), Connection::KeepAlive);
            };
            list.push_unchanged(coding, write, count, output)
        }
        None => list.push(snapshot, count, output),
    };
    count_lists(shard, list, unchanged.is_some(), answered);
    answered
}

/// Counts so many answers with this list, or that it is unchanged.
#[inline]
fn count_lists(shard: &Shard, list: &mut PreparedList, is_unchanged: bool, answered: usize) {
    list.answers += answered as u64;
    match &list.encoded {
        Some(encoded) if !is_unchanged => shard.count_encoded(encoded, &list.page, answered),
        _ => {}
    }
    shard.count_many(if is_unchanged { Status::NotModified } else { Status::Ok }, answered);
}

/// Writes the answer 304 with the tag of this coding.
pub fn write_unchanged(
    head: ResponseHead<'_>,
    entity_tag: u64,
    coding: Coding,
    position: Position,
    connection: Connection,
) {
    head.etag_in(entity_tag, coding)
        .event_position(position)
        .cache_control(CacheControl::NoCache)
        .vary_accept_encoding()
        .connection(connection)
        .end();
}

/// Writes the head of a page, which is sent as `encoded` if that is there.
pub fn write_list_head(
    head: ResponseHead<'_>,
    page: &Page,
    encoded: Option<&LocalBody>,
    limit: Option<usize>,
    position: Position,
    connection: Connection,
) {
    let coding = encoded.map_or(Coding::Identity, |encoded| encoded.coding());
    let head = head
        .content_type(ContentType::Json)
        .content_encoding(coding)
        .content_length(encoded.map_or(page.content_length, |encoded| encoded.len()))
        .etag_in(page.entity_tag, coding)
        .event_position(position)
        .cache_control(CacheControl::NoCache)
        .vary_accept_encoding();
    let head = match (limit, page.next) {
        (Some(limit), Some(next)) => head.next_page(limit, next),
        _ => head,
    };
    head.connection(connection).end();
}
