//! Answers that others share: given by the task, or by the fast path while it waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::BUFFER_BYTES;

/// More than all buffers on the way hold.
const TOO_MANY_BYTES: usize = 20 * 1024 * 1024;

/// What has come that the fast path has not answered, unless a shared answer did not fit: then that.
async fn receive_request(socket: &Socket, into: &mut Vec<u8>) -> Result<io::Result<usize>, Unsent> {
    poll_fn(|_| match socket.take_unsent() {
        Some(unsent) => Poll::Ready(Err(unsent)),
        None => socket.poll_request().map_ok(|received| take(&received, into)).map(Ok),
    })
    .await
}

/// Sends `a`, and `b` when the answer to the first has begun, and only then reads that.
fn ask_twice_and_read_late(mut client: TcpStream) {
    client.write_all(b"a").expect("sends");
    client.peek(&mut [0]).expect("an answer begins");
    client.write_all(b"b").expect("sends");
    let mut all = vec![0; TOO_MANY_BYTES];
    client.read_exact(&mut all).expect("receives");
    assert!(all == pattern(TOO_MANY_BYTES));
}

#[test]
fn shared_answers_keep_their_order_also_when_requests_wait_for_their_turn() {
    const ROUNDS: usize = 300;
    for driver in drivers() {
        let answer = |reactor: Rc<Reactor>, socket: Socket| async move {
            let bytes: Rc<[u8]> = pattern(256).into();
            let mut received = Vec::new();
            while received.len() < ROUNDS {
                let before = received.len();
                match receive_request(&socket, &mut received).await {
                    Ok(outcome) => assert_ne!(outcome.expect("bytes"), 0),
                    Err(_) => panic!("they are short"),
                }
                for request in &received[before..] {
                    socket.send_shared(Rc::clone(&bytes), usize::from(*request));
                    // Bytes that come now are kept until this one has left.
                    reactor.next_turn().await;
                }
            }
        };
        serve(driver, answer, |mut client| {
            let lengths = |round: usize| (1 + round % 255) as u8;
            let mut reader = client.try_clone().expect("a descriptor");
            let writer = thread::spawn(move || {
                client.set_nodelay(true).expect("a plain option");
                for round in 0..ROUNDS {
                    client.write_all(&[lengths(round)]).expect("sends");
                }
            });
            let expected: Vec<u8> = (0..ROUNDS).flat_map(|round| pattern(usize::from(lengths(round)))).collect();
            let mut all = vec![0; expected.len()];
            reader.read_exact(&mut all).expect("receives");
            assert!(all == expected);
            writer.join().expect("it has sent");
        });
    }
}

#[test]
fn what_does_not_fit_of_a_shared_answer_comes_back() {
    for driver in drivers() {
        let answer = |_, socket: Socket| async move {
            let mut received = Vec::new();
            receive(&socket, &mut received).await.expect("a request");
            socket.send_shared(pattern(TOO_MANY_BYTES).into(), TOO_MANY_BYTES);
            let Err(unsent) = receive_request(&socket, &mut received).await else { panic!("it cannot fit") };
            let sent = unsent.sent.expect("the client is there");
            assert!(sent < TOO_MANY_BYTES && unsent.length == TOO_MANY_BYTES);
            send_all(&socket, unsent.bytes[sent..].to_vec(), SendManner::Patient).await.expect("the client reads");
            while received.len() < 2 {
                receive(&socket, &mut received).await.expect("the second request");
            }
            assert_eq!(received, b"ab");
        };
        serve(driver, answer, ask_twice_and_read_late);
    }
}

/// Answers one byte that is odd with so many bytes of a pattern.
struct OddAtOnce {
    bytes: Rc<[u8]>,
    answered: Cell<usize>,
}

impl FastPath for OddAtOnce {
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        let [request @ (1 | 3 | 5 | 7 | 9)] = *received else { return None };
        self.answered.set(self.answered.get() + 1);
        Some((Rc::clone(&self.bytes), usize::from(request)))
    }

    fn idle_until(&self) -> u64 {
        7
    }
}

