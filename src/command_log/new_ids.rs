//! Ids for new todos that the log takes in few, large requests.
//!
//! A log with partitions places a command by its id. With ids left to chance, what is written in one moment is spread over
//! all partitions, and each of them takes a request of its own for a few commands. So ids made in the same moment are chosen
//! to meet in one partition, and the next moment is the next partition's: over time all get as much. An id alone still says
//! where its commands stand, so their order, and everybody else who writes or reads the log, does not know of this.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::todo::{TODO_ID_TEXT_BYTES, Timestamp, TodoId};

/// How long one partition gets all new todos, in milliseconds: about as long as the log's client waits for company.
const SLOT_MS: u64 = 1;
/// Most partitions that ids are looked for: it takes as many tries, of a few nanoseconds each. With more, ids are left to
/// chance.
const PARTITIONS_MAX: u32 = 64;
/// The bits of an id that are tried: the last of what UUIDv7 leaves to chance. Of 64 partitions, all tries miss their own with a
/// probability of 2 %, and the id then stands in another.
const TRIED_BITS: u32 = u8::BITS;

/// Makes ids; the log says how many partitions it has.
#[derive(Debug, Default)]
pub struct NewIds {
    /// 0 while unknown, and for a log without partitions.
    partitions: AtomicU32,
}

impl NewIds {
    /// The log spreads ids over so many partitions, by murmur2 of their text.
    pub fn set_partitions(&self, partitions: usize) {
        self.partitions.store(u32::try_from(partitions).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The partitions, 0 while unknown.
    pub fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// A new id of a todo that is made at this moment.
    pub fn next(&self, moment: Timestamp) -> TodoId {
        let id = TodoId::made_at(moment);
        match self.partitions() {
            partitions @ 2..=PARTITIONS_MAX => in_slot(id, partitions),
            _ => id,
        }
    }
}

/// This id with other last bits, so that it falls to the partition whose turn it is.
fn in_slot(id: TodoId, partitions: u32) -> TodoId {
    let made_at_ms = (id.as_u128() >> 80) as u64;
    let wanted = (made_at_ms / SLOT_MS % u64::from(partitions)) as u32;
    let mut text = [0; TODO_ID_TEXT_BYTES];
    id.write_text(&mut text);
    let (words, _) = text.as_chunks();
    let [head @ .., last] = words else { return id };
    let head = head.iter().fold(SEED ^ TODO_ID_TEXT_BYTES as u32, |hash, word| mix(hash, scale(*word)));
    // The last word is the two digits before the tried bits, and those of the tried bits; their product is a sum.
    let before = scale([last[0], last[1], 0, 0]);
    let first = id.as_u128() as u8;
    let found = (0..=u8::MAX).map(|step| first.wrapping_add(step)).find(|tried| {
        let word = before.wrapping_add(SCALED_ENDS[usize::from(*tried)]);
        partition(finish(mix(head, word)), partitions) == wanted
    });
    let bits = found.unwrap_or(first);
    TodoId::from_u128(id.as_u128() >> TRIED_BITS << TRIED_BITS | u128::from(bits))
}

/// The partition of a record with this key among so many, as Kafka's clients have it.
#[cfg(feature = "services")]
pub(super) fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    let (words, rest) = key.as_chunks();
    let mut hash = words.iter().fold(SEED ^ key.len() as u32, |hash, word| mix(hash, scale(*word)));
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << u8::BITS | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(FACTOR);
    }
    partition(finish(hash), partitions)
}

/// Where a hash falls, as Kafka's clients have it.
fn partition(hash: u32, partitions: u32) -> u32 {
    (hash & 0x7fff_ffff) % partitions
}

const SEED: u32 = 0x9747_b28c;
const FACTOR: u32 = 0x5bd1_e995;

/// By each value of the tried bits: its two digits, as the end of a word.
const SCALED_ENDS: [u32; 1 << TRIED_BITS] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut ends = [0; 1 << TRIED_BITS];
    let mut tried = 0;
    while tried < ends.len() {
        ends[tried] = scale([0, 0, HEX[tried >> 4], HEX[tried & 15]]);
        tried += 1;
    }
    ends
};

/// The first step of murmur2 with four bytes.
const fn scale(word: [u8; 4]) -> u32 {
    u32::from_le_bytes(word).wrapping_mul(FACTOR)
}

/// The other steps of murmur2 with four bytes that have been scaled. The text of an id is nine times four.
#[inline]
fn mix(hash: u32, scaled: u32) -> u32 {
    hash.wrapping_mul(FACTOR) ^ (scaled ^ scaled >> 24).wrapping_mul(FACTOR)
}

/// The end of murmur2.
fn finish(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 13).wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

const _: () = assert!(TODO_ID_TEXT_BYTES.is_multiple_of(4));

#[cfg(test)]
mod tests {
    use super::*;

