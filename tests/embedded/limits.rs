//! What happens at the limits of the whole process.

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity =>
    connections_over_the_limit_are_503_until_there_is_room,
    the_limit_is_the_process_s_however_many_shards_there_are,
    connections_that_break_leave_nothing_behind,
);

fn connections_over_the_limit_are_503_until_there_is_room(driver: &Driver) {
    const MAX: usize = 5;
    let setup = Setup::new().driver(*driver).set("SHARDS", "1").set("MAX_CONNECTIONS", &MAX.to_string());
    let server = setup.start();
    // The connection that asked for readiness may still be closing.
    let mut clients: Vec<Client> = Vec::new();
    eventually("all connections to be taken", || {
        clients.extend(served(&server));
        (clients.len() == MAX).then_some(())
    });
    for _ in 0..10 {
        let mut client = server.connect();
        let answer = client.answer().expect(503);
        assert!(answer.closes(), "{answer:?}");
        assert!(answer.body.is_empty(), "its request may be HEAD: {answer:?}");
        assert!(answer.required("Retry-After").parse::<u32>().is_ok(), "{answer:?}");
        client.assert_ended();
    }
    for client in &mut clients {
        client.assert_goes_on();
    }
    clients.pop();
    let mut newcomer = eventually("room for another", || served(&server));
    newcomer.assert_goes_on();
    let text = newcomer.call(&get("/metrics")).expect(200).text().to_owned();
    let refused =
        text.lines().find(|line| line.starts_with("million_rps_connections_refused_total{")).expect("a counter");
    assert!(!refused.ends_with(" 0"), "{refused}");
}

/// A connection that has had an answer, unless the server has too many.
fn served(server: &Server) -> Option<Client> {
    let mut client = server.connect();
    // A refused connection may be reset before it has taken the request.
    let _ = client.try_send(get("/health").bytes());
    client.next_answer(false).filter(|answer| answer.status == 200).map(|_| client)
}

fn the_limit_is_the_process_s_however_many_shards_there_are(driver: &Driver) {
    // Each shard's part of the smaller limit would be one connection, and the kernel spreads them as it likes.
    for (shards, max) in [("16", 16), ("64", 100), ("2", 150)] {
        let setup = Setup::new().driver(*driver).set("SHARDS", shards).set("MAX_CONNECTIONS", &max.to_string());
        let server = setup.start();
        let mut last = server.connect();
        // The connection that asked for readiness may still be closing.
        eventually("quiet", || (sum(&mut last, "million_rps_connections_open{") == 1).then_some(()));
        let mut clients: Vec<Client> =
            (1..max).map(|at| served(&server).unwrap_or_else(|| panic!("{shards} shards: no place {at}"))).collect();
        assert_eq!(sum(&mut last, "million_rps_connections_refused_total{"), 0);
        for _ in 0..20 {
            assert!(served(&server).is_none(), "{shards} shards: one more than {max}");
        }
        assert_eq!(sum(&mut last, "million_rps_connections_refused_total{"), 20);
        // Again and again a place that is given up is there for the next one, on whatever shard.
        for _ in 0..20 {
            clients.pop();
            clients.push(eventually("the place that was given up", || served(&server)));
            assert!(served(&server).is_none(), "{shards} shards: one more than {max}");
        }
        clients.iter_mut().for_each(Client::assert_goes_on);
    }
}

fn connections_that_break_leave_nothing_behind(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let token = token("gone");
    let mut bystander = server.connect();
    bystander.assert_goes_on();
    // The connection that asked for readiness may still be closing.
    eventually("quiet", || (sum(&mut bystander, "million_rps_connections_open{") == 1).then_some(()));
    let sockets = server.open_sockets();
    let accepted = sum(&mut bystander, "million_rps_connections_accepted_total{");
    let list = get("/todos").bytes().repeat(50);
    let post = post(&token, r#"{"title":"sent by somebody who has left"}"#).bytes();
    for round in 0..300 {
        let bytes: &[u8] = match round % 6 {
            0 => b"",
            1 => b"GET /todos HT",
            2 => &list,
            3 => &post[..post.len() - 5],
            4 => &post,
            _ => b"no request\r\n\r\n",
        };
        let mut client = server.connect();
        client.send(bytes);
        if round % 2 == 0 {
            client.reset_when_dropped();
        }
    }
    eventually("all of them to have come and gone", || {
        let came = sum(&mut bystander, "million_rps_connections_accepted_total{") == accepted + 300;
        let gone = sum(&mut bystander, "million_rps_connections_open{") == 1;
        (came && gone && server.open_sockets() == sockets).then_some(())
    });
    bystander.assert_goes_on();
}

/// A metric of all shards together; `start` is how its lines begin.
fn sum(client: &mut Client, start: &str) -> usize {
    let text = client.call(&get("/metrics")).expect(200).text().to_owned();
    let values = text.lines().filter_map(|line| line.strip_prefix(start)?.rsplit(' ').next());
    values.map(|value| value.parse::<usize>().expect("a whole number")).sum()
}
