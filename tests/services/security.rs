//! Encryption and identity: passwords and certificates of PostgreSQL, Kafka and Redis, right and wrong.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use million_rps::command_log::kafka::{KafkaOptions, KafkaReader, KafkaSecurity};
use million_rps::command_log::{CommandReader, LogError, LogEvent};
use million_rps::feed::redis::{RedisOptions, RedisPublisher};
use million_rps::feed::{ChangeSet, FeedError, FeedPublisher};
use million_rps::store::postgres::PostgresStore;
use million_rps::store::{Changes, Identity, OffsetStep, Store, StoreError};
use million_rps::todo::TodoId;

use crate::harness::client::Client;
use crate::harness::is_well;
use crate::harness::process::Process;
use crate::harness::request::{get, post};
use crate::harness::server::Setup;
use crate::harness::token::token;
use crate::kafka::append;
use crate::servers::Database;
use crate::setting::{eventually, required, todo, unique};

const WAIT: Duration = Duration::from_millis(100);

fn authority() -> String {
    format!("{}/authority.pem", required("TLS_DIR"))
}

// ---- Kafka ----

fn login(mechanism: &str, password: &str) -> KafkaSecurity {
    KafkaSecurity {
        sasl_mechanism: Some(mechanism.into()),
        sasl_username: Some(required("SECURED_USER")),
        sasl_password: Some(password.into()),
        ..KafkaSecurity::default()
    }
}

fn options(brokers: &str, protocol: &str, security: KafkaSecurity) -> KafkaOptions {
    let topic = unique("secured");
    KafkaOptions {
        partitions: 2,
        group: format!("{topic}-workers"),
        security: KafkaSecurity { protocol: Some(protocol.into()), ..security },
        ..KafkaOptions::new(&required(brokers), &topic)
    }
}

/// Writes through this door and reads what was written.
fn write_and_read(options: &KafkaOptions) {
    let ids: BTreeSet<TodoId> = (0..20).map(|_| TodoId::new()).collect();
    append(options, &ids.iter().copied().collect::<Vec<_>>());
    let mut reader = KafkaReader::new(options.clone()).expect("usable options");
    let mut found = BTreeSet::new();
    eventually("what was written is read", || {
        match reader.poll(100, 1 << 20, WAIT).expect("the log can be read") {
            LogEvent::Assigned(partitions) => {
                partitions.into_iter().for_each(|partition| reader.start(partition, None).expect("started"));
            }
            LogEvent::Records(batches) => found.extend(
                batches
                    .into_iter()
                    .flat_map(|batch| batch.records)
                    .map(|record| String::from_utf8_lossy(&record.key).parse::<TodoId>().expect("an id")),
            ),
            _ => {}
        }
        (found == ids).then_some(())
    });
}

#[test]
fn kafka_is_used_with_each_way_to_log_in() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let security = login(mechanism, &required("SECURED_PASSWORD"));
        write_and_read(&options("KAFKA_SASL_BROKERS", "SASL_PLAINTEXT", security));
    }
}

#[test]
fn kafka_is_used_over_tls() {
    let trust = || KafkaSecurity { ca_location: Some(authority()), ..KafkaSecurity::default() };
    write_and_read(&options("KAFKA_TLS_BROKERS", "SSL", trust()));
    let both =
        KafkaSecurity { ca_location: Some(authority()), ..login("SCRAM-SHA-512", &required("SECURED_PASSWORD")) };
    write_and_read(&options("KAFKA_SASL_TLS_BROKERS", "SASL_SSL", both));
}

