//! What is asked for, how, and what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::Plan;
use crate::candidate::{Candidate, Kind};
use crate::client::{Client, ResponseHead, get};
use crate::server::Server;
use crate::unlike::{self, Requests};

/// Rivals of the headline: the two cheapest, the best known one, and the one that stands for what was replaced.
const HEADLINE_RIVALS: [&str; 4] = ["may_minihttp", "xitca-web", "nginx", "go-manner"];
/// Writes are taken within it after the start.
const WRITES_MAX: Duration = Duration::from_secs(30);
/// The encoder has made what was asked for within it.
const ENCODED_MAX: Duration = Duration::from_secs(10);
/// Rivals with many connections.
const CROWDED_RIVALS: [&str; 1] = ["nginx"];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// `GET /todos?limit=10`
    Ten,
    /// `GET /todos?limit=100`
    Hundred,
    /// `GET /todos`: the whole list
    All,
    /// `GET /todos?limit=10` with an `If-None-Match` that matches: 304
    Unchanged,
    /// `GET /todos?limit=10` of eight clients in turn, in the codings that each takes
    Unlike,
    /// `GET /todos?limit=N` with any N from 1 to 100
    RandomLimits,
    /// `GET /todos?limit=10` with heads of 1.5 kB, as many as there are connections
    Cookies,
    /// `GET /todos?limit=10`, and a write in every twentieth place: the part `mixed`
    #[value(skip)]
    Mixed,
}

impl Load {
    /// The request target.
    pub fn target(self) -> &'static str {
        match self {
            Load::Ten | Load::Unchanged | Load::Mixed | Load::Unlike | Load::Cookies => "/todos?limit=10",
            Load::RandomLimits => "/todos?limit=1",
            Load::Hundred => "/todos?limit=100",
            Load::All => "/todos",
        }
    }

    /// The requests of a load that has several.
    pub fn requests(self, connections: usize) -> Option<Requests> {
        match self {
            Load::Unlike => Some(unlike::clients(self.target())),
            Load::RandomLimits => Some(unlike::random_limits()),
            Load::Cookies => Some(unlike::cookies(self.target(), connections)),
            Load::Ten | Load::Hundred | Load::All | Load::Unchanged | Load::Mixed => None,
        }
    }

    /// The same without a condition, and without writes.
    pub fn unconditional(self) -> Load {
        match self {
            Load::Unchanged | Load::Mixed => Load::Ten,
            other => other,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Load::Ten => "limit=10",
            Load::Hundred => "limit=100",
            Load::All => "the whole list",
            Load::Unchanged => "limit=10, unchanged (304)",
            Load::Unlike => "limit=10 of eight clients in turn",
            Load::RandomLimits => "limit=1 to 100 at random",
            Load::Cookies => "limit=10 with 1.5 kB of head, another for each connection",
            Load::Mixed => "limit=10 with 5 % writes",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Load::Ten => "limit-10",
            Load::Hundred => "limit-100",
            Load::All => "whole-list",
            Load::Unchanged => "unchanged",
            Load::Unlike => "unlike",
            Load::RandomLimits => "random-limits",
            Load::Cookies => "cookies",
            Load::Mixed => "mixed",
        }
    }

    /// Responses of ours and of a floor may differ by so much of their length: `false` and `true` differ in length, and live
    /// writes change one into the other.
    pub fn length_difference_max(self) -> f64 {
        match self {
            // A list that has just changed is sent as it is until the encoder has made its codings.
            Load::Unlike => 0.05,
            _ => 0.01,
        }
    }

    /// Ours may cost so much more than the cheaper floor.
    pub fn floor_ratio_max(self) -> f64 {
        match self {
            Load::Ten | Load::Mixed => 1.05,
            Load::Hundred | Load::Unchanged | Load::Unlike | Load::Cookies => 1.10,
            Load::All | Load::RandomLimits => 1.15,
        }
    }
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// What is asked for.
    pub load: Load,
    /// Requests that a connection sends together.
    pub depth: usize,
    /// Connections.
    pub connections: usize,
    /// Of whom it is; `None` is everybody.
    rivals: Option<&'static [&'static str]>,
}

