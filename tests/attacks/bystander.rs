//! Somebody else's connection, which has to be served all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::request::get;
use crate::harness::server::Server;

/// How long a bystander may wait for one answer. It takes well below a millisecond; the rest is for a machine that is busy
/// with the attackers.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Pause between two requests of the bystander.
const PAUSE: Duration = Duration::from_millis(10);

/// A thread that asks again and again over one connection.
pub struct Bystander {
    has_seen_enough: Arc<AtomicBool>,
    asking: JoinHandle<(usize, Duration)>,
}

impl Bystander {
    /// Begins to ask.
    pub fn of(server: &Server) -> Bystander {
        let has_seen_enough = Arc::new(AtomicBool::new(false));
        let mut client = server.connect();
        client.call(&get("/todos?limit=5")).expect(200);
        let seen = Arc::clone(&has_seen_enough);
        let asking = std::thread::spawn(move || {
            let (mut answers, mut longest) = (0, Duration::ZERO);
            while !seen.load(Ordering::Relaxed) {
                let asked_at = Instant::now();
                client.call(&get("/todos?limit=5")).expect(200);
                longest = longest.max(asked_at.elapsed());
                answers += 1;
                std::thread::sleep(PAUSE);
            }
            (answers, longest)
        });
        Bystander { has_seen_enough, asking }
    }

    /// Ends, and checks that each answer came in time.
    pub fn assert_served(self) {
        self.has_seen_enough.store(true, Ordering::Relaxed);
        let (answers, longest) = self.asking.join().expect("each request is answered");
        assert!(answers > 0);
        assert!(longest < ANSWER_MAX, "one of {answers} answers took {longest:?}");
    }
}
