//! Who may take a port beside whom. The kernel spreads the connections of a port over all processes that listen on it
//! (SO_REUSEPORT), and asks only whether they are of one user: processes that do not share their data would get half of the
//! writes each.
//!
//! So each API process lays a claim: an abstract Unix socket whose name has port and address. Such names belong to the
//! network namespace, as ports do, and end with their process. A newcomer lays its own claim first and looks at the others
//! then, so that of two newcomers at least one sees the other. It asks each claim for a proof ([`proof`]) that it is of the
//! same deployment, and compares the sockets that listen on the port with those that have proven it ([`survey`]). A
//! deployment in a folder has one process, so it never shares.

mod proof;
mod survey;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "services")]
pub use proof::key_purpose;
use proof::{Answer, Asked, Standing};
use survey::ClaimName;

use super::ProcessError;
use super::events::{EndReporter, Event, Events};

/// How long a process that has just been told to end, or killed, may take to leave the port.
const LEAVING_PATIENCE: Duration = Duration::from_millis(500);
/// How long a process that holds the port may take to answer: it may be busy, or stopped for a moment.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at a port that cannot be taken yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// This process's claim on its port, until the process ends.
pub struct PortClaim {
    name: ClaimName,
    address: SocketAddr,
    standing: Arc<Standing>,
}

/// What a look at the port has found.
#[derive(Debug)]
enum Found {
    /// Nobody else.
    Nobody,
    /// Only processes of this deployment.
    Own,
    /// Not decided yet: for this reason, and for this long at most.
    Wait(String, Duration),
    /// A process that does not share this one's data.
    Other(String),
}

/// What became of the wait for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The port is this process's alone.
    Alone,
    /// Other processes of the deployment serve it, too.
    Beside,
    /// The process has been told to stop.
    Stopped,
}

impl PortClaim {
    /// Lays a claim on the port of these listeners, which are bound, and answers those who ask. `shares` says whether
    /// processes of this deployment may stand beside each other at all.
    ///
    /// # Errors
    /// The system refuses a socket or a thread.
    pub fn lay(listeners: &[TcpListener], shares: bool, at_end: EndReporter) -> io::Result<PortClaim> {
        let address = listeners.first().ok_or(io::ErrorKind::InvalidInput)?.local_addr()?;
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = ClaimName::new(address, u64::from_ne_bytes(random));
        let sockets =
            listeners.iter().map(|listener| survey::inode_of(listener.as_raw_fd())).collect::<Result<_, _>>()?;
        let standing = Arc::new(Standing::new(name.text().into(), sockets, shares));
        let socket = UnixListener::bind_addr(&UnixAddr::from_abstract_name(name.text())?)?;
        let answering = Arc::clone(&standing);
        std::thread::Builder::new().name("port".into()).spawn(move || {
            let _at_end = at_end;
            proof::answer(&socket, &answering);
        })?;
        Ok(PortClaim { name, address, standing })
    }

    /// What proofs are made with; whoever learns the deployment's key gives it here.
    #[cfg(feature = "services")]
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Waits until the port is this process's to take, and takes it.
    ///
    /// # Errors
    /// [`ProcessError::PortInUse`] when a process holds it that does not share this one's data.
    pub fn take(&self, events: &Events) -> Result<Admission, ProcessError> {
        let started_at = Instant::now();
        let mut told = String::new();
        loop {
            let reason = match self.look()? {
                Found::Nobody => {
                    self.standing.serve();
                    return Ok(Admission::Alone);
                }
                Found::Own => {
                    self.standing.serve();
                    return Ok(Admission::Beside);
                }
                Found::Wait(reason, patience) if started_at.elapsed() < patience => reason,
                Found::Other(holder) if started_at.elapsed() < LEAVING_PATIENCE => holder,
                Found::Wait(holder, _) | Found::Other(holder) => {
                    return Err(ProcessError::PortInUse { address: self.address, holder });
                }
            };
            if reason != told && started_at.elapsed() >= LEAVING_PATIENCE {
                tracing::warn!("waiting for port {}: {reason}", self.address.port());
                told = reason;
            }
            if events.next_within(LOOK_AGAIN).is_some_and(|event| event != Event::Reload) {
                return Ok(Admission::Stopped);
            }
        }
    }

    /// Looks once who else is there.
    fn look(&self) -> io::Result<Found> {
        let claims = survey::claims(self.address, &self.name)?;
        let mut known = self.standing.sockets().to_vec();
        let mut has_neighbour = false;
        for claim in claims {
            match proof::ask(&claim, &self.standing)? {
                Asked { answer: Answer::Gone, .. } => {}
                Asked { answer: Answer::Proven(sockets), .. } => {
                    has_neighbour = true;
                    known.extend(sockets);
                }
                Asked { answer: Answer::Other { serves: false }, .. } if self.name < claim => {
                    // Both have come at the same time, and find the same order.
                    let reason = "another process is giving the port up to this one".to_owned();
                    return Ok(Found::Wait(reason, ANSWER_PATIENCE));
                }
                Asked { answer: Answer::Other { .. }, holder } => {
                    let reason = match self.standing.shares() {
                        true => "another deployment, or another KAFKA_TODO_TOPIC than this one",
                        false => "data of its own",
                    };
                    return Ok(Found::Other(format!("{holder}, which serves {reason}")));
                }
                Asked { answer: Answer::Unsure(reason), holder } => {
                    return Ok(Found::Wait(format!("{holder} {reason}"), Duration::MAX));
                }
                Asked { answer: Answer::Silent, holder } => {
                    let reason = "does not answer whether it shares this one's data; it may be stopped";
                    return Ok(Found::Wait(format!("{holder}, which {reason}"), ANSWER_PATIENCE));
                }
            }
        }
        for listening in survey::listening(self.address)? {
            if !known.contains(&listening.inode) {
                return Ok(Found::Other(listening.holder()));
            }
        }
        Ok(if has_neighbour { Found::Own } else { Found::Nobody })
    }
}

/// Who holds a port that could not be bound, as text; `None` when nobody can be found.
pub fn holder(address: SocketAddr) -> Option<String> {
    let listening = survey::listening(address).ok()?;
    listening.first().map(survey::Listening::holder)
}
