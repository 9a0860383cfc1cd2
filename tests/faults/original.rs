//! The whole move: a Go program that writes and consumes in the manner of the original (`bench/go-manner`), this one beside it,
//! and back, with the commands of `docs/moving-from-the-original.md` as they stand there. After each direction the table is
//! exactly what a plain model says.
//!
//! The program's modules are fetched and built, so this is a part of `make test-full`. What needs no Go is tried in
//! `handover.rs`, in the original's formats.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::deployment::{Api, Deployment, required};
use crate::harness::process::Process;
use crate::harness::request::{Request, delete, post, put};
use crate::harness::server::PROGRAM;
use crate::harness::token::{SECRET, token};
use crate::{say, within};

const GUIDE: &str = include_str!("../../docs/moving-from-the-original.md");
/// The original's group, as the guide calls it.
const GROUP: &str = "todo-workers";
const CREATES: usize = 500;
const UPDATES: usize = 200;
const DELETES: usize = 50;
/// Commands that the one side has accepted and the other applies.
const LEFT: usize = 100;
/// Texts as people write them; Go escapes some of these characters.
const TEXTS: [&str; 4] = ["plain", "<b>\"a\" & 'b'</b>", "grüße 日本語 😀", "line\nbreak\tand \\ backslash"];

/// Title, description, completed, user.
type Row = (String, String, bool, String);

/// What the table has to hold.
#[derive(Default)]
struct Model {
    rows: BTreeMap<String, Row>,
    made: usize,
}

/// Whoever takes a write and answers 202.
type Writer<'w> = dyn FnMut(&Request) -> Value + 'w;

fn user(number: usize) -> &'static str {
    ["anna", "bert"][number % 2]
}

impl Model {
    fn create(&mut self, write: &mut Writer<'_>) -> String {
        let number = self.made;
        self.made += 1;
        let title = format!("{number} {}", TEXTS[number % TEXTS.len()]);
        // The original takes these from every client, and this program from the topic.
        let description = match number % 100 {
            7 => "d".repeat(200),
            _ => format!("about {}", TEXTS[(number + 1) % TEXTS.len()]),
        };
        self.create_as(write, number, title, description)
    }

    fn create_as(&mut self, write: &mut Writer<'_>, number: usize, title: String, description: String) -> String {
        let body = json!({ "title": title, "description": description }).to_string();
        let answer = write(&post(&token(user(number)), body));
        let id = answer["id"].as_str().expect("an id").to_owned();
        self.rows.insert(id.clone(), (title, description, false, user(number).to_owned()));
        id
    }

    fn update(&mut self, write: &mut Writer<'_>, id: &str, number: usize) {
        let row = self.rows.get_mut(id).expect("it is there");
        let body = match number % 3 {
            0 => {
                row.0 = format!("updated {number} {}", TEXTS[number % TEXTS.len()]);
                json!({ "title": row.0 })
            }
            1 => {
                row.1 = format!("updated {number}");
                json!({ "description": row.1, "completed": row.2 })
            }
            _ => {
                row.2 = !row.2;
                json!({ "completed": row.2 })
            }
        };
        write(&put(&token(&row.3), id, body.to_string()));
    }

    fn delete(&mut self, write: &mut Writer<'_>, id: &str) {
        let (.., user) = self.rows.remove(id).expect("it is there");
        write(&delete(&token(&user), id));
    }

    /// Ids, some of the oldest first.
    fn ids(&self, skip: usize) -> Vec<String> {
        self.rows.keys().skip(skip).cloned().collect()
    }

    /// Creates, updates and deletes, each kind applied before the next: the original keeps no order between them.
    fn work(&mut self, write: &mut Writer<'_>, deployment: &Deployment) {
        for _ in 0..CREATES {
            self.create(write);
        }
        self.settle(deployment, "creates");
        for (number, id) in self.ids(0).iter().take(UPDATES).enumerate() {
            self.update(write, id, number);
        }
        self.settle(deployment, "updates");
        for id in self.ids(100).iter().take(DELETES) {
            self.delete(write, id);
        }
        self.settle(deployment, "deletes");
    }

