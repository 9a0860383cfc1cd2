//! Sends bytes to the real program, whole and split, and compares its answers with the prediction.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::client::{Client, lossy};
use crate::harness::random::Random;
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::Shared;
use crate::prediction::{End, Prediction, predict};

/// Inputs up to this length are split at every byte, longer ones at places that a seed chooses.
const EVERY_BYTE_MAX: usize = 400;
/// How many senders there are at the same time.
const SENDERS: usize = 4;

static SERVER: Shared = Shared::new(Setup::new);

/// Sends every input whole, and split into two reads of the server: at every byte where it is short, else at `splits`
/// places.
pub fn check_all(driver: Driver, inputs: &[(String, Vec<u8>)], splits: usize, every_byte: bool) {
    let server = SERVER.with(driver);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while let Some((name, input)) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(&server, name, input, splits, every_byte);
                }
            });
        }
    });
    server.connect().assert_goes_on();
}

fn check(server: &Server, name: &str, input: &[u8], splits: usize, every_byte: bool) {
    let prediction = predict(input);
    let mut random = Random::new(input.len() as u64);
    let cuts: Vec<usize> = match input.len() {
        0 => Vec::new(),
        length if every_byte && length <= EVERY_BYTE_MAX => (0..length).collect(),
        length => (0..splits).map(|_| random.below(length)).collect(),
    };
    for cut in std::iter::once(None).chain(cuts.into_iter().map(Some)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| exchange(server, input, cut, &prediction)));
        if let Err(panic) = outcome {
            eprintln!("{name}, cut at {cut:?}, predicted {prediction:?}:\n{}", lossy(input));
            resume_unwind(panic);
        }
    }
}

fn exchange(server: &Server, input: &[u8], cut: Option<usize>, prediction: &Prediction) {
    let mut client = server.connect();
    let mut bytes = input.to_vec();
    if prediction.end == End::Open {
        bytes.extend(get("/health").bytes());
    }
    // The server may refuse and close before it has taken all of this.
    let _ = match cut {
        None => client.try_send(&bytes),
        Some(cut) => {
            // A whole request goes before the first part, in the same segment: its answer says that the part is there.
            let mut first = get("/health").bytes();
            first.extend_from_slice(&bytes[..cut]);
            client.send(first);
            client.answer().expect(200);
            client.try_send(&bytes[cut..])
        }
    };
    for request in &prediction.requests {
        let answer = loop {
            let answer = client.next_answer(request.is_head).expect("each request is answered");
            if answer.status != 100 {
                break answer;
            }
            assert!(request.waits, "nobody has asked for 100: {answer:?}");
        };
        match request.status {
            Some(status) if !request.waits => assert_eq!(answer.status, status, "{answer:?}"),
            _ => assert!((200..500).contains(&answer.status) || answer.status == 501, "{answer:?}"),
        }
        if answer.closes() {
            assert!(request.closes || request.waits, "the connection should go on: {answer:?}");
            client.assert_ended();
            return;
        }
        assert!(!request.closes, "the connection should end: {answer:?}");
    }
    match prediction.end {
        End::Open => {
            let answer = client.answer().expect(200);
            assert!(!answer.closes(), "{answer:?}");
        }
        End::Incomplete => assert_rest_is_missed(&mut client),
        End::Closed => unreachable!("the last answer closes"),
    }
}

/// The rest of a request never comes: the connection ends, without an answer or with an error.
fn assert_rest_is_missed(client: &mut Client) {
    client.finish_sending();
    while let Some(answer) = client.next_answer(false) {
        assert!(answer.status == 100 || (answer.closes() && (400..502).contains(&answer.status)), "{answer:?}");
    }
}
