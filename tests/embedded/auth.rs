//! Who may write: bearer tokens, HS256 (RFC 6750, RFC 7519, RFC 8725).

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use million_rps::limits::USER_ID_MAX_BYTES;
use serde_json::{Value, json};

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::{Shared, on_both_drivers};
use crate::harness::token::{SECRET, encode, now, sign, token, token_of};

on_both_drivers!(crate::plain =>
    reads_need_no_token,
    writes_need_a_token,
    bad_tokens_are_refused_with_the_reason,
    the_scheme_is_read_as_the_rfc_says,
    a_remembered_token_expires_all_the_same,
    users_may_have_any_name,
);

const SOME_ID: &str = "01900000-0000-7000-8000-000000000000";

fn reads_need_no_token(server: &Server) {
    let mut client = server.connect();
    for target in ["/todos?limit=1", "/health", "/ready", "/metrics"] {
        client.call(&get(target)).expect(200);
        // A bad token does not hurt where none is needed.
        client.call(&get(target).token("nonsense")).expect(200);
    }
}

/// Checks that a token was refused, and returns the reason that the challenge gives.
#[track_caller]
fn refusal(answer: &Answer) -> String {
    let text = answer.problem(401);
    assert!(!text.contains(SECRET), "{text}");
    let challenge = answer.required("WWW-Authenticate");
    let reason = challenge
        .strip_prefix("Bearer realm=\"million-rps\", error=\"invalid_token\", error_description=\"")
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_else(|| panic!("{challenge:?} is no challenge with a reason"));
    assert!(!reason.is_empty() && !reason.contains(['"', '\\']), "{challenge:?}");
    assert!(text.contains(reason), "the body says the same: {text}, {reason}");
    reason.to_owned()
}

