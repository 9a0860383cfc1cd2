//! The wire: request lines, header fields, methods, versions, and how connections end (RFC 9110, RFC 9112).

use million_rps::limits::{HEAD_MAX_BYTES, HEADERS_MAX, TARGET_MAX_BYTES};

use crate::harness::client::{Answer, lossy};
use crate::harness::eventually;
use crate::harness::request::{Request, get, post};
use crate::harness::server::Server;
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    unknown_paths_are_404,
    other_methods_are_405_with_allow,
    options_lists_the_methods,
    head_is_get_without_its_body,
    unknown_methods_are_501,
    malformed_heads_are_refused_and_the_connection_ends,
    limits_of_the_head_are_exact,
    absolute_targets_and_encoded_paths_are_understood,
    http_1_0_ends_unless_asked_to_stay,
    later_minor_versions_are_answered_as_1_1,
    close_is_said_and_done,
    a_half_closed_client_gets_all_its_answers,
    half_a_request_is_never_carried_out,
    empty_lines_before_a_request_are_skipped,
    other_connections_do_not_notice,
    the_date_goes_on,
);

const UNKNOWN_ID: &str = "01900000-0000-7000-8000-000000000000";

fn unknown_paths_are_404(server: &Server) {
    let mut client = server.connect();
    for path in
        ["//", "/todo", "/todosx", "/Todos", "//todos", "/todos/a/b", "/./todos", "/health/", "/todos%2f", "/x?limit=5"]
    {
        for method in ["GET", "DELETE", "OPTIONS"] {
            let text = client.call(&Request::new(method, path)).problem(404);
            assert!(!text.contains("panic"), "{method} {path}: {text}");
        }
        let answer = client.call(&Request::new("HEAD", path)).expect(404);
        assert!(answer.body.is_empty());
    }
    client.call(&get(format!("/todos/{UNKNOWN_ID}"))).problem(404);
}

const RESOURCES: [(&str, &str); 5] = [
    ("/todos", "GET, HEAD, POST, OPTIONS"),
    ("/todos/01900000-0000-7000-8000-000000000000", "GET, HEAD, PUT, DELETE, OPTIONS"),
    ("/health", "GET, HEAD, OPTIONS"),
    ("/ready", "GET, HEAD, OPTIONS"),
    ("/metrics", "GET, HEAD, OPTIONS"),
];

fn other_methods_are_405_with_allow(server: &Server) {
    let mut client = server.connect();
    for (path, allowed) in RESOURCES {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            if allowed.contains(method) {
                continue;
            }
            let answer = client.call(&Request::new(method, path));
            answer.problem(405);
            assert_eq!(answer.required("Allow"), allowed, "{method} {path}");
        }
    }
    client.assert_goes_on();
}

fn options_lists_the_methods(server: &Server) {
    let mut client = server.connect();
    for (path, allowed) in RESOURCES {
        let answer = client.call(&Request::new("OPTIONS", path)).expect(204);
        assert_eq!(answer.required("Allow"), allowed, "{path}");
    }
    let answer = client.call(&Request::new("OPTIONS", "*")).expect(204);
    assert_eq!(answer.required("Allow"), "GET, HEAD, POST, PUT, DELETE, OPTIONS");
}

/// The fields of an answer that do not change with time.
fn lasting(answer: &Answer) -> Vec<&(String, String)> {
    answer.fields.iter().filter(|(name, _)| name != "Date").collect()
}

fn head_is_get_without_its_body(server: &Server) {
    let mut client = server.connect();
    let missing = format!("/todos/{UNKNOWN_ID}");
    for target in ["/health", &missing, "/todos?limit=0", "/nowhere"] {
        let full = client.call(&get(target));
        let bare = client.call(&Request::new("HEAD", target));
        assert_eq!(bare.status, full.status, "{target}");
        assert_eq!(lasting(&bare), lasting(&full), "{target}");
        assert_eq!(full.content_length(), full.body.len(), "{target}");
    }
    for target in ["/todos", "/todos?limit=3", "/ready", "/metrics"] {
        client.call(&Request::new("HEAD", target)).expect(200);
    }
    client.assert_goes_on();
}

