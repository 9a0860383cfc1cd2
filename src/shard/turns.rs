//! A bound on what a shard does in one turn for connections that want much: those who come too late wait, in order of arrival.
//!
//! A shard looks for new requests between two turns only, so a turn must not grow with the connections that have more to do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use reactor::Reactor;

/// The turns of a shard, with regard to one thing that takes time.
pub struct Turns {
    /// How much a turn has room for.
    max: usize,
    /// The last turn of which something was taken, by [`Reactor::turns`], and how much.
    turn: Cell<u64>,
    taken: Cell<usize>,
    /// Who waits for a turn, and with how much; the first has the ticket `admitted`.
    waiting: RefCell<VecDeque<(Waker, usize)>>,
    /// Tickets up to here have got their turn.
    admitted: Cell<u64>,
    /// The task that counts the turns, when nobody has waited.
    turner: RefCell<Option<Waker>>,
}

impl Turns {
    /// Turns of this size, nothing of which has been taken; somebody has to run [`Turns::turn_for_ever`].
    pub fn new(max: usize) -> Turns {
        Turns {
            max,
            turn: Cell::default(),
            taken: Cell::default(),
            waiting: RefCell::default(),
            admitted: Cell::default(),
            turner: RefCell::default(),
        }
    }

    /// Takes this much of the turn `turn`, which is the present one, if it has room and nobody waits.
    #[inline]
    pub fn try_take(&self, amount: usize, turn: u64) -> bool {
        if self.turn.replace(turn) != turn {
            self.taken.set(0);
        }
        self.waiting.borrow().is_empty() && self.begin(amount)
    }

    /// Waits until a turn has room for something of this size.
    pub async fn take(&self, amount: usize, reactor: &Reactor) {
        if !self.try_take(amount, reactor.turns()) {
            self.wait_for_turn(amount).await;
        }
    }

    async fn wait_for_turn(&self, amount: usize) {
        let mut ticket = None;
        std::future::poll_fn(|context| match ticket {
            Some(ticket) if ticket < self.admitted.get() => Poll::Ready(()),
            // A task has one waker for all its life.
            Some(_) => Poll::Pending,
            None => {
                let mut waiting = self.waiting.borrow_mut();
                ticket = Some(self.admitted.get() + waiting.len() as u64);
                waiting.push_back((context.waker().clone(), amount));
                if let Some(turner) = self.turner.take() {
                    turner.wake();
                }
                Poll::Pending
            }
        })
        .await;
    }

    /// Counts this to the turn unless it has had enough; the last to come may exceed the bound.
    fn begin(&self, amount: usize) -> bool {
        let has_room = self.taken.get() < self.max;
        if has_room {
            self.taken.set(self.taken.get() + amount);
        }
        has_room
    }

    /// Lets those who wait longest have the turn that begins now.
    fn begin_turn(&self, turn: u64) {
        self.turn.set(turn);
        self.taken.set(0);
        let mut waiting = self.waiting.borrow_mut();
        while let Some((_, amount)) = waiting.front()
            && self.begin(*amount)
        {
            if let Some((waker, _)) = waiting.pop_front() {
                self.admitted.set(self.admitted.get() + 1);
                waker.wake();
            }
        }
    }

    /// Begins a turn after each turn of the reactor for which somebody waits.
    pub async fn turn_for_ever(self: Rc<Turns>, reactor: Rc<Reactor>) {
        loop {
            self.someone_waits().await;
            reactor.next_turn().await;
            self.begin_turn(reactor.turns());
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
    use std::pin::Pin;
    use std::task::Context;

    use reactor::Driver;

    use super::*;

    const MAX: usize = 1000;

    fn poll(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn are_ready(futures: &mut [Pin<Box<impl Future<Output = ()>>>]) -> Vec<bool> {
        futures.iter_mut().map(|future| poll(future.as_mut())).collect()
    }

    #[test]
    fn a_turn_takes_so_much_and_the_rest_goes_in_order() {
        let turns = Turns::new(MAX);
        assert!(turns.try_take(MAX - 1, 1), "the first has room");
        assert!(turns.try_take(MAX / 8, 1), "the last one may exceed the bound");
        assert!(!turns.try_take(1, 1));
        let mut waiting: Vec<_> = [MAX / 2, MAX / 2, 1, MAX].map(|amount| Box::pin(turns.wait_for_turn(amount))).into();
        assert_eq!(are_ready(&mut waiting), [false; 4]);
        assert_eq!(are_ready(&mut waiting), [false; 4], "asking again moves nothing");
        assert!(!turns.try_take(1, 2), "a newcomer goes behind those who wait, also in the next turn");
        turns.begin_turn(2);
        assert_eq!(are_ready(&mut waiting), [true, true, false, false]);
        waiting.drain(..2);
        turns.begin_turn(3);
        assert_eq!(are_ready(&mut waiting), [true, true]);
        assert!(!turns.try_take(1, 3), "they have had all of it");
    }

    #[test]
    fn a_turn_that_nobody_waits_for_has_all_its_room() {
        let turns = Turns::new(MAX);
        for turn in 1..4 {
            assert!(turns.try_take(MAX, turn));
            assert!(!turns.try_take(1, turn));
        }
    }

    #[test]
    fn the_reactor_turns_for_those_who_wait() {
        for driver in [Driver::IoUring, Driver::Epoll] {
            // Where io_uring is missing there is nothing to turn, and the reason is told at the start of the program.
            let Ok(reactor) = Reactor::new(driver) else { continue };
            let served = Rc::new(Cell::new(0));
            let count = Rc::clone(&served);
            let turner = Rc::clone(&reactor);
            let done = reactor.block_on(async move {
                let reactor = turner;
                let turns = Rc::new(Turns::new(MAX));
                reactor.spawn(Rc::clone(&turns).turn_for_ever(Rc::clone(&reactor)));
                let done: Rc<RefCell<Option<Waker>>> = Rc::default();
                for _ in 0..40 {
                    let (turns, served, done) = (Rc::clone(&turns), Rc::clone(&count), Rc::clone(&done));
                    let of = Rc::clone(&reactor);
                    reactor.spawn(async move {
                        turns.take(MAX, &of).await;
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
            done.expect("the driver works");
            assert_eq!(served.get(), 40, "{driver:?}");
        }
    }
}
