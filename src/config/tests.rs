//! Settings as a user meets them: defaults, who wins, and everything that is wrong at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;

pub(super) const SECRET: &str = "correct-horse-battery-staple-0123456789";
/// What selects the deployment with services.
pub(super) const SERVICES: [(&str, &str); 2] = [("DATABASE_URL", "postgres://db/todos"), ("JWT_SECRET", SECRET)];
pub(super) const MACHINE: Platform = Platform { allowed_cpus: 3, open_files_max: 65_536, has_services: true };

pub(super) fn load_from(
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
    dot_env: &str,
    needs: Requirements,
) -> Result<Config, ConfigErrors> {
    let variables: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let sources = Sources {
        flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        environment: &|name| variables.get(name).map(OsString::from),
        environment_names: environment.iter().map(|(name, _)| (*name).to_owned()).collect(),
        dot_env: DotEnv::parse(dot_env),
    };
    Config::load(&sources, &MACHINE, needs)
}

pub(super) fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    load_from(&[], environment, "", Requirements { command: "run", services: false, jwt_secret: true, no_todos: false })
}

pub(super) fn names(result: Result<Config, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().all().iter().map(|error| error.name.clone()).collect()
}

#[test]
fn defaults_are_the_embedded_deployment() {
    let config = load(&[]).unwrap();
    assert_eq!(config.http.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.http.shards, 3);
    assert_eq!(config.http.io_driver, IoDriver::Auto);
    assert_eq!(config.http.max_connections, 10_000);
    assert!(config.http.idle_timeout > Duration::from_secs(75), "load balancers keep connections for 60 to 75 s");
    assert_eq!(config.auth.leeway, Duration::ZERO);
    assert!(config.auth.secret.is_none());
    assert_eq!(config.write.queue_bytes, 64 * 1024 * 1024);
    assert_eq!(config.cache_ttl, Duration::from_secs(300));
    assert_eq!(config.logging, Logging { level: "info".to_owned(), format: LogFormat::Human });
    assert!(matches!(config.deployment, Deployment::Embedded { data_dir } if data_dir.as_os_str() == "data"));
    assert!(config.effective.iter().all(|effective| effective.origin == Origin::Default));
}

#[test]
fn every_choice_of_the_table_has_its_meaning() {
    for (name, expected) in [("auto", IoDriver::Auto), ("IO_URING", IoDriver::IoUring), ("epoll", IoDriver::Epoll)] {
        assert_eq!(load(&[("IO_DRIVER", name)]).unwrap().http.io_driver, expected);
    }
    for (name, expected) in [("auto", LogFormat::Human), ("human", LogFormat::Human), ("JSON", LogFormat::Json)] {
        assert_eq!(load(&[("LOG_FORMAT", name)]).unwrap().logging.format, expected);
    }
}

#[test]
fn a_flag_wins_over_the_environment_over_dot_env_over_the_default() {
    let needs = Requirements::default();
    let dot_env = "HTTP_PORT=1001\nSHARDS=11\nIO_DRIVER=epoll\n";
    let config =
        load_from(&[("HTTP_PORT", "1003")], &[("HTTP_PORT", "1002"), ("SHARDS", "12")], dot_env, needs).unwrap();
    assert_eq!((config.http.listen.port(), config.http.shards), (1003, 12));
    assert_eq!(config.http.io_driver, IoDriver::Epoll);
    let origin = |name| config.effective.iter().find(|effective| effective.setting.name == name).unwrap().origin;
    assert_eq!(origin("HTTP_PORT"), Origin::Flag);
    assert_eq!(origin("SHARDS"), Origin::Environment);
    assert_eq!(origin("IO_DRIVER"), Origin::DotEnv);
    assert_eq!(origin("HTTP_HOST"), Origin::Default);
}

