//! Every bound of the system that is not a setting: its unit, why it has that value, and the checks that keep the set
//! consistent at compile time. What an operator may want to change is a setting in [`crate::config`]; its default and
//! its allowed range stand here too.

mod events;
mod services;

pub use events::*;
pub use services::*;

/// Longest title that a request may bring, in characters (Unicode scalar values), where `TITLE_MAX_CHARS` is not set.
pub const TITLE_MAX_CHARS: usize = 500;
/// Longest description that a request may bring, in characters, where `DESCRIPTION_MAX_CHARS` is not set.
pub const DESCRIPTION_MAX_CHARS: usize = 10_000;
/// Longest `sub` of a token, in bytes. It is stored with every todo and shown with it. OpenID Connect allows 255, but other
/// issuers write more, and the original takes what they write; a token of [`TOKEN_MAX_BYTES`] holds so much and other claims.
pub const USER_ID_MAX_BYTES: usize = 4 * 1024;
/// Longest `Idempotency-Key`, in bytes. A UUID has 36.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;
/// Deepest nesting of a request body. A todo needs 1; the rest is room for unknown members.
pub const JSON_MAX_DEPTH: usize = 32;

/// Largest command on the log that is applied, in bytes, whoever wrote it: what a topic of Kafka takes out of the box
/// (`max.message.bytes`), so it is the largest that the original's API can have been given. A larger one is a dead letter.
///
/// What it costs: three commands can give a todo three texts of this size, so its JSON has 3 MiB at most
/// ([`TODO_JSON_MAX_BYTES`]). The list holds it once, a batch of a worker a few times (row, JSON, message to Redis).
pub const COMMAND_MAX_BYTES: usize = 1024 * 1024;
/// Largest JSON of a todo, in bytes: title, description and user, each from another command, and what stands around them.
pub const TODO_JSON_MAX_BYTES: usize = 3 * COMMAND_MAX_BYTES + 1024;
/// What a command has around the texts of its request's body, in bytes, at most: the user, whom a token brought as JSON, ids,
/// dates and names; and the head of a batch of Kafka with this one command.
pub const COMMAND_OVERHEAD_BYTES: usize = TOKEN_MAX_BYTES + 1024;
/// Largest request body, in bytes, where `BODY_MAX_BYTES` is not set. A description of 10,000 four-byte characters is 40,000
/// bytes, and JSON escapes may make it longer: 64 KiB holds every todo that a client writes without escaping for its own sake.
pub const BODY_MAX_BYTES: usize = 64 * 1024;
/// Largest value of `BODY_MAX_BYTES`, and of the lengths of texts: a command is never longer than the body that it comes from
/// and [`COMMAND_OVERHEAD_BYTES`], so it can be applied.
///
/// What a larger body costs: an upload holds itself, and up to as much again while its buffer grows, of
/// `CONNECTION_MEMORY_MAX_BYTES`; the command waits in `WRITE_QUEUE_BYTES`; a shard copies it once, and its parser takes about
/// eight times as much for that moment. What is larger than [`BODY_BUFFER_KEPT_BYTES`] is freed afterwards.
pub const BODY_LIMIT_MAX_BYTES: usize = COMMAND_MAX_BYTES - 16 * 1024;
/// Todos of an array, where `ARRAY_MAX_TODOS` is not set: about a millisecond of a shard.
pub const ARRAY_MAX_TODOS: usize = 1_000;
/// Largest value of `ARRAY_MAX_TODOS`, in todos: their commands are made and queued in one go, for 10 ms.
pub const ARRAY_LIMIT_MAX_TODOS: usize = 10_000;
/// Largest value of `ARRAY_BODY_MAX_BYTES`. A shard parses it in one go, about 10 ms, and takes ten times as much for that moment.
pub const ARRAY_BODY_LIMIT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Body whose buffers a shard keeps for the next one, in bytes: all that the usual `BODY_MAX_BYTES` allows.
pub const BODY_BUFFER_KEPT_BYTES: usize = BODY_MAX_BYTES;
/// Largest request head (request line and header fields, with the empty line), in bytes.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Longest request target, in bytes; a longer one is 414.
pub const TARGET_MAX_BYTES: usize = 4 * 1024;
/// Most header fields of one request; more is 431. Envoy and hyper take 100 from a client, and a proxy adds its own to them.
pub const HEADERS_MAX: usize = 128;
/// Longest method name, in bytes, that is read to its end. The longest registered one (`UPDATEREDIRECTREF`) has 17.
pub const METHOD_MAX_BYTES: usize = 32;
/// Empty lines before a request line that are skipped: RFC 9112 section 2.2 asks for at least one, because old clients
/// send one behind a body.
pub const LEADING_EMPTY_LINES_MAX: usize = 4;
/// Longest line of chunk metadata (size and extensions) or trailer field, in bytes.
pub const CHUNK_LINE_MAX_BYTES: usize = 1024;
/// Most bytes of chunk extensions in one body: they are ignored, but they have to be read (RFC 9112 section 7.1.1).
pub const CHUNK_EXTENSIONS_MAX_BYTES: usize = 16 * 1024;
/// Most trailer bytes after a chunked body.
pub const TRAILERS_MAX_BYTES: usize = 4 * 1024;