/// A look at the broker ends after a time of its own, and a busy broker may take longer to say why it refuses. So this is asked
/// as a worker asks: again and again. No answer may be anything but a reason to go on trying.
fn await_refusal(options: KafkaOptions, named: &str) {
    let mut reader = KafkaReader::new(options).expect("usable options");
    eventually(named, || {
        let error = reader.poll(1, 1 << 20, WAIT).expect_err("the broker refuses");
        assert!(matches!(error, LogError::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(!text.contains("not the password"), "{text}");
        text.contains(named).then_some(())
    });
}

#[test]
fn kafkas_refusals_are_named() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let stranger = options("KAFKA_SASL_BROKERS", "SASL_PLAINTEXT", login(mechanism, "not the password"));
        await_refusal(stranger, "uthentication failed");
    }
    // The system's authorities have not signed it.
    await_refusal(options("KAFKA_TLS_BROKERS", "SSL", KafkaSecurity::default()), "certificate verify failed");
}

// ---- PostgreSQL ----

/// The database's URL with another user, password and TLS mode.
fn secured_url(database: &Database, password: &str, tls: &str) -> String {
    let url = database.url();
    let (_, rest) = url.rsplit_once('@').expect("DATABASE_URL names a user");
    let (server, _) = rest.split_once('?').unwrap_or((rest, ""));
    format!("postgres://{}:{password}@{server}?{tls}", required("SECURED_USER"))
}

#[test]
fn postgres_is_used_with_a_password_and_over_tls() {
    let database = Database::create();
    let root = format!("sslrootcert={}", authority());
    for (tls, encrypted) in [
        ("sslmode=disable".to_owned(), 0),
        ("sslmode=prefer".to_owned(), 1),
        ("sslmode=require".to_owned(), 1),
        (format!("sslmode=require&{root}"), 1),
        (format!("sslmode=verify-full&{root}"), 1),
    ] {
        let url = secured_url(&database, &required("SECURED_PASSWORD"), &tls);
        let mut store = PostgresStore::new(&url, "todo-commands").expect("a usable URL");
        store.migrate().expect("the schema is created, or there");
        store.applied_offsets().expect("it answers");
        let sessions = database.count(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE ssl AND datname = current_database() AND application_name = 'million-rps'",
        );
        assert_eq!(sessions, encrypted, "{tls}");
    }
}

#[test]
fn postgres_is_used_with_a_certificate_and_through_its_socket() {
    let database = Database::create();
    let folder = required("TLS_DIR");
    let shows = |url: &str, what: &str| {
        let mut store = PostgresStore::new(url, "todo-commands").expect("a usable URL");
        store.migrate().expect("the schema is created, or there");
        database.count(&format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE {what} AND datname = current_database() AND application_name = 'million-rps'"
        ))
    };
    let certificate = format!("sslcert={folder}/certificate.pem&sslkey={folder}/key.pem");
    let root = format!("sslmode=verify-full&sslrootcert={}", authority());
    let psqls = "client_encoding=UTF8&gssencmode=disable&target_session_attrs=primary";
    for tls in ["sslmode=require", &root] {
        let url = secured_url(&database, &required("SECURED_PASSWORD"), &format!("{tls}&{certificate}&{psqls}"));
        assert_eq!(shows(&url, "client_dn = '/CN=localhost'"), 1, "{tls}");
    }
    let wrong = format!("sslmode=require&sslcert={folder}/certificate.pem&sslkey={folder}/nowhere.pem");
    let error =
        PostgresStore::new(&secured_url(&database, "p", &wrong), "todo-commands").map(drop).expect_err("no key");
    assert!(error.to_string().contains("nowhere.pem"), "{error}");

    let (before, _) = database.url().split_once('?').map(|(url, query)| (url.to_owned(), query.to_owned())).expect("?");
    let (port, name) = before.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).expect("a port and a name");
    let socket = format!("{}/socket", required("SERVICES_DIR"));
    // libpq encrypts nothing on a socket of the machine, whatever it is asked for.
    for tls in ["prefer", "require", "verify-full"] {
        let url = format!("postgres://postgres@/{name}?host={socket}&port={port}&sslmode={tls}");
        assert_eq!(shows(&url, "client_addr IS NULL"), 1, "{url}");
    }
}

