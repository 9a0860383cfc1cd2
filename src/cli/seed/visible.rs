//! Waiting until a running server shows what was seeded through it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);
/// Longest time without progress: somebody may be deleting todos meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Todos in the list that the server answers from, by its `/ready`; `None` when it does not say.
pub fn todos_shown(address: SocketAddr) -> Option<u64> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    stream.write_all(format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let body_at = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let document: serde_json::Value = serde_json::from_slice(&answer[body_at..]).ok()?;
    document["snapshot"]["todos"].as_u64()
}

/// Waits until the server shows at least `expected` todos; `false` when it stops getting closer.
pub fn wait_until_shown(address: SocketAddr, expected: u64) -> bool {
    let mut most = 0;
    let mut progressed_at = Instant::now();
    while progressed_at.elapsed() < PATIENCE {
        match todos_shown(address) {
            Some(shown) if shown >= expected => return true,
            Some(shown) if shown > most => {
                most = shown;
                progressed_at = Instant::now();
            }
            _ => {}
        }
        std::thread::sleep(POLL);
    }
    false
}
