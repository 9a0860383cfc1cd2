//! The places for connections of a process: `MAX_CONNECTIONS` of them, wherever the kernel puts the connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many places there are, and how many are taken. All shards write to it, but only when a connection comes or goes, and
/// each of those is several system calls.
// A cache line of its own, or two, since CPUs fetch them in pairs.
#[repr(align(128))]
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    /// This number of free places.
    pub fn new(max: usize) -> Arc<Places> {
        Arc::new(Places { taken: AtomicUsize::new(0), max })
    }

    /// A place, if one is free. Exact: as long as one is free, somebody gets it.
    pub fn take(self: &Arc<Places>) -> Option<Place> {
        // The number alone counts; nothing is read or written under its protection.
        let next = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(Place { places: Arc::clone(self) })
    }
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_were_made() {
        let places = Places::new(3);
        let mut taken: Vec<Place> = (0..3).map(|_| places.take().expect("a free place")).collect();
        assert!(places.take().is_none());
        taken.pop();
        assert!(places.take().is_some() && places.take().is_some(), "dropped at once");
        taken.push(places.take().expect("the one that was given back"));
        assert!(places.take().is_none());
    }

    #[test]
    fn a_refusal_takes_no_place_from_anybody() {
        const PLACES: usize = 8;
        let places = Places::new(PLACES);
        // As many threads as places and each with one at a time, beside others that are refused: nobody misses their own.
        let held: Vec<Place> = (0..PLACES).map(|_| places.take().expect("a free place")).collect();
        std::thread::scope(|scope| {
            for place in held {
                let places = &places;
                scope.spawn(move || {
                    let mut place = Some(place);
                    for _ in 0..10_000 {
                        drop(place.take());
                        place = places.take();
                        assert!(place.is_some(), "there is one for each thread");
                    }
                });
            }
        });
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }
}
