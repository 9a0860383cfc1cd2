//! The small HTTP listener of a process that is a worker and nothing else: `/health`, `/ready`, `/metrics`, for probes and
//! Prometheus.
//!
//! One thread accepts, and one more serves each connection, a few at a time: one request, one answer, and the end, within a
//! deadline. It ends with the process.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ProcessError;
use crate::http::problem::Delivery;
use crate::http::response::{CacheControl, ContentType, date};
use crate::http::route::route;
use crate::http::{Connection, Method, Parsed, Problem, ResponseHead, Route, Status, asks_for_head, parse_head};
use crate::limits::{WORKER_HTTP_CONNECTIONS_MAX, WORKER_HTTP_DEADLINE_MS};
use crate::observe::metrics::render_worker_process;
use crate::worker::{WorkerMetrics, WorkerState};

/// What clients are told to wait before they ask again, in seconds.
const RETRY_AFTER_S: u32 = 1;
/// Pause after a failed accept, which mostly means that file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Starts the listener; returns where it listens.
///
/// # Errors
/// [`ProcessError::BindWorker`], or no further thread.
pub fn start(address: SocketAddr, metrics: Arc<WorkerMetrics>) -> Result<SocketAddr, ProcessError> {
    let bind_error = |reason| ProcessError::BindWorker { address, reason };
    let listener = TcpListener::bind(address).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    std::thread::Builder::new().name("worker-http".into()).spawn(move || accept(&listener, &metrics))?;
    Ok(address)
}

fn accept(listener: &TcpListener, metrics: &Arc<WorkerMetrics>) {
    // Each thread holds one reference more.
    let places = Arc::new(());
    loop {
        match listener.accept() {
            // Whoever comes when all places are taken is turned away: he may come again.
            Ok(_) if Arc::strong_count(&places) > WORKER_HTTP_CONNECTIONS_MAX => {}
            Ok((stream, _peer)) => {
                let (place, metrics) = (Arc::clone(&places), Arc::clone(metrics));
                let serve = move || {
                    let _place = place;
                    // The client has gone, or was too slow: there is nobody to tell.
                    let _ = serve(stream, &metrics);
                };
                if let Err(error) = std::thread::Builder::new().name("worker-http".into()).spawn(serve) {
                    tracing::warn!(%error, "no thread for a request about the worker");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the worker cannot be accepted");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn serve(mut stream: TcpStream, metrics: &WorkerMetrics) -> std::io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(WORKER_HTTP_DEADLINE_MS);
    let mut received = Vec::new();
    loop {
        match parse_head(&received) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete { head, .. }) => {
                stream.write_all(&answer(head.method, route(head.path), metrics))?;
                break;
            }
            Err(rejection) => {
                stream.write_all(&problem(&Problem::from(rejection), asks_for_head(&received)))?;
                break;
            }
        }
        if receive(&mut stream, deadline, &mut received)? == 0 {
            return Ok(());
        }
    }
    // What the client still sends is read, so that a reset does not overtake the answer (RFC 9112 section 9.6).
    stream.shutdown(Shutdown::Write)?;
    while receive(&mut stream, deadline, &mut received)? > 0 {
        received.clear();
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, deadline: Instant, received: &mut Vec<u8>) -> std::io::Result<usize> {
    let rest = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(rest))?;
    stream.set_write_timeout(Some(rest))?;
    if Instant::now() >= deadline {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    let mut bytes = [0; 1024];
    let count = stream.read(&mut bytes)?;
    received.extend_from_slice(&bytes[..count]);
    Ok(count)
}

fn answer(method: Method, route: Route, metrics: &WorkerMetrics) -> Vec<u8> {
    let (status, content_type, body) = match (route, method) {
        (Route::Health | Route::Ready | Route::Metrics, method) if !method.is_read() => {
            return problem(&Problem::method_not_allowed("GET, HEAD"), false);
        }
        (Route::Health, _) => (Status::Ok, ContentType::Json, "{\"status\":\"ok\"}".to_owned()),
        (Route::Metrics, _) => (Status::Ok, ContentType::Metrics, render_worker_process(metrics)),
        (Route::Ready, _) => {
            let (status, document) = readiness(metrics);
            (status, ContentType::Json, document)
        }
        (_, method) => {
            let detail = "this is a worker: it has /health, /ready and /metrics";
            return problem(&Problem::not_found(detail), method == Method::Head);
        }
    };
    let mut bytes = Vec::new();
    let head = ResponseHead::start(&mut bytes, status, &date(SystemTime::now()))
        .content_type(content_type)
        .content_length(body.len() as u64)
        .cache_control(CacheControl::NoStore);
    let head = if status == Status::ServiceUnavailable { head.retry_after_s(RETRY_AFTER_S) } else { head };
    head.connection(Connection::Close).end();
    if method != Method::Head {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

/// As for an API: ready while it does its work, even if something has to be tried again.
fn readiness(metrics: &WorkerMetrics) -> (Status, String) {
    let troubles = metrics.troubles.lines();
    let (status, word) = match metrics.state() {
        WorkerState::Running if troubles.is_empty() => (Status::Ok, "ready"),
        WorkerState::Running => (Status::Ok, "degraded"),
        WorkerState::Retrying => (Status::Ok, "degraded"),
        WorkerState::Starting | WorkerState::Stopped | WorkerState::Failed => (Status::ServiceUnavailable, "not ready"),
    };
    let mut reasons: Vec<String> = match (metrics.state(), metrics.last_error()) {
        (_, Some(reason)) => vec![format!("worker: {reason}")],
        (WorkerState::Starting, None) => vec!["worker: it waits for the store".to_owned()],
        (_, None) => Vec::new(),
    };
    reasons.extend(troubles);
    (status, serde_json::json!({ "status": word, "reasons": reasons }).to_string())
}

fn problem(problem: &Problem, is_head: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let delivery = Delivery { date: &date(SystemTime::now()), connection: Connection::Close, is_head };
    problem.write_response(&mut bytes, delivery);
    bytes
}
