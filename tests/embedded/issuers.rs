//! Keys at an https address (`JWT_JWKS`): an issuer that comes late, rotates, breaks, lies, is slow, floods or sends us elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use million_rps::limits::KEY_FETCH_ASKED_INTERVAL_SEC;

use crate::harness::client::Answer;
use crate::harness::eventually;
use crate::harness::issuer::{Behaviour, Issuer, IssuerKey};
use crate::harness::request::{delete, get};
use crate::harness::server::Server;

/// How long an unknown key may be asked for in vain: the minute after the last fetch, and what a busy machine takes.
const FETCH_PATIENCE: Duration = Duration::from_secs(KEY_FETCH_ASKED_INTERVAL_SEC as u64 + 30);
const SOME_ID: &str = "01900000-0000-7000-8000-000000000000";

fn write(server: &Server, token: &str) -> Answer {
    server.connect().call(&delete(token, SOME_ID))
}

fn ready(server: &Server) -> (u16, serde_json::Value) {
    let answer = server.connect().call(&get("/ready"));
    (answer.status, answer.json())
}

fn trouble(server: &Server) -> Option<String> {
    let (_, ready) = ready(server);
    let reasons = ready["reasons"].as_array().expect("a list").clone();
    reasons.iter().find_map(|reason| Some(reason.as_str()?.strip_prefix("keys: ")?.to_owned()))
}

