//! What happens at the limits of the whole process.

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::get;
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;

on_both_drivers!(std::convert::identity => connections_over_the_limit_are_503_until_there_is_room);

fn connections_over_the_limit_are_503_until_there_is_room(driver: &Driver) {
    const MAX: usize = 5;
    // One shard, because the kernel spreads connections over shards as it likes, and each has its part of the limit.
    let setup = Setup::new().driver(*driver).set("SHARDS", "1").set("MAX_CONNECTIONS", &MAX.to_string());
    let server = setup.start();
    // The connection that asked for readiness may still be closing.
    let mut clients: Vec<Client> = Vec::new();
    eventually("all connections to be taken", || {
        let mut client = server.connect();
        client.send(get("/health").bytes());
        let is_served = client.next_answer(false).is_some_and(|answer| answer.status == 200);
        if is_served {
            clients.push(client);
        }
        (clients.len() == MAX).then_some(())
    });
    for _ in 0..10 {
        let mut client = server.connect();
        let answer = client.answer();
        answer.problem(503);
        assert!(answer.closes(), "{answer:?}");
        assert!(answer.required("Retry-After").parse::<u32>().is_ok(), "{answer:?}");
        client.assert_ended();
    }
    for client in &mut clients {
        client.assert_goes_on();
    }
    clients.pop();
    let mut newcomer = eventually("room for another", || {
        let mut client = server.connect();
        // A refused connection may be reset before it has taken the request.
        let _ = client.try_send(get("/health").bytes());
        client.next_answer(false).filter(|answer| answer.status == 200).map(|_| client)
    });
    newcomer.assert_goes_on();
    let text = newcomer.call(&get("/metrics")).expect(200).text().to_owned();
    let refused =
        text.lines().find(|line| line.starts_with("million_rps_connections_refused_total{")).expect("a counter");
    assert!(!refused.ends_with(" 0"), "{refused}");
}
