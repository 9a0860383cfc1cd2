//! http-parser's messages (`test.c`): what clients of the time sent, each with what its authors read in it.

use million_rps::http::Version;

use crate::corpus::{folder, literal};
use crate::harness::server::Driver;
use crate::harness::shared::on_both_drivers;
use crate::prediction::{Predicted, predict, with_hosts};
use crate::verdicts::HTTP_PARSER_REFUSED_HERE;
use crate::wire::check_all;

on_both_drivers!(std::convert::identity => every_message_is_answered_or_refused_however_it_is_split);

struct Message {
    name: String,
    raw: Vec<u8>,
    start: Vec<u8>,
    version: Version,
    body: Vec<u8>,
}

/// The requests, from the initializers of the C source.
fn messages() -> Vec<Message> {
    let path = folder("http-parser-2.9.4").join("test.c");
    let source = String::from_utf8_lossy(&std::fs::read(path).expect("it can be read")).into_owned();
    let (_, requests) = source.split_once("const struct message requests[] =").expect("the array of requests");
    let (requests, _) = requests.split_once("\n};").expect("its end");
    // Some initializers have a space before the sign.
    let requests = requests.replace(" = ", "= ");
    let entries = requests.split("{.name=").skip(1);
    entries
        .map(|entry| {
            let strings = |field: &str| {
                let at = entry.find(&format!(".{field}="))?;
                Some(concatenated(entry[at..].split_once('=')?.1))
            };
            let (_, method) = entry.split_once(".method= HTTP_").expect("a method");
            let method: String = method.chars().take_while(char::is_ascii_alphanumeric).collect();
            let method = if method == "MSEARCH" { "M-SEARCH".to_owned() } else { method };
            let start = [method.as_bytes(), b" ", &strings("request_url").expect("a target")].concat();
            let version = match entry.contains(".http_minor= 0") {
                true => Version::Http10,
                false => Version::Http11,
            };
            Message {
                name: String::from_utf8(concatenated(entry)).expect("text"),
                raw: strings("raw").expect("the message"),
                start,
                version,
                body: strings("body").unwrap_or_default(),
            }
        })
        .collect()
}

/// The string literals that stand behind each other at the start of `text`.
fn concatenated(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.trim_start();
    while let Some(behind) = rest.strip_prefix('"') {
        let (part, behind) = literal(behind, '"');
        bytes.extend(part);
        rest = behind.trim_start();
    }
    bytes
}

#[test]
fn messages_are_understood_as_their_authors_do() {
    let messages = messages();
    assert_eq!(messages.len(), 46);
    let (mut refused, mut read_differently) = (Vec::new(), Vec::new());
    for message in &messages {
        let prediction = predict(&with_hosts(&message.raw));
        match prediction.requests.first() {
            None => refused.push((message.name.as_str(), 0)),
            Some(Predicted { status: Some(status), .. }) => refused.push((message.name.as_str(), *status)),
            Some(request) if !is_understood(message, request) => read_differently.push(message.name.as_str()),
            Some(_) => {}
        }
    }
    let known: Vec<_> = HTTP_PARSER_REFUSED_HERE.iter().map(|(name, status, _)| (*name, *status)).collect();
    assert_eq!(refused, known, "what is refused here, and what is known to be");
    assert!(read_differently.is_empty(), "read differently here: {read_differently:?}");
}

fn is_understood(message: &Message, request: &Predicted) -> bool {
    request.start == message.start && request.version == message.version && request.body == message.body
}

fn every_message_is_answered_or_refused_however_it_is_split(driver: &Driver) {
    let mut inputs = Vec::new();
    for message in messages() {
        inputs.push((format!("{} with Host", message.name), with_hosts(&message.raw)));
        inputs.push((message.name, message.raw));
    }
    check_all(*driver, &inputs, 30, true);
}