#[test]
fn a_server_waits_for_the_first_keys_and_says_so() {
    let issuer = Issuer::start(Behaviour::Fails(503));
    let setup = issuer.setup();
    let server = setup.start_unready(|_| {});
    let token = IssuerKey::Rsa.token(&setup, "anna", "a");
    let reason = eventually("the trouble", || trouble(&server));
    assert!(reason.contains("it answered with status 503") && reason.contains(&issuer.url()), "{reason}");
    let (status, document) = ready(&server);
    assert_eq!((status, &document["keys"]["age_ms"]), (503, &serde_json::Value::Null), "{document}");
    assert!(
        document["reasons"].to_string().contains("start: the keys of JWT_JWKS have not been fetched"),
        "{document}"
    );
    let answer = write(&server, &token);
    answer.problem(503);
    assert!(answer.field("Retry-After").is_some(), "nobody knows whether it is good: {answer:?}");
    server.connect().call(&get("/todos")).expect(200);
    issuer.behave(Behaviour::keys(&[(IssuerKey::Rsa, "a")]));
    eventually("readiness", || (ready(&server).0 == 200).then_some(()));
    write(&server, &token).expect(202);
    assert_eq!(trouble(&server), None);
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
fn an_issuer_rotates_breaks_lies_floods_and_comes_back() {
    let issuer = Arc::new(Issuer::start(Behaviour::keys(&[(IssuerKey::Rsa, "a"), (IssuerKey::Ec, "b")])));
    let elsewhere = Issuer::start(Behaviour::keys(&[(IssuerKey::Ed, "evil")]));
    let setup = issuer.setup().set("JWT_JWKS_REFRESH_SEC", "1");
    let server = setup.start();
    let token = |key: IssuerKey, kid| key.token(&setup, "anna", kid);
    let (by_a, by_b) = (token(IssuerKey::Rsa, "a"), token(IssuerKey::Ec, "b"));
    write(&server, &by_a).expect(202);
    write(&server, &by_b).expect(202);
    issuer.behave(Behaviour::keys(&[(IssuerKey::Ec, "b"), (IssuerKey::Ed, "c")]));
    let by_c = token(IssuerKey::Ed, "c");
    eventually("the new key", || (write(&server, &by_c).status == 202).then_some(()));
    eventually("the end of the old one", || (write(&server, &by_a).status == 401).then_some(()));
    let secret = serde_json::json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": "A".repeat(64) }] }).to_string();
    for (behaviour, named) in [
        (Behaviour::Fails(500), "it answered with status 500"),
        (Behaviour::SendsTo(elsewhere.url()), "a redirect, which is not followed"),
        (Behaviour::Answers("<html>please log in</html>".to_owned(), ""), "it is no key set"),
        (Behaviour::Answers("{\"keys\":[]}".to_owned(), ""), "it has no keys"),
        (Behaviour::Answers(secret, ""), "a key of HMAC belongs into a file"),
        (Behaviour::Floods(100 << 20), "more than 1048576 bytes"),
        (Behaviour::BreaksOff, "its answer broke off: "),
    ] {
        issuer.behave(behaviour.clone());
        let reason = eventually(named, || trouble(&server).filter(|reason| reason.contains(named)));
        assert!(reason.contains("Those that were fetched last go on"), "{reason}");
        write(&server, &by_b).expect(202);
        write(&server, &by_c).expect(202);
        let (status, document) = ready(&server);
        assert!(status == 200 && document["keys"]["age_ms"].as_u64().is_some(), "{document}");
        // Each failure in a row doubles the wait for the next fetch.
        issuer.behave(Behaviour::keys(&[(IssuerKey::Ec, "b"), (IssuerKey::Ed, "c")]));
        eventually("the end of this trouble", || trouble(&server).is_none().then_some(()));
    }
    assert_eq!(elsewhere.asked(), 0);
    issuer.behave(Behaviour::keys(&[(IssuerKey::Rsa, "d")]));
    let by_d = token(IssuerKey::Rsa, "d");
    eventually("the keys after the outage", || (write(&server, &by_d).status == 202).then_some(()));
    eventually("the end of the trouble", || trouble(&server).is_none().then_some(()));
    assert_eq!(write(&server, &by_b).status, 401);
}

#[test]
fn an_issuer_that_does_not_answer_stops_nobody() {
    let issuer = Issuer::start(Behaviour::keys(&[(IssuerKey::Ec, "b")]));
    let setup = issuer.setup().set("JWT_JWKS_REFRESH_SEC", "1");
    let server = setup.start();
    let token = IssuerKey::Ec.token(&setup, "anna", "b");
    issuer.behave(Behaviour::IsSilent);
    let asked = issuer.asked();
    eventually("a fetch that hangs", || (issuer.asked() > asked).then_some(()));
    write(&server, &token).expect(202);
    let reason = eventually("its end", || trouble(&server));
    assert!(reason.contains("it did not answer within 10000 ms"), "{reason}");
    write(&server, &token).expect(202);
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
fn unknown_keys_do_not_make_it_fetch_however_many_tokens_name_them() {
    let issuer = Issuer::start(Behaviour::keys(&[(IssuerKey::Ec, "b")]));
    let setup = issuer.setup();
    let server = setup.start();
    let unknown = IssuerKey::Ec.token(&setup, "anna", "no-such-key");
    let known = IssuerKey::Ec.token(&setup, "anna", "b");
    let before = issuer.asked();
    let mut client = server.connect();
    for _ in 0..2_000 {
        let answer = client.call(&delete(&unknown, SOME_ID));
        // Fresh keys: refused. After a minute, once: asked for.
        assert!([401, 503].contains(&answer.status), "{answer:?}");
    }
    assert!(issuer.asked() <= before + 1, "{} fetches", issuer.asked() - before);
    write(&server, &known).expect(202);
}

/// The issuer signs with a new key before it is time to fetch: the tokens themselves say so. The set was fetched at the start, so
/// this takes the minute that lies between two such fetches.
#[test]
fn an_unknown_key_makes_it_fetch_at_most_once_a_minute_and_is_taken_at_once() {
    let issuer = Issuer::start(Behaviour::keys(&[(IssuerKey::Ec, "old")]));
    let setup = issuer.setup();
    let server = setup.start();
    let (old, new) = (IssuerKey::Ec.token(&setup, "anna", "old"), IssuerKey::Ed.token(&setup, "anna", "new"));
    write(&server, &old).expect(202);
    assert_eq!(issuer.asked(), 1);
    issuer.behave(Behaviour::keys(&[(IssuerKey::Ed, "new")]));
    let begun_at = Instant::now();
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    // Many tokens, but not so many that other tests would wait for them.
    while issuer.asked() == 1 {
        for client in &mut clients {
            let answer = client.call(&delete(&new, SOME_ID));
            assert!([202, 401, 503].contains(&answer.status), "{answer:?}");
        }
        assert!(begun_at.elapsed() < FETCH_PATIENCE, "nobody has asked for the new key");
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in &mut clients {
        eventually("the new key in every shard", || (client.call(&delete(&new, SOME_ID)).status == 202).then_some(()));
        eventually("the end of the old one", || (client.call(&delete(&old, SOME_ID)).status == 401).then_some(()));
    }
    // The old one is unknown by now, and others come.
    let unknown = IssuerKey::Ec.token(&setup, "anna", "no-such-key");
    for _ in 0..500 {
        assert_eq!(clients[0].call(&delete(&unknown, SOME_ID)).status, 401);
    }
    assert_eq!(issuer.asked(), 2, "two within a minute");
}

#[test]
fn certificates_are_checked() {
    let issuer = Issuer::start(Behaviour::keys(&[(IssuerKey::Ec, "b")]));
    let stranger = Issuer::start(Behaviour::keys(&[(IssuerKey::Ec, "b")]));
    let foreign = stranger.authority();
    for setup in [
        issuer.setup().unset("JWT_JWKS_CA_FILE"),
        issuer.setup().set("JWT_JWKS_CA_FILE", foreign.to_str().expect("UTF-8")),
        // The certificate is for localhost.
        issuer.setup().set("JWT_JWKS", &issuer.url().replace("localhost", "127.0.0.1")),
        issuer.setup().set("JWT_JWKS_CA_FILE", "/nowhere/authority.pem"),
    ] {
        let server = setup.start_unready(|_| {});
        let reason = eventually("the trouble", || trouble(&server));
        assert!(["ertificate", "cannot be read"].iter().any(|word| reason.contains(word)), "{reason}");
        assert_eq!(ready(&server).0, 503);
        assert_eq!(write(&server, &IssuerKey::Ec.token(&setup, "anna", "b")).status, 503);
    }
    assert_eq!(issuer.asked(), 0, "nothing was asked of a server that nobody vouches for");
}