fn writes_need_a_token(server: &Server) {
    let mut client = server.connect();
    for request in [
        Request::new("POST", "/todos").json(r#"{"title":"t"}"#),
        Request::new("POST", "/todos").json("not even JSON"),
        Request::new("PUT", format!("/todos/{SOME_ID}")).json(r#"{"title":"t"}"#),
        Request::new("DELETE", format!("/todos/{SOME_ID}")),
        Request::new("DELETE", "/todos/nonsense"),
    ] {
        let answer = client.call(&request);
        answer.problem(401);
        assert_eq!(answer.required("WWW-Authenticate"), "Bearer realm=\"million-rps\"", "{request:?}");
    }
    client.assert_goes_on();
}

/// Sends a write with this token; it is for a todo that nobody has, so that a token that is accepted does no harm.
fn write_with(client: &mut Client, token: &str) -> Answer {
    client.call(&delete(token, SOME_ID))
}

fn bad_tokens_are_refused_with_the_reason(server: &Server) {
    let mut client = server.connect();
    let good_claims = json!({ "sub": "alice", "exp": now() + 3600 });
    let header = |more: Value| {
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        for (name, value) in more.as_object().expect("an object") {
            header[name] = value.clone();
        }
        header
    };
    let hs256 = |header: Value, claims: &Value| sign(&header, claims, Algorithm::HS256, SECRET.as_bytes());
    let good = hs256(header(json!({})), &good_claims);
    write_with(&mut client, &good).expect(202);

    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (head, payload) = message.split_once('.').expect("three parts");
    let forged_payload = encode(json!({ "sub": "root", "exp": now() + 3600 }).to_string());
    let none = encode(r#"{"alg":"none"}"#);
    let garbled = format!("{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let forged = [
        ("nonsense", "the token is malformed", "nonsense".to_owned()),
        ("two parts", "the token is malformed", message.to_owned()),
        ("four parts", "the token is malformed", format!("{good}.x")),
        ("empty parts", "malformed", "..".to_owned()),
        ("no signature", "", format!("{message}.")),
        ("garbled signature", "signature", format!("{message}.{garbled}")),
        ("cut signature", "", good[..good.len() - 2].to_owned()),
        ("padded signature", "", format!("{good}=")),
        ("another payload", "signature", format!("{head}.{forged_payload}.{signature}")),
        ("alg none", "", format!("{none}.{payload}.")),
        ("alg none, signed", "HS256", format!("{none}.{payload}.{signature}")),
        ("alg NONE", "", format!("{}.{payload}.", encode(r#"{"alg":"NONE"}"#))),
        ("no alg", "HS256", hs256(json!({ "typ": "JWT" }), &good_claims)),
        ("alg of another kind", "HS256", hs256(header(json!({ "alg": "RS256" })), &good_claims)),
        ("unknown alg", "HS256", hs256(header(json!({ "alg": "hs256" })), &good_claims)),
        ("HS384", "HS256", sign(&header(json!({ "alg": "HS384" })), &good_claims, Algorithm::HS384, SECRET.as_bytes())),
        ("HS512", "HS256", sign(&header(json!({ "alg": "HS512" })), &good_claims, Algorithm::HS512, SECRET.as_bytes())),
        (
            "another key",
            "signature",
            sign(&header(json!({})), &good_claims, Algorithm::HS256, b"another secret of 32 bytes or so"),
        ),
        ("an empty key", "signature", sign(&header(json!({})), &good_claims, Algorithm::HS256, b"")),
        ("unknown crit", "unsupported", hs256(header(json!({ "crit": ["b64"], "b64": true })), &good_claims)),
        ("empty crit", "", hs256(header(json!({ "crit": [] })), &good_claims)),
        ("crit that is no list", "", hs256(header(json!({ "crit": "exp" })), &good_claims)),
        ("a header that is no object", "header", hs256(json!([]), &good_claims)),
        ("claims that are no object", "the claims are not a JSON object", hs256(header(json!({})), &json!(["alice"]))),
    ];
    for (name, named, token) in &forged {
        let answer = write_with(&mut client, token);
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        let reason = refusal(&answer);
        assert!(reason.contains(named), "{name} should be refused for {named:?}: {reason}");
    }

    for (claims, named) in [
        (json!({ "sub": "alice" }), "exp is missing"),
        (json!({ "sub": "alice", "exp": now() - 1 }), "expired"),
        (json!({ "sub": "alice", "exp": 0 }), "expired"),
        (json!({ "sub": "alice", "exp": -1 }), "expired"),
        (json!({ "sub": "alice", "exp": "tomorrow" }), "the claim exp is not a number"),
        (json!({ "sub": "alice", "exp": (now() + 3600).to_string() }), "the claim exp is not a number"),
        (json!({ "sub": "alice", "exp": null }), "the claim exp is missing"),
        (json!({ "sub": "alice", "exp": now() + 3600, "nbf": now() + 1800 }), "not valid yet"),
        (json!({ "sub": "alice", "exp": now() + 3600, "nbf": "later" }), "the claim nbf is not a number"),
        (json!({ "exp": now() + 3600 }), "sub"),
        (json!({ "sub": "", "exp": now() + 3600 }), "sub"),
        (json!({ "sub": 7, "exp": now() + 3600 }), "the claim sub is not a text"),
        (json!({ "sub": null, "exp": now() + 3600 }), "the claim sub is missing"),
        (json!({ "sub": ["alice"], "exp": now() + 3600 }), "the claim sub is not a text"),
        (json!({ "sub": "a\nb", "exp": now() + 3600 }), "sub"),
        (json!({ "sub": "a\u{0}", "exp": now() + 3600 }), "sub"),
        (json!({ "sub": "x".repeat(USER_ID_MAX_BYTES + 1), "exp": now() + 3600 }), "sub"),
    ] {
        let answer = write_with(&mut client, &token_of(&claims));
        assert_eq!(answer.status, 401, "{claims}: {answer:?}");
        let reason = refusal(&answer);
        assert!(reason.contains(named), "{claims} should be refused for {named:?}: {reason}");
    }
    write_with(&mut client, &good).expect(202);
}

fn the_scheme_is_read_as_the_rfc_says(server: &Server) {
    let good = token("alice");
    let mut client = server.connect();
    let mut status_of = |value: String| {
        let answer = client.call(&Request::new("DELETE", format!("/todos/{SOME_ID}")).field("Authorization", &value));
        if answer.status == 401 {
            assert!(answer.required("WWW-Authenticate").starts_with("Bearer realm=\"million-rps\""), "{answer:?}");
        }
        answer.status
    };
    // RFC 9110 section 11.1: the scheme's name is case-insensitive, and one or more spaces follow it.
    for accepted in
        [format!("Bearer {good}"), format!("bearer {good}"), format!("BEARER {good}"), format!("Bearer   {good}")]
    {
        assert_eq!(status_of(accepted.clone()), 202, "{accepted}");
    }
    for refused in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        good.clone(),
        format!("Bearer{good}"),
        format!("Bearer:{good}"),
        format!("Bearer \"{good}\""),
        format!("Bearer {good} {good}"),
        format!("Bearer {good},Bearer {good}"),
        format!("Token {good}"),
        "Basic YWxpY2U6c2VjcmV0".to_owned(),
        format!("Bearer {}", "x".repeat(9000)),
    ] {
        assert_eq!(status_of(refused.clone()), 401, "{refused}");
    }
}

fn a_remembered_token_expires_all_the_same(server: &Server) {
    let short = token_of(&json!({ "sub": "alice", "exp": now() + 3 }));
    let mut client = server.connect();
    write_with(&mut client, &short).expect(202);
    write_with(&mut client, &short).expect(202);
    let answer = eventually("the token to expire", || {
        Some(write_with(&mut client, &short)).filter(|answer| answer.status != 202)
    });
    assert!(refusal(&answer).contains("expired"), "{answer:?}");
}

fn users_may_have_any_name(server: &Server) {
    let mut client = server.connect();
    for sub in ["a", " ", "日本語", "auth0|5f7c8ec7c33c6c004bbafe82", "\"}", &"x".repeat(USER_ID_MAX_BYTES)] {
        let token = token(sub);
        let id = client.call(&post(&token, r#"{"title":"mine"}"#)).expect(202).json()["id"].clone();
        let id = id.as_str().expect("an id");
        eventually("the todo to show", || {
            let answer = client.call(&get(format!("/todos/{id}")));
            (answer.status == 200).then(|| assert_eq!(answer.json()["user_id"], sub))
        });
        client.call(&put(&token, id, r#"{"completed":true}"#)).expect(202);
    }
}

static STRICT: Shared =
    Shared::new(|| Setup::new().set("JWT_ISSUER", "https://login.example.com").set("JWT_AUDIENCE", "todos"));

fn strict(driver: Driver) -> Arc<Server> {
    STRICT.with(driver)
}

#[test]
fn issuer_and_audience_are_checked_when_set() {
    let server = strict(Driver::Epoll);
    let mut client = server.connect();
    let claims = |more: Value| {
        let mut claims = json!({ "sub": "alice", "exp": now() + 3600 });
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        token_of(&claims)
    };
    let issuer = "https://login.example.com";
    for accepted in [json!({ "iss": issuer, "aud": "todos" }), json!({ "iss": issuer, "aud": ["others", "todos"] })] {
        write_with(&mut client, &claims(accepted)).expect(202);
    }
    for (refused, named) in [
        (json!({}), "issuer"),
        (json!({ "aud": "todos" }), "issuer"),
        (json!({ "iss": "https://login.example.org", "aud": "todos" }), "issuer"),
        (json!({ "iss": [issuer], "aud": "todos" }), "the claim iss is not a text"),
        (json!({ "iss": issuer }), "audience"),
        (json!({ "iss": issuer, "aud": "todo" }), "audience"),
        (json!({ "iss": issuer, "aud": [] }), "audience"),
        (json!({ "iss": issuer, "aud": ["todos2", "x"] }), "audience"),
        (json!({ "iss": issuer, "aud": 7 }), "the claim aud is neither"),
    ] {
        let answer = write_with(&mut client, &claims(refused.clone()));
        assert_eq!(answer.status, 401, "{refused}: {answer:?}");
        let reason = refusal(&answer);
        assert!(reason.contains(named), "{refused} should be refused for {named:?}: {reason}");
    }
    // Tokens of the program's own tool pass its own server.
    let own = server.setup().run_successfully(&["token", "--sub", "alice"]);
    write_with(&mut client, own.trim()).expect(202);
}

#[test]
fn the_token_command_makes_tokens_for_the_server() {
    let server = crate::plain(Driver::Epoll);
    let mut client = server.connect();
    let printed = server.setup().run_successfully(&["token", "--sub", "bob"]);
    assert_eq!(printed.lines().count(), 1, "a token and nothing else, so that $(…) can take it: {printed:?}");
    let id = client.call(&post(printed.trim(), r#"{"title":"bob's"}"#)).expect(202).json()["id"].clone();
    eventually("the todo to show", || {
        let answer = client.call(&get(format!("/todos/{}", id.as_str().expect("an id"))));
        (answer.status == 200).then(|| assert_eq!(answer.json()["user_id"], "bob"))
    });
    let short = server.setup().run_successfully(&["token", "--sub", "bob", "--ttl", "2s"]);
    eventually("the short token to expire", || (write_with(&mut client, short.trim()).status == 401).then_some(()));
    for arguments in [
        &["token"][..],
        &["token", "--sub", ""],
        &["token", "--sub", "a\tb"],
        &["token", "--sub", "a", "--ttl", "0s"],
        &["token", "--sub", "a", "--ttl", "soon"],
    ] {
        let finished = server.setup().run(arguments);
        assert!(!finished.status.success(), "{arguments:?}: {finished:?}");
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{arguments:?}: {finished:?}");
    }
}
