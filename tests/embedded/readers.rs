//! Clients that take their answers slowly, or not at all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::harness::client::Client;
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::{PATIENCE, eventually, metrics};

on_both_drivers!(std::convert::identity =>
    those_that_read_nothing_are_closed_and_others_are_served,
    a_steady_one_gets_its_list_however_slow_it_is_beside_the_buffers,
    one_below_the_minimum_is_closed_after_the_grace,
    one_that_stops_is_closed_although_it_was_fast,
);

/// What a slow client's system keeps for it, in bytes: as little as it may, so that it tells the server often of what was read.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;
/// How often a slow client reads.
const PAUSE: Duration = Duration::from_millis(100);
/// Todos of a list that is larger than all buffers between the server and a slow client: some 5 MB.
const TODOS: &str = "20000";

fn connect_slow(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a plain option");
    socket.connect(&server.address.into()).expect("the server takes the connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a plain option");
    stream
}

/// Reads so many bytes after each pause, for a while; `false` when the server has ended the connection.
fn read_slowly(client: &mut TcpStream, bytes: usize, time: Duration, answer: &mut Vec<u8>) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let mut piece = vec![0; bytes];
        match client.read(&mut piece) {
            Ok(0) => return false,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return false;
            }
        }
        std::thread::sleep(PAUSE);
    }
    true
}

fn figure(client: &mut Client, name: &str, label: &str) -> u64 {
    metrics::total(&metrics::parse(client.call(&get("/metrics")).expect(200).text()), name, label) as u64
}

fn expired(client: &mut Client, reason: &str) -> u64 {
    figure(client, "million_rps_deadlines_expired_total", &format!("reason=\"{reason}\""))
}

fn those_that_read_nothing_are_closed_and_others_are_served(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("WRITE_TIMEOUT_MS", "1000").set("SHARDS", "1");
    setup.run_successfully(&["seed", "--count", "2000"]);
    let server = setup.start();
    let mut bystander = server.connect();
    let list = bystander.call(&get("/todos")).expect(200);
    let before = server.open_sockets();
    let accepted = |client: &mut Client| figure(client, "million_rps_connections_accepted_total", "");
    let accepted_before = accepted(&mut bystander);
    let mut clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = server.connect();
            client.send(get("/todos").bytes().repeat(200));
            client
        })
        .collect();
    // Not by the sockets that are open: on a busy machine they may be closed again by now.
    eventually("the connections to arrive", || (accepted(&mut bystander) == accepted_before + 3).then_some(()));
    eventually("the connections to be closed", || {
        bystander.assert_goes_on();
        (server.open_sockets() == before).then_some(())
    });
    // What was sent before is whole up to where it was cut off, and it was not all.
    for client in &mut clients {
        assert!(client.read_to_end() < 200 * list.body.len());
    }
    assert_eq!(bystander.call(&get("/todos")).expect(200).body, list.body);
    assert_eq!((expired(&mut bystander, "write_stalled"), expired(&mut bystander, "write_slow")), (3, 0));
}

fn a_steady_one_gets_its_list_however_slow_it_is_beside_the_buffers(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("WRITE_TIMEOUT_MS", "1000").set("WRITE_RATE_GRACE_MS", "5000");
    setup.run_successfully(&["seed", "--count", TODOS]);
    let server = setup.start();
    let list = server.connect().call(&get("/todos")).expect(200);
    // Slow ones, and one whose system keeps as much as usual and tells seldom of what was read: 50 and 80 KB/s.
    let clients = [(connect_slow(&server), 5_000), (connect_slow(&server), 8_000)];
    let usual = (TcpStream::connect(server.address).expect("connects"), 5_000);
    let readers = clients.into_iter().chain([usual]).map(|(mut client, bytes)| {
        std::thread::spawn(move || {
            client.write_all(&get("/todos").close().bytes()).expect("sends");
            let mut answer = Vec::new();
            let goes_on = read_slowly(&mut client, bytes, Duration::from_secs(12), &mut answer);
            assert!(goes_on, "cut off after {} bytes", answer.len());
            // The rest of it takes no test's time.
            client.read_to_end(&mut answer).expect("the rest");
            answer
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        let answer = reader.join().expect("it has been served");
        assert!(answer.ends_with(&list.body), "{} of {} bytes", answer.len(), list.body.len());
    }
    let mut client = server.connect();
    assert_eq!((expired(&mut client, "write_stalled"), expired(&mut client, "write_slow")), (0, 0));
}

fn one_below_the_minimum_is_closed_after_the_grace(driver: &Driver) {
    let setup = Setup::new()
        .driver(*driver)
        .set("WRITE_TIMEOUT_MS", "10000")
        .set("WRITE_RATE_MIN_BYTES", "60000")
        .set("WRITE_RATE_GRACE_MS", "3000");
    setup.run_successfully(&["seed", "--count", TODOS]);
    let server = setup.start();
    let list = server.connect().call(&get("/todos")).expect(200);
    let (mut slow, mut fast) = (connect_slow(&server), connect_slow(&server));
    for client in [&mut slow, &mut fast] {
        client.write_all(&get("/todos").close().bytes()).expect("sends");
    }
    let reading = std::thread::spawn(move || {
        let mut answer = Vec::new();
        let goes_on = read_slowly(&mut fast, 100_000, Duration::from_secs(2), &mut answer);
        assert!(goes_on);
        fast.read_to_end(&mut answer).expect("the rest");
        answer
    });
    let mut answer = Vec::new();
    // What stands in the client's own system when it is cut off may still be read, or be lost with the reset.
    let goes_on = read_slowly(&mut slow, 1_000, PATIENCE, &mut answer);
    assert!(!goes_on && answer.len() < list.body.len(), "{} bytes", answer.len());
    assert!(reading.join().expect("it has been served").ends_with(&list.body));
    let mut client = server.connect();
    assert_eq!((expired(&mut client, "write_stalled"), expired(&mut client, "write_slow")), (0, 1));
}

fn one_that_stops_is_closed_although_it_was_fast(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("WRITE_TIMEOUT_MS", "1000");
    setup.run_successfully(&["seed", "--count", TODOS]);
    let server = setup.start();
    let mut client = connect_slow(&server);
    client.write_all(&get("/todos").bytes().repeat(3)).expect("sends");
    let mut taken = vec![0; 4_000_000];
    client.read_exact(&mut taken).expect("most of a list");
    let mut bystander = server.connect();
    eventually("it to be closed", || (expired(&mut bystander, "write_stalled") == 1).then_some(()));
}
