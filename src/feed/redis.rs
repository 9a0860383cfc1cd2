//! The feed in Redis: for API processes and workers on one machine or many.
//!
//! Four keys, `million-rps:{topic}:…` (the braces keep them on one node of a cluster):
//!
//! | key | type | holds |
//! |---|---|---|
//! | `todos` | hash | each todo's JSON under its id, and `@epoch`: a random number of this load of the list |
//! | `offsets` | hash | per partition the offset up to which the feed has changes; `@number` and `@last`: number and id of the latest change |
//! | `changes` | stream | one entry a batch: `epoch`, `number`, `step` ("partition from to"), `put` (JSON), `delete` ("created_at id"); or `lost` (why), `loading`, `loaded` |
//! | `loading` | string | lock of the process that loads the list from the store |
//!
//! To look at it: `HLEN`, `HGETALL …:offsets`, `XREVRANGE …:changes + - COUNT 3`.
//!
//! - The list, the offsets and the change are written by one script (`redis_publish.lua`), so they agree at all times, and
//!   a batch costs work for the todos that it changed.
//! - The list is *warm* while `todos` has an epoch. It expires `CACHE_TTL_SEC` after it was loaded, whatever has been
//!   published since: so the list is compared with the store within that time. Offsets and changes live a little longer.
//! - A reader holds an epoch and the number of the last change that it has seen. Numbers have no gaps; a missing one, or
//!   another epoch, means that something was missed: the stream was trimmed, Redis was flushed, restarted empty or with
//!   older data, the list expired.
//! - Changes go on to be recorded while the list is cold. Whoever loads it from the store marks a place first, then
//!   reads the store, then adds the changes since, and puts the list in place only if there has been none in between.

use std::time::{Duration, Instant};

use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, Connection, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    Value,
};

pub use super::redis_publisher::RedisPublisher;
pub use super::redis_subscriber::RedisSubscriber;
use crate::feed::FeedError;
use crate::limits::{LINK_MIN_BYTES_PER_SEC, REDIS_RECONNECT_BACKOFF_MS, REDIS_REPLY_TIMEOUT_MS};

/// How much longer than the list itself offsets and changes are kept, so that a list is never without them.
const KEPT_LONGER: Duration = Duration::from_secs(60);

/// Where the feed is.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS, or plain `host:port`.
    pub url: String,
    /// The topic of commands: it names the keys, so that several deployments may share a Redis.
    pub topic: String,
    /// How long a list is used before it is loaded anew from the store.
    pub cache_ttl: Duration,
}

/// The names of the keys.
#[derive(Clone)]
pub(super) struct Keys {
    pub todos: String,
    pub offsets: String,
    pub changes: String,
    pub loading: String,
}

impl Keys {
    fn new(topic: &str) -> Keys {
        let name = |part| format!("million-rps:{{{topic}}}:{part}");
        Keys { todos: name("todos"), offsets: name("offsets"), changes: name("changes"), loading: name("loading") }
    }
}

/// A connection that is opened on need.
pub(super) struct Link {
    info: ConnectionInfo,
    connection: Option<Connection>,
    /// No attempt to connect before this moment, and why the last one failed.
    blocked: Option<(Instant, String)>,
    pub keys: Keys,
    /// Lifetime of the list.
    pub list_ttl_ms: u64,
    /// Lifetime of offsets and changes.
    pub changes_ttl_ms: u64,
}

