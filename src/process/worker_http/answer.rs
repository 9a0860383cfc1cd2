//! What a worker answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::ReadyDetails;
use crate::http::asker;
use crate::http::problem::Delivery;
use crate::http::response::{CacheControl, ContentType, date};
use crate::http::route::route;
use crate::http::{
    Connection, Head, Method, Methods, Parsed, Problem, ResponseHead, Route, Status, asks_for_head, parse_head,
};
use crate::limits::WORKER_HTTP_HEAD_DEADLINE_MS;
use crate::observe::readiness::{Audience, Reasons};
use crate::observe::worker_text::render_worker_process;
use crate::worker::{WorkerMetrics, WorkerState};

/// What clients are told to wait before they ask again, in seconds.
const RETRY_AFTER_S: u32 = 1;

const _: () = assert!(WORKER_HTTP_HEAD_DEADLINE_MS == 2_000, "the text of the 408 names the deadline");

/// Where the answers come from.
pub struct Answers {
    metrics: Arc<WorkerMetrics>,
    details: ReadyDetails,
}

impl Answers {
    /// The answers of a worker that counts in `metrics`.
    pub fn new(metrics: Arc<WorkerMetrics>, details: ReadyDetails) -> Answers {
        Answers { metrics, details }
    }

    /// The answer to what a client at `peer` has sent; `None` while the head of its request is not complete.
    pub fn answer(&self, received: &[u8], peer: IpAddr) -> Option<Vec<u8>> {
        let answer = match parse_head(received) {
            Ok(Parsed::Incomplete) => return None,
            Ok(Parsed::Complete { head, .. }) => self.document(&head, peer),
            Err(rejection) => Err(Problem::from(rejection)),
        };
        Some(match answer {
            Ok(document) => document.write(asks_for_head(received)),
            Err(problem) => write_problem(&problem, asks_for_head(received)),
        })
    }

    /// The answer to a request that has begun, and did not end in time.
    pub fn timeout(&self, received: &[u8]) -> Vec<u8> {
        write_problem(&Problem::request_timeout("the head did not arrive within 2 seconds"), asks_for_head(received))
    }

    fn document(&self, head: &Head<'_>, peer: IpAddr) -> Result<Document, Problem> {
        match (route(head.path), head.method) {
            (Route::Health | Route::Ready | Route::Metrics, method) if !method.is_read() => {
                Err(Problem::method_not_allowed(Methods::NONE.with(Method::Get).with(Method::Head)))
            }
            (Route::Health, _) => Ok(Document::ok(ContentType::Json, "{\"status\":\"ok\"}".to_owned())),
            (Route::Metrics, _) => Ok(Document::ok(ContentType::Metrics, render_worker_process(&self.metrics))),
            (Route::Ready, _) => Ok(self.readiness(Audience::of(self.details, || asker::is_local(Some(peer), head)))),
            _ => Err(Problem::no_such_path("this is a worker: it has /health, /ready and /metrics")),
        }
    }

    /// As for an API: ready while it does its work, even if something has to be tried again.
    fn readiness(&self, audience: Audience) -> Document {
        let (state, last_error) = (self.metrics.state(), self.metrics.last_error());
        let mut reasons = Reasons::new(audience);
        match (state, last_error) {
            (_, Some(reason)) => reasons.add_worker(&reason),
            (WorkerState::Starting, None) => reasons.add_public("worker: it waits for the store and the command log"),
            (_, None) => {}
        }
        reasons.add_troubles(&self.metrics.troubles);
        let (status, word) = match state {
            WorkerState::Running if reasons.is_empty() => (Status::Ok, "ready"),
            WorkerState::Running | WorkerState::Retrying => (Status::Ok, "degraded"),
            WorkerState::Starting | WorkerState::Stopped | WorkerState::Failed => {
                (Status::ServiceUnavailable, "not ready")
            }
        };
        let mut document = serde_json::json!({ "status": word });
        reasons.write_into(&mut document);
        Document { status, content_type: ContentType::Json, body: document.to_string() }
    }
}

/// A whole small answer.
struct Document {
    status: Status,
    content_type: ContentType,
    body: String,
}

impl Document {
    fn ok(content_type: ContentType, body: String) -> Document {
        Document { status: Status::Ok, content_type, body }
    }

    fn write(&self, is_to_head: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = ResponseHead::start(&mut bytes, self.status, &date(SystemTime::now()))
            .content_type(self.content_type)
            .content_length(self.body.len() as u64)
            .cache_control(CacheControl::NoStore);
        let head = if self.status == Status::ServiceUnavailable { head.retry_after_s(RETRY_AFTER_S) } else { head };
        head.connection(Connection::Close).end();
        if !is_to_head {
            bytes.extend_from_slice(self.body.as_bytes());
        }
        bytes
    }
}

fn write_problem(problem: &Problem, is_to_head: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let date = date(SystemTime::now());
    let delivery = Delivery { date: &date, connection: Connection::Close, is_head: is_to_head, lines: b"" };
    problem.write_response(&mut bytes, delivery);
    bytes
}
