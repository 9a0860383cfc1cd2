//! The page at `/`: how it is served, and to whom tokens are given for it. `tests/page/` opens it in a browser.

use std::net::{SocketAddr, UdpSocket};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::client::{Answer, Client};
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;

on_both_drivers!(crate::plain =>
    the_page_is_one_document_with_a_strict_policy,
    each_coding_of_the_page_has_its_own_tag,
    the_page_allows_reading_only,
    who_asks_from_this_machine_is_given_a_token,
    no_other_page_and_no_proxy_is_given_a_token,
    who_has_not_seen_the_servers_terminal_is_given_no_token,
    what_is_no_user_gets_no_token,
);

mod own {
    use super::*;

    on_both_drivers!(std::convert::identity =>
        the_page_is_told_what_it_has_to_know_of_the_settings,
        no_token_is_given_where_the_setting_says_so,
        no_token_is_given_to_another_machine,
    );
}

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

fn page(server: &Server) -> Answer {
    server.connect().call(&get("/")).expect(200)
}

fn the_page_is_one_document_with_a_strict_policy(server: &Server) {
    let page = page(server);
    assert_eq!(page.required("Content-Type"), "text/html; charset=utf-8");
    assert_eq!(page.required("X-Content-Type-Options"), "nosniff");
    assert_eq!(page.required("Cache-Control"), "no-cache");
    let policy = page.required("Content-Security-Policy");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let directives: Vec<&str> = policy.split("; ").collect();
    for directive in
        ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    {
        assert!(directives.contains(&directive), "{directive}: {policy}");
    }
    // Each script and each style is allowed by its own hash, and there are no more hashes than those.
    let mut hashes = 0;
    for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
        let allowed = directives.iter().find(|listed| listed.starts_with(directive)).expect("a directive");
        for part in page.text().split(&format!("<{tag}>")).skip(1) {
            let text = part.split(&format!("</{tag}>")).next().expect("an end");
            let hash = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
            assert!(allowed.contains(&hash), "{allowed} lacks {hash} of {}", &text[..40]);
            hashes += 1;
        }
    }
    assert!(hashes > 2 && policy.matches("'sha256-").count() == hashes, "{hashes}: {policy}");
}

fn each_coding_of_the_page_has_its_own_tag(server: &Server) {
    let mut client = server.connect();
    let plain = client.call(&get("/")).expect(200);
    assert_eq!((plain.required("Vary"), plain.field("Content-Encoding")), ("Accept-Encoding", None));
    let mut tags = vec![plain.required("ETag").to_owned()];
    for coding in CODINGS {
        let asked = get("/").field("Accept-Encoding", coding);
        let answer = client.call(&asked).expect(200);
        assert_eq!(answer.required("Content-Encoding"), coding);
        assert!(answer.body.len() <= 14 * 1024, "{coding}: {} bytes", answer.body.len());
        let head = client.call(&Request::new("HEAD", "/").field("Accept-Encoding", coding)).expect(200);
        assert_eq!((head.content_length(), head.body.len()), (answer.body.len(), 0));
        assert_eq!(head.required("ETag"), answer.required("ETag"));
        tags.push(answer.required("ETag").to_owned());
    }
    for (at, tag) in tags.iter().enumerate() {
        assert!(tag.starts_with('"') && !tags[..at].contains(tag), "a strong tag of its own: {tags:?}");
        let unchanged = client.call(&get("/").field("If-None-Match", tag).field("Accept-Encoding", "gzip")).expect(304);
        assert_eq!((unchanged.required("ETag"), unchanged.body.len()), (tag.as_str(), 0));
        assert!(unchanged.field("Content-Security-Policy").is_some());
    }
    client.call(&get("/").field("If-None-Match", "\"0000000000000000\"")).expect(200);
    client.call(&get("/").field("If-Match", "\"0000000000000000\"")).problem(412);
    // A restart, or another process, has the same page under the same tag.
    let other = Setup::new().set("COMPRESSION", "off").start();
    let answer = other.connect().call(&get("/").field("Accept-Encoding", "gzip")).expect(200);
    assert_eq!((answer.required("ETag"), &answer.body), (tags[0].as_str(), &plain.body));
    assert_eq!(answer.field("Content-Encoding"), None);
}