fn unknown_methods_are_501(server: &Server) {
    for method in ["get", "BREW", "PROPFIND", "G"] {
        let mut client = server.connect();
        client.send(format!("{method} /todos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        client.answer().problem(501);
        client.assert_ended();
    }
    let mut client = server.connect();
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    let answer = client.answer();
    answer.problem(501);
    assert!(answer.closes(), "what follows may be a tunnel's bytes: {answer:?}");
    client.assert_ended();
}

/// Sends `bytes`, and behind them a request that must not be answered any more: after a malformed head nobody knows where
/// the next request starts.
fn assert_refused(server: &Server, bytes: &[u8], status: u16) {
    let mut client = server.connect();
    // The server may have refused and closed before it has read all of this.
    let _ = client.try_send(bytes).and_then(|()| client.try_send(get("/health").bytes()));
    let answer = client.next_answer(false).unwrap_or_else(|| panic!("no answer to {:?}", lossy(bytes)));
    assert_eq!(answer.status, status, "{:?}: {answer:?}", lossy(bytes));
    answer.problem(status);
    assert!(answer.closes(), "{:?}: {answer:?}", lossy(bytes));
    client.assert_ended();
}

fn malformed_heads_are_refused_and_the_connection_ends(server: &Server) {
    let heads: &[(&[u8], u16)] = &[
        (b"GET /todos HTTP/1.1\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
        (b"GET http://a/todos HTTP/1.1\r\n\r\n", 400),
        (b"GET /todos\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET  /todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /to dos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" GET /todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET /todos HTTP/1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos#top HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /t\xc3\xb6dos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G\x80T /todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://user@a/todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET https://a/todos HTTP/1.1\r\nHost: a\r\n\r\n", 421),
        (b"CONNECT /todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX: y\n\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX(): y\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX\xff: y\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
        (b"GET /todos HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        (b"GET /todos HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /todos HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00\x00\x00\x00", 400),
        (b"{\"title\":\"no HTTP at all\"}\r\n", 400),
    ];
    for (head, status) in heads {
        assert_refused(server, head, *status);
    }
    let mut client = server.connect();
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let text = client.answer().problem(400);
    assert!(text.contains("http://"), "a TLS client is told what to do: {text}");
}

fn limits_of_the_head_are_exact(server: &Server) {
    let mut client = server.connect();
    let target = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    client.call(&get(target(TARGET_MAX_BYTES))).problem(404);
    assert_refused(server, &get(target(TARGET_MAX_BYTES + 1)).bytes(), 414);
    // Refused as soon as it is too long, without waiting for an end that may never come.
    let mut endless = b"GET /".to_vec();
    endless.resize(TARGET_MAX_BYTES + 10, b'x');
    assert_refused(server, &endless, 414);

    let fields = |count: usize| (1..count).fold(get("/health"), |request, n| request.field(&format!("X-{n}"), "y"));
    client.call(&fields(HEADERS_MAX)).expect(200);
    assert_refused(server, &fields(HEADERS_MAX + 1).bytes(), 431);

    let bare = get("/health").field("X", "").bytes().len();
    let head = |bytes: usize| get("/health").field("X", &"y".repeat(bytes - bare));
    assert_eq!(head(HEAD_MAX_BYTES).bytes().len(), HEAD_MAX_BYTES);
    client.call(&head(HEAD_MAX_BYTES)).expect(200);
    assert_refused(server, &head(HEAD_MAX_BYTES + 1).bytes(), 431);
    assert_refused(server, &get("/health").field(&"N".repeat(70_000), "y").bytes(), 431);
    let mut endless = b"GET /health HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    endless.resize(HEAD_MAX_BYTES + 10, b'y');
    assert_refused(server, &endless, 431);
    client.assert_goes_on();
}

fn absolute_targets_and_encoded_paths_are_understood(server: &Server) {
    let mut client = server.connect();
    for target in [
        "http://localhost/health",
        "HTTP://example.com:8080/health?x=1",
        "/%68ealth",
        "/health?",
        "/health?a=%00&&=",
        "http://[::1]:80/health",
    ] {
        client.call(&get(target)).expect(200);
    }
    // Without a path it is the root, where the page is.
    assert_eq!(client.call(&get("http://localhost")).expect(200).required("Content-Type"), "text/html; charset=utf-8");
    client.call(&Request::new("OPTIONS", "http://localhost")).expect(204);
    // An empty Host is valid, and so is one with a port.
    client.send("GET /health HTTP/1.1\r\nHost:\r\n\r\nGET /health HTTP/1.1\r\nhOST: \t[::1]:80 \t\r\n\r\n");
    client.answer().expect(200);
    client.answer().expect(200);
}

fn http_1_0_ends_unless_asked_to_stay(server: &Server) {
    let mut client = server.connect();
    client.send("GET /health HTTP/1.0\r\n\r\nGET /health HTTP/1.0\r\n\r\n");
    client.answer().expect(200);
    client.assert_ended();

    let mut client = server.connect();
    client.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".repeat(3));
    for _ in 0..3 {
        let answer = client.answer().expect(200);
        assert!(answer.required("Connection").eq_ignore_ascii_case("keep-alive"), "{answer:?}");
    }
    client.send("GET /health HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n");
    client.answer().expect(200);
    client.assert_ended();

    let body = r#"{"title":"from the nineties"}"#;
    let mut client = server.connect();
    client.send(format!(
        "POST /todos HTTP/1.0\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token("old"),
        body.len()
    ));
    client.answer().expect(202);
    client.assert_ended();
}

fn later_minor_versions_are_answered_as_1_1(server: &Server) {
    let mut client = server.connect();
    client.send("GET /health HTTP/1.2\r\nHost: a\r\n\r\nGET /health HTTP/1.9\r\nHost: a\r\n\r\n");
    client.answer().expect(200);
    client.answer().expect(200);
    client.assert_goes_on();
}

fn close_is_said_and_done(server: &Server) {
    for value in ["close", "Close", "keep-alive, close", "x ,\tCLOSE"] {
        for target in ["/health", "/todos?limit=2", "/nowhere"] {
            let mut client = server.connect();
            let answer = client.call(&get(target).field("Connection", value));
            assert!(answer.closes(), "{value}: {answer:?}");
            client.assert_ended();
        }
    }
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = client.call(&get("/health")).expect(200);
        assert!(!answer.closes(), "HTTP/1.1 stays open: {answer:?}");
    }
}

fn a_half_closed_client_gets_all_its_answers(server: &Server) {
    let token = token("half");
    let mut client = server.connect();
    let mut bytes = Vec::new();
    for n in 0..20 {
        bytes.extend(get("/todos?limit=1").bytes());
        bytes.extend(post(&token, format!(r#"{{"title":"half-closed {n}"}}"#)).bytes());
    }
    client.send(bytes);
    client.finish_sending();
    for _ in 0..20 {
        client.answer().expect(200);
        client.answer().expect(202);
    }
    client.assert_ended();
}

fn half_a_request_is_never_carried_out(server: &Server) {
    let token = token("half");
    let whole = post(&token, r#"{"title":"cut off in the middle"}"#).bytes();
    for length in [3, 20, whole.len() - 30, whole.len() - 1] {
        let mut client = server.connect();
        client.send(&whole[..length]);
        client.finish_sending();
        // An answer may say what is wrong, but there need not be one: the client has left.
        if let Some(answer) = client.next_answer(false) {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        client.assert_ended();
    }
    // The log keeps its order: when this later write shows, an earlier one would have to show too.
    let mut client = server.connect();
    let id = client.call(&post(&token, r#"{"title":"whole"}"#)).expect(202).json()["id"].to_string();
    let list = eventually("the write to show", || {
        let list = client.call(&get("/todos")).expect(200);
        list.text().contains(id.trim_matches('"')).then_some(list)
    });
    assert!(!list.text().contains("cut off in the middle"));
}

fn empty_lines_before_a_request_are_skipped(server: &Server) {
    let mut client = server.connect();
    client.send("\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    client.answer().expect(200);
    client.answer().expect(200);
    client.assert_goes_on();
    assert_refused(server, "\r\n".repeat(1000).as_bytes(), 400);
}

fn other_connections_do_not_notice(server: &Server) {
    let mut bystanders: Vec<_> = (0..8).map(|_| server.connect()).collect();
    bystanders.iter_mut().for_each(|client| client.assert_goes_on());
    for round in 0..20 {
        let mut client = server.connect();
        client.send([b"\r\n\r\n \x00\xff"[round % 7]; 5]);
        drop(client);
        let mut client = server.connect();
        client.send(&get("/todos").bytes()[..round]);
        drop(client);
    }
    bystanders.iter_mut().for_each(|client| client.assert_goes_on());
}

fn the_date_goes_on(server: &Server) {
    let mut client = server.connect();
    let mut date = || httpdate::parse_http_date(client.call(&get("/health")).required("Date")).expect("a date");
    let first = date();
    let later = eventually("the next second", || Some(date()).filter(|date| *date != first));
    assert!(later > first, "{first:?} {later:?}");
}
