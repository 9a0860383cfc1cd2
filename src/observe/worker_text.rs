//! What a worker counts, and which process and parts there are, as text for Prometheus: shared by a worker by itself and one beside
//! an API.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::{MICROS, Text};
use super::status::Component;
use crate::worker::WorkerMetrics;

/// Which version runs.
pub(super) fn render_build(text: &mut Text) {
    text.family("million_rps_build_info", "gauge", "Always 1; the label says which version runs.");
    text.sample("million_rps_build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0);
}

/// The text of one scrape of a process that is a worker and nothing else.
pub fn render_worker_process(worker: &WorkerMetrics) -> String {
    let mut text = Text::default();
    render_build(&mut text);
    render_components(&worker.troubles.all(), &mut text);
    worker.topic.render(&mut text);
    render_worker(worker, &mut text);
    text.finish()
}

/// Which parts are in trouble.
pub(super) fn render_components(troubles: &[(Component, String)], text: &mut Text) {
    text.family("million_rps_component_up", "gauge", "1 when the component works, 0 when it is in trouble.");
    for component in Component::ALL {
        let up = !troubles.iter().any(|(in_trouble, _)| *in_trouble == component);
        let labels = format!("component=\"{}\"", component.name());
        text.sample("million_rps_component_up", &labels, f64::from(u8::from(up)));
    }
}

/// What the worker counts.
pub(super) fn render_worker(worker: &WorkerMetrics, text: &mut Text) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    text.single(
        "million_rps_worker_up",
        "gauge",
        "1 while the worker applies whatever comes.",
        f64::from(u8::from(worker.is_up())),
    );
    let counters = [
        ("million_rps_worker_commands_total", "Commands applied.", get(&worker.commands)),
        ("million_rps_worker_changed_todos_total", "Todos written or deleted.", get(&worker.changed_todos)),
        (
            "million_rps_worker_found_todos_total",
            "Todos that commands named and did not change, published as they stood.",
            get(&worker.found_todos),
        ),
        ("million_rps_worker_dead_letters_total", "Records put aside for good.", get(&worker.dead_letters)),
        (
            "million_rps_worker_unknown_members_total",
            "Members of commands that this version does not know, and did not apply.",
            get(&worker.unknown_members),
        ),
        ("million_rps_worker_retries_total", "Attempts that failed and were tried again.", get(&worker.retries)),
        ("million_rps_worker_fenced_total", "Partitions taken over by another worker.", get(&worker.fenced)),
        (
            "million_rps_worker_lost_places_total",
            "Times that the log had lost records of a partition that were applied.",
            get(&worker.moved_back),
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, "counter", help, value);
    }
    let lag = worker.lag().map_or(f64::NAN, |lag| lag as f64);
    text.single("million_rps_worker_lag_records", "gauge", "Records written to the log and not yet applied.", lag);
    let lag_s = worker.lag_time().map_or(f64::NAN, |lag| lag.as_secs_f64());
    text.single("million_rps_worker_lag_seconds", "gauge", "Age of the oldest record not yet applied, at most.", lag_s);
    text.histogram(
        "million_rps_worker_batch_commands",
        "Commands of each store transaction.",
        1.0,
        [&worker.batch_sizes],
    );
    text.histogram(
        "million_rps_worker_apply_seconds",
        "Time of each store transaction, failed ones included.",
        MICROS,
        [&worker.apply_time],
    );
    text.histogram(
        "million_rps_worker_publish_seconds",
        "Time for publishing the changes of a batch, failed attempts included.",
        MICROS,
        [&worker.publish_time],
    );
}
