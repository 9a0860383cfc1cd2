//! What an error of Redis means for the feed, and what a person has to do about it.

use redis::{ErrorKind, RedisError};

use crate::feed::FeedError;

/// A refusal that has a remedy.
struct Refusal {
    /// What Redis begins its error with, or has somewhere in it.
    words: &'static [&'static str],
    /// Whether it passes by itself, or by something that is done to Redis alone.
    passes: bool,
    remedy: &'static str,
}

/// What is said of a node of a cluster that has other nodes with keys; one that has them all is as good as none.
pub(super) const CLUSTER_OF_SEVERAL: &str = "REDIS_URL names a node of a Redis Cluster, which is not served here";

const REFUSALS: &[Refusal] = &[
    Refusal {
        words: &["OOM", "OutOfMemory"],
        passes: true,
        remedy: "Redis is full: its maxmemory is reached, and maxmemory-policy noeviction refuses what needs memory. Raise \
                 maxmemory, or give this deployment a Redis of its own",
    },
    Refusal {
        words: &["READONLY", "read only replica"],
        passes: true,
        remedy: "this Redis is a replica and takes no writes: let REDIS_URL name the primary",
    },
    Refusal {
        words: &["MISCONF", "stop-writes-on-bgsave-error"],
        passes: true,
        remedy: "Redis cannot save its data to disk and refuses writes until it can: see its log, free its disk, or \
                 set stop-writes-on-bgsave-error to no",
    },
    Refusal { words: &["LOADING"], passes: true, remedy: "Redis has started and reads its data from disk: wait" },
    Refusal {
        words: &["MASTERDOWN"],
        passes: true,
        remedy: "this Redis is a replica that has lost its primary: let REDIS_URL name the primary",
    },
    Refusal {
        words: &["NOREPLICAS"],
        passes: true,
        remedy: "Redis has fewer replicas than min-replicas-to-write asks for",
    },
    Refusal {
        words: &["CLUSTERDOWN"],
        passes: true,
        remedy: "REDIS_URL names a node of a Redis Cluster that does not serve its keys: let it name a Redis without cluster mode",
    },
    Refusal {
        words: &[CLUSTER_OF_SEVERAL],
        passes: false,
        remedy: "its keys lie on other nodes, too, and move: let REDIS_URL name a Redis without cluster mode",
    },
    Refusal {
        words: &["not allowed in cluster mode"],
        passes: false,
        remedy: "REDIS_URL names a node of a Redis Cluster, which has no database but 0: let it name a Redis without cluster mode",
    },
    Refusal {
        words: &["max number of clients"],
        passes: true,
        remedy: "Redis has as many clients as it takes: raise its maxclients",
    },
    Refusal {
        words: &["NOAUTH"],
        passes: false,
        remedy: "Redis asks for a password: put user and password into REDIS_URL",
    },
    Refusal {
        words: &["WRONGPASS"],
        passes: false,
        remedy: "Redis does not know this user and password: see REDIS_URL",
    },
    Refusal {
        words: &["NOPERM", "NoPerm", "executing the script can't"],
        passes: false,
        remedy: "the user in REDIS_URL lacks rights in Redis: it needs all commands on the keys million-rps:* (ACL \
                 SETUSER … ~million-rps:* +@all)",
    },
    Refusal {
        words: &["MOVED"],
        passes: false,
        remedy: "REDIS_URL names a node of a Redis Cluster that does not have these keys: let it name a Redis without cluster mode",
    },
    Refusal {
        words: &["CROSSSLOT"],
        passes: false,
        remedy: "a proxy before Redis takes the keys of one deployment apart: REDIS_URL has to name Redis itself",
    },
    Refusal {
        words: &["WRONGTYPE"],
        passes: false,
        remedy: "another program uses a key of this name; give one of the two another database number",
    },
];

/// What an error of Redis means.
pub(super) fn feed_error(error: &RedisError) -> FeedError {
    let text = error.to_string();
    let refusal = REFUSALS.iter().find(|refusal| match error.code() {
        Some(code) if refusal.words.contains(&code) => true,
        // The client's own text of a refusal while connecting, or a script's, in which the code is not the first word.
        _ => refusal.words.iter().any(|word| text.contains(word)),
    });
    match refusal {
        Some(Refusal { passes: true, remedy, .. }) => FeedError::Unavailable(format!("{remedy} ({text})")),
        Some(Refusal { passes: false, remedy, .. }) => FeedError::Fatal(format!("Redis: {text}: {remedy}")),
        None if matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig) => {
            FeedError::Fatal(format!("Redis: {text}"))
        }
        None if error.is_timeout() => FeedError::Unavailable(format!("Redis does not answer ({text})")),
        None if error.kind() == ErrorKind::Io => FeedError::Unavailable(format!("Redis cannot be reached ({text})")),
        None => FeedError::Unavailable(format!("Redis answers with an error ({text})")),
    }
}
