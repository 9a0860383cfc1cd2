//! Encoded pages against their plain bytes, by other decoders than those of the libraries that encode, where there are.

use proptest::prelude::*;

use super::codec::{Codec, Plain};
use super::*;
use crate::http::Coding;
use crate::limits::{ENCODED_WHOLE_MAX_BYTES, ENCODING_MIN_BYTES};
use crate::todo::Timestamp;

fn todo(id: u128, created_at_micros: i64, description: String) -> Todo {
    Todo {
        id: TodoId::from_u128(id),
        title: format!("todo {id}"),
        description,
        completed: id.is_multiple_of(3),
        user_id: "user".to_owned(),
        created_at: Timestamp::from_micros(created_at_micros),
        updated_at: Timestamp::from_micros(created_at_micros + 1),
    }
}

fn plain(snapshot: &Snapshot, limit: Option<usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut body = snapshot.page(None, limit).body;
    body.take_pieces(snapshot, |piece| {
        bytes.extend_from_slice(piece);
        true
    });
    bytes
}

/// One member, one stream, or any number of frames, and nothing behind them.
fn decoded(coding: Coding, mut encoded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Coding::Identity => plain.extend_from_slice(encoded),
        Coding::Gzip => {
            // miniz, not zlib: another implementation than the one that compresses.
            assert_eq!(encoded[..3], [0x1f, 0x8b, 8]);
            let (body, end) = encoded[10..].split_at(encoded.len() - 18);
            plain = miniz_oxide::inflate::decompress_to_vec(body).expect("one deflate stream");
            assert_eq!(end[..4], crc32fast::hash(&plain).to_le_bytes());
            assert_eq!(end[4..], (plain.len() as u32).to_le_bytes());
        }
        Coding::Brotli => {
            brotli::BrotliDecompress(&mut encoded, &mut plain).expect("one brotli stream");
            assert!(encoded.is_empty());
        }
        Coding::Zstd => plain = zstd::stream::decode_all(encoded).expect("frames"),
    }
    plain
}

fn collected(body: &EncodedBody) -> Vec<u8> {
    let (mut bytes, mut position) = (Vec::new(), 0);
    body.take_pieces(&mut position, |piece| {
        assert!(!piece.is_empty());
        bytes.extend_from_slice(piece);
        true
    });
    assert_eq!(position, body.len());
    bytes
}

fn check(encoder: &mut Encoder, coding: Coding, snapshot: &Snapshot, limit: Option<usize>) {
    let plain = plain(snapshot, limit);
    let Some(body) = encoder.encode(snapshot, limit) else {
        assert!((plain.len() as u64) < ENCODING_MIN_BYTES, "{coding:?} does not pay for {} bytes", plain.len());
        return;
    };
    assert_eq!(body.coding(), coding);
    let bytes = collected(&body);
    assert_eq!(bytes.len() as u64, body.len());
    assert!(decoded(coding, &bytes) == plain, "{coding:?} {limit:?}");

    // Piece by piece, and from any place within one.
    let mut position = 0;
    while position < body.len() {
        let from = position as usize;
        body.take_pieces(&mut position, |piece| {
            assert!(bytes[from..].starts_with(piece));
            false
        });
        let mut within = (from as u64 + position) / 2;
        let start = within as usize;
        body.take_pieces(&mut within, |piece| {
            assert!(bytes[start..].starts_with(piece));
            false
        });
        assert_eq!(within, position);
    }
}

fn list(len: u128, description: usize) -> Snapshot {
    let upserts = (0..len).map(|id| todo(id, id as i64 * 7, "word ".repeat(description))).collect();
    Snapshot::empty(HashKeys::new(&[1; 32])).apply([&Changes { upserts, deletes: Vec::new() }])
}