fn the_page_allows_reading_only(server: &Server) {
    let mut client = server.connect();
    for method in ["POST", "PUT", "DELETE"] {
        let answer = client.call(&Request::new(method, "/"));
        answer.problem(405);
        assert_eq!(answer.required("Allow"), "GET, HEAD, OPTIONS");
    }
    let options = client.call(&Request::new("OPTIONS", "/")).expect(204);
    assert_eq!(options.required("Allow"), "GET, HEAD, OPTIONS");
    for (name, value) in [("Accept", "image/png"), ("Cookie", "a=b"), ("Sec-Fetch-Dest", "document")] {
        client.call(&get("/?from=elsewhere").field(name, value)).expect(200);
    }
    for path in ["/index.html", "/page", "/page/", "/page.js", "/web/page.js", "/favicon.ico", "/../web/page.js"] {
        client.call(&get(path)).problem(404);
    }
}

/// As the page asks, which was opened at the address that the server has printed.
fn token_request(server: &Server, host: &str) -> Request {
    let address = server.page_address();
    let (_, key) = address.split_once("#key=").expect("the key of the page");
    token_request_with(host, key)
}

fn token_request_with(host: &str, key: &str) -> Request {
    Request::new("POST", format!("http://{host}/page/token")).field("Page-Token", key)
}

fn for_user(request: Request, sub: &str) -> Request {
    request.json(json!({ "sub": sub }).to_string())
}

fn says_it_makes_tokens(client: &mut Client) -> bool {
    client.call(&get("/page/token")).expect(200).json()["makes_tokens"].as_bool().expect("a truth")
}

fn who_asks_from_this_machine_is_given_a_token(server: &Server) {
    let mut client = server.connect();
    assert!(says_it_makes_tokens(&mut client));
    for host in ["localhost", "127.0.0.1:8080", "[::1]:8080"] {
        let request = token_request(server, host)
            .field("Sec-Fetch-Site", "same-origin")
            .field("Origin", &format!("http://{host}"));
        let answer = client.call(&for_user(request, "Zoë 🦀")).expect(200);
        assert_eq!(answer.required("Cache-Control"), "no-store");
        assert!(answer.field("Access-Control-Allow-Origin").is_none(), "{answer:?}");
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        let created = client.call(&post(&token, r#"{"title":"by the page"}"#).field("Prefer", "wait=10")).expect(202);
        let id = created.json()["id"].as_str().expect("an id").to_owned();
        let todo = client.call(&get(format!("/todos/{id}"))).expect(200).json();
        assert_eq!(todo["user_id"], "Zoë 🦀");
    }
    client.call(&Request::new("HEAD", "/page/token")).expect(200);
    let options =
        client.call(&Request::new("OPTIONS", "/page/token").field("Origin", "http://evil.example")).expect(204);
    assert_eq!(options.required("Allow"), "GET, HEAD, POST, OPTIONS");
    assert!(options.fields.iter().all(|(name, _)| !name.starts_with("Access-Control")), "{options:?}");
    client.call(&Request::new("PUT", "/page/token")).problem(405);
}

fn no_other_page_and_no_proxy_is_given_a_token(server: &Server) {
    let mut client = server.connect();
    let refused = |client: &mut Client, request: Request| {
        let answer = client.call(&for_user(request, "me"));
        assert!(!answer.problem(403).contains("eyJ"), "{answer:?}");
    };
    // A name that somebody else has pointed at this machine.
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "192.0.2.1:8080", "0.0.0.0:8080"] {
        refused(&mut client, token_request(server, host).field("Sec-Fetch-Site", "same-origin"));
    }
    // What a form, a link or an image of another page can have a browser send.
    refused(&mut client, Request::new("POST", "/page/token"));
    refused(&mut client, Request::new("POST", "/page/token").field("Sec-Fetch-Site", "same-origin"));
    for site in ["cross-site", "same-site", "none"] {
        refused(&mut client, token_request(server, "localhost").field("Sec-Fetch-Site", site));
    }
    for origin in ["null", "http://evil.example", "http://localhost:3000", "https://localhost"] {
        refused(&mut client, token_request(server, "localhost").field("Origin", origin));
    }
    for field in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
        refused(&mut client, token_request(server, "localhost").field(field, "192.0.2.60"));
        let asked = client.call(&get("/page/token").field(field, "192.0.2.60")).expect(200);
        assert_eq!(asked.json()["makes_tokens"], false, "{field}");
    }
    let address = server.page_address();
    let (_, key) = address.split_once("#key=").expect("the key of the page");
    client.send(format!(
        "POST /page/token HTTP/1.0\r\nHost: localhost\r\nPage-Token: {key}\r\nContent-Length: 12\r\n\r\n{{\"sub\":\"me\"}}",
    ));
    client.answer().problem(403);
}

