//! Keys that change under a running server: `.env`, the data folder, PEM and key sets in files; SIGHUP; what cannot be read.

use std::os::unix::process::CommandExt;
use std::path::Path;

use jsonwebtoken::Algorithm;
use million_rps::limits::KEYS_MAX;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::issuer::{Behaviour, Issuer, IssuerKey, key_set};
use crate::harness::request::{delete, get, post};
use crate::harness::server::{Server, Setup};
use crate::harness::token::{encode, now, sign, token, token_of};

const SOME_ID: &str = "01900000-0000-7000-8000-000000000000";
const KEY_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const KEY_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// Clients of several shards, whose caches all know the token once they have written.
fn clients(server: &Server) -> Vec<Client> {
    (0..8).map(|_| server.connect()).collect()
}

fn status(client: &mut Client, token: &str) -> u16 {
    client.call(&delete(token, SOME_ID)).status
}

fn eventually_all(what: &str, clients: &mut [Client], token: &str, wanted: u16) {
    for client in clients {
        eventually(what, || (status(client, token) == wanted).then_some(()));
    }
}

fn token_of_key(key: &str) -> String {
    let setup = Setup::new().set("JWT_SECRET", key);
    setup.run_successfully(&["token", "--sub", "anna"]).trim().to_owned()
}

fn write(path: &Path, text: &str) {
    // As editors and secret stores do it: never half a file.
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, text).expect("written");
    std::fs::rename(unfinished, path).expect("renamed");
}

/// The reasons of `/ready` that are about keys.
fn trouble(server: &Server) -> Option<String> {
    let ready = server.connect().call(&get("/ready")).json();
    let reasons = ready["reasons"].as_array().expect("a list").clone();
    reasons.iter().find_map(|reason| Some(reason.as_str()?.strip_prefix("keys: ")?.to_owned()))
}

#[test]
fn a_secret_is_rotated_in_dot_env_without_a_restart() {
    let setup = Setup::new().unset("JWT_SECRET").set("SHARDS", "3");
    let file = setup.folder().join(".env");
    write(&file, &format!("JWT_SECRET={KEY_A}\n"));
    let server = setup.start();
    let (by_a, by_b) = (token_of_key(KEY_A), token_of_key(KEY_B));
    let mut clients = clients(&server);
    eventually_all("the first key", &mut clients, &by_a, 202);
    assert_eq!(status(&mut clients[0], &by_b), 401);
    write(&file, &format!("JWT_SECRET={KEY_B}\nJWT_SECRET_PREVIOUS={KEY_A}\n"));
    eventually_all("the second key", &mut clients, &by_b, 202);
    assert!(clients.iter_mut().all(|client| status(client, &by_a) == 202), "both, while clients change");
    write(&file, &format!("JWT_SECRET={KEY_B}\n"));
    eventually_all("the end of the first key, in all caches", &mut clients, &by_a, 401);
    assert!(clients.iter_mut().all(|client| status(client, &by_b) == 202));
    // A key from before `.env` had one: it does not come back in its place.
    write(&setup.data_dir().join("jwt-secret"), KEY_A);
    for broken in [
        "JWT_SECRET=short\n",
        "no line of this form\n",
        &format!("JWT_SECRET_PREVIOUS=short\nJWT_SECRET={KEY_A}\n"),
        "",
        "JWT_SECRET=\n",
        "# the line is gone\n",
        &format!("JWT_SECRET_PREVIOUS={KEY_A}\n"),
    ] {
        keys_stay_while(&server, &file, Some(broken), &mut clients, &by_b);
        assert_eq!(status(&mut clients[0], &by_a), 401, "{broken}");
    }
    keys_stay_while(&server, &file, None, &mut clients, &by_b);
    let log = server.stop().stderr;
    assert!(!log.contains(KEY_A) && !log.contains(KEY_B), "keys are not shown");
}

/// What cannot be read changes nothing, and is said until it is mended.
fn keys_stay_while(server: &Server, file: &Path, broken: Option<&str>, clients: &mut [Client], token: &str) {
    let good = std::fs::read_to_string(file).expect("a file");
    match broken {
        Some(text) => write(file, text),
        None => std::fs::remove_file(file).expect("removed"),
    }
    let reason = eventually("the trouble", || trouble(server));
    assert!(reason.contains(".env") && !reason.contains("short\""), "{reason}");
    assert!(clients.iter_mut().all(|client| status(client, token) == 202), "{broken:?}");
    write(file, &good);
    eventually("the end of the trouble", || trouble(server).is_none().then_some(()));
}

