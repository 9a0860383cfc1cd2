//! Live writes to ours while reads are measured.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::server::Server;
use crate::writes::{Mix, WriteLoad, list_ids};

/// Live writes change so many todos.
const CHANGED_TODOS: usize = 100;

/// Calls `read` while so many writes per second change todos, the newest ones when `first` is 0, else those behind as many.
///
/// # Errors
/// Those of `read`, and a write that is refused.
pub fn while_writing<R>(
    server: &Server,
    token: &str,
    rate: f64,
    first: usize,
    read: impl FnOnce() -> io::Result<R>,
) -> io::Result<R> {
    let todo_ids = list_ids(server.address())?;
    let first = first.min(todo_ids.len().saturating_sub(1));
    let writes = WriteLoad {
        address: server.address(),
        token,
        todo_ids: &todo_ids[first..todo_ids.len().min(first + CHANGED_TODOS)],
        // Keeps the length of the responses: the others return a constant.
        mix: Mix::Completions,
        connections: 1,
        rate: Some(rate),
        writes: usize::MAX,
        variety: 0,
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| writes.run(&stop));
        let read = read();
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| io::Error::other("the writer panicked"))??;
        read
    })
}
