//! What the parts count, and its text for Prometheus.
//!
//! Each shard counts in a block of its own that no other thread writes, and the scrape adds the blocks up.

use std::sync::Arc;

use super::counter::{Counter, Histogram};
use super::expiry::Expiry;
use super::exposition::{MICROS, Text};
use super::readiness::Audience;
use super::status::Status;
use super::worker_text::{render_build, render_components, render_worker};
use crate::change_feed::ResetReason;
use crate::encoder::EncoderMetrics;
use crate::http::Coding;
use crate::producer::ProducerMetrics;
use crate::refresher::metrics::RefresherMetrics;
use crate::snapshot::OldLists;
use crate::worker::{WorkerMetrics, WorkerState};

/// Answers in one content coding.
#[derive(Default)]
pub struct CodingMetrics {
    /// Their number.
    pub responses: Counter,
    /// Bytes of their bodies before.
    pub plain_bytes: Counter,
    /// And as they were sent.
    pub encoded_bytes: Counter,
}

/// The counters of one shard. Aligned to two cache lines, because the prefetcher of x86 fetches lines in pairs.
#[derive(Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Requests answered, by the first digit of the status: index 1 to 5.
    pub responses: [Counter; 6],
    /// Lists answered in each content coding, by its number; that of identity is not used.
    pub encoded: [CodingMetrics; 4],
    /// Requests for a first page whose head was parsed.
    pub unknown_heads: Counter,
    /// Connections accepted.
    pub connections_accepted: Counter,
    /// Connections refused because the shard had as many as it may.
    pub connections_refused: Counter,
    /// Connections open now.
    pub connections_open: Counter,
    /// Connections now whose clients still send after their last answer; they are not among the open ones.
    pub connections_lingering: Counter,
    /// Those that were closed before their time, because there were too many.
    pub lingering_cut: Counter,
    /// Bytes of the memory of connections that the shard's use.
    pub connection_memory_bytes: Counter,
    /// Connections that were refused more of it, or closed for others.
    pub connection_memory_refused: Counter,
    /// Failed accepts (file descriptors used up, mostly).
    pub accept_errors: Counter,
    /// Connections that ran into a deadline, by the number of the [`Expiry`].
    pub deadlines_expired: [Counter; Expiry::COUNT],
    /// Clients that follow the list now.
    pub followers: Counter,
    /// Those that were refused because there were too many.
    pub followers_refused: Counter,
    /// Those whose connection was ended because they did not keep up.
    pub followers_too_slow: Counter,
    /// Reads that wait for a change.
    pub reads_waiting: Counter,
    /// Those that were answered without the wait because there were too many.
    pub read_waits_refused: Counter,
    /// Events sent, to each follower.
    pub events_sent: Counter,
    /// Followers that were told to read the list again, by the number of the [`ResetReason`].
    pub event_resets: [Counter; ResetReason::COUNT],
    /// Memory of the changes that the shard keeps, which it shares with the others, in bytes.
    pub event_history_bytes: Counter,
    /// Bytes received.
    pub bytes_received: Counter,
    /// Bytes sent.
    pub bytes_sent: Counter,
    /// Panics while answering; each cost one connection.
    pub panics: Counter,
    /// Writes refused because their user was too fast.
    pub writes_limited: Counter,
    /// Creates refused because their user has as many todos as allowed.
    pub writes_over_user_todos: Counter,
    /// Writes refused because the list has as many bytes as allowed.
    pub writes_over_list_bytes: Counter,
    /// Writes refused because the embedded log has as many bytes as allowed.
    pub writes_over_log_bytes: Counter,
    /// Commands handed to the producer.
    pub commands_submitted: Counter,
    /// Commands that the log has acknowledged.
    pub commands_acknowledged: Counter,
    /// Commands that the log refused, or that were not acknowledged in time.
    pub commands_refused: Counter,
    /// Commands between shard and acknowledgement now.
    pub commands_in_flight: Counter,
    /// Bytes of those commands.
    pub command_bytes_in_flight: Counter,
    /// Durable writes whose clients wait until they show.
    pub writes_waiting: Counter,
    /// From handing a command to the producer until its acknowledgement reached the shard.
    pub acknowledgement_latency: Histogram,
    /// Tokens found in the cache of verified tokens.
    pub token_cache_hits: Counter,
    /// Tokens that were answered with 429, unseen, because others of their connection were refused.
    pub tokens_not_checked: Counter,
    /// Version of the snapshot that the shard answers from.
    pub snapshot_version: Counter,
    /// When the shard took it, in milliseconds of [`Status::now_ms`].
    pub snapshot_taken_at_ms: Counter,
    /// How long the oldest of the commands in flight has waited, in microseconds, as of the last tick.
    pub oldest_command_us: Counter,
}

