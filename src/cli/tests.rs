//! The command line as a person types it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::*;
use crate::auth::{AuthError, FailedChecks, KEY_FILE_NAME, Verifier};
use crate::config::{Config, ConfigErrors, DotEnv, Platform, SETTINGS, Secret, env_example, markdown};

const MACHINE: Platform = Platform { allowed_cpus: 2, open_files_max: 65_536, has_services: true };
const KEY: &str = "0123456789abcdef0123456789abcdef";

fn cli(line: &str) -> Cli {
    Cli::try_parse_from(std::iter::once("million-rps").chain(line.split_whitespace())).unwrap()
}

fn refusal(line: &str) -> String {
    let result = Cli::try_parse_from(std::iter::once("million-rps").chain(line.split_whitespace()));
    result.unwrap_err().to_string()
}

fn load(line: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let variable = |name: &str| variables.get(name).map(OsString::from);
    cli(line).load_config_from((&variable, Vec::new()), DotEnv::default(), &MACHINE)
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_and_their_defaults() {
    assert_eq!(cli("").chosen_command(), Command::Run);
    assert_eq!(cli("run").chosen_command(), Command::Run);
    assert_eq!(cli("serve").chosen_command(), Command::Serve);
    assert_eq!(cli("worker").chosen_command(), Command::Worker);
    assert_eq!(cli("migrate").chosen_command(), Command::Migrate(MigrateArguments::default()));
    let seed = SeedArguments { count: 10_000, user: "seed".to_owned(), variety: 1 };
    assert_eq!(cli("seed").chosen_command(), Command::Seed(seed));
    let seed = SeedArguments { count: 5, user: "alice".to_owned(), variety: 9 };
    assert_eq!(cli("seed --count 5 --user alice --variety 9").chosen_command(), Command::Seed(seed));
    let token =
        TokenArguments { sub: "alice".to_owned(), ttl: Duration::from_secs(86_400), key: None, alg: None, kid: None };
    assert_eq!(cli("token --sub alice").chosen_command(), Command::Token(token));
    let token =
        TokenArguments { sub: "alice".to_owned(), ttl: Duration::from_secs(90), key: None, alg: None, kid: None };
    assert_eq!(cli("token --sub alice --ttl 90s").chosen_command(), Command::Token(token));
    let dead_letters = |action| Command::DeadLetters(DeadLettersArguments { action });
    let list = DeadLettersAction::List { limit: 100 };
    assert_eq!(cli("dead-letters list").chosen_command(), dead_letters(list));
    let records = vec![RecordPlace { partition: 3, offset: 1042 }, RecordPlace { partition: 0, offset: 0 }];
    let replay = DeadLettersAction::Replay { records, all: false };
    assert_eq!(cli("dead-letters replay 3:1042 0:0").chosen_command(), dead_letters(replay));
    let replay = DeadLettersAction::Replay { records: Vec::new(), all: true };
    assert_eq!(cli("dead-letters replay --all").chosen_command(), dead_letters(replay));
}

#[test]
fn wrong_arguments_are_refused_with_a_reason() {
    for (line, reason) in [
        ("sreve", "serve"),
        ("seed --count 0", "1..=100000000"),
        ("seed --count many", "invalid digit"),
        ("seed --user \u{7}", "contains a control character"),
        ("token", "--sub <NAME>"),
        ("token --sub=", "must not be empty"),
        ("token --sub a --ttl 24", "expected a whole number with s, m, h or d"),
        ("token --sub a --ttl 0s", "at least 1s"),
        ("token --sub a --ttl 4000d", "at most 3660d"),
        ("dead-letters", "Usage"),
        ("dead-letters replay", "--all"),
        ("dead-letters replay 3:1042 --all", "cannot be used with"),
        ("dead-letters replay 3", "expected PARTITION:OFFSET"),
        ("dead-letters replay 3:-1", "expected PARTITION:OFFSET"),
        ("config --markdown --env-example", "cannot be used with"),
        ("config --routes --openapi", "cannot be used with"),
        ("--database-url postgres://db/todos", "unexpected argument"),
        ("--jwt-secret 0123456789abcdef0123456789abcdef", "unexpected argument"),
    ] {
        let text = refusal(line);
        assert!(text.contains(reason), "{line}: {text}");
    }
}

#[test]
fn setting_flags_work_before_and_after_the_command_and_win() {
    for line in ["--http-port 9000 run", "run --http-port 9000", "--http-port=9000"] {
        let config = load(line, &[("HTTP_PORT", "9001"), ("SHARDS", "7")]).unwrap();
        assert_eq!((config.http.listen.port(), config.http.shards), (9000, 7), "{line}");
    }
    let errors = load("--http-port 99999 --io-driver kqueue", &[]).unwrap_err().to_string();
    assert!(errors.contains("HTTP_PORT=99999 (from flag)") && errors.contains("IO_DRIVER=kqueue"), "{errors}");
}

#[test]
fn the_help_of_a_build_without_services_says_so() {
    assert_eq!(command_line::what_this_build_lacks(true), "");
    assert!(command_line::what_this_build_lacks(false).contains("serve, worker and DATABASE_URL do not work"));
    let short = Cli::command().render_help().to_string();
    assert_eq!(short.contains("was built without"), !cfg!(feature = "services"), "{short}");
}

#[test]
fn help_shows_every_flag_with_default_and_unit() {
    let long = Cli::command().render_long_help().to_string();
    let text = long.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in SETTINGS {
        assert!(text.contains(&format!("[env: {}]", setting.name)), "{}", setting.name);
        let flag = setting.name.to_ascii_lowercase().replace('_', "-");
        assert_eq!(text.contains(&format!("--{flag} <")), setting.flag().is_some(), "{flag}");
    }
    assert!(text.contains("[allowed: 100 to 600000 ms] [default: 10000 ms]"), "{text}");
    let short = Cli::command().render_help().to_string();
    assert!(!short.contains("--http-port") && short.contains("dead-letters"), "{short}");
}

#[test]
fn each_command_asks_for_what_it_needs() {
    let database = ("DATABASE_URL", "postgres://db/todos");
    let secret = ("JWT_SECRET", KEY);
    for (line, environment, wrong) in [
        ("run", &[][..], None),
        ("serve", &[], Some("DATABASE_URL")),
        ("serve", &[database], Some("JWT_SECRET")),
        ("serve", &[database, secret], None),
        ("worker", &[], Some("DATABASE_URL")),
        ("worker", &[database], None),
        ("migrate", &[], None),
        ("migrate", &[database], None),
        ("seed", &[database], None),
        ("seed", &[("KAFKA_BROKERS", "kafka:9092")], Some("DATABASE_URL")),
        ("token --sub a", &[("KAFKA_BROKERS", "kafka:9092")], None),
        ("token --sub a", &[("REDIS_URL", "redis://cache"), secret], None),
        ("token --sub a", &[database], Some("JWT_SECRET")),
        ("config", &[database], Some("JWT_SECRET")),
        ("dead-letters list", &[database], None),
    ] {
        let found = load(line, environment).err();
        assert_eq!(found.as_ref().map(|errors| errors.all()[0].name.as_str()), wrong, "{line} {environment:?}");
    }
    let warned = load("token --sub a", &[("KAFKA_BROKERS", "kafka:9092")]).expect("it needs no broker").warnings;
    assert!(warned[0].starts_with("KAFKA_BROKERS (from environment) has no effect without DATABASE_URL"), "{warned:?}");
}

fn token_arguments() -> TokenArguments {
    TokenArguments { sub: "alice".to_owned(), ttl: Duration::from_secs(60), key: None, alg: None, kid: None }
}

/// Checks a token at the time of its `iat`.
fn user_of(token: &str, key: &str, config: &Config) -> Result<String, AuthError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut verifier = Verifier::of_secret(&Secret::new(key), &config.auth);
    let field = format!("Bearer {token}");
    let connection = FailedChecks::default();
    verifier.verify(Some(field.as_bytes()), i64::try_from(now).unwrap(), &connection).map(|user| user.to_string())
}

