//! Reads of a part of the list: the todos of a user, those that are done or not, and how many of them there are.

use std::rc::Rc;

use super::{LocalSnapshot, Subject, Unchanged};
use crate::http::conditional::{Condition, evaluate};
use crate::http::response::{CacheControl, ContentType};
use crate::http::words::filter::Filter;
use crate::http::{Coding, Head, Problem, Status};
use crate::limits::GATHERED_PAGE_MAX_TODOS;
use crate::shard::reply::Reply;
use crate::snapshot::{Page, SelectedPage, Selection, Snapshot};
use crate::todo::TodoKey;

/// A page of a part of the list, as it is asked for.
pub struct SelectedRead<'q> {
    /// Which part.
    pub selection: Selection,
    /// The same in the words of the client.
    pub filter: &'q Filter<'q>,
    /// What stands before the page.
    pub cursor: Option<TodoKey>,
    /// Its length.
    pub limit: Option<usize>,
    /// What caches may do with it.
    pub cache_control: CacheControl,
}

impl SelectedRead<'_> {
    /// Answers with the page, unless the client has it.
    ///
    /// # Errors
    /// A condition does not hold.
    pub fn answer(
        &self,
        snapshot: &Rc<LocalSnapshot>,
        head: &Head<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Option<Unchanged>, Problem> {
        let SelectedRead { selection, filter, cursor, limit, cache_control } = *self;
        let SelectedPage { page, gathered } = snapshot.selected_page(selection, cursor, limit);
        let Page { content_length, entity_tag, next, body, .. } = page;
        let position = snapshot.position();
        match evaluate(head, Some(entity_tag)) {
            Condition::Holds => {}
            Condition::NotModified => {
                let (subject, subject_tag) = self.subject(snapshot, entity_tag);
                let coding = Coding::Identity;
                return Ok(Some(Unchanged { subject, subject_tag, entity_tag, coding, position, cache_control }));
            }
            Condition::Failed => return Err(Problem::precondition_failed()),
        }
        let connection = reply.connection();
        let limit = Snapshot::selected_limit(cursor, limit);
        reply.head(Status::Ok, |head| {
            let head = head
                .content_type(ContentType::Json)
                .content_length(content_length)
                .etag(entity_tag)
                .event_position(position)
                .cache_control(cache_control)
                .vary_accept_encoding();
            let head = match (limit, next) {
                (Some(limit), Some(next)) => head.next_page(filter, limit, next),
                _ => head,
            };
            head.connection(connection).end();
        });
        reply.selected_body(snapshot, body, gathered.as_deref());
        Ok(None)
    }

    /// What is looked at for who waits for another page: a short page itself, else all that it is a part of.
    fn subject(&self, snapshot: &Snapshot, entity_tag: u64) -> (Subject, u64) {
        let SelectedRead { selection, cursor, limit, .. } = *self;
        match limit.filter(|limit| *limit <= GATHERED_PAGE_MAX_TODOS) {
            Some(limit) => (Subject::Selected { selection, cursor, limit }, entity_tag),
            None => (Subject::Selection(selection), snapshot.selection_tag(selection)),
        }
    }
}

/// Answers with the number of todos of a part of the list, unless the client has it.
///
/// # Errors
/// A condition does not hold.
pub fn answer_count(
    selection: Selection,
    cache_control: CacheControl,
    snapshot: &Snapshot,
    head: &Head<'_>,
    reply: &mut Reply<'_>,
) -> Result<Option<Unchanged>, Problem> {
    let (entity_tag, position) = (snapshot.count_entity_tag(selection), snapshot.position());
    match evaluate(head, Some(entity_tag)) {
        Condition::Holds => {}
        Condition::NotModified => {
            let (subject, subject_tag) = (Subject::Selection(selection), snapshot.selection_tag(selection));
            let coding = Coding::Identity;
            return Ok(Some(Unchanged { subject, subject_tag, entity_tag, coding, position, cache_control }));
        }
        Condition::Failed => return Err(Problem::precondition_failed()),
    }
    let body = format!("{{\"count\":{}}}", snapshot.count(selection));
    let connection = reply.connection();
    reply.head(Status::Ok, |head| {
        head.content_type(ContentType::Json)
            .content_length(body.len() as u64)
            .etag(entity_tag)
            .event_position(position)
            .cache_control(cache_control)
            .vary_accept_encoding()
            .connection(connection)
            .end();
    });
    reply.bytes(body.as_bytes());
    Ok(None)
}