/// The cells of a plan.
pub fn planned(plan: Plan) -> Vec<Cell> {
    let cells = |load, depths: &[usize], connections, rivals| -> Vec<Cell> {
        depths.iter().map(|depth| Cell { load, depth: *depth, connections, rivals }).collect()
    };
    match plan {
        Plan::Headline => cells(Load::Ten, &[1, 16, 64], 64, Some(&HEADLINE_RIVALS)),
        Plan::Full => [
            cells(Load::Ten, &[1, 16, 64], 64, None),
            cells(Load::Hundred, &[1, 16], 64, None),
            cells(Load::All, &[1], 64, None),
            cells(Load::Unchanged, &[1, 16], 64, None),
            cells(Load::Unlike, &[1, 16, 64], 64, None),
            cells(Load::RandomLimits, &[1, 16], 64, None),
            cells(Load::Cookies, &[1, 16], 64, None),
            cells(Load::Ten, &[1, 16], 1_000, Some(&CROWDED_RIVALS)),
            cells(Load::Ten, &[1, 16], 10_000, Some(&CROWDED_RIVALS)),
        ]
        .concat(),
    }
}

/// All combinations, of everybody.
pub fn product(loads: &[Load], depths: &[usize], connections: &[usize]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for load in loads {
        for connections in connections {
            let cell = |depth: &usize| Cell { load: *load, depth: *depth, connections: *connections, rivals: None };
            cells.extend(depths.iter().map(cell));
        }
    }
    cells
}

impl Cell {
    /// What the table is called.
    pub fn title(&self) -> String {
        format!("{}, depth {}, {} connections", self.load.title(), self.depth, self.connections)
    }

    /// The name of its drawing.
    pub fn file(&self) -> String {
        format!("{}-depth-{}-connections-{}", self.load.file(), self.depth, self.connections)
    }

    /// Whether the plan measures the candidate in this cell.
    pub fn is_for(&self, candidate: &Candidate) -> bool {
        candidate.kind != Kind::Rival || self.rivals.is_none_or(|rivals| rivals.contains(&candidate.name))
    }

    /// Whether the candidate knows this kind of request.
    pub fn can_be_answered_by(&self, candidate: &Candidate) -> bool {
        match self.load {
            Load::Unchanged => candidate.answers_conditional_requests(),
            Load::Mixed => candidate.takes_writes(),
            Load::All => candidate.holds_long_lists(),
            // Others' servers here return a constant.
            Load::Unlike | Load::RandomLimits | Load::Cookies => candidate.kind != Kind::Rival,
            Load::Ten | Load::Hundred => true,
        }
    }
}

/// Our responses, which the others return: of each load one, or one for each of its requests.
pub struct Responses(Vec<(Load, Vec<Vec<u8>>)>);

impl Responses {
    /// Asks ours.
    ///
    /// # Errors
    /// The connection is broken, or the answer has another status than expected.
    pub fn capture(server: &Server, loads: &[Load]) -> io::Result<Responses> {
        let mut responses: Vec<(Load, Vec<Vec<u8>>)> = Vec::new();
        for load in loads.iter().copied() {
            if !responses.iter().any(|(captured, _)| *captured == load) {
                let mut client = Client::connect(server.address())?;
                let tag = entity_tag(&mut client, load)?;
                let requests = requests(load, tag.as_deref());
                let captured = requests.iter().map(|request| capture_one(&mut client, load, request));
                responses.push((load, captured.collect::<io::Result<_>>()?));
            }
        }
        Ok(Responses(responses))
    }

    fn all(&self, load: Load) -> &[Vec<u8>] {
        self.0.iter().find(|(captured, _)| *captured == load).map_or(&[], |(_, responses)| responses)
    }

    /// The response to this load, or to its first request; nothing when it was not captured.
    pub fn to(&self, load: Load) -> &[u8] {
        self.all(load).first().map_or(&[], Vec::as_slice)
    }

    /// Those to its other requests.
    pub fn behind(&self, load: Load) -> &[Vec<u8>] {
        self.all(load).get(1..).unwrap_or_default()
    }

