//! Nobody has the thread for long.

use super::*;
use crate::backend::RECEIVES_TURN_MAX;

/// Counts turns until the goal is reached, in a task of its own.
fn count_turns(reactor: &Rc<Reactor>) -> Rc<Cell<usize>> {
    let turns = Rc::new(Cell::new(0));
    let (count, turner) = (Rc::clone(&turns), Rc::clone(reactor));
    reactor.spawn(async move {
        loop {
            turner.next_turn().await;
            count.set(count.get() + 1);
        }
    });
    turns
}

#[test]
fn others_have_their_turn_between_connections_that_are_accepted() {
    const CLIENTS: usize = 10 * ACCEPTS_TURN_MAX;
    for driver in drivers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        // What std asks for is less.
        socket2::SockRef::from(&listener).listen(2 * CLIENTS as i32).expect("listens");
        let address = listener.local_addr().expect("bound");
        let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).expect("connects")).collect();
        let most_in_a_turn = Rc::new(Cell::new(0));
        let most = Rc::clone(&most_in_a_turn);
        block_on(driver, |reactor| {
            let goal = Goal::default();
            let (ended, acceptor, turns) = (goal.clone(), Rc::clone(&reactor), count_turns(&reactor));
            reactor.spawn(async move {
                let listener = Listener::new(&acceptor, listener).expect("a listener");
                let (mut accepted, mut in_turn, mut turn) = (0, 0, 0);
                let mut note = |accepted_now: Detached| {
                    drop(Socket::new(accepted_now));
                    if std::mem::replace(&mut turn, turns.get()) != turns.get() {
                        in_turn = 0;
                    }
                    in_turn += 1;
                    accepted += 1;
                    most.set(most.get().max(in_turn));
                    accepted
                };
                // Half of them while it is open, half of them when it has been closed: who leaves yields, too.
                while note(listener.accept().await.expect("there are more")) < CLIENTS / 2 {}
                acceptor.stop_accepting();
                assert_eq!(listener.accept().await.expect_err("stopped").raw_os_error(), Some(libc::ECANCELED));
                while let Some(descriptor) = listener.accept_completed().await {
                    note(descriptor);
                }
                assert_eq!(accepted, CLIENTS);
                ended.reach();
            });
            goal.wait()
        })
        .expect("the driver works");
        assert!(most_in_a_turn.get() <= 2 * ACCEPTS_TURN_MAX, "{driver:?}: {}", most_in_a_turn.get());
        drop(clients);
    }
}

#[test]
fn others_have_their_turn_while_a_client_sends_as_fast_as_it_is_read() {
    const BYTES: usize = 2 * 1024 * 1024;
    for driver in drivers() {
        let read = |reactor: Rc<Reactor>, socket: Socket| async move {
            let turns = count_turns(&reactor);
            // All of it has come before the first of it is read, or most.
            reactor.sleep(Duration::from_millis(200)).await;
            let (mut received, mut in_turn, mut turn, mut most) = (Vec::new(), 0, 0, 0);
            loop {
                let bytes = receive(&socket, &mut received).await.expect("bytes, then the end");
                if std::mem::replace(&mut turn, turns.get()) != turns.get() {
                    in_turn = 0;
                }
                in_turn += bytes;
                most = most.max(in_turn);
                if bytes == 0 {
                    break;
                }
            }
            assert!(received == pattern(BYTES));
            let buffers_bytes = match &*reactor.backend.borrow() {
                AnyBackend::Uring(uring) => uring.buffer_bytes(),
                _ => 0,
            };
            let bound = 2 * (usize::from(RECEIVES_TURN_MAX) * UNREAD_MAX_BYTES) + buffers_bytes;
            assert!(most <= bound, "{driver:?}: {most} bytes in one turn");
        };
        serve(driver, read, |mut client| client.write_all(&pattern(BYTES)).expect("it is read in the end"));
    }
}

#[test]
fn a_listener_that_has_been_stopped_and_dropped_listens_no_more() {
    for driver in drivers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        block_on(driver, |reactor| {
            let goal = Goal::default();
            let (ended, acceptor, stopper) = (goal.clone(), Rc::clone(&reactor), Rc::clone(&reactor));
            reactor.spawn(async move {
                let listener = Listener::new(&acceptor, listener).expect("a listener");
                assert_eq!(listener.accept().await.expect_err("stopped").raw_os_error(), Some(libc::ECANCELED));
                drop(listener);
                // Within the same turn, so that nothing but this has closed it.
                let refused = TcpStream::connect(address).expect_err("nobody listens");
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
                ended.reach();
            });
            reactor.spawn(async move {
                stopper.next_turn().await;
                stopper.next_turn().await;
                stopper.stop_accepting();
            });
            goal.wait()
        })
        .expect("the driver works");
    }
}

#[test]
fn a_task_that_is_woken_meanwhile_waits_for_the_turn_all_the_same() {
    for driver in drivers() {
        block_on(driver, |reactor| {
            let goal = Goal::default();
            let (ended, waiter) = (goal.clone(), Rc::clone(&reactor));
            let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
            let own = Rc::clone(&waker);
            reactor.spawn(async move {
                *own.borrow_mut() = Some(poll_fn(|context| Poll::Ready(context.waker().clone())).await);
                let turn = waiter.turns();
                waiter.next_turn().await;
                assert_eq!(waiter.turns(), turn + 1);
                ended.reach();
            });
            reactor.spawn(async move { waker.take().expect("the other has run").wake() });
            goal.wait()
        })
        .expect("the driver works");
    }
}
