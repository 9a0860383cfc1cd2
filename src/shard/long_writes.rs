//! How many bytes of long answers leave in one turn of the ring.
//!
//! The kernel copies what it is given in a turn before it looks at anything else, so without a bound a short answer would
//! wait for a piece of every long one. Large pieces, on the other hand, are what makes a long list cheap: each wakes its
//! reader. So pieces are large, and as many of them as the bound allows leave in a turn; the rest wait in order of arrival.
//!
//! With epoll a write happens at once, between two tasks: there a piece is smaller, and its task goes to the end of the
//! queue before it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use reactor::{Driver, Reactor};

use crate::limits::{LONG_WRITES_TURN_MAX_BYTES, WRITE_BYTES_MAX, WRITE_BYTES_MAX_EPOLL};

/// The long writes of a shard.
pub struct LongWrites {
    driver: Driver,
    /// Bytes that this turn has been given.
    bytes_in_turn: Cell<usize>,
    /// Who waits for a turn, and with how many bytes; the first has the ticket `admitted`.
    waiting: RefCell<VecDeque<(Waker, usize)>>,
    /// Tickets up to here have got their turn.
    admitted: Cell<u64>,
    /// The task that counts the turns, when nobody has waited.
    turner: RefCell<Option<Waker>>,
}

impl LongWrites {
    /// No writes; with io_uring somebody has to run [`LongWrites::turn_for_ever`].
    pub fn new(driver: Driver) -> LongWrites {
        LongWrites {
            driver,
            bytes_in_turn: Cell::default(),
            waiting: RefCell::default(),
            admitted: Cell::default(),
            turner: RefCell::default(),
        }
    }

    /// Bytes of one write after which no further piece is added.
    #[inline]
    pub fn write_bytes_max(&self) -> usize {
        match self.driver {
            Driver::IoUring => WRITE_BYTES_MAX,
            Driver::Epoll => WRITE_BYTES_MAX_EPOLL,
        }
    }

    /// Waits until a write of so many bytes may be given to the kernel.
    pub async fn admit(&self, bytes: usize, reactor: &Reactor) {
        match self.driver {
            Driver::IoUring => self.take_turn(bytes).await,
            Driver::Epoll => reactor.next_turn().await,
        }
    }

    async fn take_turn(&self, bytes: usize) {
        if self.waiting.borrow().is_empty() && self.begin(bytes) {
            return;
        }
        let mut ticket = None;
        std::future::poll_fn(|context| match ticket {
            Some(ticket) if ticket < self.admitted.get() => Poll::Ready(()),
            // A task has one waker for all its life.
            Some(_) => Poll::Pending,
            None => {
                let mut waiting = self.waiting.borrow_mut();
                ticket = Some(self.admitted.get() + waiting.len() as u64);
                waiting.push_back((context.waker().clone(), bytes));
                if let Some(turner) = self.turner.take() {
                    turner.wake();
                }
                Poll::Pending
            }
        })
        .await;
    }

    /// Counts these bytes to the turn unless it has had enough; the last to come may exceed the bound.
    fn begin(&self, bytes: usize) -> bool {
        let has_room = self.bytes_in_turn.get() < LONG_WRITES_TURN_MAX_BYTES;
        if has_room {
            self.bytes_in_turn.set(self.bytes_in_turn.get() + bytes);
        }
        has_room
    }

    /// Lets those who wait longest have the turn that begins now.
    fn begin_turn(&self) {
        self.bytes_in_turn.set(0);
        let mut waiting = self.waiting.borrow_mut();
        while let Some((_, bytes)) = waiting.front()
            && self.begin(*bytes)
        {
            if let Some((waker, _)) = waiting.pop_front() {
                self.admitted.set(self.admitted.get() + 1);
                waker.wake();
            }
        }
    }

    /// Begins a turn after each turn of the ring for which somebody waits.
    pub async fn turn_for_ever(self: Rc<LongWrites>, reactor: Rc<Reactor>) {
        loop {
            self.someone_waits().await;
            reactor.next_turn().await;
            self.begin_turn();
        }
    }

    async fn someone_waits(&self) {
        std::future::poll_fn(|context| {
            if !self.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            *self.turner.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;

    fn poll(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn are_ready(futures: &mut [Pin<Box<impl Future<Output = ()>>>]) -> Vec<bool> {
        futures.iter_mut().map(|future| poll(future.as_mut())).collect()
    }

    #[test]
    fn a_turn_takes_so_many_bytes_and_the_rest_goes_in_order() {
        let writes = LongWrites::new(Driver::IoUring);
        let full = LONG_WRITES_TURN_MAX_BYTES;
        assert!(poll(pin!(writes.take_turn(full - 1))), "the first has room");
        assert!(poll(pin!(writes.take_turn(WRITE_BYTES_MAX))), "the last one may exceed the bound");
        let mut waiting: Vec<_> = [full / 2, full / 2, 1, full].map(|bytes| Box::pin(writes.take_turn(bytes))).into();
        assert_eq!(are_ready(&mut waiting), [false; 4]);
        assert_eq!(are_ready(&mut waiting), [false; 4], "asking again moves nothing");
        writes.begin_turn();
        assert!(!poll(pin!(writes.take_turn(1))), "a newcomer goes behind those who wait");
        assert_eq!(are_ready(&mut waiting), [true, true, false, false]);
        waiting.drain(..2);
        writes.begin_turn();
        assert_eq!(are_ready(&mut waiting), [true, true]);
    }

    #[test]
    fn a_turn_that_nobody_waits_for_leaves_room() {
        let writes = LongWrites::new(Driver::IoUring);
        assert!(poll(pin!(writes.take_turn(LONG_WRITES_TURN_MAX_BYTES))));
        writes.begin_turn();
        assert!(poll(pin!(writes.take_turn(1))));
    }

    #[test]
    fn the_ring_turns_for_those_who_wait() {
        // Where io_uring is missing there is nothing to turn, and the reason is told at the start of the program.
        let Ok(reactor) = Reactor::new(Driver::IoUring) else { return };
        let served = Rc::new(Cell::new(0));
        let count = Rc::clone(&served);
        let turner = Rc::clone(&reactor);
        let done = reactor.block_on(async move {
            let reactor = turner;
            let writes = Rc::new(LongWrites::new(Driver::IoUring));
            reactor.spawn(Rc::clone(&writes).turn_for_ever(Rc::clone(&reactor)));
            let done: Rc<RefCell<Option<Waker>>> = Rc::default();
            for _ in 0..40 {
                let (writes, served, done) = (Rc::clone(&writes), Rc::clone(&count), Rc::clone(&done));
                reactor.spawn(async move {
                    writes.take_turn(LONG_WRITES_TURN_MAX_BYTES).await;
                    served.set(served.get() + 1);
                    if served.get() == 40
                        && let Some(waker) = done.take()
                    {
                        waker.wake();
                    }
                });
            }
            std::future::poll_fn(|context| {
                *done.borrow_mut() = Some(context.waker().clone());
                if count.get() == 40 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        done.expect("a ring");
        assert_eq!(served.get(), 40);
    }
}
