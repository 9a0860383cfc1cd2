//! The identity of a command log.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What tells a log from every other one, also from one that is made anew under its name: Kafka's id of the topic, or a random
/// number in the folder of the embedded log. Written as Kafka's tools write it (`kafka-topics.sh --describe`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogId(u128);

impl LogId {
    /// The id with these bits; `None` for zero, by which brokers say that a topic has none.
    pub fn from_bits(bits: u128) -> Option<LogId> {
        (bits != 0).then_some(LogId(bits))
    }

    /// Its bits.
    pub fn bits(self) -> u128 {
        self.0
    }

    /// Both halves of its bits, the higher first, as databases keep numbers.
    pub fn halves(self) -> [i64; 2] {
        [(self.0 >> 64) as i64, self.0 as i64]
    }

    /// The id with these halves.
    pub fn from_halves([high, low]: [i64; 2]) -> Option<LogId> {
        LogId::from_bits(u128::from(high as u64) << 64 | u128::from(low as u64))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// Why nothing of a log is applied, and the two ways on.
const REMEDY: &str = "By these offsets its first commands would count as applied, so nothing of it is applied. If the \
                      settings lead to the wrong log, correct them. If the store is to follow this one from now on, run \
                      `million-rps migrate --from-beginning`, which has all of it applied, or `--from-end`, which has none";

/// How a rejected log is looked at again: the rows are those that the store notes rejected logs in. Not by itself, because a log
/// that was made anew and has grown looks the same.
const LOOK_AGAIN: &str = "run DELETE FROM applied_offsets WHERE partition BETWEEN -999999 AND -4";

/// The log is not the one whose offsets the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnotherLog {
    /// By its id.
    #[error(
        "the store holds the offsets of another command log (id {followed}) than this one (id {found}), which was made anew, \
         or is another deployment's. {REMEDY}"
    )]
    Unfollowed {
        /// The log that is there.
        found: LogId,
        /// The log whose offsets the store holds.
        followed: LogId,
    },
    /// By its end. The store does not know whose offsets it holds: a version noted them that took down no ids.
    #[error(
        "this command log (id {found}) is not the one whose offsets the store holds: when a worker first looked, it ended \
         before them. It was made anew, has lost records, or is another deployment's. {REMEDY}. If it is the right one, and was \
         too short for a moment only, as when a broker answered that was behind, {LOOK_AGAIN}, and it is looked at again"
    )]
    Rejected {
        /// The log that is there, however long it is by now.
        found: LogId,
    },
}

/// The logs that a store knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownLogs {
    /// The one whose offsets it holds; `None` when that is not noted yet.
    pub followed: Option<LogId>,
    /// Those that ended before its offsets while nothing else was known of them.
    pub rejected: Vec<LogId>,
}

impl KnownLogs {
    /// Makes sure that the offsets may be of this log.
    ///
    /// # Errors
    /// [`AnotherLog`]: they are not.
    pub fn admit(&self, found: LogId) -> Result<(), AnotherLog> {
        match self.followed {
            Some(followed) if followed == found => Ok(()),
            Some(followed) => Err(AnotherLog::Unfollowed { found, followed }),
            None if self.rejected.contains(&found) => Err(AnotherLog::Rejected { found }),
            None => Ok(()),
        }
    }
}

/// The text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 22 digits of base 64")]
pub struct NoLogId;

impl FromStr for LogId {
    type Err = NoLogId;

    fn from_str(text: &str) -> Result<LogId, NoLogId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoLogId)?;
        bytes.try_into().ok().and_then(|bytes| LogId::from_bits(u128::from_be_bytes(bytes))).ok_or(NoLogId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_rejected_stays_so_until_the_store_follows_one() {
        let [one, other, third] = [1, 2, 3].map(|bits| LogId::from_bits(bits).expect("not zero"));
        let mut known = KnownLogs::default();
        assert_eq!(known.admit(one), Ok(()));
        known.rejected = vec![one, third];
        assert_eq!(known.admit(one), Err(AnotherLog::Rejected { found: one }));
        assert_eq!(known.admit(other), Ok(()), "as when wrong settings have been corrected");
        known.followed = Some(one);
        assert_eq!(known.admit(one), Ok(()));
        let another = known.admit(other).expect_err("not followed");
        assert_eq!(another, AnotherLog::Unfollowed { found: other, followed: one });
        for refused in [another, AnotherLog::Rejected { found: other }] {
            let text = refused.to_string();
            assert!(text.contains("migrate --from-beginning") && text.contains(&other.to_string()), "{text}");
        }
    }

    #[test]
    fn an_id_comes_back_from_its_text_and_from_its_halves() {
        for bits in [1, 1 << 63, 1 << 64, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            let id = LogId::from_bits(bits).expect("not zero");
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(LogId::from_halves(id.halves()), Some(id));
        }
        assert_eq!(LogId::from_bits(0), None);
        for no_id in ["", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAA/w", "id"] {
            assert_eq!(no_id.parse::<LogId>(), Err(NoLogId), "{no_id}");
        }
    }
}
