//! Pages of other origins: what browsers are told (`CORS_ORIGINS`).

use std::sync::Arc;

use crate::harness::client::Answer;
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::{Shared, on_both_drivers};
use crate::harness::token::token;

on_both_drivers!(super::named =>
    writes_and_errors_say_it_too,
    leave_is_given_before_the_request,
    what_is_for_this_machine_stays_closed,
);

mod others {
    use super::*;

    // The first on a list that nobody changes meanwhile.
    on_both_drivers!(std::convert::identity =>
        each_origin_that_is_named_is_told_so_on_every_path_of_a_read,
        a_star_takes_every_origin,
        a_value_that_no_browser_sends_is_refused,
    );
}

mod off {
    use super::*;

    on_both_drivers!(crate::plain => nothing_is_said_where_it_is_off);
}

const APP: &str = "https://app.example";
const OTHER: &str = "http://localhost:3000";

static NAMED: Shared = Shared::new(named_setup);

fn named_setup() -> Setup {
    Setup::new().set("CORS_ORIGINS", "https://app.example, http://localhost:3000")
}

fn named(driver: Driver) -> Arc<Server> {
    NAMED.with(driver)
}

fn from(origin: &str, request: Request) -> Request {
    request.field("Origin", origin)
}

/// What the answer says to its origin.
fn allowed(answer: &Answer) -> Option<&str> {
    let origin = answer.field("Access-Control-Allow-Origin");
    assert_eq!(origin.is_some(), answer.field("Access-Control-Expose-Headers").is_some(), "{answer:?}");
    assert_eq!(answer.field("Access-Control-Allow-Credentials"), None, "{answer:?}");
    origin
}

/// Whether caches are told that answers differ by origin.
fn varies(answer: &Answer) -> bool {
    answer.fields.iter().any(|(name, value)| name.eq_ignore_ascii_case("vary") && value == "Origin")
}

fn each_origin_that_is_named_is_told_so_on_every_path_of_a_read(driver: &Driver) {
    let server = named_setup().driver(*driver).start();
    let mut client = server.connect();
    // Often enough that the heads are known, from one origin after the other, so that none gets the answer of its neighbour.
    for _ in 0..6 {
        for target in ["/todos", "/todos?limit=3"] {
            for (origin, expected) in [(APP, Some(APP)), (OTHER, Some(OTHER)), ("https://evil.example", None)] {
                let answer = client.call(&from(origin, get(target))).expect(200);
                assert_eq!((allowed(&answer), varies(&answer)), (expected, true));
                let tag = answer.required("ETag").to_owned();
                let unchanged = client.call(&from(origin, get(target)).field("If-None-Match", &tag)).expect(304);
                assert_eq!((allowed(&unchanged), varies(&unchanged)), (expected, true));
            }
            let answer = client.call(&get(target)).expect(200);
            assert_eq!((allowed(&answer), varies(&answer)), (None, true));
        }
    }
    // In one piece: pipelines of equal and of unlike heads.
    for pipeline in [[APP, APP, APP, APP], [APP, OTHER, APP, "https://evil.example"]] {
        let requests: Vec<Vec<u8>> =
            pipeline.iter().map(|origin| from(origin, get("/todos?limit=3")).bytes()).collect();
        client.send(requests.concat());
        for origin in pipeline {
            let answer = client.answer().expect(200);
            assert_eq!(allowed(&answer), Some(origin).filter(|origin| *origin != "https://evil.example"));
        }
    }
    for target in ["/openapi.json", "/docs", "/health"] {
        let answer = client.call(&from(APP, get(target))).expect(200);
        assert_eq!((allowed(&answer), varies(&answer)), (Some(APP), true), "{target}");
    }
    let head = client.call(&from(APP, Request::new("HEAD", "/todos"))).expect(200);
    assert_eq!(allowed(&head), Some(APP));
}

