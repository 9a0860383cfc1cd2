//! `/metrics`: Prometheus' text format, and counters that move.

use std::collections::{HashMap, HashSet};

use crate::harness::client::Client;
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Setup};
use crate::harness::token::token;

/// Samples by name and labels.
type Samples = HashMap<String, f64>;

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Reads the exposition format 0.0.4, strictly.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut samples = Samples::new();
    let mut helped = HashSet::new();
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("{line:?} has no words"));
            assert!(is_name(name) && !words.is_empty() && helped.insert(name), "{line:?}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("{line:?} has no type"));
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line:?}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line:?}: counters end in _total");
            assert!(helped.contains(name) && kinds.insert(name, kind).is_none(), "{line:?}: one HELP, one TYPE");
            family = name;
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} has no value"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?} has no number"));
            let (name, labels) = match series.split_once('{') {
                None => (series, ""),
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line:?}"))),
            };
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line:?} stands under {family}"));
            match kinds[family] {
                "histogram" => assert!(matches!(suffix, "_bucket" | "_sum" | "_count"), "{line:?}"),
                kind => assert!(suffix.is_empty() && (kind == "gauge" || value >= 0.0), "{line:?}"),
            }
            for label in labels.split_terminator(',') {
                let (label, quoted) = label.split_once('=').unwrap_or_else(|| panic!("{line:?}"));
                assert!(
                    is_name(label) && quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"'),
                    "{line:?}"
                );
            }
            assert_eq!(samples.insert(series.to_owned(), value), None, "{line:?} stands twice");
        }
    }
    for (name, kind) in kinds {
        if kind == "histogram" {
            assert_eq!(samples[&format!("{name}_bucket{{le=\"+Inf\"}}")], samples[&format!("{name}_count")], "{name}");
        }
    }
    samples
}

fn scrape(client: &mut Client) -> Samples {
    let answer = client.call(&get("/metrics")).expect(200);
    assert_eq!(answer.required("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.required("Cache-Control"), "no-store");
    parse(answer.text())
}

/// All series of a name whose labels contain `label`, added up.
fn total(samples: &Samples, name: &str, label: &str) -> f64 {
    let series = samples.iter().filter(|(series, _)| {
        series
            .strip_prefix(name)
            .is_some_and(|labels| (labels.is_empty() || labels.starts_with('{')) && labels.contains(label))
    });
    series.map(|(_, value)| value).sum()
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
    crate::harness::eventually("the list's own numbers", || {
        let now = scrape(&mut client);
        (total(&now, "million_rps_snapshot_todos", "") == 10.0).then_some(())
    });
}
