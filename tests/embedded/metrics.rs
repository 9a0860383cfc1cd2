//! `/metrics`: Prometheus' text format, and counters that move.

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::metrics::{Samples, parse, total};
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Setup};
use crate::harness::token::token;

fn scrape(client: &mut Client) -> Samples {
    let answer = client.call(&get("/metrics")).expect(200);
    assert_eq!(answer.required("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.required("Cache-Control"), "no-store");
    parse(answer.text())
}

#[test]
fn counters_move_with_what_they_count() {
    // Alone on its server, so that the differences are this test's own.
    let server = Setup::new().driver(Driver::Epoll).start();
    let mut client = server.connect();
    let before = scrape(&mut client);
    for _ in 0..10 {
        client.call(&get("/todos?limit=1")).expect(200);
        client.call(&get("/nowhere")).expect(404);
        client.call(&post(&token("counted"), r#"{"title":"counted"}"#)).expect(202);
        client.call(&Request::new("POST", "/todos").json("{}")).expect(401);
        client.call(&get("/todos").field("If-None-Match", "*")).expect(304);
    }
    let second = server.connect();
    let after = scrape(&mut client);
    let moved = |name: &str, label: &str| total(&after, name, label) - total(&before, name, label);
    assert_eq!(moved("million_rps_responses_total", "class=\"2xx\""), 20.0 + 1.0, "and the scrape before");
    assert_eq!(moved("million_rps_responses_total", "class=\"3xx\""), 10.0);
    assert_eq!(moved("million_rps_responses_total", "class=\"4xx\""), 20.0);
    assert_eq!(moved("million_rps_responses_total", "class=\"5xx\""), 0.0);
    assert_eq!(moved("million_rps_commands_submitted_total", ""), 10.0);
    assert_eq!(moved("million_rps_commands_acknowledged_total", ""), 10.0);
    assert_eq!(moved("million_rps_acknowledgement_latency_seconds_count", ""), 10.0);
    assert_eq!(total(&after, "million_rps_commands_in_flight", ""), 0.0);
    assert!(moved("million_rps_received_bytes_total", "") > 1000.0);
    assert!(moved("million_rps_sent_bytes_total", "") > 1000.0);
    assert!(total(&after, "million_rps_connections_open", "") >= 1.0);
    assert_eq!(total(&after, "million_rps_panics_total", ""), 0.0);
    drop(second);
    eventually("the list's own numbers", || {
        let now = scrape(&mut client);
        (total(&now, "million_rps_snapshot_todos", "") == 10.0).then_some(())
    });
}

/// The text is the dearest short answer, and asks for no token.
#[test]
fn a_flood_of_scrapes_shares_texts_and_a_scrape_after_it_is_fresh() {
    const SCRAPES: usize = 4_000;
    const TOGETHER: usize = 100;
    let server = Setup::new().driver(Driver::Epoll).set("SHARDS", "1").start();
    let mut client = server.connect();
    let answers = |client: &mut Client| total(&scrape(client), "million_rps_responses_total", "class=\"2xx\"");
    // Sent together, they come together, however busy the machine is.
    let flood = get("/metrics").bytes().repeat(TOGETHER);
    let mut seen = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES / TOGETHER {
        client.send(flood.clone());
        seen.extend((0..TOGETHER).map(|_| {
            let metrics = parse(client.answer().expect(200).text());
            total(&metrics, "million_rps_responses_total", "class=\"2xx\"")
        }));
    }
    assert!(seen.is_sorted(), "no text is older than the one before");
    seen.dedup();
    assert!(seen.len() < SCRAPES / 2, "{} texts were made for {SCRAPES} scrapes", seen.len());
    let asked = SCRAPES as f64;
    eventually("a text that counts the flood", || (answers(&mut client) >= asked).then_some(()));
}

#[test]
fn each_stage_of_a_write_is_measured() {
    let server = Setup::new().driver(Driver::Epoll).set("SHARDS", "2").start();
    let mut client = server.connect();
    let before = scrape(&mut client);
    assert_eq!(total(&before, "million_rps_load_seconds_count", ""), 1.0, "the first list");
    for _ in 0..10 {
        let request = post(&token("measured"), r#"{"title":"measured"}"#).field("Prefer", "wait=30");
        assert_eq!(client.call(&request).expect(202).required("Preference-Applied"), "wait");
    }
    // One at a time: each was a batch of its own, at every stage.
    let histograms = [
        "million_rps_producer_batch_commands",
        "million_rps_producer_append_seconds",
        "million_rps_acknowledgement_latency_seconds",
        "million_rps_worker_batch_commands",
        "million_rps_worker_apply_seconds",
        "million_rps_worker_publish_seconds",
        "million_rps_refresh_seconds",
        "million_rps_refresh_todos",
    ];
    // A stage counts when it is done with a batch, which may be just after its effect is seen.
    let after = eventually("all stages to be done", || {
        let now = scrape(&mut client);
        let is_done = |histogram: &&str| total(&now, &format!("{histogram}_count"), "") >= 10.0;
        (histograms.iter().all(is_done) && total(&now, "million_rps_worker_lag_records", "") == 0.0).then_some(now)
    });
    for histogram in histograms {
        assert_eq!(total(&after, &format!("{histogram}_count"), ""), 10.0, "{histogram}");
        assert!(total(&after, &format!("{histogram}_sum"), "") > 0.0, "{histogram}");
    }
    for gauge in [
        "million_rps_producer_queue_commands",
        "million_rps_writes_waiting",
        "million_rps_worker_lag_seconds",
        "million_rps_changes_lost_total",
    ] {
        assert_eq!(total(&after, gauge, ""), 0.0, "{gauge}");
    }
    for shard in ["shard=\"0\"", "shard=\"1\""] {
        let age_s = total(&after, "million_rps_shard_snapshot_age_seconds", shard);
        assert!((0.0..30.0).contains(&age_s), "{shard} {age_s}");
    }
}

#[test]
fn what_cannot_be_applied_yet_is_counted_and_grows_old() {
    let server = Setup::new().driver(Driver::Epoll).start();
    let held = crate::read_your_writes::hold_the_store(server.setup());
    let mut client = server.connect();
    for _ in 0..7 {
        client.call(&post(&token("late"), r#"{"title":"late"}"#)).expect(202);
    }
    let lag = |samples: &Samples| {
        let value = |name| total(samples, name, "");
        (value("million_rps_worker_lag_records"), value("million_rps_worker_lag_seconds"))
    };
    let (_, young_s) = eventually("all of them to lag", || Some(lag(&scrape(&mut client))).filter(|lag| lag.0 == 7.0));
    eventually("the lag to grow older", || {
        let (records, old_s) = lag(&scrape(&mut client));
        (records == 7.0 && old_s > young_s + 0.5).then_some(())
    });
    held.execute_batch("ROLLBACK").expect("released");
    eventually("the lag to go", || (lag(&scrape(&mut client)) == (0.0, 0.0)).then_some(()));
}

#[test]
fn the_document_has_each_metric_and_no_other() {
    let server = Setup::new().driver(Driver::Epoll).start();
    let answer = server.connect().call(&get("/metrics")).expect(200);
    let mut shown: Vec<(String, String)> = Vec::new();
    for line in answer.text().lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            shown.push((name.to_owned(), kind.to_owned()));
        }
    }
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("readable");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    };
    // A topic is Kafka's: tests/faults/measured.rs looks at its metrics.
    let is_shown_here = |metric: &(String, String)| !metric.0.starts_with("million_rps_topic_");
    let mut told: Vec<(String, String)> = document.lines().filter_map(row).filter(is_shown_here).collect();
    shown.sort();
    told.sort();
    assert_eq!(told, shown, "docs/metrics.md, and what /metrics shows");
}