/// Origins that CORS_ORIGINS may name: the lines of each are kept ready, and compared one after the other.
pub const CORS_ORIGINS_MAX: usize = 64;
/// Largest `limit` of a page. The whole list has no limit: it is streamed.
pub const PAGE_LIMIT_MAX: usize = 10_000;

/// How long a token is good that the page is given for the person at this machine, in seconds: a working day, since the page
/// keeps it for its session only and asks for another with one press of a button.
pub const PAGE_TOKEN_LIFETIME_S: u64 = 12 * 3600;

/// Longest that a write waits until it shows, and a read until there is something else, for a client that prefers so, in seconds;
/// who asks for more gets this. Less than what clients and proxies usually wait for an answer (60 s).
pub const PREFER_WAIT_MAX_S: u64 = 30;
/// Durable writes of one shard that may wait until they show; one more is answered without waiting. Each takes about 150
/// bytes: 10 MB.
pub const WAITING_WRITES_MAX: usize = 64 * 1024;

/// Sets of the table of users' write rates, each with a lock of its own: two shards rarely meet in one.
pub const USER_RATE_SETS: usize = 4096;
/// Users of one such set. A user needs a place only while writing faster than the rate allows for ever, so 65,536 places
/// hold far more users than write at the same moment; they take 1 MiB.
pub const USER_RATE_WAYS: usize = 16;

/// What old versions of the list that are still being read may always take, in bytes, where `OLD_LISTS_MAX_BYTES` is not set: a
/// short list may be rewritten many times while a slow client reads it.
pub const OLD_LISTS_MIN_BYTES: u64 = 64 * 1024 * 1024;
/// What a todo takes beside its JSON in a list, in bytes, at most: its places in chunk and index, the branches over them, counts of
/// references.
pub const TODO_OVERHEAD_MAX_BYTES: u64 = 512;
/// Slowest client that `WRITE_TIMEOUT_MS` surely passes, in bytes a second, where segments are large. A client's system tells
/// that there is room when it is worth one or two of them: on loopback a segment is 64 KiB, and 4 seconds are added for that;
/// over Ethernet it is nothing.
pub const WRITE_STEP_BYTES_PER_SEC: u64 = 32 * 1024;
/// Requests of one connection that may wait for their answer at the same time; when they are as many, the connection
/// is not read until some have left.
pub const PIPELINE_DEPTH_MAX: usize = 256;
/// Requests of one connection that are answered when they have come, however much others want; repetitions of a request count
/// once. What stands behind them waits for a turn that has room for it.
pub const PIPELINE_FREE: usize = 8;
/// Requests of one connection that are then answered at a time.
pub const PIPELINE_TURN: usize = 64;
/// Such requests that a shard answers in one turn: 200 microseconds of errors, however many connections want them.
pub const PIPELINES_TURN_MAX: usize = 256;
/// Connections of a shard that are closed in one turn. The kernel takes some ten microseconds to close one, and thousands may end at
/// once.
pub const CLOSINGS_TURN_MAX: usize = 8;
/// Bytes read from a connection ahead of what has been parsed.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;
/// What the system keeps for a client of what it has been sent, in bytes, until the client has taken
/// [`SEND_BOUND_LIFTED_BYTES`]: the answers to a pipeline of 64 reads. The system's own choice, some megabytes on fast links, is
/// for clients that read: one that does not would have it filled.
pub const SEND_BUFFER_AT_FIRST_BYTES: usize = 256 * 1024;
/// What the system is asked to keep for a client that has taken [`SEND_BOUND_LIFTED_BYTES`], in bytes, before it chooses itself:
/// otherwise it would begin with the bound and grow step by step. `net.core.wmem_max` caps it.
pub const SEND_BUFFER_LIFTED_BYTES: usize = 2 * 1024 * 1024;
/// What a client has taken, in bytes, that gets more: more than its system takes for a program that does not read, which is 64 to
/// 128 KiB with Linux, where nothing is set.
pub const SEND_BOUND_LIFTED_BYTES: u64 = 192 * 1024;
/// Bytes of answers that may wait unsent on one connection before it is no longer read; shared pieces of the snapshot
/// count, although they are not copied.
pub const UNSENT_MAX_BYTES: usize = 256 * 1024;
/// The same for those that are written for the connection alone, which take memory: the answers to a full pipeline of writes.
pub const UNSENT_TEXT_MAX_BYTES: usize = 64 * 1024;
/// What a buffer for them keeps when it is empty, in bytes; a larger one is freed.
pub const TEXT_BUFFER_KEPT_BYTES: usize = 32 * 1024;

