//! What is asked for, how, and what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::Plan;
use crate::candidate::{Candidate, Kind};
use crate::client::{Client, ResponseHead, get};
use crate::server::Server;

/// Rivals of the headline: the two cheapest, the best known one, and the one that stands for what was replaced.
const HEADLINE_RIVALS: [&str; 4] = ["may_minihttp", "xitca-web", "nginx", "go-manner"];
/// Writes are taken within it after the start.
const WRITES_MAX: Duration = Duration::from_secs(30);
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
    /// `GET /todos?limit=10`, and a write in every twentieth place: the part `mixed`
    #[value(skip)]
    Mixed,
}

impl Load {
    /// The request target.
    pub fn target(self) -> &'static str {
        match self {
            Load::Ten | Load::Unchanged | Load::Mixed => "/todos?limit=10",
            Load::Hundred => "/todos?limit=100",
            Load::All => "/todos",
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
            Load::Mixed => "limit=10 with 5 % writes",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Load::Ten => "limit-10",
            Load::Hundred => "limit-100",
            Load::All => "whole-list",
            Load::Unchanged => "unchanged",
            Load::Mixed => "mixed",
        }
    }

    /// Ours may cost so much more than the cheaper floor.
    pub fn floor_ratio_max(self) -> f64 {
        match self {
            Load::Ten | Load::Mixed => 1.05,
            Load::Hundred | Load::Unchanged => 1.10,
            Load::All => 1.15,
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
            Load::Ten | Load::Hundred => true,
        }
    }
}

/// Our responses, which the others return.
pub struct Responses(Vec<(Load, Vec<u8>)>);

impl Responses {
    /// Asks ours.
    ///
    /// # Errors
    /// The connection is broken, or the answer has another status than expected.
    pub fn capture(server: &Server, loads: &[Load]) -> io::Result<Responses> {
        let mut responses: Vec<(Load, Vec<u8>)> = Vec::new();
        for load in loads.iter().copied() {
            if !responses.iter().any(|(captured, _)| *captured == load) {
                let mut client = Client::connect(server.address())?;
                let tag = entity_tag(&mut client, load)?;
                let (head, body) = ask(&mut client, load, tag.as_deref())?;
                responses.push((load, [head.bytes, body].concat()));
            }
        }
        Ok(Responses(responses))
    }

    /// The response to this load; nothing when it was not captured.
    pub fn to(&self, load: Load) -> &[u8] {
        self.0.iter().find(|(captured, _)| *captured == load).map_or(&[], |(_, response)| response)
    }
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

/// Checks that a server returns the status and the body of this response.
///
/// # Errors
/// It does not.
pub fn check(server: &Server, load: Load, tag: Option<&str>, response: &[u8]) -> io::Result<()> {
    let (_, body) = ask(&mut Client::connect(server.address())?, load, tag)?;
    let head_end = response.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    if response[head_end..] == body {
        Ok(())
    } else {
        Err(io::Error::other(format!("its body has {} bytes, and is not that of ours", body.len())))
    }
}

/// The length of a server's response, head and body.
///
/// # Errors
/// The connection is broken, or the answer has another status than expected.
pub fn response_bytes(server: &Server, load: Load) -> io::Result<usize> {
    let mut client = Client::connect(server.address())?;
    let tag = entity_tag(&mut client, load)?;
    ask(&mut client, load, tag.as_deref()).map(|(head, body)| head.bytes.len() + body.len())
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

fn ask(client: &mut Client, load: Load, tag: Option<&str>) -> io::Result<(ResponseHead, Vec<u8>)> {
    let condition = tag.map(|tag| format!("If-None-Match: {tag}\r\n")).unwrap_or_default();
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{condition}\r\n", load.target());
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
