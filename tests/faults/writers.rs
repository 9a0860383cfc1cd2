//! Clients that write without a pause over kept connections, many requests in flight, and remember every answer.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::request::{Request, delete, post, put};
use crate::harness::token::token;
use crate::history::{Action, Fate, History, Life, Write};
use crate::within;

/// The user whose todos they are.
pub const USER: &str = "anna";

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with a thread and todos of its own.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Todos of each that are alive at a time.
    pub todos: usize,
    /// Writes of one todo; the last one deletes it, and another takes its place.
    pub writes_of_a_todo: usize,
    /// Bytes of each description.
    pub description_bytes: usize,
    /// Ends by itself when so many writes have been accepted.
    pub goal: usize,
    /// Pause of each connection between its groups of requests, so that servers on the same machine get their share.
    pub pause: Duration,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            connections: 4,
            depth: 16,
            todos: 20,
            writes_of_a_todo: 9,
            description_bytes: 0,
            goal: usize::MAX,
            pause: Duration::from_millis(20),
        }
    }
}

/// Where clients connect to; it changes when an API process is replaced.
#[derive(Debug, Clone)]
pub struct Target(Arc<Mutex<SocketAddr>>);

impl Target {
    /// The API at this address.
    pub fn new(address: SocketAddr) -> Target {
        Target(Arc::new(Mutex::new(address)))
    }

    /// From now on clients connect elsewhere.
    pub fn move_to(&self, address: SocketAddr) {
        *self.0.lock().expect("unpoisoned") = address;
    }

    fn address(&self) -> SocketAddr {
        *self.0.lock().expect("unpoisoned")
    }
}

/// Numbers clients, so that no two of them give the same title.
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// Running clients. They stop when this is dropped.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<History>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

