//! How much each page is asked for in each coding, as far as the shards tell.

use std::time::{Duration, Instant};

use crate::limits::ENCODER_DEMAND_MAX;
use crate::wires::pages::PageKey;

/// How long demand takes to count half: a page that was liked and is not any more makes room within some of these.
const HALF_LIFE: Duration = Duration::from_secs(2);

struct Entry {
    page: PageKey,
    answers: u64,
}

/// Answers of the recent past for the pages that are asked for most. Its memory is bounded: when a page comes that is not
/// known and all entries are taken, each gives a little, so that many pages that are asked for once push out no page that is
/// asked for often, whatever their number.
pub struct Demand {
    entries: Vec<Entry>,
    halved_at: Instant,
}

impl Demand {
    /// No demand yet.
    pub fn new(now: Instant) -> Demand {
        Demand { entries: Vec::new(), halved_at: now }
    }

    /// Counts `answers` that this page was asked for.
    pub fn add(&mut self, page: PageKey, answers: u64) {
        if let Some(known) = self.entries.iter_mut().find(|entry| entry.page == page) {
            known.answers = known.answers.saturating_add(answers);
        } else if self.entries.len() < ENCODER_DEMAND_MAX {
            self.entries.push(Entry { page, answers });
        } else {
            for entry in &mut self.entries {
                entry.answers = entry.answers.saturating_sub(answers);
            }
            self.entries.retain(|entry| entry.answers > 0);
        }
    }

    /// How much a page is asked for.
    pub fn of(&self, page: PageKey) -> u64 {
        self.entries.iter().find(|entry| entry.page == page).map_or(0, |entry| entry.answers)
    }

    /// Lets the past count less.
    pub fn age(&mut self, now: Instant) {
        while now.saturating_duration_since(self.halved_at) >= HALF_LIFE {
            self.halved_at += HALF_LIFE;
            self.entries.iter_mut().for_each(|entry| entry.answers /= 2);
            self.entries.retain(|entry| entry.answers > 0);
            if self.entries.is_empty() {
                self.halved_at = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Coding;

    fn page(limit: usize) -> PageKey {
        (Some(limit), Coding::Gzip)
    }

    #[test]
    fn what_is_asked_for_often_survives_what_is_asked_for_once() {
        let mut demand = Demand::new(Instant::now());
        for limit in 0..100_000 {
            demand.add(page(limit), 1);
            if limit % 10 == 0 {
                demand.add((None, Coding::Brotli), 1);
            }
            assert!(demand.entries.len() <= ENCODER_DEMAND_MAX);
        }
        assert!(demand.of((None, Coding::Brotli)) > 100, "{}", demand.of((None, Coding::Brotli)));
        assert!((99_000..100_000).all(|limit| demand.of(page(limit)) <= 1));
    }

    #[test]
    fn demand_fades() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(page(1), 9);
        demand.add(page(2), 1);
        demand.age(now + HALF_LIFE);
        assert_eq!((demand.of(page(1)), demand.of(page(2))), (4, 0));
        demand.age(now + HALF_LIFE * 20);
        assert!(demand.entries.is_empty());
    }
}
