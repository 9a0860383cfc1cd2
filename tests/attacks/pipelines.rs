//! Clients that send many requests without waiting, and others that send one.

use crate::harness::client::Client;
use crate::harness::metrics::{parse, total};
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::await_quiet;

/// Clients that pipeline.
const CLIENTS: usize = 100;
/// Requests of each, which fit into the buffers of a socket.
const REQUESTS: usize = 400;
/// What may be answered before a client that sends one request later: the first few of each client, and some turns.
const BEFORE_MAX: usize = CLIENTS * REQUESTS / 10;
/// Clients that ask for long lists.
const LISTENERS: usize = 20;
/// What a client may have been sent that reads nothing, in bytes: what its own system takes, and a full buffer here.
const UNREAD_MAX_BYTES: u64 = 600 * 1024;
/// What a client is sent that has read before, at least.
const READER_MIN_BYTES: u64 = 1024 * 1024;

on_both_drivers!(std::convert::identity =>
    one_request_is_not_answered_behind_the_pipelines_of_others,
    who_reads_nothing_is_sent_little_and_who_reads_is_sent_more,
);

fn not_found(text: &str) -> usize {
    total(&parse(text), "million_rps_responses_total", r#"class="4xx""#) as usize
}

fn one_request_is_not_answered_behind_the_pipelines_of_others(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("SHARDS", "1").start();
    let mut attackers: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    let mut client = server.connect();
    // All have been accepted.
    attackers.iter_mut().chain([&mut client]).for_each(|client| drop(client.call(&get("/health")).expect(200)));
    let before = not_found(client.call(&get("/metrics")).expect(200).text());
    server.process.signal(libc::SIGSTOP);
    let requests = get("/nowhere").bytes().repeat(REQUESTS);
    attackers.iter_mut().for_each(|attacker| attacker.send(&requests));
    client.send(get("/metrics").bytes());
    server.process.signal(libc::SIGCONT);
    let answered = not_found(client.answer().expect(200).text()) - before;
    assert!(answered < BEFORE_MAX, "{answered} of {} requests were answered before", CLIENTS * REQUESTS);
    // Nothing is forgotten, and all in order.
    for attacker in &mut attackers {
        attacker.send(get("/health").bytes());
        (0..REQUESTS).for_each(|_| drop(attacker.answer().expect(404)));
        attacker.answer().expect(200);
    }
    assert_eq!(not_found(client.call(&get("/metrics")).expect(200).text()) - before, CLIENTS * REQUESTS);
}

/// What sockets have taken of all answers.
fn sent_bytes(server: &Server) -> u64 {
    let text = server.connect().call(&get("/metrics")).expect(200).text().to_owned();
    total(&parse(&text), "million_rps_sent_bytes_total", "") as u64
}

fn who_reads_nothing_is_sent_little_and_who_reads_is_sent_more(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("SHARDS", "1").set("WRITE_TIMEOUT_MS", "60000");
    setup.run_successfully(&["seed", "--count", "4000"]);
    let server = setup.start();
    let lists = get("/todos").bytes().repeat(8);
    let added_by = |clients: &mut [Client]| {
        let before = sent_bytes(&server);
        clients.iter_mut().for_each(|client| client.send(&lists));
        await_quiet(&server);
        (sent_bytes(&server) - before) / LISTENERS as u64
    };
    let mut clients: Vec<Client> = (0..LISTENERS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.call(&get("/health")).expect(200)));
    let unread = added_by(&mut clients);
    assert!(unread < UNREAD_MAX_BYTES, "{unread} bytes each");
    // They begin to read after all, and get all of it. Whoever has read may be slow later.
    clients.iter_mut().for_each(|client| (0..8).for_each(|_| drop(client.answer().expect(200))));
    let unread = added_by(&mut clients);
    assert!(unread > READER_MIN_BYTES, "{unread} bytes each");
    clients.iter_mut().for_each(|client| (0..8).for_each(|_| drop(client.answer().expect(200))));
}
