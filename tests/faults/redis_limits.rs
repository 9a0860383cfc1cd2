//! A Redis that answers and does not do what it is there for: full, evicting, a replica, without rights. The store has every
//! write all the same, and every list shows it.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use crate::deployment::{Api, Deployment, required};
use crate::handover::{shown, write_new};
use crate::harness::process::Process;
use crate::harness::request::{get, post};
use crate::harness::token::token;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

/// A Redis of a test's own.
struct OwnRedis {
    _process: Process,
    port: u16,
}

impl OwnRedis {
    fn start(arguments: &[&str]) -> OwnRedis {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        let process = Process::start({
            command.args(arguments);
            command
        });
        within("a Redis that listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        OwnRedis { _process: process, port }
    }

    fn url(&self, user: &str) -> String {
        format!("redis://{user}127.0.0.1:{}/0", self.port)
    }

    fn run(&self, command: &[&str]) {
        let client = redis::Client::open(self.url("")).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection).expect("it works");
    }
}

/// Todos of which some hundred fill a Redis of a few MiB, with their changes.
fn large() -> Load {
    Load { description_bytes: 8_000, todos: 40, ..Load::default() }
}

/// Writes through an API beside a fresh one while `what` is wrong with Redis, which is noticed by `reason`, and which `mend` ends.
fn goes_on(deployment: &Deployment, first: &Api, what: &str, reason: &str, mend: impl FnOnce()) {
    let writers = Writers::start(large(), &[Target::new(first.address)]);
    writers.await_accepted(600);
    first.await_trouble(reason);
    let fresh = deployment.serve();
    fresh.await_trouble(reason);
    writers.await_accepted(300);
    let mut history = writers.finish();
    let both = [first, &fresh];
    let healed = await_shown(&both, &history, Instant::now());
    judge(&format!("Redis {what}, still so"), deployment, &both, &history, healed);
    mend();
    let writers = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(fresh.address)]);
    history.merge(writers.until_goal());
    let healed = await_shown(&both, &history, Instant::now());
    assert_eq!(first.list().required("ETag"), fresh.list().required("ETag"), "whatever way they came to it");
    both.iter().for_each(|api| api.await_well());
    judge(&format!("Redis {what}, mended"), deployment, &both, &history, healed);
}

#[test]
fn redis_is_full() {
    let redis = OwnRedis::start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    let deployment = Deployment::beside_others().set("REDIS_URL", &redis.url(""));
    let _workers = deployment.workers::<1>();
    let first = deployment.serve();
    goes_on(&deployment, &first, "full", "noeviction", || redis.run(&["CONFIG", "SET", "maxmemory", "0"]));
}

#[test]
fn redis_evicts() {
    let redis = OwnRedis::start(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]);
    let deployment = Deployment::beside_others().set("REDIS_URL", &redis.url(""));
    let _workers = deployment.workers::<1>();
    let first = deployment.serve();
    goes_on(&deployment, &first, "evicts", "allkeys-lru", || redis.run(&["CONFIG", "SET", "maxmemory", "0"]));
}

#[test]
fn redis_becomes_a_replica() {
    let redis = OwnRedis::start(&[]);
    let deployment = Deployment::beside_others().set("REDIS_URL", &redis.url(""));
    let _workers = deployment.workers::<1>();
    let first = deployment.serve();
    // Nobody is there to be replicated, so it keeps what it has and answers from that.
    redis.run(&["REPLICAOF", "127.0.0.1", "1"]);
    goes_on(&deployment, &first, "a replica", "is a replica", || redis.run(&["REPLICAOF", "NO", "ONE"]));
}

#[test]
fn the_workers_may_not_write_to_redis() {
    let redis = OwnRedis::start(&["--user", "worker", "on", ">secret", "~*", "&*", "+@all"]);
    let deployment = Deployment::beside_others().set("REDIS_URL", &redis.url("worker:secret@"));
    let _workers = deployment.workers::<1>();
    let deployment = deployment.set("REDIS_URL", &redis.url(""));
    let first = deployment.serve();
    redis.run(&["ACL", "SETUSER", "worker", "-@write"]);
    let reason = "no worker brings its changes to Redis";
    goes_on(&deployment, &first, "closed to the workers", reason, || redis.run(&["ACL", "SETUSER", "worker", "+@all"]));
}

