//! The bytes of one record.
//!
//! ```text
//! byte  0  length of what follows the checksum   u32
//!       4  CRC-32C of the length and what follows the checksum   u32
//!       8  offset                                i64
//!      16  logged at, microseconds since 1970    i64
//!      24  length of the key                     u32
//!      28  key, then payload
//! ```
//! Numbers are little-endian. The offset is part of it so that a record can be told from the same bytes at another
//! place, and the length is under the checksum so that a damaged length is noticed as such.

use crate::command_log::{Offset, Record};
use crate::limits::LOG_RECORD_MAX_BYTES;
use crate::todo::Timestamp;

/// Bytes before the key.
pub const HEADER_BYTES: usize = 28;
const CHECKED_FROM: usize = 8;

/// Appends one record to `out`.
///
/// # Errors
/// Its size in bytes, when that is above [`LOG_RECORD_MAX_BYTES`]; `out` is as before.
pub fn encode(
    out: &mut Vec<u8>,
    offset: Offset,
    logged_at: Timestamp,
    key: &[u8],
    payload: &[u8],
) -> Result<(), usize> {
    let size = HEADER_BYTES + key.len() + payload.len();
    if size > LOG_RECORD_MAX_BYTES {
        return Err(size);
    }
    let start = out.len();
    out.extend_from_slice(&((size - CHECKED_FROM) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&logged_at.as_micros().to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(payload);
    let checksum = checksum(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[CHECKED_FROM..])
}

/// A record within a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// Its offset.
    pub offset: Offset,
    /// When it was logged.
    pub logged_at: Timestamp,
    /// Its key.
    pub key: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// The bytes that it takes in the buffer.
    pub size: usize,
}

impl Encoded<'_> {
    /// The record with bytes of its own.
    pub fn to_record(&self) -> Record {
        Record {
            offset: self.offset,
            logged_at: self.logged_at,
            key: self.key.to_vec(),
            payload: self.payload.to_vec(),
        }
    }
}

/// Why there is no record at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The buffer ends before the record does.
    #[error("the record has {needed} bytes, but only {available} are there")]
    Incomplete {
        /// Bytes that have to be there, as far as can be told.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// The length is one that no record has.
    #[error("no record is {0} bytes long")]
    Length(usize),
    /// The bytes are not those that were written.
    #[error("the checksum does not fit")]
    Checksum,
}

/// Reads the record at the start of `bytes`.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Encoded<'_>, DecodeError> {
    let available = bytes.len();
    if available < HEADER_BYTES {
        return Err(DecodeError::Incomplete { needed: HEADER_BYTES, available });
    }
    let size = (read_u32(bytes, 0) as usize).saturating_add(CHECKED_FROM);
    if !(HEADER_BYTES..=LOG_RECORD_MAX_BYTES).contains(&size) {
        return Err(DecodeError::Length(size));
    }
    let Some(record) = bytes.get(..size) else {
        return Err(DecodeError::Incomplete { needed: size, available });
    };
    if read_u32(bytes, 4) != checksum(record) {
        return Err(DecodeError::Checksum);
    }
    let key_length = read_u32(bytes, 24) as usize;
    let (key, payload) = record[HEADER_BYTES..].split_at_checked(key_length).ok_or(DecodeError::Checksum)?;
    Ok(Encoded {
        offset: read_i64(bytes, 8),
        logged_at: Timestamp::from_micros(read_i64(bytes, 16)),
        key,
        payload,
        size,
    })
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn read_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Whether a whole record with an offset above `offset` begins anywhere in `bytes`.
///
/// Payloads are JSON, which has no zero bytes, while every offset below 2^56 has one: no payload can look like a record.
pub fn holds_record_after(bytes: &[u8], offset: Offset) -> bool {
    let most_records = (bytes.len() / HEADER_BYTES) as Offset;
    let plausible = offset + 1..=offset + 1 + most_records;
    // The offset is compared first: it rules out nearly every place without a checksum over what follows.
    bytes
        .windows(HEADER_BYTES)
        .enumerate()
        .any(|(at, header)| plausible.contains(&read_i64(header, 8)) && decode(&bytes[at..]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_above_the_limit_is_refused() {
        let mut out = b"before".to_vec();
        let most = LOG_RECORD_MAX_BYTES - HEADER_BYTES - 3;
        assert_eq!(
            encode(&mut out, 0, Timestamp::default(), b"key", &vec![b'x'; most + 1]),
            Err(LOG_RECORD_MAX_BYTES + 1)
        );
        assert_eq!(out, b"before");
        assert_eq!(encode(&mut out, 0, Timestamp::default(), b"key", &vec![b'x'; most]), Ok(()));
        assert_eq!(decode(&out[6..]).expect("whole").size, LOG_RECORD_MAX_BYTES);
    }

    #[test]
    fn every_wrong_bit_is_noticed() {
        let mut out = Vec::new();
        encode(&mut out, 7, Timestamp::from_micros(9), b"key", b"{\"action\":\"delete\"}").expect("small");
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&out).is_err(), "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..out.len() {
            assert!(matches!(decode(&out[..length]), Err(DecodeError::Incomplete { .. })), "{length} bytes");
        }
    }

    #[test]
    fn a_later_record_is_found_behind_damage() {
        let mut out = b"damage".to_vec();
        encode(&mut out, 7, Timestamp::default(), b"key", b"payload").expect("small");
        assert!(holds_record_after(&out, 6));
        assert!(!holds_record_after(&out, 7), "an old record is no later one");
        out.pop();
        assert!(!holds_record_after(&out, 6), "a torn record is no record");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            offset in 0i64..i64::MAX,
            micros in Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros(),
            key: Vec<u8>,
            payload: Vec<u8>,
            behind: Vec<u8>,
        ) {
            let mut out = Vec::new();
            let logged_at = Timestamp::from_micros(micros);
            encode(&mut out, offset, logged_at, &key, &payload).expect("small");
            let size = out.len();
            out.extend_from_slice(&behind);
            let expected = Encoded { offset, logged_at, key: &key, payload: &payload, size };
            prop_assert_eq!(decode(&out), Ok(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = holds_record_after(&bytes, 0);
        }
    }
}