/// Bytes of buffers that a connection holds beside `CONNECTION_MEMORY_MAX_BYTES`, so that it need not ask: the largest head, or
/// a pipeline of 64 reads, with what the kernel is told of their pieces. All connections together: 160 MB with 10,000 of them.
pub const CONNECTION_FREE_BYTES: usize = 16 * 1024;
/// What `CONNECTION_MEMORY_MAX_BYTES` is for each of `MAX_CONNECTIONS`, if nothing is set, in bytes: one connection of six may
/// hold the largest request, or all that it may have unsent.
pub const CONNECTION_MEMORY_SHARE_BYTES: usize = 16 * 1024;
/// The least that it is then, in bytes: enough for 600 uploads at a time, however few connections there may be.
pub const CONNECTION_MEMORY_DEFAULT_MIN_BYTES: usize = 64 * 1024 * 1024;
/// The least that may be set, in bytes.
pub const CONNECTION_MEMORY_MIN_BYTES: u64 = 1024 * 1024;
/// What a shard takes of it at a time, in bytes: a shared counter is written once for it, and two of them may lie unused with
/// each shard.
pub const CONNECTION_MEMORY_LOT_BYTES: usize = 128 * 1024;
/// Requests of one connection that are answered at a time while that memory is short.
pub const SHORT_PIPELINE_DEPTH_MAX: usize = 32;
/// Bytes of their answers, the last of which may exceed it: within what each connection has without asking.
pub const SHORT_UNSENT_TEXT_MAX_BYTES: usize = 4 * 1024;
/// How long a connection has held more than it has without asking before it may be closed for others, in milliseconds: an honest
/// request is at its end by then.
pub const MEMORY_HELD_MIN_MS: u64 = 1_000;

/// Longest that a connection is read behind its last answer without a byte of its client, in milliseconds. A lost packet is
/// sent again after 1 to 3 s; nginx's `lingering_timeout` is as long.
pub const LINGER_SILENCE_MS: u64 = 5_000;
/// Longest that it is read at all, in milliseconds, however much comes: as nginx's `lingering_time`. A refused upload of 20 MB
/// has arrived by then over any link that carries 6 Mbit/s.
pub const LINGER_MAX_MS: u64 = 30_000;
/// How often what has come from such clients is dropped, in milliseconds.
pub const LINGER_TURN_MS: u64 = 10;
/// Longest pause between two looks at one that sends nothing, in milliseconds; it doubles from [`LINGER_TURN_MS`].
pub const LINGER_PAUSE_MAX_MS: u64 = 160;
/// Bytes that a shard drops each time, of all such clients together; the rest waits in the kernel, and then at the client. 100 MB
/// a second: most of what a network of 1 Gbit/s carries, and at most a twentieth of a CPU. Dropped bytes are not copied, and still
/// each costs half a nanosecond.
pub const LINGER_TURN_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of them after which others have the thread: some 60 microseconds, and as long again for the last look.
pub const LINGER_PART_MIN_BYTES: usize = 128 * 1024;
/// Bytes that are dropped of one such client at a time, if it has sent as many: what a socket takes at first for a program that does
/// not read. With less, hundreds of clients would be a system call for each few kilobytes.
pub const LINGER_LOOK_MIN_BYTES: usize = 64 * 1024;
/// Such clients of a process at a time, one to so many connections of `MAX_CONNECTIONS`, which leaves a fourth of the limit of
/// open files: with these it leaves a sixth.
pub const LINGERING_ONE_TO_CONNECTIONS: usize = 8;
/// Fewest and most of them, whatever `MAX_CONNECTIONS` is.
pub const LINGERING_MIN: usize = 16;
/// See [`LINGERING_MIN`]. With tens of kilobytes of the kernel's memory each where they send, 1,024 take tens of megabytes.
pub const LINGERING_MAX: usize = 1_024;

