//! The feed in Redis: for API processes and workers on one machine or many.
//!
//! Four keys, `million-rps:{topic:identity}:…` (the braces keep them on one node of a cluster; the identity is that of the store,
//! so a deployment with another store never takes them for its own):
//!
//! | key | type | holds |
//! |---|---|---|
//! | `todos` | hash | each todo's JSON under its id, and `@epoch`: a random number of this load of the list |
//! | `offsets` | hash | per partition the offset up to which the feed has changes; `@number` and `@last`: number and id of the latest change |
//! | `changes` | stream | one entry a batch: `epoch`, `number`, `step` ("partition from to"), `put` (JSON), `delete` ("created_at id"); or `lost` (why), `loading`, `loaded` |
//! | `loading` | string | lock of the process that loads the list from the store |
//!
//! A fifth, `million-rps:{topic}:deployment:…`, tells processes that cannot ask the store which identity it has (`pointer.rs`).
//!
//! To look at it: `HLEN`, `HGETALL …:offsets`, `XREVRANGE …:changes + - COUNT 3`.
//!
//! - The list, the offsets and the change are written by one script (`publish.lua`), so they agree at all times, and
//!   a batch costs work for the todos that it changed.
//! - The list is *warm* while `todos` has an epoch. It expires `CACHE_TTL_SEC` after it was loaded, whatever has been
//!   published since: so the list is compared with the store within that time. Offsets and changes live a little longer.
//! - A reader holds an epoch and the number of the last change that it has seen. Numbers have no gaps; a missing one, or
//!   another epoch, means that something was missed: the stream was trimmed, Redis was flushed, restarted empty or with
//!   older data, the list expired.
//! - Changes go on to be recorded while the list is cold. Whoever loads it from the store marks a place first, then
//!   reads the store, then adds the changes since, and puts the list in place only if there has been none in between.

mod entry;
mod evictions;
mod link;
mod loading;
mod pointer;
mod probe;
mod publisher;
mod refusal;
mod subscriber;

use std::time::Duration;

pub use self::probe::RedisProbe;
pub use self::publisher::RedisPublisher;
pub use self::subscriber::RedisSubscriber;

/// Where the feed is.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS, or plain `host:port`.
    pub url: String,
    /// The topic of commands: it names the keys, together with the identity of the store.
    pub topic: String,
    /// How long a list is used before it is loaded anew from the store.
    pub cache_ttl: Duration,
    /// A name that only processes of one deployment can make. Under it they leave the identity of the store for those that start
    /// while it is away; `None` for a process that does not take part.
    pub fleet: Option<String>,
}

/// The names of the keys.
#[derive(Clone)]
pub(super) struct Keys {
    pub todos: String,
    pub offsets: String,
    pub changes: String,
    pub loading: String,
}

impl RedisOptions {
    /// The key under which the fleet leaves the identity.
    pub(super) fn pointer(&self) -> Option<String> {
        Some(format!("million-rps:{{{}}}:deployment:{}", self.topic, self.fleet.as_ref()?))
    }
}

impl Keys {
    /// Of the deployment with this identity.
    pub fn new(topic: &str, identity: &str) -> Keys {
        let name = |part| format!("million-rps:{{{topic}:{identity}}}:{part}");
        Keys { todos: name("todos"), offsets: name("offsets"), changes: name("changes"), loading: name("loading") }
    }
}