#[test]
fn pages_of_all_sizes_decode_to_their_plain_bytes() {
    let snapshot = list(2000, 20);
    assert!(plain(&snapshot, None).len() as u64 > 10 * ENCODED_WHOLE_MAX_BYTES);
    for coding in Coding::COMPRESSED {
        let mut encoder = Encoder::new(coding);
        for limit in [Some(1), Some(10), Some(100), Some(120), Some(500), Some(1999), Some(2000), None] {
            check(&mut encoder, coding, &snapshot, limit);
        }
        check(&mut encoder, coding, &Snapshot::empty(HashKeys::new(&[1; 32])), None);
        check(&mut encoder, coding, &list(3, 10_000), None);
    }
}

#[test]
fn what_did_not_change_is_not_compressed_again() {
    let mut encoder = Encoder::new(Coding::Gzip);
    let mut snapshot = list(20_000, 5);
    encoder.encode(&snapshot, None).expect("it pays");
    let nodes = encoder.nodes.len();
    for round in 0..2_000u128 {
        let changed = todo(round * 9 + 1, round as i64 * 63 + 7, format!("changed {round}"));
        snapshot = snapshot.apply([&Changes { upserts: vec![changed], deletes: Vec::new() }]);
        let before = encoder.nodes.len();
        encoder.encode(&snapshot, None).expect("it pays");
        assert!(encoder.nodes.len() <= before + 12, "one chunk and its branches");
        assert!(encoder.nodes.len() <= 2 * nodes + 100, "what is no longer in the list is forgotten");
    }
    check(&mut encoder, Coding::Gzip, &snapshot, None);
}

#[test]
fn pieces_may_stand_in_any_order() {
    let texts: Vec<Vec<u8>> = (0..9usize)
        .map(|number| {
            format!("{{\"number\":{number},\"text\":\"the time of the people\"}},").repeat(1 + number * 40).into()
        })
        .chain([vec![b'x'], (0..70_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()])
        .collect();
    for coding in Coding::COMPRESSED {
        let mut codec = Codec::new(coding);
        for shift in 0..texts.len() {
            let (mut encoded, mut sum) = codec.opening(b"[");
            let mut expected = b"[".to_vec();
            for text in texts.iter().cycle().skip(shift).step_by(4).take(2 * texts.len()) {
                let (bytes, plain) = codec.piece(text);
                encoded.extend(bytes);
                sum = codec.join(sum, plain);
                expected.extend_from_slice(text);
            }
            encoded.extend(codec.closing(sum, b"end]"));
            expected.extend_from_slice(b"end]");
            assert!(decoded(coding, &encoded) == expected, "{coding:?} {shift}");
        }
        assert_eq!(decoded(coding, &codec.whole(b"")), b"");
    }
    let (left, right) = (crc32fast::hash(b"left"), crc32fast::hash(b"right"));
    let joined = Plain { crc32: left, bytes: 4 }.then(Plain { crc32: right, bytes: 5 });
    assert_eq!(joined, Plain { crc32: crc32fast::hash(b"leftright"), bytes: 9 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn encoded_lists_follow_random_edits(
        batches in prop::collection::vec(
            prop::collection::vec((0..400u128, 0..3i64, 0..60usize, any::<bool>()), 1..150), 1..12),
        limit in 1..500usize,
    ) {
        let mut snapshot = list(300, 30);
        let mut encoders = Coding::COMPRESSED.map(|coding| (coding, Encoder::new(coding)));
        for batch in batches {
            let mut changes = Changes { upserts: Vec::new(), deletes: Vec::new() };
            for (id, moved, size, is_delete) in batch {
                let todo = todo(id, id as i64 * 7 + moved, "né ".repeat(size));
                if is_delete {
                    changes.deletes.push(todo.key());
                } else {
                    changes.upserts.push(todo);
                }
            }
            snapshot = snapshot.apply([&changes]);
            for (coding, encoder) in &mut encoders {
                check(encoder, *coding, &snapshot, None);
                check(encoder, *coding, &snapshot, Some(limit));
            }
        }
    }
}
