//! What processes of a deployment leave in Redis for those that start while the store is away: its identity.
//!
//! A hash under a name that only they can make (of `JWT_SECRET` and `DATABASE_URL`), which lives as long as the changes. Whoever has
//! asked the store adds what it was told. Where two identities stand there, the same address means two stores, as on two
//! machines that call their database alike: then nobody relies on it.

use redis::pipe;

use super::link::Link;
use crate::feed::{Acquaintance, FeedError};
use crate::store::Identity;

/// An identity as it stands there: its name, and the key of entity tags. The other keys do not leave the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub name: String,
    pub acquaintance: Acquaintance,
}

/// Leaves the identity for others.
pub(super) fn leave(link: &mut Link, pointer: &str, identity: &Identity) {
    let (name, ttl_ms) = (identity.name(), link.changes_ttl_ms);
    let key: String =
        Acquaintance::from(identity.clone()).entity_tag_key.iter().map(|byte| format!("{byte:02x}")).collect();
    let left = link.run_plain(std::time::Duration::ZERO, |connection| {
        let mut both = pipe();
        both.atomic().cmd("HSET").arg(pointer).arg(&name).arg(&key).ignore();
        both.cmd("PEXPIRE").arg(pointer).arg(ttl_ms).ignore();
        both.query::<()>(connection)
    });
    if let Err(error) = left {
        tracing::debug!(%error, "the identity of the store was not left in Redis for others");
    }
}

/// The identity that others have left, if it is one.
pub(super) fn find(link: &mut Link, pointer: &str) -> Result<Option<Found>, FeedError> {
    let left: Vec<(String, String)> =
        link.run_plain(std::time::Duration::ZERO, |connection| redis::cmd("HGETALL").arg(pointer).query(connection))?;
    Ok(match left.as_slice() {
        [(name, key)] => parse(name, key),
        _ => None,
    })
}

fn parse(name: &str, key: &str) -> Option<Found> {
    let bytes = key.as_bytes().chunks(2).map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    let key: Vec<u8> = bytes.collect::<Option<_>>()?;
    let acquaintance = Acquaintance { entity_tag_key: key.try_into().ok()?, identity: None };
    Some(Found { name: name.to_owned(), acquaintance })
}
