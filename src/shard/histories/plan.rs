//! What the clients of a history send, and what plain HTTP says that they get.

use std::time::Duration;

use reactor::{Ending, Script, Simulation};

use super::lists::{LISTS, id, is_own};
use super::{IDLE_TIMEOUT, TOKEN};
use crate::http::Coding;
use crate::http::words::entity_tag::encoded_entity_tag;
use crate::todo::TodoId;

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// So many todos.
    Page(usize),
    /// One todo.
    Todo(TodoId),
}

/// What is expected of the answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// What the list has, of a version that is not older than that of the answer before.
    Read(Subject),
    /// The same for a client that has this version of the list.
    Revalidated(Subject, usize),
    /// This status, and this body if it matters.
    Status(u16, Option<&'static str>),
    /// 202 or 503, as the command's fate was; the text is in the command alone.
    Write(String),
    /// An error behind which the connection closes.
    Rejection,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is expected of its answer.
    pub expected: Expected,
    /// No body comes with the answer.
    pub is_head: bool,
    /// The connection ends behind the answer.
    pub closes: bool,
    /// `100 Continue` may come before the answer.
    pub may_continue: bool,
    /// Bytes of the script up to its end.
    pub end: usize,
}

/// How long a client is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Never for long.
    Short,
    /// For longer than any deadline, between two requests.
    Between,
    /// The same within the request of this number.
    Within(usize),
}

/// A client.
#[derive(Debug)]
pub struct Plan {
    /// What it does.
    pub script: Script,
    /// Its requests; those behind one that closes are not answered.
    pub asked: Vec<Asked>,
    /// What cuts its requests short.
    pub silence: Silence,
    /// Requests that are sent as a whole before the client falls silent or ends.
    pub whole: usize,
}

/// Lasts longer than each deadline.
const LONG_SILENCE: Duration = IDLE_TIMEOUT.saturating_mul(3);
const SHORT_SILENCE_MS: u64 = 200;

struct Writer<'s> {
    simulation: &'s Simulation,
    list: usize,
    client: usize,
    sends: Vec<u8>,
    asked: Vec<Asked>,
}

impl Writer<'_> {
    fn below(&self, bound: usize) -> usize {
        self.simulation.below(bound as u64) as usize
    }

    fn one_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn ask(&mut self, text: &str, expected: Expected) {
        let closes = expected == Expected::Rejection;
        self.sends.extend_from_slice(text.as_bytes());
        let (is_head, may_continue) = (text.starts_with("HEAD"), text.contains("100-continue"));
        self.asked.push(Asked { expected, is_head, closes, may_continue, end: self.sends.len() });
    }

    /// A request without a body.
    fn plain(&mut self, method: &str, target: &str, fields: &str, expected: Expected) {
        let agent = ["", "User-Agent: one\r\n", "User-Agent: other\r\nAccept: */*\r\n"][self.below(3)];
        let close = self.one_in(40);
        let connection = if close { "Connection: close\r\n" } else { "" };
        self.ask(&format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{agent}{fields}{connection}\r\n"), expected);
        if let Some(last) = self.asked.last_mut() {
            last.closes |= close;
        }
    }

    fn read(&mut self) {
        let length = LISTS[self.list][0].todos.len();
        let method = if self.one_in(6) { "HEAD" } else { "GET" };
        let (target, subject) = match self.below(10) {
            0 | 1 => ("/todos".to_owned(), Subject::Page(usize::MAX)),
            2 => {
                let number = self.below(length + 2);
                (format!("/todos/{}", id(number)), Subject::Todo(id(number)))
            }
            _ => {
                let limit = [1, 2, 10, 10, 10, 10, 100][self.below(7)];
                (format!("/todos?limit={limit}"), Subject::Page(limit))
            }
        };
        let knows = self.below(LISTS[self.list].len());
        let snapshot = &LISTS[self.list][knows].snapshot;
        let tag = match subject {
            Subject::Page(usize::MAX) => Some(snapshot.page(None, None).entity_tag),
            Subject::Page(limit) => Some(snapshot.page(None, Some(limit)).entity_tag),
            Subject::Todo(id) => snapshot.get(id).map(|entry| entry.entity_tag()),
        };
        match tag.filter(|_| self.one_in(4)) {
            Some(tag) => {
                let tag = encoded_entity_tag(tag, Coding::Identity);
                let field = format!("If-None-Match: {}\r\n", String::from_utf8_lossy(&tag));
                self.plain(method, &target, &field, Expected::Revalidated(subject, knows));
            }
            None => self.plain(method, &target, "", Expected::Read(subject)),
        }
    }

    /// A run of the same read, as load generators and proxies send it.
    fn run(&mut self) {
        let limit = [1, 10][self.below(2)];
        let text = format!("GET /todos?limit={limit} HTTP/1.1\r\nHost: h\r\n\r\n");
        for _ in 0..1 + self.below(30) {
            self.ask(&text, Expected::Read(Subject::Page(limit)));
        }
    }

    fn small(&mut self) {
        const OK: Expected = Expected::Status(200, Some("{\"status\":\"ok\"}"));
        match self.below(9) {
            0 | 1 => self.plain("GET", "/health", "", OK),
            2 => self.plain("HEAD", "/health", "", Expected::Status(200, None)),
            3 => self.plain("GET", "/nothing", "", Expected::Status(404, None)),
            4 => self.plain("GET", "/todos/none", "", Expected::Status(400, None)),
            5 => self.plain("GET", "/todos?limit=none", "", Expected::Status(400, None)),
            6 => self.plain("DELETE", "/todos", "", Expected::Status(405, None)),
            7 => self.plain("GET", "/todos", "If-Match: \"x\"\r\n", Expected::Status(412, None)),
            _ => self.plain("OPTIONS", "/todos", "", Expected::Status(204, None)),
        }
    }

    /// A head or a body that no server should go on behind.
    fn bad(&mut self) {
        let text = match self.below(8) {
            0 => "GET /todos HTTP/1.1\r\n\r\n".to_owned(),
            1 => "GET /todos HTTP/1.1\r\nHost : h\r\n\r\n".to_owned(),
            2 => "GET  /todos HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            3 => {
                "POST /todos HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
            }
            4 => format!("GET /todos HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(40_000)),
            5 => {
                "POST /todos HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n".to_owned()
                    + &"b".repeat(self.below(3_000))
            }
            6 => "POST /todos HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".to_owned(),
            _ => "GET /todos HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n".to_owned(),
        };
        self.ask(&text, Expected::Rejection);
    }

    fn write(&mut self) {
        let number = self.asked.len();
        let (key, new) = (format!("c{}r{number}", self.client), id(1_000_000 + self.client * 1000 + number));
        let body = format!("{{\"title\":\"{key}\",\"description\":\"{}\"}}", "d".repeat(self.below(900)));
        let token = format!("Authorization: Bearer {}\r\n", *TOKEN);
        let json = "Content-Type: application/json\r\n";
        let written = Expected::Write(key);
        let length = LISTS[self.list][0].todos.len();
        match self.below(10) {
            0..4 => self.with_body("POST", "/todos", &format!("{token}{json}"), &body, written),
            4 => self.with_body("PUT", &format!("/todos/{new}"), &format!("{token}{json}"), &body, written),
            5 => self.plain("DELETE", &format!("/todos/{new}"), &token, Expected::Write(new.to_string())),
            6 => self.with_body("POST", "/todos", json, &body, Expected::Status(401, None)),
            7 => {
                self.with_body("POST", "/todos", &format!("{token}{json}"), "{\"title\":", Expected::Status(400, None))
            }
            8 => {
                let fields = format!("{token}Content-Type: image/png\r\n");
                self.with_body("POST", "/todos", &fields, &body, Expected::Status(415, None));
            }
            _ => match (0..length).find(|number| !is_own(*number)) {
                Some(others) => {
                    self.plain("DELETE", &format!("/todos/{}", id(others)), &token, Expected::Status(403, None))
                }
                None => self.small(),
            },
        }
    }

    fn with_body(&mut self, method: &str, target: &str, fields: &str, body: &str, expected: Expected) {
        let waits = if self.one_in(5) { "Expect: 100-continue\r\n" } else { "" };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}{waits}");
        let text = if self.one_in(3) {
            let split = 1 + self.below(body.len());
            let (first, second) = body.split_at(split);
            let mut text = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
            for chunk in [first, second, ""] {
                if !chunk.is_empty() {
                    text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
                }
            }
            text + "0\r\n\r\n"
        } else {
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        self.ask(&text, expected);
    }
}