impl Link {
    pub fn new(options: &RedisOptions) -> Result<Link, FeedError> {
        let url = match options.url.contains("://") {
            true => options.url.clone(),
            false => format!("redis://{}", options.url),
        };
        // The client's text does not repeat the URL, which may hold a password.
        let info = url.into_connection_info().map_err(|error| {
            FeedError::Fatal(format!("REDIS_URL cannot be used: {}", error.detail().unwrap_or("not a URL")))
        })?;
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2).max(1);
        Ok(Link {
            info: info.set_tcp_settings(TcpSettings::default().set_nodelay(true)),
            connection: None,
            blocked: None,
            keys: Keys::new(&options.topic),
            list_ttl_ms: milliseconds(options.cache_ttl),
            changes_ttl_ms: milliseconds(options.cache_ttl.saturating_add(KEPT_LONGER)),
        })
    }

    /// Runs commands of which the server may take `patience` to answer one. A connection may have died unnoticed since
    /// its last use: then they run once more on a new one, so they have to be such as may run twice.
    pub fn run<T>(
        &mut self,
        patience: Duration,
        mut commands: impl FnMut(&mut Connection, &Keys) -> RedisResult<T>,
    ) -> Result<T, FeedError> {
        let mut reused = self.connection.is_some();
        loop {
            let keys = self.keys.clone();
            let connection = self.connect()?;
            let timeout = Some(patience + Duration::from_millis(REDIS_REPLY_TIMEOUT_MS));
            let result = connection
                .set_read_timeout(timeout)
                .and_then(|()| connection.set_write_timeout(timeout))
                .and_then(|()| commands(connection, &keys));
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // An error that the server sent leaves the connection in order; any other does not.
            let broken = error.code().is_none();
            if broken {
                self.connection = None;
            }
            if !(broken && reused) || error.is_timeout() {
                return Err(feed_error(&error));
            }
            reused = false;
        }
    }

    /// Sends a command, so that the server works on it while the caller does something else. The next call has to be
    /// [`Link::answer`].
    pub fn ask(&mut self, command: impl Fn(&Keys) -> Cmd) -> Result<(), FeedError> {
        self.run(Duration::ZERO, |connection, keys| connection.send_packed_command(&command(keys).get_packed_command()))
    }

    /// The answers to so many commands that were sent by [`Link::run`] and not waited for.
    pub fn answers(&mut self, count: usize) -> RedisResult<Vec<Value>> {
        let lost = || RedisError::from(std::io::Error::from(std::io::ErrorKind::NotConnected));
        let connection = self.connection.as_mut().ok_or_else(lost)?;
        let answers = (0..count).map(|_| connection.recv_response()).collect();
        // Whatever may still come over this connection would be taken for another answer.
        if RedisResult::is_err(&answers) {
            self.connection = None;
        }
        answers
    }

    /// The answer to what was asked last.
    pub fn answer<T: FromRedisValue>(&mut self) -> Result<T, FeedError> {
        let Some(connection) = &mut self.connection else {
            return Err(FeedError::Unavailable("the connection to Redis was lost before its answer".into()));
        };
        let answer = connection.recv_response().and_then(|value| Ok(redis::from_redis_value(value)?));
        answer.map_err(|error: RedisError| {
            // Whatever may still come over this connection would be taken for another answer.
            self.connection = None;
            feed_error(&error)
        })
    }

    fn connect(&mut self) -> Result<&mut Connection, FeedError> {
        if self.connection.is_none() {
            if let Some((until, reason)) = &self.blocked
                && Instant::now() < *until
            {
                return Err(FeedError::Unavailable(reason.clone()));
            }
            match open(&self.info) {
                Ok(connection) => {
                    self.blocked = None;
                    self.connection = Some(connection);
                }
                Err(error) => {
                    let until = Instant::now() + Duration::from_millis(REDIS_RECONNECT_BACKOFF_MS);
                    self.blocked = Some((until, error.to_string()));
                    return Err(feed_error(&error));
                }
            }
        }
        Ok(self.connection.as_mut().expect("connected above"))
    }
}

/// How much longer an answer to a question of so many bytes may take than to a short one: they have to get there first.
pub(super) fn sending_time(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / LINK_MIN_BYTES_PER_SEC as f64)
}

/// Opens a connection on which the server takes commands.
fn open(info: &ConnectionInfo) -> RedisResult<Connection> {
    let timeout = Duration::from_millis(REDIS_REPLY_TIMEOUT_MS);
    let mut connection = redis::Client::open(info.clone())?.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    // A server that wants a password and was given none takes the connection all the same, and answers longer commands
    // with a protocol error. To this one it says what it wants.
    redis::cmd("PING").exec(&mut connection)?;
    Ok(connection)
}

/// What an error of Redis means.
pub(super) fn feed_error(error: &RedisError) -> FeedError {
    use redis::ErrorKind;
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig, _)
        | (ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot), _)
        | (_, Some("NOAUTH" | "WRONGPASS")) => FeedError::Fatal(format!("Redis: {error}")),
        (_, Some("WRONGTYPE")) => FeedError::Fatal(format!(
            "Redis: {error}: another program uses a key of this name; give one of the two another database number"
        )),
        // A lost connection; a server that loads its data, is full, or has become a replica.
        _ => FeedError::Unavailable(error.to_string()),
    }
}
