//! A connection to Redis that is opened on need, and opened again without holding up whoever wants it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, Connection, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult, Value,
};

use super::refusal::{CLUSTER_OF_SEVERAL, feed_error};
use super::{Keys, RedisOptions};
use crate::feed::FeedError;
use crate::limits::{LINK_MIN_BYTES_PER_SEC, REDIS_RECONNECT_BACKOFF_MS, REDIS_REPLY_TIMEOUT_MS};

/// How much longer than the list itself offsets and changes are kept, so that a list is never without them.
const KEPT_LONGER: Duration = Duration::from_secs(60);

/// A connection that is opened on need.
pub(super) struct Link {
    info: ConnectionInfo,
    connection: Option<Connection>,
    /// No attempt to connect before this moment, and why the last one failed.
    blocked: Option<(Instant, String)>,
    /// The attempt that a thread of its own makes, since a server did not answer in time: a frozen one does not either when it is
    /// connected to, and each wait would hold up whoever asks.
    attempt: Option<Receiver<RedisResult<Connection>>>,
    was_silent: bool,
    topic: String,
    keys: Option<Keys>,
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
            attempt: None,
            was_silent: false,
            topic: options.topic.clone(),
            keys: None,
            list_ttl_ms: milliseconds(options.cache_ttl),
            changes_ttl_ms: milliseconds(options.cache_ttl.saturating_add(KEPT_LONGER)),
        })
    }

    /// Where the server is.
    pub fn address(&self) -> String {
        self.info.addr().to_string()
    }

    /// Whose keys these are.
    pub fn identify(&mut self, identity: &str) {
        self.keys = Some(Keys::new(&self.topic, identity));
    }

    /// The names of the keys.
    ///
    /// # Errors
    /// Nobody has said whose.
    pub fn keys(&self) -> Result<&Keys, FeedError> {
        let unknown = || FeedError::Unavailable("the store has not said yet which deployment this is".into());
        self.keys.as_ref().ok_or_else(unknown)
    }

    /// Runs commands of which the server may take `patience` to answer one. A connection may have died unnoticed since
    /// its last use: then they run once more on a new one, so they have to be such as may run twice.
    pub fn run<T>(
        &mut self,
        patience: Duration,
        mut commands: impl FnMut(&mut Connection, &Keys) -> RedisResult<T>,
    ) -> Result<T, FeedError> {
        let keys = self.keys()?.clone();
        self.run_plain(patience, |connection| commands(connection, &keys))
    }

    /// Does the same with commands that name no keys of a deployment.
    pub fn run_plain<T>(
        &mut self,
        patience: Duration,
        mut commands: impl FnMut(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, FeedError> {
        let mut reused = self.connection.is_some();
        loop {
            let connection = self.connect()?;
            let timeout = Some(patience + Duration::from_millis(REDIS_REPLY_TIMEOUT_MS));
            let result = connection
                .set_read_timeout(timeout)
                .and_then(|()| connection.set_write_timeout(timeout))
                .and_then(|()| commands(connection));
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // An error that the server sent leaves the connection in order; any other does not.
            let broken = error.code().is_none();
            if broken {
                self.connection = None;
                self.was_silent |= error.is_timeout();
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
        let answers: RedisResult<Vec<Value>> = (0..count).map(|_| connection.recv_response()).collect();
        // Whatever may still come over this connection would be taken for another answer.
        if let Err(error) = &answers {
            self.connection = None;
            self.was_silent |= error.is_timeout();
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
            self.was_silent |= error.is_timeout();
            feed_error(&error)
        })
    }

    fn connect(&mut self) -> Result<&mut Connection, FeedError> {
        if self.connection.is_none() {
            let opened = match self.attempt.take() {
                Some(attempt) => self.look_at(attempt)?,
                None => {
                    if let Some((until, reason)) = &self.blocked
                        && Instant::now() < *until
                    {
                        return Err(FeedError::Unavailable(reason.clone()));
                    }
                    if self.was_silent {
                        return Err(self.attempt_beside());
                    }
                    open(&self.info)
                }
            };
            match opened {
                Ok(connection) => {
                    (self.blocked, self.was_silent) = (None, false);
                    self.connection = Some(connection);
                }
                Err(error) => {
                    let until = Instant::now() + Duration::from_millis(REDIS_RECONNECT_BACKOFF_MS);
                    let address = self.info.addr();
                    let described = match feed_error(&error) {
                        FeedError::Unavailable(reason) => FeedError::Unavailable(format!("{reason}, at {address}")),
                        FeedError::Fatal(reason) => FeedError::Fatal(format!("{reason}, at {address}")),
                        other => other,
                    };
                    let reason = match &described {
                        FeedError::Unavailable(reason) => reason.clone(),
                        other => other.to_string(),
                    };
                    self.blocked = Some((until, reason));
                    self.was_silent |= error.is_timeout();
                    return Err(described);
                }
            }
        }
        Ok(self.connection.as_mut().expect("connected above"))
    }

    /// What has become of an attempt.
    ///
    /// # Errors
    /// It has not ended yet.
    fn look_at(&mut self, attempt: Receiver<RedisResult<Connection>>) -> Result<RedisResult<Connection>, FeedError> {
        match attempt.try_recv() {
            Ok(opened) => Ok(opened),
            Err(TryRecvError::Empty) => {
                self.attempt = Some(attempt);
                Err(self.still_silent())
            }
            Err(TryRecvError::Disconnected) => Ok(Err(std::io::Error::other("the attempt was given up").into())),
        }
    }

    /// Begins an attempt in a thread of its own.
    fn attempt_beside(&mut self) -> FeedError {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let info = self.info.clone();
        let started = std::thread::Builder::new().name("redis-attempt".into()).spawn(move || {
            // Nobody waits for it any more when the link has ended.
            let _ = sender.send(open(&info));
        });
        match started {
            Ok(_) => self.attempt = Some(receiver),
            // The next attempt is made in this thread.
            Err(_) => self.was_silent = false,
        }
        self.still_silent()
    }

    fn still_silent(&self) -> FeedError {
        let reason = self.blocked.as_ref().map(|(_, reason)| reason.clone());
        FeedError::Unavailable(reason.unwrap_or_else(|| "Redis does not answer".into()))
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
    // A Redis without cluster mode refuses the question, as may one that keeps its commands from this user.
    match redis::cmd("CLUSTER").arg("INFO").query::<String>(&mut connection) {
        Ok(told) if masters(&told) > 1 => Err((ErrorKind::InvalidClientConfig, CLUSTER_OF_SEVERAL).into()),
        Err(error) if error.code().is_none() && error.kind() == ErrorKind::Io => Err(error),
        _ => Ok(connection),
    }
}

/// How many nodes of a cluster have keys, as `CLUSTER INFO` tells it.
fn masters(told: &str) -> u32 {
    let count = told.lines().find_map(|line| line.trim().strip_prefix("cluster_size:"));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_cannot_be_reached_is_named_with_its_address() {
        let options = RedisOptions {
            url: "redis://:secret@127.0.0.1:1/3".into(),
            topic: "t".into(),
            cache_ttl: Duration::from_secs(1),
            fleet: None,
        };
        let mut link = Link::new(&options).expect("a usable URL");
        // At once, and while no attempt is made because the last one has failed.
        for _ in 0..2 {
            let error = link.run_plain(Duration::ZERO, |connection| redis::cmd("PING").exec(connection));
            let Err(FeedError::Unavailable(text)) = error else { panic!("nobody is there") };
            assert!(text.contains("cannot be reached") && text.ends_with(", at 127.0.0.1:1"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn the_masters_of_a_cluster_are_counted() {
        assert_eq!(masters("cluster_state:ok\r\ncluster_known_nodes:6\r\ncluster_size:3\r\n"), 3);
        assert_eq!((masters("cluster_size:1\r\n"), masters("cluster_size:x"), masters("")), (1, 0, 0));
    }
}
