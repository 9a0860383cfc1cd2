//! API processes share a port when they share the store, and never otherwise.

use crate::deployment::{Api, Deployment};
use crate::harness::process::Process;
use crate::harness::request::{get, post};
use crate::harness::token::token;
use crate::within;

fn at_port_of(deployment: Deployment, api: &Api) -> Deployment {
    deployment.set("HTTP_PORT", &api.address.port().to_string())
}

fn holder_of(api: &Api) -> String {
    format!("process {} (million-rps)", api.process.pid())
}

#[test]
fn another_database_does_not_share_the_port() {
    let first = Deployment::beside_others();
    let _workers = first.workers::<1>();
    let api = first.serve();
    let second = at_port_of(first.neighbour(), &api);
    // Its store has to be there to tell whose it is.
    let _other_workers = second.workers::<1>();
    for command in ["serve", "run"] {
        let finished = second.command(&[command]);
        assert!(!finished.status.success(), "{finished:?}");
        assert!(finished.stderr.contains(&holder_of(&api)) && finished.stderr.contains("HTTP_PORT"), "{finished:?}");
    }
    let token = token("one deployment");
    for number in 0..20 {
        api.connect().call(&post(&token, format!("{{\"title\":\"{number}\"}}"))).expect(202);
    }
    within("all writes in the first database", || {
        (first.query("SELECT count(*) FROM todos")[0][0].as_deref() == Some("20")).then_some(())
    });
    // The same deployment joins, and a process without a database does not.
    let first = at_port_of(first, &api);
    let beside = first.serve_unready("serve");
    within("the second process to listen", || {
        (beside.process.stderr.text().matches("listening shard=").count() == 2).then_some(())
    });
    for _ in 0..20 {
        api.connect().call(&get("/todos?limit=1")).expect(200);
    }
}

/// The store is the same, and what one of them acknowledges would stand where no worker of the other reads.
#[test]
fn another_topic_does_not_share_the_port() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<1>();
    let api = deployment.serve();
    let topic = format!("{}-misspelt", deployment.topic);
    let second = at_port_of(deployment, &api).set("KAFKA_TODO_TOPIC", &topic);
    let finished = second.command(&["serve"]);
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains(&holder_of(&api)), "{finished:?}");
    assert!(finished.stderr.contains("KAFKA_TODO_TOPIC"), "{finished:?}");
}

/// While nobody can say whose a newcomer's store is, it waits; and when that is known again, it joins or goes.
#[test]
fn a_newcomer_waits_for_its_database_to_say_whose_it_is() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<1>();
    let api = deployment.serve();
    let deployment = at_port_of(deployment, &api);
    let url = deployment.setting("DATABASE_URL");
    let unreachable = deployment.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
    let mut newcomer: Process = unreachable.start("serve");
    within("the newcomer to say why it waits", || {
        assert_eq!(newcomer.status(), None, "it waits: {}", newcomer.stderr.text());
        let text = newcomer.stderr.text();
        (text.contains("waiting for port") && text.contains(&holder_of(&api))).then_some(())
    });
    for _ in 0..20 {
        api.connect().call(&get("/todos?limit=1")).expect(200);
    }
    newcomer.signal(libc::SIGTERM);
    assert_eq!(newcomer.finish().status.code(), Some(0), "it can be stopped while it waits");
    let deployment = unreachable.set("DATABASE_URL", &url);
    // The process that holds the port does not answer: nobody joins it, and it is named.
    api.process.signal(libc::SIGSTOP);
    let refused = deployment.command(&["serve"]);
    api.process.signal(libc::SIGCONT);
    assert!(!refused.status.success() && refused.stderr.contains("may be stopped"), "{refused:?}");
    api.connect().call(&get("/todos?limit=1")).expect(200);
}
