//! The reading end of the Redis feed: loading the list, then following its changes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use redis::{Script, cmd};

use crate::feed::redis::{Link, RedisOptions, sending_time};
use crate::feed::redis_entry::{Entry, EntryContent, RawEntry};
use crate::feed::{ChangeSet, FeedError, FeedEvent, FeedSubscriber};
use crate::limits::{
    REDIS_BLOCK_MAX_MS, REDIS_LOAD_LOCK_MS, REDIS_LOAD_RETRY_MS, REDIS_LOAD_WAIT_MAX_MS, REDIS_PART_MAX_BYTES,
    REDIS_PART_MAX_TODOS, REDIS_READ_MAX_ENTRIES,
};
use crate::store::{AppliedOffsets, Changes, OffsetStep, Store};
use crate::todo::{JsonParser, Todo};

/// Pause between two looks at a list that another process is loading.
const WAIT_PAUSE: Duration = Duration::from_millis(20);
/// Rows that one step of reading the list asks for.
const SCAN_COUNT: usize = 1_000;

/// The reading end.
pub struct RedisSubscriber {
    link: Link,
    begin: Script,
    fill: Script,
    install: Script,
    parser: JsonParser,
    /// Up to where this process has the list; `None` before it is loaded.
    place: Option<Place>,
    /// Changes that came while this process itself loaded the list from the store.
    pending: Vec<ChangeSet>,
}

/// A place in the changes.
#[derive(Debug, Clone)]
struct Place {
    /// Of the list; empty while there is none.
    epoch: String,
    /// Number of the latest change.
    number: u64,
    /// Its id in the stream.
    last: String,
}

impl Place {
    fn of(epoch: Option<String>, number: Option<u64>, last: Option<String>) -> Place {
        match (epoch, number, last) {
            (Some(epoch), Some(number), Some(last)) => Place { epoch, number, last },
            // No list; or one without its place, which nobody can follow.
            (_, number, _) => Place { epoch: String::new(), number: number.unwrap_or_default(), last: String::new() },
        }
    }

    /// Whether there is a list.
    fn is_warm(&self) -> bool {
        !self.epoch.is_empty()
    }
}

impl RedisSubscriber {
    /// A subscriber; it connects at the first use.
    ///
    /// # Errors
    /// [`FeedError::Fatal`] when the URL is not usable; the text never holds its password.
    pub fn new(options: &RedisOptions) -> Result<RedisSubscriber, FeedError> {
        Ok(RedisSubscriber {
            link: Link::new(options)?,
            begin: Script::new(include_str!("redis_begin.lua")),
            fill: Script::new(include_str!("redis_fill.lua")),
            install: Script::new(include_str!("redis_install.lua")),
            parser: JsonParser::default(),
            place: None,
            pending: Vec::new(),
        })
    }
}

impl FeedSubscriber for RedisSubscriber {
    fn load(&mut self, store: &mut dyn Store, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, FeedError> {
        self.place = None;
        self.pending.clear();
        let deadline = Instant::now() + Duration::from_millis(REDIS_LOAD_WAIT_MAX_MS);
        while Instant::now() < deadline {
            if self.current_place()?.is_warm() {
                return self.load_warm(each);
            }
            let token = unique_text();
            if self.take_lock(&token)? {
                // Another process may have been done just before this one got the lock.
                let loaded = if self.current_place()?.is_warm() {
                    self.load_warm(each).inspect(|_| self.release_lock_soon(&token))
                } else {
                    self.load_cold(&token, store, each)
                };
                if loaded.is_err() {
                    self.release_lock_soon(&token);
                }
                return loaded;
            }
            std::thread::sleep(WAIT_PAUSE);
        }
        Err(FeedError::Unavailable(format!(
            "another process has been loading the list into Redis for more than {} s",
            REDIS_LOAD_WAIT_MAX_MS / 1_000
        )))
    }

    fn next(&mut self, max_wait: Duration) -> Result<FeedEvent, FeedError> {
        if !self.pending.is_empty() {
            return Ok(FeedEvent::Changes(std::mem::take(&mut self.pending)));
        }
        let Some(place) = self.place.clone() else {
            return Ok(FeedEvent::Lost { reason: "no list has been loaded".into() });
        };
        let wait = max_wait.min(Duration::from_millis(REDIS_BLOCK_MAX_MS));
        let entries = self.read_after(&place.last, wait)?;
        if !entries.is_empty() {
            return Ok(self.follow(place, entries));
        }
        let current = self.current_place()?;
        if current.epoch == place.epoch && current.number == place.number {
            return Ok(FeedEvent::Current);
        }
        // A change may have come between the two questions.
        let entries = self.read_after(&place.last, Duration::ZERO)?;
        if !entries.is_empty() {
            return Ok(self.follow(place, entries));
        }
        let reason = if !current.is_warm() {
            "the list has expired, or Redis was emptied".to_owned()
        } else if current.epoch != place.epoch {
            "the list was loaded anew".to_owned()
        } else {
            // Redis came back with older data: nobody may go on from this list.
            self.drop_list()?;
            format!("Redis holds change {}, this process has seen {}", current.number, place.number)
        };
        Ok(FeedEvent::Lost { reason })
    }
}

impl RedisSubscriber {
    /// Takes over entries that follow on `place`.
    fn follow(&mut self, mut place: Place, entries: Vec<RawEntry>) -> FeedEvent {
        let mut sets = Vec::with_capacity(entries.len());
        for (id, fields) in entries {
            match self.follow_one(&mut place, id, fields) {
                // The steps are made by the last part of a batch.
                Ok((set, true)) => sets.push(ChangeSet { steps: Vec::new(), ..set }),
                Ok((set, false)) => sets.push(set),
                Err(reason) => return FeedEvent::Lost { reason },
            }
        }
        self.place = Some(place);
        FeedEvent::Changes(sets)
    }

