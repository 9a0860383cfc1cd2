//! The answer to what was recognised: a prepared list, or that it is unchanged, as pieces to send.

use std::rc::Rc;

use super::prepared::{ListKey, PreparedList, Present};
use super::served::{Form, Served};
use super::{FirstPage, LocalBody, LocalSnapshot, Reads};
use crate::http::response::{CacheControl, ContentType};
use crate::http::words::filter::Filter;
use crate::http::{Coding, Connection, Position, ResponseHead, Status};
use crate::limits::ENCODING_MIN_BYTES;
use crate::shard::reply::count_responses;
use crate::snapshot::Page;

impl Reads {
    /// Answers a request for a first page that came `times` times in a row. `None` if there is no list yet, or its answer cannot be
    /// had in this form.
    #[inline]
    pub fn serve(&self, asked: FirstPage, times: usize, form: Form) -> Option<Served> {
        let snapshot = self.snapshot.borrow();
        let snapshot = snapshot.as_ref()?;
        let FirstPage { limit, coding, known, grant } = asked;
        self.with_list(snapshot, ListKey { limit, coding, grant }, |list| {
            let unchanged = known.filter(|(tag, _)| *tag == list.page.entity_tag);
            let served = match unchanged {
                None => list.serve(snapshot, times, form)?,
                Some((_, coding)) => {
                    let date = self.clock.date();
                    let write = |page: &Page, text: &mut Vec<u8>| {
                        let head = ResponseHead::start(text, Status::NotModified, &date).lines(self.cors.lines(grant));
                        let (position, cache_control) = (snapshot.position(), CacheControl::NoCache);
                        write_unchanged(head, page.entity_tag, coding, position, cache_control, Connection::KeepAlive);
                    };
                    list.serve_unchanged(coding, times, form, write)?
                }
            };
            self.count(list, unchanged.is_some(), served.answers);
            Some(served)
        })
    }

    /// Calls `use_list` with the prepared list, in its coding if the encoder has made that.
    #[inline]
    pub(super) fn with_list<R>(
        &self,
        snapshot: &Rc<LocalSnapshot>,
        key: ListKey,
        use_list: impl FnOnce(&mut PreparedList) -> R,
    ) -> R {
        let present = Present { snapshot, unix_seconds: self.clock.unix_seconds() };
        let prepare = |answers| self.prepare(snapshot, key, answers);
        self.lists.borrow_mut().with(key, present, prepare, use_list)
    }

    /// Makes a list ready that was asked for `answers` times since it was last made ready. That is so once a second while clients
    /// ask for it: the encoder hears of it then, whether the list has its coding or not.
    fn prepare(&self, snapshot: &Rc<LocalSnapshot>, key: ListKey, answers: u64) -> PreparedList {
        let ListKey { limit, coding, grant } = key;
        let page = snapshot.page(None, limit);
        let mut encoded = None;
        if coding != Coding::Identity && page.content_length >= ENCODING_MIN_BYTES {
            encoded = self.encoded.borrow().get(snapshot.version(), limit, coding);
            self.wish(snapshot, key, answers);
        }
        let mut head = Vec::with_capacity(512);
        let start = ResponseHead::start(&mut head, Status::Ok, &self.clock.date()).lines(self.cors.lines(grant));
        write_list_head(start, &page, encoded.as_deref(), limit, snapshot.position(), Connection::KeepAlive);
        PreparedList::new(snapshot, page, encoded, head)
    }

    #[inline]
    fn count(&self, list: &mut PreparedList, is_unchanged: bool, answers: usize) {
        list.answers += answers as u64;
        match &list.encoded {
            Some(encoded) if !is_unchanged => self.count_encoded(encoded, list.page.content_length, answers),
            _ => {}
        }
        let status = if is_unchanged { Status::NotModified } else { Status::Ok };
        count_responses(&self.metrics, status, answers);
    }
}

/// Writes the answer 304 with the tag of this coding.
pub fn write_unchanged(
    head: ResponseHead<'_>,
    entity_tag: u64,
    coding: Coding,
    position: Position,
    cache_control: CacheControl,
    connection: Connection,
) {
    head.etag_in(entity_tag, coding)
        .event_position(position)
        .cache_control(cache_control)
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
        (Some(limit), Some(next)) => head.next_page(&Filter::default(), limit, next),
        _ => head,
    };
    head.connection(connection).end();
}
