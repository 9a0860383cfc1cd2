//! The writing end of the Redis feed.

use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Script, ServerErrorKind, Value};

use crate::feed::redis::link::{Link, sending_time};
use crate::feed::redis::refusal::feed_error;
use crate::feed::redis::{Keys, RedisOptions};
use crate::feed::{ChangeSet, FeedError, FeedPublisher};
use crate::limits::{REDIS_CHANGES_MAX_BYTES, REDIS_CHANGES_MAX_ENTRIES, REDIS_PART_MAX_BYTES, REDIS_PART_MAX_TODOS};
use crate::store::{AppliedOffsets, Identity};
use crate::todo::{TODO_ID_TEXT_BYTES, Todo, TodoKey};

/// The writing end.
pub struct RedisPublisher {
    link: Link,
    publish: Script,
    resume: Script,
    sent: Option<Sent>,
}

/// A set on its way: what Redis was asked to run, so that it can be asked again.
struct Sent {
    calls: Pipeline,
    /// Calls, each with an answer.
    count: usize,
    patience: Duration,
}

impl RedisPublisher {
    /// A publisher; it connects at the first use.
    ///
    /// # Errors
    /// [`FeedError::Fatal`] when the URL is not usable; the text never holds its password.
    pub fn new(options: &RedisOptions) -> Result<RedisPublisher, FeedError> {
        Ok(RedisPublisher {
            link: Link::new(options)?,
            publish: Script::new(include_str!("publish.lua")),
            resume: Script::new(include_str!("resume.lua")),
            sent: None,
        })
    }
}

impl FeedPublisher for RedisPublisher {
    fn identify(&mut self, identity: &Identity) {
        self.link.identify(&identity.name());
    }

    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        self.begin(set)?;
        self.finish()
    }

    fn begin(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        debug_assert!(self.sent.is_none(), "the set before has to be finished");
        let parts = parts(set);
        let (script, changes_ttl_ms, keys) = (&self.publish, self.link.changes_ttl_ms, self.link.keys()?.clone());
        let bytes = parts.iter().flat_map(|part| &part.upserts).map(|(_, json)| json.len()).sum();
        // One round trip, however many parts: each finds by itself what is known or missing.
        let mut calls = redis::pipe();
        for (number, part) in parts.iter().enumerate() {
            let place = if number + 1 < parts.len() { "part" } else { "final" };
            calls.add_command(publish_call(script, &keys, changes_ttl_ms, set, part, place));
        }
        let patience = sending_time(bytes);
        let packed = calls.get_packed_pipeline();
        self.link.run(patience, |connection, _| connection.send_packed_command(&packed))?;
        self.sent = Some(Sent { calls, count: parts.len(), patience });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), FeedError> {
        let Some(Sent { calls, count, patience }) = self.sent.take() else { return Ok(()) };
        let script = &self.publish;
        let results = match self.link.answers(count) {
            Ok(answers) if !answers.iter().any(is_missing_script) => {
                answers.into_iter().map(|answer| text(answer).map_err(|error| feed_error(&error))).collect()
            }
            Err(error) if error.is_timeout() => Err(feed_error(&error)),
            // Redis has not got the script, and has run none of the calls; or the connection died, perhaps long ago: what
            // has run after all is then known.
            _ => self.link.run(patience, |connection, _| match calls.query(connection) {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    script.prepare_invoke().load(connection)?;
                    calls.query(connection)
                }
                other => other,
            }),
        };
        let results: Vec<String> = results?;
        // "known": the set was published before, by this worker or by the one that took the partition over.
        for gap in results.iter().filter(|result| !matches!(result.as_str(), "applied" | "known")) {
            tracing::warn!(gap, "the feed has missed changes; the list will be loaded anew");
        }
        Ok(())
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let (script, changes_ttl_ms) = (&self.resume, self.link.changes_ttl_ms);
        let different: usize = self.link.run(Duration::ZERO, |connection, keys| {
            let mut call = script.key(&keys.todos);
            call.key(&keys.offsets).key(&keys.changes).arg(changes_ttl_ms);
            for (partition, next) in offsets {
                call.arg(partition).arg(next);
            }
            call.invoke(connection)
        })?;
        if different > 0 {
            tracing::info!(partitions = different, "the feed stood elsewhere than the store");
        }
        Ok(())
    }
}

