//! A list in few large pieces, beside its chunks.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::chunk::Chunk;
use super::tree::Tree;
use crate::limits::FLAT_LIST_PIECE_BYTES;

/// The chunks of a list in larger pieces, which hold some neighbouring chunks each. A list that differs in few chunks shares
/// the other pieces.
pub(super) struct FlatList {
    pieces: Vec<Arc<Piece>>,
    /// Where each piece ends in the list.
    ends: Vec<u64>,
}

struct Piece {
    /// What it is made of. It holds them, so that no other chunk can come to lie at the address of one of them.
    chunks: Vec<Chunk>,
    json: Box<[u8]>,
}

impl Piece {
    fn new(chunks: &[&Chunk]) -> Piece {
        let json: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.json()).collect();
        Piece { chunks: chunks.iter().map(|chunk| (*chunk).clone()).collect(), json: json.concat().into() }
    }

    /// Whether `list` begins with the chunks of this piece.
    fn begins(&self, list: &[&Chunk]) -> bool {
        let is_same = |(own, other): (&Chunk, &&Chunk)| address(own) == address(other);
        list.len() >= self.chunks.len() && self.chunks.iter().zip(list).all(is_same)
    }
}

fn address(chunk: &Chunk) -> *const u8 {
    chunk.shared().as_ptr()
}

impl FlatList {
    /// The list of these chunks. What it shares with `previous` is not copied again.
    pub fn new(list: &Tree<Chunk>, previous: Option<&FlatList>) -> FlatList {
        let mut chunks = Vec::new();
        list.visit_from_byte(0, |chunk, _before| {
            chunks.push(chunk);
            ControlFlow::Continue(())
        });
        let known = previous.iter().flat_map(|previous| &previous.pieces);
        let known: HashMap<*const u8, &Arc<Piece>> = known.map(|piece| (address(&piece.chunks[0]), piece)).collect();
        let known_at = |at: usize| known.get(&address(chunks[at])).filter(|piece| piece.begins(&chunks[at..]));

        let mut flat = FlatList { pieces: Vec::new(), ends: Vec::new() };
        let mut at = 0;
        while at < chunks.len() {
            if let Some(piece) = known_at(at) {
                flat.push(Arc::clone(piece));
                at += piece.chunks.len();
                continue;
            }
            // What lies before the next piece that can stay, and that one too where it is but a crumb.
            let (mut end, mut bytes) = (at, 0);
            while end < chunks.len() && (bytes < FLAT_LIST_PIECE_BYTES / 4 || known_at(end).is_none()) {
                bytes += chunks[end].json().len();
                end += 1;
            }
            flat.push_new(&chunks[at..end], bytes);
            at = end;
        }
        flat
    }

    /// Copies these chunks into pieces of about the same length.
    fn push_new(&mut self, chunks: &[&Chunk], bytes: usize) {
        let count = ((bytes + FLAT_LIST_PIECE_BYTES / 2) / FLAT_LIST_PIECE_BYTES).max(1);
        let (mut begin, mut copied) = (0, 0);
        for (at, chunk) in chunks.iter().enumerate() {
            copied += chunk.json().len();
            if copied * count >= bytes || at + 1 == chunks.len() {
                self.push(Arc::new(Piece::new(&chunks[begin..=at])));
                (begin, copied) = (at + 1, 0);
            }
        }
    }

    fn push(&mut self, piece: Arc<Piece>) {
        let begin = self.ends.last().copied().unwrap_or(0);
        self.ends.push(begin + piece.json.len() as u64);
        self.pieces.push(piece);
    }

    /// Bytes of the pieces that `other` does not have.
    pub fn bytes_beside(&self, other: Option<&FlatList>) -> u64 {
        let is_shared =
            |piece: &Arc<Piece>| other.is_some_and(|other| other.pieces.iter().any(|o| Arc::ptr_eq(piece, o)));
        self.pieces.iter().filter(|piece| !is_shared(piece)).map(|piece| piece.json.len() as u64).sum()
    }

    /// The bytes from number `position` of the list on, as far as they stand together.
    pub fn rest_from(&self, position: u64) -> Option<&[u8]> {
        let at = self.ends.partition_point(|end| *end <= position);
        let piece = self.pieces.get(at)?;
        let before_end = self.ends[at] - position;
        Some(&piece.json[piece.json.len() - before_end as usize..])
    }
}

#[cfg(test)]
impl FlatList {
    /// How many of its pieces are those of the other list as well.
    pub fn shared_pieces(&self, other: &FlatList) -> usize {
        self.pieces.iter().filter(|piece| other.pieces.iter().any(|others| Arc::ptr_eq(piece, others))).count()
    }

    /// The lengths of its pieces.
    pub fn piece_lengths(&self) -> Vec<usize> {
        self.pieces.iter().map(|piece| piece.json.len()).collect()
    }
}
