//! Counters, and their text for Prometheus.
//!
//! Each shard counts in a block of its own that no other thread writes: an increment is a plain load and store, and the
//! scrape adds the blocks up.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::status::{Component, Status};
use crate::worker::{BATCH_SIZE_BOUNDS, WorkerMetrics, WorkerState};

/// A counter with one writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning thread calls this: two writers would lose counts.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Takes `amount` off, for what goes up and down. Only the owning thread calls this.
    #[inline]
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    /// The present value; any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of the acknowledgement latency, in microseconds.
const ACKNOWLEDGEMENT_BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// A latency histogram with one writer.
#[derive(Default)]
pub struct Histogram {
    buckets: [Counter; ACKNOWLEDGEMENT_BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one observation, in microseconds.
    pub fn observe_us(&self, latency_us: u64) {
        let bucket = ACKNOWLEDGEMENT_BUCKETS_US.partition_point(|bound| *bound < latency_us);
        self.buckets[bucket].add(1);
        self.sum_us.add(latency_us);
    }
}

/// The counters of one shard. Aligned to two cache lines, because the prefetcher of x86 fetches lines in pairs.
#[derive(Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Requests answered, by the first digit of the status: index 1 to 5.
    pub responses: [Counter; 6],
    /// Answers that came from the memo of the last request's bytes.
    pub memo_hits: Counter,
    /// Connections accepted.
    pub connections_accepted: Counter,
    /// Connections refused because the shard had as many as it may.
    pub connections_refused: Counter,
    /// Connections open now.
    pub connections_open: Counter,
    /// Failed accepts (file descriptors used up, mostly).
    pub accept_errors: Counter,
    /// Connections that ran into a deadline.
    pub deadlines_expired: Counter,
    /// Bytes received.
    pub bytes_received: Counter,
    /// Bytes sent.
    pub bytes_sent: Counter,
    /// Panics while answering; each cost one connection.
    pub panics: Counter,
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
    /// From handing a command to the producer until its acknowledgement reached the shard.
    pub acknowledgement_latency: Histogram,
    /// Tokens found in the cache of verified tokens.
    pub token_cache_hits: Counter,
    /// Version of the snapshot that the shard answers from.
    pub snapshot_version: Counter,
}

/// All that `/metrics` shows.
pub struct Metrics {
    /// Block of each shard, in shard order.
    pub shards: Vec<Arc<ShardMetrics>>,
    /// The process's status.
    pub status: Arc<Status>,
    /// The worker's counters, where one runs in this process.
    pub worker: Option<Arc<WorkerMetrics>>,
}

impl Metrics {
    /// Whether reads can be answered, and the JSON that `/ready` shows.
    pub fn readiness(&self) -> (bool, String) {
        let in_trouble = |worker: &Arc<WorkerMetrics>| match worker.state() {
            WorkerState::Starting | WorkerState::Running => None,
            WorkerState::Retrying | WorkerState::Failed | WorkerState::Stopped => {
                Some(worker.last_error().unwrap_or_else(|| "it has stopped".into()))
            }
        };
        // Versions count from 1. A shard takes the first snapshot a moment after it was handed out.
        let on_every_shard = self.shards.iter().all(|shard| shard.snapshot_version.get() > 0);
        self.status.readiness(on_every_shard, self.worker.as_ref().and_then(in_trouble))
    }

    /// The text of one scrape.
    pub fn render(&self) -> String {
        let mut text = Text(String::with_capacity(8 * 1024));
        self.render_process(&mut text);
        self.render_shards(&mut text);
        if let Some(worker) = &self.worker {
            render_worker(worker, &mut text);
        }
        text.0
    }