/// All that `/metrics` shows.
pub struct Metrics {
    /// Block of each shard, in shard order.
    pub shards: Vec<Arc<ShardMetrics>>,
    /// What the producer counts.
    pub producer: Arc<ProducerMetrics>,
    /// What the refresher counts.
    pub refresher: Arc<RefresherMetrics>,
    /// What the encoder counts.
    pub encoder: Arc<EncoderMetrics>,
    /// What old versions of the list hold.
    pub old_lists: Arc<OldLists>,
    /// The process's status.
    pub status: Arc<Status>,
    /// The worker's counters, where one runs in this process.
    pub worker: Option<Arc<WorkerMetrics>>,
}

impl Metrics {
    /// Whether reads can be answered, and the JSON that `/ready` shows this audience.
    pub fn readiness(&self, audience: Audience) -> (bool, String) {
        let in_trouble = |worker: &Arc<WorkerMetrics>| match worker.state() {
            WorkerState::Starting => worker.last_error(),
            WorkerState::Running => None,
            WorkerState::Retrying | WorkerState::Failed | WorkerState::Stopped => {
                Some(worker.last_error().unwrap_or_else(|| "it has stopped".into()))
            }
        };
        // Versions count from 1. A shard takes the first snapshot a moment after it was handed out.
        let on_every_shard = self.shards.iter().all(|shard| shard.snapshot_version.get() > 0);
        let worker_trouble = self.worker.as_ref().and_then(in_trouble);
        self.status.readiness(audience, on_every_shard, worker_trouble.as_deref())
    }

