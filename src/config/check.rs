//! What settings ask of each other.

use super::error::SettingError;
use super::platform::Platform;
use super::setting::Scope;
use super::values::Values;
use crate::limits::{COMMAND_OVERHEAD_BYTES, LOG_SEGMENTS_AT_LIMIT, SUBMISSION_OVERHEAD_BYTES};

/// Bytes of a body around its texts: names, quotes and braces.
const BODY_ENVELOPE_BYTES: u64 = 64;

/// What a command cannot do without, beyond what the settings ask of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requirements {
    /// The command that asks, as typed, for the error's text.
    pub command: &'static str,
    /// `DATABASE_URL` has to be set.
    pub services: bool,
    /// `JWT_SECRET` has to be set when `DATABASE_URL` is: the command checks or makes tokens.
    pub jwt_secret: bool,
    /// The command works without todos: settings that do not agree about where they are kept are no error to it.
    pub no_todos: bool,
}

/// Adds what is wrong between settings to `errors`. Runs also when single values are wrong already, so that all is said
/// at once, and takes a setting that was given wrongly as given.
pub(super) fn together(values: &Values, platform: &Platform, needs: Requirements, errors: &mut Vec<SettingError>) {
    check_deployment(values, platform, needs, errors);
    check_connections(values, platform, errors);
    check_bodies(values, errors);
    check_kafka_replicas(values, errors);
    check_kafka_security(values, errors);
    check_keys(values, errors);
}

/// Keys of others make a secret unnecessary, and what only an address has is refused without one.
fn check_keys(values: &Values, errors: &mut Vec<SettingError>) {
    // A wrong place has its own error; what would depend on it cannot be said.
    let is_wrong = values.given("JWT_JWKS").is_some() && !values.is_right("JWT_JWKS");
    let has_address = is_wrong || values.optional_text("JWT_JWKS").is_some_and(|place| place.contains("://"));
    if values.given("JWT_JWKS_CA_FILE").is_some() && !has_address {
        let problem = "is set, but JWT_JWKS is no https address, which it is about: leave it out";
        errors.push(values.error("JWT_JWKS_CA_FILE", problem));
    }
    if values.given("JWT_SECRET_PREVIOUS").is_some() && values.given("JWT_SECRET").is_none() {
        let problem = "is set without JWT_SECRET, the key that took its place: set that, too";
        errors.push(values.error("JWT_SECRET_PREVIOUS", problem));
    }
}

fn check_deployment(values: &Values, platform: &Platform, needs: Requirements, errors: &mut Vec<SettingError>) {
    let has_database = values.given("DATABASE_URL").is_some();
    if needs.services && !has_database {
        let problem = format!(
            "is not set, but `million-rps {}` works with PostgreSQL, Kafka and Redis (without them: `million-rps run`)",
            needs.command
        );
        errors.push(values.error("DATABASE_URL", problem));
    }
    let ignored = values.given_for(Scope::Services);
    if !has_database && !needs.services && !needs.no_todos && !ignored.is_empty() {
        // Else todos would go into a folder, acknowledged and durable, while whoever set these looks for them elsewhere.
        let (verb, them) = if ignored.len() == 1 { ("has", "it") } else { ("have", "them") };
        let problem = format!(
            "is not set, so todos would be kept in the folder DATA_DIR, and {} {verb} no effect: set it, or, to keep todos in the \
             folder, leave {them} out",
            ignored.join(", ")
        );
        errors.push(values.error("DATABASE_URL", problem));
    }
    if has_database && !platform.has_services {
        let problem = "is set, but this binary was built without PostgreSQL, Kafka and Redis: build it with \
                       `cargo build --release --features services`, or leave DATABASE_URL out";
        errors.push(values.error("DATABASE_URL", problem));
    }
    let has_keys = ["JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS"].iter().any(|name| values.given(name).is_some());
    if has_database && needs.jwt_secret && !has_keys {
        let problem = "is not set, but several processes have to check the same tokens when DATABASE_URL is set";
        errors.push(values.error("JWT_SECRET", problem));
    }
}

