//! The heads that a shard has seen, and what they ask for.
//!
//! A table of fixed size in sets of a few places (as a CPU's cache is built): it cannot grow, a look-up touches one set, and a
//! head can only put another of the same set out. Which set a head belongs to depends on a random key, so that no client can
//! choose heads that fight for one set.
//!
//! Places go to the heads that come most often. A head gets one when it comes for the second time, and puts another out only if
//! it has come more often lately. So a flood of heads that each come once changes nothing here: beside being parsed, such a head
//! costs its hash and one number.

use memchr::memmem;
use xxhash_rust::xxh3::xxh3_64_with_secret;

use super::FirstPage;

/// Heads of a set: their hashes are one line of a CPU's caches.
const WAYS: usize = 8;
/// Sets of the table.
const SETS: usize = 64;
/// Heads that are remembered at the same time: of some hundred clients that differ in their browser, cookie or token. With
/// [`SEEN_HEAD_MAX_BYTES`] they take 1 MiB of a shard at most, which is what CPUs have of second-level cache for each core: to
/// fetch a head from further away takes as long as to parse it.
const SEEN_HEADS_MAX: usize = SETS * WAYS;
/// Longest head that is remembered, in bytes: a browser's with 1.5 kB of cookies.
const SEEN_HEAD_MAX_BYTES: usize = 2 * 1024;
/// Numbers of heads that may get a place: each stands in the number of its hash. Twice as many as places, so that two that come
/// often seldom stand in one.
const NEWCOMERS: usize = 2 * SEEN_HEADS_MAX;
/// How often a head has to come before it gets a place.
const SIGHTINGS_MIN: u32 = 2;
/// After so many seconds, what was counted counts half: a head that comes every other second can keep a place, and who has gone
/// gives it up within the minute.
const HALVED_AFTER_S: i64 = 8;
/// What XXH3 asks for at least is 136 bytes; its own default has 192.
pub const HASH_KEY_BYTES: usize = 192;

const _: () = assert!(SETS.is_power_of_two() && NEWCOMERS.is_power_of_two());

/// A head with a place.
struct Seen {
    head: Box<[u8]>,
    page: FirstPage,
    /// How often it has come lately.
    uses: u32,
}

/// What the places of a set have in common.
#[derive(Clone, Copy)]
struct Set {
    /// Of the heads in its places; 0 is that of an empty one.
    hashes: [u64; WAYS],
    /// When `uses` were halved, in [`HALVED_AFTER_S`].
    halved_at: i64,
}

/// A head that has come and has no place.
#[derive(Clone, Copy, Default)]
struct Newcomer {
    hash: u64,
    sightings: u32,
    /// When `sightings` were halved, in [`HALVED_AFTER_S`].
    halved_at: i64,
}

/// The heads that have been seen.
pub struct SeenHeads {
    hash_key: [u8; HASH_KEY_BYTES],
    sets: Box<[Set; SETS]>,
    places: Box<[Option<Seen>]>,
    newcomers: Box<[Newcomer; NEWCOMERS]>,
    head_end: memmem::Finder<'static>,
    /// The place of the head that came last: the next is most often the same.
    last: usize,
    /// Its bits decide like the throw of a coin.
    coins: u64,
}

impl SeenHeads {
    /// A table of no heads, with a random key.
    pub fn new(hash_key: [u8; HASH_KEY_BYTES]) -> SeenHeads {
        SeenHeads {
            hash_key,
            sets: Box::new([Set { hashes: [0; WAYS], halved_at: 0 }; SETS]),
            places: std::iter::repeat_with(|| None).take(SEEN_HEADS_MAX).collect(),
            newcomers: Box::new([Newcomer::default(); NEWCOMERS]),
            head_end: memmem::Finder::new(b"\r\n\r\n"),
            last: 0,
            coins: 1,
        }
    }

    /// What the head at the start of `unread` asks for, and its length, if it has a place.
    #[inline]
    pub fn find(&mut self, unread: &[u8]) -> Option<(FirstPage, usize)> {
        if let Some(seen) = &mut self.places[self.last]
            && unread.starts_with(&seen.head)
        {
            seen.uses = seen.uses.saturating_add(1);
            return Some((seen.page, seen.head.len()));
        }
        let head = self.measure(unread)?;
        let hash = self.hash(head);
        let place = self.place_of(hash)?;
        let seen = self.places[place].as_mut().filter(|seen| *seen.head == *head)?;
        seen.uses = seen.uses.saturating_add(1);
        self.last = place;
        Some((seen.page, head.len()))
    }