    fn murmur2(text: &str) -> i32 {
        let (words, rest) = text.as_bytes().as_chunks();
        assert!(rest.is_empty(), "only whole words");
        finish(words.iter().fold(SEED ^ text.len() as u32, |hash, word| mix(hash, scale(*word)))) as i32
    }

    #[test]
    fn the_hash_is_the_one_of_kafkas_clients() {
        // From the Java client's own tests.
        assert_eq!(murmur2("a-little-bit-long-string"), -985_981_536);
        assert_eq!(murmur2("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58_897_971);
    }

    #[cfg(feature = "services")]
    #[test]
    fn keys_of_every_length_fall_where_the_java_client_has_them() {
        // From the Java client's own tests; with 2 to the power of 31 partitions, the partition is the hash without its sign.
        for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("abc", 479_470_107)] {
            assert_eq!(partition_of_key(key.as_bytes(), 1 << 31), hash as u32 & 0x7fff_ffff, "{key}");
        }
        let key = "a-little-bit-long-string";
        assert_eq!(partition_of_key(key.as_bytes(), 1 << 31), murmur2(key) as u32 & 0x7fff_ffff);
    }

    #[test]
    fn ids_of_one_moment_fall_to_one_partition_and_those_of_all_moments_to_all() {
        for partitions in [2, 3, 16, PARTITIONS_MAX] {
            let mut taken = vec![0; partitions as usize];
            for ms in 0..500_u128 {
                // Divisible by each of the numbers of partitions: its own partition is 0.
                let made_at_ms = 1_700_000_000_064 / 192 * 192 + ms;
                let id = in_slot(TodoId::from_u128(made_at_ms << 80 | 7 << 76 | (ms * 0x1357_9bdf)), partitions);
                let fell_to = partition(murmur2(&id.to_string()) as u32, partitions);
                taken[fell_to as usize] += u32::from(u128::from(fell_to) == ms % u128::from(partitions));
            }
            let met: u32 = taken.iter().sum();
            assert!(met > 450, "{met} of 500 are where they belong, of {partitions} partitions");
            assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
        }
    }

    #[test]
    fn ids_stay_new_and_in_order() {
        let ids = NewIds::default();
        for partitions in [0, 1, 16, 10_000] {
            ids.set_partitions(partitions);
            let made: Vec<TodoId> = (0..20_000).map(|_| ids.next(Timestamp::now())).collect();
            assert!(made.is_sorted(), "UUIDv7 counts in bits above those that are tried");
            let different: std::collections::HashSet<_> = made.iter().collect();
            assert_eq!(different.len(), made.len());
            let id = uuid::Uuid::from_u128(made[0].as_u128());
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        }
    }

    #[cfg(feature = "services")]
    #[test]
    fn kafkas_client_puts_todos_of_one_moment_into_one_partition() {
        use std::sync::{Arc, Mutex};
        use std::time::Duration;

        use crate::command_log::kafka::{KafkaAppender, KafkaHost, KafkaOptions};
        use crate::command_log::{Acknowledgement, AcknowledgementSink, CommandAppender as _, Submission, Ticket};

        #[derive(Default)]
        struct Collected(Mutex<Vec<Acknowledgement>>);
        impl AcknowledgementSink for Collected {
            fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
                self.0.lock().expect("unpoisoned").append(acknowledgements);
            }
        }

        const PARTITIONS: u32 = 4;
        let brokers = rdkafka::mocking::MockCluster::new(1).expect("brokers within this process");
        brokers.create_topic("todo-commands", PARTITIONS as i32, 1).expect("created");
        let sink = Arc::new(Collected::default());
        let options = KafkaOptions::new(&brokers.bootstrap_servers(), "todo-commands");
        let host = KafkaHost::of_known_topic(PARTITIONS);
        let mut appender = KafkaAppender::within(host, options, sink.clone()).expect("usable options");
        let new_ids = appender.new_ids();
        while new_ids.partitions() != PARTITIONS {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut ids = Vec::new();
        for _ in 0..100 {
            std::thread::sleep(Duration::from_micros(200));
            ids.push(new_ids.next(Timestamp::now()));
        }
        let submissions = ids.iter().zip(0..).map(|(id, ticket)| Submission {
            ticket: Ticket(ticket),
            id: *id,
            payload: b"{}".to_vec(),
        });
        appender.append(&mut submissions.collect());
        appender.close(Duration::from_secs(10));
        let acknowledged = sink.0.lock().expect("unpoisoned");
        assert_eq!(acknowledged.len(), ids.len());
        for taken in &*acknowledged {
            let made_at_ms = ids[taken.ticket.0 as usize].as_u128() >> 80;
            let position = taken.position.expect("acknowledged");
            assert_eq!(position.partition as u128, made_at_ms % u128::from(PARTITIONS));
        }
    }
}
