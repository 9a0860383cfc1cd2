//! A TCP proxy on loopback that stands between the program and a server, and makes the faults of a network: slow, cut,
//! closed, or silent while every connection stays open.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a change of the faults may take to reach a connection.
const TICK: Duration = Duration::from_millis(10);
/// Bytes that one direction of a connection takes ahead of what it delivers; then it stops reading, as a full link does.
const AHEAD_MAX_BYTES: usize = 256 * 1024;
/// Bytes of one piece: small enough that a narrow link delivers steadily.
const PIECE_BYTES: usize = 8 * 1024;

/// Bytes in which a client gives its name.
const FIRST_BYTES: usize = 256;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What clients send.
    ToServer,
    /// What servers answer.
    ToClient,
}

/// The proxy. It ends, and its connections with it, when this is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    thread: Option<JoinHandle<()>>,
}

/// What is wrong with the network.
#[derive(Debug, Default, Clone)]
struct Faults {
    /// Added to each direction.
    latency: Duration,
    /// Of each direction of each connection; `None`: no limit.
    bytes_per_second: Option<u32>,
    silent_to_server: bool,
    silent_to_client: bool,
    /// Connections whose first bytes hold these are silent both ways.
    silent_to_speakers_of: Option<String>,
    refuse: bool,
    /// Counts the cuts; a connection ends when it has risen since its beginning.
    cuts: u64,
    /// The answer to the next request that holds these bytes is cut off.
    cut_reply_to: Option<&'static str>,
    /// The next request that holds these bytes does not arrive.
    swallow: Option<&'static str>,
    connections: u64,
    ended: bool,
}

impl Proxy {
    /// Starts one in front of `target` (`host:port`), on a free port.
    pub fn before(target: &str) -> Proxy {
        Proxy::listen("127.0.0.1:0", target)
    }

    /// Starts one in front of `target`, at this address: for servers that tell their clients where to connect.
    ///
    /// # Panics
    /// When something else listens there.
    pub fn listen(address: &str, target: &str) -> Proxy {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        let address = listener.local_addr().expect("bound");
        let faults = Arc::new(Mutex::new(Faults::default()));
        let (target, shared) = (target.to_owned(), faults.clone());
        let thread = std::thread::spawn(move || accept(&listener, &target, &shared));
        Proxy { address, faults, thread: Some(thread) }
    }

    /// Every byte takes `latency` longer each way, and no more than so many leave in a second. Connections are not harmed.
    pub fn slow(&self, latency: Duration, bytes_per_second: u32) {
        let mut faults = self.faults();
        (faults.latency, faults.bytes_per_second) = (latency, Some(bytes_per_second));
    }

    /// Nothing arrives that way any more, although all connections stay open and new ones are taken: a frozen server, or a
    /// link that has died without a word. What was sent meanwhile arrives when it is healed.
    pub fn silence(&self, way: Way) {
        match way {
            Way::ToServer => self.faults().silent_to_server = true,
            Way::ToClient => self.faults().silent_to_client = true,
        }
    }

    /// [`Proxy::silence`], both ways.
    pub fn black_hole(&self) {
        self.silence(Way::ToServer);
        self.silence(Way::ToClient);
    }

    /// [`Proxy::black_hole`] for the connections alone whose clients gave this name in their first bytes. A new one gets its
    /// first bytes through.
    pub fn black_hole_speakers_of(&self, name: &str) {
        self.faults().silent_to_speakers_of = Some(name.to_owned());
    }

    /// New connections are reset at once.
    pub fn refuse(&self) {
        self.faults().refuse = true;
    }

    /// Resets all open connections, now (RST).
    pub fn cut(&self) {
        self.faults().cuts += 1;
    }

    /// The next request that holds `text` reaches the server, but its answer does not reach the client: the connection is
    /// reset instead.
    pub fn cut_reply_to(&self, text: &'static str) {
        self.faults().cut_reply_to = Some(text);
    }

    /// The next request that holds `text` does not reach the server, and its connection goes on as if it had. For requests
    /// that are sent by themselves, and small.
    pub fn swallow(&self, text: &'static str) {
        self.faults().swallow = Some(text);
    }

