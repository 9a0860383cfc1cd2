//! Loading the list of the Redis feed: from Redis where it is warm, else from the store, for all.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redis::{Script, cmd};

use crate::feed::redis::link::sending_time;
use crate::feed::redis::subscriber::{Place, RedisSubscriber, WAIT_PAUSE};
use crate::feed::{FeedError, short_of};
use crate::limits::{REDIS_LOAD_LOCK_MS, REDIS_LOAD_RETRY_MS, REDIS_PART_MAX_BYTES, REDIS_PART_MAX_TODOS};
use crate::store::{AppliedOffsets, Changes, OffsetStep, Store};
use crate::todo::Todo;

/// Rows that one step of reading the list asks for.
const SCAN_COUNT: usize = 1_000;
/// Longest wait for what the store had to be published: a worker does so some milliseconds after its commit.
const BEHIND_WAIT_MAX: Duration = Duration::from_millis(500);

impl RedisSubscriber {
    /// Reads the list from Redis. Changes in the meantime may be in it or not; `next` delivers them all the same.
    pub(super) fn load_warm(
        &mut self,
        store: &mut dyn Store,
        at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        // What the list comes to have beyond this place does not count: the changes that follow may show a todo as it was
        // in between.
        let give_up_at = Instant::now() + BEHIND_WAIT_MAX;
        let (place, offsets) = loop {
            let (place, offsets) = self.current_place_and_offsets()?;
            if !place.is_warm() {
                return Err(FeedError::Unavailable("the list in Redis expired before it was read".into()));
            }
            let Some(partition) = short_of(&offsets, at_least) else { break (place, offsets) };
            if Instant::now() < give_up_at {
                std::thread::sleep(WAIT_PAUSE);
                continue;
            }
            if is_all_of(store, &offsets, at_least) {
                break (place, offsets);
            }
            self.try_to_write()?;
            return Err(FeedError::Unavailable(format!(
                "the list in Redis is behind the store in partition {partition}: no worker brings its changes to Redis; /ready \
                 of the workers (WORKER_HTTP_PORT) and their logs say why"
            )));
        };
        self.shorten_lifetime();
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
        let to = self.current_place()?;
        self.follow_to(place, to)?;
        Ok(offsets)
    }

    /// Follows the changes from one place to a later one. A list that was read meanwhile may have some of them and not others:
    /// with all of them it is that of the later place.
    fn follow_to(&mut self, from: Place, to: Place) -> Result<(), FeedError> {
        let replaced = |reason: String| {
            FeedError::Unavailable(format!("the list in Redis was replaced while it was read: {reason}"))
        };
        if from.epoch != to.epoch {
            return Err(replaced("it is another one now".into()));
        }
        let mut at = from;
        while at.number < to.number {
            let entries = self.read_after(&at.last, Duration::ZERO)?;
            if entries.is_empty() {
                return Err(replaced(format!("change {} is gone", at.number + 1)));
            }
            for (id, fields) in entries {
                let (set, more) = self.follow_one(&mut at, id, fields).map_err(replaced)?;
                let set = self.join_parts(set, more);
                self.pending.extend(set);
            }
        }
        self.place = Some(at);
        Ok(())
    }

    /// Has the list expire in time also for this process: one whose CACHE_TTL_SEC is longer, or was, may have loaded it. Where
    /// Redis does not allow it, the list is as old as that process lets it become.
    fn shorten_lifetime(&mut self) {
        let ttl_ms = self.link.list_ttl_ms;
        let left_ms = self.link.run(Duration::ZERO, |connection, keys| cmd("PTTL").arg(&keys.todos).query(connection));
        if left_ms.is_ok_and(|left_ms: i64| u64::try_from(left_ms).map_or(left_ms == -1, |left_ms| left_ms > ttl_ms)) {
            let shortened = self.link.run(Duration::ZERO, |connection, keys| {
                cmd("PEXPIRE").arg(&keys.todos).arg(ttl_ms).query::<()>(connection)
            });
            if let Err(error) = shortened {
                tracing::debug!(%error, "the lifetime of the list in Redis cannot be shortened");
            }
        }
    }

    fn ask_rows(&mut self, cursor: u64) -> Result<(), FeedError> {
        self.link.ask(|keys| {
            let mut scan = cmd("HSCAN");
            scan.arg(&keys.todos).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            scan
        })
    }

    /// Reads the list from the store and puts it into Redis, for all.
    pub(super) fn load_cold(
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
        let mut is_first = true;
        loop {
            let entries = self.read_after(&place.last, Duration::ZERO)?;
            let is_first = std::mem::take(&mut is_first);
            if entries.is_empty() && !is_first {
                return Err(begin_again("its place in the changes was lost; Redis was emptied or evicts keys".into()));
            }
            for (id, fields) in entries {
                // There is no list, so the epoch of these changes is empty, as that of `place`.
                let (set, more) = self.follow_one(&mut place, id, fields).map_err(begin_again)?;
                if is_missing_from(&mut offsets, &set.steps, more).map_err(begin_again)? {
                    rows.change(&set.changes);
                    pending.extend(self.join_parts(set, more));
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
        let epoch = uuid::Uuid::now_v7().to_string();
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

    pub(super) fn take_lock(&mut self, token: &str) -> Result<bool, FeedError> {
        self.link.run(Duration::ZERO, |connection, keys| {
            cmd("SET").arg(&keys.loading).arg(token).arg("NX").arg("PX").arg(REDIS_LOAD_LOCK_MS).query(connection)
        })
    }

    /// Writes something that expires at once.
    ///
    /// # Errors
    /// Redis takes no writes, and says why.
    fn try_to_write(&mut self) -> Result<(), FeedError> {
        self.link.run(Duration::ZERO, |connection, keys| {
            cmd("SET").arg(format!("{}:written", keys.loading)).arg("").arg("PX").arg(1).exec(connection)
        })
    }

    /// After a failure: leaves the lock for a moment, so that a fleet does not rush at a store in trouble. What has been written of
    /// the new list goes, because Redis may be full of it.
    pub(super) fn release_lock_soon(&mut self, token: &str) {
        let script = Script::new(
            "redis.call('UNLINK', KEYS[2]) \
             if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 1",
        );
        let released: Result<usize, FeedError> = self.link.run(Duration::ZERO, |connection, keys| {
            script
                .key(&keys.loading)
                .key(format!("{}:{token}", keys.todos))
                .arg(token)
                .arg(REDIS_LOAD_RETRY_MS)
                .invoke(connection)
        });
        if let Err(error) = released {
            tracing::debug!(%error, "the lock on loading the list expires by itself");
        }
    }

    pub(super) fn drop_list(&mut self) -> Result<(), FeedError> {
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
}

/// Whether a list with these offsets is all that the store has, although there has been a list that went farther: the store was
/// set back, and another process of the fleet has loaded it since.
fn is_all_of(store: &mut dyn Store, offsets: &AppliedOffsets, before: &AppliedOffsets) -> bool {
    let stored = store.applied_offsets();
    stored.is_ok_and(|stored| short_of(&stored, before).is_some() && short_of(offsets, &stored).is_none())
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