    /// Commands of todos of their own that nobody applies yet.
    fn leave(&mut self, write: &mut Writer<'_>) {
        let ids = self.ids(0);
        for (number, id) in ids[..40].iter().enumerate() {
            self.update(write, id, number + 1);
        }
        for id in &ids[40..60] {
            self.delete(write, id);
        }
        for _ in 60..LEFT {
            self.create(write);
        }
    }

    /// Waits until the table is exactly this.
    fn settle(&self, deployment: &Deployment, what: &str) {
        let table = || {
            let text = |column: &Option<String>| column.clone().unwrap_or_default();
            let rows = deployment.query("SELECT id, title, description, completed, user_id FROM todos");
            let row = |row: &Vec<Option<String>>| {
                (text(&row[0]), (text(&row[1]), text(&row[2]), text(&row[3]) == "t", text(&row[4])))
            };
            rows.iter().map(row).collect::<BTreeMap<_, _>>()
        };
        within(&format!("the table to be what the model says after the {what}"), || {
            (table() == self.rows).then_some(())
        });
    }

    fn assert_shown(&self, api: &Api) {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let row = |todo: &Value| {
            let rest =
                (text(&todo["title"]), text(&todo["description"]), todo["completed"] == true, text(&todo["user_id"]));
            (text(&todo["id"]), rest)
        };
        within("the list to be what the model says", || {
            let list = api.list().json();
            let shown: BTreeMap<String, Row> = list.as_array().expect("a list").iter().map(row).collect();
            (shown == self.rows).then_some(())
        });
    }
}

/// The program in the original's manner.
struct Original<'d> {
    deployment: &'d Deployment,
    program: PathBuf,
    group: String,
}

/// Its API process.
struct OriginalApi {
    process: Process,
    address: SocketAddr,
}

impl<'d> Original<'d> {
    /// Builds it; `None` where there is no Go.
    fn build(deployment: &'d Deployment) -> Option<Original<'d>> {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go_manner");
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/go-manner");
        let built =
            Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(sources).output().ok()?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(Original { deployment, program, group: format!("{}-{GROUP}", deployment.topic) })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("KAFKA_BROKERS", required("KAFKA_BROKERS"));
        command.env("KAFKA_TODO_TOPIC", &self.deployment.topic).env("KAFKA_GROUP_ID", &self.group);
        // lib/pq insists on TLS unless told otherwise.
        let url = self.deployment.setting("DATABASE_URL");
        let separator = if url.contains('?') { '&' } else { '?' };
        command.env("DATABASE_URL", format!("{url}{separator}sslmode=disable"));
        // Nobody reads its lists here.
        command.env("REDIS_ADDRESS", "127.0.0.1:1").env("JWT_SECRET", SECRET).env("GIN_MODE", "release");
        command.env("KAFKA_BALANCER", "least-bytes");
        command
    }

    fn serve(&self) -> OriginalApi {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut command = self.command(&[]);
        command.env("ADDRESS", address.to_string());
        let mut process = Process::start(command);
        within("the original's API", || {
            assert!(process.status().is_none(), "it ended: {}", process.stderr.text());
            TcpStream::connect(address).ok()
        });
        OriginalApi { process, address }
    }

    fn work(&self) -> Process {
        let mut process = Process::start(self.command(&["worker"]));
        within("the original's worker", || {
            assert!(process.status().is_none(), "it ended: {}", process.stderr.text());
            process.stdout.text().contains("working").then_some(())
        });
        process
    }
}

impl OriginalApi {
    /// Its answers are not checked as ours are.
    fn call(&self, request: &Request) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("it takes the connection");
        stream.write_all(&request.clone().close().bytes()).expect("it takes the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 202 "), "{answer}");
        serde_json::from_str(body).expect("JSON")
    }

    fn stop(self) {
        // Its writer has a batch time of 10 ms, and no goodbye.
        std::thread::sleep(std::time::Duration::from_millis(500));
        drop(self.process);
    }
}

