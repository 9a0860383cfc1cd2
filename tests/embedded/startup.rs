//! Starting: an empty folder, wrong settings, the tools around the server.

use std::process::Command;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::process::{Finished, Process};
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, PROGRAM, Setup};
use crate::harness::token::{SECRET, token};

/// Runs one line as a person would paste it into a shell in the same folder.
fn paste(setup: &Setup, line: &str) -> Finished {
    let mut command = Command::new("sh");
    setup.prepare(&mut command);
    command.args(["-c", line]);
    Process::start(command).finish()
}

#[test]
fn a_first_run_in_an_empty_folder_greets_with_lines_that_work() {
    let has_curl = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(has_curl, "this test runs the greeting's lines: install the package curl");
    // Nothing but the port is set: 8080 may be taken here.
    let setup = Setup::bare().set("HTTP_PORT", "0");
    let server = setup.start();
    let greeting = eventually("the three curl lines", || {
        let text = server.process.stdout.text();
        (text.lines().filter(|line| line.trim_start().starts_with("curl ")).count() >= 3).then_some(text)
    });
    let page = format!("Open http://localhost:{}/#key=", server.address.port());
    assert!(greeting.lines().nth(1).is_some_and(|line| line.starts_with(&page)), "{greeting}");
    assert!(greeting.contains("token"), "it says how to mint a token: {greeting}");
    assert!(greeting.contains("the network reaches it. HTTP_HOST=127.0.0.1 keeps it to itself"), "{greeting}");
    let is_command = |line: &&str| line.starts_with("curl ") || line.starts_with("TOKEN=");
    let lines: Vec<_> = greeting.lines().map(str::trim).filter(is_command).collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("curl ")).count(), 3, "{greeting}");
    let pasted = paste(&setup, &lines.join("\n"));
    assert!(pasted.status.success(), "{pasted:?}");
    // Bodies end without a line break: the next head stands right behind them.
    let statuses: Vec<_> = pasted.stdout.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["202", "200", "200"], "{pasted:?}");
    assert!(pasted.stdout.contains("Todo creation queued"), "{pasted:?}");
    let mut client = server.connect();
    eventually("the created todo", || client.call(&get("/todos")).expect(200).json()[0].is_object().then_some(()));
    // Pasted once more, the lines work as before, and now the list shows what the first time made.
    let again = paste(&setup, &lines.join("\n"));
    assert!(again.status.success() && again.stdout.contains("\"created_at\""), "{again:?}");
    assert!(setup.data_dir().join("format").exists(), "the data lives in ./data");
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
fn ready_means_that_every_shard_answers() {
    for _ in 0..5 {
        let server = Setup::new().set("SHARDS", "8").start();
        for _ in 0..32 {
            server.connect().call(&get("/todos?limit=1")).expect(200);
        }
    }
}

#[test]
fn the_made_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new().unset("JWT_SECRET");
    let server = setup.start();
    let mut found = 0;
    for file in std::fs::read_dir(setup.data_dir()).expect("the folder is there").flatten() {
        let metadata = file.metadata().expect("the file is there");
        let content = std::fs::read(file.path()).unwrap_or_default();
        if metadata.is_file()
            && content.trim_ascii().len() == 64
            && content.trim_ascii().iter().all(u8::is_ascii_hexdigit)
        {
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{:?}", file.path());
            let secret = String::from_utf8(content).expect("hexadecimal digits");
            let output = server.log() + &server.process.stdout.text();
            assert!(!output.contains(secret.trim()), "the key is never shown");
            found += 1;
        }
    }
    assert_eq!(found, 1, "the key is in the folder");
}

#[test]
fn all_wrong_settings_are_shown_at_once() {
    let short_secret = "s3cr3t-but-short";
    let setup = Setup::bare()
        .set("HTTP_PORT", "eighty")
        .set("HTTP_HOST", "nowhere.example")
        .set("SHARDS", "0")
        .set("IO_DRIVER", "kqueue")
        .set("IDLE_TIMEOUT_MS", "-1")
        .set("MAX_CONNECTIONS", "1e6")
        .set("CACHE_TTL_SEC", "99999999999999999999")
        .set("LOG_FORMAT", "xml")
        .set("JWT_SECRET", short_secret);
    let finished = setup.run(&[]);
    assert!(!finished.status.success(), "{finished:?}");
    let text = &finished.stderr;
    for (name, value) in [
        ("HTTP_PORT", "eighty"),
        ("HTTP_HOST", "nowhere.example"),
        ("SHARDS", "0"),
        ("IO_DRIVER", "kqueue"),
        ("IDLE_TIMEOUT_MS", "-1"),
        ("MAX_CONNECTIONS", "1e6"),
        ("CACHE_TTL_SEC", "99999999999999999999"),
        ("LOG_FORMAT", "xml"),
    ] {
        assert!(text.contains(&format!("{name}={value}")), "{name} and its value are named: {text}");
    }
    assert!(text.contains("65535") && text.contains("epoll"), "what is allowed is told: {text}");
    assert!(text.contains("JWT_SECRET") && text.contains("openssl rand"), "the command that makes a good one: {text}");
    assert!(!text.contains(short_secret) && !finished.stdout.contains(short_secret), "a secret is never shown: {text}");
    assert!(!setup.data_dir().exists(), "nothing is touched before the settings are right");
}

