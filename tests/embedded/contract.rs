//! What docs/api.md decides: what is taken although it could be refused, and what is refused although it could be ignored.

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::request::{Request, chunked, delete, get, post, put};
use crate::harness::server::Server;
use crate::harness::shared::on_both_drivers;
use crate::harness::token::{now, token, token_of};

on_both_drivers!(crate::plain =>
    a_parameter_that_is_not_known_is_refused_by_its_name,
    queries_as_browsers_and_curl_send_them_are_read,
    a_hundred_fields_and_those_of_a_proxy_are_taken,
    json_that_others_take_is_taken,
    what_is_no_json_is_told_by_line_and_byte,
    charset_may_be_written_without_its_hyphen,
    a_todo_may_be_created_as_done,
    a_todo_may_be_sent_back_as_it_came,
    a_write_to_what_is_not_there_is_accepted_and_changes_nothing,
    a_write_right_behind_the_create_finds_it,
    a_slash_too_many_is_told,
    options_of_the_server_are_answered_to_health_checks,
    claims_that_nobody_checks_may_be_null,
);

const UNKNOWN_ID: &str = "01900000-0000-7000-8000-000000000001";

/// Creates a todo, waits until it shows, and returns it.
fn created(client: &mut Client, token: &str, body: impl Into<Vec<u8>>) -> Value {
    let answer = client.call(&post(token, body).field("Prefer", "wait=30")).expect(202);
    let location = answer.required("Location").to_owned();
    client.call(&get(location)).expect(200).json()
}

fn a_parameter_that_is_not_known_is_refused_by_its_name(server: &Server) {
    let mut client = server.connect();
    for (target, name, hint) in [
        ("/todos?limt=2", "limt", "limit was perhaps meant"),
        ("/todos?Limit=2", "Limit", "limit was perhaps meant"),
        ("/todos?limit=2&curser=x", "curser", "cursor was perhaps meant"),
        ("/todos?limit[]=2", "limit[]", "limit was perhaps meant"),
        ("/todos?offset=10", "offset", "limit and cursor"),
        ("/todos?sort=title", "sort", "no other order"),
        ("/todos?%C3%A9=1", "é", "limit and cursor"),
    ] {
        let answer = client.call(&get(target));
        answer.problem(400);
        let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
        assert!(detail.contains(&format!("parameter {name} ")) && detail.contains(hint), "{target}: {detail}");
        client.call(&Request::new("HEAD", target)).expect(400);
    }
    // Nothing is asked for by these: `_` is what scripts send past caches, and the others take no parameters.
    for target in ["/todos?limit=2&_=1700000000000", "/todos?", "/todos?&&limit=2", "/health?limt=2", "/ready?verbose"]
    {
        client.call(&get(target)).expect(200);
    }
}

fn queries_as_browsers_and_curl_send_them_are_read(server: &Server) {
    let mut client = server.connect();
    for query in ["a[]=b", "a={b|c}", "a^b`c\\d", "q=é", "q=日本語", "[]{}|^`\\"] {
        client.call(&get(format!("/health?{query}"))).expect(200);
        client.call(&get(format!("http://localhost/health?{query}"))).expect(200);
        client.call(&get(format!("/todos?limit=1&_={query}"))).expect(200);
        // Of the list it is a parameter that is not known; the connection goes on.
        let text = client.call(&get(format!("/todos?{query}"))).problem(400);
        assert!(text.contains("query parameter"), "{query}: {text}");
    }
    client.assert_goes_on();
    for refused in ["/a[b]", "/health?a\"b", "/health?<a>", "/health?a#b", "/é"] {
        let answer = server.connect().call(&get(refused));
        answer.problem(400);
        assert!(answer.closes(), "{refused}");
    }
}

fn a_hundred_fields_and_those_of_a_proxy_are_taken(server: &Server) {
    let mut client = server.connect();
    for count in [65, 100, 115] {
        let request = (1..count).fold(get("/todos?limit=1"), |request, n| request.field(&format!("X-{n}"), "y"));
        client.call(&request).expect(200);
    }
}

