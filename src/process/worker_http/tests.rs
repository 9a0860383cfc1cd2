use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::*;
use crate::observe::troubles::Component;

/// Longer than anything here takes, also on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn started() -> SocketAddr {
    started_with(Arc::default(), ReadyDetails::Local)
}

fn started_with(metrics: Arc<WorkerMetrics>, details: ReadyDetails) -> SocketAddr {
    start("0.0.0.0:0".parse().expect("an address"), metrics, details).map(to_loopback).expect("starts")
}

fn to_loopback(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// All that comes until the end of the connection; a reset ends it, too.
fn read_all(mut stream: &TcpStream) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(answer).expect("UTF-8")
}

/// Asks once, on a connection of its own.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("sends");
    read_all(&stream)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Each of these clients keeps its connection, and the probes behind them are answered at the first attempt.
fn probes_pass(clients: usize, act: impl Fn(&mut TcpStream)) {
    let address = started();
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..clients {
        let mut stream = connect(address);
        act(&mut stream);
        crowd.push(stream);
    }
    for target in ["/health", "/metrics", "/health"] {
        let answer = ask(address, &get(target));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{clients} clients, {target}: {answer:?}");
    }
    // Also while they go on.
    for stream in &mut crowd {
        let _ = stream.write_all(b"x");
    }
    let answer = ask(address, &get("/health"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{clients} clients: {answer:?}");
}

#[test]
fn idle_clients_do_not_keep_probes_out() {
    for clients in [1, 16, 100, 300] {
        probes_pass(clients, |_| {});
    }
}

#[test]
fn clients_that_send_half_a_request_do_not_keep_probes_out() {
    for clients in [16, 100] {
        probes_pass(clients, |stream| stream.write_all(b"GET /health HTTP/1.1\r\nHos").expect("sends"));
    }
}

#[test]
fn clients_that_read_nothing_and_never_end_do_not_keep_probes_out() {
    for clients in [16, 100] {
        probes_pass(clients, |stream| {
            let _ = stream.write_all(get("/metrics").as_bytes());
            let _ = stream.write_all(&[b'x'; 20_000]);
        });
    }
}

#[test]
fn a_client_that_sends_one_byte_after_the_other_is_answered_beside_others() {
    let address = started();
    let mut slow = connect(address);
    for byte in get("/health").bytes() {
        slow.write_all(&[byte]).expect("sends");
        if byte == b'\n' {
            assert!(ask(address, &get("/health")).starts_with("HTTP/1.1 200 "));
        }
    }
    assert!(read_all(&slow).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let mut stream = connect(started());
    stream.write_all(get("/metrics").as_bytes()).expect("sends");
    stream.shutdown(Shutdown::Write).expect("the connection is open");
    let answer = read_all(&stream);
    assert!(answer.contains("million_rps_worker_up") && answer.contains("Connection: close"), "{answer}");
}

#[test]
fn a_head_that_does_not_end_is_408_and_silence_just_ends() {
    let address = started();
    let silent = connect(address);
    let mut half = connect(address);
    half.write_all(b"GET /health HTTP/1.1\r\n").expect("sends");
    let mut head = connect(address);
    head.write_all(b"HEAD /health HTTP/1.1\r\n").expect("sends");
    assert!(read_all(&half).starts_with("HTTP/1.1 408 "));
    let answer = read_all(&head);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\n"), "HEAD has no body: {answer:?}");
    assert_eq!(read_all(&silent), "");
}

#[test]
fn what_is_asked_is_answered() {
    let address = started();
    let cases = [
        (get("/health"), 200),
        (get("/ready"), 503),
        (get("/metrics"), 200),
        (get("/todos"), 404),
        ("POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".into(), 405),
        ("GET /ready HTTP/1.1\r\n\r\n".into(), 400),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000)), 414),
    ];
    for (request, status) in cases {
        let answer = ask(address, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        let bare = ask(address, &request.replacen("GET", "HEAD", 1).replacen("POST", "HEAD", 1));
        assert!(bare.ends_with("\r\n\r\n"), "HEAD has no body: {bare:?}");
    }
}

/// An address of this machine that is not loopback, where it has one.
fn other_address_of_this_machine() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses a route.
    socket.connect("203.0.113.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn reasons_are_for_this_machine_unless_a_setting_says_else() {
    const SECRET: &str = "10.1.2.3:5432";
    let metrics = Arc::new(WorkerMetrics::default());
    metrics.troubles.note(Component::Store, &format!("PostgreSQL at {SECRET} says no"));
    let forwarded = "GET /ready HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n";
    for (details, local, other) in
        [(ReadyDetails::Off, false, false), (ReadyDetails::Local, true, false), (ReadyDetails::On, true, true)]
    {
        let address = started_with(Arc::clone(&metrics), details);
        assert_eq!(ask(address, &get("/ready")).contains(SECRET), local, "{details:?}");
        let answer = ask(address, forwarded);
        assert_eq!(answer.contains(SECRET), other, "{details:?}");
        assert!(answer.contains("store: "), "the part in trouble is always named: {answer}");
        match other_address_of_this_machine() {
            Some(ip) => {
                let answer = ask(SocketAddr::new(ip, address.port()), &get("/ready"));
                assert!(answer.contains("store: "), "{answer}");
                assert_eq!(answer.contains(SECRET), other, "{details:?}");
            }
            None => eprintln!("not tried: this machine has no address but loopback"),
        }
        assert!(!ask(address, &get("/metrics")).contains(SECRET));
    }
}
