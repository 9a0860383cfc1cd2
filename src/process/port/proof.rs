//! The proof that two processes are of one deployment: who can answer a random number with its HMAC under a key of the
//! deployment's identity, made for the topic of its log, shares the store and writes to the same log. The answer says which sockets listen, and is bound to the name of the claim, so
//! that it is of no use to anybody who passes it on.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::survey::{ClaimName, process_text};

/// What the deployment's identity derives the key for: the port beside this topic. Who writes to another one stores what it
/// acknowledges elsewhere, although the store is the same.
#[cfg(feature = "services")]
pub fn key_purpose(topic: &str) -> Vec<u8> {
    [b"port/", topic.as_bytes()].concat()
}
/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Bytes of the random number.
const NONCE_BYTES: usize = 32;
/// Bytes of the proof.
const MAC_BYTES: usize = 32;
/// Most sockets that an answer may name: one for each shard.
const SOCKETS_MAX: usize = 4096;
/// How long either side waits for the other's bytes. Both are on this machine.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an accept that failed: descriptors may be used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const SERVES: u8 = 1;
const SHARES: u8 = 2;
const KNOWS_KEY: u8 = 4;

/// What a process says of itself.
#[derive(Debug)]
pub struct Standing {
    name: Box<str>,
    sockets: Vec<u64>,
    shares: bool,
    serves: AtomicBool,
    key: OnceLock<[u8; KEY_BYTES]>,
    /// Why the key is not known.
    reason: Mutex<String>,
}

impl Standing {
    /// The standing of a newcomer with these listening sockets.
    pub fn new(name: Box<str>, sockets: Vec<u64>, shares: bool) -> Standing {
        Standing {
            name,
            sockets,
            shares,
            serves: AtomicBool::new(false),
            key: OnceLock::new(),
            reason: Mutex::default(),
        }
    }

    /// Whether processes of its deployment may stand beside each other.
    pub fn shares(&self) -> bool {
        self.shares
    }

    /// Its listening sockets.
    pub fn sockets(&self) -> &[u64] {
        &self.sockets
    }

    /// From now on it holds the port.
    pub fn serve(&self) {
        self.serves.store(true, Ordering::Relaxed);
    }

    /// The deployment's key is known. It never changes.
    #[cfg_attr(not(feature = "services"), allow(dead_code, reason = "an embedded deployment has one process"))]
    pub fn learn(&self, key: [u8; KEY_BYTES]) {
        let _ = self.key.set(key);
    }

