//! Lists in a content coding.
//!
//! ```text
//! [   chunk   chunk   …   chunk      last chunk, as far as the page goes   ]
//! opening      shared pieces                       closing
//! ```
//! Each chunk of the list is compressed once. The encoder keeps the pieces in a tree of the snapshot's own shape, with the
//! sums of their lengths and check sums, so that after a change only what the change copied is compressed and added up
//! again. It stands beside the snapshot and not in it: a list that nobody asks for in a coding costs nothing, and all of it
//! is gone with the encoder.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use super::Snapshot;
use super::chunk::Chunk;
use super::codec::{Codec, Plain};
use super::tree::{Content, Node};
use crate::http::Coding;
use crate::limits::{ENCODED_WHOLE_MAX_BYTES, ENCODING_MIN_BYTES};

/// Turns pages of one snapshot after the other into one coding.
pub struct Encoder {
    coding: Coding,
    codec: Codec,
    /// By the address of what they encode, which each of them keeps from being used again.
    pub(super) nodes: HashMap<usize, Arc<EncodedNode>>,
}

impl Encoder {
    /// For a coding that compresses.
    pub fn new(coding: Coding) -> Encoder {
        Encoder { coding, codec: Codec::new(coding), nodes: HashMap::new() }
    }

    /// The first todos of the list, `limit` at most, in this encoder's coding; `None` when that does not pay.
    pub fn encode(&mut self, snapshot: &Snapshot, limit: Option<usize>) -> Option<EncodedBody> {
        let page = snapshot.page(None, limit);
        if page.content_length < ENCODING_MIN_BYTES {
            return None;
        }
        let body = if page.content_length <= ENCODED_WHOLE_MAX_BYTES {
            let mut plain = Vec::with_capacity(page.content_length as usize);
            let mut run = page.body;
            run.take_pieces(snapshot, |piece| {
                plain.extend_from_slice(piece);
                true
            });
            EncodedBody::new(self.coding, self.codec.whole(&plain), None, Vec::new())
        } else {
            self.encode_pieces(snapshot, page.content_length - 2)
        };
        (body.len() < page.content_length).then_some(body)
    }

    /// The first `end` bytes of the list, between brackets.
    fn encode_pieces(&mut self, snapshot: &Snapshot, end: u64) -> EncodedBody {
        let (opening, mut plain) = self.codec.opening(b"[");
        let mut chunks = None;
        let mut before = Sum::default();
        if let Some(root) = snapshot.todos.root() {
            let tree = self.node(&root.content);
            before = tree.sum_of_whole_until(end, &self.codec);
            plain = self.codec.join(plain, before.plain);
            self.forget_others(&tree);
            chunks = Some((tree, before.encoded_bytes));
        }
        let mut rest = Vec::new();
        let mut last = super::Run::bare(before.plain.bytes, end);
        last.take_pieces(snapshot, |piece| {
            rest.extend_from_slice(piece);
            true
        });
        rest.push(b']');
        EncodedBody::new(self.coding, opening, chunks, self.codec.closing(plain, &rest))
    }

    /// The encoded form of a part of the list: at hand, or made now from what is at hand of it.
    fn node(&mut self, content: &Content<Chunk>) -> Arc<EncodedNode> {
        let source = Source::of(content);
        if let Some(known) = self.nodes.get(&source.address()) {
            return Arc::clone(known);
        }
        let address = source.address();
        let node = match content {
            Content::Leaf(chunk) => {
                let (bytes, plain) = self.codec.piece(chunk.json());
                let sum = Sum { encoded_bytes: bytes.len() as u64, plain };
                EncodedNode { sum, nodes: 1, content: EncodedContent::Piece(bytes.into()), source }
            }
            Content::Branch(children) => {
                let children: Box<[_]> = children.iter().map(|child| self.node(&child.content)).collect();
                let sum = children.iter().fold(Sum::default(), |sum, child| sum.then(child.sum, &self.codec));
                let nodes = 1 + children.iter().map(|child| child.nodes).sum::<usize>();
                EncodedNode { sum, nodes, content: EncodedContent::Branch(children), source }
            }
        };
        let node = Arc::new(node);
        self.nodes.insert(address, Arc::clone(&node));
        node
    }

    /// Lets go of what is no part of this tree, once that is more than the tree: then it costs no more than what made it.
    fn forget_others(&mut self, tree: &Arc<EncodedNode>) {
        if self.nodes.len() > 2 * tree.nodes {
            self.nodes.clear();
            self.keep(tree);
        }
    }

