//! The reading end of the Redis feed: loading the list, then following its changes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Script, cmd};

use crate::feed::redis::RedisOptions;
use crate::feed::redis::entry::{Entry, EntryContent, RawEntry};
use crate::feed::redis::evictions::Evictions;
use crate::feed::redis::link::Link;
use crate::feed::redis::pointer;
use crate::feed::{Acquaintance, ChangeSet, FeedError, FeedEvent, FeedSubscriber};
use crate::limits::{REDIS_BLOCK_MAX_MS, REDIS_LOAD_WAIT_MAX_MS, REDIS_READ_MAX_ENTRIES};
use crate::store::{AppliedOffsets, Changes, Identity, Store};
use crate::todo::{JsonParser, Todo};

/// Pause between two looks at a list that another process is loading.
pub(super) const WAIT_PAUSE: Duration = Duration::from_millis(20);

/// The reading end.
pub struct RedisSubscriber {
    pub(super) link: Link,
    pub(super) begin: Script,
    pub(super) fill: Script,
    pub(super) install: Script,
    set_back: Script,
    pub(super) parser: JsonParser,
    /// Up to where this process has the list; `None` before it is loaded.
    pub(super) place: Option<Place>,
    /// Changes that came while the list was loaded.
    pub(super) pending: Vec<ChangeSet>,
    /// Parts of a batch whose last one is still to come: a list never stands in the middle of a batch.
    pub(super) parts: Changes,
    evictions: Evictions,
    /// Where the identity is left for others.
    pointer: Option<String>,
    /// What was known last.
    acquaintance: Option<Acquaintance>,
    /// The identity that is to be left for others.
    identity: Option<Identity>,
}

/// A place in the changes.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Of the list; empty while there is none.
    pub epoch: String,
    /// Number of the latest change.
    pub number: u64,
    /// Its id in the stream.
    pub last: String,
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
    pub fn is_warm(&self) -> bool {
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
            begin: Script::new(include_str!("begin.lua")),
            fill: Script::new(include_str!("fill.lua")),
            install: Script::new(include_str!("install.lua")),
            set_back: Script::new(include_str!("set_back.lua")),
            parser: JsonParser::default(),
            place: None,
            pending: Vec::new(),
            parts: Changes::default(),
            evictions: Evictions::default(),
            pointer: options.pointer(),
            acquaintance: None,
            identity: None,
        })
    }
}

impl FeedSubscriber for RedisSubscriber {
    fn identify(&mut self, store: &mut dyn Store) -> Result<Acquaintance, FeedError> {
        let (name, acquaintance) = match (store.identity(), &self.acquaintance) {
            (Ok(identity), _) => {
                self.identity = Some(identity.clone());
                (identity.name(), Acquaintance::from(identity))
            }
            (Err(_), Some(known)) => return Ok(known.clone()),
            (Err(error), None) => {
                // When Redis does not answer either, the store is what has to be mended first.
                let pointer = self.pointer.as_deref();
                let found = pointer.and_then(|pointer| pointer::find(&mut self.link, pointer).ok().flatten());
                let found = found.ok_or(error)?;
                (found.name, found.acquaintance)
            }
        };
        self.link.identify(&name);
        Ok(self.acquaintance.insert(acquaintance).clone())
    }

    /// A worker may fail to publish while this process reads without trouble: Redis full, a replica, other rights, another network.
    fn may_fall_behind(&self) -> bool {
        true
    }

    fn load(
        &mut self,
        store: &mut dyn Store,
        at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        let loaded = self.load_once(store, at_least, each);
        match &loaded {
            Ok(_) => {
                if let (Some(pointer), Some(identity)) = (&self.pointer, &self.identity) {
                    pointer::leave(&mut self.link, pointer, identity);
                }
                self.evictions.since_last_look(&mut self.link);
            }
            Err(FeedError::Unavailable(_)) => {
                if let Some(reason) = self.evictions.since_last_look(&mut self.link) {
                    return Err(FeedError::Unavailable(reason));
                }
            }
            Err(_) => {}
        }
        loaded
    }

    fn catch_up(&mut self) -> Vec<ChangeSet> {
        std::mem::take(&mut self.pending)
    }

    fn set_back(&mut self, stored: &AppliedOffsets) -> Result<(), FeedError> {
        let (script, changes_ttl_ms) = (&self.set_back, self.link.changes_ttl_ms);
        self.link.run(Duration::ZERO, |connection, keys| {
            let mut call = script.key(&keys.todos);
            call.key(&keys.offsets).key(&keys.changes).arg(changes_ttl_ms);
            for (partition, next) in stored {
                call.arg(partition).arg(next);
            }
            call.invoke::<usize>(connection).map(drop)
        })
    }

    fn next(&mut self, max_wait: Duration) -> Result<FeedEvent, FeedError> {
        let event = self.next_event(max_wait)?;
        Ok(match event {
            FeedEvent::Lost { reason } => {
                let evicted = self.evictions.since_last_look(&mut self.link);
                FeedEvent::Lost { reason: evicted.unwrap_or(reason) }
            }
            other => other,
        })
    }
}

impl RedisSubscriber {
    fn load_once(
        &mut self,
        store: &mut dyn Store,
        at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        self.place = None;
        self.pending.clear();
        self.parts = Changes::default();
        let deadline = Instant::now() + Duration::from_millis(REDIS_LOAD_WAIT_MAX_MS);
        while Instant::now() < deadline {
            if self.current_place()?.is_warm() {
                return self.load_warm(store, at_least, each);
            }
            let token = uuid::Uuid::now_v7().to_string();
            if self.take_lock(&token)? {
                // Another process may have been done just before this one got the lock.
                let loaded = if self.current_place()?.is_warm() {
                    self.load_warm(store, at_least, each).inspect(|_| self.release_lock_soon(&token))
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

    fn next_event(&mut self, max_wait: Duration) -> Result<FeedEvent, FeedError> {
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

    /// Takes over entries that follow on `place`.
    fn follow(&mut self, mut place: Place, entries: Vec<RawEntry>) -> FeedEvent {
        let mut sets = Vec::with_capacity(entries.len());
        for (id, fields) in entries {
            match self.follow_one(&mut place, id, fields) {
                Ok((set, more)) => sets.extend(self.join_parts(set, more)),
                Err(reason) => return FeedEvent::Lost { reason },
            }
        }
        self.place = Some(place);
        FeedEvent::Changes(sets)
    }

    /// The whole batch, when this is its last part, which makes its steps.
    pub(super) fn join_parts(&mut self, mut set: ChangeSet, more: bool) -> Option<ChangeSet> {
        if more || !self.parts.is_empty() {
            self.parts.deletes.append(&mut set.changes.deletes);
            self.parts.upserts.append(&mut set.changes.upserts);
            set.changes = if more { Changes::default() } else { std::mem::take(&mut self.parts) };
        }
        (!more).then_some(set)
    }

    /// Takes over one entry; returns its changes and whether more parts of the same batch follow.
    pub(super) fn follow_one(
        &mut self,
        place: &mut Place,
        id: String,
        fields: Vec<Vec<u8>>,
    ) -> Result<(ChangeSet, bool), String> {
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

    /// Where the feed stands.
    pub(super) fn current_place(&mut self) -> Result<Place, FeedError> {
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
    pub(super) fn current_place_and_offsets(&mut self) -> Result<(Place, AppliedOffsets), FeedError> {
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
    pub(super) fn read_after(&mut self, last: &str, wait: Duration) -> Result<Vec<RawEntry>, FeedError> {
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