/// Smallest `JWT_SECRET`, in bytes: RFC 7518 section 3.2 asks for a key at least as long as the hash of HS256.
pub const JWT_SECRET_MIN_BYTES: usize = 32;
/// Longest token that is looked at, in bytes; it has to fit into the head.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// `Retry-After` while keys of an issuer are fetched, in seconds.
pub const KEYS_RETRY_S: u32 = 2;
/// Keys that tokens are checked with, at most. A token without a `kid` is tried with each that fits.
pub const KEYS_MAX: usize = 32;
/// Shortest RSA key, in bits (RFC 7518 section 3.3), and the longest, whose check takes 16 times as long.
pub const RSA_KEY_MIN_BITS: usize = 2048;
/// See [`RSA_KEY_MIN_BITS`].
pub const RSA_KEY_MAX_BITS: usize = 8192;
/// Largest file or answer with keys, in bytes: [`KEYS_MAX`] keys with their certificates take a fifth of it.
pub const KEYS_MAX_BYTES: usize = 1024 * 1024;
/// How often files with keys are looked at, in milliseconds; a change is taken when it has lasted so long.
pub const KEY_FILES_LOOK_MS: u64 = 500;
/// Longest fetch of keys, in milliseconds, from the look-up of the name to the last byte.
pub const KEY_FETCH_TIMEOUT_MS: u64 = 10_000;
/// Wait after the first fetch of keys that failed, in milliseconds; each further one waits twice as long.
pub const KEY_FETCH_RETRY_MIN_MS: u64 = 1_000;
/// Longest of these waits, in milliseconds: an issuer that is back is found within it, and a thousand processes do not harm it.
pub const KEY_FETCH_RETRY_MAX_MS: u64 = 60_000;
/// Least time between two fetches of keys that tokens ask for by an unknown `kid`, in seconds, however many do.
pub const KEY_FETCH_ASKED_INTERVAL_SEC: i64 = 60;
/// How far a shard's clock, which it looks at once a tick, may be behind the time of a fetch of keys, in whole seconds: the second
/// that is not over yet, and one for a shard that is busy.
pub const CLOCK_BEHIND_MAX_S: i64 = 2;
/// Tokens whose costly check may fail on a connection in a second: a client whose key was replaced has one.
pub const FAILED_CHECKS_PER_CONNECTION_MAX: u32 = 10;
/// Costly checks of tokens that may fail on a shard in a second before connections that have brought such tokens wait: at 40 µs
/// each, a fiftieth of its time.
pub const FAILED_CHECKS_PER_SHARD_MAX: u32 = 500;
/// How long a connection counts as one that has brought such tokens after its last one, in seconds.
pub const FAILED_CHECKS_KEPT_SEC: i64 = 10;
/// Shortest time between two lines of the log about tokens that another key of ours has signed, in seconds.
pub const OTHER_KEY_LOG_INTERVAL_SEC: i64 = 60;
/// Tokens with a wrong signature that are looked at again with the other keys, in a second: 2 µs each and key.
pub const OTHER_KEY_CHECKS_MAX_PER_SEC: u32 = 100;
/// Verified tokens that a shard remembers.
pub const TOKEN_CACHE_ENTRIES: usize = 4096;
/// Longest token that a shard remembers, in bytes; a longer one is verified each time. Keeps the cache of a shard below
/// 8 MiB.
pub const TOKEN_CACHED_MAX_BYTES: usize = 2 * 1024;

