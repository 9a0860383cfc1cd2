//! What is sent: slices, and what keeps them alive until the kernel is done with them.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

/// Most pieces that are added to one send.
pub const PIECES_MAX: usize = 512;

/// What sendmsg(2) takes (`UIO_MAXIOV` of Linux).
const MESSAGE_PIECES_MAX: usize = 1024;

const _: () = assert!(PIECES_MAX <= MESSAGE_PIECES_MAX);

/// What keeps the bytes of pieces where they are. To count a reference is all that is done with it, so it costs no call that the
/// compiler does not know; only the last one that lets go of an owner frees it by its table.
enum Kept {
    Bytes(Rc<[u8]>),
    Owner(Rc<dyn Any>),
}

impl Kept {
    fn address(&self) -> *const () {
        match self {
            Kept::Bytes(bytes) => Rc::as_ptr(bytes).cast(),
            Kept::Owner(owner) => Rc::as_ptr(owner).cast(),
        }
    }
}

/// The pieces of one send, in their order.
///
/// They point into the text that they were begun with, which is not changed between [`Pieces::begin`] and [`Pieces::end`], or
/// into bytes that somebody shares, who is kept as long. To move the pieces moves no byte that they point to.
#[derive(Default)]
pub struct Pieces {
    pieces: Vec<libc::iovec>,
    /// Pieces before this one have been sent.
    sent_pieces: usize,
    text: Vec<u8>,
    kept: Vec<Kept>,
    /// What the kernel is given for the pieces.
    header: Option<libc::msghdr>,
    total_bytes: usize,
    bytes_max: usize,
}

impl Pieces {
    /// Begins with the text that pieces may be ranges of. No further piece is added when there are [`PIECES_MAX`] or
    /// `bytes_max` bytes of them.
    pub fn begin(&mut self, text: Vec<u8>, bytes_max: usize) {
        debug_assert!(self.pieces.is_empty() && self.kept.is_empty(), "the last send has ended");
        // Else pieces would outlive their text.
        self.end();
        self.text = text;
        self.bytes_max = bytes_max;
    }

    /// Lets go of everything, and gives the text back.
    pub fn end(&mut self) -> Vec<u8> {
        self.pieces.clear();
        self.kept.clear();
        self.sent_pieces = 0;
        self.total_bytes = 0;
        std::mem::take(&mut self.text)
    }

    /// Whether a further piece may be added.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.pieces.len() < PIECES_MAX && self.total_bytes < self.bytes_max
    }

    #[inline]
    fn push(&mut self, piece: *const [u8]) {
        self.total_bytes += piece.len();
        self.pieces.push(libc::iovec { iov_base: piece.cast::<u8>().cast_mut().cast(), iov_len: piece.len() });
    }

    /// Adds a part of the text.
    #[inline]
    pub fn push_text(&mut self, range: Range<usize>) {
        let piece = &raw const self.text[range];
        self.push(piece);
    }

    /// Adds the first `length` bytes of a buffer that others share.
    #[inline]
    pub fn push_bytes(&mut self, bytes: Rc<[u8]>, length: usize) {
        self.push(&raw const bytes[..length]);
        self.kept.push(Kept::Bytes(bytes));
    }

    /// Adds what `push_each` finds in `owner`, which is kept. No piece can be of anything else, because `push_each` has to do for
    /// any lifetime of the owner.
    pub fn push_of<T: 'static>(
        &mut self,
        owner: &Rc<T>,
        push_each: impl for<'owner> FnOnce(&'owner T, &mut PiecesOf<'_, 'owner>),
    ) {
        let address = Rc::as_ptr(owner).cast();
        if self.kept.last().is_none_or(|last| last.address() != address) {
            // Before its pieces, in case of a panic.
            self.kept.push(Kept::Owner(Rc::<T>::clone(owner)));
        }
        push_each(owner, &mut PiecesOf { pieces: self, owner: PhantomData });
    }

    /// Bytes of memory that it holds for itself alone.
    pub fn held_bytes(&self) -> usize {
        self.text.capacity()
            + self.pieces.capacity() * size_of::<libc::iovec>()
            + self.kept.capacity() * size_of::<Kept>()
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of all pieces.
    #[inline]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Whether everything has been sent.
    #[inline]
    pub fn is_sent(&self) -> bool {
        self.sent_pieces == self.pieces.len()
    }

    /// The pieces that have not been sent, or what is left of them.
    pub fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: what the pieces point to is there and unchanged as long as this is, see above, and no longer is what is lent.
        let slice = |piece: &libc::iovec| unsafe { std::slice::from_raw_parts(piece.iov_base.cast(), piece.iov_len) };
        self.pieces[self.sent_pieces..].iter().map(slice)
    }

    /// The piece that is left, if there is one: a plain send costs less than one of a message.
    #[inline]
    pub(crate) fn single_piece(&self) -> Option<libc::iovec> {
        (self.sent_pieces + 1 == self.pieces.len()).then(|| self.pieces[self.sent_pieces])
    }

    /// The pieces that are left, as a message for sendmsg(2). It is good until the pieces are changed, moves with them, and
    /// points into memory that does not.
    pub(crate) fn message(&mut self) -> *const libc::msghdr {
        let unsent = &mut self.pieces[self.sent_pieces..];
        // SAFETY: a header of zeros is valid: no name, no pieces, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = unsent.as_mut_ptr();
        header.msg_iovlen = unsent.len();
        self.header.insert(header)
    }

    /// Bytes of the pieces that are left.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.pieces[self.sent_pieces..].iter().map(|piece| piece.iov_len).sum()
    }

    /// Notes that `sent` more bytes have left.
    pub fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let piece = &mut self.pieces[self.sent_pieces];
            if sent < piece.iov_len {
                // SAFETY: `sent` is less than the piece's length, so the new base is within the same allocation.
                piece.iov_base = unsafe { piece.iov_base.cast::<u8>().add(sent) }.cast();
                piece.iov_len -= sent;
                return;
            }
            sent -= piece.iov_len;
            self.sent_pieces += 1;
        }
    }
}