    fn render_process(&self, text: &mut Text) {
        text.family("million_rps_build_info", "gauge", "Always 1; the label says which version runs.");
        text.sample("million_rps_build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0);
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
        text.family("million_rps_component_up", "gauge", "1 when the component works, 0 when it is in trouble.");
        let troubles = self.status.troubles();
        for component in Component::ALL {
            let up = !troubles.iter().any(|(in_trouble, _)| *in_trouble == component);
            text.sample(
                "million_rps_component_up",
                &format!("component=\"{}\"", component.name()),
                f64::from(u8::from(up)),
            );
        }
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
        let families: [(&str, &str, &str, Pick); 16] = [
            ("million_rps_memo_hits_total", "counter", "Requests answered from the memo of the last request.", |m| {
                &m.memo_hits
            }),
            ("million_rps_connections_accepted_total", "counter", "Connections accepted.", |m| &m.connections_accepted),
            ("million_rps_connections_refused_total", "counter", "Connections refused at the limit.", |m| {
                &m.connections_refused
            }),
            ("million_rps_connections_open", "gauge", "Connections open.", |m| &m.connections_open),
            ("million_rps_accept_errors_total", "counter", "Failed accepts.", |m| &m.accept_errors),
            ("million_rps_deadlines_expired_total", "counter", "Connections that ran into a deadline.", |m| {
                &m.deadlines_expired
            }),
            ("million_rps_received_bytes_total", "counter", "Bytes received.", |m| &m.bytes_received),
            ("million_rps_sent_bytes_total", "counter", "Bytes sent.", |m| &m.bytes_sent),
            ("million_rps_panics_total", "counter", "Panics while answering.", |m| &m.panics),
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
        self.render_acknowledgement_latency(text);
    }

    fn render_acknowledgement_latency(&self, text: &mut Text) {
        const NAME: &str = "million_rps_acknowledgement_latency_seconds";
        text.family(NAME, "histogram", "From handing a command to the producer until its acknowledgement.");
        let mut total = 0;
        for bucket in 0..=ACKNOWLEDGEMENT_BUCKETS_US.len() {
            total += self.shards.iter().map(|shard| shard.acknowledgement_latency.buckets[bucket].get()).sum::<u64>();
            let bound = ACKNOWLEDGEMENT_BUCKETS_US
                .get(bucket)
                .map_or_else(|| "+Inf".to_owned(), |bound_us| (*bound_us as f64 / 1e6).to_string());
            text.sample(&format!("{NAME}_bucket"), &format!("le=\"{bound}\""), total as f64);
        }
        let sum_us: u64 = self.shards.iter().map(|shard| shard.acknowledgement_latency.sum_us.get()).sum();
        text.sample(&format!("{NAME}_sum"), "", sum_us as f64 / 1e6);
        text.sample(&format!("{NAME}_count"), "", total as f64);
    }
}

fn render_worker(worker: &WorkerMetrics, text: &mut Text) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let seconds = |micros: &AtomicU64| get(micros) / 1e6;
    let up = f64::from(u8::from(worker.state() == WorkerState::Running));
    text.single("million_rps_worker_up", "gauge", "1 while the worker applies whatever comes.", up);
    let counters = [
        ("million_rps_worker_commands_total", "Commands applied.", get(&worker.commands)),
        ("million_rps_worker_changed_todos_total", "Todos written or deleted.", get(&worker.changed_todos)),
        ("million_rps_worker_dead_letters_total", "Records put aside for good.", get(&worker.dead_letters)),
        ("million_rps_worker_apply_seconds_total", "Time spent in store transactions.", seconds(&worker.apply_micros)),
        ("million_rps_worker_publish_seconds_total", "Time spent publishing.", seconds(&worker.publish_micros)),
        ("million_rps_worker_retries_total", "Attempts that failed and were tried again.", get(&worker.retries)),
        ("million_rps_worker_fenced_total", "Partitions taken over by another worker.", get(&worker.fenced)),
    ];
    for (name, help, value) in counters {
        text.single(name, "counter", help, value);
    }
    let lag = worker.lag().map_or(f64::NAN, |lag| lag as f64);
    text.single("million_rps_worker_lag_records", "gauge", "Records written to the log and not yet read.", lag);
    const BATCHES: &str = "million_rps_worker_batch_commands";
    text.family(BATCHES, "histogram", "Commands of each store transaction.");
    let mut total = 0.0;
    for (bucket, count) in worker.batch_sizes.iter().enumerate() {
        total += get(count);
        let bound = BATCH_SIZE_BOUNDS.get(bucket).map_or_else(|| "+Inf".to_owned(), u64::to_string);
        text.sample(&format!("{BATCHES}_bucket"), &format!("le=\"{bound}\""), total);
    }
    text.sample(&format!("{BATCHES}_sum"), "", get(&worker.commands));
    text.sample(&format!("{BATCHES}_count"), "", get(&worker.batches));
}

/// Prometheus text in the making.
pub struct Text(String);

impl Text {
    /// Starts a family: its type and what it means.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a sample; `labels` is empty or `name="value",…`.
    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }

    /// A family with one sample and no label.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_and_buckets_are_cumulative() {
        let shards: Vec<Arc<ShardMetrics>> = (0..2).map(|_| Arc::new(ShardMetrics::default())).collect();
        shards[0].responses[2].add(3);
        shards[0].acknowledgement_latency.observe_us(700);
        shards[1].acknowledgement_latency.observe_us(9_000_000);
        let text = Metrics { shards, status: Arc::new(Status::default()), worker: None }.render();
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
