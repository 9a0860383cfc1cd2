//! Seeding against small servers that behave well and badly.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::todo::{JsonParser, NewTodo, TextLimits};

const TOKEN: &str = "abc.def.ghi";

/// What a server has seen: how often each body, by text, and how it answered.
#[derive(Default)]
struct Seen {
    accepted: HashMap<String, u64>,
    answers: u64,
}

/// A server on a free port of the loopback that answers each request as `answer` says, given the number of the request.
/// It ends with the test's process; connections end when the client closes them.
fn serve(answer: impl Fn(u64) -> &'static str + Send + Sync + 'static) -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (answer, shared) = (Arc::new(answer), Arc::clone(&seen));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, shared) = (Arc::clone(&answer), Arc::clone(&shared));
            thread::spawn(move || serve_connection(stream.unwrap(), address, &*answer, &shared));
        }
    });
    (address, seen)
}

fn serve_connection(
    mut stream: TcpStream,
    address: SocketAddr,
    answer: &dyn Fn(u64) -> &'static str,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut answers = String::new();
        while let Some((length, body)) = read_request(&bytes, address) {
            let mut seen = seen.lock().unwrap();
            let text = answer(seen.answers);
            seen.answers += 1;
            if text.contains("202 Accepted") {
                *seen.accepted.entry(body).or_default() += 1;
            }
            answers.push_str(text);
            bytes.drain(..length);
        }
        stream.write_all(answers.as_bytes())?;
        if answers.contains("Connection: close") {
            return stream.shutdown(std::net::Shutdown::Write);
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// The length and the body of a complete request, after checking that it is what the API asks for.
fn read_request(bytes: &[u8], address: SocketAddr) -> Option<(usize, String)> {
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(bytes).unwrap() else { return None };
    assert_eq!((request.method, request.path), (Some("POST"), Some("/todos")));
    let field = |name| {
        let field = request.headers.iter().find(|field| field.name == name).unwrap();
        std::str::from_utf8(field.value).unwrap().to_owned()
    };
    assert_eq!(field("Host"), address.to_string());
    assert_eq!(field("Authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(field("Content-Type"), "application/json");
    let length = head + field("Content-Length").parse::<usize>().unwrap();
    let body = bytes.get(head..length)?;
    let mut copy = body.to_vec();
    let mut parser = JsonParser::default();
    NewTodo::from_json(&mut copy, TextLimits::default(), &mut parser).unwrap();
    Some((length, String::from_utf8(body.to_vec()).unwrap()))
}

fn seed(address: SocketAddr, count: u64) -> Result<SeedReport, SeedError> {
    let progress = SeedProgress::plain(count, Box::new(io::sink()));
    seed_through_api(address, TOKEN, SeedPlan { count, variety: 1 }, &progress)
}

/// The bodies of the first `count` todos, as often as they occur.
fn expected(count: u64) -> HashMap<String, u64> {
    let mut bodies: HashMap<String, u64> = HashMap::new();
    for number in 0..count {
        let todo = SeedTodo::new(1, number);
        let mut body = serde_json::json!({"title": todo.title, "description": todo.description});
        if todo.completed {
            body["completed"] = true.into();
        }
        *bodies.entry(body.to_string()).or_default() += 1;
    }
    bodies
}

/// The accepted bodies with members in alphabetical order, as `serde_json` writes them.
fn accepted(seen: &Mutex<Seen>) -> HashMap<String, u64> {
    let seen = seen.lock().unwrap();
    let normal = |body: &String| serde_json::from_str::<serde_json::Value>(body).unwrap().to_string();
    seen.accepted.iter().map(|(body, times)| (normal(body), *times)).collect()
}

const ACCEPTED: &str =
    "HTTP/1.1 202 Accepted\r\ncontent-length: 15\r\ncontent-type: application/json\r\n\r\n{\"message\":\"ok\"}";
const ACCEPTED_AFTER_INTERIM: &str =
    "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy";

#[test]
fn every_todo_of_the_plan_arrives_once() {
    const OK: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 16\r\n\r\n{\"message\":\"ok\"}";
    for count in [1, 127, 128, 129, 5_000] {
        let (address, seen) = serve(|_| OK);
        let report = seed(address, count).unwrap();
        assert_eq!((report.accepted, report.retried), (count, 0));
        assert!(accepted(&seen) == expected(count), "other todos arrived than were planned");
    }
}

#[test]
fn interim_answers_are_skipped() {
    let (address, seen) = serve(|_| ACCEPTED_AFTER_INTERIM);
    assert_eq!(seed(address, 300).unwrap().accepted, 300);
    assert!(accepted(&seen) == expected(300), "other todos arrived than were planned");
}

#[test]
fn todos_answered_with_503_are_sent_again() {
    let (address, seen) = serve(|number| if number % 3 == 0 { BUSY } else { ACCEPTED_AFTER_INTERIM });
    let report = seed(address, 1_000).unwrap();
    assert_eq!(report.accepted, 1_000);
    assert!(report.retried >= 333, "{report:?}");
    assert!(report.to_string().contains("tried again: "), "{report}");
    assert!(accepted(&seen) == expected(1_000), "other todos arrived than were planned");
}

#[test]
fn another_answer_ends_it_with_its_text() {
    const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 27\r\n\r\n{\"error\":\"token\r\nexpired\"} ";
    let (address, _) = serve(|number| if number < 10 { ACCEPTED_AFTER_INTERIM } else { REFUSED });
    let error = seed(address, 100).unwrap_err();
    assert_eq!(error.accepted, 10);
    let text = error.to_string();
    assert!(text.starts_with("stopped after 10 todos: 127.0.0.1:"), "{text}");
    assert!(text.ends_with("the server answered 401: {\"error\":\"tokenexpired\"} "), "{text}");
    assert!(!format!("{error:?}").contains(TOKEN));
}

#[test]
fn a_server_that_closes_or_is_not_there_is_named() {
    const LAST: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (address, _) = serve(|_| LAST);
    let error = seed(address, 5_000).unwrap_err();
    assert!(error.accepted >= 1);
    assert!(error.to_string().contains("closed the connection") || error.to_string().contains("reset"), "{error}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = seed(free, 1).unwrap_err().to_string();
    assert!(text.starts_with(&format!("stopped after 0 todos: {free}: ")), "{text}");
}

#[test]
fn a_body_longer_than_announced_is_noticed() {
    // ACCEPTED announces one byte less than it sends.
    let (address, _) = serve(|_| ACCEPTED);
    let text = seed(address, 10).unwrap_err().to_string();
    assert!(text.ends_with("the server's answer cannot be read: it is not HTTP/1.1"), "{text}");
}