    fn keep(&mut self, node: &Arc<EncodedNode>) {
        self.nodes.insert(node.source.address(), Arc::clone(node));
        if let EncodedContent::Branch(children) = &node.content {
            children.iter().for_each(|child| self.keep(child));
        }
    }
}

/// What some pieces amount to.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    encoded_bytes: u64,
    plain: Plain,
}

impl Sum {
    fn then(self, next: Sum, codec: &Codec) -> Sum {
        Sum { encoded_bytes: self.encoded_bytes + next.encoded_bytes, plain: codec.join(self.plain, next.plain) }
    }
}

/// What a node encodes. While this lives, nothing else has its address.
enum Source {
    Chunk(Weak<[u8]>),
    Branch(Weak<[Node<Chunk>]>),
}

impl Source {
    fn of(content: &Content<Chunk>) -> Source {
        match content {
            Content::Leaf(chunk) => Source::Chunk(Arc::downgrade(chunk.shared())),
            Content::Branch(children) => Source::Branch(Arc::downgrade(children)),
        }
    }

    fn address(&self) -> usize {
        match self {
            Source::Chunk(chunk) => chunk.as_ptr().cast::<u8>().addr(),
            Source::Branch(children) => children.as_ptr().cast::<u8>().addr(),
        }
    }
}

pub(super) struct EncodedNode {
    sum: Sum,
    /// Number of nodes, with this one.
    nodes: usize,
    content: EncodedContent,
    source: Source,
}

enum EncodedContent {
    Piece(Box<[u8]>),
    Branch(Box<[Arc<EncodedNode>]>),
}

impl EncodedNode {
    /// The sum over the pieces that lie wholly in the first `end` bytes of the list.
    fn sum_of_whole_until(&self, end: u64, codec: &Codec) -> Sum {
        if self.sum.plain.bytes <= end {
            return self.sum;
        }
        let EncodedContent::Branch(children) = &self.content else { return Sum::default() };
        let mut sum = Sum::default();
        for child in children {
            let rest = end - sum.plain.bytes;
            sum = sum.then(child.sum_of_whole_until(rest, codec), codec);
            if child.sum.plain.bytes > rest {
                break;
            }
        }
        sum
    }

    /// Visits the pieces from the one that holds byte number `position` on, each from that byte, until `visit` breaks.
    fn visit_from<'n>(
        &'n self,
        mut position: u64,
        visit: &mut impl FnMut(&'n [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match &self.content {
            EncodedContent::Piece(bytes) => visit(&bytes[position as usize..]),
            EncodedContent::Branch(children) => {
                for child in children {
                    if position < child.sum.encoded_bytes {
                        child.visit_from(position, visit)?;
                        position = 0;
                    } else {
                        position -= child.sum.encoded_bytes;
                    }
                }
                ControlFlow::Continue(())
            }
        }
    }
}

/// A page in a coding. It shares its pieces with the encoder and with the pages of other snapshots.
pub struct EncodedBody {
    coding: Coding,
    opening: Box<[u8]>,
    /// The pieces, and how many of their bytes are of this page.
    chunks: Option<(Arc<EncodedNode>, u64)>,
    closing: Box<[u8]>,
}

impl EncodedBody {
    fn new(coding: Coding, opening: Vec<u8>, chunks: Option<(Arc<EncodedNode>, u64)>, closing: Vec<u8>) -> EncodedBody {
        EncodedBody { coding, opening: opening.into(), chunks, closing: closing.into() }
    }

    /// Its coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Bytes of it.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> u64 {
        self.opening.len() as u64 + self.chunks_bytes() + self.closing.len() as u64
    }

    fn chunks_bytes(&self) -> u64 {
        self.chunks.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    /// Gives `take` the pieces from byte number `position` on, and moves it over them, until `take` returns false or all are
    /// taken. No piece is empty.
    pub fn take_pieces<'b>(&'b self, position: &mut u64, mut take: impl FnMut(&'b [u8]) -> bool) {
        let chunks_start = self.opening.len() as u64;
        let closing_start = chunks_start + self.chunks_bytes();
        if *position < chunks_start {
            let piece = &self.opening[*position as usize..];
            *position = chunks_start;
            if !take(piece) {
                return;
            }
        }
        let mut goes_on = true;
        if let Some((tree, _)) = &self.chunks
            && *position < closing_start
        {
            let _ = tree.visit_from(*position - chunks_start, &mut |piece| {
                *position += piece.len() as u64;
                goes_on = take(piece);
                if goes_on && *position < closing_start { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        if goes_on && *position < self.len() {
            let piece = &self.closing[(*position - closing_start) as usize..];
            *position = self.len();
            take(piece);
        }
    }
}
