//! Content codings: the same list, smaller.

use std::io::Write;
use std::process::{Command, Stdio};

use million_rps::limits::ENCODED_PAGES_MAX;

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::metrics::{parse, total};
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::{Shared, on_both_drivers};
use crate::harness::token::token;

/// Enough for every kind of answer: small pages, copied ones, and a list of many pieces.
const TODOS: usize = 1500;
const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];
const TARGETS: [&str; 4] = ["/todos?limit=10", "/todos?limit=100", "/todos?limit=700", "/todos"];

static FILLED: Shared = Shared::new(Setup::new);

on_both_drivers!(crate::codings::filled =>
    each_coding_is_the_same_list,
    the_client_chooses,
    head_is_as_get,
    any_tag_of_the_list_is_unchanged,
    pipelined_requests_get_their_own_codings,
    what_does_not_pay_stays_identity,
);

mod own {
    use super::*;

    on_both_drivers!(std::convert::identity => nobody_can_keep_compression_from_others);
}

fn filled(driver: Driver) -> std::sync::Arc<Server> {
    let server = FILLED.with(driver);
    fill(&server, TODOS);
    server
}

/// At least so many todos.
fn fill(server: &Server, todos: usize) {
    static FILLING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = FILLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (mut client, token) = (server.connect(), token("codings"));
    let standing = client.call(&get("/todos")).expect(200).json().as_array().expect("a list").len();
    let missing = todos.saturating_sub(standing);
    for batch in (0..missing).collect::<Vec<_>>().chunks(100) {
        let requests = batch.iter().flat_map(|number| {
            let description = format!("what has to be done about number {number}, and why");
            post(&token, format!(r#"{{"title":"todo {number}","description":"{description}"}}"#)).bytes()
        });
        client.send(requests.collect::<Vec<u8>>());
        batch.iter().for_each(|_| drop(client.answer().expect(202)));
    }
    eventually("the todos show", || {
        let list = client.call(&get("/todos")).expect(200).json();
        (list.as_array().expect("a list").len() >= todos).then_some(())
    });
}

/// Asks until the encoder has made it.
fn encoded(client: &mut Client, target: &str, coding: &str) -> Answer {
    let request = get(target).field("Accept-Encoding", coding);
    eventually("the encoded list", || {
        let answer = client.call(&request).expect(200);
        assert_eq!(answer.required("Vary"), "Accept-Encoding");
        assert_eq!(answer.required("Cache-Control"), "no-cache");
        match answer.field("Content-Encoding") {
            Some(name) => {
                assert_eq!(name, coding);
                Some(answer)
            }
            None => {
                assert!(answer.json().is_array(), "until then it is identity");
                None
            }
        }
    })
}

/// By the usual command where there is one, else by a library.
fn decoded(coding: &str, body: &[u8]) -> String {
    let bytes = match coding {
        "gzip" => piped("gzip", body),
        "zstd" => zstd::stream::decode_all(body).expect("zstd frames"),
        _ => {
            let (mut plain, mut rest) = (Vec::new(), body);
            brotli::BrotliDecompress(&mut rest, &mut plain).expect("a brotli stream");
            assert!(rest.is_empty());
            plain
        }
    };
    String::from_utf8(bytes).expect("UTF-8")
}

fn piped(program: &str, body: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command is everywhere");
    let mut stdin = child.stdin.take().expect("piped");
    let body = body.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&body).expect("it reads all"));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    assert!(output.status.success(), "{program} takes it without a warning");
    output.stdout
}

fn each_coding_is_the_same_list(server: &Server) {
    let mut client = server.connect();
    for target in TARGETS {
        let plain = client.call(&get(target)).expect(200);
        assert_eq!(plain.field("Content-Encoding"), None);
        let tag = plain.required("ETag").trim_matches('"').to_owned();
        for coding in CODINGS {
            let answer = encoded(&mut client, target, coding);
            assert!(answer.body.len() * 2 < plain.body.len(), "{target} {coding}: {} bytes", answer.body.len());
            assert_eq!(decoded(coding, &answer.body), plain.text(), "{target} {coding}");
            assert_eq!(answer.required("ETag"), format!("\"{tag}-{coding}\""));
            assert_eq!(answer.field("Link"), plain.field("Link"));
            assert_eq!(answer.required("Content-Type"), "application/json");
        }
    }
    let metrics = parse(client.call(&get("/metrics")).expect(200).text());
    for coding in CODINGS {
        let label = format!("coding=\"{coding}\"");
        let [responses, plain, sent] = ["responses", "plain_bytes", "sent_bytes"]
            .map(|name| total(&metrics, &format!("million_rps_encoded_{name}_total"), &label));
        assert!(responses >= 4.0 && sent > 1000.0 && 2.0 * sent < plain, "{coding}: {responses} {plain} {sent}");
    }
    assert!(total(&metrics, "million_rps_encode_seconds_count", "") >= 12.0);
}

