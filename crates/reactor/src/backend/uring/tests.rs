//! Histories of completions made by hand, which a kernel tells in such an order only now and then.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::task::Poll;

use super::*;
use crate::backend::Backend as _;
use crate::tests::pair;
use crate::{SendManner, task};

/// The kernel keeps the operation going (`IORING_CQE_F_MORE`), and has filled a buffer (`IORING_CQE_F_BUFFER`).
const MORE: u32 = 1 << 1;
const IN_BUFFER: u32 = 1 << 0;
const BUFFER_SHIFT: u32 = 16;

/// A ring to tell histories to; `None` where there is no io_uring, which the program tells at its start.
fn ring() -> Option<Uring> {
    task::begin_thread();
    // SAFETY: no pointers.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(event >= 0);
    Uring::new(event).ok()
}

fn told(user_data: u64, result: i32, flags: u32) -> Completion {
    Completion { user_data, result, flags }
}

/// What the operation of this kind is known by, as long as the slot is this connection's.
fn operation(uring: &Uring, slot: Slot, kind: u64) -> u64 {
    uring.connections[slot as usize].user_data(slot, kind)
}

fn lend(text: &[u8]) -> Box<Pieces> {
    let mut pieces = Box::<Pieces>::default();
    pieces.begin(text.to_vec(), usize::MAX);
    pieces.push_text(0..text.len());
    pieces
}

fn sent(uring: &mut Uring, slot: Slot) -> Option<io::Result<usize>> {
    match uring.poll_sent(slot) {
        Poll::Ready((sent, _)) => Some(sent),
        Poll::Pending => None,
    }
}

#[test]
fn a_send_is_taken_for_sent_only_when_no_failure_can_be_on_its_way() {
    let Some(mut uring) = ring() else { return };
    let (_client, served) = pair();
    let slot = uring.add_socket(served);
    uring.begin_send(slot, lend(b"hello"), SendManner::Expected);
    uring.take(&[], false, None).expect("nothing to do");
    assert!(sent(&mut uring, slot).is_none(), "its failure may stand in the overflow list");
    assert!(uring.is_urgent, "which the next system call empties");
    let failed = told(operation(&uring, slot, SEND), -libc::EPIPE, 0);
    uring.take(&[failed], true, None).expect("taken");
    let error = sent(&mut uring, slot).expect("told").expect_err("it failed");
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));

    uring.begin_send_shared(slot, b"hello".as_slice().into(), 5);
    uring.take(&[], false, None).expect("nothing to do");
    assert!(uring.poll_receive(slot, false).is_pending(), "it is not known yet");
    let cut_off = told(operation(&uring, slot, SEND), 2, 0);
    uring.take(&[cut_off], true, None).expect("taken");
    let unsent = uring.take_unsent(slot).expect("three bytes did not fit");
    assert_eq!((&unsent.bytes[..unsent.length], unsent.sent.ok()), (b"hello".as_slice(), Some(2)));

    // And without any failure it is sent.
    uring.begin_send(slot, lend(b"hello"), SendManner::Expected);
    uring.take(&[], true, None).expect("taken");
    assert_eq!(sent(&mut uring, slot).and_then(Result::ok), Some(5));
    uring.close(slot);
}

#[test]
fn what_was_meant_for_the_last_connection_of_a_slot_is_not_taken_for_the_next_ones() {
    let Some(mut uring) = ring() else { return };
    let (_client, served) = pair();
    let slot = uring.add_socket(served);
    let old = [RECEIVE, SEND, WRITABLE].map(|kind| operation(&uring, slot, kind));
    uring.close(slot);
    let (_client, served) = pair();
    assert_eq!(uring.add_socket(served), slot, "slots are used again");

    assert!(uring.poll_receive(slot, false).is_pending());
    uring.begin_send(slot, lend(b"hello"), SendManner::Expected);
    let operations = uring.connections[slot as usize].operations;
    let tail = uring.buffers.given();
    let history = [
        told(old[0], 3, MORE | IN_BUFFER | 7 << BUFFER_SHIFT),
        told(old[0], 0, 0),
        told(old[1], -libc::ECONNRESET, 0),
        told(old[2], libc::POLLHUP.into(), 0),
    ];
    uring.take(&history, false, None).expect("taken");
    let connection = &uring.connections[slot as usize];
    assert_eq!((connection.operations, connection.end, &connection.filled), (operations, None, &None));
    assert!(connection.is_receiving && connection.sending == Sending::Expected);
    assert_eq!(uring.buffers.given(), tail.wrapping_add(1), "the buffer goes back all the same");
    uring.take(&[], true, None).expect("taken");
    assert_eq!(sent(&mut uring, slot).and_then(Result::ok), Some(5));
    uring.close(slot);
}

