//! The kinds of values that settings have: what is allowed, how a value is checked, how it is shown.

use std::net::{IpAddr, Ipv4Addr};

use super::brokers::brokers;
use super::connection_urls;
use super::cors_origins::check_origins;
use super::log_level::{LOG_LEVELS, log_level};
use super::secret::mask_url;
use super::token_settings;
use super::value::Value;
use crate::counted::Counted;

/// A kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number from `min` to `max`.
    Integer {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// One of these, in upper or lower case.
    Choice(&'static [&'static str]),
    /// An IP address to listen on.
    Address,
    /// A text without control characters, up to 255 bytes.
    Text,
    /// A name that Kafka takes for a topic, with room for the suffix of its dead letters.
    Topic,
    /// Hosts with or without a port, several separated by commas.
    Brokers,
    /// Origins of pages, several separated by commas, or `*`.
    Origins,
    /// A log level, or several by module.
    LogLevel,
    /// A path of the file system.
    Path,
    /// Public keys in PEM, or the path of a file with them.
    PublicKey,
    /// The path of a key set, or its https address.
    KeySet,
    /// The name of a claim, or a path to one.
    ClaimName,
    /// One scope of OAuth 2.0.
    Scope,
    /// Where a PostgreSQL is: a URL, or libpq's words; its password is never shown.
    Database,
    /// The URL of a Redis; its password is never shown.
    Redis,
    /// A text that is never shown, of at least so many bytes.
    Secret {
        /// Fewest bytes.
        min_bytes: usize,
    },
}

/// Longest free text, in bytes: Kafka's own limit for names.
const TEXT_MAX_BYTES: usize = 255;
/// Kafka takes 249 characters for a topic; `.dead-letters` needs 13 of them.
const TOPIC_MAX_BYTES: usize = 249 - ".dead-letters".len();

impl Kind {
    /// Whether the value may hold something that must not be shown, nor stand on a command line, where every user of
    /// the machine can read it.
    pub fn holds_secret(self) -> bool {
        matches!(self, Kind::Secret { .. } | Kind::Database | Kind::Redis)
    }

    /// What is allowed, as a phrase.
    pub fn allowed(self) -> String {
        match self {
            Kind::Integer { min, max } => format!("{min} to {max}"),
            Kind::Choice(choices) => choices.join(", "),
            Kind::Address => "an IPv4 or IPv6 address, or localhost".to_owned(),
            Kind::Text => format!("1 to {TEXT_MAX_BYTES} bytes without control characters"),
            Kind::Topic => format!("1 to {TOPIC_MAX_BYTES} letters, digits, dots, hyphens and underscores"),
            Kind::Brokers => "host or host:port, several separated by commas; the port is 9092 unless given".to_owned(),
            Kind::Origins => "*, or origins such as https://app.example, several separated by commas".to_owned(),
            Kind::LogLevel => format!("{}; or several by module, as module=level", LOG_LEVELS.join(", ")),
            Kind::Path => "a path".to_owned(),
            Kind::PublicKey => "a path, or text with -----BEGIN PUBLIC KEY-----".to_owned(),
            Kind::KeySet => "a path, or an https:// URL".to_owned(),
            Kind::ClaimName => {
                "the name of a claim, or /names/that/lead/to/one; not exp, nbf, iat, iss, aud, scope or scp".to_owned()
            }
            Kind::Scope => "one scope, without spaces".to_owned(),
            Kind::Database => "postgres:// or postgresql:// URL, or words of the form key=value".to_owned(),
            Kind::Redis => "redis://, rediss:// or unix:// URL".to_owned(),
            Kind::Secret { min_bytes: 1 } => "any text".to_owned(),
            Kind::Secret { min_bytes } => format!("at least {min_bytes} bytes"),
        }
    }

    /// `text` as it may be shown.
    pub(super) fn shown(self, text: &str) -> String {
        match self {
            Kind::Secret { .. } => "***".to_owned(),
            Kind::Database => mask_url(&connection_urls::database_url(text).unwrap_or_else(|_| text.to_owned())),
            Kind::Redis => mask_url(text),
            Kind::KeySet if text.contains("://") => mask_url(text),
            Kind::PublicKey if text.contains("-----BEGIN") => "a key in PEM".to_owned(),
            _ => text.escape_debug().to_string(),
        }
    }

    /// Checks a given value; the error says what is wrong, without the value.
    pub(super) fn check(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Integer { min, max } => check_integer(text.trim(), min, max),
            Kind::Choice(choices) => choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text.trim()))
                .map(|choice| Value::Choice(choice))
                .ok_or_else(|| "is none of the choices".to_owned()),
            Kind::Address => check_address(text.trim()),
            Kind::Text => check_text(text),
            Kind::Topic => check_topic(text),
            Kind::Brokers => brokers(text).map(Value::Text),
            Kind::Origins => check_origins(text),
            Kind::LogLevel => log_level(text).map(Value::Text),
            Kind::PublicKey => token_settings::check_public_key(text),
            Kind::KeySet => token_settings::check_key_set(text),
            Kind::ClaimName => token_settings::check_claim_name(text),
            Kind::Scope => token_settings::check_scope(text),
            Kind::Path if text.contains('\0') => Err("contains a NUL character".to_owned()),
            Kind::Path => Ok(Value::Text(text.to_owned())),
            Kind::Database => connection_urls::database_url(text).map(Value::Text),
            Kind::Redis => connection_urls::redis_url(text).map(Value::Text),
            Kind::Secret { min_bytes } if text.len() < min_bytes => {
                Err(format!("has {}, which is too short", Counted(text.len(), "bytes")))
            }
            Kind::Secret { .. } => check_secret(text),
        }
    }
}

/// What stands around a secret is mostly not part of it, but left by the file or the script that it came from; another
/// program with the same secret would then have another key.
fn check_secret(text: &str) -> Result<Value, String> {
    if text.trim() != text {
        let remedy = "take it away, also where the other programs with this secret have it";
        return Err(format!("starts or ends with white space (a newline, perhaps): {remedy}"));
    }
    let in_quotes = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if in_quotes('"') || in_quotes('\'') {
        return Err("stands in quotes that would be part of it: leave them out".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}

fn check_integer(text: &str, min: u64, max: u64) -> Result<Value, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not a whole number".to_owned());
    }
    match text.parse() {
        Ok(number) if number < min => Err("is too small".to_owned()),
        Ok(number) if number <= max => Ok(Value::Integer(number)),
        _ => Err("is too large".to_owned()),
    }
}

fn check_address(text: &str) -> Result<Value, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Value::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(Value::Address).map_err(|_| "is not an IP address".to_owned())
}

fn check_text(text: &str) -> Result<Value, String> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(format!("has {} bytes", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}

fn check_topic(text: &str) -> Result<Value, String> {
    if text.len() > TOPIC_MAX_BYTES {
        return Err(format!("has {} bytes", text.len()));
    }
    if text == "." || text == ".." || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err("is not a topic name".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}