/// Bytes of one snapshot chunk after a split or a build, JSON and slots; it grows to twice that before it is split. A change
/// copies one chunk, which in a long list is not in the CPU's caches, so this bounds its cost (about a microsecond); and a
/// slow reader of an old list keeps one chunk for each change alive. A piece of a response is one chunk, and compressed by
/// itself, so this also keeps the pieces of a long list worth their place in a vectored write. With the counts before it, a
/// chunk of this size fills the allocator's size of 4 KiB. At about 230 bytes a todo it is 15 todos.
pub const CHUNK_TARGET_BYTES: usize = 4 * 1024 - 20;
/// Entries of one leaf of the snapshot's index by id, after a split or a build: 32 bytes each.
pub const INDEX_LEAF_TARGET_ENTRIES: usize = 64;
/// Children of one branch of the list, after a split or a build. A change copies one branch a level and counts one more
/// reference to each of its children, which in a long list are not in the CPU's caches, least of all on the lowest level: the
/// smallest fan-out costs the least. Ten levels hold two million chunks.
pub const LIST_BRANCH_TARGET_CHILDREN: usize = 4;
/// The same for the index by id, which most changes only search: fewer levels are searched faster.
pub const INDEX_BRANCH_TARGET_CHILDREN: usize = 8;
/// Longest page of a part of the list (of a user, of what is done) that is gathered todo by todo on its way down, in todos: a page
/// as people look at it. Longer ones are walked through once for their length and entity tag, and again as they are sent. It is
/// also the longest that a shard looks at with each change for those who wait for one.
pub const GATHERED_PAGE_MAX_TODOS: usize = 64;
/// Changes of a batch whose memory the snapshot has the CPU fetch at once. Each takes about 10 KiB, of the list's branches, the
/// chunk and the counts beside it, so these fit into a CPU's second cache; and as many are on their way as a CPU has room for.
pub const PREFETCH_KEYS_MAX: usize = 64;
/// JSON bytes of todos that a snapshot's builder collects out of order before it sorts them into chunks: enough that a
/// list of gigabytes comes from some hundred sorted runs, little beside the list.
pub const BUILD_RUN_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of a huge page, of x86-64 and of arm64 with pages of 4 KiB. Where it is another, the system refuses, or what it does
/// is right all the same.
pub const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of the list in memory of that size and place from which on it becomes a huge page. What was not in use there is in
/// memory from then on: at most a third of what the list takes, and a hundredth where a list has just been loaded.
pub const HUGE_PAGE_MIN_USED_BYTES: usize = HUGE_PAGE_BYTES / 4 * 3;
/// Huge pages that the system may refuse before it is asked for no more until the list is read again.
pub const HUGE_PAGE_REFUSALS_MAX: usize = 8;

/// Freed bytes at the end of a heap of the C libraries that are kept for the next burst: as large as most of glibc's heaps get.
#[cfg(target_env = "gnu")]
pub const C_HEAP_KEPT_BYTES: libc::c_int = 64 * 1024 * 1024;
/// Size from which on the C libraries get memory of its own from the system, and give it back at once: the largest that glibc
/// lets it be.
#[cfg(target_env = "gnu")]
pub const C_MMAP_MIN_BYTES: libc::c_int = 32 * 1024 * 1024;

/// Smallest body that is worth a content coding, in bytes: below it, all fits into one or two packets either way.
pub const ENCODING_MIN_BYTES: u64 = 1024;
/// Largest first page that is compressed as a whole, in bytes, which makes it smaller than pieces do and takes about a
/// millisecond. A larger one is put together from pieces that are compressed once each.
pub const ENCODED_WHOLE_MAX_BYTES: u64 = 32 * 1024;
/// First pages and codings that are encoded of one snapshot at a time, besides the whole list, which has a place of its own in
/// each coding. When all are taken, a page that is asked for more than twice as often takes the place of the one that is asked
/// for least; others stay identity. One holds 32 KiB ([`ENCODED_WHOLE_MAX_BYTES`]), or little more than shared pieces.
pub const ENCODED_PAGES_MAX: usize = 32;
/// Pages and codings whose demand the encoder knows: several times the places, so that one that is asked for seldom is seen
/// to be.
pub const ENCODER_DEMAND_MAX: usize = 256;
/// Wishes of a shard each second for pages that it does not keep ready: clients that ask for a new limit each time busy the
/// encoder with no more.
pub const NEW_WISHES_PER_S_MAX: usize = 128;
/// Wishes of the shards that may wait for the encoder; more are forgotten, and come again with the next request.
pub const ENCODER_QUEUE: usize = 256;
/// How long the compressed pieces of a list are kept for the next snapshot after somebody has asked for it, in seconds.
pub const ENCODED_PIECES_LIFETIME_S: u64 = 60;

