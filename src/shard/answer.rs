//! From a request to its answer: route, authorization, validation, then a read or a command.
//!
//! Functions stand in the order in which a request passes them.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::Detached;

use super::clock::Moment;
use super::followers::waiting_reads::ReadWait;
use super::outcome::refused;
use super::registry::ConnectionState;
use super::reply::{RETRY_AFTER_S, Reply, count_responses};
use super::writes::in_flight::{PendingWrite, WriteKind};
use super::{DRAIN_IDLE_GRACE, Shard};
use crate::contract::Contract;
use crate::http::asker;
use crate::http::conditional::{Condition, evaluate};
use crate::http::content::check_json;
use crate::http::cors::TAKEN;
use crate::http::idempotency_key::idempotency_key;
use crate::http::prefer::wait_s;
use crate::http::response::{CacheControl, ContentType};
use crate::http::route::{has_slash_too_many, route};
use crate::http::{Connection, Head, Method, Problem, ResponseHead, Route, Status};
use crate::limits::PREFER_WAIT_MAX_S;
use crate::observe::readiness::Audience;
use crate::todo::{Action, Command, JsonParser, NewTodo, Todo, TodoId, TodoPatch, is_array};

/// What can be refused before the body is there: the same checks, in the same order, as for the whole request.
pub fn refuse_by_head(shard: &Shard, state: &ConnectionState, head: &Head<'_>) -> Result<(), Problem> {
    let route = check_route(head)?;
    if matches!(head.method, Method::Post | Method::Put | Method::Delete) && route != Route::PageToken {
        let user = shard.authenticate(head, &state.failed_checks)?;
        shard.writes.check_rate(&user)?;
        check_todo_id(head, route)?;
    }
    if matches!(head.method, Method::Post | Method::Put) {
        check_json(head)?;
    }
    if (head.method, route) == (Method::Post, Route::Todos) {
        head.idempotency_key().map(idempotency_key).transpose()?;
    }
    Ok(())
}

fn check_route(head: &Head<'_>) -> Result<Route, Problem> {
    let route = route(head.path);
    match (route, head.method) {
        (_, Method::Other) => Err(Problem::unknown_method()),
        (Route::NotFound, _) => {
            Err(of_path(head, Problem::no_such_path("there is nothing at this path; try /todos, or /docs")))
        }
        (route, method) if !route.allows(method) => Err(of_path(head, Problem::method_not_allowed(route.allow()))),
        (route, _) => Ok(route),
    }
}

/// A problem with the path, which says where its slash at the end is too many.
#[cold]
fn of_path(head: &Head<'_>, problem: Problem) -> Problem {
    if has_slash_too_many(head.path) { problem.with_slash_too_many() } else { problem }
}

fn check_todo_id(head: &Head<'_>, route: Route) -> Result<(), Problem> {
    match route {
        Route::InvalidTodoId => Err(of_path(head, Problem::invalid_todo_id())),
        _ => Ok(()),
    }
}

/// A request that has arrived completely.
pub struct Request<'r> {
    pub shard: &'r Rc<Shard>,
    pub state: &'r Rc<ConnectionState>,
    pub head: &'r Head<'r>,
    pub reply: Reply<'r>,
    /// Whether the answer waits for a change.
    pub wait: ReadWait,
}