fn the_client_chooses(server: &Server) {
    let mut client = server.connect();
    for coding in CODINGS {
        encoded(&mut client, "/todos?limit=20", coding);
    }
    for (accepted, expected) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip;q=1, br;q=0.5", Some("gzip")),
        ("zstd, gzip;q=0.9", Some("zstd")),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("deflate", None),
        ("identity;q=0", None),
        ("gzip;q=5", None),
    ] {
        let answer = client.call(&get("/todos?limit=20").field("Accept-Encoding", accepted)).expect(200);
        assert_eq!(answer.field("Content-Encoding"), expected, "{accepted}");
    }
    let lines = get("/todos?limit=20").field("Accept-Encoding", "deflate").field("Accept-Encoding", "gzip");
    assert_eq!(client.call(&lines).expect(200).field("Content-Encoding"), Some("gzip"));
}

fn head_is_as_get(server: &Server) {
    let mut client = server.connect();
    for target in ["/todos?limit=10", "/todos"] {
        let answer = encoded(&mut client, target, "gzip");
        let head = client.call(&Request::new("HEAD", target).field("Accept-Encoding", "gzip")).expect(200);
        assert!(head.body.is_empty());
        for field in ["Content-Length", "Content-Encoding", "ETag", "Vary", "Cache-Control", "Link"] {
            assert_eq!(head.field(field), answer.field(field), "{target} {field}");
        }
    }
}

fn any_tag_of_the_list_is_unchanged(server: &Server) {
    let mut client = server.connect();
    let target = "/todos?limit=30";
    let plain = client.call(&get(target)).expect(200).required("ETag").to_owned();
    let gzip = encoded(&mut client, target, "gzip").required("ETag").to_owned();
    for accepted in ["gzip", "br", "identity"] {
        for (named, expected) in [
            (plain.clone(), &plain),
            (gzip.clone(), &gzip),
            (format!("W/{gzip}"), &gzip),
            (format!("\"x\", {gzip}"), &gzip),
        ] {
            let request = get(target).field("Accept-Encoding", accepted).field("If-None-Match", &named);
            // The same bytes twice: read, and remembered.
            for _ in 0..2 {
                let answer = client.call(&request).expect(304);
                assert_eq!(answer.required("ETag"), expected, "{accepted} {named}");
                assert_eq!(answer.required("Vary"), "Accept-Encoding");
                assert_eq!(answer.field("Content-Encoding"), None);
            }
        }
    }
    let other = gzip.replace("-gzip", "-xz");
    client.call(&get(target).field("If-None-Match", &other)).expect(200);
    client.call(&get(target).field("If-Match", &gzip)).expect(200);
    client.call(&get(target).field("If-Match", &other)).expect(412);
}

fn pipelined_requests_get_their_own_codings(server: &Server) {
    let mut client = server.connect();
    let kinds: Vec<(&str, Option<&str>)> = TARGETS
        .iter()
        .flat_map(|&target| [None, Some("gzip"), Some("br"), Some("zstd")].map(|coding| (target, coding)))
        .collect();
    for (target, coding) in &kinds {
        coding.map(|coding| encoded(&mut client, target, coding));
    }
    let ask = |(target, coding): &(&'static str, Option<&str>)| match coding {
        Some(coding) => get(*target).field("Accept-Encoding", coding),
        None => get(*target),
    };
    let asked: Vec<_> = kinds.iter().cycle().step_by(5).take(3 * kinds.len()).flat_map(|kind| [kind, kind]).collect();
    let mut sender = client.sender();
    let bytes: Vec<u8> = asked.iter().flat_map(|kind| ask(kind).bytes()).collect();
    let writer = std::thread::spawn(move || sender.write_all(&bytes).expect("the server reads all"));
    for (target, coding) in asked {
        let answer = client.answer().expect(200);
        assert_eq!(answer.field("Content-Encoding"), *coding);
        let text = coding.map_or_else(|| answer.text().to_owned(), |coding| decoded(coding, &answer.body));
        let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let expected = target.split('=').nth(1).map_or(TODOS, |limit| limit.parse().expect("a number"));
        assert_eq!(list.as_array().expect("a list").len(), expected);
    }
    writer.join().expect("written");
}

fn what_does_not_pay_stays_identity(server: &Server) {
    let mut client = server.connect();
    let page = client.call(&get("/todos?limit=5")).expect(200);
    let next = page.required("Link").split(['<', '>']).nth(1).expect("a link").to_owned();
    let one = format!("/todos/{}", page.json()[0]["id"].as_str().expect("an id"));
    for target in ["/todos?limit=1", &next, &one, "/health"] {
        for _ in 0..3 {
            let answer = client.call(&get(target).field("Accept-Encoding", "gzip")).expect(200);
            assert_eq!(answer.field("Content-Encoding"), None, "{target}");
        }
    }
}