    /// Takes over one entry; returns its changes and whether more parts of the same batch follow.
    fn follow_one(&mut self, place: &mut Place, id: String, fields: Vec<Vec<u8>>) -> Result<(ChangeSet, bool), String> {
        let entry = Entry::parse(fields, &mut self.parser)?;
        if entry.number != place.number + 1 {
            return Err(format!("change {} comes after change {}", entry.number, place.number));
        }
        match entry.content {
            EntryContent::Lost(reason) => Err(reason),
            EntryContent::Loaded => Err("the list was loaded anew".into()),
            EntryContent::Changes { .. } if entry.epoch != place.epoch => Err("the list was dropped".into()),
            EntryContent::Changes { set, more } => {
                place.number = entry.number;
                place.last = id;
                Ok((set, more))
            }
        }
    }

    /// Reads the list from Redis. Changes in the meantime may be in it or not; `next` delivers them all the same.
    fn load_warm(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, FeedError> {
        // What the list comes to have beyond this place does not count: the changes that follow may show a todo as it was
        // in between.
        let (place, offsets) = self.current_place_and_offsets()?;
        if !place.is_warm() {
            return Err(FeedError::Unavailable("the list in Redis expired before it was read".into()));
        }
        // Redis may return a row twice while it rearranges the hash; what was seen first is brought up to date by the
        // changes that follow.
        let mut seen = HashSet::new();
        self.ask_rows(0)?;
        loop {
            let (next, rows): (u64, Vec<Vec<u8>>) = self.link.answer()?;
            // Redis collects the next rows while these are read.
            if next != 0 {
                self.ask_rows(next)?;
            }
            let mut damage = None;
            let mut rows = rows.into_iter();
            while let (Some(id), Some(mut json)) = (rows.next(), rows.next()) {
                if id == b"@epoch" {
                    continue;
                }
                match Todo::from_json(&mut json, &mut self.parser) {
                    Ok(todo) if seen.insert(todo.id) => each(todo),
                    Ok(_) => {}
                    Err(error) => {
                        damage = Some(format!("the todo {} is damaged: {error}", String::from_utf8_lossy(&id)))
                    }
                }
            }
            if let Some(damage) = damage {
                if next != 0 {
                    let _: (u64, Vec<Vec<u8>>) = self.link.answer()?;
                }
                self.drop_list()?;
                return Err(FeedError::Unavailable(format!(
                    "the list in Redis was dropped and is loaded anew: {damage}"
                )));
            }
            if next == 0 {
                break;
            }
        }
        if self.current_place()?.epoch != place.epoch {
            return Err(FeedError::Unavailable("the list in Redis was replaced while it was read".into()));
        }
        self.place = Some(place);
        Ok(offsets)
    }

    fn ask_rows(&mut self, cursor: u64) -> Result<(), FeedError> {
        self.link.ask(|keys| {
            let mut scan = cmd("HSCAN");
            scan.arg(&keys.todos).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            scan
        })
    }

    /// Reads the list from the store and puts it into Redis, for all.
    fn load_cold(
        &mut self,
        token: &str,
        store: &mut dyn Store,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        // Before the store is read: every change that it does not show yet is then recorded after this place.
        let mut place = self.mark_place(token)?;
        let mut rows = Rows::default();
        let mut failure = None;
        let scanned = store.scan(&mut |todo| {
            rows.add(&todo);
            each(todo);
            if rows.is_full() && failure.is_none() {
                failure = self.write_rows(token, &mut rows).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let scanned = scanned?;
        let mut offsets = scanned.clone();
        self.write_rows(token, &mut rows)?;
        // Every round has less to do than the one before, because it only follows what came during that one.
        let mut pending = Vec::new();
        loop {
            for (id, fields) in self.read_after(&place.last, Duration::ZERO)? {
                // There is no list, so the epoch of these changes is empty, as that of `place`.
                let (set, more) = self.follow_one(&mut place, id, fields).map_err(begin_again)?;
                if is_missing_from(&mut offsets, &set.steps, more).map_err(begin_again)? {
                    rows.change(&set.changes);
                    pending.push(if more { ChangeSet { steps: Vec::new(), ..set } } else { set });
                    if rows.is_full() {
                        self.write_rows(token, &mut rows)?;
                    }
                }
            }
            self.write_rows(token, &mut rows)?;
            if let Some(installed) = self.install(token, place.number, &offsets)? {
                self.place = Some(installed);
                self.pending = pending;
                return Ok(scanned);
            }
        }
    }

    /// Writes collected rows into the new list; also a sign of life for the lock when there are none.
    fn write_rows(&mut self, token: &str, rows: &mut Rows) -> Result<(), FeedError> {
        let (script, rows) = (&self.fill, std::mem::take(rows));
        let held: bool = self.link.run(sending_time(rows.bytes), |connection, keys| {
            let mut call = script.key(&keys.loading);
            call.key(format!("{}:{token}", keys.todos)).arg(token).arg(REDIS_LOAD_LOCK_MS).arg(rows.puts.len());
            for (id, json) in &rows.puts {
                call.arg(id).arg(json);
            }
            call.arg(&rows.deletes).invoke(connection)
        })?;
        if held { Ok(()) } else { Err(begin_again("another process has taken over loading it".into())) }
    }

    /// Puts the new list in place, unless another change has come; returns the place from which to follow it.
    fn install(&mut self, token: &str, number: u64, offsets: &AppliedOffsets) -> Result<Option<Place>, FeedError> {
        let epoch = unique_text();
        let script = &self.install;
        let (list_ttl_ms, changes_ttl_ms) = (self.link.list_ttl_ms, self.link.changes_ttl_ms);
        let installed: Option<(u64, String)> = self.link.run(Duration::ZERO, |connection, keys| {
            let mut call = script.key(&keys.todos);
            call.key(&keys.offsets).key(&keys.changes).key(&keys.loading).key(format!("{}:{token}", keys.todos));
            call.arg(token).arg(number).arg(&epoch).arg(list_ttl_ms).arg(changes_ttl_ms);
            for (partition, next) in offsets {
                call.arg(partition).arg(next);
            }
            call.invoke(connection)
        })?;
        Ok(installed.map(|(number, last)| Place { epoch, number, last }))
    }

    fn take_lock(&mut self, token: &str) -> Result<bool, FeedError> {
        self.link.run(Duration::ZERO, |connection, keys| {
            cmd("SET").arg(&keys.loading).arg(token).arg("NX").arg("PX").arg(REDIS_LOAD_LOCK_MS).query(connection)
        })
    }

    /// After a failure: leaves the lock for a moment, so that a fleet does not rush at a store in trouble.
    fn release_lock_soon(&mut self, token: &str) {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 1",
        );
        let released: Result<usize, FeedError> = self.link.run(Duration::ZERO, |connection, keys| {
            script.key(&keys.loading).arg(token).arg(REDIS_LOAD_RETRY_MS).invoke(connection)
        });
        if let Err(error) = released {
            tracing::debug!(%error, "the lock on loading the list expires by itself");
        }
    }

    fn drop_list(&mut self) -> Result<(), FeedError> {
        self.link.run(Duration::ZERO, |connection, keys| cmd("UNLINK").arg(&keys.todos).query(connection))
    }

    fn mark_place(&mut self, token: &str) -> Result<Place, FeedError> {
        let (script, changes_ttl_ms) = (&self.begin, self.link.changes_ttl_ms);
        let marked: Option<(u64, String)> = self.link.run(Duration::ZERO, |connection, keys| {
            let mut call = script.key(&keys.offsets);
            call.key(&keys.changes).key(&keys.loading).arg(token).arg(changes_ttl_ms).invoke(connection)
        })?;
        let (number, last) = marked.ok_or_else(|| begin_again("another process has taken over loading it".into()))?;
        Ok(Place { epoch: String::new(), number, last })
    }

    /// Where the feed stands.
    fn current_place(&mut self) -> Result<Place, FeedError> {
        let (epoch, (number, last)): (Option<String>, (Option<u64>, Option<String>)) =
            self.link.run(Duration::ZERO, |connection, keys| {
                redis::pipe()
                    .atomic()
                    .cmd("HGET")
                    .arg(&keys.todos)
                    .arg("@epoch")
                    .cmd("HMGET")
                    .arg(&keys.offsets)
                    .arg("@number")
                    .arg("@last")
                    .query(connection)
            })?;
        Ok(Place::of(epoch, number, last))
    }

    /// Where the feed stands, and how far it has the log there.
    fn current_place_and_offsets(&mut self) -> Result<(Place, AppliedOffsets), FeedError> {
        let (epoch, mut fields): (Option<String>, HashMap<String, String>) =
            self.link.run(Duration::ZERO, |connection, keys| {
                let mut both = redis::pipe();
                both.atomic().cmd("HGET").arg(&keys.todos).arg("@epoch").cmd("HGETALL").arg(&keys.offsets);
                both.query(connection)
            })?;
        let (number, last) = (fields.remove("@number").and_then(|number| number.parse().ok()), fields.remove("@last"));
        let offsets = fields.iter().filter_map(|(name, next)| Some((name.parse().ok()?, next.parse().ok()?))).collect();
        Ok((Place::of(epoch, number, last), offsets))
    }

    /// The changes after an id; waits for one when there is none.
    fn read_after(&mut self, last: &str, wait: Duration) -> Result<Vec<RawEntry>, FeedError> {
        let streams: Option<Vec<(String, Vec<RawEntry>)>> = self.link.run(wait, |connection, keys| {
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(REDIS_READ_MAX_ENTRIES);
            if !wait.is_zero() {
                // 0 would mean for ever.
                read.arg("BLOCK").arg(wait.as_millis().max(1) as u64);
            }
            read.arg("STREAMS").arg(&keys.changes).arg(last).query(connection)
        })?;
        Ok(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }
}

/// Whether a batch with these steps is not in a list that was read from the store at `offsets`. Its last part moves them.
///
/// # Errors
/// A batch between the two was never recorded: the list has to be read again.
fn is_missing_from(offsets: &mut AppliedOffsets, steps: &[OffsetStep], more: bool) -> Result<bool, String> {
    let mut missing = false;
    for step in steps {
        let at = offsets.get(&step.partition).copied();
        if at.is_some_and(|at| step.to <= at) {
            continue;
        }
        if at != step.from {
            return Err(format!(
                "partition {} was read at {at:?}, and the next batch starts at {:?}",
                step.partition, step.from
            ));
        }
        if !more {
            offsets.insert(step.partition, step.to);
        }
        missing = true;
    }
    Ok(missing)
}

fn begin_again(reason: String) -> FeedError {
    FeedError::Unavailable(format!("the list could not be loaded into Redis: {reason}"))
}

fn unique_text() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Rows on their way into the new list.
#[derive(Default)]
struct Rows {
    puts: Vec<(String, Vec<u8>)>,
    deletes: Vec<String>,
    bytes: usize,
}

impl Rows {
    fn add(&mut self, todo: &Todo) {
        let mut json = Vec::new();
        todo.write_json(&mut json);
        self.bytes += json.len();
        self.puts.push((todo.id.to_string(), json));
    }

    fn change(&mut self, changes: &Changes) {
        // The script writes first and removes then; a todo that is made again after its delete is not to be removed.
        self.deletes.extend(changes.deletes.iter().map(|key| key.id.to_string()));
        for todo in &changes.upserts {
            let id = todo.id.to_string();
            self.deletes.retain(|deleted| *deleted != id);
            self.add(todo);
        }
    }

    fn is_full(&self) -> bool {
        self.puts.len() + self.deletes.len() >= REDIS_PART_MAX_TODOS || self.bytes >= REDIS_PART_MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::todo::{Timestamp, TodoId};

    #[test]
    fn of_a_todo_that_is_deleted_and_made_again_the_new_row_stays() {
        let todo = |micros| Todo {
            id: TodoId::from_u128(1),
            title: "t".into(),
            description: String::new(),
            completed: false,
            user_id: "u".into(),
            created_at: Timestamp::from_micros(micros),
            updated_at: Timestamp::from_micros(micros),
        };
        let mut rows = Rows::default();
        rows.change(&Changes { upserts: vec![todo(2)], deletes: vec![todo(1).key()] });
        assert_eq!((rows.puts.len(), rows.deletes.len()), (1, 0));
        rows.change(&Changes { upserts: vec![], deletes: vec![todo(2).key()] });
        assert_eq!(rows.deletes.len(), 1);
        rows.change(&Changes { upserts: vec![todo(3)], deletes: vec![] });
        assert_eq!((rows.puts.len(), rows.deletes.len()), (2, 0));
    }
}
