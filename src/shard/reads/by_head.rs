//! Reads whose answer has a head of its own: other pages than the first, single todos, HEAD, connections that close, and
//! conditions that say more than one entity tag.

use super::Reads;
use super::prepared::{ListKey, PreparedList};
use super::serve::write_list_head;
use crate::http::conditional::{Condition, evaluate, evaluate_encoded};
use crate::http::response::{CacheControl, ContentType};
use crate::http::{Coding, Head, Position, Problem, Status};
use crate::shard::reply::{Reply, not_loaded};
use crate::snapshot::Selection;
use crate::todo::{TodoId, TodoKey};

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A page, or the whole list.
    Page {
        /// What stands before it.
        cursor: Option<TodoKey>,
        /// Its length.
        limit: Option<usize>,
    },
    /// One todo.
    Todo(TodoId),
    /// A page of a part of the list.
    Selected {
        /// Which part.
        selection: Selection,
        /// What stands before it.
        cursor: Option<TodoKey>,
        /// Its length.
        limit: usize,
    },
    /// A part of the list as a whole.
    Selection(Selection),
}

/// A read whose client has what it asks for: there is no answer yet.
pub struct Unchanged {
    /// What has to change for another answer.
    pub subject: Subject,
    /// The tag of that, by which it is known whether it has.
    pub subject_tag: u64,
    /// The entity tag of what it asks for.
    pub entity_tag: u64,
    /// The coding that the client has it in.
    pub coding: Coding,
    /// As of this position.
    pub position: Position,
    /// What caches may do with it.
    pub cache_control: CacheControl,
}

impl Reads {
    /// Answers with a page of the list, unless the client has it.
    ///
    /// # Errors
    /// A condition does not hold, or there is no list yet.
    pub fn list(
        &self,
        cursor: Option<TodoKey>,
        limit: Option<usize>,
        head: &Head<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Option<Unchanged>, Problem> {
        let snapshot = self.snapshot().ok_or_else(not_loaded)?;
        let (page, encoded) = match cursor {
            None => {
                let key = ListKey { limit, coding: self.coding(head), grant: reply.grant() };
                let prepared = |list: &mut PreparedList| (list.page, list.encoded.clone());
                self.with_list(&snapshot, key, prepared)
            }
            Some(_) => (snapshot.page(cursor, limit), None),
        };
        let position = snapshot.position();
        let coding = encoded.as_ref().map_or(Coding::Identity, |encoded| encoded.coding());
        match evaluate_encoded(head, page.entity_tag, coding) {
            (Condition::Holds, _) => {}
            (Condition::NotModified, coding) => {
                let subject = Subject::Page { cursor, limit };
                return Ok(Some(unchanged(subject, page.entity_tag, coding, position)));
            }
            (Condition::Failed, _) => return Err(Problem::precondition_failed()),
        }
        let connection = reply.connection();
        reply.head(Status::Ok, |head| write_list_head(head, &page, encoded.as_deref(), limit, position, connection));
        match encoded {
            None => reply.body(&snapshot, page.body),
            Some(encoded) => {
                if reply.encoded_body(&encoded) {
                    self.count_encoded(&encoded, page.content_length, 1);
                }
            }
        }
        Ok(None)
    }

    /// Answers with a single todo, unless the client has it.
    ///
    /// # Errors
    /// There is none with this id, a condition does not hold, or there is no list yet.
    pub fn show(&self, id: TodoId, head: &Head<'_>, reply: &mut Reply<'_>) -> Result<Option<Unchanged>, Problem> {
        let snapshot = self.snapshot().ok_or_else(not_loaded)?;
        let entry = snapshot.get(id).ok_or_else(Problem::no_such_todo)?;
        let (tag, position) = (entry.entity_tag(), snapshot.position());
        match evaluate(head, Some(tag)) {
            Condition::Holds => {}
            Condition::NotModified => {
                let (subject, coding) = (Subject::Todo(id), Coding::Identity);
                return Ok(Some(unchanged(subject, tag, coding, position)));
            }
            Condition::Failed => return Err(Problem::precondition_failed()),
        }
        let connection = reply.connection();
        let body = entry.body();
        reply.head(Status::Ok, |head| {
            head.content_type(ContentType::Json)
                .content_length(body.remaining_bytes())
                .etag(tag)
                .event_position(position)
                .cache_control(CacheControl::NoCache)
                .vary_accept_encoding()
                .connection(connection)
                .end();
        });
        reply.body(&snapshot, body);
        Ok(None)
    }
}

fn unchanged(subject: Subject, entity_tag: u64, coding: Coding, position: Position) -> Unchanged {
    let cache_control = CacheControl::NoCache;
    Unchanged { subject, subject_tag: entity_tag, entity_tag, coding, position, cache_control }
}
