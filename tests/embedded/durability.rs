//! 202 means durable: whatever ends the process, what was acknowledged is there afterwards, exactly once.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::random::Random;
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{PROGRAM, Server, Setup};
use crate::harness::token::token;

/// What a writer knows of one of its todos: the title of the last acknowledged write, `None` for a deleted one.
type Known = Option<String>;

/// One writer: one connection, one user, several requests in flight.
#[derive(Debug, Default)]
struct Writer {
    user: String,
    /// Todos by id.
    todos: HashMap<String, Known>,
    /// What the writes without an answer wanted; each may have happened or not.
    unanswered: HashMap<String, Vec<Known>>,
    /// Titles of creates without an answer: their ids are not known.
    unanswered_creates: Vec<String>,
    next: usize,
}

/// What a request in flight wants.
enum Wish {
    Create(String),
    Change(String, Known),
}

const IN_FLIGHT: usize = 8;

impl Writer {
    fn new(number: usize) -> Writer {
        Writer { user: format!("writer {number}"), ..Writer::default() }
    }

    /// Writes until the server is gone; counts what it acknowledges.
    fn write_until_cut_off(&mut self, mut client: Client, random: &mut Random, acknowledged: &AtomicUsize) {
        loop {
            let wishes: Vec<Wish> = (0..IN_FLIGHT).map(|_| self.wish(random)).collect();
            let token = token(&self.user);
            let bytes: Vec<u8> = wishes.iter().flat_map(|wish| wish.request(&token).bytes()).collect();
            let mut is_open = client.try_send(bytes).is_ok();
            for wish in wishes {
                let answer = if is_open { client.answer_unless_cut_off() } else { None };
                match answer {
                    Some(answer) => {
                        self.note(wish, &answer.expect(202).json());
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    None => {
                        is_open = false;
                        self.note_unanswered(wish);
                    }
                }
            }
            if !is_open {
                return;
            }
        }
    }

    fn wish(&mut self, random: &mut Random) -> Wish {
        self.next += 1;
        let title = format!("{} {}", self.user, self.next);
        let alive: Vec<&String> = self.todos.iter().filter(|(_, known)| known.is_some()).map(|(id, _)| id).collect();
        match random.below(4) {
            0 | 1 if !alive.is_empty() => Wish::Change(alive[random.below(alive.len())].clone(), Some(title)),
            2 if alive.len() > 20 => Wish::Change(alive[random.below(alive.len())].clone(), None),
            _ => Wish::Create(title),
        }
    }

    fn note(&mut self, wish: Wish, accepted: &Value) {
        let id = accepted["id"].as_str().expect("an id").to_owned();
        match wish {
            Wish::Create(title) => assert_eq!(self.todos.insert(id, Some(title)), None, "an id is given once"),
            Wish::Change(wished, new) => {
                assert_eq!(id, wished, "answers come in the order of the requests");
                let known = self.todos.get_mut(&id).expect("only known todos are changed");
                // An update behind a delete, in flight together, changes nothing.
                if known.is_some() {
                    *known = new;
                }
            }
        }
    }

    fn note_unanswered(&mut self, wish: Wish) {
        match wish {
            Wish::Create(title) => self.unanswered_creates.push(title),
            Wish::Change(id, new) => self.unanswered.entry(id).or_default().push(new),
        }
    }

    /// Compares with what the server shows of this user, and takes over what happened of the unanswered.
    ///
    /// # Errors
    /// What is different.
    fn compare(&mut self, shown: &HashMap<String, (String, String)>) -> Result<(), String> {
        let mut todos = HashMap::new();
        for (id, known) in &self.todos {
            let now = shown.get(id).map(|(_, title)| title.clone());
            let is_possible = now == *known || self.unanswered.get(id).is_some_and(|wishes| wishes.contains(&now));
            if !is_possible {
                return Err(format!(
                    "{id} should be {known:?} or one of {:?}, and is {now:?}",
                    self.unanswered.get(id)
                ));
            }
            todos.insert(id.clone(), now);
        }
        for (id, (user, title)) in shown {
            if *user == self.user && !self.todos.contains_key(id) {
                if !self.unanswered_creates.contains(title) {
                    return Err(format!("{id} ({title:?}) comes from nowhere"));
                }
                todos.insert(id.clone(), Some(title.clone()));
            }
        }
        self.todos = todos;
        self.unanswered.clear();
        self.unanswered_creates.clear();
        Ok(())
    }
}

impl Wish {
    fn request(&self, token: &str) -> Request {
        match self {
            Wish::Create(title) => post(token, json!({ "title": title }).to_string()),
            Wish::Change(id, Some(title)) => put(token, id, json!({ "title": title }).to_string()),
            Wish::Change(id, None) => delete(token, id),
        }
    }
}

/// The list: user and title by id. A todo that is shown twice is an error at once.
fn shown(server: &Server) -> HashMap<String, (String, String)> {
    let list = server.connect().call(&get("/todos")).expect(200).json();
    let mut shown = HashMap::new();
    for todo in list.as_array().expect("a list") {
        let text = |member: &str| todo[member].as_str().expect("a text").to_owned();
        assert_eq!(shown.insert(text("id"), (text("user_id"), text("title"))), None, "twice: {todo}");
    }
    shown
}

/// Waits until the server shows what the writers know; then nothing may change any more.
fn assert_kept(server: &Server, writers: &mut [Writer]) {
    // Commands that were durable but not yet applied are applied after the start.
    let marker = server.connect().call(&post(&token("marker"), r#"{"title":"after the start"}"#)).expect(202).json();
    let marker = marker["id"].as_str().expect("an id");
    let shown = eventually("the log to be applied", || Some(shown(server)).filter(|shown| shown.contains_key(marker)));
    for writer in writers {
        if let Err(difference) = writer.compare(&shown) {
            panic!("{}: {difference}", writer.user);
        }
    }
}

#[test]
fn ten_kills_lose_and_double_nothing() {
    const ROUNDS: usize = 10;
    const ACKNOWLEDGED_PER_ROUND: usize = 1000;
    let setup = Setup::new();
    let mut writers: Vec<Writer> = (0..4).map(Writer::new).collect();
    let mut server = setup.start();
    for round in 0..ROUNDS {
        let acknowledged = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for (number, writer) in writers.iter_mut().enumerate() {
                let (client, acknowledged) = (server.connect(), &acknowledged);
                let mut random = Random::new((round * 100 + number) as u64);
                scope.spawn(move || writer.write_until_cut_off(client, &mut random, acknowledged));
            }
            eventually("enough acknowledged writes", || {
                (acknowledged.load(Ordering::Relaxed) >= ACKNOWLEDGED_PER_ROUND).then_some(())
            });
            server.process.signal(libc::SIGKILL);
        });
        drop(server);
        server = setup.start();
        assert_kept(&server, &mut writers);
    }
}

/// A commit of the store does not wait for the disk. A power cut is played by giving the store the files of an earlier
/// moment, which is what a disk that was never synced may have.
#[test]
fn what_a_power_cut_takes_from_the_store_comes_back_from_the_log() {
    let setup = Setup::new();
    let path = |ending: &str| setup.data_dir().join(format!("todos.sqlite{ending}"));
    let token = token("power");
    let create = |client: &mut Client, title: &str| -> String {
        let accepted = client.call(&post(&token, json!({ "title": title }).to_string())).expect(202).json();
        accepted["id"].as_str().expect("an id").to_owned()
    };

    let server = setup.start();
    let mut client = server.connect();
    let first: Vec<String> = (0..20).map(|number| create(&mut client, &format!("first {number}"))).collect();
    eventually("the first todos to show", || (shown(&server).len() == first.len()).then_some(()));
    server.kill();
    let earlier: Vec<(&str, Vec<u8>)> =
        ["", "-wal"].map(|ending| (ending, std::fs::read(path(ending)).expect("a file of the store"))).into();

    let server = setup.start();
    let mut client = server.connect();
    for (number, id) in first.iter().enumerate() {
        match number % 3 {
            0 => client.call(&delete(&token, id)).expect(202),
            1 => client.call(&put(&token, id, json!({ "title": format!("changed {number}") }).to_string())).expect(202),
            _ => client.call(&get("/todos?limit=1")).expect(200),
        };
    }
    let last = create(&mut client, "the last");
    let before = eventually("all writes to show", || Some(shown(&server)).filter(|shown| shown.contains_key(&last)));
    assert_eq!(before.len(), 20 - 7 + 1);
    server.kill();

    std::fs::remove_file(path("-shm")).expect("it was in use");
    for (ending, bytes) in earlier {
        std::fs::write(path(ending), bytes).expect("written");
    }
    let server = setup.start();
    let after = eventually("the log to be applied", || Some(shown(&server)).filter(|shown| shown.contains_key(&last)));
    assert_eq!(after, before);
}

#[test]
fn a_restart_keeps_the_data_and_the_key() {
    let setup = Setup::new().unset("JWT_SECRET");
    let server = setup.start();
    let token = setup.run_successfully(&["token", "--sub", "keeper"]);
    let token = token.trim();
    let mut client = server.connect();
    let body = json!({ "title": "kept", "description": "grüße 😀 \"\\\n" }).to_string();
    let id = client.call(&post(token, body)).expect(202).json()["id"].as_str().expect("an id").to_owned();
    let gone =
        client.call(&post(token, r#"{"title":"gone"}"#)).expect(202).json()["id"].as_str().expect("an id").to_owned();
    client.call(&put(token, &id, r#"{"completed":true}"#)).expect(202);
    client.call(&delete(token, &gone)).expect(202);
    let before = eventually("the writes to show", || {
        let list = client.call(&get("/todos")).expect(200);
        let todos = list.json();
        (todos.as_array()?.len() == 1 && todos[0]["completed"] == true).then_some(list)
    });
    assert_eq!(server.stop().status.code(), Some(0));
    for _ in 0..2 {
        let server = setup.start();
        let mut client = server.connect();
        let after = client.call(&get("/todos")).expect(200);
        assert_eq!(after.body, before.body);
        assert_eq!(after.field("ETag"), before.field("ETag"), "a restart does not make caches cold");
        // The token is as good as before.
        client.call(&delete(token, &gone)).expect(202);
        server.kill();
    }
}

#[test]
fn a_second_process_on_the_folder_is_refused() {
    let setup = Setup::new();
    let server = setup.start();
    for arguments in [&["run"][..], &[]] {
        let finished = setup.run(arguments);
        assert!(!finished.status.success(), "{finished:?}");
        assert!(finished.stderr.contains(&server.process.pid().to_string()), "the owner is named: {}", finished.stderr);
        assert!(!finished.stdout.contains("listens on"), "{finished:?}");
    }
    server.connect().assert_goes_on();
    // The lock ends with its owner, however it ends.
    server.kill();
    setup.start().connect().assert_goes_on();
}

/// When the log cannot be written (a full disk, here: RLIMIT_FSIZE), writes are 503 and reads go on; when there is room
/// again, writes go on too, and a restart has all that was acknowledged.
#[test]
fn a_full_disk_refuses_writes_and_loses_none() {
    const FILE_MAX_BYTES: u64 = 3 * 1024 * 1024;
    const TOGETHER: usize = 20;
    let setup = Setup::new().set("ACK_TIMEOUT_MS", "500");
    // Made before the limit: the schema and the first segment.
    assert_eq!(setup.start().stop().status.code(), Some(0));
    let token = token("full");
    let description = "x".repeat(10_000);
    let mut accepted = Vec::new();
    {
        let server = setup.start_limited(FILE_MAX_BYTES);
        let mut client = server.connect();
        let refused = eventually("the disk to be full", || {
            // Together, so that they wait for the disk together.
            let body = json!({ "title": format!("number {}", accepted.len()), "description": description });
            client.send(post(&token, body.to_string()).bytes().repeat(TOGETHER));
            let answers: Vec<_> = (0..TOGETHER).map(|_| client.answer()).collect();
            let (taken, mut others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
            accepted.extend(taken.iter().map(|answer| answer.json()["id"].as_str().expect("an id").to_owned()));
            // A disk that is slow has writes refused, too.
            let ready = client.call(&get("/ready")).json();
            others.pop().filter(|_| ready["reasons"].to_string().contains("data_folder: "))
        });
        refused.problem(503);
        assert!(refused.required("Retry-After").parse::<u32>().is_ok(), "{refused:?}");
        client.call(&get("/todos?limit=5")).expect(200);
        server.process.limit_files(libc::RLIM_INFINITY);
        let again = eventually("writes to go on", || {
            let answer = client.call(&post(&token, r#"{"title":"room again"}"#));
            (answer.status == 202).then(|| answer.json()["id"].as_str().expect("an id").to_owned())
        });
        accepted.push(again);
        eventually("all that was acknowledged, without a restart", || {
            let shown = shown(&server);
            accepted.iter().all(|id| shown.contains_key(id)).then_some(())
        });
        server.kill();
    }
    assert!(accepted.len() > 1);
    let server = setup.start();
    eventually("all that was acknowledged", || {
        let shown = shown(&server);
        accepted.iter().all(|id| shown.contains_key(id)).then_some(())
    });
    server.connect().call(&post(&token, r#"{"title":"room again"}"#)).expect(202);
}

impl Setup {
    /// Starts a server whose files cannot grow beyond so many bytes.
    fn start_limited(&self, file_max_bytes: u64) -> Server {
        self.start_changed(|command| {
            let limit = libc::rlimit { rlim_cur: file_max_bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: between fork and exec the closure only makes async-signal-safe system calls.
            unsafe {
                command.pre_exec(move || {
                    // Without this the kernel would end the process instead of failing its write.
                    let ignored = libc::signal(libc::SIGXFSZ, libc::SIG_IGN) != libc::SIG_ERR;
                    match ignored && libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0 {
                        true => Ok(()),
                        false => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        })
    }
}

#[test]
fn a_folder_of_a_later_format_is_refused() {
    let setup = Setup::new();
    assert_eq!(setup.start().stop().status.code(), Some(0));
    std::fs::write(setup.data_dir().join("format"), "4711\n").expect("the file can be written");
    let finished = setup.run(&[]);
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("4711") && finished.stderr.contains("format"), "{}", finished.stderr);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let setup = Setup::new();
    std::fs::write(setup.data_dir(), "a file where the folder should be").expect("the file can be written");
    let mut command = Command::new(PROGRAM);
    setup.prepare(&mut command);
    let finished = Process::start(command).finish();
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("data"), "the folder is named: {}", finished.stderr);
}