    /// The deployment's key is not known yet, for this reason.
    #[cfg_attr(not(feature = "services"), allow(dead_code, reason = "an embedded deployment has one process"))]
    pub fn cannot_learn(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn flags(&self) -> u8 {
        let serves = if self.serves.load(Ordering::Relaxed) { SERVES } else { 0 };
        let shares = if self.shares { SHARES } else { 0 };
        let knows_key = if self.shares && self.key.get().is_some() { KNOWS_KEY } else { 0 };
        serves | shares | knows_key
    }
}

fn mac(key: &[u8; KEY_BYTES], nonce: &[u8], name: &str, claims: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [nonce, name.as_bytes(), claims] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// Answers everybody who asks, one after the other, until the process ends.
pub fn answer(socket: &UnixListener, standing: &Standing) {
    loop {
        match socket.accept() {
            // Who does not ask properly gets nothing.
            Ok((stream, _)) => drop(answer_one(&stream, standing)),
            Err(_) => std::thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn answer_one(mut stream: &UnixStream, standing: &Standing) -> io::Result<()> {
    stream.set_read_timeout(Some(TURN_TIMEOUT))?;
    stream.set_write_timeout(Some(TURN_TIMEOUT))?;
    let mut nonce = [0; NONCE_BYTES];
    stream.read_exact(&mut nonce)?;
    let mut answer = vec![standing.flags()];
    answer.extend_from_slice(&(standing.sockets.len() as u16).to_be_bytes());
    standing.sockets.iter().for_each(|inode| answer.extend_from_slice(&inode.to_be_bytes()));
    let proof = match standing.key.get().filter(|_| standing.shares) {
        Some(key) => mac(key, &nonce, &standing.name, &answer).finalize().into_bytes().into(),
        None => [0; MAC_BYTES],
    };
    answer.extend_from_slice(&proof);
    stream.write_all(&answer)
}

/// What a claim has answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has been given up.
    Gone,
    /// It is of this deployment, and these are its sockets.
    Proven(Vec<u64>),
    /// It is of another one.
    Other {
        /// Whether it holds the port.
        serves: bool,
    },
    /// It cannot be told yet.
    Unsure(String),
    /// It does not answer.
    Silent,
}

/// An answer, and whose it is.
#[derive(Debug)]
pub struct Asked {
    pub answer: Answer,
    /// The process, as text.
    pub holder: String,
}

/// Asks a claim whether it is of the same deployment.
///
/// # Errors
/// The system refuses a random number.
pub fn ask(claim: &ClaimName, own: &Standing) -> io::Result<Asked> {
    let mut holder = "a process of million-rps".to_owned();
    let stream = UnixAddr::from_abstract_name(claim.text()).and_then(|address| UnixStream::connect_addr(&address));
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Ok(Asked { answer: Answer::Gone, holder });
        }
        Err(_) => return Ok(Asked { answer: Answer::Silent, holder }),
    };
    if let Some(pid) = peer_process(&stream) {
        holder = process_text(pid);
    }
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    let answer = read_answer(&stream, &nonce, claim, own).unwrap_or(Answer::Silent);
    Ok(Asked { answer, holder })
}

fn read_answer(mut stream: &UnixStream, nonce: &[u8], claim: &ClaimName, own: &Standing) -> io::Result<Answer> {
    stream.set_read_timeout(Some(TURN_TIMEOUT))?;
    stream.set_write_timeout(Some(TURN_TIMEOUT))?;
    stream.write_all(nonce)?;
    let mut text = vec![0; 3];
    stream.read_exact(&mut text)?;
    let (flags, count) = (text[0], usize::from(u16::from_be_bytes([text[1], text[2]])));
    if count > SOCKETS_MAX {
        return Ok(Answer::Other { serves: true });
    }
    text.resize(3 + count * size_of::<u64>(), 0);
    stream.read_exact(&mut text[3..])?;
    let mut proof = [0; MAC_BYTES];
    stream.read_exact(&mut proof)?;
    if !own.shares || flags & SHARES == 0 {
        return Ok(Answer::Other { serves: flags & SERVES != 0 });
    }
    if flags & KNOWS_KEY == 0 {
        return Ok(Answer::Unsure("cannot tell its deployment yet, because it does not reach its database".into()));
    }
    let Some(key) = own.key.get() else {
        let reason = own.reason.lock().unwrap_or_else(PoisonError::into_inner);
        return Ok(Answer::Unsure(format!(
            "serves it, and the database does not tell this one's deployment yet: {reason}"
        )));
    };
    Ok(match mac(key, nonce, claim.text(), &text).verify_slice(&proof) {
        Ok(()) => Answer::Proven(
            text[3..].chunks_exact(8).map(|inode| u64::from_be_bytes(inode.try_into().expect("eight bytes"))).collect(),
        ),
        Err(_) => Answer::Other { serves: flags & SERVES != 0 },
    })
}

/// The process at the other end, where it is in sight of this one.
fn peer_process(stream: &UnixStream) -> Option<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&credentials) as libc::socklen_t;
    // SAFETY: the call writes at most `length` bytes into a value of that size.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    u32::try_from(credentials.pid).ok().filter(|pid| result == 0 && *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn standing(name: &ClaimName, shares: bool, key: Option<u8>) -> Arc<Standing> {
        let standing = Standing::new(name.text().into(), vec![7, 8], shares);
        if let Some(byte) = key {
            standing.learn([byte; KEY_BYTES]);
        }
        Arc::new(standing)
    }

    /// A claim that answers as long as the test process lives.
    fn claim(shares: bool, key: Option<u8>) -> (ClaimName, Arc<Standing>) {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("random bytes");
        let name = ClaimName::new("127.0.0.1:1".parse().expect("an address"), u64::from_ne_bytes(random));
        let standing = standing(&name, shares, key);
        let socket =
            UnixListener::bind_addr(&UnixAddr::from_abstract_name(name.text()).expect("a name")).expect("bound");
        let answering = Arc::clone(&standing);
        std::thread::spawn(move || answer(&socket, &answering));
        (name, standing)
    }

    #[test]
    fn only_the_same_key_is_a_proof() {
        let own = |shares, key| standing(&ClaimName::new("127.0.0.1:1".parse().expect("an address"), 1), shares, key);
        let (same, there) = claim(true, Some(1));
        let asked = ask(&same, &own(true, Some(1))).expect("asked");
        assert_eq!(asked.answer, Answer::Proven(vec![7, 8]));
        assert!(asked.holder.contains(&std::process::id().to_string()), "{}", asked.holder);
        assert_eq!(ask(&same, &own(true, Some(2))).expect("asked").answer, Answer::Other { serves: false });
        there.serve();
        assert_eq!(ask(&same, &own(true, Some(2))).expect("asked").answer, Answer::Other { serves: true });
        assert_eq!(ask(&same, &own(false, None)).expect("asked").answer, Answer::Other { serves: true });
        assert!(matches!(ask(&same, &own(true, None)).expect("asked").answer, Answer::Unsure(_)));
        let (embedded, _) = claim(false, None);
        assert_eq!(ask(&embedded, &own(true, Some(1))).expect("asked").answer, Answer::Other { serves: false });
        let (unknowing, there) = claim(true, None);
        assert!(matches!(ask(&unknowing, &own(true, Some(1))).expect("asked").answer, Answer::Unsure(_)));
        there.learn([1; KEY_BYTES]);
        assert_eq!(ask(&unknowing, &own(true, Some(1))).expect("asked").answer, Answer::Proven(vec![7, 8]));
    }

    #[test]
    fn a_proof_that_is_passed_on_proves_nothing_and_silence_is_told() {
        let (genuine, _) = claim(true, Some(1));
        let relay = ClaimName::new("127.0.0.1:2".parse().expect("an address"), 77);
        let socket =
            UnixListener::bind_addr(&UnixAddr::from_abstract_name(relay.text()).expect("a name")).expect("bound");
        let target = UnixAddr::from_abstract_name(genuine.text()).expect("a name");
        std::thread::spawn(move || {
            let (mut client, _) = socket.accept().expect("somebody asks");
            let mut server = UnixStream::connect_addr(&target).expect("there");
            let mut nonce = [0; NONCE_BYTES];
            client.read_exact(&mut nonce).expect("a question");
            server.write_all(&nonce).expect("passed on");
            io::copy(&mut server, &mut client).expect("passed back");
            // The next one who asks gets no answer.
            let _kept = socket.accept();
            std::thread::sleep(Duration::from_secs(60));
        });
        let own = standing(&genuine, true, Some(1));
        assert_eq!(ask(&relay, &own).expect("asked").answer, Answer::Other { serves: false });
        assert_eq!(ask(&relay, &own).expect("asked").answer, Answer::Silent);
        let nobody = ClaimName::new("127.0.0.1:3".parse().expect("an address"), 78);
        assert_eq!(ask(&nobody, &own).expect("asked").answer, Answer::Gone);
    }
}