    /// Notes that this head, which [`SeenHeads::find`] did not find, has come and asks for `page`. It may get a place.
    pub fn note(&mut self, head: &[u8], page: FirstPage, unix_seconds: i64) {
        if head.len() > SEEN_HEAD_MAX_BYTES {
            return;
        }
        let (hash, now) = (self.hash(head), unix_seconds / HALVED_AFTER_S);
        let sightings = self.sight(hash, now);
        if sightings < SIGHTINGS_MIN {
            return;
        }
        let place = self.place_to_give_up(hash, now);
        if self.places[place].as_ref().is_some_and(|seen| seen.uses >= sightings) {
            return;
        }
        *self.newcomer(hash) = Newcomer::default();
        self.sets[place / WAYS].hashes[place % WAYS] = hash;
        self.places[place] = Some(Seen { head: head.into(), page, uses: sightings });
        self.last = place;
    }

    /// The head at the start of `unread`, up to and with its empty line.
    #[inline]
    fn measure<'b>(&self, unread: &'b [u8]) -> Option<&'b [u8]> {
        let window = &unread[..unread.len().min(SEEN_HEAD_MAX_BYTES)];
        self.head_end.find(window).map(|end| &window[..end + 4])
    }

    #[inline]
    fn hash(&self, head: &[u8]) -> u64 {
        // 0 stands for an empty place.
        xxh3_64_with_secret(head, &self.hash_key) | 1 << 63
    }

    /// The place with this hash.
    #[inline]
    fn place_of(&self, hash: u64) -> Option<usize> {
        let set = hash as usize % SETS;
        self.sets[set].hashes.iter().position(|of| *of == hash).map(|way| set * WAYS + way)
    }

    fn newcomer(&mut self, hash: u64) -> &mut Newcomer {
        &mut self.newcomers[(hash >> 32) as usize % NEWCOMERS]
    }

    /// Counts one more sighting of a head without a place; returns how many there were lately. Of two heads with the same number
    /// the one stays that comes more often; between two that come equally often the coin decides, lest each forgets the other.
    fn sight(&mut self, hash: u64, now: i64) -> u32 {
        self.coins = self.coins.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let coin = self.coins >> 63 == 1;
        let newcomer = self.newcomer(hash);
        newcomer.sightings = halved(newcomer.sightings, &mut newcomer.halved_at, now);
        if newcomer.hash == hash {
            newcomer.sightings = newcomer.sightings.saturating_add(1);
            return newcomer.sightings;
        }
        if newcomer.sightings > 1 {
            newcomer.sightings -= 1;
        } else if newcomer.sightings == 0 || coin {
            (newcomer.hash, newcomer.sightings) = (hash, 1);
        }
        1
    }

    /// An empty place of the set, or that of the head that came least often lately.
    fn place_to_give_up(&mut self, hash: u64, now: i64) -> usize {
        let set = hash as usize % SETS;
        let places = &mut self.places[set * WAYS..][..WAYS];
        let halved_at = self.sets[set].halved_at;
        for seen in places.iter_mut().flatten() {
            seen.uses = halved(seen.uses, &mut { halved_at }, now);
        }
        self.sets[set].halved_at = now;
        let uses = |place: &Option<Seen>| place.as_ref().map_or(0, |seen| u64::from(seen.uses) + 1);
        let ways = places.iter().map(uses).enumerate();
        set * WAYS + ways.min_by_key(|(_, uses)| *uses).map_or(0, |(way, _)| way)
    }
}

