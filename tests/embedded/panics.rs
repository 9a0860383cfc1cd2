//! A panic while answering takes one connection with it, and nothing else. Only a build with `fault-injection` has a
//! path that panics.

use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity => a_panic_costs_one_connection);

fn a_panic_costs_one_connection(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("SHARDS", "1").start();
    let mut bystander = server.connect();
    bystander.assert_goes_on();
    for _ in 0..10 {
        let mut client = server.connect();
        let mut bytes = get("/health").bytes();
        bytes.extend(post(&token("careless"), r#"{"title":"before the panic"}"#).bytes());
        bytes.extend(get("/fault/panic").bytes());
        bytes.extend(get("/health").bytes());
        client.send(bytes);
        client.answer().expect(200);
        client.answer().expect(202);
        let answer = client.answer();
        answer.problem(500);
        assert!(answer.closes(), "{answer:?}");
        client.assert_ended();
        bystander.assert_goes_on();
    }
    let metrics = bystander.call(&get("/metrics")).expect(200);
    assert!(metrics.text().contains("million_rps_panics_total{shard=\"0\"} 10\n"), "{}", metrics.text());
    eventually("the panics in the log", || server.log().contains("panicked").then_some(()));
    eventually("what was accepted before them", || {
        (bystander.call(&get("/todos")).expect(200).json().as_array()?.len() == 10).then_some(())
    });
}