#[test]
fn postgres_refusals_are_named() {
    let database = Database::create();
    let failure = |url: &str| {
        let mut store = PostgresStore::new(url, "todo-commands").expect("a usable URL");
        store.applied_offsets().expect_err("nobody may come in")
    };
    let wrong = failure(&secured_url(&database, "not-the-password", "sslmode=require"));
    let StoreError::Misconfigured(text) = &wrong else { panic!("{wrong:?}") };
    assert!(text.contains("password authentication failed") && !text.contains("not-the-password"), "{text}");
    // Signed by nobody whom the system trusts.
    let url = secured_url(&database, &required("SECURED_PASSWORD"), "sslmode=verify-full&sslrootcert=system");
    let text = failure(&url).to_string();
    assert!(text.contains("certificate"), "{text}");
}

// ---- Redis ----

/// A Redis of its own that asks for a password, in plain text and over TLS.
struct SecuredRedis {
    _process: Process,
    port: u16,
    tls_port: u16,
}

const REDIS_PASSWORD: &str = "a-password-for-tests";

impl SecuredRedis {
    fn start() -> SecuredRedis {
        let [port, tls_port] = [(); 2]
            .map(|()| TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port());
        let folder = required("TLS_DIR");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--tls-port", &tls_port.to_string()]);
        command.args(["--tls-cert-file", &format!("{folder}/certificate.pem")]);
        command.args(["--tls-key-file", &format!("{folder}/key.pem"), "--tls-auth-clients", "no"]);
        command.args(["--tls-ca-cert-file", &authority(), "--requirepass", REDIS_PASSWORD]);
        command.args(["--user", "anna", "on", &format!(">{REDIS_PASSWORD}"), "~*", "&*", "+@all"]);
        command.args(["--save", "", "--appendonly", "no"]);
        let process = Process::start(command);
        eventually("Redis listens", || TcpStream::connect(("127.0.0.1", tls_port)).ok());
        SecuredRedis { _process: process, port, tls_port }
    }
}

/// Writes one todo to a Redis, as a worker does.
pub fn publish(url: &str) -> Result<(), FeedError> {
    let topic = unique("secured");
    let mut publisher = RedisPublisher::new(&RedisOptions {
        url: url.to_owned(),
        topic,
        cache_ttl: Duration::from_secs(60),
        fleet: None,
    })
    .expect("a usable URL");
    publisher.identify(&Identity::new([1; 16], [2; 32], &[]));
    let steps = vec![OffsetStep { partition: 0, from: None, to: 1 }];
    publisher.publish(&ChangeSet { steps, changes: Changes { upserts: vec![todo(1, "t")], deletes: vec![] } })
}

#[test]
fn redis_is_used_with_a_password_and_refusals_are_named() {
    let redis = SecuredRedis::start();
    let port = redis.port;
    publish(&format!("redis://:{REDIS_PASSWORD}@127.0.0.1:{port}/0")).expect("the password is right");
    publish(&format!("redis://anna:{REDIS_PASSWORD}@127.0.0.1:{port}/1")).expect("the password is right");
    for url in [format!("redis://:not-the-password@127.0.0.1:{port}/0"), format!("redis://127.0.0.1:{port}/0")] {
        let error = publish(&url).expect_err("Redis refuses");
        assert!(matches!(&error, FeedError::Fatal(text) if !text.contains("not-the-password")), "{url}: {error:?}");
    }
    // It is encrypted, and nobody says that its certificate is to be trusted.
    let error = publish(&format!("rediss://:{REDIS_PASSWORD}@127.0.0.1:{}/0", redis.tls_port)).expect_err("refused");
    assert!(error.to_string().contains("certificate"), "{error:?}");
}

// ---- the whole program ----