/// The plan of a client that reads this list.
pub fn plan(simulation: &Simulation, list: usize, client: usize) -> Plan {
    let mut writer = Writer { simulation, list, client, sends: Vec::new(), asked: Vec::new() };
    for _ in 0..1 + writer.below(10) {
        match writer.below(40) {
            0 => writer.bad(),
            1..5 => writer.small(),
            5..15 => writer.write(),
            15..18 => writer.run(),
            _ => writer.read(),
        }
    }
    let Writer { sends, asked, .. } = writer;
    let below = |bound: usize| simulation.below(bound as u64) as usize;
    let (mut silence, mut whole) = (Silence::Short, asked.len());
    let mut script = Script {
        comes_at: Duration::from_millis(simulation.below(100)),
        ending: if below(6) == 0 { Ending::Stays } else { Ending::ShutsDown },
        slowness: 1 + simulation.below(2),
        ..Script::default()
    };
    let start_of = |number: usize| if number == 0 { 0 } else { asked[number - 1].end };
    match below(12) {
        0 => script.ending = Ending::ResetsAfter(below(sends.len() + 1)),
        1 => script.reads_max = below(3_000),
        2 => {
            // It ends within a request.
            whole = below(asked.len());
            let known = if script.ending == Ending::Stays { 8 } else { 1 };
            let at = start_of(whole) + known + below(asked[whole].end - start_of(whole) - known);
            script.sends.extend_from_slice(&sends[..at]);
        }
        3 => {
            // The method of a request decides how its answer looks, so its first bytes come before.
            let number = below(asked.len());
            let at = start_of(number) + 8 + below(asked[number].end - start_of(number) - 8);
            script.silence = Some((at, LONG_SILENCE));
            (silence, whole) = (Silence::Within(number), number);
        }
        4 => {
            whole = below(asked.len());
            script.silence = Some((start_of(whole), LONG_SILENCE));
            silence = Silence::Between;
        }
        5..8 => {
            let pause = Duration::from_millis(simulation.below(SHORT_SILENCE_MS));
            script.silence = Some((below(sends.len() + 1), pause));
        }
        _ => {}
    }
    if script.sends.is_empty() {
        script.sends = sends;
    }
    Plan { script, asked, silence, whole }
}