    /// The text of one scrape.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        render_build(&mut text);
        self.render_process(&mut text);
        self.render_shards(&mut text);
        self.render_event_resets(&mut text);
        self.render_expiries(&mut text);
        self.render_write_path(&mut text);
        self.render_refresher(&mut text);
        self.render_codings(&mut text);
        if let Some(worker) = &self.worker {
            render_worker(worker, &mut text);
        }
        text.finish()
    }

    fn render_process(&self, text: &mut Text) {
        let (version, todos, bytes) = self.status.snapshot_figures();
        text.single("million_rps_snapshot_version", "gauge", "Version of the newest snapshot.", version as f64);
        text.single("million_rps_snapshot_todos", "gauge", "Todos in the newest snapshot.", todos as f64);
        text.single("million_rps_snapshot_bytes", "gauge", "Bytes of the whole list.", bytes as f64);
        let age = self.status.snapshot_age().map_or(f64::NAN, |age| age.as_secs_f64());
        text.single(
            "million_rps_snapshot_age_seconds",
            "gauge",
            "Since the snapshot was last known to be current.",
            age,
        );
        text.single(
            "million_rps_old_lists_bytes",
            "gauge",
            "Memory that old versions of the list take, at most, because clients are still reading them.",
            self.old_lists.held_bytes() as f64,
        );
        text.single(
            "million_rps_old_lists_max_bytes",
            "gauge",
            "Memory that they may take before the slowest of these clients are cut off.",
            self.old_lists.max_bytes() as f64,
        );
        self.render_shard_ages(text);
        render_components(&self.status.troubles(), text);
        self.status.shared_topic().render(text);
        self.status.keys().render(self.status.now_ms(), text);
    }

    fn render_shards(&self, text: &mut Text) {
        text.family("million_rps_responses_total", "counter", "Responses by class of status.");
        for (shard, metrics) in self.shards.iter().enumerate() {
            for class in 1..=5 {
                let labels = format!("shard=\"{shard}\",class=\"{class}xx\"");
                text.sample("million_rps_responses_total", &labels, metrics.responses[class].get() as f64);
            }
        }
        type Pick = fn(&ShardMetrics) -> &Counter;
        let families: [(&str, &str, &str, Pick); 32] = [
            ("million_rps_unknown_heads_total", "counter", "Reads whose head was not known, but parsed.", |m| {
                &m.unknown_heads
            }),
            ("million_rps_connections_accepted_total", "counter", "Connections accepted.", |m| &m.connections_accepted),
            ("million_rps_connections_refused_total", "counter", "Connections refused at the limit.", |m| {
                &m.connections_refused
            }),
            ("million_rps_connections_open", "gauge", "Connections open.", |m| &m.connections_open),
            (
                "million_rps_connections_lingering",
                "gauge",
                "Connections that are read behind their last answer.",
                |m| &m.connections_lingering,
            ),
            ("million_rps_lingering_cut_total", "counter", "Of those, closed early because they were too many.", |m| {
                &m.lingering_cut
            }),
            ("million_rps_connection_memory_bytes", "gauge", "Memory of connections in use.", |m| {
                &m.connection_memory_bytes
            }),
            (
                "million_rps_connection_memory_refused_total",
                "counter",
                "Connections closed because memory was short.",
                |m| &m.connection_memory_refused,
            ),
            ("million_rps_accept_errors_total", "counter", "Failed accepts.", |m| &m.accept_errors),
            ("million_rps_followers", "gauge", "Clients that follow the list.", |m| &m.followers),
            ("million_rps_followers_refused_total", "counter", "Followers refused at EVENTS_FOLLOWERS_MAX.", |m| {
                &m.followers_refused
            }),
            (
                "million_rps_followers_too_slow_total",
                "counter",
                "Followers cut off because they did not keep up.",
                |m| &m.followers_too_slow,
            ),
            ("million_rps_reads_waiting", "gauge", "Reads that wait for a change (Prefer: wait).", |m| {
                &m.reads_waiting
            }),
            (
                "million_rps_read_waits_refused_total",
                "counter",
                "Reads answered without their wait at EVENTS_FOLLOWERS_MAX.",
                |m| &m.read_waits_refused,
            ),
            ("million_rps_events_sent_total", "counter", "Events sent to followers.", |m| &m.events_sent),
            ("million_rps_event_history_bytes", "gauge", "Memory of the changes that are kept for followers.", |m| {
                &m.event_history_bytes
            }),
            ("million_rps_received_bytes_total", "counter", "Bytes received.", |m| &m.bytes_received),
            ("million_rps_sent_bytes_total", "counter", "Bytes sent.", |m| &m.bytes_sent),
            ("million_rps_panics_total", "counter", "Panics while answering.", |m| &m.panics),
            ("million_rps_writes_limited_total", "counter", "Writes refused for WRITE_RATE_PER_USER.", |m| {
                &m.writes_limited
            }),
            ("million_rps_writes_over_user_todos_total", "counter", "Creates refused for TODOS_PER_USER_MAX.", |m| {
                &m.writes_over_user_todos
            }),
            ("million_rps_writes_over_list_bytes_total", "counter", "Writes refused for LIST_MAX_BYTES.", |m| {
                &m.writes_over_list_bytes
            }),
            ("million_rps_writes_over_log_bytes_total", "counter", "Writes refused for LOG_MAX_BYTES.", |m| {
                &m.writes_over_log_bytes
            }),
            ("million_rps_commands_submitted_total", "counter", "Commands handed to the producer.", |m| {
                &m.commands_submitted
            }),
            ("million_rps_commands_acknowledged_total", "counter", "Commands that the log has.", |m| {
                &m.commands_acknowledged
            }),
            ("million_rps_commands_refused_total", "counter", "Commands refused or not acknowledged in time.", |m| {
                &m.commands_refused
            }),
            ("million_rps_commands_in_flight", "gauge", "Commands waiting for the log.", |m| &m.commands_in_flight),
            ("million_rps_command_bytes_in_flight", "gauge", "Bytes of commands waiting for the log.", |m| {
                &m.command_bytes_in_flight
            }),
            ("million_rps_writes_waiting", "gauge", "Durable writes whose clients wait until they show.", |m| {
                &m.writes_waiting
            }),
            (
                "million_rps_tokens_not_checked_total",
                "counter",
                "Tokens refused unseen, after others of their connection.",
                |m| &m.tokens_not_checked,
            ),
            ("million_rps_token_cache_hits_total", "counter", "Tokens found in the cache of verified tokens.", |m| {
                &m.token_cache_hits
            }),
            (
                "million_rps_shard_snapshot_version",
                "gauge",
                "Version of the snapshot that the shard answers from.",
                |m| &m.snapshot_version,
            ),
        ];
        for (name, kind, help, pick) in families {
            text.family(name, kind, help);
            for (shard, metrics) in self.shards.iter().enumerate() {
                text.sample(name, &format!("shard=\"{shard}\""), pick(metrics).get() as f64);
            }
        }
    }

    /// A shard that has the newest snapshot is as current as that; one that is behind has been, at the latest, since it
    /// took what it has.
    fn render_shard_ages(&self, text: &mut Text) {
        const NAME: &str = "million_rps_shard_snapshot_age_seconds";
        text.family(NAME, "gauge", "Since the snapshot that the shard answers from was last known to be current.");
        let (newest, _, _) = self.status.snapshot_figures();
        for (shard, metrics) in self.shards.iter().enumerate() {
            let age_s = match metrics.snapshot_version.get() {
                0 => f64::NAN,
                version if version == newest => self.status.snapshot_age().map_or(f64::NAN, |age| age.as_secs_f64()),
                _ => self.status.now_ms().saturating_sub(metrics.snapshot_taken_at_ms.get()) as f64 / 1e3,
            };
            text.sample(NAME, &format!("shard=\"{shard}\""), age_s);
        }
    }

    /// From the shards to the acknowledgement of the log.
    fn render_write_path(&self, text: &mut Text) {
        const OLDEST: &str = "million_rps_oldest_command_seconds";
        text.family(OLDEST, "gauge", "How long the oldest command in flight has waited for the log; 0 without one.");
        for (shard, metrics) in self.shards.iter().enumerate() {
            text.sample(OLDEST, &format!("shard=\"{shard}\""), metrics.oldest_command_us.get() as f64 / MICROS);
        }
        // Taken is read first: what is submitted in between must not make the difference negative.
        let taken = self.producer.commands_taken.get();
        let submitted: u64 = self.shards.iter().map(|shard| shard.commands_submitted.get()).sum();
        let queued = submitted.saturating_sub(taken) as f64;
        text.single("million_rps_producer_queue_commands", "gauge", "Commands between shards and producer.", queued);
        text.histogram(
            "million_rps_producer_batch_commands",
            "Commands of each batch that the producer hands to the log.",
            1.0,
            [&self.producer.batch_commands],
        );
        text.histogram(
            "million_rps_producer_append_seconds",
            "Time for handing a batch to the log: embedded until it is on disk, else until the client library has it.",
            MICROS,
            [&self.producer.append_time],
        );
        text.histogram(
            "million_rps_acknowledgement_latency_seconds",
            "From handing a command to the producer until its acknowledgement.",
            MICROS,
            self.shards.iter().map(|shard| &shard.acknowledgement_latency),
        );
    }

    fn render_refresher(&self, text: &mut Text) {
        let metrics = &self.refresher;
        text.histogram(
            "million_rps_refresh_seconds",
            "From receiving changes until the shards have been handed the snapshot with them.",
            MICROS,
            [&metrics.refresh_time],
        );
        text.histogram(
            "million_rps_refresh_todos",
            "Changed todos in each snapshot that was made from changes.",
            1.0,
            [&metrics.refresh_todos],
        );
        text.histogram(
            "million_rps_load_seconds",
            "Time for reading the whole list: at the start, every CACHE_TTL_SEC, and when changes were missed.",
            MICROS,
            [&metrics.load_time],
        );
        let losses = metrics.losses.get() as f64;
        text.single("million_rps_changes_lost_total", "counter", "Times that changes were missed.", losses);
    }
}

