//! Bytes that somebody has while the reactor goes on.

use super::*;

/// As many as come round all buffers that a ring has at first, many times.
const ROUNDS: usize = 1_000;

#[test]
fn what_has_been_received_stays_as_long_as_somebody_has_it_also_without_its_connection() {
    for driver in drivers() {
        let (mut other, served) = pair();
        let echo = move |reactor: Rc<Reactor>, socket: Socket| async move {
            let other = Socket::new(Detached::of(&reactor, served)).expect("a socket");
            let kept = poll_fn(|_| other.poll_receive()).await.expect("bytes");
            for round in 0..ROUNDS {
                let mut received = Vec::new();
                receive(&socket, &mut received).await.expect("bytes");
                send_all(&socket, received, SendManner::Urgent).await.expect("the client reads");
                if round == ROUNDS / 2 {
                    other.close();
                }
            }
            assert_eq!(&kept[..], b"this stays");
            drop(kept);
            assert!(matches!(poll_fn(|_| other.poll_receive()).await.as_deref(), Ok([])), "it is closed");
        };
        serve(driver, echo, move |mut client| {
            other.write_all(b"this stays").expect("sends");
            for round in 0..ROUNDS {
                let sent = [round as u8; 10];
                client.write_all(&sent).expect("sends");
                let mut back = [0; 10];
                client.read_exact(&mut back).expect("receives");
                assert_eq!(back, sent);
            }
        });
    }
}

#[test]
fn all_buffers_are_the_kernels_again_when_nobody_has_received_bytes_any_more() {
    for driver in drivers().into_iter().filter(|driver| *driver == Driver::IoUring) {
        let given = |reactor: &Reactor| match &*reactor.backend.borrow() {
            AnyBackend::Uring(uring) => uring.buffers_given(),
            _ => unreachable!("filtered"),
        };
        let count = move |reactor: Rc<Reactor>, socket: Socket| async move {
            let before = given(&reactor);
            let first = poll_fn(|_| socket.poll_receive()).await.expect("bytes");
            send_all(&socket, first.to_vec(), SendManner::Urgent).await.expect("the client reads");
            let second = poll_fn(|_| socket.poll_receive()).await.expect("bytes");
            assert_eq!((&first[..], &second[..]), (b"one".as_slice(), b"two".as_slice()));
            assert_eq!(given(&reactor), before, "both are here");
            drop(first);
            assert_eq!(given(&reactor), before.wrapping_add(1));
            socket.close();
            drop(second);
            assert_eq!(given(&reactor), before.wrapping_add(2));
        };
        serve(driver, count, |mut client| {
            client.write_all(b"one").expect("sends");
            client.read_exact(&mut [0; 3]).expect("receives");
            client.write_all(b"two").expect("sends");
        });
    }
}