fn writes_and_errors_say_it_too(server: &Server) {
    let mut client = server.connect();
    let token = token("cors");
    let created = client.call(&from(APP, post(&token, r#"{"title":"a"}"#))).expect(202);
    assert_eq!(allowed(&created), Some(APP));
    assert!(created.required("Access-Control-Expose-Headers").contains("Location"));
    // The next request on the connection is of another origin, and of none.
    let created = client.call(&from(OTHER, post(&token, r#"{"title":"b"}"#))).expect(202);
    assert_eq!(allowed(&created), Some(OTHER));
    let created = client.call(&post(&token, r#"{"title":"c"}"#)).expect(202);
    assert_eq!((allowed(&created), varies(&created)), (None, true));
    for (status, request) in [
        (401, Request::new("POST", "/todos").json("{}")),
        (400, post(&token, "{}")),
        (400, get("/todos?limt=1")),
        (404, get("/nowhere")),
        (404, get("/todos/01900000-0000-7000-8000-000000000001")),
        (405, Request::new("DELETE", "/todos")),
        (406, get("/todos/events").field("Accept", "text/html")),
        (412, get("/todos").field("If-Match", "\"0000000000000000\"")),
    ] {
        let answer = client.call(&from(APP, request));
        answer.problem(status);
        assert_eq!((allowed(&answer), varies(&answer)), (Some(APP), true), "{answer:?}");
    }
    let long = vec![b' '; 1 << 20];
    let refused = server.connect().call(&from(APP, post(&token, long)));
    refused.problem(413);
    assert_eq!(allowed(&refused), Some(APP));
    let mut malformed = server.connect();
    malformed.send("GET /todos HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n");
    let answer = malformed.answer();
    answer.problem(400);
    assert_eq!((allowed(&answer), varies(&answer)), (None, true), "whose it is cannot be read");
}

fn leave_is_given_before_the_request(server: &Server) {
    let mut client = server.connect();
    let ask = |origin, target: &str, method| {
        from(origin, Request::new("OPTIONS", target))
            .field("Access-Control-Request-Method", method)
            .field("Access-Control-Request-Headers", "authorization,content-type,if-match")
    };
    for (target, methods) in [
        ("/todos", "GET, HEAD, POST, OPTIONS"),
        ("/todos/01900000-0000-7000-8000-000000000001", "GET, HEAD, PUT, DELETE, OPTIONS"),
    ] {
        let answer = client.call(&ask(APP, target, "PUT")).expect(204);
        assert_eq!((allowed(&answer), varies(&answer)), (Some(APP), true));
        assert_eq!(answer.required("Access-Control-Allow-Methods"), methods);
        assert_eq!(answer.required("Access-Control-Max-Age"), "7200");
        let fields = answer.required("Access-Control-Allow-Headers");
        for name in ["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Prefer"] {
            assert!(fields.split(", ").any(|field| field == name), "{name}: {fields}");
        }
        let refused = client.call(&ask("https://evil.example", target, "PUT")).expect(204);
        assert_eq!((allowed(&refused), refused.field("Access-Control-Allow-Methods")), (None, None));
        assert!(varies(&refused));
    }
    let plain = client.call(&from(APP, Request::new("OPTIONS", "/todos"))).expect(204);
    assert_eq!((allowed(&plain), plain.field("Access-Control-Max-Age")), (Some(APP), None), "it is no preflight");
}

fn what_is_for_this_machine_stays_closed(server: &Server) {
    let mut client = server.connect();
    for target in ["/page/token", "/ready", "/metrics", "/"] {
        let asked = from(APP, Request::new("OPTIONS", target)).field("Access-Control-Request-Method", "POST");
        let answer = client.call(&asked).expect(204);
        assert_eq!((allowed(&answer), answer.field("Access-Control-Allow-Methods")), (None, None), "{target}");
        assert_eq!(allowed(&client.call(&from(APP, get(target)))), None, "{target}");
    }
}

fn a_star_takes_every_origin(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("CORS_ORIGINS", "*").start();
    let mut client = server.connect();
    for _ in 0..4 {
        for request in [get("/todos"), from(APP, get("/todos")), from("null", get("/todos"))] {
            let answer = client.call(&request).expect(200);
            assert_eq!((allowed(&answer), varies(&answer)), (Some("*"), false));
        }
    }
    let asked = from(APP, Request::new("OPTIONS", "/todos")).field("Access-Control-Request-Method", "POST");
    assert!(client.call(&asked).expect(204).field("Access-Control-Allow-Methods").is_some());
    assert_eq!(allowed(&client.call(&from(APP, get("/ready")))), None);
}

fn a_value_that_no_browser_sends_is_refused(driver: &Driver) {
    for value in ["https://app.example/", "app.example", "null", "https://a,*"] {
        let finished = Setup::new().driver(*driver).set("CORS_ORIGINS", value).run(&["config"]);
        assert!(!finished.status.success() && finished.stderr.contains("CORS_ORIGINS"), "{value}: {finished:?}");
    }
}

fn nothing_is_said_where_it_is_off(server: &Server) {
    let mut client = server.connect();
    let asked = from(APP, Request::new("OPTIONS", "/todos")).field("Access-Control-Request-Method", "POST");
    for request in [from(APP, get("/todos")), from(APP, get("/nowhere")), asked] {
        let answer = client.call(&request);
        assert!(!answer.fields.iter().any(|(name, _)| name.starts_with("Access-Control")), "{answer:?}");
        assert!(!varies(&answer), "{answer:?}");
    }
}
