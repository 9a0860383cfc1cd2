//! One connection: its request, its answer, its end.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::answer::Answers;
use crate::limits::{HEAD_MAX_BYTES, WORKER_HTTP_DEADLINE_MS, WORKER_HTTP_HEAD_DEADLINE_MS};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 4096;
/// Bytes that are read behind a request in one turn, so that a client that sends without end does not hold up the others.
const IGNORED_PER_TURN_MAX_BYTES: usize = HEAD_MAX_BYTES;

/// What is being waited for.
enum Phase {
    /// The head of the request.
    Asking,
    /// Room for the rest of the answer.
    Answering { answer: Vec<u8>, sent: usize },
    /// The client's end. What it still sends is read, so that a reset does not overtake the answer (RFC 9112 section 9.6).
    Ending,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for its client.
    Open,
    /// It has ended, or is to be closed.
    Ended,
}

/// One connection, which never blocks.
pub struct Connection {
    stream: TcpStream,
    peer: IpAddr,
    begun_at: Instant,
    received: Vec<u8>,
    phase: Phase,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(stream: TcpStream, peer: IpAddr) -> Connection {
        Connection { stream, peer, begun_at: Instant::now(), received: Vec::new(), phase: Phase::Asking }
    }

    /// What poll(2) has to wait for.
    pub fn poll(&self) -> libc::pollfd {
        let events = match self.phase {
            Phase::Answering { .. } => libc::POLLOUT,
            Phase::Asking | Phase::Ending => libc::POLLIN,
        };
        libc::pollfd { fd: self.stream.as_raw_fd(), events, revents: 0 }
    }

    /// When it is over, whatever its client does.
    pub fn deadline(&self) -> Instant {
        let deadline_ms = match self.phase {
            Phase::Asking => WORKER_HTTP_HEAD_DEADLINE_MS,
            Phase::Answering { .. } | Phase::Ending => WORKER_HTTP_DEADLINE_MS,
        };
        self.begun_at + Duration::from_millis(deadline_ms)
    }

    /// Whether nothing is owed to its client now.
    pub fn is_idle(&self) -> bool {
        !matches!(self.phase, Phase::Answering { .. })
    }

    /// Goes on as far as it goes without waiting.
    pub fn advance(&mut self, answers: &Answers) -> Progress {
        match self.try_advance(answers) {
            Ok(progress) => progress,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.look_at_deadline(answers),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Progress::Open,
            // The client has gone: there is nobody to tell.
            Err(_) => Progress::Ended,
        }
    }

    /// Runs until the client has to do something, which is [`io::ErrorKind::WouldBlock`].
    fn try_advance(&mut self, answers: &Answers) -> io::Result<Progress> {
        let mut ignored_bytes = 0;
        loop {
            match &mut self.phase {
                Phase::Asking => {
                    if let Some(answer) = answers.answer(&self.received, self.peer) {
                        self.phase = Phase::Answering { answer, sent: 0 };
                    } else if self.receive()? == 0 {
                        return Ok(Progress::Ended);
                    }
                }
                Phase::Answering { answer, sent } if *sent == answer.len() => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.phase = Phase::Ending;
                }
                Phase::Answering { answer, sent } => *sent += self.stream.write(&answer[*sent..])?,
                Phase::Ending => {
                    self.received.clear();
                    let received = self.receive()?;
                    ignored_bytes += received;
                    if received == 0 {
                        return Ok(Progress::Ended);
                    }
                    if ignored_bytes >= IGNORED_PER_TURN_MAX_BYTES {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut piece = [0; PIECE_BYTES];
        let length = self.stream.read(&mut piece)?;
        self.received.extend_from_slice(&piece[..length]);
        Ok(length)
    }

    /// A request that has begun and does not end is answered 408; everything else just ends.
    fn look_at_deadline(&mut self, answers: &Answers) -> Progress {
        if Instant::now() < self.deadline() {
            return Progress::Open;
        }
        match self.phase {
            Phase::Asking if !self.received.is_empty() => {
                self.phase = Phase::Answering { answer: answers.timeout(&self.received), sent: 0 };
                self.advance(answers)
            }
            _ => Progress::Ended,
        }
    }
}
