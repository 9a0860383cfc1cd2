//! Prometheus' text format, read strictly.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::client::Client;
use super::eventually;
use super::request::get;

/// Samples by name and labels.
pub type Samples = HashMap<String, f64>;

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Reads the exposition format 0.0.4.
///
/// # Panics
/// When a line breaks a rule.
pub fn parse(text: &str) -> Samples {
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

/// All series of a name whose labels contain `label`, added up.
pub fn total(samples: &Samples, name: &str, label: &str) -> f64 {
    let series = samples.iter().filter(|(series, _)| {
        series
            .strip_prefix(name)
            .is_some_and(|labels| (labels.is_empty() || labels.starts_with('{')) && labels.contains(label))
    });
    series.map(|(_, value)| value).sum()
}

/// Waits until each shard of a server answers from a list as new as any of them had when this was called: a shard hears of a change
/// by itself, and a connection is at one of them.
pub fn await_shards(address: SocketAddr) {
    let scrape = || parse(Client::connect(address).call(&get("/metrics")).expect(200).text());
    let newest = scrape()["million_rps_snapshot_version"];
    eventually("the newest list at every shard", || {
        let samples = scrape();
        let mut of_shards = samples.iter().filter(|(name, _)| name.starts_with("million_rps_shard_snapshot_version{"));
        of_shards.all(|(_, version)| *version >= newest).then_some(())
    });
}
