//! Both drivers, over sockets of the loopback.

mod half_closed;
mod received;
mod shared_answers;
mod simulated;
mod turns;

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{IntoRawFd as _, RawFd};
use std::thread;

use super::*;
use crate::backend::PAGE_BYTES;

/// A machine without io_uring tests epoll alone; the program tells the reason at its start.
fn drivers() -> Vec<Driver> {
    [Driver::IoUring, Driver::Epoll].into_iter().filter(|driver| driver.probe().is_ok()).collect()
}

fn block_on<F: Future>(driver: Driver, main: impl FnOnce(Rc<Reactor>) -> F) -> io::Result<F::Output> {
    let reactor = Reactor::new(driver)?;
    reactor.block_on(main(Rc::clone(&reactor)))
}

pub(crate) fn pair() -> (TcpStream, RawFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (served, _) = listener.accept().expect("accepts");
    served.set_nonblocking(true).expect("a plain flag");
    (client, served.into_raw_fd())
}

/// Runs `serve` as a task with a socket, and `use_client` on a thread of its own, until both have ended.
fn serve<S: Future<Output = ()> + 'static, R: Send + 'static>(
    driver: Driver,
    serve: impl FnOnce(Rc<Reactor>, Socket) -> S,
    use_client: impl FnOnce(TcpStream) -> R + Send + 'static,
) -> R {
    let (client, served) = pair();
    let client = thread::spawn(move || use_client(client));
    let ended = block_on(driver, |reactor| {
        let socket = Socket::new(Detached::of(&reactor, served)).expect("a socket");
        let task = serve(Rc::clone(&reactor), socket);
        let goal = Goal::default();
        let ended = goal.clone();
        reactor.spawn(async move {
            task.await;
            ended.reach();
        });
        goal.wait()
    });
    ended.expect("the driver works");
    client.join().expect("the client's checks hold")
}

fn take(received: &[u8], into: &mut Vec<u8>) -> usize {
    into.extend_from_slice(received);
    received.len()
}

async fn receive(socket: &Socket, into: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|_| socket.poll_receive().map_ok(|received| take(&received, into))).await
}

async fn send_all(socket: &Socket, text: Vec<u8>, mut manner: SendManner) -> io::Result<()> {
    let mut pieces = Box::<Pieces>::default();
    let end = text.len();
    pieces.begin(text, usize::MAX);
    pieces.push_text(0..end);
    while !pieces.is_sent() {
        let (sent, returned) = socket.send(pieces, manner).await;
        pieces = returned;
        pieces.advance(sent?);
        manner = SendManner::Patient;
    }
    Ok(())
}

/// Something that a task reaches, and the main future waits for.
#[derive(Clone, Default)]
struct Goal(Rc<RefCell<(bool, Option<Waker>)>>);

impl Goal {
    fn reach(&self) {
        let mut goal = self.0.borrow_mut();
        goal.0 = true;
        if let Some(waker) = goal.1.take() {
            waker.wake();
        }
    }

