//! What these tests share: todos, patience, and a proxy that makes faults.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use million_rps::todo::{Timestamp, Todo, TodoId};

pub use crate::servers::{required, unique};

/// A todo with these contents.
pub fn todo(created_at_micros: i64, title: &str) -> Todo {
    Todo {
        id: TodoId::new(),
        title: title.to_owned(),
        description: "with \"quotes\", a \\ and ünïcödé 😀".to_owned(),
        completed: false,
        user_id: "anna".to_owned(),
        created_at: Timestamp::from_micros(created_at_micros),
        updated_at: Timestamp::from_micros(created_at_micros + 1),
    }
}

/// Calls `attempt` until it returns something; gives up loudly after a minute, which no healthy run comes near.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "still not after a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP proxy on loopback that cuts what runs through it, at a chosen point.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// The answer to the next request that holds these bytes is cut off.
    cut_reply_to: Mutex<Option<&'static str>>,
    refuse: AtomicBool,
    stall: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts one in front of `target` (`host:port`).
    pub fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Proxy { port: listener.local_addr().expect("bound").port(), faults: Arc::default() };
        let (target, faults) = (target.to_owned(), proxy.faults.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if faults.refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let (client_again, server_again) = (duplicate(&client), duplicate(&server));
                faults.open.lock().expect("unpoisoned").extend([duplicate(&client), duplicate(&server)]);
                let cut = Arc::new(AtomicBool::new(false));
                let (requests, replies) = (faults.clone(), cut.clone());
                std::thread::spawn(move || {
                    pump(client, server, |bytes| {
                        let mut pattern = requests.cut_reply_to.lock().expect("unpoisoned");
                        if let Some(text) = *pattern
                            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
                        {
                            *pattern = None;
                            cut.store(true, Ordering::SeqCst);
                        }
                        true
                    });
                });
                let stalled = faults.clone();
                std::thread::spawn(move || {
                    pump(server_again, client_again, |_| {
                        while stalled.stall.load(Ordering::SeqCst) {
                            std::thread::sleep(Duration::from_millis(10));
                        }
                        !replies.load(Ordering::SeqCst)
                    });
                });
            }
        });
        proxy
    }

    /// The next request that holds `text` reaches the server, but its answer does not reach the client: the connection
    /// is cut instead.
    pub fn cut_reply_to(&self, text: &'static str) {
        *self.faults.cut_reply_to.lock().expect("unpoisoned") = Some(text);
    }

    /// From now on (or no longer) new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.faults.refuse.store(refuse, Ordering::SeqCst);
    }

    /// From now on (or no longer) no answer arrives, although all connections stay open: a frozen server.
    pub fn stall(&self, stall: bool) {
        self.faults.stall.store(stall, Ordering::SeqCst);
    }

    /// Cuts all open connections.
    pub fn cut(&self) {
        for socket in self.faults.open.lock().expect("unpoisoned").drain(..) {
            // Either end may have gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn duplicate(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("a second handle of a socket")
}

/// Moves bytes until an end closes or `forward` says no.
fn pump(mut from: TcpStream, mut to: TcpStream, mut forward: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if length == 0 || !forward(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            // The other direction may have closed them already.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}
