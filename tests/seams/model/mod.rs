//! Histories: worker, refresher, snapshot and the in-process feed as they are, between a log, a store and a Redis that
//! fail in every way that the real ones do. Each history comes from a seed, runs in one thread in a time of its own, and
//! is compared with a plain model that applies one command after the other:
//!
//! - after each commit, the store holds what the model holds at its offsets: nothing lost, doubled or out of order;
//! - offsets pass a record that can never be applied only once it is a dead letter, and no other becomes one;
//! - the log hears of no more than the store holds;
//! - a list shows each todo as it once was in the store, and never goes back;
//! - a list has taken in all commands that its shards are told it has;
//! - a list that is said to be current is the store's, once the feed has been told of all commits;
//! - who applies the events that come with each list has that list, or is told to read it again;
//! - when nothing fails any more, everything is applied and all lists are the store's, byte by byte.
//!
//! `MODEL_HISTORIES` says how many to play, `MODEL_SEED` plays one of them and tells what happened in it.

mod follower;
mod history;
mod log;
mod redis;
mod stage;
mod table;

use std::collections::BTreeMap;

use million_rps::todo::TodoId;

const HISTORIES: u64 = 2_000;

/// What the histories are for; each has to happen somewhere in some hundred of them.
const PURPOSES: [&str; 12] = [
    "answer lost",
    "cold load",
    "dead letter",
    "fenced",
    "gap found by publishing",
    "gap found by resuming",
    "lost",
    "published",
    "published twice",
    "published late",
    "published after death",
    "warm load",
];

#[test]
fn whatever_happens_each_command_is_applied_once_and_every_list_ends_as_the_stores() {
    if let Some(seed) = number("MODEL_SEED") {
        println!("{:?}", history::play(seed, true));
        return;
    }
    let histories = number("MODEL_HISTORIES").unwrap_or(HISTORIES);
    let first = (TodoId::new().as_u128() >> 64) as u64 & 0xffff_ffff_ffff;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in (first..).take(histories as usize) {
        let _told = Failed(seed);
        for (what, count) in history::play(seed, false) {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{histories} histories from seed {first}: {counts:?}");
    if histories >= HISTORIES {
        for purpose in PURPOSES {
            assert!(counts.contains_key(purpose), "{purpose:?} never happened");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Says how to see a failure again.
struct Failed(u64);

impl Drop for Failed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this history again: MODEL_SEED={} cargo test --test seams model -- --nocapture", self.0);
        }
    }
}
