//! Where the key of the tokens comes from: the greeting and the log say it, the greeting's line never signs with another, and
//! a token that another key of ours has signed is explained in the log.

use std::process::Command;

use crate::harness::eventually;
use crate::harness::process::{Finished, Process};
use crate::harness::request::post;
use crate::harness::server::{Server, Setup};
use crate::harness::token::{SECRET, sign, token};

const FILE: &str = "the file data/jwt-secret";
const DOT_ENV: &str = "JWT_SECRET in the file .env";
const ENVIRONMENT: &str = "JWT_SECRET in the environment";

/// A folder with a key of its own, as a first start leaves it; its settings name no key.
fn folder_with_key() -> Setup {
    let setup = Setup::new().unset("JWT_SECRET");
    let ended = setup.start().stop();
    assert!(ended.status.success() && ended.stderr.contains(&checked_with(FILE)), "{ended:?}");
    setup
}

fn checked_with(source: &str) -> String {
    format!("tokens are checked with the key of {source}")
}

/// What the server has printed, once the last line is there.
fn greeting(server: &Server) -> String {
    eventually("the greeting", || Some(server.process.stdout.text()).filter(|text| text.contains("/ready\n")))
}

/// Runs the greeting's token line and its first curl, as somebody with these settings would.
fn paste(setup: &Setup, greeting: &str) -> Finished {
    let is_wanted = |line: &&str| line.starts_with("TOKEN=") || line.contains("Authorization: Bearer");
    let lines: Vec<_> = greeting.lines().map(str::trim).filter(is_wanted).collect();
    assert_eq!(lines.len(), 2, "{greeting}");
    let mut command = Command::new("sh");
    setup.prepare(&mut command);
    command.args(["-c", &lines.join("\n")]);
    Process::start(command).finish()
}

fn token_of(setup: &Setup) -> String {
    setup.run_successfully(&["token", "--sub", "anna"]).trim().to_owned()
}

/// Sends a write with a token that is refused; the answer says nothing of other keys.
fn refused(server: &Server, token: &str) {
    let answer = server.connect().call(&post(token, r#"{"title":"t"}"#));
    let text = answer.problem(401);
    assert!(!text.contains("jwt-secret") && !text.contains(".env") && !text.contains("environment"), "{text}");
}

fn explanations(server: &Server) -> usize {
    server.log().matches("a token was refused (401) that is signed with the key of").count()
}

#[test]
fn a_key_of_the_servers_terminal_alone_is_asked_for_in_the_other() {
    let folder = folder_with_key();
    let server = folder.clone().set("JWT_SECRET", SECRET).start();
    let greeting = greeting(&server);
    assert!(greeting.contains(ENVIRONMENT) && greeting.contains("export the same JWT_SECRET"), "{greeting}");
    assert!(server.log().contains(&format!("{}, not of {FILE}", checked_with(ENVIRONMENT))), "{}", server.log());
    let pasted = paste(&folder, &greeting);
    assert!(pasted.stderr.contains("export the JWT_SECRET that the server was started with"), "{pasted:?}");
    assert!(pasted.stdout.contains("HTTP/1.1 401"), "{pasted:?}");
    let pasted = paste(server.setup(), &greeting);
    assert!(pasted.stdout.contains("HTTP/1.1 202"), "{pasted:?}");
    let ended = server.stop();
    assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET), "the key is never shown");
}

#[test]
fn keys_of_files_are_named_and_their_greetings_line_works_as_pasted() {
    let folder = folder_with_key();
    for (content, source) in [(String::new(), FILE), (format!("JWT_SECRET='{}'\n", "d".repeat(40)), DOT_ENV)] {
        std::fs::write(folder.folder().join(".env"), content).expect("written");
        let server = folder.start();
        let greeting = greeting(&server);
        assert!(greeting.contains(&format!("with the key of {source}.")), "{source}: {greeting}");
        assert!(server.log().contains(&checked_with(source)), "{source}: {}", server.log());
        let pasted = paste(&folder, &greeting);
        assert!(pasted.stdout.contains("HTTP/1.1 202"), "{source}: {pasted:?}");
    }
}

#[test]
fn a_token_of_another_key_of_ours_is_explained_in_the_log_alone() {
    let folder = folder_with_key();
    let by_file = token_of(&folder);
    let by_dot_env_key = "d".repeat(40);
    std::fs::write(folder.folder().join(".env"), format!("JWT_SECRET={by_dot_env_key}\n")).expect("written");
    let by_dot_env = token_of(&folder);
    for (old, source) in [(&by_file, FILE), (&by_dot_env, DOT_ENV)] {
        let server = folder.clone().set("JWT_SECRET", SECRET).start();
        let stranger = serde_json::json!({ "sub": "anna", "exp": crate::harness::token::now() + 60 });
        let header = serde_json::json!({ "alg": "HS256" });
        let by_stranger = sign(&header, &stranger, jsonwebtoken::Algorithm::HS256, &[b'x'; 40]);
        refused(&server, &by_stranger);
        refused(&server, "a.b.c");
        assert_eq!(explanations(&server), 0, "{}", server.log());
        refused(&server, old);
        eventually("the explanation", || (explanations(&server) == 1).then_some(()));
        let log = server.log();
        assert!(log.contains(&format!("the key of {source}; this process takes {ENVIRONMENT}")), "{log}");
        assert!(!log.contains(old.as_str()) && !log.contains(&by_dot_env_key), "nothing secret is shown: {log}");
        for _ in 0..20 {
            refused(&server, old);
        }
        assert_eq!(explanations(&server), 1, "once in a while");
        server.connect().call(&post(&token("anna"), r#"{"title":"t"}"#)).expect(202);
    }
}

#[test]
fn token_says_which_of_two_keys_it_has_taken() {
    let folder = folder_with_key();
    let finished = folder.clone().set("JWT_SECRET", SECRET).run(&["token", "--sub", "anna"]);
    assert!(finished.status.success() && finished.stdout.lines().count() == 1, "{finished:?}");
    assert!(finished.stderr.contains(&format!("{ENVIRONMENT}, not of {FILE}")), "{finished:?}");
    let finished = folder.run(&["token", "--sub", "anna"]);
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
}
