//! What these tests share: todos and patience.

use std::time::{Duration, Instant};

use million_rps::todo::{Timestamp, Todo, TodoId};

pub use crate::servers::{required, unique};

/// A todo with these contents.
pub fn todo(created_at_micros: i64, title: &str) -> Todo {
    Todo {
        id: TodoId::new(),
        title: title.to_owned(),
        description: "with \"quotes\", a \\ and ünïcödé 😀".to_owned(),
        completed: false,
        user_id: "anna".to_owned(),
        created_at: Timestamp::from_micros(created_at_micros),
        updated_at: Timestamp::from_micros(created_at_micros + 1),
    }
}

/// Calls `attempt` until it returns something; gives up loudly after a minute, which no healthy run comes near.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "still not after a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