    fn wait(&self) -> impl Future<Output = ()> + use<> {
        let goal = self.clone();
        poll_fn(move |context| {
            let mut goal = goal.0.borrow_mut();
            goal.1 = Some(context.waker().clone());
            if goal.0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 % 251) as u8).collect()
}

#[test]
fn what_comes_is_sent_back() {
    for driver in drivers() {
        for manner in [SendManner::Expected, SendManner::Urgent, SendManner::Patient] {
            let echo = move |_, socket: Socket| async move {
                loop {
                    let mut received = Vec::new();
                    match receive(&socket, &mut received).await {
                        Ok(0) => return,
                        outcome => outcome.expect("bytes"),
                    };
                    send_all(&socket, received, manner).await.expect("the client reads");
                }
            };
            serve(driver, echo, |mut client| {
                for round in 0..50 {
                    let sent = pattern(1 + 100 * round);
                    client.write_all(&sent).expect("sends");
                    let mut back = vec![0; sent.len()];
                    client.read_exact(&mut back).expect("receives");
                    assert!(back == sent);
                }
            });
        }
    }
}

#[test]
fn an_answer_that_does_not_fit_leaves_all_the_same() {
    const BYTES: usize = 20 * 1024 * 1024;
    for driver in drivers() {
        let write = |_, socket: Socket| async move {
            send_all(&socket, pattern(BYTES), SendManner::Expected).await.expect("the client reads in the end");
        };
        serve(driver, write, |mut client| {
            thread::sleep(Duration::from_millis(50));
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("receives");
            assert!(all == pattern(BYTES));
        });
    }
}

#[test]
fn a_task_that_does_not_read_keeps_little_and_loses_nothing() {
    const BYTES: usize = 8 * 1024 * 1024;
    for driver in drivers() {
        let read_late = |reactor: Rc<Reactor>, socket: Socket| async move {
            let mut received = Vec::new();
            receive(&socket, &mut received).await.expect("bytes");
            for _ in 0..10 {
                reactor.sleep(Duration::from_millis(10)).await;
                if let AnyBackend::Uring(uring) = &*reactor.backend.borrow() {
                    let kept = uring.stashed_bytes();
                    assert!(kept <= UNREAD_MAX_BYTES + uring.buffer_bytes(), "{kept} bytes are kept");
                }
            }
            assert!(socket.has_received());
            while receive(&socket, &mut received).await.expect("bytes, then the end") > 0 {}
            assert!(received == pattern(BYTES));
        };
        serve(driver, read_late, |mut client| client.write_all(&pattern(BYTES)).expect("it is read in the end"));
    }
}

#[test]
fn many_receive_at_once_with_few_buffers() {
    // More than the ring has buffers at first.
    const CLIENTS: usize = 300;
    for driver in drivers() {
        let (mut clients, served): (Vec<_>, Vec<_>) = (0..CLIENTS).map(|_| pair()).unzip();
        for client in &mut clients {
            client.write_all(b"hello").expect("sends");
        }
        let clients = thread::spawn(move || {
            clients.iter_mut().for_each(|client| client.write_all(b", and good-bye").expect("sends"));
            clients.iter().for_each(|client| client.shutdown(std::net::Shutdown::Write).expect("ends"));
            clients
        });
        let served = block_on(driver, |reactor| {
            let (count, goal) = (Rc::new(Cell::new(0)), Goal::default());
            for descriptor in served {
                let socket = Socket::new(Detached::of(&reactor, descriptor)).expect("a socket");
                let (count, goal) = (Rc::clone(&count), goal.clone());
                reactor.spawn(async move {
                    let mut received = Vec::new();
                    while receive(&socket, &mut received).await.expect("bytes, then the end") > 0 {}
                    assert_eq!(received, b"hello, and good-bye");
                    count.set(count.get() + 1);
                    if count.get() == CLIENTS {
                        goal.reach();
                    }
                });
            }
            goal.wait()
        });
        served.expect("the driver works");
        clients.join().expect("the clients' checks hold");
    }
}

#[test]
fn the_memory_of_buffers_that_a_crowd_needed_is_given_back() {
    // They need eight times as many buffers as there are at first.
    const CLIENTS: usize = 300;
    const MESSAGES_MAX: usize = 10_000;
    for driver in drivers().into_iter().filter(|driver| *driver == Driver::IoUring) {
        let (mut clients, served): (Vec<_>, Vec<_>) = (0..CLIENTS).map(|_| pair()).unzip();
        clients.iter_mut().for_each(|client| client.write_all(b"x").expect("sends"));
        let (mut last, stays) = pair();
        let echo = thread::spawn(move || {
            let mut byte = [0];
            while last.read(&mut byte).expect("a byte, then the end") > 0 {
                last.write_all(&byte).expect("it is read");
            }
        });
        let served = block_on(driver, |reactor| {
            let bytes = move |reactor: &Reactor| match &*reactor.backend.borrow() {
                AnyBackend::Uring(uring) => (uring.buffer_bytes(), uring.resident_buffer_bytes()),
                _ => unreachable!("filtered"),
            };
            let (at_first, _) = bytes(&reactor);
            let stays = Rc::new(Socket::new(Detached::of(&reactor, stays)).expect("a socket"));
            let (count, goal) = (Rc::new(Cell::new(0)), Goal::default());
            for descriptor in served {
                let socket = Socket::new(Detached::of(&reactor, descriptor)).expect("a socket");
                let (count, goal) = (Rc::clone(&count), goal.clone());
                let (stays, reactor_of_task) = (Rc::clone(&stays), Rc::clone(&reactor));
                reactor.spawn(async move {
                    receive(&socket, &mut Vec::new()).await.expect("a byte");
                    count.set(count.get() + 1);
                    if count.get() < CLIENTS {
                        return;
                    }
                    let (all, resident) = bytes(&reactor_of_task);
                    assert!(all >= 4 * at_first && resident >= 3 * at_first, "{all}, {resident} bytes");
                    // The kernel has buffers that are not needed any more until the ring has come round.
                    let mut messages = 0;
                    while bytes(&reactor_of_task).0 > at_first {
                        reactor_of_task.trim();
                        send_all(&stays, b"x".to_vec(), SendManner::Urgent).await.expect("it is read");
                        assert_eq!(receive(&stays, &mut Vec::new()).await.expect("an echo"), 1);
                        messages += 1;
                        assert!(messages < MESSAGES_MAX, "{:?} bytes are kept", bytes(&reactor_of_task));
                    }
                    let (_, resident) = bytes(&reactor_of_task);
                    assert!(resident <= at_first + PAGE_BYTES, "{resident} of {at_first} bytes");
                    goal.reach();
                });
            }
            goal.wait()
        });
        served.expect("the driver works");
        drop(clients);
        echo.join().expect("the client's checks hold");
    }
}

#[test]
fn a_deadline_ends_a_wait() {
    for driver in drivers() {
        let wait = |reactor: Rc<Reactor>, socket: Socket| async move {
            let socket = Rc::new(socket);
            let other = Rc::clone(&socket);
            let sleeper = Rc::clone(&reactor);
            reactor.spawn(async move {
                sleeper.sleep(Duration::from_millis(20)).await;
                other.shut_down(libc::SHUT_RD);
            });
            assert_eq!(receive(&socket, &mut Vec::new()).await.expect("the end"), 0);
            send_all(&socket, b"late".to_vec(), SendManner::Urgent).await.expect("sending goes on");
        };
        let answer = serve(driver, wait, |mut client| {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).map(|_| answer)
        });
        assert_eq!(answer.expect("it is closed properly"), b"late");
    }
}

