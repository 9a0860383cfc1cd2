//! The constant servers answer as many requests as they were sent, however they come and however slowly they are read.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use million_rps_bench::cpu;
use million_rps_bench::server::Server;

const REQUEST: &[u8] = b"GET /todos?limit=10 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Starts a program with a constant response, whose body has this length, and gives its address to `check`.
fn with_server(program: &str, body_bytes: usize, check: impl Fn(SocketAddr, &[u8])) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_bytes}\r\n\r\n").into_bytes();
    response.extend((0..body_bytes).map(|index| b"0123456789"[index % 7]));
    let path = folder.path().join("response");
    std::fs::write(&path, &response).expect("it can be written");
    let mut command = Command::new(program);
    command.arg("--response").arg(&path);
    let cpu = cpu::allowed_cpus().expect("Linux tells")[0];
    let server = Server::start(command, &[cpu], folder.path()).expect("it starts");
    check(server.address(), &response);
}

fn receive(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid timeout");
    let mut received = vec![0; bytes];
    stream.read_exact(&mut received).expect("all answers come");
    received
}

fn each_request_is_answered(program: &str) {
    with_server(program, 2000, |address, response| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        // Pipelined, cut at an odd place, and with a pause between the pieces.
        let requests = REQUEST.repeat(3);
        stream.write_all(&requests[..70]).expect("it reads");
        assert!(receive(&mut stream, response.len()) == response);
        stream.write_all(&requests[70..]).expect("it reads");
        assert!(receive(&mut stream, 2 * response.len()) == response.repeat(2));
        let mut other = TcpStream::connect(address).expect("it listens");
        other.write_all(REQUEST).expect("it reads");
        assert!(receive(&mut other, response.len()) == response);
        drop(other);
        stream.write_all(&REQUEST.repeat(200)).expect("it reads");
        assert!(receive(&mut stream, 200 * response.len()) == response.repeat(200));
    });
}

fn a_slow_reader_gets_everything(program: &str) {
    with_server(program, 3_000_000, |address, response| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(&REQUEST.repeat(5)).expect("it reads");
        // The sockets hold less than one response: the server has to wait for room.
        let mut received = receive(&mut stream, 1000);
        received.extend(receive(&mut stream, 5 * response.len() - 1000));
        assert!(received == response.repeat(5));
        stream.write_all(REQUEST).expect("it reads");
        assert!(receive(&mut stream, response.len()) == response, "it reads again afterwards");
    });
}

#[test]
fn the_epoll_floor_answers_each_request() {
    each_request_is_answered(env!("CARGO_BIN_EXE_floor_epoll"));
}

#[test]
fn the_epoll_floor_waits_for_slow_readers() {
    a_slow_reader_gets_everything(env!("CARGO_BIN_EXE_floor_epoll"));
}

#[test]
fn the_io_uring_floor_answers_each_request() {
    if io_uring_is_missing() {
        return;
    }
    each_request_is_answered(env!("CARGO_BIN_EXE_floor_uring"));
}

#[test]
fn the_io_uring_floor_waits_for_slow_readers() {
    if io_uring_is_missing() {
        return;
    }
    a_slow_reader_gets_everything(env!("CARGO_BIN_EXE_floor_uring"));
}

/// A container may forbid io_uring; the floor of io_uring has nothing to show there.
fn io_uring_is_missing() -> bool {
    let ring: std::io::Result<io_uring::IoUring> =
        io_uring::IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8);
    ring.inspect_err(|error| eprintln!("not tested: io_uring is not available here: {error}")).is_err()
}

/// Others' servers write heads of their own, but the same status, fields and body.
#[cfg(feature = "rivals")]
#[test]
fn each_rival_returns_the_same_status_fields_and_body() {
    use million_rps_bench::client::{Client, get};
    for program in [
        env!("CARGO_BIN_EXE_rival_actix_web"),
        env!("CARGO_BIN_EXE_rival_axum"),
        env!("CARGO_BIN_EXE_rival_may_minihttp"),
        env!("CARGO_BIN_EXE_rival_ntex"),
        env!("CARGO_BIN_EXE_rival_xitca_web"),
        env!("CARGO_BIN_EXE_rival_monoio_http"),
    ] {
        if program.ends_with("monoio_http") && io_uring_is_missing() {
            continue;
        }
        for (status, body) in [(200, "[{\"title\":\"x\"}]".repeat(200)), (304, String::new())] {
            let folder = tempfile::tempdir().expect("a folder");
            let head =
                format!("HTTP/1.1 {status} S\r\nContent-Type: application/json\r\nETag: \"a\"\r\nVary: A, B\r\n\r\n");
            let path = folder.path().join("response");
            std::fs::write(&path, head + &body).expect("it can be written");
            let mut command = Command::new(program);
            command.arg("--response").arg(&path);
            let cpu = cpu::allowed_cpus().expect("Linux tells")[0];
            let server = Server::start(command, &[cpu], folder.path()).expect("it starts");
            let mut client = Client::connect(server.address()).expect("it listens");
            for _ in 0..2 {
                let (head, received) = client.exchange(&get("/todos?limit=10")).expect("a response");
                assert_eq!(
                    (head.status, String::from_utf8_lossy(&received)),
                    (status, body.as_str().into()),
                    "{program}"
                );
                assert_eq!((head.field("etag"), head.field("vary")), (Some("\"a\""), Some("A, B")), "{program}");
            }
        }
    }
}