    /// Checks that a server returns the statuses and the bodies of these responses.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, server: &Server, load: Load, tag: Option<&str>) -> io::Result<()> {
        let mut client = Client::connect(server.address())?;
        for (request, response) in requests(load, tag).iter().zip(self.all(load)) {
            let (_, body) = ask(&mut client, load, request)?;
            let head_end = response.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
            if response[head_end..] != body {
                return Err(io::Error::other(format!("its body has {} bytes, and is not that of ours", body.len())));
            }
        }
        Ok(())
    }
}

/// The response to a request, in a coding if there is one that its client takes: the encoder makes it when it is asked for.
fn capture_one(client: &mut Client, load: Load, request: &str) -> io::Result<Vec<u8>> {
    let give_up_at = Instant::now() + ENCODED_MAX;
    loop {
        let (head, body) = ask(client, load, request)?;
        let is_final = !request.contains("Accept-Encoding") || head.field("content-encoding").is_some();
        if is_final || Instant::now() > give_up_at {
            return Ok([head.bytes, body].concat());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The requests of a load: one that all connections send, or several. Those with cookies have the same answer.
fn requests(load: Load, tag: Option<&str>) -> Vec<String> {
    let condition = tag.map(|tag| format!("If-None-Match: {tag}\r\n")).unwrap_or_default();
    let one = || format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{condition}\r\n", load.target());
    load.requests(1).map_or_else(|| vec![one()], |requests| requests.texts)
}

/// The entity tag that a conditional load has to send.
///
/// # Errors
/// The connection is broken, or there is no entity tag.
pub fn entity_tag(client: &mut Client, load: Load) -> io::Result<Option<String>> {
    if load != Load::Unchanged {
        return Ok(None);
    }
    let (head, _) = client.exchange(&get(load.target()))?;
    head.field("etag").map(|tag| Some(tag.to_owned())).ok_or_else(|| io::Error::other("the list has no ETag"))
}

/// The length of a server's response, head and body.
///
/// # Errors
/// The connection is broken, or the answer has another status than expected.
pub fn response_bytes(server: &Server, load: Load) -> io::Result<usize> {
    let mut client = Client::connect(server.address())?;
    let tag = entity_tag(&mut client, load)?;
    let request = &requests(load, tag.as_deref())[0];
    ask(&mut client, load, request).map(|(head, body)| head.bytes.len() + body.len())
}

/// Waits until a write is taken: Kafka makes a topic when it is first written to, which takes a moment.
///
/// # Errors
/// The connection is broken, or writes are refused for too long.
pub fn wait_for_writes(address: SocketAddr, token: &str) -> io::Result<()> {
    let body = "{\"title\":\"The first write\"}";
    let request = format!(
        "POST /todos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let give_up_at = Instant::now() + WRITES_MAX;
    let mut client = Client::connect(address)?;
    loop {
        let (head, _) = client.exchange(request.as_bytes())?;
        if head.status == 202 {
            return Ok(());
        }
        if Instant::now() > give_up_at {
            return Err(io::Error::other(format!("writes got {} for {WRITES_MAX:?}", head.status)));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ask(client: &mut Client, load: Load, request: &str) -> io::Result<(ResponseHead, Vec<u8>)> {
    let (head, body) = client.exchange(request.as_bytes())?;
    let expected = if load == Load::Unchanged { 304 } else { 200 };
    if head.status != expected {
        return Err(io::Error::other(format!("{} got {} instead of {expected}", load.title(), head.status)));
    }
    Ok((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::CANDIDATES;

    #[test]
    fn the_plans_name_rivals_that_exist() {
        for name in HEADLINE_RIVALS.iter().chain(&CROWDED_RIVALS) {
            assert!(Candidate::named(name).is_some_and(|candidate| candidate.kind == Kind::Rival), "{name}");
        }
        let headline = planned(Plan::Headline);
        let count = |cell: &Cell| CANDIDATES.iter().filter(|one| cell.is_for(one)).count();
        assert_eq!(headline.iter().map(count).collect::<Vec<_>>(), [7, 7, 7]);
        let full = planned(Plan::Full);
        assert!(headline.iter().all(|cell| full.iter().any(|other| other.title() == cell.title())));
    }

    #[test]
    fn drawings_have_names_of_their_own() {
        let mut files: Vec<String> = planned(Plan::Full).iter().map(Cell::file).collect();
        let all = files.len();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), all);
    }
}