#[test]
fn a_client_that_goes_is_noticed_by_who_sends() {
    for driver in drivers() {
        let write = |_, socket: Socket| async move {
            // More than all buffers on the way hold.
            while send_all(&socket, pattern(1024 * 1024), SendManner::Expected).await.is_ok() {}
        };
        serve(driver, write, |client| {
            thread::sleep(Duration::from_millis(50));
            drop(client);
        });
    }
}

#[test]
fn timers_come_in_order_and_turns_do_not_wait_for_them() {
    for driver in drivers() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let begun = Instant::now();
        let kept = Rc::clone(&order);
        block_on(driver, |reactor| {
            for (name, milliseconds) in [("late", 60), ("early", 20), ("middle", 40)] {
                let (order, sleeper) = (Rc::clone(&kept), Rc::clone(&reactor));
                reactor.spawn(async move {
                    sleeper.sleep(Duration::from_millis(milliseconds)).await;
                    order.borrow_mut().push(name);
                });
            }
            let (order, turner) = (Rc::clone(&kept), Rc::clone(&reactor));
            reactor.spawn(async move {
                for _ in 0..3 {
                    turner.next_turn().await;
                }
                order.borrow_mut().push("turns");
            });
            let (goal, sleeper) = (Goal::default(), Rc::clone(&reactor));
            let ended = goal.clone();
            reactor.spawn(async move {
                sleeper.sleep(Duration::from_millis(80)).await;
                ended.reach();
            });
            goal.wait()
        })
        .expect("the driver works");
        assert_eq!(*order.borrow(), ["turns", "early", "middle", "late"]);
        assert!(begun.elapsed() >= Duration::from_millis(60), "nobody wakes early");
    }
}

#[test]
fn another_thread_wakes_the_main_future_each_time() {
    for driver in drivers() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let waker: Arc<std::sync::Mutex<Option<Waker>>> = Arc::default();
        let kept = Arc::clone(&waker);
        let other = thread::spawn(move || {
            for number in 0..1000 {
                sender.send(number).expect("somebody listens");
                if let Some(waker) = kept.lock().expect("no panic").as_ref() {
                    waker.wake_by_ref();
                }
                if number % 100 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let mut seen = 0;
        block_on(driver, |_| {
            poll_fn(move |context| {
                *waker.lock().expect("no panic") = Some(context.waker().clone());
                seen += receiver.try_iter().count();
                if seen == 1000 { Poll::Ready(()) } else { Poll::Pending }
            })
        })
        .expect("the driver works");
        other.join().expect("it only sends");
    }
}

#[test]
fn connections_are_accepted_until_that_is_stopped() {
    for driver in drivers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("connects")).collect();
        let accepted = Rc::new(Cell::new(0));
        let count = Rc::clone(&accepted);
        block_on(driver, |reactor| {
            let goal = Goal::default();
            let (ended, acceptor) = (goal.clone(), Rc::clone(&reactor));
            reactor.spawn(async move {
                let listener = Listener::new(&acceptor, listener).expect("a listener");
                loop {
                    match listener.accept().await {
                        Ok(descriptor) => {
                            drop(Socket::new(descriptor));
                            count.set(count.get() + 1);
                            if count.get() == 3 {
                                acceptor.stop_accepting();
                            }
                        }
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
                            break;
                        }
                    }
                }
                ended.reach();
            });
            goal.wait()
        })
        .expect("the driver works");
        assert_eq!(accepted.get(), clients.len());
    }
}