/// A proxy on this machine that leaves no mark: what it passes on cannot be told from what a person here sends, but for the key.
fn who_has_not_seen_the_servers_terminal_is_given_no_token(server: &Server) {
    let address = server.page_address();
    let (_, key) = address.split_once("#key=").expect("the key of the page");
    let mut client = server.connect();
    for wrong in ["1", "", &key[1..], &format!("{key}A"), &key.to_ascii_lowercase()] {
        let answer = client.call(&for_user(token_request_with("127.0.0.1:8080", wrong), "me"));
        assert!(answer.problem(403).contains("#key="), "{wrong}");
    }
    let twice = token_request_with("localhost", key).field("Page-Token", "1");
    client.call(&for_user(twice, "me")).problem(403);
    // The key is nowhere in what the server serves.
    for path in ["/", "/page/token", "/metrics", "/ready"] {
        assert!(!String::from_utf8_lossy(&client.call(&get(path)).body).contains(key), "{path}");
    }
    client.call(&for_user(token_request_with("localhost", key), "me")).expect(200);
}

fn what_is_no_user_gets_no_token(server: &Server) {
    let mut client = server.connect();
    for body in ["", "{}", "null", "[]", "{\"sub\":7}", "{\"sub\":\"\"}", "{\"sub\":\"a\\u0000b\"}", "{\"sub\":\"me\""]
    {
        client.call(&token_request(server, "localhost").json(body)).problem(400);
    }
    client.call(&for_user(token_request(server, "localhost"), &"x".repeat(5000))).problem(400);
    client
        .call(&token_request(server, "localhost").field("Content-Type", "image/png").body("{\"sub\":\"me\"}"))
        .problem(415);
    client.assert_goes_on();
}

fn the_page_is_told_what_it_has_to_know_of_the_settings(driver: &Driver) {
    let told = |server: &Server| server.connect().call(&get("/page/token")).expect(200).json();
    let plain = json!({ "makes_tokens": true, "user_claim": ["sub"], "heartbeat_s": 15 });
    assert_eq!(told(&Setup::new().driver(*driver).start()), plain);
    for (claim, path) in [("email", json!(["email"])), ("/realm/user", json!(["realm", "user"]))] {
        let setup = Setup::new().driver(*driver).set("JWT_USER_CLAIM", claim).set("EVENTS_HEARTBEAT_SEC", "90");
        let expected = json!({ "makes_tokens": true, "user_claim": path, "heartbeat_s": 90 });
        assert_eq!(told(&setup.set("PAGE_TOKENS", "local").start()), expected, "{claim}");
    }
}

fn no_token_is_given_where_the_setting_says_so(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("PAGE_TOKENS", "off").start();
    let mut client = server.connect();
    assert!(!says_it_makes_tokens(&mut client));
    assert!(client.call(&for_user(token_request_with("localhost", "1"), "me")).problem(404).contains("PAGE_TOKENS"));
    page(&server);
}

/// An address of this machine that is not loopback, where it has one.
fn other_address(port: u16) -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses a route.
    socket.connect("203.0.113.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}

fn no_token_is_given_to_another_machine(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("HTTP_HOST", "0.0.0.0").start();
    let port = server.address.port();
    let other = other_address(port);
    // Where there is nothing but loopback, what asks by another name comes nearest; that another address is refused whatever it
    // sends is tested beside the decision, in `src/shard/page/minter.rs`.
    let address = other.unwrap_or(SocketAddr::from(([203, 0, 113, 1], port)));
    let mut client = Client::connect(other.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port))));
    if other.is_some() {
        assert!(!says_it_makes_tokens(&mut client));
        client.call(&for_user(token_request(&server, "localhost"), "me")).problem(403);
    }
    client.call(&for_user(token_request(&server, &address.to_string()), "me")).problem(403);
}

/// An API beside PostgreSQL, Kafka and Redis, which are nowhere here: its users are not its own to name.
#[cfg(feature = "services")]
#[test]
fn no_token_is_given_by_a_process_that_is_not_the_whole_deployment() {
    use crate::harness::eventually;
    use crate::harness::process::Process;

    for role in ["serve", "run"] {
        let setup = Setup::new()
            .set("PAGE_TOKENS", "local")
            .set("DATABASE_URL", "postgres://todos:hush@127.0.0.1:9/todos")
            .set("REDIS_URL", "redis://127.0.0.1:9/0")
            .set("KAFKA_BROKERS", "127.0.0.1:9");
        let process = Process::start(setup.command(&[role]));
        let port = eventually("the line with the address", || {
            let line = process.stdout.text().lines().next()?.to_owned();
            line.trim_end_matches('/').rsplit(':').next()?.parse().ok()
        });
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(!says_it_makes_tokens(&mut client), "{role}");
        client.call(&for_user(token_request_with("localhost", "1"), "me")).problem(404);
        client.call(&get("/")).expect(200);
    }
}