fn json_that_others_take_is_taken(server: &Server) {
    let token = token("lenient");
    let mut client = server.connect();
    for (body, title) in [
        ("\u{feff}{\"title\":\"with a mark\"}", "with a mark"),
        (r#"{"title":"beyond \u0036\u0034 bits","n":123456789012345678901234567890}"#, "beyond 64 bits"),
        (r#"{"n":[1e400,{"m":-1E+999}],"title":"beyond a \"double\" 1e400"}"#, "beyond a \"double\" 1e400"),
    ] {
        assert_eq!(created(&mut client, &token, body)["title"], title, "{body}");
    }
    let todo = created(&mut client, &token, r#"{"title":"before"}"#);
    let id = todo["id"].as_str().expect("an id");
    let body = "\u{feff}{\"n\":1e400,\"title\":\"after\"}";
    client.call(&put(&token, id, body).field("Prefer", "wait=30")).expect(202);
    assert_eq!(client.call(&get(format!("/todos/{id}"))).json()["title"], "after");
    let text = client.call(&post(&token, r#"{"title":1e400}"#)).problem(400);
    assert!(text.contains("title must be a string"), "{text}");
    // In chunks, too, and the next request is read as if nothing had been.
    client.send(format!(
        "POST /todos HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    client.send(chunked(br#"{"title":"in chunks","n":1e400}"#, &[3, 7]));
    client.answer().expect(202);
    client.assert_goes_on();
}

fn what_is_no_json_is_told_by_line_and_byte(server: &Server) {
    let token = token("strict");
    let mut client = server.connect();
    let bodies: [(&[u8], &str); 6] = [
        (b"{\"title\":\"a\" \"x\":1}", "a comma or } is expected, at line 1, byte 14"),
        (b"{\n  \"title\": \"a\",\n  \"x\": 1,\n}", "at line 4, byte 1"),
        (b"{\"title\":\"\\u00e9\\u00e9\\u00e9\",x}", "at line 1, byte 31"),
        (b"\xef\xbb\xbf{x}", "at line 1, byte 5"),
        (b"{\"n\":1e400,\n\"title\":\"a", "it ends too early, at line 2, byte 11"),
        (b"{\"title\":\n\"\xff\"}", "not valid UTF-8, at line 2, byte 2"),
    ];
    for (body, place) in bodies {
        for request in [post(&token, body), put(&token, UNKNOWN_ID, body)] {
            let text = client.call(&request).problem(400);
            assert!(text.contains(place), "{:?}: {text}", String::from_utf8_lossy(body));
        }
    }
}

fn charset_may_be_written_without_its_hyphen(server: &Server) {
    let token = token("charset");
    let mut client = server.connect();
    for charset in ["utf8", "UTF8", "\"utf8\"", "utf-8"] {
        let request = Request::new("POST", "/todos").token(&token).body(r#"{"title":"é"}"#);
        client.call(&request.field("Content-Type", &format!("application/json; charset={charset}"))).expect(202);
    }
}

fn a_todo_may_be_created_as_done(server: &Server) {
    let token = token("done");
    let mut client = server.connect();
    for (body, completed) in [
        (r#"{"title":"t"}"#, false),
        (r#"{"title":"t","completed":null}"#, false),
        (r#"{"title":"t","completed":false}"#, false),
        (r#"{"title":"t","completed":true}"#, true),
    ] {
        assert_eq!(created(&mut client, &token, body)["completed"], completed, "{body}");
    }
    for wrong in [r#"{"title":"t","completed":"true"}"#, r#"{"title":"t","completed":1}"#] {
        assert!(client.call(&post(&token, wrong)).problem(400).contains("completed"), "{wrong}");
    }
}

fn a_todo_may_be_sent_back_as_it_came(server: &Server) {
    let token = token("again");
    let mut client = server.connect();
    let todo = created(&mut client, &token, r#"{"title":"t","description":"d"}"#);
    let id = todo["id"].as_str().expect("an id");
    let mut changed = todo.clone();
    changed["completed"] = json!(true);
    changed["user_id"] = json!("somebody else");
    changed["created_at"] = json!("1999-01-01T00:00:00Z");
    client.call(&put(&token, id, changed.to_string()).field("Prefer", "wait=30")).expect(202);
    let shown = client.call(&get(format!("/todos/{id}"))).expect(200).json();
    assert_eq!(shown["completed"], true);
    for kept in ["id", "user_id", "created_at", "title", "description"] {
        assert_eq!(shown[kept], todo[kept], "{kept}");
    }
}

fn a_write_to_what_is_not_there_is_accepted_and_changes_nothing(server: &Server) {
    let token = token("nobody's");
    let mut client = server.connect();
    for request in [put(&token, UNKNOWN_ID, r#"{"title":"t"}"#), delete(&token, UNKNOWN_ID)] {
        let answer = client.call(&request.clone().field("Prefer", "wait=30")).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait", "what was sent has been applied");
        client.call(&get(format!("/todos/{UNKNOWN_ID}"))).problem(404);
        // Whoever wants to change only what shows says so.
        client.call(&request.field("If-Match", "*")).problem(412);
    }
}

/// Why a write to an id that does not show is no 404: the create may be on its way.
fn a_write_right_behind_the_create_finds_it(server: &Server) {
    let token = token("hasty");
    let mut client = server.connect();
    for round in 0..20 {
        let id = client.call(&post(&token, r#"{"title":"first"}"#)).expect(202).json()["id"].clone();
        let id = id.as_str().expect("an id");
        let mut bytes = put(&token, id, r#"{"title":"second"}"#).bytes();
        bytes.extend(put(&token, id, r#"{"completed":true}"#).field("Prefer", "wait=30").bytes());
        client.send(bytes);
        client.answer().expect(202);
        client.answer().expect(202);
        let todo = client.call(&get(format!("/todos/{id}"))).expect(200).json();
        assert_eq!((&todo["title"], &todo["completed"]), (&json!("second"), &json!(true)), "round {round}");
    }
}

fn a_slash_too_many_is_told(server: &Server) {
    let token = token("slash");
    let mut client = server.connect();
    let cases = [
        (Request::new("POST", "/todos/").token(&token).json(r#"{"title":"t"}"#), 405),
        (get("/todos/"), 400),
        (put(&token, "", r#"{"title":"t"}"#), 400),
        (delete(&token, ""), 400),
        (get(format!("/todos/{UNKNOWN_ID}/")), 404),
        (get("/health/"), 404),
        (get("/ready/"), 404),
        (get("/metrics/"), 404),
    ];
    for (request, status) in cases {
        let text = client.call(&request).problem(status);
        assert!(text.contains("ends in a slash: leave it out"), "{text}");
    }
    for other in ["//", "/todo/", "/todos/1/", "/todos//"] {
        assert!(!client.call(&get(other)).problem(404).contains("slash"), "{other}");
    }
}

fn options_of_the_server_are_answered_to_health_checks(server: &Server) {
    let mut client = server.connect();
    for (target, allow) in [
        ("*", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("http://localhost", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("http://localhost/", "GET, HEAD, OPTIONS"),
    ] {
        let answer = client.call(&Request::new("OPTIONS", target)).expect(204);
        assert_eq!(answer.required("Allow"), allow, "{target}");
    }
    // As HAProxy's check sends it when nothing else is said.
    let mut client = server.connect();
    client.send("OPTIONS / HTTP/1.0\r\n\r\n");
    client.answer().expect(204);
    client.assert_ended();
}

fn claims_that_nobody_checks_may_be_null(server: &Server) {
    let mut client = server.connect();
    let claims = |more: Value| {
        let mut claims = json!({ "sub": "null", "exp": now() + 3600 });
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        token_of(&claims)
    };
    let accepted = claims(json!({ "aud": null, "iss": null, "nbf": null, "roles": null }));
    client.call(&delete(&accepted, UNKNOWN_ID)).expect(202);
    for (more, told) in [
        (json!({ "aud": 7 }), "the claim aud is neither a text nor a list of texts"),
        (json!({ "iss": ["a"] }), "the claim iss is not a text"),
        (json!({ "nbf": "now" }), "the claim nbf is not a number of seconds"),
        (json!({ "exp": null }), "the claim exp is missing"),
        (json!({ "sub": null }), "the claim sub is missing"),
        (json!({ "sub": ["a"] }), "the claim sub is not a text"),
        (json!({ "exp": now() - 5 }), "the token has expired (claim exp)"),
    ] {
        let text = client.call(&delete(&claims(more.clone()), UNKNOWN_ID)).problem(401);
        assert!(text.contains(told), "{more}: {text}");
    }
}