#[test]
fn without_redis_waiting_writes_are_answered_and_the_list_is_compared_with_the_store() {
    let redis = OwnRedis::start(&[]);
    let deployment = Deployment::beside_others().set("REDIS_URL", &redis.url("")).set("CACHE_TTL_SEC", "3");
    let _workers = deployment.workers::<1>();
    let first = deployment.serve();
    drop(redis);
    first.await_trouble("Redis cannot be reached");
    let fresh = deployment.serve();
    for api in [&first, &fresh] {
        let mut client = api.connect();
        let create = post(&token("waits"), "{\"title\":\"waited for\"}").field("Prefer", "wait=30");
        let answer = client.call(&create).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        client.call(&get(format!("/todos/{id}"))).expect(200);
        // By somebody whom the log knows nothing of: no offset moves.
        deployment.query(&format!("UPDATE todos SET title = 'by hand' WHERE id = '{id}'"));
        within("what was changed by hand", || {
            let shown = client.call(&get(format!("/todos/{id}"))).expect(200);
            (shown.json()["title"] == "by hand").then_some(())
        });
    }
}

/// Runs statements with psql, which has left when this returns.
fn psql(url: &str, statements: &str) {
    let output = Command::new("psql").args(["-v", "ON_ERROR_STOP=1", "-q", "-d", url, "-c", statements]).output();
    let output = output.expect("psql is installed with PostgreSQL");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_copy_of_the_database_lists_its_own_todos_beside_the_original_in_one_redis() {
    let deployment = Deployment::beside_others();
    let url = deployment.setting("DATABASE_URL");
    let copy_name = format!("{}-copy", deployment.topic);
    let copy_url = url.replace(&deployment.topic, &copy_name);
    assert!(deployment.command(&["migrate"]).status.success());
    psql(&url, "INSERT INTO todos VALUES (gen_random_uuid()::text, 'original', '', false, 'u', now(), now())");
    psql(&required("DATABASE_URL"), &format!("CREATE DATABASE \"{copy_name}\" TEMPLATE \"{}\"", deployment.topic));
    psql(&copy_url, "UPDATE todos SET title = 'copy'");
    let mut deployment = deployment;
    let mut apis = Vec::new();
    // Each is started again beside the other, on a Redis that both have warmed.
    for (url, title) in [(&url, "original"), (&copy_url, "copy"), (&url, "original"), (&copy_url, "copy")] {
        deployment = deployment.set("DATABASE_URL", url);
        apis.push((deployment.serve(), title));
        for (api, title) in &apis {
            let list = api.list().json();
            assert_eq!(list.as_array().map(Vec::len), Some(1));
            assert_eq!(list[0]["title"], *title);
        }
    }
    drop(apis);
    psql(&required("DATABASE_URL"), &format!("DROP DATABASE \"{copy_name}\" WITH (FORCE)"));
}

/// By its offsets alone, nothing tells an older copy from a store that gets no commands.
#[test]
fn a_store_that_is_replaced_by_an_older_copy_of_it_is_what_a_running_api_shows() {
    let deployment = Deployment::beside_others();
    let (server, name) = (required("DATABASE_URL"), &deployment.topic);
    let older = format!("{name}-older");
    assert!(deployment.command(&["migrate"]).status.success());
    let api = deployment.serve();
    let worker = deployment.worker();
    let before = write_new(&api, "before the copy");
    within("the first todo", || (shown(&api).len() == 1).then_some(()));
    worker.signal(libc::SIGKILL);
    drop(worker);
    // A database that is copied may have no connections.
    let close = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false");
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    psql(&server, &close);
    psql(&server, &end);
    psql(&server, &format!("CREATE DATABASE \"{older}\" TEMPLATE \"{name}\""));
    psql(&server, &format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true"));
    let worker = deployment.worker();
    let after = write_new(&api, "after the copy");
    within("both todos", || (shown(&api).len() == 2).then_some(()));
    worker.signal(libc::SIGKILL);
    drop(worker);

    psql(&server, &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
    psql(&server, &format!("ALTER DATABASE \"{older}\" RENAME TO \"{name}\""));
    within("the list of the copy", || shown(&api).into_keys().eq([before.clone()]).then_some(()));
    // The log has what the copy lacks.
    let _worker = deployment.worker();
    // Ids that come from a key are in no order of time.
    let both = BTreeSet::from([before, after]);
    within("the list of the log", || shown(&api).into_keys().eq(both.iter().cloned()).then_some(()));
}