impl Metrics {
    fn render_codings(&self, text: &mut Text) {
        type Pick = fn(&CodingMetrics) -> &Counter;
        let families: [(&str, &str, Pick); 3] = [
            ("million_rps_encoded_responses_total", "Lists answered in a content coding.", |m| &m.responses),
            ("million_rps_encoded_plain_bytes_total", "Bytes of those lists before.", |m| &m.plain_bytes),
            ("million_rps_encoded_sent_bytes_total", "Bytes of those lists as sent.", |m| &m.encoded_bytes),
        ];
        for (name, help, pick) in families {
            text.family(name, "counter", help);
            for coding in Coding::COMPRESSED {
                let sum: u64 = self.shards.iter().map(|shard| pick(&shard.encoded[coding as usize]).get()).sum();
                text.sample(name, &format!("coding=\"{}\"", coding.name()), sum as f64);
            }
        }
        text.histogram(
            "million_rps_encode_seconds",
            "Time for encoding a page, once for each snapshot and coding that it is asked for in.",
            MICROS,
            [&self.encoder.encode_time],
        );
        let (plain, encoded) = (self.encoder.plain_bytes.get() as f64, self.encoder.encoded_bytes.get() as f64);
        text.single("million_rps_encode_plain_bytes_total", "counter", "Bytes of pages before encoding.", plain);
        text.single("million_rps_encode_encoded_bytes_total", "counter", "Bytes of pages after encoding.", encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_and_buckets_are_cumulative() {
        let shards: Vec<Arc<ShardMetrics>> = (0..2).map(|_| Arc::new(ShardMetrics::default())).collect();
        shards[0].responses[2].add(3);
        shards[0].acknowledgement_latency.observe(700);
        shards[1].acknowledgement_latency.observe(9_000_000);
        let text = Metrics {
            shards,
            producer: Arc::default(),
            refresher: Arc::default(),
            encoder: Arc::default(),
            old_lists: Arc::default(),
            status: Arc::new(Status::default()),
            worker: None,
        }
        .render();
        for line in [
            "million_rps_responses_total{shard=\"0\",class=\"2xx\"} 3",
            "million_rps_acknowledgement_latency_seconds_bucket{le=\"0.001\"} 1",
            "million_rps_acknowledgement_latency_seconds_bucket{le=\"+Inf\"} 2",
            "million_rps_acknowledgement_latency_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