#[test]
fn token_signs_with_the_setting_or_the_key_of_the_data_folder() {
    let config = load("", &[("JWT_SECRET", KEY), ("JWT_AUDIENCE", "todos")]).unwrap();
    let token = token::token(&config, &token_arguments()).unwrap();
    assert_eq!(user_of(&token, KEY, &config), Ok("alice".to_owned()));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let config = load("", &[("DATA_DIR", path)]).unwrap();
    let error = token::token(&config, &token_arguments()).unwrap_err().to_string();
    assert!(error.contains("start `million-rps` once") && error.contains("JWT_SECRET"), "{error}");
    let key = "fedcba9876543210fedcba9876543210";
    std::fs::write(Path::new(path).join(KEY_FILE_NAME), format!("{key}\n")).unwrap();
    let token = token::token(&config, &token_arguments()).unwrap();
    assert_eq!(user_of(&token, key, &config), Ok("alice".to_owned()));
    assert_eq!(user_of(&token, KEY, &config), Err(AuthError::WrongSignature));
}

#[test]
fn config_shows_values_or_documents() {
    let arguments = |line| match cli(line).chosen_command() {
        Command::Config(arguments) => arguments,
        other => panic!("{other:?}"),
    };
    let good = || load("config --shards 5", &[("JWT_SECRET", KEY)]);
    let text = settings_report::settings_report(good(), &arguments("config")).unwrap();
    assert!(text.contains("flag --shards") && !text.contains(KEY), "{text}");
    let bad = || load("config --shards 0", &[]);
    assert!(settings_report::settings_report(bad(), &arguments("config")).is_err());
    let document = |line| settings_report::settings_report(bad(), &arguments(line)).unwrap();
    assert_eq!(document("config --markdown"), markdown());
    assert_eq!(document("config --env-example"), env_example());
    assert_eq!(document("config --routes"), crate::contract::markdown());
    let limits = load("config", &[("JWT_SECRET", KEY), ("TITLE_MAX_CHARS", "77")]);
    let text = settings_report::settings_report(limits, &arguments("config --openapi")).unwrap();
    let openapi: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(openapi["components"]["schemas"]["NewTodo"]["properties"]["title"]["maxLength"], 77);
}