/// Largest record of the embedded log, in bytes: the largest command, and its head.
pub const LOG_RECORD_MAX_BYTES: usize = COMMAND_MAX_BYTES + 1024;
/// Size at which the embedded log starts a new segment file, in bytes.
pub const LOG_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Least value of `LOG_MAX_BYTES`: four segments, each with room for the largest record of the usual `BODY_MAX_BYTES`. A larger
/// body asks for more (`config/check.rs`).
pub const LOG_MAX_BYTES_MIN: u64 = 1024 * 1024;
/// Least value of `WRITE_QUEUE_BYTES`; more shards, and larger bodies, ask for more (`config/check.rs`).
pub const WRITE_QUEUE_BYTES_MIN: u64 = 256 * 1024;
/// Memory of a command on its way besides its JSON, in bytes: queue slots here and in the log's client.
pub const SUBMISSION_OVERHEAD_BYTES: usize = 256;
/// Segments that the embedded log has at least when it has as many bytes as it may: the last one is never deleted, so the
/// others have to be most of it.
pub const LOG_SEGMENTS_AT_LIMIT: u64 = 4;
/// Bytes of the embedded log that are read at a time: thousands of commands of the usual size, and at least one of the
/// largest.
pub const LOG_READ_BYTES: usize = 2 * 1024 * 1024;
/// What the embedded log keeps of its write buffer between batches, in bytes; a larger batch gives its memory back.
pub const LOG_WRITE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Most commands that a worker folds into one store transaction.
pub const APPLY_BATCH_MAX_COMMANDS: usize = 5_000;
/// Most command bytes that a worker folds into one store transaction.
pub const APPLY_BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long a worker waits for records before it looks at its stop flag and its retries again, in milliseconds.
pub const WORKER_POLL_WAIT_MS: u64 = 100;
/// How long a command may wait to be applied before a backlog is told of, in `/ready` too, in milliseconds: more than the
/// group's new division after a worker has died.
pub const WORKER_BACKLOG_AGE_MS: u64 = 10_000;
/// How long that has to last, in milliseconds: a worker that takes commands from the log knows their age in its next turn.
pub const WORKER_BACKLOG_CONFIRM_MS: u64 = 2_000;
/// Shortest time between two lines of the log about one backlog, in milliseconds.
pub const WORKER_BACKLOG_LOG_INTERVAL_MS: u64 = 30_000;
/// Shortest time between two lines of the log about a worker's partitions, in milliseconds: what comes sooner is told together.
pub const WORKER_PARTITIONS_LOG_INTERVAL_MS: u64 = 1_000;
/// How often an API without a worker in its process asks for the workers, their backlog and their dead letters, in milliseconds.
pub const WORKER_WATCH_INTERVAL_MS: u64 = 2_000;
/// How often a worker looks whether somebody else has moved its place in the log, in milliseconds: one statement that reads a row
/// for each partition, beside the batches of that second.
pub const WORKER_PLACE_LOOK_MS: u64 = 1_000;
/// Longest wait for the answer, in milliseconds: until then the worker applies nothing.
pub const WORKER_PLACE_LOOK_PATIENCE_MS: u64 = 1_000;
/// Pause after a look that had no answer, in milliseconds.
pub const WORKER_PLACE_LOOK_PAUSE_MS: u64 = 5_000;
/// First wait before a worker tries again what failed, in milliseconds; it doubles from there.
pub const WORKER_RETRY_MIN_MS: u64 = 20;
/// Longest wait before a worker tries again, in milliseconds: a store that returns is noticed within it.
pub const WORKER_RETRY_MAX_MS: u64 = 2_000;
/// Dead letters within [`DEAD_LETTER_WINDOW_MS`] from which on `/ready` tells of them: a single one is about itself, ten have a
/// cause in common.
pub const DEAD_LETTER_BURST: u64 = 10;
/// How long they count, in milliseconds: long enough for a person, or a probe, to see it.
pub const DEAD_LETTER_WINDOW_MS: u64 = 60_000;

/// Texts of `/metrics`, and of `/ready`, that a shard makes as they are asked for before they are shared: as many as tests, probes
/// and a row of Prometheus servers ask for in a moment. Each takes some 20 KiB and up to 0.1 ms.
pub const DOCUMENTS_AT_ONCE_MAX: u32 = 256;
/// How many more it may make with each of its ticks, of 100 ms: the rest of a flood shares these.
pub const DOCUMENTS_PER_TICK: u32 = 2;

/// Connections that a worker's own listener serves at a time: probes and Prometheus. When there are as many, the oldest
/// gives way to a newcomer. Each holds a head ([`HEAD_MAX_BYTES`]) and an answer (some 20 KiB): 3 MiB at worst.
pub const WORKER_HTTP_CONNECTIONS_MAX: usize = 64;
/// Within it the request of such a connection has to have come, in milliseconds: a probe sends it at once.
pub const WORKER_HTTP_HEAD_DEADLINE_MS: u64 = 2_000;
/// Longest that such a connection may last, in milliseconds.
pub const WORKER_HTTP_DEADLINE_MS: u64 = 5_000;

