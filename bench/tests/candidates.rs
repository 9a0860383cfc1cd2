//! Others' servers that are no programs of the bench return our bytes; caches do so from their cache. Where one is not
//! installed, there is nothing to test.

use std::path::Path;

use million_rps_bench::candidate::{Candidate, Setting};
use million_rps_bench::client::{Client, get};
use million_rps_bench::cpu;
use million_rps_bench::server::{Product, Server};

/// The response with a body of that many letters, as all others return it.
fn response(body_bytes: usize) -> Vec<u8> {
    let body: String = "[{\"title\":\"it's é\"}] ".chars().cycle().take(body_bytes).collect();
    let fields = "Content-Type: application/json\r\nETag: \"x\"\r\nCache-Control: no-cache\r\nVary: Accept-Encoding";
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn started(name: &str, body_bytes: usize, check: impl Fn(&Server, &[u8])) {
    let candidate = Candidate::named(name).expect("it is in the list");
    let programs = Path::new(env!("CARGO_BIN_EXE_floor_epoll")).parent().expect("it lies in a folder");
    if let Err(reason) = candidate.prepare(programs, true) {
        eprintln!("not tested: {reason}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let product = Product::new(Path::new("unused"), folder.path()).expect("a folder");
    let response = response(body_bytes);
    let setting = Setting {
        product: &product,
        programs,
        target: "/todos?limit=10",
        response: &response,
        unconditional: &response,
        in_turn: &[],
        folder: folder.path(),
        server_cpu: cpu::allowed_cpus().expect("Linux tells")[0],
        kafka_brokers: None,
    };
    check(&candidate.start(&setting).expect("it starts"), &response);
}

fn the_same_body_comes(name: &str) {
    for body_bytes in [100, 3_000, 400_000] {
        started(name, body_bytes, |server, response| {
            let mut client = Client::connect(server.address()).expect("it listens");
            for _ in 0..2 {
                let (head, received) = client.exchange(&get("/todos?limit=10")).expect("a response");
                assert_eq!((head.status, head.field("content-type")), (200, Some("application/json")));
                assert!(response.ends_with(&received) && received.len() >= body_bytes, "{} bytes", received.len());
            }
            assert!(server.cpu_time().expect("it runs") > std::time::Duration::ZERO);
        });
    }
}

fn a_matching_tag_gets_304(name: &str) {
    started(name, 3_000, |server, _| {
        let mut client = Client::connect(server.address()).expect("it listens");
        let (head, _) = client.exchange(&get("/todos?limit=10")).expect("a response");
        let tag = head.field("etag").expect("an entity tag");
        let request = format!("GET /todos?limit=10 HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n");
        let (head, body) = client.exchange(request.as_bytes()).expect("a response");
        assert_eq!((head.status, body.len()), (304, 0));
    });
}

#[test]
fn h2o_returns_the_same_body() {
    the_same_body_comes("h2o");
    a_matching_tag_gets_304("h2o");
}

#[test]
fn haproxy_returns_the_same_body_from_its_cache() {
    the_same_body_comes("haproxy-cache");
    a_matching_tag_gets_304("haproxy-cache");
}

#[test]
fn varnish_returns_the_same_body_from_its_cache() {
    the_same_body_comes("varnish");
    a_matching_tag_gets_304("varnish");
}

#[test]
fn the_go_program_returns_what_redis_has() {
    the_same_body_comes("go-manner");
}
