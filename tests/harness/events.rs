//! A client of the change feed, as the HTML standard reads an event stream, and a recorder that keeps a list by it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::request::{Request, get};
use super::{PATIENCE, eventually};

/// How long a look for what comes next waits.
const LOOK: Duration = Duration::from_millis(20);

/// Events that a recorder takes in before it looks at anything else.
const TAKE_MAX: usize = 200;

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its type.
    pub kind: String,
    /// Its data.
    pub data: Value,
    /// The last id as of this event.
    pub id: String,
}

/// What a look at the stream finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    Event(Event),
    /// Nothing more for now.
    Nothing,
    /// The stream has ended.
    Ended,
}

/// A stream of events.
#[derive(Debug)]
pub struct EventStream {
    stream: TcpStream,
    /// The head, with its empty line.
    pub head: String,
    is_chunked: bool,
    /// Bytes behind the head that are in no line yet, and those that are in no chunk yet.
    text: Vec<u8>,
    raw: Vec<u8>,
    has_ended: bool,
    /// Whether the end was said, and did not just happen.
    pub ended_whole: bool,
    kind: String,
    data: String,
    /// The last id.
    pub id: String,
    /// After how many milliseconds to connect again.
    pub retry_ms: Option<u64>,
    /// Comments so far.
    pub comments: usize,
}

impl EventStream {
    /// Follows from a target such as `/todos/events?limit=10`.
    pub fn open(address: SocketAddr, target: &str) -> EventStream {
        EventStream::ask(address, &get(target))
    }

    /// Follows from a position.
    pub fn open_behind(address: SocketAddr, position: &str) -> EventStream {
        EventStream::ask(address, &get("/todos/events").field("Last-Event-ID", position))
    }

    /// Sends a request for a stream.
    ///
    /// # Panics
    /// When the answer is none.
    pub fn ask(address: SocketAddr, request: &Request) -> EventStream {
        EventStream::try_ask(address, request).expect("the server answers")
    }

    /// The same of a server that may end meanwhile.
    pub fn try_ask(address: SocketAddr, request: &Request) -> Option<EventStream> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.write_all(&request.bytes()).ok()?;
        EventStream::read_head(stream)
    }

    /// Reads the head of an answer on a connection on which a stream was asked for.
    pub fn read_head(mut stream: TcpStream) -> Option<EventStream> {
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(length) if length > 0 => raw.extend_from_slice(&piece[..length]),
                _ => return None,
            }
        };
        let head = String::from_utf8(raw[..end].to_vec()).expect("heads are ASCII");
        raw.drain(..end);
        let is_chunked = head.contains("\r\nTransfer-Encoding: chunked\r\n");
        let mut events = EventStream {
            stream,
            head,
            is_chunked,
            text: Vec::new(),
            raw,
            has_ended: false,
            ended_whole: false,
            kind: String::new(),
            data: String::new(),
            id: String::new(),
            retry_ms: None,
            comments: 0,
        };
        events.take_chunks();
        Some(events)
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// The next event.
    ///
    /// # Panics
    /// When none comes within the patience of the tests, or the stream ends.
    pub fn next(&mut self) -> Event {
        match self.look(PATIENCE) {
            Look::Event(event) => event,
            other => panic!("an event should come, and not {other:?}; {}", self.head),
        }
    }

    /// Checks that the stream ends, and that no event comes before.
    pub fn assert_ended(&mut self) {
        assert_eq!(self.look(PATIENCE), Look::Ended);
    }

    /// What comes within this time.
    pub fn look(&mut self, wait: Duration) -> Look {
        let give_up_at = Instant::now() + wait;
        loop {
            if let Some(event) = self.take_event() {
                return Look::Event(event);
            }
            if self.has_ended {
                return Look::Ended;
            }
            let rest = give_up_at.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Look::Nothing;
            }
            self.receive(rest);
        }
    }

    fn receive(&mut self, wait: Duration) {
        self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).expect("a deadline can be set");
        let mut piece = vec![0; 256 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => self.has_ended = true,
            Ok(length) => self.raw.extend_from_slice(&piece[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => self.has_ended = true,
        }
        self.take_chunks();
    }

    /// Moves what is whole out of its chunks.
    fn take_chunks(&mut self) {
        if !self.is_chunked {
            self.text.append(&mut self.raw);
            return;
        }
        let mut at = 0;
        while let Some(end) = self.raw[at..].windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[at..at + end]).expect("sizes are ASCII");
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("{size:?} is no size of a chunk"));
            let start = at + end + 2;
            if self.raw.len() < start + size + 2 {
                break;
            }
            assert_eq!(&self.raw[start + size..start + size + 2], b"\r\n", "a chunk ends where it says");
            self.text.extend_from_slice(&self.raw[start..start + size]);
            at = start + size + 2;
            if size == 0 {
                (self.has_ended, self.ended_whole) = (true, true);
                assert_eq!(self.raw.len(), at, "nothing stands behind the last chunk");
            }
        }
        self.raw.drain(..at);
    }

    /// The next event of what has come; reads the lines before it.
    fn take_event(&mut self) -> Option<Event> {
        while let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            let line = std::str::from_utf8(&line[..end]).expect("UTF-8");
            assert!(!line.contains('\r'), "lines end in LF alone: {line:?}");
            let (name, value) = line.split_once(':').map_or((line, ""), |(name, value)| (name, value));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                _ if line.is_empty() => {
                    let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
                    if !data.is_empty() {
                        let data = serde_json::from_str(data.trim_end_matches('\n'))
                            .unwrap_or_else(|error| panic!("data is JSON on one line ({error}): {data:?}"));
                        return Some(Event { kind, data, id: self.id.clone() });
                    }
                }
                "" => self.comments += 1,
                "event" => value.clone_into(&mut self.kind),
                "data" => {
                    self.data.push_str(value);
                    self.data.push('\n');
                }
                "id" => value.clone_into(&mut self.id),
                "retry" => self.retry_ms = Some(value.parse().expect("a number")),
                other => panic!("{other:?} is no field of an event: {line:?}"),
            }
        }
        None
    }
}

