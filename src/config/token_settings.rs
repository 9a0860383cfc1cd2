//! What the settings of tokens take that no other setting does.

use std::fmt;
use std::path::PathBuf;

use super::secret::ConnectionUrl;
use super::value::{Value, check_characters};

/// Longest of them, in bytes, but for keys: the limit of free texts.
const TOKEN_SETTING_MAX_BYTES: usize = 255;
/// Claims with a meaning of their own, none of which is a user.
const NO_USERS: [&str; 7] = ["exp", "nbf", "iat", "iss", "aud", "scope", "scp"];

/// Where a key set is.
#[derive(Debug, Clone)]
pub enum KeySetPlace {
    /// In this file.
    File(PathBuf),
    /// At this address, which may hold a password.
    Address(ConnectionUrl),
}

impl KeySetPlace {
    /// The place that a checked text names.
    pub(super) fn of(text: String) -> KeySetPlace {
        if text.contains("://") {
            KeySetPlace::Address(ConnectionUrl::new(text))
        } else {
            KeySetPlace::File(text.into())
        }
    }
}

impl fmt::Display for KeySetPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySetPlace::File(path) => write!(f, "the file {}", path.display()),
            KeySetPlace::Address(url) => url.fmt(f),
        }
    }
}

/// Keys as text begin like this; everything else is a path.
pub const PEM_BEGINS: &str = "-----BEGIN";

pub(super) fn check_public_key(text: &str) -> Result<Value, String> {
    let is_path = !text.contains(PEM_BEGINS);
    if is_path && text.chars().any(char::is_control) {
        return Err("is neither a key in PEM nor a path".to_owned());
    }
    if !is_path {
        crate::auth::read_public_keys(text).map_err(|reason| format!("is no public key: {reason}"))?;
    }
    Ok(Value::Text(text.to_owned()))
}

pub(super) fn check_key_set(text: &str) -> Result<Value, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        if !scheme.eq_ignore_ascii_case("https") {
            return Err("is no https address: keys that anybody on the way could replace are no keys".to_owned());
        }
        check_characters(text)?;
        if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) {
            return Err("has no host".to_owned());
        }
    } else if text.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}

pub(super) fn check_claim_name(text: &str) -> Result<Value, String> {
    if text.len() > TOKEN_SETTING_MAX_BYTES || text.chars().any(char::is_control) {
        return Err(format!("is longer than {TOKEN_SETTING_MAX_BYTES} bytes, or contains a control character"));
    }
    let path = text.strip_prefix('/');
    if path.is_some_and(|path| path.split('/').any(str::is_empty)) {
        return Err("has an empty name in its path".to_owned());
    }
    let first = path.map_or(text, |path| path.split('/').next().unwrap_or_default());
    if NO_USERS.contains(&first) {
        return Err("is a claim that names no user".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}

/// RFC 6749 section 3.3.
pub(super) fn check_scope(text: &str) -> Result<Value, String> {
    let is_allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if text.is_empty() || text.len() > TOKEN_SETTING_MAX_BYTES || !text.bytes().all(is_allowed) {
        return Err("is not one scope".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}

/// The names of a list with commas; spaces around them are not part of them.
pub(super) fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_what_is_not() {
        for (check, good, bad) in [
            (
                check_key_set as fn(&str) -> Result<Value, String>,
                &["keys.json", "/etc/keys.json", "https://a/keys", "HTTPS://a:1/b?c=d"][..],
                &["http://a/keys", "ftp://a", "https://", "https:///keys", "https://a/ b", "a\nb"][..],
            ),
            (
                check_claim_name,
                &["sub", "email", "https://a/b", "/realm/user", "/sub"],
                &["aud", "/exp/a", "/", "//a", "/a/", "a\tb"],
            ),
            (check_scope, &["todos:write", "a"], &["", "a b", "a\"b", "\u{e9}"]),
            (check_public_key, &["key.pem", "/etc/key.pem"], &["a\nb", "-----BEGIN PUBLIC KEY-----\\nAA"]),
        ] {
            good.iter().for_each(|text| assert!(check(text).is_ok(), "{text:?}"));
            bad.iter().for_each(|text| assert!(check(text).is_err(), "{text:?}"));
        }
        assert_eq!(listed("a, b,,c "), ["a", "b", "c"]);
        let shown = KeySetPlace::of("https://me:word@a/keys".to_owned()).to_string();
        assert_eq!(shown, "https://me:***@a/keys");
    }
}