/// Change sets that wait in the in-process feed; when they are as many, the worker waits for the refresher. At worst each
/// holds a whole batch: 16 times [`APPLY_BATCH_MAX_BYTES`] is 128 MiB.
pub const FEED_CHANGE_SETS_MAX: usize = 16;
/// How long a worker tries to publish a set before it leaves it out and goes on, in milliseconds: a Redis that is started again
/// is back within it, and then nobody has to load the list anew. All writes wait meanwhile.
pub const FEED_PATIENCE_MS: u64 = 1_000;
/// How long an API process without its feed waits between two looks at the store, in milliseconds, more or less by a third: a look
/// asks for the offsets alone, and the list is read when they have moved.
pub const STORE_LOOK_MS: u64 = 500;
/// Of the time of an API process without its feed, reading the list from the store takes one part in so many at most.
pub const STORE_READ_SHARE: u32 = 5;
/// First pause between two attempts of an API process to get back to its feed, in milliseconds; it doubles, up to the last.
pub const FEED_RETRY_MIN_MS: u64 = 500;
/// Longest such pause, in milliseconds: an attempt may read the whole list, from Redis and from the store.
pub const FEED_RETRY_MAX_MS: u64 = 10_000;
/// A list that is lost sooner than this after it was loaded was lost early, in milliseconds.
pub const FEED_STEADY_MS: u64 = 10_000;
/// Losses, each early, after which the list is read from the store for a while: Redis drops what it is given.
pub const FEED_EARLY_LOSSES_MAX: u32 = 3;
/// How often the list of an API process is compared with the store by its offsets, in milliseconds, more or less by a third. A
/// list that is behind them for a whole such time has stopped.
pub const FEED_COMPARE_MS: u64 = 3_000;
/// Pause between comparisons while the store does not answer, in milliseconds.
pub const FEED_COMPARE_PAUSE_MS: u64 = 5_000;
/// Longest wait for the store in a comparison, in milliseconds: changes wait as long.
pub const FEED_COMPARE_PATIENCE_MS: u64 = 500;
/// Seconds after which a create with `Idempotency-Key` is to be sent again when its id cannot be made yet.
pub const ID_KEY_RETRY_S: u32 = 2;
/// How long the in-process feed waits for room before the worker may look at its stop flag, in milliseconds.
pub const FEED_PUBLISH_WAIT_MS: u64 = 50;

/// How long after a signal another one counts as its echo, in milliseconds, and not as a person's or a service manager's
/// second thought, which ends the wait for what is being finished. Far more than between two calls of kill(2) in a row, far
/// less than between two key strokes that mean it.
pub const SIGNAL_ECHO_MS: u64 = 200;

/// Longest wait of a process that stops for the threads behind its shards, in milliseconds, all of them together. A worker
/// that can work needs far less for its batch; one that waits for a server that does not answer is left behind, as by a
/// crash.
pub const THREADS_STOP_TIMEOUT_MS: u64 = 5_000;

/// Longest value of `CACHE_TTL_SEC`, and what 0 stands for: a change that was missed hides no longer than a day.
pub const CACHE_TTL_MAX_S: u64 = 86_400;
/// What a pool of 0 connections stands for: far more than a process opens.
pub const POOL_MAX: usize = 10_000;

/// Largest list, in bytes, that a snapshot keeps in few large pieces beside its chunks when it is asked for often. Versions that
/// somebody still answers from share the pieces that are the same, and shards share all.
pub const FLAT_LIST_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// About so many bytes of it stand in one piece; between a quarter and one and a half of it, where the list is as long.
pub const FLAT_LIST_PIECE_BYTES: usize = 256 * 1024;
/// So many versions that nobody wants flat later, the pieces of the last flat one are given up.
pub const FLAT_LIST_KEPT_VERSIONS: u32 = 256;

/// Slowest link to PostgreSQL and Redis over which the largest batch is still carried, in bytes a second: what waits for an
/// answer allows for sending the question at this rate. A slower one would have it sent again and again.
pub const LINK_MIN_BYTES_PER_SEC: usize = 512 * 1024;

/// Bytes of one write with io_uring after which no further piece is added. Each write wakes its reader, so larger ones make
/// a long list cheaper; how many of them leave together is bounded by [`LONG_WRITES_TURN_MAX_BYTES`].
pub const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// The same with epoll, where nothing else bounds what others on the shard wait for: some 60 microseconds of copying.
pub const WRITE_BYTES_MAX_EPOLL: usize = 256 * 1024;
/// Bytes from which on a write is long, and waits for its turn behind other long ones.
pub const LONG_WRITE_MIN_BYTES: usize = 256 * 1024;
/// Bytes of long writes that begin in one turn of the ring; the last to come may exceed it. Two or three milliseconds of
/// copying: what a short answer waits for, however many clients ask for long lists at once.
pub const LONG_WRITES_TURN_MAX_BYTES: usize = 8 * 1024 * 1024;