#[test]
fn a_slot_is_used_again_only_when_the_kernel_has_let_go_of_it() {
    let Some(mut uring) = ring() else { return };
    let (_client, served) = pair();
    let slot = uring.add_socket(served);
    assert!(uring.poll_receive(slot, false).is_pending());
    uring.begin_send(slot, lend(b"hello"), SendManner::Patient);
    // There is no room, and then the connection is closed.
    uring.take(&[told(operation(&uring, slot, SEND), -libc::EAGAIN, 0)], true, None).expect("taken");
    assert_eq!(uring.connections[slot as usize].sending, Sending::Waiting);
    let (receive, watch) = (operation(&uring, slot, RECEIVE), operation(&uring, slot, WRITABLE));
    uring.close(slot);
    assert!(uring.free.is_empty() && uring.connections[slot as usize].lent.is_some());
    uring.take(&[told(receive, -libc::ECANCELED, 0)], true, None).expect("taken");
    assert!(uring.free.is_empty(), "the poll is still there");
    uring.take(&[told(watch, libc::POLLOUT.into(), MORE)], true, None).expect("taken");
    assert!(uring.free.is_empty(), "and is after this, too");
    uring.take(&[told(watch, -libc::ECANCELED, 0)], true, None).expect("taken");
    assert_eq!(uring.free, [slot]);
}

#[test]
fn the_end_of_the_client_is_no_room_and_room_is_told_once() {
    let Some(mut uring) = ring() else { return };
    let (_client, served) = pair();
    let slot = uring.add_socket(served);
    uring.begin_send(slot, lend(b"hello"), SendManner::Patient);
    uring.take(&[told(operation(&uring, slot, SEND), -libc::EAGAIN, 0)], true, None).expect("taken");
    let watch = operation(&uring, slot, WRITABLE);
    let queued = uring.ring.submission().len();
    for _ in 0..5 {
        uring.take(&[told(watch, libc::POLLRDHUP.into(), MORE)], true, None).expect("taken");
        assert_eq!(uring.connections[slot as usize].sending, Sending::Waiting);
    }
    assert_eq!(uring.ring.submission().len(), queued, "nothing is tried for that");
    uring.take(&[told(watch, (libc::POLLOUT | libc::POLLRDHUP).into(), MORE)], true, None).expect("taken");
    assert_eq!(uring.connections[slot as usize].sending, Sending::Told);
    assert_eq!(uring.ring.submission().len(), queued + 1);
    // A part is sent. The rest waits for room at once, without a try, unless it has been told meanwhile.
    uring.take(&[told(operation(&uring, slot, SEND), 2, 0)], true, None).expect("taken");
    assert_eq!(sent(&mut uring, slot).and_then(Result::ok), Some(2));
    uring.begin_send(slot, lend(b"llo"), SendManner::Patient);
    assert_eq!(uring.connections[slot as usize].sending, Sending::Waiting);
    // The poll ends: it is made again, and what it was is told.
    uring.take(&[told(watch, libc::POLLRDHUP.into(), 0)], true, None).expect("taken");
    assert!(uring.connections[slot as usize].is_watched);
    uring.take(&[told(watch, -libc::ENOMEM, 0)], true, None).expect("taken");
    let error = sent(&mut uring, slot).expect("told").expect_err("there is no way to wait");
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    uring.close(slot);
}

/// Answers whatever comes.
struct Always(Rc<[u8]>);

impl FastPath for Always {
    fn answer(&self, _: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        Some((Rc::clone(&self.0), self.0.len()))
    }

    fn idle_until(&self) -> u64 {
        1
    }
}