/// Each write is in the next encoded list, and a download that has begun stays the list that it was.
#[test]
fn encoded_lists_follow_the_writes() {
    for driver in [Driver::IoUring, Driver::Epoll].into_iter().filter(|driver| driver.is_available()) {
        let server = Setup::new().driver(driver).start();
        fill(&server, 4 * TODOS);
        let (mut client, mut writer, token) = (server.connect(), server.connect(), token("codings"));
        for round in 0..2 {
            for coding in CODINGS {
                // So many lists that the sockets cannot take them at once.
                encoded(&mut client, "/todos", coding);
                let before = client.call(&get("/todos")).expect(200).text().to_owned();
                let request = get("/todos").field("Accept-Encoding", coding).bytes();
                let mut slow = server.connect();
                slow.send(request.repeat(16));
                // The write comes when the first is there, so the shard has read these requests before it.
                let first = slow.answer().expect(200);
                let title = format!("{coding} {round}");
                let write = post(&token, format!(r#"{{"title":"{title}"}}"#)).field("Prefer", "wait=30");
                writer.call(&write).expect(202);
                let answer = eventually("the new todo shows", || {
                    let answer = encoded(&mut client, "/todos", coding);
                    decoded(coding, &answer.body).contains(&title).then_some(answer)
                });
                assert_eq!(decoded(coding, &answer.body), client.call(&get("/todos")).expect(200).text());
                let lists: Vec<String> = std::iter::once(first)
                    .chain((1..16).map(|_| slow.answer().expect(200)))
                    .map(|answer| match answer.field("Content-Encoding") {
                        Some(coding) => decoded(coding, &answer.body),
                        None => answer.text().to_owned(),
                    })
                    .collect();
                assert_eq!(lists[0], before);
                let after = answer_text(&mut client);
                assert!(lists.iter().all(|list| *list == before || *list == after), "one list or the other");
            }
        }
    }
}

fn answer_text(client: &mut Client) -> String {
    client.call(&get("/todos")).expect(200).text().to_owned()
}

#[test]
fn curl_takes_every_coding() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("not run: this machine has no curl");
        return;
    }
    let server = Setup::new().driver(Driver::Epoll).start();
    fill(&server, TODOS);
    let mut client = server.connect();
    let features = Command::new("curl").arg("--version").output().expect("it is there").stdout;
    let features = String::from_utf8_lossy(&features).into_owned();
    for (coding, feature) in [("gzip", "libz"), ("br", "brotli"), ("zstd", "zstd")] {
        if !features.contains(feature) {
            eprintln!("not run: this curl has no {coding}");
            continue;
        }
        for target in TARGETS {
            encoded(&mut client, target, coding);
            let url = format!("http://{}{target}", server.address);
            let accept = format!("Accept-Encoding: {coding}");
            let output = Command::new("curl").args(["-sS", "--compressed", "-H", &accept, &url]).output();
            let output = output.expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let plain = client.call(&get(target)).expect(200);
            assert!(output.stdout == plain.body, "{coding} {target}");
        }
    }
}

#[test]
fn it_can_be_switched_off() {
    let server = Setup::new().driver(Driver::Epoll).set("COMPRESSION", "off").start();
    fill(&server, 50);
    let mut client = server.connect();
    for _ in 0..5 {
        let answer = client.call(&get("/todos?limit=50").field("Accept-Encoding", "gzip, br")).expect(200);
        assert_eq!(answer.field("Content-Encoding"), None);
    }
    let metrics = parse(client.call(&get("/metrics")).expect(200).text());
    assert_eq!(total(&metrics, "million_rps_encode_seconds_count", ""), 0.0);
}

/// The places of a list are taken by whoever comes first; then comes who is asked for, and the whole list has its own.
fn nobody_can_keep_compression_from_others(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    fill(&server, 200 + 3 * ENCODED_PAGES_MAX);
    let mut client = server.connect();
    let ask = |limit: usize, coding: &str| get(format!("/todos?limit={limit}")).field("Accept-Encoding", coding);
    for coding in CODINGS {
        // More pages than there are places, and each asked for again until the encoder has looked at all.
        for _ in 0..3 {
            for limit in 200..200 + 3 * ENCODED_PAGES_MAX {
                client.call(&ask(limit, coding)).expect(200);
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        encoded(&mut client, "/todos", coding);
    }
    // What many ask for finds a place, too, while others go on asking for this and that.
    let popular = get("/todos?limit=77").field("Accept-Encoding", "gzip");
    eventually("the page that is asked for", || {
        for limit in 200..200 + 3 * ENCODED_PAGES_MAX {
            client.call(&ask(limit, "gzip")).expect(200);
            client.send(popular.bytes().repeat(10));
            let answers: Vec<Answer> = (0..10).map(|_| client.answer().expect(200)).collect();
            if answers.iter().any(|answer| answer.field("Content-Encoding") == Some("gzip")) {
                return Some(());
            }
        }
        None
    });
    encoded(&mut client, "/todos", "gzip");
}