#[test]
fn the_fast_path_answers_while_the_task_waits_and_the_order_is_kept() {
    const ROUNDS: usize = 400;
    // One after the other at first, then all together.
    const PLAIN_ROUNDS: usize = 100;
    let request = |round: usize| (1 + round % 10) as u8;
    for driver in drivers() {
        let answered = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&answered);
        let answer = move |reactor: Rc<Reactor>, socket: Socket| async move {
            let fast_path = Rc::new(OddAtOnce { bytes: pattern(256).into(), answered: Cell::new(0) });
            let weak: Weak<OddAtOnce> = Rc::downgrade(&fast_path);
            reactor.set_fast_path(weak);
            let mut received = Vec::new();
            while received.len() + fast_path.answered.get() < ROUNDS {
                let before = received.len();
                match receive_request(&socket, &mut received).await {
                    Ok(outcome) if outcome.as_ref().is_ok_and(|received| *received == 0) => break,
                    Ok(outcome) => assert_ne!(outcome.expect("bytes"), 0),
                    Err(_) => panic!("they are short"),
                }
                for request in &received[before..] {
                    socket.send_shared(Rc::clone(&fast_path.bytes), usize::from(*request));
                    reactor.next_turn().await;
                }
            }
            assert_eq!(received.len() + fast_path.answered.get(), ROUNDS);
            let is_answered = fast_path.answered.get() > 0;
            assert_eq!(socket.take_idle_until(), if is_answered { 7 } else { 0 });
            assert_eq!(socket.take_idle_until(), 0);
            seen.store(fast_path.answered.get(), Ordering::Relaxed);
        };
        serve(driver, answer, move |mut client| {
            client.set_nodelay(true).expect("a plain option");
            for round in 0..PLAIN_ROUNDS {
                client.write_all(&[request(round)]).expect("sends");
                let mut answer = vec![0; usize::from(request(round))];
                client.read_exact(&mut answer).expect("receives");
                assert!(answer == pattern(usize::from(request(round))));
            }
            let mut reader = client.try_clone().expect("a descriptor");
            let writer = thread::spawn(move || {
                for round in PLAIN_ROUNDS..ROUNDS {
                    client.write_all(&[request(round)]).expect("sends");
                }
                client.shutdown(std::net::Shutdown::Write).expect("ends");
            });
            let expected: Vec<u8> =
                (PLAIN_ROUNDS..ROUNDS).flat_map(|round| pattern(usize::from(request(round)))).collect();
            let mut all = vec![0; expected.len()];
            reader.read_exact(&mut all).expect("receives");
            assert!(all == expected);
            writer.join().expect("it has sent");
        });
        let answered = answered.load(Ordering::Relaxed);
        match driver {
            Driver::IoUring => assert!(answered >= PLAIN_ROUNDS / 2 - 1, "{answered}"),
            Driver::Epoll => assert_eq!(answered, 0),
        }
    }
}

/// Answers what fills a buffer of the ring.
struct FullBuffers;

impl FastPath for FullBuffers {
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        (received.len() == BUFFER_BYTES).then(|| (b"full".as_slice().into(), 4))
    }

    fn idle_until(&self) -> u64 {
        1
    }
}

/// No timer ends a wait here, so a task that is left waiting never ends.
#[test]
fn what_comes_together_with_a_request_that_is_answered_at_once_has_its_turn() {
    let with_more = [vec![b'a'; BUFFER_BYTES], b"b".to_vec()].concat();
    let with_end = vec![b'a'; BUFFER_BYTES];
    for request in [with_more, with_end].into_iter().filter(|_| Driver::IoUring.probe().is_ok()) {
        let (ended, is_ended) = std::sync::mpsc::channel();
        let server = thread::spawn(move || {
            let (sent, is_sent) = std::sync::mpsc::channel();
            let has_more = request.len() > BUFFER_BYTES;
            let answer = move |reactor: Rc<Reactor>, socket: Socket| async move {
                let fast_path: Rc<dyn FastPath> = Rc::new(FullBuffers);
                reactor.set_fast_path(Rc::downgrade(&fast_path));
                // More than fills a buffer is told of as two receives, and both in one turn, as all has come before the first.
                is_sent.recv().expect("it is sent");
                let mut received = Vec::new();
                while receive_request(&socket, &mut received).await.ok().expect("they are short").expect("bytes") > 0 {
                    socket.send_shared(b"rest".as_slice().into(), 4);
                }
                assert_eq!(received, if has_more { b"b".as_slice() } else { b"" });
            };
            let answers = serve(Driver::IoUring, answer, move |mut client| {
                client.write_all(&request).expect("sends");
                if !has_more {
                    client.shutdown(std::net::Shutdown::Write).expect("ends");
                }
                sent.send(()).expect("somebody waits");
                let mut answers = vec![0; if has_more { 8 } else { 4 }];
                client.read_exact(&mut answers).expect("receives");
                answers
            });
            ended.send(answers).expect("somebody waits");
        });
        // Only then: a thread that hangs is not waited for.
        let answers = is_ended.recv_timeout(Duration::from_secs(30)).expect("nobody is left waiting");
        assert!(b"fullrest".starts_with(&answers));
        server.join().expect("its checks hold");
    }
}

/// Answers `a` with so much that it cannot fit.
struct TooMuch(Rc<[u8]>);

impl FastPath for TooMuch {
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        (received == b"a").then(|| (Rc::clone(&self.0), self.0.len()))
    }

    fn idle_until(&self) -> u64 {
        1
    }
}

#[test]
fn what_does_not_fit_of_an_answer_of_the_fast_path_comes_back_to_the_task() {
    for driver in drivers().into_iter().filter(|driver| *driver == Driver::IoUring) {
        let bytes = pattern(TOO_MANY_BYTES);
        let answer = |reactor: Rc<Reactor>, socket: Socket| async move {
            let fast_path = Rc::new(TooMuch(bytes.into()));
            let weak: Weak<TooMuch> = Rc::downgrade(&fast_path);
            reactor.set_fast_path(weak);
            let mut received = Vec::new();
            let Err(unsent) = receive_request(&socket, &mut received).await else { panic!("it cannot fit") };
            assert!(received.is_empty());
            let sent = unsent.sent.expect("the client is there");
            assert!(sent < TOO_MANY_BYTES && unsent.length == TOO_MANY_BYTES);
            send_all(&socket, unsent.bytes[sent..].to_vec(), SendManner::Patient).await.expect("the client reads");
            // What has come meanwhile is the task's.
            receive_request(&socket, &mut received).await.ok().expect("a request").expect("the second");
            assert_eq!(received, b"b");
        };
        serve(driver, answer, ask_twice_and_read_late);
    }
}