#[test]
fn a_secret_that_dot_env_has_lost_stays_beside_the_keys_of_others() {
    let setup = Setup::new().unset("JWT_SECRET").set("JWT_PUBLIC_KEY", IssuerKey::Ec.public().to_str().expect("UTF-8"));
    let file = setup.folder().join(".env");
    write(&file, &format!("JWT_SECRET={KEY_A}\n"));
    let server = setup.start();
    let by_a = token_of_key(KEY_A);
    let mut clients = clients(&server);
    eventually_all("the secret", &mut clients, &by_a, 202);
    for broken in [Some(""), Some("JWT_SECRET=\n"), None] {
        keys_stay_while(&server, &file, broken, &mut clients, &by_a);
    }
}

#[test]
fn sighup_reads_keys_again_and_loses_no_request() {
    const WRITES: usize = 300;
    let server = Setup::new().start_changed(|command| {
        // SAFETY: between fork and exec, one async-signal-safe call. Tests under nohup would hand on that SIGHUP is ignored.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
    });
    let mut client = server.connect();
    client.send(post(&token("writer"), r#"{"title":"around the signal"}"#).bytes().repeat(WRITES));
    client.answer().expect(202);
    server.process.signal(libc::SIGHUP);
    for _ in 1..WRITES {
        client.answer().expect(202);
    }
    eventually("the reading", || server.log().contains("they were read again, and are the same").then_some(()));
    client.assert_goes_on();
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
fn another_key_in_the_data_folder_takes_the_place_of_the_first() {
    let setup = Setup::new().unset("JWT_SECRET");
    let server = setup.start();
    let first = setup.run_successfully(&["token", "--sub", "anna"]).trim().to_owned();
    let mut clients = clients(&server);
    eventually_all("the first key", &mut clients, &first, 202);
    write(&setup.data_dir().join("jwt-secret"), KEY_A);
    eventually_all("the new key", &mut clients, &token_of_key(KEY_A), 202);
    eventually_all("the end of the first key", &mut clients, &first, 401);
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
fn keys_in_files_are_read_as_they_come_and_go() {
    let setup = Setup::new();
    let (pem, set) = (setup.folder().join("issuer.pem"), setup.folder().join("keys.json"));
    std::fs::copy(IssuerKey::Ed.public(), &pem).expect("copied");
    write(&set, &key_set(&[(IssuerKey::Rsa, "r"), (IssuerKey::Ec, "e")]));
    let setup = setup.set("JWT_PUBLIC_KEY", "issuer.pem").set("JWT_JWKS", "keys.json");
    let server = setup.start();
    let tokens: Vec<_> = [(IssuerKey::Ed, "d"), (IssuerKey::Rsa, "r"), (IssuerKey::Ec, "e")]
        .map(|(key, kid)| key.token(&setup, "anna", kid))
        .into();
    let mut clients = clients(&server);
    for token in tokens.iter().chain([&token("anna")]) {
        eventually_all("each kind of key", &mut clients, token, 202);
    }
    let unknown = IssuerKey::Rsa.token(&setup, "anna", "x");
    let answer = clients[0].call(&delete(&unknown, SOME_ID));
    assert!(answer.problem(401).contains("no key that is accepted here has the kid"), "{answer:?}");
    write(&set, &key_set(&[(IssuerKey::Ec, "e")]));
    eventually_all("the end of RSA", &mut clients, &tokens[1], 401);
    write(&set, "{\"keys\":[]}");
    let reason = eventually("the trouble", || trouble(&server));
    assert!(reason.contains("JWT_JWKS (keys.json): it has no keys"), "{reason}");
    assert_eq!(status(&mut clients[0], &tokens[2]), 202, "the last good one goes on");
    write(&set, &key_set(&[(IssuerKey::Rsa, "r")]));
    eventually_all("RSA again", &mut clients, &tokens[1], 202);
    eventually_all("the end of P-256", &mut clients, &tokens[2], 401);
    assert_eq!(trouble(&server), None);
}

#[test]
fn a_server_does_not_start_with_keys_that_are_none() {
    for (name, value, named) in [
        ("JWT_PUBLIC_KEY", "nowhere.pem", "JWT_PUBLIC_KEY (nowhere.pem): it cannot be read"),
        ("JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n", "JWT_PUBLIC_KEY"),
        ("JWT_JWKS", "nowhere.json", "JWT_JWKS (nowhere.json): it cannot be read"),
        ("JWT_JWKS", "http://localhost/keys", "is no https address"),
        ("JWT_USER_CLAIM", "/exp/x", "JWT_USER_CLAIM"),
    ] {
        let finished = Setup::new().set(name, value).run(&[]);
        assert!(!finished.status.success() && finished.stderr.contains(named), "{name}={value}: {finished:?}");
    }
    let both = Setup::new().set("JWT_PUBLIC_KEY", IssuerKey::Ec.private().to_str().expect("UTF-8")).run(&[]);
    assert!(both.stderr.contains("it is a private key"), "{both:?}");
}

/// Keys of HMAC by these numbers, in a key set, and a token by one of them.
fn secrets(numbers: std::ops::Range<usize>) -> String {
    let key =
        |number: usize| json!({ "kty": "oct", "alg": "HS256", "kid": number.to_string(), "k": encode(secret(number)) });
    json!({ "keys": numbers.map(key).collect::<Vec<_>>() }).to_string()
}

fn secret(number: usize) -> String {
    format!("{number:036}")
}

fn token_of_secret(number: usize) -> String {
    let header = json!({ "alg": "HS256", "kid": number.to_string() });
    sign(&header, &json!({ "sub": "anna", "exp": now() + 600 }), Algorithm::HS256, secret(number).as_bytes())
}

/// No key is left out in silence: its tokens would be refused, and nobody would know why.
#[test]
fn as_many_keys_as_are_taken_are_and_one_more_is_refused_in_one_file_and_in_several_sources() {
    let setup = Setup::new();
    let set = setup.folder().join("keys.json");
    let (alone, beside) = (
        setup.clone().unset("JWT_SECRET").set("JWT_JWKS", "keys.json"),
        // Two more: the secret and the one before it.
        setup.set("JWT_SECRET_PREVIOUS", KEY_A).set("JWT_JWKS", "keys.json"),
    );
    let too_many = |setup: &Setup, keys: usize, named: &str| {
        write(&set, &secrets(0..keys));
        let finished = setup.run(&[]);
        assert!(!finished.status.success() && finished.stderr.contains(named), "{keys}: {finished:?}");
    };
    too_many(&alone, KEYS_MAX + 1, "JWT_JWKS (keys.json): it has 33 keys; 32 are the most");
    too_many(
        &beside,
        KEYS_MAX - 1,
        "JWT_JWKS have 33 different keys; 32 are the most that tokens are checked with together",
    );

    for (setup, most) in [(alone, KEYS_MAX), (beside, KEYS_MAX - 2)] {
        write(&set, &secrets(0..most));
        let server = setup.start();
        let mut client = server.connect();
        for number in 0..most {
            assert_eq!(status(&mut client, &token_of_secret(number)), 202, "key {number} of {most}");
        }
        write(&set, &secrets(1..most + 2));
        let reason = eventually("the trouble", || trouble(&server));
        assert!(reason.contains("33") && reason.contains("Those from before go on"), "{reason}");
        let metrics = client.call(&get("/metrics")).expect(200).text().to_owned();
        assert!(metrics.contains("million_rps_component_up{component=\"keys\"} 0"), "{metrics}");
        assert_eq!(status(&mut client, &token_of_secret(0)), 202, "nothing has changed");
        assert_eq!(status(&mut client, &token_of_secret(most)), 401);
        write(&set, &secrets(1..most + 1));
        eventually_all("the new key", &mut [server.connect(), server.connect()], &token_of_secret(most), 202);
        eventually_all("the end of the old one", &mut [client], &token_of_secret(0), 401);
        assert_eq!(trouble(&server), None);
        assert!(server.stop().stderr.contains("33"), "the log has it as well");
    }
}

/// What comes from an address counts with what files have.
#[test]
fn keys_of_an_issuer_that_are_too_many_beside_those_of_files_are_refused() {
    let names: Vec<String> = (0..KEYS_MAX).map(|number| number.to_string()).collect();
    let set = |count: usize| {
        Behaviour::keys(&names[..count].iter().map(|name| (IssuerKey::Ec, name.as_str())).collect::<Vec<_>>())
    };
    let issuer = Issuer::start(set(KEYS_MAX));
    let setup = issuer.setup().set("JWT_SECRET", KEY_A).set("JWT_JWKS_REFRESH_SEC", "1");
    let server = setup.start_unready(|_| {});
    let reason = eventually("the trouble", || trouble(&server));
    assert!(reason.contains("33 different keys"), "{reason}");
    assert_eq!(server.connect().call(&get("/ready")).status, 503, "none of the issuer's keys is there yet");
    issuer.behave(set(KEYS_MAX - 1));
    let by_last = IssuerKey::Ec.token(&setup, "anna", &names[KEYS_MAX - 2]);
    eventually_all("the issuer's keys", &mut clients(&server), &by_last, 202);
    eventually("the end of the trouble", || trouble(&server).is_none().then_some(()));
    issuer.behave(set(KEYS_MAX));
    let reason = eventually("the trouble again", || trouble(&server));
    assert!(reason.contains("Those from before go on"), "{reason}");
    eventually_all("the keys from before", &mut clients(&server), &by_last, 202);
    let answer = server.connect().call(&get("/ready"));
    assert_eq!((answer.status, &answer.json()["keys"]["count"]), (200, &json!(KEYS_MAX)));
}

#[test]
fn token_without_a_secret_says_where_tokens_come_from() {
    let setup = Setup::new().unset("JWT_SECRET").set("JWT_PUBLIC_KEY", IssuerKey::Ec.public().to_str().expect("UTF-8"));
    let server = setup.start();
    let finished = setup.run(&["token", "--sub", "anna"]);
    assert!(!finished.status.success() && finished.stderr.contains("--key FILE"), "{finished:?}");
    let own = IssuerKey::Ec.token(&setup, "anna", "k");
    server.connect().call(&post(&own, r#"{"title":"t"}"#)).expect(202);
    assert_eq!(status(&mut server.connect(), &token("anna")), 401, "a secret that nobody has set is none");
    assert!(!setup.data_dir().join("jwt-secret").exists());
}

#[test]
fn writes_want_the_scope_and_the_user_of_the_settings() {
    let setup = Setup::new()
        .set("JWT_WRITE_SCOPE", "todos:write")
        .set("JWT_USER_CLAIM", "/realm/user")
        .set("JWT_AUDIENCE", "todos, lists");
    let server = setup.start();
    let mut client = server.connect();
    let mut call = |more: serde_json::Value| {
        let mut claims = json!({ "sub": "s", "exp": now() + 600, "aud": "lists", "realm": { "user": "anna" } });
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        client.call(&post(&token_of(&claims), r#"{"title":"t"}"#))
    };
    call(json!({ "scope": "openid todos:write" })).expect(202);
    call(json!({ "scp": ["todos:write"] })).expect(202);
    let refused = call(json!({ "scope": "todos:read" }));
    refused.problem(403);
    assert!(refused.required("WWW-Authenticate").contains("error=\"insufficient_scope\""), "{refused:?}");
    call(json!({ "scope": "todos:write", "aud": "mail" })).problem(401);
    call(json!({ "scope": "todos:write", "realm": "anna" })).problem(401);
    let own = setup.run_successfully(&["token", "--sub", "me"]);
    server.connect().call(&post(own.trim(), r#"{"title":"t"}"#)).expect(202);
    let users = || {
        let list = server.connect().call(&get("/todos")).json();
        let users: Vec<String> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|todo| todo["user_id"].as_str().expect("a text").to_owned())
            .collect();
        (users.len() == 3).then_some(users)
    };
    let users = eventually("three todos", users);
    assert!(
        users.iter().filter(|user| *user == "anna").count() == 2 && users.iter().any(|user| user == "me"),
        "{users:?}"
    );
}

#[test]
fn bad_tokens_of_a_costly_key_are_answered_unseen_after_some() {
    let setup = Setup::new().set("JWT_PUBLIC_KEY", IssuerKey::Rsa.public().to_str().expect("UTF-8"));
    let server = setup.start();
    let good = IssuerKey::Rsa.token(&setup, "anna", "k");
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let bad = format!("{message}.AAAA{}", &signature[4..]);
    let mut client = server.connect();
    let statuses: Vec<u16> = (0..200).map(|_| status(&mut client, &bad)).collect();
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let limited = eventually("a limit", || {
        let answer = client.call(&delete(&bad, SOME_ID));
        (answer.status == 429).then_some(answer)
    });
    limited.problem(429);
    assert_eq!(limited.required("Retry-After"), "1");
    assert_eq!(status(&mut server.connect(), &good), 202, "another client is not refused for it");
    let by_another = token_of_key(KEY_A);
    let by_secret: Vec<u16> = (0..100).map(|_| status(&mut client, &by_another)).collect();
    assert!(by_secret.iter().all(|status| *status == 401), "HS256 costs too little to be limited");
}