#[test]
fn misspelt_names_are_refused_in_dot_env_and_warned_of_elsewhere() {
    let refused = load_from(
        &[],
        &[],
        "HTTP_PROT=1\nSHARD=2\nJWT_SECRTE=SESAME\nCOMPOSE_PROJECT_NAME=x\n",
        Requirements::default(),
    );
    let text = refused.as_ref().unwrap_err().to_string();
    assert_eq!(names(refused), ["HTTP_PROT", "JWT_SECRTE", "SHARD"]);
    assert!(text.contains("HTTP_PROT (from .env): is no setting; it looks like HTTP_PORT\n"), "{text}");
    assert!(!text.contains("SESAME"));
    let environment = [("KAFKA_BROKER", "a:9092"), ("PATH", "/bin")];
    let config = load_from(&[], &environment, "COMPOSE_PROJECT_NAME=x\n", Requirements::default()).unwrap();
    assert_eq!(
        config.warnings,
        [
            "KAFKA_BROKER in the environment is no setting and has no effect; if KAFKA_BROKERS was meant, set that",
            "COMPOSE_PROJECT_NAME in .env is no setting and has no effect",
        ]
    );
}

#[test]
fn the_table_names_the_defaults_of_the_limits() {
    let config = load(&[]).unwrap();
    assert_eq!(config.write.text_limits, crate::todo::TextLimits::default());
    assert_eq!(config.http.body_max_bytes, crate::limits::BODY_MAX_BYTES);
}

#[test]
fn settings_of_the_original_have_a_meaning() {
    let given = [
        ("DATABASE_URL", "user=app password='SES AME' dbname=todos statement_timeout=5000 search_path=app"),
        ("PGHOST", "/run/postgresql"),
        ("JWT_SECRET", "01234567890123456789012345678901"),
        ("REDIS_URL", "redis:///1"),
        ("KAFKA_BROKERS", "kafka"),
        ("CACHE_TTL_SEC", "0"),
        ("DB_POOL_SIZE", "0"),
        ("REDIS_POOL_SIZE", "0"),
    ];
    let config = load(&given).unwrap();
    let Deployment::Services(services) = &config.deployment else { panic!("embedded") };
    assert_eq!(
        services.database_url.expose(),
        "postgres://?user=app&password=SES%20AME&dbname=todos&options=-c%20statement_timeout%3D5000%20-c%20search_path%3Dapp\
         &host=%2Frun%2Fpostgresql"
    );
    assert_eq!(services.redis_url.expose(), "redis://localhost/1");
    assert_eq!(services.kafka.brokers, "kafka:9092");
    assert_eq!((services.db_pool_size, services.redis_pool_size), (10_000, 10_000));
    assert_eq!(config.cache_ttl.as_secs(), 86_400);
    assert!(config.warnings.iter().any(|warning| warning.contains("statement_timeout")), "{:?}", config.warnings);
    let shown = text(&config);
    assert!(shown.contains("user=app&password=***&dbname=todos") && !shown.contains("SES"), "{shown}");
}

#[test]
fn bodies_fit_into_what_holds_them() {
    for (given, wrong) in [
        (vec![("TITLE_MAX_CHARS", "60000")], vec!["BODY_MAX_BYTES"]),
        (vec![("BODY_MAX_BYTES", "10000")], vec!["BODY_MAX_BYTES"]),
        (vec![("BODY_MAX_BYTES", "2000"), ("DESCRIPTION_MAX_CHARS", "1400")], vec![]),
        (vec![("BODY_MAX_BYTES", "1000000"), ("DESCRIPTION_MAX_CHARS", "990000")], vec![]),
        (
            vec![("BODY_MAX_BYTES", "1032192"), ("CONNECTION_MEMORY_MAX_BYTES", "2000000")],
            vec!["CONNECTION_MEMORY_MAX_BYTES"],
        ),
        (
            vec![("BODY_MAX_BYTES", "1032192"), ("SHARDS", "64"), ("WRITE_QUEUE_BYTES", "66000000")],
            vec!["WRITE_QUEUE_BYTES"],
        ),
        (vec![("BODY_MAX_BYTES", "1032192"), ("SHARDS", "65")], vec!["WRITE_QUEUE_BYTES"]),
        (vec![("BODY_MAX_BYTES", "1032192"), ("LOG_MAX_BYTES", "4000000")], vec!["LOG_MAX_BYTES"]),
        (vec![("WRITE_QUEUE_BYTES", "262144"), ("SHARDS", "2")], vec![]),
    ] {
        let loaded = load(&given);
        let found: Option<Vec<String>> =
            loaded.as_ref().err().map(|errors| errors.all().iter().map(|error| error.name.clone()).collect());
        assert_eq!(found.unwrap_or_default(), wrong, "{given:?}: {:?}", loaded.err());
    }
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let config = load_from(&[], &[("HTTP_PORT", ""), ("DATABASE_URL", "")], "HTTP_PORT=81\n", Requirements::default());
    let config = config.unwrap();
    assert_eq!(config.http.listen.port(), 81);
    assert!(matches!(config.deployment, Deployment::Embedded { .. }));
    assert_eq!(names(load_from(&[("HTTP_PORT", "")], &[], "", Requirements::default())), ["HTTP_PORT"]);
}