impl Writers {
    /// Starts them, divided among the targets.
    pub fn start(load: Load, targets: &[Target]) -> Writers {
        let shared = Arc::new(Shared::default());
        let threads = (0..load.connections).map(|number| {
            let (shared, target) = (shared.clone(), targets[number % targets.len()].clone());
            let name = CLIENTS.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || Writer::new(name, load, target, shared).run())
        });
        Writers { threads: threads.collect(), shared }
    }

    /// Waits until so many more writes have been accepted.
    pub fn await_accepted(&self, more: usize) {
        let goal = self.shared.accepted.load(Ordering::Relaxed) + more;
        within(&format!("{more} accepted writes"), || {
            self.check();
            (self.shared.accepted.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Writes that have been accepted.
    #[allow(dead_code, reason = "the suite `cluster` asks")]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Writes that have been refused.
    #[allow(dead_code, reason = "the suite `cluster` asks")]
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes have been refused.
    pub fn await_refused(&self, more: usize) {
        let goal = self.shared.refused.load(Ordering::Relaxed) + more;
        within(&format!("{more} refused writes"), || {
            self.check();
            (self.shared.refused.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// A client ends early only when it got what no client should get; its panic says what.
    fn check(&self) {
        let all_run = self.threads.iter().all(|thread| !thread.is_finished());
        assert!(all_run || self.shared.stop.load(Ordering::Relaxed), "a client has ended");
    }

    /// Lets them take the answers that they wait for, and returns what they know.
    pub fn finish(mut self) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until they have reached their goal.
    pub fn until_goal(mut self) -> History {
        self.join()
    }

    fn join(&mut self) -> History {
        let mut history = History::default();
        for thread in self.threads.drain(..) {
            history.merge(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        history
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The test has failed already.
            let _ = thread.join();
        }
    }
}

struct Writer {
    number: usize,
    load: Load,
    target: Target,
    shared: Arc<Shared>,
    token: String,
    client: Option<Client>,
    history: History,
    /// Places of living todos in the history; `None` where a new one is due.
    alive: Vec<Option<usize>>,
    turn: usize,
}

impl Writer {
    fn new(number: usize, load: Load, target: Target, shared: Arc<Shared>) -> Writer {
        Writer {
            number,
            load,
            target,
            shared,
            token: token(USER),
            client: None,
            history: History::default(),
            alive: vec![None; load.todos],
            turn: 0,
        }
    }

    fn run(mut self) -> History {
        while !self.shared.stop.load(Ordering::Relaxed) && self.shared.accepted.load(Ordering::Relaxed) < self.load.goal
        {
            self.connect();
            let Some(client) = self.client.take() else { continue };
            let group = self.next_group();
            self.client = self.exchange(client, group);
            self.retire();
            std::thread::sleep(self.load.pause);
        }
        self.history
    }

    fn connect(&mut self) {
        if self.client.is_some() {
            return;
        }
        match TcpStream::connect_timeout(&self.target.address(), Duration::from_secs(10)) {
            Ok(stream) => self.client = Some(Client::new(stream)),
            // The API process is down.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }

    /// The next requests, and the place in the history of the write that each is.
    fn next_group(&mut self) -> Vec<(Request, usize, usize)> {
        let mut group = Vec::with_capacity(self.load.depth);
        let mut created = Vec::new();
        for _ in 0..self.load.depth {
            let slot = self.turn % self.alive.len();
            self.turn += 1;
            let place = *self.alive[slot].get_or_insert_with(|| {
                self.history.lives.push(Life::default());
                self.history.lives.len() - 1
            });
            if created.contains(&place) {
                // Its id is not known yet.
                continue;
            }
            let (request, action, title) = self.next_write(place);
            let life = &mut self.history.lives[place];
            if action == Action::Create {
                created.push(place);
            } else if action == Action::Delete {
                self.alive[slot] = None;
            }
            life.writes.push(Write { action, title, fate: Fate::Unanswered });
            group.push((request, place, life.writes.len() - 1));
        }
        group
    }

    fn next_write(&self, place: usize) -> (Request, Action, String) {
        let life = &self.history.lives[place];
        let title = format!("client {} todo {place} write {}", self.number, life.writes.len());
        let description = "d".repeat(self.load.description_bytes);
        match &life.id {
            None => {
                let body = serde_json::json!({ "title": title, "description": description });
                (post(&self.token, body.to_string()), Action::Create, title)
            }
            Some(id) if life.writes.len() + 1 >= self.load.writes_of_a_todo => {
                (delete(&self.token, id), Action::Delete, title)
            }
            Some(id) => {
                // Members that are absent keep what earlier writes have set.
                let body = match life.writes.len() % 3 {
                    0 => serde_json::json!({ "title": title }),
                    1 => serde_json::json!({ "title": title, "completed": life.writes.len().is_multiple_of(2) }),
                    _ => serde_json::json!({ "title": title, "description": description }),
                };
                (put(&self.token, id, body.to_string()), Action::Update, title)
            }
        }
    }

    /// Sends a group at once and takes its answers; `None` when the connection has ended.
    fn exchange(&mut self, mut client: Client, group: Vec<(Request, usize, usize)>) -> Option<Client> {
        let bytes: Vec<u8> = group.iter().flat_map(|(request, ..)| request.bytes()).collect();
        let sent_at = Instant::now();
        // When the server has gone, the answers that it gave before may still be there.
        let _ = client.try_send(&bytes);
        let mut is_refused = false;
        for (_, place, write) in group {
            let answer = client.answer_unless_cut_off()?;
            self.history.slowest_answer = self.history.slowest_answer.max(sent_at.elapsed());
            let life = &mut self.history.lives[place];
            match answer.status {
                202 => {
                    life.writes[write].fate = Fate::Accepted;
                    if life.writes[write].action == Action::Create {
                        life.id = Some(answer.json()["id"].as_str().expect("an id").to_owned());
                    }
                    self.shared.accepted.fetch_add(1, Ordering::Relaxed);
                    self.history.last_accepted_at = Some(Instant::now());
                }
                503 => {
                    assert!(answer.field("Retry-After").is_some(), "{answer:?}");
                    life.writes[write].fate = Fate::Refused;
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    is_refused = true;
                }
                _ => panic!("a write was answered with {answer:?}"),
            }
            if answer.closes() {
                return None;
            }
        }
        if is_refused {
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(client)
    }

    /// Todos whose id will never be known are left alone.
    fn retire(&mut self) {
        for slot in &mut self.alive {
            if slot.is_some_and(|place| self.history.lives[place].id.is_none()) {
                *slot = None;
            }
        }
    }
}