fn check_connections(values: &Values, platform: &Platform, errors: &mut Vec<SettingError>) {
    let allowed = platform.connections_max();
    if values.checked_integer("MAX_CONNECTIONS").is_some_and(|wanted| wanted > allowed) {
        let problem = format!(
            "is more than the {allowed} that fit under this process's limit of {} open files; raise it (`ulimit -Hn`, or \
             LimitNOFILE= of the unit) to at least a third more than the connections",
            platform.open_files_max
        );
        errors.push(values.error("MAX_CONNECTIONS", problem));
    }
}

/// The texts of a todo have to fit into a body, and a body into what holds it on its way.
fn check_bodies(values: &Values, errors: &mut Vec<SettingError>) {
    let Some(body) = values.checked_integer("BODY_MAX_BYTES") else { return };
    let titles = values.checked_integer("TITLE_MAX_CHARS").unwrap_or(0);
    let needed = titles + values.checked_integer("DESCRIPTION_MAX_CHARS").unwrap_or(0) + BODY_ENVELOPE_BYTES;
    if needed > body {
        let problem = format!(
            "is less than the {needed} that the longest title and description take (TITLE_MAX_CHARS, DESCRIPTION_MAX_CHARS), \
             in ASCII; four times as much holds them in any language"
        );
        errors.push(values.error("BODY_MAX_BYTES", problem));
    }
    let command = body + COMMAND_OVERHEAD_BYTES as u64;
    let shards = values.checked_integer("SHARDS").unwrap_or(1);
    for (name, needed, reason) in [
        (
            "CONNECTION_MEMORY_MAX_BYTES",
            4 * body,
            "an upload may take twice that, and what is taken counts as short from three quarters on",
        ),
        (
            "WRITE_QUEUE_BYTES",
            shards * (command + SUBMISSION_OVERHEAD_BYTES as u64),
            "each of the SHARDS has an equal part, and the largest command has to fit into it",
        ),
        (
            "LOG_MAX_BYTES",
            LOG_SEGMENTS_AT_LIMIT * command,
            "the log has four segments, and the largest command has to fit",
        ),
    ] {
        // Unless set, they fit: a machine with a thousand CPUs starts all the same.
        let is_set = values.given(name).or(values.given("BODY_MAX_BYTES")).is_some();
        if is_set && values.checked_integer(name).is_some_and(|given| given < needed) {
            let problem = format!("is too small for BODY_MAX_BYTES={body}: {reason}; take at least {needed}");
            errors.push(values.error(name, problem));
        }
    }
}

fn check_kafka_replicas(values: &Values, errors: &mut Vec<SettingError>) {
    let in_sync = values.checked_integer("KAFKA_MIN_INSYNC_REPLICAS");
    if let (Some(replicas), Some(in_sync)) = (values.checked_integer("KAFKA_REPLICATION_FACTOR"), in_sync)
        && in_sync > replicas
    {
        let problem = format!(
            "is more than KAFKA_REPLICATION_FACTOR={replicas}: no write would ever be acknowledged. Take one less than the \
             replicas, so that a broker may be away"
        );
        errors.push(values.error("KAFKA_MIN_INSYNC_REPLICAS", problem));
    }
}

fn check_kafka_security(values: &Values, errors: &mut Vec<SettingError>) {
    // A wrong protocol has its own error; what would depend on it cannot be said.
    let Some(protocol) = values.checked_choice("KAFKA_SECURITY_PROTOCOL") else { return };
    for name in ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"] {
        match (protocol.starts_with("SASL_"), values.given(name).is_some()) {
            (true, false) => {
                errors.push(values.error(name, format!("is not set, but KAFKA_SECURITY_PROTOCOL={protocol} needs it")));
            }
            (false, true) => errors.push(values.error(
                name,
                format!(
                    "is set, but KAFKA_SECURITY_PROTOCOL={protocol} does not use it: set that to SASL_SSL (or \
                     SASL_PLAINTEXT), or leave this out"
                ),
            )),
            (true, true) | (false, false) => {}
        }
    }
    if values.given("KAFKA_SSL_CA_LOCATION").is_some() && !protocol.ends_with("SSL") {
        errors.push(values.error(
            "KAFKA_SSL_CA_LOCATION",
            format!(
                "is set, but KAFKA_SECURITY_PROTOCOL={protocol} does not use TLS: set that to SSL or SASL_SSL, or leave \
                 this out"
            ),
        ));
    }
}
