//! gunicorn's requests (`requests` among its tests): 81 that have to be refused, 62 that have to be understood, each with
//! what its authors expect.

use std::collections::{BTreeMap, BTreeSet};

use million_rps::http::Version;

use crate::corpus::{files, folder, literal};
use crate::harness::server::Driver;
use crate::harness::shared::on_both_drivers;
use crate::prediction::{End, Predicted, Prediction, predict, with_hosts};
use crate::verdicts::{GUNICORN_ACCEPTED_HERE, GUNICORN_READ_DIFFERENTLY, GUNICORN_REFUSED_HERE};
use crate::wire::check_all;

on_both_drivers!(std::convert::identity => every_request_is_answered_or_refused_however_it_is_split);

/// The requests of one kind by name, with the text that says what is expected.
fn requests(kind: &str) -> BTreeMap<String, (Vec<u8>, String)> {
    let files = files(&folder("gunicorn-27.0.1").join("tests/requests").join(kind));
    let mut texts: BTreeMap<_, _> = files.into_iter().collect();
    let names: Vec<String> = texts.keys().filter_map(|name| Some(name.strip_suffix(".http")?.to_owned())).collect();
    names
        .into_iter()
        .map(|name| {
            let raw = texts.remove(&format!("{name}.http")).expect("it is there");
            let expected = texts.remove(&format!("{name}.py")).expect("each request has what is expected of it");
            (name, (bytes(&raw), String::from_utf8(expected).expect("text")))
        })
        .collect()
}

/// The bytes that a file stands for: line feeds of its own only make it readable, others are written as escapes.
fn bytes(raw: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = raw;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        match (first, behind) {
            (b'\n', _) => {}
            (b'\\', [b'r', ..]) => bytes.push(b'\r'),
            (b'\\', [b'n', ..]) => bytes.push(b'\n'),
            (b'\\', [b't', ..]) => bytes.push(b'\t'),
            (b'\\', [b'0', ..]) => bytes.push(0),
            (b'\\', [b'x', digits @ ..]) => {
                let digits = std::str::from_utf8(&digits[..2]).expect("ASCII");
                bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
                rest = &rest[3..];
                continue;
            }
            _ => {
                bytes.push(first);
                continue;
            }
        }
        if first == b'\\' {
            rest = &rest[1..];
        }
    }
    bytes
}

/// What is expected of one request: method and target, version, and the body where it is written as one literal.
struct Expected {
    start: Vec<u8>,
    version: Version,
    body: Option<Vec<u8>>,
}

fn expected(text: &str) -> Vec<Expected> {
    let mut requests = Vec::new();
    for part in text.split("\"method\":").skip(1) {
        let string_behind = |part: &str, mark: &str| {
            let (_, behind) = part.split_once(mark).unwrap_or_else(|| panic!("{mark} is missing in {part}"));
            let behind = behind.trim_start();
            literal(&behind[1..], behind.chars().next().expect("a quote")).0
        };
        let mut start = literal(part.trim_start().strip_prefix('"').expect("a string"), '"').0;
        start.push(b' ');
        start.extend(string_behind(part, "uri("));
        let version = if part.contains("(1, 0)") { Version::Http10 } else { Version::Http11 };
        let (_, body) = part.split_once("\"body\":").expect("a body");
        let body = body.trim_start().trim_start_matches('b');
        let body = (!body.starts_with("\"\"\"")).then(|| string_behind(body, ""));
        requests.push(Expected { start, version, body });
    }
    requests
}

#[test]
fn what_is_invalid_is_refused() {
    let requests = requests("invalid");
    assert_eq!(requests.len(), 81);
    let mut accepted = BTreeSet::new();
    for (name, (input, _)) in &requests {
        let prediction = predict(&with_hosts(input));
        let is_refused =
            prediction.refusal().is_some_and(|status| (400..500).contains(&status) || [501, 505].contains(&status));
        if !is_refused && prediction.end != End::Incomplete {
            accepted.insert(name.as_str());
        }
    }
    let known: BTreeSet<_> = GUNICORN_ACCEPTED_HERE.iter().map(|(name, _)| *name).collect();
    assert_eq!(accepted, known, "what is accepted here, and what is known to be");
}

#[test]
fn what_is_valid_is_understood() {
    let requests = requests("valid");
    assert_eq!(requests.len(), 62);
    let (mut refused, mut read_differently) = (Vec::new(), Vec::new());
    for (name, (input, text)) in &requests {
        let prediction = predict(&with_hosts(input));
        match prediction.refusal() {
            Some(status) => refused.push((name.as_str(), status)),
            None if !is_understood(&expected(text), &prediction) => read_differently.push(name.as_str()),
            None => {}
        }
    }
    let known: Vec<_> = GUNICORN_REFUSED_HERE.iter().map(|(name, status, _)| (*name, *status)).collect();
    assert_eq!(refused, known, "what is refused here, and what is known to be");
    let known: Vec<_> = GUNICORN_READ_DIFFERENTLY.iter().map(|(name, _)| *name).collect();
    assert_eq!(read_differently, known, "what is read differently here, and what is known to be");
}

/// Whether the requests are those that their authors read.
fn is_understood(expected: &[Expected], prediction: &Prediction) -> bool {
    let is_same = |(expected, request): (&Expected, &Predicted)| {
        let has_same_body = expected.body.as_ref().is_none_or(|body| *body == request.body);
        request.start == expected.start && request.version == expected.version && has_same_body
    };
    // What stands behind a request that ends the connection is not read (RFC 9112 section 9.6).
    let are_as_many = prediction.requests.len() == expected.len() || prediction.end == End::Closed;
    are_as_many && expected.iter().zip(&prediction.requests).all(is_same)
}

fn every_request_is_answered_or_refused_however_it_is_split(driver: &Driver) {
    let mut inputs = Vec::new();
    for kind in ["invalid", "valid"] {
        for (name, (input, _)) in requests(kind) {
            let repaired = with_hosts(&input);
            if repaired != input {
                inputs.push((format!("{kind}/{name} with Host"), repaired));
            }
            inputs.push((format!("{kind}/{name}"), input));
        }
    }
    check_all(*driver, &inputs, 30, true);
}