#[test]
fn serve_and_worker_need_the_services() {
    for command in ["serve", "worker"] {
        let finished = Setup::new().run(&[command]);
        assert!(!finished.status.success(), "{finished:?}");
        assert!(finished.stderr.contains("DATABASE_URL"), "{}", finished.stderr);
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let finished = Setup::new().set("HTTP_PORT", &port).run(&[]);
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains(&port) && finished.stderr.contains("HTTP_PORT"), "{}", finished.stderr);
}

#[test]
fn settings_come_from_flags_then_the_environment_then_the_file() {
    let setup = Setup::new().unset("HTTP_PORT").set("IDLE_TIMEOUT_MS", "12345");
    let file = "HTTP_PORT=0\nIDLE_TIMEOUT_MS=11111\nHEADER_TIMEOUT_MS=7777\nBODY_TIMEOUT_MS=6666\n";
    std::fs::write(setup.folder().join(".env"), file).expect("the file can be written");
    let shown = setup.run_successfully(&["--body-timeout-ms", "5555", "config"]);
    for (name, value) in [("IDLE_TIMEOUT_MS", "12345"), ("HEADER_TIMEOUT_MS", "7777"), ("BODY_TIMEOUT_MS", "5555")] {
        let line =
            shown.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} is missing: {shown}"));
        assert!(line.contains(value), "{line}");
    }
    assert!(!shown.contains(SECRET), "secrets are masked: {shown}");
    setup.start().connect().assert_goes_on();
}

#[test]
fn help_and_version_go_to_stdout() {
    let setup = Setup::bare();
    let help = setup.run_successfully(&["--help"]);
    for named in ["run", "serve", "worker", "migrate", "seed", "token", "config", "dead-letters", "--http-port", "8080"]
    {
        assert!(help.contains(named), "{named} is missing: {help}");
    }
    assert!(setup.run_successfully(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(setup.run_successfully(&["seed", "--help"]).contains("10000"), "defaults are told");
    let finished = setup.run(&["frobnicate"]);
    assert!(!finished.status.success() && finished.stderr.contains("frobnicate"), "{finished:?}");
    assert_eq!(std::fs::read_dir(setup.folder()).expect("the folder").count(), 0, "nothing was made");
}

#[test]
fn a_seed_shows_in_every_page_before_and_beside_a_server() {
    let setup = Setup::new().driver(Driver::Epoll);
    let finished = setup.run(&["seed", "--count", "500"]);
    assert!(finished.status.success(), "{finished:?}");
    let server = setup.start();
    let mut client = server.connect();
    let count = |client: &mut Client, target: &str| {
        client.call(&get(target)).expect(200).json().as_array().expect("a list").len()
    };
    assert_eq!(count(&mut client, "/todos"), 500);
    assert_eq!((count(&mut client, "/todos?limit=7"), count(&mut client, "/todos?limit=10")), (7, 10));
    let finished = setup.run(&["seed", "--count", "1000", "--user", "neighbour"]);
    assert!(finished.status.success(), "{finished:?}");
    eventually("the seed to show", || (count(&mut client, "/todos") == 1500).then_some(()));
    let id = client.call(&post(&token("me"), r#"{"title":"after the seed"}"#)).expect(202).json()["id"].clone();
    for target in ["/todos?limit=7", "/todos?limit=10", "/todos"] {
        eventually("the new todo as the newest", || {
            (client.call(&get(target)).expect(200).json()[0]["id"] == id).then_some(())
        });
    }
}

#[test]
fn migrate_may_run_before_the_first_start_and_again() {
    let setup = Setup::new();
    setup.run_successfully(&["migrate"]);
    setup.run_successfully(&["migrate"]);
    assert!(setup.data_dir().exists());
    setup.start().connect().assert_goes_on();
}

#[test]
fn there_are_no_dead_letters_at_first() {
    let setup = Setup::new();
    assert_eq!(setup.start().stop().status.code(), Some(0));
    let finished = setup.run(&["dead-letters", "list"]);
    assert!(finished.status.success(), "{finished:?}");
    let finished = setup.run(&["dead-letters", "replay", "--all"]);
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn logs_go_to_stderr_as_json_when_asked() {
    let server = Setup::new().set("LOG_FORMAT", "json").start();
    server.connect().assert_goes_on();
    let finished = server.stop();
    assert!(!finished.stderr.is_empty(), "a start and a stop are worth a line");
    for line in finished.stderr.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(entry.is_object(), "{line}");
    }
    assert!(finished.stdout.starts_with("million-rps listens on "), "{}", finished.stdout);
}

#[test]
fn a_server_whose_output_nobody_takes_serves_all_the_same() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
    let setup = Setup::new().set("HTTP_PORT", &port.to_string());
    let mut command = Command::new("sh");
    setup.prepare(&mut command);
    command.args(["-c", &format!("exec '{PROGRAM}' >/dev/full 2>/dev/full")]);
    let mut process = Process::start(command);
    eventually("the server", || {
        assert_eq!(process.status(), None, "it goes on");
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    client.assert_goes_on();
    process.signal(libc::SIGTERM);
    assert_eq!(process.finish().status.code(), Some(0));
}

#[test]
fn requests_are_not_logged() {
    let server = Setup::new().start();
    let mut client = server.connect();
    client.assert_goes_on();
    eventually("the worker's first lines", || server.log().contains("has no backlog").then_some(()));
    let before = server.log();
    for _ in 0..100 {
        client.call(&get("/todos?limit=1")).expect(200);
        client.call(&get("/nowhere")).expect(404);
    }
    assert_eq!(server.log(), before);
}
