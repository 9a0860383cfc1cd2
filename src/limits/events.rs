//! Bounds of the change feed.

/// After what time a client of the change feed connects again by itself, in milliseconds, unless it is told otherwise. What
/// browsers take where nothing is said is 2 to 5 s.
pub const EVENTS_RECONNECT_MS: u64 = 2_000;
/// Shortest time after which followers of a process that leaves connect again, in milliseconds: what a proxy needs to take it out.
pub const EVENTS_FAREWELL_MIN_MS: u64 = 200;
/// Over so many milliseconds they are spread: of 10,000 of them 20 connect in the same 10 ms.
pub const EVENTS_FAREWELL_SPREAD_MS: u64 = 5_000;
/// Longest wait for a position that this process has not come to, in milliseconds. Processes that follow the feed are some
/// milliseconds apart; one that reads the store alone looks at it twice a second.
pub const EVENTS_AHEAD_WAIT_MS: u64 = 3_000;
/// Bytes of one write to a follower after which no further batch is added.
pub const EVENTS_WRITE_BYTES: u64 = 256 * 1024;
/// Largest batch that a shard copies once so that its followers can be sent it without buffers of their own, in bytes; larger
/// ones are sent from the memory that all shards share.
pub const EVENTS_COPIED_MAX_BYTES: usize = 64 * 1024;
/// Seconds over which `Retry-After` is spread where there are as many followers as may be.
pub const EVENTS_RETRY_SPREAD_S: u64 = 10;
/// Least value of `EVENTS_HISTORY_MAX_BYTES` and `EVENTS_UNSENT_MAX_BYTES`, in bytes: some hundred changes.
pub const EVENTS_BYTES_MIN: u64 = 64 * 1024;
/// Pages and todos that are looked at with each snapshot, because reads wait for them; where there are more, all are looked at with
/// each tick. A look takes some tenths of a microsecond, so that a change costs a shard a tenth of a millisecond for it at most, and
/// reads that wait for as many unlike todos as there are places cost some percent of a CPU, however many changes come.
pub const WATCHED_AT_ONCE_MAX: usize = 256;