    /// From now on nothing is wrong.
    pub fn heal(&self) {
        let mut faults = self.faults();
        let Faults { cuts, connections, .. } = *faults;
        *faults = Faults { cuts, connections, ..Faults::default() };
    }

    /// Connections that clients have made so far, those that were refused included.
    pub fn connections(&self) -> u64 {
        self.faults().connections
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.faults().ended = true;
        if let Some(thread) = self.thread.take() {
            // The address is free again when this returns.
            let _ = thread.join();
        }
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, target: &str, shared: &Arc<Mutex<Faults>>) {
    while !lock(shared).ended {
        let Ok((client, _)) = listener.accept() else {
            wait(&[(listener.as_raw_fd(), libc::POLLIN)], TICK);
            continue;
        };
        let (refuse, cuts) = {
            let mut faults = lock(shared);
            faults.connections += 1;
            (faults.refuse, faults.cuts)
        };
        let server = if refuse { None } else { TcpStream::connect(target).ok() };
        let Some(server) = server else {
            reset(&client);
            continue;
        };
        for socket in [&client, &server] {
            socket.set_nonblocking(true).expect("a socket can be told not to block");
            socket.set_nodelay(true).expect("TCP_NODELAY can be set");
        }
        let connection = Connection { client, server, to_server: Pipe::new(), to_client: Pipe::new(), cuts };
        let shared = shared.clone();
        std::thread::spawn(move || connection.run(&shared));
    }
}

/// Lets the end of this socket be a reset (SO_LINGER of zero seconds).
fn reset(socket: &TcpStream) {
    // A socket that the other end has reset already may refuse it.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Waits until one of the descriptors is ready for its events, `longest` at most.
fn wait(interests: &[(i32, libc::c_short)], longest: Duration) {
    let mut polled: Vec<libc::pollfd> =
        interests.iter().map(|&(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
    let milliseconds = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the pointer is to so many structures, which outlive the call. An interruption is an early end of the wait.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
}

/// A client, the server, and what is between them.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    to_server: Pipe,
    to_client: Pipe,
    /// When it began.
    cuts: u64,
}

impl Connection {
    fn run(mut self, shared: &Mutex<Faults>) {
        loop {
            let mut faults = lock(shared).clone();
            if faults.silent_to_speakers_of.as_ref().is_some_and(|name| self.to_server.begins_with_name(name)) {
                (faults.silent_to_server, faults.silent_to_client) = (true, true);
            }
            if faults.ended || faults.cuts != self.cuts || self.turn(&faults, shared).is_err() {
                reset(&self.client);
                reset(&self.server);
                return;
            }
            if self.to_server.is_done && self.to_client.is_done {
                return;
            }
            self.wait(&faults);
        }
    }

    /// Moves what can be moved now.
    ///
    /// # Errors
    /// An end was reset, or the connection is to be.
    fn turn(&mut self, faults: &Faults, shared: &Mutex<Faults>) -> std::io::Result<()> {
        if !faults.silent_to_server {
            let before = self.to_server.arrived();
            self.to_server.take(&mut self.client, faults)?;
            if let Some(text) = faults.swallow
                && self.to_server.drop_piece_with(text, before)
            {
                lock(shared).swallow = None;
            }
            let mut new = self.to_server.queue.iter().skip(before);
            if let Some(text) = faults.cut_reply_to
                && new.any(|piece| piece.holds(text))
            {
                lock(shared).cut_reply_to = None;
                self.to_server.deliver_now(&mut self.server)?;
                return self.cut_at_the_answer();
            }
            self.to_server.deliver(&mut self.server)?;
        }
        if !faults.silent_to_client {
            self.to_client.take(&mut self.server, faults)?;
            self.to_client.deliver(&mut self.client)?;
        }
        Ok(())
    }

    /// Waits until the server has answered, which says that it has done its work, and ends the connection.
    fn cut_at_the_answer(&mut self) -> std::io::Result<()> {
        wait(&[(self.server.as_raw_fd(), libc::POLLIN)], Duration::from_secs(10));
        Err(ErrorKind::ConnectionReset.into())
    }

    fn wait(&self, faults: &Faults) {
        let mut interests = Vec::with_capacity(4);
        let mut longest = TICK;
        for (pipe, from, to, silent) in [
            (&self.to_server, &self.client, &self.server, faults.silent_to_server),
            (&self.to_client, &self.server, &self.client, faults.silent_to_client),
        ] {
            if silent {
                continue;
            }
            if pipe.has_room() {
                interests.push((from.as_raw_fd(), libc::POLLIN));
            }
            match pipe.queue.front().map(|piece| piece.due_at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => interests.push((to.as_raw_fd(), libc::POLLOUT)),
                Some(due) => longest = longest.min(due),
                None => {}
            }
        }
        wait(&interests, longest);
    }
}

/// One direction of a connection: what was read and is not delivered yet.
struct Pipe {
    /// The first bytes that were sent.
    first: Vec<u8>,
    queue: VecDeque<Piece>,
    queued_bytes: usize,
    /// When the last piece has left a narrow link.
    free_at: Instant,
    /// The sender has said that it is done; the receiver is told behind the last piece.
    is_ending: bool,
    is_done: bool,
}

struct Piece {
    bytes: Vec<u8>,
    due_at: Instant,
}

impl Piece {
    fn holds(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Pipe {
    fn new() -> Pipe {
        Pipe {
            first: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            free_at: Instant::now(),
            is_ending: false,
            is_done: false,
        }
    }

    fn begins_with_name(&self, name: &str) -> bool {
        self.first.windows(name.len()).any(|window| window == name.as_bytes())
    }

    /// Drops the first piece behind the first `skip` that holds the text; says whether there was one.
    fn drop_piece_with(&mut self, text: &str, skip: usize) -> bool {
        let found = self.queue.iter().skip(skip).position(|piece| piece.holds(text));
        let dropped = found.and_then(|place| self.queue.remove(skip + place));
        self.queued_bytes -= dropped.as_ref().map_or(0, |piece| piece.bytes.len());
        dropped.is_some()
    }

    fn arrived(&self) -> usize {
        self.queue.len()
    }

    fn has_room(&self) -> bool {
        !self.is_ending && self.queued_bytes < AHEAD_MAX_BYTES
    }

    fn take(&mut self, from: &mut TcpStream, faults: &Faults) -> std::io::Result<()> {
        while self.has_room() {
            let mut buffer = [0; PIECE_BYTES];
            match from.read(&mut buffer) {
                Ok(0) => self.is_ending = true,
                Ok(length) => {
                    let now = Instant::now();
                    let due_at = (now + faults.latency).max(self.free_at);
                    if let Some(rate) = faults.bytes_per_second {
                        self.free_at = due_at + Duration::from_secs(1).mul_f64(length as f64 / f64::from(rate));
                    }
                    if self.first.is_empty() {
                        self.first.extend_from_slice(&buffer[..length.min(FIRST_BYTES)]);
                    }
                    self.queued_bytes += length;
                    self.queue.push_back(Piece { bytes: buffer[..length].to_vec(), due_at });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn deliver(&mut self, to: &mut TcpStream) -> std::io::Result<()> {
        while let Some(piece) = self.queue.front_mut() {
            if piece.due_at > Instant::now() {
                return Ok(());
            }
            match to.write(&piece.bytes) {
                Ok(length) => {
                    self.queued_bytes -= length;
                    piece.bytes.drain(..length);
                    if piece.bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.is_ending && !self.is_done {
            self.is_done = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Delivers everything, due or not.
    fn deliver_now(&mut self, to: &mut TcpStream) -> std::io::Result<()> {
        self.queue.iter_mut().for_each(|piece| piece.due_at = Instant::now());
        while !self.queue.is_empty() {
            self.deliver(to)?;
            wait(&[(to.as_raw_fd(), libc::POLLOUT)], TICK);
        }
        Ok(())
    }
}