/// The list as a client shows it, by what the change feed tells.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    stream: Option<EventStream>,
    todos: BTreeMap<String, Value>,
    /// Events of a batch that is not complete.
    batch: Vec<Event>,
    /// The last position.
    pub position: String,
    /// Times that it had to read the list again, and why.
    pub resets: Vec<String>,
    /// Times that it connected.
    pub connects: usize,
    /// Changes that were told.
    pub changes: usize,
    /// Of them, todos as they stood, which a worker tells that begins again.
    pub repeats: usize,
}

impl Recorder {
    /// Reads the list, and follows from there.
    pub fn start(address: SocketAddr) -> Recorder {
        let mut recorder = Recorder {
            address,
            stream: None,
            todos: BTreeMap::new(),
            batch: Vec::new(),
            position: String::new(),
            resets: Vec::new(),
            connects: 0,
            changes: 0,
            repeats: 0,
        };
        eventually("the list", || recorder.read_list().then_some(()));
        recorder
    }

    /// Goes on at another server.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.stream = None;
    }

    /// Ends its connection; it connects again by itself.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    fn read_list(&mut self) -> bool {
        let Some((position, todos)) = list_at(self.address) else { return false };
        self.position = position;
        self.todos = todos;
        true
    }

    /// Takes in what has come, or a good part of it.
    ///
    /// # Panics
    /// When something is deleted that was not there: it was told twice, or its create was not.
    pub fn take(&mut self) {
        for _ in 0..TAKE_MAX {
            let Some(stream) = &mut self.stream else {
                self.batch.clear();
                let request = get("/todos/events").field("Last-Event-ID", &self.position);
                match EventStream::try_ask(self.address, &request) {
                    Some(stream) if stream.status() == 200 => {
                        self.connects += 1;
                        self.stream = Some(stream);
                        continue;
                    }
                    _ => return,
                }
            };
            match stream.look(LOOK) {
                Look::Nothing => {
                    if !stream.id.is_empty() && self.batch.is_empty() {
                        self.position.clone_from(&stream.id);
                    }
                    return;
                }
                Look::Ended => {
                    self.stream = None;
                    return;
                }
                Look::Event(event) if event.kind == "reset" => {
                    self.resets.push(event.data["reason"].as_str().expect("a reason").to_owned());
                    assert_eq!(event.id, "", "who has to read the list again has no position");
                    self.stream = None;
                    eventually("the list", || self.read_list().then_some(()));
                }
                Look::Event(event) => {
                    // What stands before the last of a batch has the position of the one before. If the connection ends
                    // within it, the whole batch comes again.
                    let is_last = !event.id.is_empty() && event.id != self.position;
                    let id = event.id.clone();
                    self.batch.push(event);
                    if is_last {
                        let batch = std::mem::take(&mut self.batch);
                        batch.into_iter().for_each(|event| self.apply(event));
                        self.position = id;
                    }
                }
            }
        }
    }

    fn apply(&mut self, Event { kind, data, .. }: Event) {
        self.changes += 1;
        let id = data["id"].as_str().expect("an id").to_owned();
        match kind.as_str() {
            "put" => {
                let before = self.todos.insert(id, data.clone());
                self.repeats += usize::from(before == Some(data));
            }
            "delete" => {
                assert!(self.todos.remove(&id).is_some(), "{id} is deleted, and was not there");
            }
            other => panic!("{other:?} is no event of this stream"),
        }
    }

    /// Whether it has this list.
    pub fn has(&self, todos: &BTreeMap<String, Value>) -> bool {
        self.todos == *todos
    }

    /// Whether its stream has not ended.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Todos that it has.
    pub fn len(&self) -> usize {
        self.todos.len()
    }

    /// Takes in what comes until it has the list of the server.
    #[track_caller]
    pub fn await_list_of(&mut self, address: SocketAddr) {
        eventually("the recorder to have the list", || {
            self.take();
            let (_, todos) = list_at(address)?;
            self.has(&todos).then_some(())
        });
    }
}

/// The position of the list and its todos; `None` when the server does not answer.
pub fn list_at(address: SocketAddr) -> Option<(String, BTreeMap<String, Value>)> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    let mut client = Client::new(stream);
    client.try_send(get("/todos").bytes()).ok()?;
    let answer = client.answer_unless_cut_off()?;
    if answer.status != 200 {
        return None;
    }
    let Value::Array(todos) = answer.json() else { panic!("no list: {answer:?}") };
    let by_id = |todo: Value| (todo["id"].as_str().expect("an id").to_owned(), todo);
    Some((answer.required("Event-Position").to_owned(), todos.into_iter().map(by_id).collect()))
}