impl Request<'_> {
    /// Answers the request; `body` is parsed in place.
    pub fn answer(&mut self, body: &mut [u8]) {
        #[cfg(feature = "fault-injection")]
        if self.head.path == b"/fault/panic" {
            panic!("a panic on request, for the tests");
        }
        let answered = check_route(self.head).and_then(|route| match (route, self.head.method) {
            (route, Method::Options) => {
                self.answer_options(route);
                Ok(())
            }
            (Route::Page, _) => self.answer_page(),
            (Route::PageToken, _) => self.answer_page_token(body),
            (Route::OpenApi, _) => self.answer_contract(Contract::openapi),
            (Route::Docs, _) => self.answer_contract(Contract::docs),
            (Route::Problems, _) => self.answer_contract(Contract::problems),
            (Route::Problem(kind), _) => self.answer_contract(|contract| contract.problem(kind)),
            (Route::Todos, Method::Post) if is_array(body) => self.create_all(body),
            (Route::Todos, Method::Post) => self.create(body),
            (Route::Todos, _) => self.list(),
            (Route::Count, _) => self.count_todos(),
            (Route::Todo(id), Method::Put) => self.update(id, body),
            (Route::Todo(id), Method::Delete) => self.delete(id),
            (Route::Todo(id), _) => {
                let unchanged = self.shard.reads.show(id, self.head, &mut self.reply)?;
                self.answer_unchanged(unchanged);
                Ok(())
            }
            (Route::Events, _) => self.follow(),
            (Route::InvalidTodoId, method) => {
                // Who may not write learns nothing about ids.
                if !method.is_read() {
                    self.shard.authenticate(self.head, &self.state.failed_checks)?;
                }
                check_todo_id(self.head, route)
            }
            (Route::Health, _) => {
                self.reply.document(Status::Ok, ContentType::Json, b"{\"status\":\"ok\"}");
                Ok(())
            }
            (Route::Ready, _) => {
                self.answer_ready();
                Ok(())
            }
            (Route::Metrics, _) => {
                let shard = self.shard;
                let text = shard.metrics_text.borrow_mut().get(shard.clock.ticks(), || shard.all_metrics.render());
                self.reply.document(Status::Ok, ContentType::Metrics, text.as_bytes());
                Ok(())
            }
            (Route::Server | Route::NotFound, _) => Err(Problem::no_such_path("there is nothing at this path")),
        });
        if let Err(problem) = answered {
            self.reply.problem(&problem);
        }
    }

    /// The user who writes, unless that is too much. Each write counts, whatever becomes of it.
    fn admit_writer(&self) -> Result<Rc<str>, Problem> {
        let user = self.shard.authenticate(self.head, &self.state.failed_checks)?;
        self.shard.writes.take_from_rate(&user)?;
        Ok(user)
    }

    fn create(&mut self, body: &mut [u8]) -> Result<(), Problem> {
        let user = self.admit_writer()?;
        check_json(self.head)?;
        // Arrays may be longer.
        let limit = self.shard.settings.plain_body_limit();
        if body.len() > limit.0 {
            return Err(Problem::body_too_large(limit));
        }
        let now = self.shard.clock.moment();
        let id = match self.head.idempotency_key() {
            // Sent again, it is the same todo; a create of one that is there changes nothing.
            Some(key) => self.shard.writes.id_of_key(&user, &idempotency_key(key)?)?,
            None => self.shard.writes.new_id(now.timestamp),
        };
        let mut parser = self.shard.parser.borrow_mut();
        let limits = self.shard.settings.text_limits;
        let todo = NewTodo::from_json(body, limits, &mut parser)?;
        self.shard.writes.check_room_for_create(&self.shard.reads, id, &user)?;
        self.submit(WriteKind::Create, id, &user, now, todo.into())
    }

    fn update(&mut self, id: TodoId, body: &mut [u8]) -> Result<(), Problem> {
        let user = self.admit_writer()?;
        check_json(self.head)?;
        let mut parser = self.shard.parser.borrow_mut();
        let patch = TodoPatch::from_json(body, &mut parser)?;
        self.check_owner(id, &user)?;
        patch.check_lengths(self.shard.settings.text_limits, || self.shard.todo(id))?;
        let is_longer = || patch.lengthens(self.shard.todo(id).as_ref());
        self.shard.writes.check_room_for_update(&self.shard.reads, is_longer)?;
        self.submit(WriteKind::Update, id, &user, self.shard.clock.moment(), patch.into())
    }

    fn delete(&mut self, id: TodoId) -> Result<(), Problem> {
        let user = self.admit_writer()?;
        self.check_owner(id, &user)?;
        self.submit(WriteKind::Delete, id, &user, self.shard.clock.moment(), Action::Delete)
    }

    /// Refuses what is known to come to nothing. A todo that the snapshot does not have may be on its way: the worker
    /// has the last word, and a stranger's command changes nothing there either.
    fn check_owner(&self, id: TodoId, user: &str) -> Result<(), Problem> {
        let snapshot = self.shard.reads.snapshot();
        if snapshot.as_ref().and_then(|snapshot| snapshot.is_owned_by(id, user)) == Some(false) {
            return Err(Problem::forbidden());
        }
        if !self.head.has_condition() {
            return Ok(());
        }
        let entry = snapshot.as_ref().and_then(|snapshot| snapshot.get(id));
        match evaluate(self.head, entry.map(|entry| entry.entity_tag())) {
            Condition::Holds => Ok(()),
            Condition::NotModified | Condition::Failed => Err(Problem::precondition_failed()),
        }
    }

    /// Hands the command to the producer and holds the answer's place until the log has it.
    fn submit(
        &mut self,
        kind: WriteKind,
        id: TodoId,
        user: &str,
        now: Moment,
        action: Action<'_>,
    ) -> Result<(), Problem> {
        let command = Command { id, user_id: Cow::Borrowed(user), requested_at: now.timestamp, action };
        let pending = || {
            let write = PendingWrite::new(id, kind, self.reply.connection(), Rc::clone(self.state));
            write.waiting_until(self.wait_until()).granting(self.reply.grant())
        };
        let pending = self.shard.writes.submit(&command, now, pending).map_err(refused)?;
        self.reply.pending(pending);
        Ok(())
    }

    /// Until when the answer to a write waits for the snapshot, if the client prefers that (RFC 7240 section 4.3).
    pub(super) fn wait_until(&self) -> Option<Instant> {
        let wait_s = wait_s(self.head.prefer()).filter(|wait_s| *wait_s > 0)?.min(PREFER_WAIT_MAX_S);
        let wait = Duration::from_secs(wait_s);
        let wait = if self.shard.is_draining() { wait.min(DRAIN_IDLE_GRACE) } else { wait };
        Some(self.shard.clock.now() + wait)
    }

    fn answer_options(&mut self, route: Route) {
        let connection = self.reply.connection();
        let allows_preflight = self.shard.settings.cors.allows_preflight(self.head, self.reply.grant());
        self.reply.head(Status::NoContent, |head| {
            let head = if allows_preflight { head.preflight(route.allow(), TAKEN) } else { head };
            head.allow(route.allow()).cache_control(CacheControl::NoStore).connection(connection).end();
        });
    }

    fn answer_ready(&mut self) {
        let is_local = || asker::is_local(self.state.socket.peer().map(|peer| peer.ip()), self.head);
        let audience = Audience::of(self.shard.settings.ready_details, is_local);
        let shard = self.shard;
        let mut texts = shard.ready_texts.borrow_mut();
        let text = &mut texts[usize::from(audience == Audience::Operator)];
        let made = text.get(shard.clock.ticks(), || shard.all_metrics.readiness(audience));
        let (is_ready, document) = &*made;
        let status = if *is_ready { Status::Ok } else { Status::ServiceUnavailable };
        self.reply.document(status, ContentType::Json, document.as_bytes());
    }
}

impl Shard {
    /// The todo as the snapshot has it.
    fn todo(&self, id: TodoId) -> Option<Todo> {
        let snapshot = self.reads.snapshot()?;
        let mut json = snapshot.get(id)?.json().to_vec();
        Todo::from_json(&mut json, &mut JsonParser::default()).ok()
    }

    #[inline]
    pub(super) fn count(&self, status: Status) {
        count_responses(&self.metrics, status, 1);
    }
}

/// Tells a client that there are as many connections as there may be, as far as the socket takes it at once.
/// Its request has not been read, and may be HEAD: so the answer is the same to each, and has no body.
pub fn refuse_connection(shard: &Shard, connection: &Detached) {
    let mut text = Vec::new();
    let cors = &shard.settings.cors;
    ResponseHead::start(&mut text, Status::ServiceUnavailable, &shard.clock.date())
        .lines(cors.lines(cors.unread()))
        .content_length(0)
        .cache_control(CacheControl::NoStore)
        .retry_after_s(RETRY_AFTER_S)
        .connection(Connection::Close)
        .end();
    shard.count(Status::ServiceUnavailable);
    // Errors are ignored: the connection is given up either way.
    let _ = connection.send(&text);
    connection.shut_down(libc::SHUT_WR);
}