/// The settings of a deployment all of whose servers ask who is there, over TLS.
fn secured(database: &Database, redis: &SecuredRedis) -> Setup {
    let topic = unique("secured");
    let root = format!("sslmode=verify-full&sslrootcert={}", authority());
    Setup::new()
        .set("SHARDS", "1")
        .set("DATABASE_URL", &secured_url(database, &required("SECURED_PASSWORD"), &root))
        .set("REDIS_URL", &format!("rediss://:{REDIS_PASSWORD}@127.0.0.1:{}/0", redis.tls_port))
        // Redis is trusted by the system's certificates: this variable says which those are.
        .set("SSL_CERT_FILE", &authority())
        .set("KAFKA_BROKERS", &required("KAFKA_SASL_TLS_BROKERS"))
        .set("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
        .set("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
        .set("KAFKA_SASL_USERNAME", &required("SECURED_USER"))
        .set("KAFKA_SASL_PASSWORD", &required("SECURED_PASSWORD"))
        .set("KAFKA_SSL_CA_LOCATION", &authority())
        .set("KAFKA_TODO_TOPIC", &topic)
        .set("KAFKA_GROUP_ID", &topic)
}

/// Starts a process with an API, and waits until it says where it listens.
fn start(setup: &Setup, command: &str) -> (Process, SocketAddr) {
    let process = Process::start(setup.command(&[command]));
    let address = eventually("the line with the address", || {
        let text = process.stdout.text();
        let (line, _) = text.split_once('\n')?;
        line.strip_prefix("million-rps listens on http://")?.parse().ok()
    });
    (process, address)
}

fn await_reason(address: SocketAddr, component: &str, reason: &str) {
    let start = Instant::now();
    loop {
        let document = Client::connect(address).call(&get("/ready")).json();
        let reasons = document["reasons"].as_array().expect("a list");
        let mut texts = reasons.iter().filter_map(|text| text.as_str());
        if texts.any(|text| text.starts_with(component) && text.contains(reason)) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "/ready does not say {component}{reason}: {document}");
        std::thread::sleep(WAIT);
    }
}

#[test]
fn a_deployment_works_with_passwords_and_tls_everywhere() {
    let (database, redis) = (Database::create(), SecuredRedis::start());
    let (process, address) = start(&secured(&database, &redis), "run");
    eventually("readiness", || is_well(&Client::connect(address).call(&get("/ready")).json()).then_some(()));
    let title = unique("title");
    let body = serde_json::json!({ "title": title }).to_string();
    Client::connect(address).call(&post(&token("anna"), body)).expect(202);
    eventually("the todo is in the list", || {
        Client::connect(address).call(&get("/todos")).expect(200).text().contains(&title).then_some(())
    });
    process.signal(libc::SIGTERM);
    let ended = process.finish();
    assert!(ended.status.success(), "{ended:?}");
    let secrets = [required("SECURED_PASSWORD"), REDIS_PASSWORD.to_owned()];
    assert!(secrets.iter().all(|secret| !ended.stderr.contains(secret.as_str())), "{}", ended.stderr);
}

#[test]
fn what_a_server_refuses_is_named_in_ready() {
    let (database, redis) = (Database::create(), SecuredRedis::start());
    let right = secured(&database, &redis);
    let (_kafka, address) = start(&right.clone().set("KAFKA_SASL_PASSWORD", "not the password"), "serve");
    await_reason(address, "command_log: ", "uthentication failed");

    let stranger = format!("rediss://:not-the-password@127.0.0.1:{}/0", redis.tls_port);
    let (_redis, address) = start(&right.clone().set("REDIS_URL", &stranger), "serve");
    await_reason(address, "feed: ", "assword authentication failed");

    let (_redis_tls, address) = start(&right.clone().unset("SSL_CERT_FILE"), "serve");
    await_reason(address, "feed: ", "certificate");

    let stranger = secured_url(&database, "not-the-password", "sslmode=require");
    let (_postgres, address) = start(&right.clone().set("DATABASE_URL", &stranger), "serve");
    await_reason(address, "feed: ", "password authentication failed");

    // A worker can do nothing at all without its store: it says so and waits for whoever gives it the right.
    let mut worker = Process::start(right.set("DATABASE_URL", &stranger).command(&["worker"]));
    eventually("the reason in the log", || {
        worker.stderr.text().contains("password authentication failed").then_some(())
    });
    assert!(worker.status().is_none(), "{}", worker.stderr.text());
}