/// What is left of a count, and notes that it has been looked at.
fn halved(count: u32, halved_at: &mut i64, now: i64) -> u32 {
    let passed = now - std::mem::replace(halved_at, now);
    // A clock that was set back takes nothing away.
    count.checked_shr(passed.clamp(0, i64::from(u32::BITS)) as u32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Coding;
    use crate::http::cors::Grant;

    fn page(limit: usize) -> FirstPage {
        FirstPage { limit: Some(limit), coding: Coding::Identity, known: None, grant: Grant::NONE }
    }

    fn head(client: usize) -> Vec<u8> {
        format!("GET /todos?limit=10 HTTP/1.1\r\nHost: h\r\nCookie: {client}\r\n\r\n").into_bytes()
    }

    impl SeenHeads {
        fn of_chance() -> SeenHeads {
            let mut hash_key = [0; HASH_KEY_BYTES];
            getrandom::fill(&mut hash_key).expect("the system has random numbers");
            SeenHeads::new(hash_key)
        }

        /// A request with this head; returns whether it had a place.
        fn ask(&mut self, head: &[u8], page: FirstPage, unix_seconds: i64) -> bool {
            let found = self.find(head);
            match found {
                Some(found) => assert_eq!(found, (page, head.len())),
                None => self.note(head, page, unix_seconds),
            }
            found.is_some()
        }

        fn len(&self) -> usize {
            self.places.iter().flatten().count()
        }
    }

    #[test]
    fn a_head_is_known_when_it_comes_for_the_third_time() {
        let mut seen = SeenHeads::of_chance();
        for _ in 0..SIGHTINGS_MIN {
            assert!(!seen.ask(&head(1), page(1), 1));
        }
        assert!(seen.ask(&head(1), page(1), 1));
    }

    #[test]
    fn a_head_is_known_as_a_whole() {
        let mut seen = SeenHeads::of_chance();
        let known = head(7);
        // The second is the one that came last.
        for client in [7, 7, 7, 8, 8, 8] {
            seen.ask(&head(client), page(client), 1);
        }
        let two = [&known[..], b"GET"].concat();
        assert_eq!(seen.find(&two), Some((page(7), known.len())), "what stands behind it is not looked at");
        for length in 0..known.len() {
            assert_eq!(seen.find(&known[..length]), None, "the first {length} bytes");
        }
        for at in 0..known.len() {
            let mut other = known.clone();
            other[at] ^= 1;
            assert_eq!(seen.find(&other), None, "another byte at {at}");
        }
        for other in [&b"\r\n"[..], b" ", b"G"] {
            assert_eq!(seen.find(&[other, &known].concat()), None);
        }
        assert_eq!(seen.find(b""), None);
    }

    #[test]
    fn the_table_has_its_size_whatever_comes() {
        let mut seen = SeenHeads::of_chance();
        for client in 0..10 * SEEN_HEADS_MAX {
            for _ in 0..4 {
                seen.ask(&head(client), page(client), client as i64 / 100);
            }
        }
        assert!(seen.len() <= SEEN_HEADS_MAX && seen.len() > SEEN_HEADS_MAX / 2, "{}", seen.len());
        let long = [&b"GET /todos HTTP/1.1\r\nHost: "[..], &[b'h'; SEEN_HEAD_MAX_BYTES], b"\r\n\r\n"].concat();
        (0..10).for_each(|_| assert!(!seen.ask(&long, page(1), 1), "too long for a place"));
        let longest: usize = seen.places.iter().flatten().map(|seen| seen.head.len()).max().unwrap_or(0);
        assert!(longest <= SEEN_HEAD_MAX_BYTES);
    }

    #[test]
    fn a_flood_of_unlike_heads_puts_nobody_out() {
        let mut seen = SeenHeads::of_chance();
        let clients = || 0..SEEN_HEADS_MAX / 8;
        let mut second = 0;
        for round in 0..20 {
            for client in clients() {
                seen.ask(&head(client), page(client), second);
            }
            second += round % 2;
        }
        assert!(clients().all(|client| seen.ask(&head(client), page(client), second)));
        let places = seen.len();
        let mut strangers = 1_000_000..;
        for round in 0..50 {
            // A hundred strangers to each of the clients, as fast as they can.
            for client in clients() {
                for stranger in strangers.by_ref().take(100) {
                    assert!(!seen.ask(&head(stranger), page(stranger), second));
                }
                assert!(seen.ask(&head(client), page(client), second), "round {round}: client {client} was put out");
            }
            second += round % 2;
        }
        assert_eq!(seen.len(), places, "no stranger has got a place");
    }

    #[test]
    fn who_comes_often_gets_the_place_of_who_has_gone() {
        let mut seen = SeenHeads::of_chance();
        for client in 0..4 * SEEN_HEADS_MAX {
            for _ in 0..50 {
                seen.ask(&head(client), page(client), 1);
            }
        }
        let new: Vec<Vec<u8>> = (0..100).map(|client| head(1_000_000 + client)).collect();
        for second in 100..104 {
            for (limit, head) in new.iter().enumerate() {
                for _ in 0..3 {
                    seen.ask(head, page(limit), second);
                }
            }
        }
        for (limit, head) in new.iter().enumerate() {
            assert!(seen.ask(head, page(limit), 104), "{limit}");
        }
    }

    #[test]
    fn the_sets_of_two_tables_differ() {
        let (one, other) = (SeenHeads::of_chance(), SeenHeads::of_chance());
        let sets =
            |seen: &SeenHeads| (0..32).map(|client| seen.hash(&head(client)) as usize % SETS).collect::<Vec<_>>();
        assert_ne!(sets(&one), sets(&other), "a client could know who shares a set");
    }
}
