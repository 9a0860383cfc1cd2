//! Asks Redis whether it answers, over a connection of its own.

use std::time::Duration;

use redis::cmd;

use crate::feed::FeedError;
use crate::feed::redis::RedisOptions;
use crate::feed::redis::link::Link;

/// Who asks.
pub struct RedisProbe(Link);

impl RedisProbe {
    /// It connects at the first question.
    ///
    /// # Errors
    /// [`FeedError::Fatal`] when the URL is not usable; the text never holds its password.
    pub fn new(options: &RedisOptions) -> Result<RedisProbe, FeedError> {
        Link::new(options).map(RedisProbe)
    }

    /// Where Redis is.
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// Asks once; without an answer for [`crate::limits::REDIS_REPLY_TIMEOUT_MS`] at most.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] when it does not answer; any other is an answer.
    pub fn ask(&mut self) -> Result<(), FeedError> {
        self.0.run_plain(Duration::ZERO, |connection| cmd("PING").exec(connection))
    }
}
