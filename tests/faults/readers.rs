//! A client that reads the list without a pause, and holds the API to its promise: stale, not dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::deployment::Api;
use crate::harness::request::get;

/// A running client; stops when it is dropped.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Reading>>,
}

/// What it saw.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Answers, all of them 200 with the whole list.
    pub answers: u32,
    /// How long it read.
    pub time: Duration,
    /// The longest wait for one of them.
    pub slowest: Duration,
}

impl Reading {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.answers) / self.time.as_secs_f64()
    }
}

impl Reader {
    /// Starts to read.
    pub fn start(api: &Api) -> Reader {
        let mut client = api.connect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut reading = Reading { answers: 0, time: Duration::ZERO, slowest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) {
                let asked_at = Instant::now();
                client.call(&get("/todos")).expect(200);
                reading.slowest = reading.slowest.max(asked_at.elapsed());
                reading.answers += 1;
            }
            reading.time = start.elapsed();
            reading
        });
        Reader { stop, thread: Some(thread) }
    }

    /// Reads for a while.
    pub fn read_for(api: &Api, time: Duration) -> Reading {
        let reader = Reader::start(api);
        std::thread::sleep(time);
        reader.finish()
    }

    /// Stops, and returns what it saw.
    pub fn finish(mut self) -> Reading {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs until here");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
