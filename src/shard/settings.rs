//! What is set for a shard: its bounds and deadlines.

use std::sync::Arc;
use std::time::Duration;

use super::LINGER_SILENCE;
use super::followers::EventSettings;
use super::page::Desk;
use super::write_watch::WriteLimits;
use crate::config::ReadyDetails;
use crate::http::cors::Cors;
use crate::http::route::route;
use crate::http::{Head, Method, Route};
use crate::limits::HEAD_MAX_BYTES;
use crate::todo::{TextLimits, is_array};

/// Bytes of a body, and the setting that they come from.
pub type BodyLimit = (usize, &'static str);

/// Bounds and deadlines of one shard.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the first byte of a request (or the accept) to the end of its head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Longest time without the client taking a byte of the answer.
    pub write_timeout: Duration,
    /// What a client has to take of an answer in a second, on the average over each `write_rate_grace`.
    pub write_rate_min_bytes: u64,
    /// See `write_rate_min_bytes`.
    pub write_rate_grace: Duration,
    /// Longest time between two requests.
    pub idle_timeout: Duration,
    /// Longest wait for the command log before a write is answered 503.
    pub ack_timeout: Duration,
    /// Longest body of a request.
    pub body_max_bytes: usize,
    /// The same where it is an array of todos.
    pub array_body_max_bytes: usize,
    /// Todos of an array.
    pub array_max_todos: usize,
    /// Longest texts that it may bring.
    pub text_limits: TextLimits,
    /// Who sees in `/ready` what the services say.
    pub ready_details: ReadyDetails,
    /// Commands of this shard that wait for the log.
    pub commands_max: usize,
    /// Bytes of those commands.
    pub command_bytes_max: usize,
    /// What is set for the change feed.
    pub events: EventSettings,
    /// Which pages of other origins may read its answers.
    pub cors: Arc<Cors>,
    /// What it serves the page with.
    pub desk: Desk,
}

impl Settings {
    /// A whole request with a length, head and body, has to fit; chunked bodies are taken out as they come.
    pub(super) fn request_max_bytes(&self) -> usize {
        HEAD_MAX_BYTES + self.body_max_bytes.max(self.array_body_max_bytes)
    }

    /// The longest body that a request with this head may have, of which this much has come, with the setting that says so. Where
    /// nothing has come, it may be an array.
    pub(super) fn body_limit(&self, head: &Head<'_>, begun: &[u8]) -> BodyLimit {
        let may_be_array = head.method == Method::Post
            && route(head.path) == Route::Todos
            && (is_array(begun) || begun.iter().all(u8::is_ascii_whitespace));
        match may_be_array && self.array_body_max_bytes > self.body_max_bytes {
            true => (self.array_body_max_bytes, "ARRAY_BODY_MAX_BYTES"),
            false => self.plain_body_limit(),
        }
    }

    /// The longest body of all requests but arrays.
    pub(super) fn plain_body_limit(&self) -> BodyLimit {
        (self.body_max_bytes, "BODY_MAX_BYTES")
    }

    /// Most todos of an array: as many as may wait for the log at all.
    pub(super) fn array_limit(&self) -> usize {
        self.array_max_todos.min(self.commands_max)
    }

    pub(super) fn write_limits(&self) -> WriteLimits {
        WriteLimits::new(self.write_timeout, self.write_rate_min_bytes, self.write_rate_grace)
    }

    /// The shortest of the deadlines that connections are under as long as the shard does not drain.
    pub(super) fn shortest_timeout(&self) -> Duration {
        let look_interval = self.write_limits().look_interval();
        let timeouts = [self.header_timeout, self.body_timeout, look_interval, self.idle_timeout];
        timeouts.into_iter().fold(LINGER_SILENCE, Duration::min)
    }
}