/// A turn that waits would wait for the client then, and the client for the second answer.
#[test]
fn what_comes_together_with_a_request_that_is_answered_at_once_is_not_left_waiting() {
    let Some(mut uring) = ring() else { return };
    let fast_path = Always(b"hello".as_slice().into());
    let more: [fn(u64) -> Completion; 4] = [
        |receive| told(receive, 1, MORE | IN_BUFFER | 1 << BUFFER_SHIFT),
        |receive| told(receive, 0, 0),
        |receive| told(receive, -libc::ECONNRESET, 0),
        // Much was unread before, and the task has taken it.
        |receive| told(receive, -libc::ECANCELED, 0),
    ];
    for (number, more) in more.into_iter().enumerate() {
        let (_client, served) = pair();
        let slot = uring.add_socket(served);
        assert!(uring.poll_receive(slot, true).is_pending());
        uring.is_urgent = false;
        let receive = operation(&uring, slot, RECEIVE);
        let request = told(receive, 1, MORE | IN_BUFFER);
        uring.take(&[request], true, Some(&fast_path)).expect("taken");
        assert_eq!(uring.connections[slot as usize].sending, Sending::Unattended);
        assert!(uring.poll_receive(slot, true).is_pending() && !uring.is_urgent, "the task has nothing to do");

        uring.take(&[], true, None).expect("the answer has left");
        uring.take(&[request, more(receive)], true, Some(&fast_path)).expect("taken");
        assert!(
            uring.poll_receive(slot, true).is_pending() && uring.is_urgent,
            "{number}: it is held up by the answer"
        );
        uring.take(&[], true, None).expect("the answer has left");
        let is_had = uring.poll_receive(slot, true).is_ready();
        assert!(is_had || uring.connections[slot as usize].is_receiving, "{number}: it goes on");
        uring.close(slot);
    }
}

#[test]
fn what_came_before_an_answer_is_not_left_waiting_behind_it() {
    let Some(mut uring) = ring() else { return };
    let begin: [fn(&mut Uring, Slot); 2] = [
        |uring, slot| uring.begin_send(slot, lend(b"hello"), SendManner::Expected),
        |uring, slot| uring.begin_send_shared(slot, b"hello".as_slice().into(), 5),
    ];
    for begin in begin {
        let (_client, served) = pair();
        let slot = uring.add_socket(served);
        assert!(uring.poll_receive(slot, false).is_pending());
        begin(&mut uring, slot);
        assert!(!uring.is_urgent, "nothing has come");
        uring.take(&[], true, None).expect("it has left");
        let _ = sent(&mut uring, slot);

        let receive = operation(&uring, slot, RECEIVE);
        uring.take(&[told(receive, 1, MORE | IN_BUFFER)], true, None).expect("taken");
        begin(&mut uring, slot);
        assert!(std::mem::take(&mut uring.is_urgent), "a buffer of the ring");
        uring.take(&[], true, None).expect("it has left");
        let _ = sent(&mut uring, slot);
        uring.stash_leftovers().expect("there is room");
        begin(&mut uring, slot);
        assert!(std::mem::take(&mut uring.is_urgent), "a copy");
        uring.close(slot);
    }
}

#[test]
fn what_the_ring_does_not_take_is_not_waited_for() {
    let Some(mut uring) = ring() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("a plain flag");
    let (mut client, served) = pair();
    let slot = uring.add_socket(served);
    // As if the ring had been taken away: nothing can be submitted any more.
    let nothing = std::fs::File::open("/dev/null").expect("there is one");
    // SAFETY: no pointers; the ring's descriptor stays one, of another file.
    assert!(unsafe { libc::dup2(nothing.as_raw_fd(), uring.ring.as_raw_fd()) } >= 0);
    while uring.ring.submission().len() < RING_ENTRIES as usize {
        uring.cancel(u64::MAX).expect("there is room");
    }
    assert!(matches!(uring.poll_receive(slot, false), Poll::Ready(Err(_))));
    uring.begin_send(slot, lend(b"hello"), SendManner::Expected);
    assert!(sent(&mut uring, slot).expect("told").is_err());
    uring.begin_send(slot, lend(b"hello"), SendManner::Patient);
    assert!(sent(&mut uring, slot).expect("told").is_err());
    uring.connections[slot as usize].is_full = true;
    uring.begin_send(slot, lend(b"hello"), SendManner::Patient);
    assert!(sent(&mut uring, slot).expect("told").is_err());
    for _ in 0..2 {
        assert!(matches!(uring.poll_accept(listener.as_raw_fd()), Poll::Ready(Err(_))), "it is tried again");
    }
    uring.close(slot);
    assert_eq!(uring.free, [slot], "nothing holds the slot");
    client.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a plain option");
    assert_eq!(client.read(&mut [0]).expect("the end"), 0, "the descriptor is closed");
}