#[test]
fn wrong_values_are_refused_each_with_a_reason() {
    let of_services =
        |name: &str| SETTINGS.iter().any(|one| one.name == name && one.scope() == setting::Scope::Services);
    for (name, value, reason) in [
        ("HTTP_HOST", "example.com", "is not an IP address"),
        ("HTTP_PORT", "65536", "is too large"),
        ("HTTP_PORT", "-1", "is not a whole number"),
        ("HTTP_PORT", "+80", "is not a whole number"),
        ("HTTP_PORT", "80a", "is not a whole number"),
        ("HTTP_PORT", "99999999999999999999999", "is too large"),
        ("SHARDS", "0", "is too small"),
        ("IO_DRIVER", "kqueue", "is none of the choices"),
        ("MAX_CONNECTIONS", "100000", "is more than the 49152 that fit under this process's limit of 65536 open files"),
        ("IDLE_TIMEOUT_MS", "75s", "is not a whole number"),
        ("WRITE_QUEUE_BYTES", "1000", "is too small"),
        ("JWT_SECRET", "short", "has 5 bytes, which is too short"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef\n", "starts or ends with white space"),
        ("JWT_SECRET", " 0123456789abcdef0123456789abcdef", "starts or ends with white space"),
        ("JWT_SECRET", "\"0123456789abcdef0123456789abcdef\"", "stands in quotes"),
        ("JWT_SECRET", "'0123456789abcdef0123456789abcdef'", "stands in quotes"),
        ("JWT_ISSUER", "a\nb", "contains a control character"),
        ("JWT_LEEWAY_SEC", "301", "is too large"),
        ("REDIS_URL", "http://cache", "has another scheme"),
        ("REDIS_URL", "cache:6379", "is not a URL"),
        ("REDIS_URL", "unix://socket", "has no path of a socket"),
        ("KAFKA_BROKERS", "localhost:9092,", "has a broker without a host name"),
        ("CACHE_TTL_SEC", "86401", "is too large"),
        ("KAFKA_BROKERS", "localhost:0", "has a broker with a port that is not 1 to 65535"),
        ("KAFKA_BROKERS", "kafka://a:9092", "has a scheme"),
        ("KAFKA_BROKERS", "a:9092;b:9092", "has brokers that are not separated by commas"),
        ("KAFKA_TODO_TOPIC", "a topic", "is not a topic name"),
        ("KAFKA_TODO_TOPIC", "..", "is not a topic name"),
        ("KAFKA_PARTITIONS", "0", "is too small"),
        ("KAFKA_SECURITY_PROTOCOL", "tls", "is none of the choices"),
        ("KAFKA_SASL_USERNAME", "me", "is set, but KAFKA_SECURITY_PROTOCOL=PLAINTEXT does not use it"),
        ("KAFKA_SSL_CA_LOCATION", "/ca.pem", "is set, but KAFKA_SECURITY_PROTOCOL=PLAINTEXT does not use TLS"),
        ("LOG_LEVEL", "inof", "has a level that is none of these: inof; the nearest is info"),
        ("LOG_LEVEL", "milion_rps=debug", "has a module that logs nothing here"),
        ("LOG_LEVEL", "info,my crate=debug", "has a module that is not a path"),
        ("LOG_FORMAT", "xml", "is none of the choices"),
    ] {
        let mut given = vec![(name, value)];
        if of_services(name) {
            given.extend(SERVICES);
        }
        let errors = load(&given).unwrap_err();
        let [error] = errors.all() else { panic!("{name}={value}: {errors}") };
        assert_eq!(error.name, name, "{errors}");
        assert!(error.problem.starts_with(reason), "{name}={value}: {errors}");
        assert_eq!(error.origin, Some(Origin::Environment));
    }
}

#[test]
fn right_values_at_the_edges_are_taken() {
    for (name, value) in [
        ("HTTP_HOST", "localhost"),
        ("HTTP_HOST", "::"),
        ("HTTP_HOST", "[::1]"),
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", " 65535 "),
        ("SHARDS", "1024"),
        ("MAX_CONNECTIONS", "49152"),
        ("JWT_SECRET", "01234567890123456789012345678901"),
        ("LOG_LEVEL", "WARN,million_rps::worker=trace"),
        ("REDIS_URL", "redis://[::1]:6379"),
        ("REDIS_URL", "redis://user:pw@/0"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1"),
        ("KAFKA_BROKERS", "localhost"),
        ("JWT_SECRET", "'0123456789 \n\" abcdef0123456789abcdef"),
    ] {
        let mut given = vec![(name, value)];
        if name != "JWT_SECRET" {
            given.extend(SERVICES);
        }
        assert!(load(&given).is_ok(), "{name}={value}");
    }
}

#[test]
fn a_value_that_is_not_utf8_is_an_error_without_the_value() {
    let sources = Sources {
        flags: BTreeMap::new(),
        environment: &|name| (name == "DATA_DIR").then(|| OsString::from_vec(vec![b'a', 0xff])),
        environment_names: Vec::new(),
        dot_env: DotEnv::default(),
    };
    let errors = Config::load(&sources, &MACHINE, Requirements::default()).unwrap_err();
    assert!(errors.to_string().contains("DATA_DIR (from environment): is not UTF-8 text"), "{errors}");
}

#[test]
fn everything_that_is_wrong_is_shown_at_once() {
    let needs = Requirements { command: "serve", services: true, jwt_secret: true, no_todos: false };
    let errors = load_from(
        &[("SHARDS", "none")],
        &[("HTTP_PORT", "99999"), ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"), ("REDIS_URL", "http://u:SESAME@cache")],
        "IO_DRIVER=iouring\nbroken line\n",
        needs,
    )
    .unwrap_err();
    assert_eq!(
        errors.all().iter().map(|error| error.name.as_str()).collect::<Vec<_>>(),
        [
            "line 2 of .env",
            "HTTP_PORT",
            "SHARDS",
            "IO_DRIVER",
            "REDIS_URL",
            "DATABASE_URL",
            "KAFKA_SASL_MECHANISM",
            "KAFKA_SASL_USERNAME",
            "KAFKA_SASL_PASSWORD",
        ]
    );
    let text = errors.to_string();
    assert!(text.starts_with("9 settings are wrong:\n  line 2 of .env: is not of this form\n"), "{text}");
    for part in [
        "\n  HTTP_PORT=99999 (from environment): is too large\n    allowed: 0 to 65535\n    example: HTTP_PORT=8080",
        "\n  SHARDS=none (from flag): is not a whole number\n    allowed: 1 to 1024 threads\n    example: SHARDS=4",
        "\n  IO_DRIVER=iouring (from .env): is none of the choices\n    allowed: auto, io_uring, epoll\n",
        "\n  REDIS_URL=http://u:***@cache (from environment): has another scheme\n",
        "\n  DATABASE_URL: is not set, but `million-rps serve` works with PostgreSQL",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains("SESAME"));
}

#[test]
fn the_connection_default_stays_under_a_low_file_limit() {
    let platform = Platform { open_files_max: 1024, ..MACHINE };
    let sources = Sources {
        flags: BTreeMap::new(),
        environment: &|_| None,
        environment_names: Vec::new(),
        dot_env: DotEnv::default(),
    };
    let config = Config::load(&sources, &platform, Requirements::default()).unwrap();
    assert_eq!(config.http.max_connections, 768);
}

#[test]
fn secrets_appear_in_no_output() {
    let good = [
        ("DATABASE_URL", "postgres://app:SESAME-1@db/todos?sslpassword=SESAME-2"),
        ("REDIS_URL", "redis://SESAME-3@cache"),
        ("JWT_SECRET", "SESAME-4-0123456789012345678901234567890"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "worker"),
        ("KAFKA_SASL_PASSWORD", "SESAME-5"),
    ];
    let config = load(&good).unwrap();
    let shown = format!("{config:?}\n{config:#?}\n{}", text(&config));
    assert!(!shown.contains("SESAME"), "{shown}");
    assert!(shown.contains("postgres://app:***@db/todos?sslpassword=***"));

    for wrong in [
        ("DATABASE_URL", "mysql://app:SESAME@db/todos"),
        ("DATABASE_URL", "host=db password=SESAME"),
        ("DATABASE_URL", "postgres://app:SESAME@"),
        ("DATABASE_URL", "postgres://app:SES AME@db"),
        ("REDIS_URL", "SESAME@cache"),
        ("JWT_SECRET", "SESAME"),
    ] {
        let errors = load(&[wrong, ("KAFKA_SASL_PASSWORD", "SESAME")]).unwrap_err();
        let shown = format!("{errors}\n{errors:?}");
        assert!(!shown.contains("SES"), "{shown}");
    }
}

#[test]
fn the_report_shows_values_units_and_origins() {
    let config = load_from(&[("HTTP_PORT", "9000")], &[("ACK_TIMEOUT_MS", "250")], "", Requirements::default());
    let report = text(&config.unwrap());
    let line = |name: &str| report.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let columns = |name| line(name).split("  ").map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect();
    let columns: [Vec<String>; 3] = ["HTTP_PORT", "ACK_TIMEOUT_MS", "DATABASE_URL"].map(columns);
    assert_eq!(columns[0], ["HTTP_PORT", "9000", "flag --http-port"]);
    assert_eq!(columns[1], ["ACK_TIMEOUT_MS", "250 ms", "environment"]);
    assert_eq!(columns[2], ["DATABASE_URL", "(not set: embedded: everything in DATA_DIR)", "default"]);
    assert_eq!(report.lines().count(), SETTINGS.len());
}

#[test]
fn one_of_a_unit_is_not_many() {
    let given = [("WORKER_LANES", "1"), ("SHARDS", "2"), ("JWT_LEEWAY_SEC", "1")];
    let report = text(&load(&[&given[..], &SERVICES].concat()).unwrap());
    for (setting, value) in [("WORKER_LANES", "1 lane"), ("SHARDS", "2 threads"), ("JWT_LEEWAY_SEC", "1 s")] {
        let line = report.lines().find(|line| line.starts_with(setting)).expect("every setting has its line");
        assert!(line.contains(&format!("  {value}  ")), "{line}");
    }
    // Every unit is one whose singular is right.
    let known = [
        "thread",
        "connection",
        "byte",
        "command",
        "write/s",
        "todo",
        "lane",
        "partition",
        "replica",
        "character",
        "s",
        "ms",
    ];
    for setting in SETTINGS.iter().filter(|setting| !setting.unit.is_empty()) {
        let one = crate::counted::Counted(1, setting.unit).to_string();
        assert!(known.iter().any(|unit| one == format!("1 {unit}")), "{}: {one}", setting.name);
    }
}

#[test]
fn the_example_file_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, env_example(), "run `million-rps config --env-example > .env.example`");
}

#[test]
fn the_example_file_sets_nothing_and_its_lines_work_when_uncommented() {
    assert!(load_from(&[], &[], &env_example(), Requirements::default()).is_ok());
    for setting in SETTINGS {
        let start = format!("#{}=", setting.name);
        let example = env_example();
        let line = example.lines().find(|line| line.starts_with(&start)).unwrap();
        let beside: &[_] = if setting.scope() == setting::Scope::Services { &SERVICES } else { &[] };
        let config = load_from(&[], beside, &line[1..], Requirements::default());
        let needs_more = setting.name.starts_with("KAFKA_SASL")
            || ["KAFKA_SSL_CA_LOCATION", "JWT_JWKS_CA_FILE", "JWT_SECRET_PREVIOUS"].contains(&setting.name);
        assert!(config.is_ok() || needs_more, "{line}: {}", config.unwrap_err());
    }
}
