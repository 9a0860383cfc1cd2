//! Clients that have ended their side, and perhaps read what is sent to them, and perhaps not.

use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// More than all buffers on the way hold.
const BYTES: usize = 20 * 1024 * 1024;
/// How long a send waits for a client that does not read.
const WAIT: Duration = Duration::from_secs(1);
/// What the waiting may take of a CPU: next to nothing, on a machine that is busy with other things.
const CPU_MAX: Duration = Duration::from_millis(200);

/// User and system time of this thread, and the threads of the kernel that work for this process's rings.
fn vitals() -> (Duration, usize) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time outlives the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let workers = names.filter(|name| name.starts_with("iou-wrk")).count();
    (Duration::new(time.tv_sec as u64, time.tv_nsec as u32), workers)
}

/// Sends until the client reads, and checks what the wait for it takes. The client is told to read then.
async fn send_while_nobody_reads(
    reactor: Rc<Reactor>,
    socket: Rc<Socket>,
    manner: SendManner,
    pieces: usize,
    may_read: Sender<()>,
) {
    let is_read = Rc::new(Cell::new(false));
    let (observer, seen) = (Rc::clone(&reactor), Rc::clone(&is_read));
    reactor.spawn(async move {
        // By then the socket is full.
        observer.sleep(WAIT).await;
        let (before, _) = vitals();
        observer.sleep(WAIT).await;
        assert!(!seen.get(), "the client does not read yet");
        let (now, workers) = vitals();
        let taken = now - before;
        assert!(taken < CPU_MAX, "{:?}: {taken:?} for waiting", observer.driver());
        assert_eq!(workers, 0, "{:?}", observer.driver());
        may_read.send(()).expect("the client waits");
    });
    let mut sent = 0;
    for piece in pattern(BYTES).chunks(BYTES / pieces) {
        send_all(&socket, piece.to_vec(), manner).await.expect("the client reads in the end");
        sent += piece.len();
    }
    is_read.set(true);
    assert_eq!(sent, BYTES);
}

fn read_late(mut client: TcpStream, may_read: &Receiver<()>) {
    may_read.recv().expect("the other's checks hold");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("receives");
    assert!(all == pattern(BYTES));
}

#[test]
fn a_send_to_a_client_that_ended_before_it_takes_no_cpu_and_no_thread() {
    for driver in drivers() {
        for (manner, pieces) in [(SendManner::Expected, 1), (SendManner::Patient, 1), (SendManner::Urgent, 40)] {
            let (told, may_read) = channel();
            let write = move |reactor: Rc<Reactor>, socket: Socket| async move {
                assert_eq!(receive(&socket, &mut Vec::new()).await.expect("the end"), 0);
                send_while_nobody_reads(reactor, Rc::new(socket), manner, pieces, told).await;
            };
            serve(driver, write, move |client| {
                client.shutdown(Shutdown::Write).expect("it is open");
                read_late(client, &may_read);
            });
        }
    }
}

#[test]
fn nor_does_one_to_a_client_that_ends_while_it_waits() {
    for driver in drivers() {
        let (told, may_read) = channel();
        let write = |reactor: Rc<Reactor>, socket: Socket| async move {
            // Nobody looks at what comes.
            send_while_nobody_reads(reactor, Rc::new(socket), SendManner::Patient, 1, told).await;
        };
        serve(driver, write, move |client| {
            thread::sleep(WAIT / 5);
            client.shutdown(Shutdown::Write).expect("it is open");
            read_late(client, &may_read);
        });
    }
}

#[test]
fn nor_does_one_to_a_client_whose_end_stands_behind_bytes_that_are_not_read() {
    for driver in drivers() {
        let (told, may_read) = channel();
        let write = |reactor: Rc<Reactor>, socket: Socket| async move {
            let mut received = Vec::new();
            receive(&socket, &mut received).await.expect("bytes");
            let socket = Rc::new(socket);
            send_while_nobody_reads(reactor, Rc::clone(&socket), SendManner::Expected, 1, told).await;
            while receive(&socket, &mut received).await.expect("bytes, then the end") > 0 {}
            assert_eq!(received.len(), 8 * UNREAD_MAX_BYTES);
        };
        serve(driver, write, move |mut client| {
            // So much that nothing more is received, and the end behind it is never heard of.
            client.write_all(&vec![b'x'; 8 * UNREAD_MAX_BYTES]).expect("the kernel takes it");
            client.shutdown(Shutdown::Write).expect("it is open");
            read_late(client, &may_read);
        });
    }
}

#[test]
fn a_reset_after_the_end_is_noticed_by_who_sends() {
    for driver in drivers() {
        let write = |_, socket: Socket| async move {
            assert_eq!(receive(&socket, &mut Vec::new()).await.expect("the end"), 0);
            send_all(&socket, pattern(BYTES), SendManner::Patient).await.expect_err("the client has gone");
        };
        serve(driver, write, |client| {
            client.shutdown(Shutdown::Write).expect("it is open");
            thread::sleep(WAIT / 5);
            let socket = socket2::SockRef::from(&client);
            socket.set_linger(Some(Duration::ZERO)).expect("a plain option");
        });
    }
}

#[test]
fn a_deadline_ends_a_send_to_a_client_that_has_ended() {
    for driver in drivers() {
        let write = |reactor: Rc<Reactor>, socket: Socket| async move {
            assert_eq!(receive(&socket, &mut Vec::new()).await.expect("the end"), 0);
            let socket = Rc::new(socket);
            let (other, sleeper) = (Rc::clone(&socket), Rc::clone(&reactor));
            reactor.spawn(async move {
                sleeper.sleep(WAIT / 5).await;
                other.shut_down(libc::SHUT_RDWR);
            });
            send_all(&socket, pattern(BYTES), SendManner::Patient).await.expect_err("it was ended");
        };
        serve(driver, write, |client| {
            client.shutdown(Shutdown::Write).expect("it is open");
            thread::sleep(WAIT);
        });
    }
}