fn stop(process: Process) {
    process.signal(libc::SIGTERM);
    assert!(process.finish().status.success());
}

/// Runs the guide's commands of one section, as they stand there but for the name of the group.
fn follow_the_guide(section: &str, original: &Original<'_>) {
    let start = GUIDE.find(section).unwrap_or_else(|| panic!("the guide has no section {section:?}"));
    let text = GUIDE[start + section.len()..].split("\n## ").next().expect("a first part");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("million-rps ")).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.ends_with('&')).collect();
    assert!(!lines.is_empty(), "{section}: no command");
    for line in lines {
        let line = line.replace(GROUP, &original.group);
        let finished = original.deployment.shell(&line, Path::new(PROGRAM).parent().expect("a folder"));
        assert!(finished.status.success(), "{line}: {finished:?}");
    }
}

fn of<'a>(api: &'a Api) -> impl FnMut(&Request) -> Value + 'a {
    let mut client = api.connect();
    move |request| client.call(request).expect(202).json()
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn from_the_original_and_back_the_table_is_what_a_plain_model_says() {
    let deployment = Deployment::beside_others();
    let Some(original) = Original::build(&deployment) else {
        return say("the move with the Go program was not tried: there is no Go here (https://go.dev/dl)");
    };
    let mut model = Model::default();

    // There.
    let their_worker = original.work();
    let their_api = original.serve();
    let mut theirs = |request: &Request| their_api.call(request);
    model.work(&mut theirs, &deployment);
    let long = model.create_as(&mut theirs, 0, "t".repeat(900), "ü".repeat(12_000));
    model.settle(&deployment, "long texts");
    stop(their_worker);
    model.leave(&mut theirs);
    let longer = model.create_as(&mut theirs, 1, "T".repeat(700), "d".repeat(200_000));

    // Forward.
    follow_the_guide("## Forward", &original);
    let (worker, api) = (deployment.worker(), deployment.serve());
    let mut ours = of(&api);
    model.settle(&deployment, "move forward");
    model.assert_shown(&api);

    // Both at once: two APIs, the workers of one.
    for _ in 0..50 {
        model.create(&mut theirs);
        model.create(&mut ours);
    }
    model.settle(&deployment, "creates of both");
    for (number, id) in model.ids(0).iter().take(100).enumerate() {
        match number % 2 {
            0 => model.update(&mut theirs, id, number / 2),
            _ => model.update(&mut ours, id, number / 2),
        }
    }
    model.settle(&deployment, "updates of both");
    their_api.stop();

    // Here: what the other has made may be sent back.
    for id in [&long, &longer] {
        let row = model.rows.get_mut(id).expect("it is there");
        row.2 = true;
        if row.1.len() < 60_000 {
            let body = json!({ "title": row.0, "description": row.1, "completed": true });
            ours(&put(&token(&row.3), id, body.to_string()));
        } else {
            ours(&put(&token(&row.3), id, json!({ "title": row.0, "completed": true }).to_string()));
        }
    }
    model.settle(&deployment, "long texts that were sent back");
    model.work(&mut ours, &deployment);
    model.assert_shown(&api);
    stop(worker);
    model.leave(&mut ours);

    // And back.
    follow_the_guide("## Back", &original);
    let their_worker = original.work();
    model.settle(&deployment, "move back");
    let their_api = original.serve();
    model.create(&mut |request| their_api.call(request));
    model.settle(&deployment, "create after the move back");
    assert_eq!(deployment.command(&["dead-letters", "list"]).stdout, "");
    stop(their_worker);
    say(&format!("from the original and back: {} todos, the table exact after each direction", model.rows.len()));
}