const _: () = {
    assert!(2 * (2 * REDIS_PART_MAX_TODOS) < 7_000, "todos and deletes of one entry have to fit into one call of Lua");
    assert!(
        POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS < POSTGRES_LOCK_TIMEOUT_MS,
        "a successor outwaits a stopped worker"
    );
    assert!(POSTGRES_LOCK_TIMEOUT_MS < POSTGRES_STATEMENT_TIMEOUT_MS);
    assert!(POSTGRES_STATEMENT_TIMEOUT_MS < POSTGRES_REPLY_TIMEOUT_MS);
    let rate = LINK_MIN_BYTES_PER_SEC as u64;
    // The last command may exceed the batch.
    let batch_ms = 1_000 * (APPLY_BATCH_MAX_BYTES + COMMAND_MAX_BYTES) as u64 / rate;
    assert!(batch_ms < POSTGRES_REPLY_TIMEOUT_MS, "the largest batch is written over the slowest link");
    let statement_ms = 1_000 * (POSTGRES_STATEMENT_TARGET_BYTES + COMMAND_MAX_BYTES) as u64 / rate;
    assert!(statement_ms < POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS, "and none of its statements passes for silence");
    // A todo that is larger than a part is one by itself.
    let largest_part =
        if TODO_JSON_MAX_BYTES > REDIS_PART_MAX_BYTES { TODO_JSON_MAX_BYTES } else { REDIS_PART_MAX_BYTES };
    let part_ms = 1_000 * largest_part as u64 / rate;
    assert!(REDIS_REPLY_TIMEOUT_MS + part_ms < REDIS_LOAD_LOCK_MS, "the lock outlives the longest wait of its holder");
    let goodbye_ms = KAFKA_LAST_COMMIT_TIMEOUT_MS + KAFKA_LEAVE_TIMEOUT_MS;
    assert!(goodbye_ms < THREADS_STOP_TIMEOUT_MS, "a worker has the time to say goodbye");
    assert!(TARGET_MAX_BYTES < HEAD_MAX_BYTES);
    assert!(HEAD_MAX_BYTES <= CONNECTION_FREE_BYTES && SHORT_UNSENT_TEXT_MAX_BYTES < CONNECTION_FREE_BYTES);
    assert!(UNSENT_TEXT_MAX_BYTES <= UNSENT_MAX_BYTES && TEXT_BUFFER_KEPT_BYTES <= UNSENT_TEXT_MAX_BYTES);
    assert!(CONNECTION_MEMORY_MIN_BYTES as usize >= 4 * CONNECTION_MEMORY_LOT_BYTES);
    assert!(TOKEN_MAX_BYTES < HEAD_MAX_BYTES);
    assert!(SEND_BOUND_LIFTED_BYTES < SEND_BUFFER_AT_FIRST_BYTES as u64);
    assert!(PIPELINE_FREE <= PIPELINE_TURN && PIPELINE_TURN <= PIPELINES_TURN_MAX);
    assert!(READ_BUFFER_BYTES >= HEAD_MAX_BYTES, "a whole head has to fit into the read buffer");
    assert!(BODY_LIMIT_MAX_BYTES + COMMAND_OVERHEAD_BYTES <= COMMAND_MAX_BYTES, "what is accepted can be applied");
    assert!(BODY_MAX_BYTES <= BODY_LIMIT_MAX_BYTES && TITLE_MAX_CHARS + DESCRIPTION_MAX_CHARS < BODY_MAX_BYTES);
    assert!(USER_ID_MAX_BYTES < TOKEN_MAX_BYTES / 4 * 3, "a token can carry it, in base64");
    assert!(LOG_MAX_BYTES_MIN >= 4 * (BODY_MAX_BYTES + COMMAND_OVERHEAD_BYTES) as u64);
    assert!(REDIS_CHANGES_MAX_BYTES > 2 * TODO_JSON_MAX_BYTES, "a reader can follow the largest changes");
    assert!(LOG_READ_BYTES >= LOG_RECORD_MAX_BYTES);
    assert!(LINGER_LOOK_MIN_BYTES <= LINGER_PART_MIN_BYTES && LINGER_PART_MIN_BYTES <= LINGER_TURN_MAX_BYTES);
    assert!(LINGER_TURN_MS < LINGER_PAUSE_MAX_MS && LINGER_PAUSE_MAX_MS < LINGER_SILENCE_MS);
    assert!(LINGER_SILENCE_MS < LINGER_MAX_MS && LINGERING_MIN < LINGERING_MAX);
    // A write that is full is long, with either driver, and a turn has room for one.
    assert!(LONG_WRITE_MIN_BYTES <= WRITE_BYTES_MAX_EPOLL && WRITE_BYTES_MAX_EPOLL <= WRITE_BYTES_MAX);
    assert!(WRITE_BYTES_MAX <= LONG_WRITES_TURN_MAX_BYTES);
};