/// Takes pieces of one owner; see [`Pieces::push_of`].
pub struct PiecesOf<'pieces, 'owner> {
    pieces: &'pieces mut Pieces,
    /// Neither longer nor shorter than this.
    owner: PhantomData<Cell<&'owner [u8]>>,
}

impl<'owner> PiecesOf<'_, 'owner> {
    /// Adds a piece, and returns whether there is room for another.
    #[inline]
    pub fn push(&mut self, piece: &'owner [u8]) -> bool {
        self.pieces.push(piece);
        self.pieces.has_room()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsent(pieces: &Pieces) -> Vec<&[u8]> {
        pieces.unsent().collect()
    }

    #[test]
    fn pieces_of_all_kinds_stand_in_their_order_and_leave_bit_by_bit() {
        let owner = Rc::new(vec![b"one".to_vec(), b"two".to_vec()]);
        let bytes: Rc<[u8]> = b"shared".as_slice().into();
        let mut pieces = Pieces::default();
        pieces.begin(b"a text".to_vec(), usize::MAX);
        pieces.push_text(2..6);
        pieces.push_bytes(Rc::clone(&bytes), 5);
        for _ in 0..2 {
            pieces.push_of(&owner, |owner, pieces| assert!(owner.iter().all(|piece| pieces.push(piece))));
        }
        let moved = Box::new(pieces);
        assert_eq!(unsent(&moved), [b"text".as_slice(), b"share", b"one", b"two", b"one", b"two"]);
        assert_eq!((moved.len(), moved.total_bytes(), moved.unsent_bytes()), (6, 21, 21));
        assert_eq!((Rc::strong_count(&owner), Rc::strong_count(&bytes)), (2, 2), "an owner is kept once");
        let mut pieces = moved;
        pieces.advance(6);
        assert_eq!(unsent(&pieces), [b"are".as_slice(), b"one", b"two", b"one", b"two"]);
        pieces.advance(12);
        assert_eq!(pieces.single_piece().map(|piece| piece.iov_len), Some(3));
        assert!(!pieces.is_sent());
        pieces.advance(3);
        assert!(pieces.is_sent());
        assert_eq!(pieces.end(), b"a text");
        assert_eq!((Rc::strong_count(&owner), Rc::strong_count(&bytes)), (1, 1));
    }

    #[test]
    fn the_piece_that_makes_it_full_is_the_last() {
        let owner = Rc::new(vec![0; 2 * PIECES_MAX]);
        let mut pieces = Pieces::default();
        pieces.begin(Vec::new(), 10);
        pieces.push_of(&owner, |owner, pieces| {
            assert!(pieces.push(&owner[..9]));
            assert!(!pieces.push(&owner[..9]));
        });
        pieces.end();
        pieces.begin(Vec::new(), usize::MAX);
        pieces.push_of(&owner, |owner, pieces| {
            let taken = owner.chunks(1).take_while(|piece| pieces.push(piece)).count();
            assert_eq!(taken, PIECES_MAX - 1, "and one that was told to be the last");
        });
        assert!(!pieces.has_room());
    }
}
