//! The value of one setting, once it has passed its check.

use std::net::IpAddr;

/// A value that passed its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Integer(u64),
    Choice(&'static str),
    Address(IpAddr),
    Text(String),
}

/// What no URL may have; the drivers know the rest.
///
/// # Errors
/// There is such a character.
pub(super) fn check_characters(url: &str) -> Result<(), String> {
    match url.chars().any(|c| c.is_control() || c == ' ') {
        true => Err("contains a space or a control character; write it percent-encoded".to_owned()),
        false => Ok(()),
    }
}
