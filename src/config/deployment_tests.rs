//! Which deployment settings choose, and what each of them needs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::tests::{MACHINE, SECRET, SERVICES, load, load_from, names};
use super::*;

#[test]
fn the_database_may_be_named_by_its_socket() {
    for url in [
        "postgres:///todos?host=/run/postgresql",
        "postgres://app@/todos?sslmode=disable&host=/run/postgresql&port=5433",
        "postgresql://%2Frun%2Fpostgresql/todos",
        "postgres:///todos?hostaddr=127.0.0.1",
    ] {
        load(&[("DATABASE_URL", url), ("JWT_SECRET", SECRET)]).unwrap_or_else(|errors| panic!("{url}: {errors}"));
    }
}

#[test]
fn a_database_url_selects_the_services() {
    let config = load(&[
        ("DATABASE_URL", "PostgreSQL://app:pw@db/todos"),
        ("JWT_SECRET", SECRET),
        ("REDIS_URL", "rediss://:pw@cache:6380/2"),
        ("KAFKA_BROKERS", "a:9092, [::1]:9093"),
        ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
        ("KAFKA_SASL_MECHANISM", "scram-sha-512"),
        ("KAFKA_SASL_USERNAME", "worker"),
        ("KAFKA_SASL_PASSWORD", "pw"),
        ("KAFKA_SSL_CA_LOCATION", "/ca.pem"),
        ("KAFKA_LINGER_MS", "0"),
    ])
    .unwrap();
    assert_eq!(config.auth.secret.unwrap().expose(), SECRET);
    let Deployment::Services(services) = config.deployment else { panic!("not the services") };
    assert_eq!(services.database_url.expose(), "postgresql://app:pw@db/todos");
    assert_eq!(services.redis_url.expose(), "rediss://:pw@cache:6380/2");
    assert_eq!((services.db_pool_size, services.redis_pool_size), (100, 500));
    let kafka = services.kafka;
    assert_eq!(kafka.brokers, "a:9092,[::1]:9093");
    assert_eq!((kafka.topic.as_str(), kafka.partitions), ("todo-commands", 16));
    assert_eq!((kafka.group_id.as_str(), kafka.group_instance_id), ("million-rps-workers", None));
    assert_eq!((kafka.linger, kafka.compression), (Duration::ZERO, "lz4"));
    assert_eq!(kafka.security_protocol, "SASL_SSL");
    assert_eq!(kafka.ssl_ca_location, Some(PathBuf::from("/ca.pem")));
    let sasl = kafka.sasl.unwrap();
    assert_eq!((sasl.mechanism, sasl.username.as_str(), sasl.password.expose()), ("SCRAM-SHA-512", "worker", "pw"));
}

#[test]
fn settings_of_services_without_the_database_are_refused_by_name() {
    for (given, named) in [
        (vec![("KAFKA_BROKERS", "kafka:9092")], "KAFKA_BROKERS (from environment) has no effect"),
        (vec![("REDIS_URL", "redis://cache")], "REDIS_URL (from environment) has no effect"),
        (
            vec![("KAFKA_TODO_TOPIC", "todos"), ("WORKER_LANES", "2")],
            "WORKER_LANES (from environment), KAFKA_TODO_TOPIC",
        ),
        (vec![("KAFKA_LINGER_MS", "5"), ("DATABASE_URL", "")], "KAFKA_LINGER_MS (from environment) has no effect"),
    ] {
        for command in ["run", "seed", "config"] {
            let needs = Requirements { command, services: false, jwt_secret: true, no_todos: false };
            let errors = load_from(&[], &given, "", needs).unwrap_err();
            let [error] = errors.all() else { panic!("{given:?}: {errors}") };
            assert_eq!(error.name, "DATABASE_URL");
            assert!(error.problem.contains(named) && error.problem.contains("DATA_DIR"), "{errors}");
        }
    }
    let errors = load_from(&[("REDIS_POOL_SIZE", "5")], &[], "REDIS_URL=redis://cache\n", Requirements::default());
    let text = errors.unwrap_err().to_string();
    assert!(text.contains("REDIS_URL (from .env), REDIS_POOL_SIZE (from flag) have no effect"), "{text}");
    // A command that needs the database says so once.
    let needs = Requirements { command: "serve", services: true, jwt_secret: true, no_todos: false };
    assert_eq!(names(load_from(&[], &[("REDIS_URL", "redis://cache")], "", needs)), ["DATABASE_URL"]);
}

#[test]
fn settings_of_the_folder_beside_the_database_are_warned_of() {
    let config = load(&[&[("DATA_DIR", "/srv/todos")][..], &SERVICES].concat()).unwrap();
    assert!(
        config.warnings.iter().any(|warning| warning.starts_with("DATA_DIR (from environment) has no effect beside"))
    );
    assert_eq!(load(&SERVICES).unwrap().warnings, Vec::<String>::new());
    assert_eq!(load(&[("DATA_DIR", "/srv/todos")]).unwrap().warnings, Vec::<String>::new());
    for setting in
        SETTINGS.iter().filter(|setting| setting.name.starts_with("KAFKA") || setting.name.starts_with("REDIS"))
    {
        assert_eq!(setting.scope(), setting::Scope::Services, "{}", setting.name);
    }
}

#[test]
fn services_need_a_secret_only_where_tokens_are_used() {
    let database = [("DATABASE_URL", "postgres://db/todos")];
    assert_eq!(names(load(&database)), ["JWT_SECRET"]);
    let text = load(&database).unwrap_err().to_string();
    assert!(text.contains("example: JWT_SECRET=$(openssl rand -base64 48)"), "{text}");
    let worker = Requirements { command: "worker", services: true, jwt_secret: false, no_todos: false };
    assert!(load_from(&[], &database, "", worker).is_ok());
    // A secret that is given, but wrong, is not called missing too.
    let errors = load(&[database[0], ("JWT_SECRET", "short")]).unwrap_err();
    assert_eq!(errors.all().len(), 1, "{errors}");
}

#[test]
fn a_write_that_waits_for_more_replicas_than_there_are_is_refused_at_start() {
    let replicas = ("KAFKA_REPLICATION_FACTOR", "2");
    let asked = |settings: &[(&'static str, &'static str)]| load(&[settings, &SERVICES].concat());
    let refused = asked(&[replicas, ("KAFKA_MIN_INSYNC_REPLICAS", "3")]);
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(text.contains("more than KAFKA_REPLICATION_FACTOR=2"), "{text}");
    assert_eq!(names(refused), ["KAFKA_MIN_INSYNC_REPLICAS"]);
    assert!(asked(&[replicas, ("KAFKA_MIN_INSYNC_REPLICAS", "2")]).is_ok());
    // What the brokers make of one alone is theirs to say.
    assert!(asked(&[("KAFKA_MIN_INSYNC_REPLICAS", "3")]).is_ok());
}

#[test]
fn a_build_without_services_says_so() {
    let platform = Platform { has_services: false, ..MACHINE };
    let variables = |name: &str| (name == "DATABASE_URL").then(|| OsString::from("postgres://app:SESAME@db/todos"));
    let sources = Sources {
        flags: BTreeMap::new(),
        environment: &variables,
        environment_names: Vec::new(),
        dot_env: DotEnv::default(),
    };
    let text = Config::load(&sources, &platform, Requirements::default()).unwrap_err().to_string();
    assert!(text.contains("DATABASE_URL=postgres://app:***@db/todos (from environment): is set, but this binary was"));
    assert!(!text.contains("SESAME"));
}