fn is_missing_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// An answer as text.
fn text(answer: Value) -> RedisResult<String> {
    Ok(redis::from_redis_value(answer.extract_error()?)?)
}

/// One run of the script.
fn publish_call(
    script: &Script,
    keys: &Keys,
    changes_ttl_ms: u64,
    set: &ChangeSet,
    part: &Part<'_>,
    place: &str,
) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(3).arg(&keys.todos).arg(&keys.offsets).arg(&keys.changes);
    call.arg(place).arg(changes_ttl_ms).arg(REDIS_CHANGES_MAX_ENTRIES).arg(REDIS_CHANGES_MAX_BYTES);
    call.arg(set.steps.len());
    for step in &set.steps {
        call.arg(step.partition);
        match step.from {
            Some(from) => call.arg(from),
            None => call.arg("-"),
        };
        call.arg(step.to);
    }
    let mut id = [0; TODO_ID_TEXT_BYTES];
    call.arg(part.deletes.len());
    for key in part.deletes {
        call.arg(key.id.write_text(&mut id).as_bytes()).arg(format!("{} {}", key.created_at, key.id));
    }
    call.arg(part.upserts.len());
    for (todo, json) in &part.upserts {
        call.arg(todo.id.write_text(&mut id).as_bytes()).arg(json);
    }
    call
}

/// What one run of the script takes over: Redis serves nobody else in the meantime.
#[derive(Default)]
struct Part<'a> {
    upserts: Vec<(&'a Todo, Vec<u8>)>,
    deletes: &'a [TodoKey],
}

/// Cuts a large set into parts, deletes first; there is at least one part.
fn parts(set: &ChangeSet) -> Vec<Part<'_>> {
    let deletes = set.changes.deletes.chunks(REDIS_PART_MAX_TODOS);
    let mut parts: Vec<Part<'_>> = deletes.map(|deletes| Part { deletes, ..Part::default() }).collect();
    // The last of them has room for upserts.
    let mut part = parts.pop().unwrap_or_default();
    let mut part_bytes = 0;
    for todo in &set.changes.upserts {
        let mut json = Vec::new();
        todo.write_json(&mut json);
        if part.upserts.len() == REDIS_PART_MAX_TODOS || part_bytes + json.len() > REDIS_PART_MAX_BYTES {
            parts.push(std::mem::take(&mut part));
            part_bytes = 0;
        }
        part_bytes += json.len();
        part.upserts.push((todo, json));
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Changes;
    use crate::todo::{Timestamp, TodoId};

    #[test]
    fn a_set_is_cut_into_bounded_parts_that_hold_all_of_it() {
        let todo = |bytes| Todo {
            id: TodoId::new(),
            title: "t".into(),
            description: "d".repeat(bytes),
            completed: false,
            user_id: "u".into(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        let lengths = |upserts: Vec<Todo>, deletes: usize| {
            let deletes = vec![todo(0).key(); deletes];
            let set = ChangeSet { steps: vec![], changes: Changes { upserts, deletes } };
            parts(&set).iter().map(|part| (part.upserts.len(), part.deletes.len())).collect::<Vec<_>>()
        };
        let most = REDIS_PART_MAX_TODOS;
        assert_eq!(lengths(vec![], 0), [(0, 0)], "an empty batch moves the offsets all the same");
        assert_eq!(lengths(vec![todo(1); most], most), [(most, most)]);
        assert_eq!(lengths(vec![todo(1); most + 1], most + 1), [(0, most), (most, 1), (1, 0)]);
        assert_eq!(lengths(vec![], most + 1), [(0, most), (0, 1)]);
        assert_eq!(lengths(vec![todo(REDIS_PART_MAX_BYTES / 2); 3], 0), [(1, 0), (1, 0), (1, 0)]);
    }
}
