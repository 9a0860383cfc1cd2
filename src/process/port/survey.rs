//! What proc(5) says of a port: which sockets listen on it, which claims are laid on it, and whose they are.

use std::fs::{File, read_dir, read_link, read_to_string};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use crate::shard::listener;

/// How the name of every claim begins.
const CLAIM_PREFIX: &str = "million-rps/port/";
/// The state of a listening socket in /proc/net/tcp.
const STATE_LISTEN: &str = "0A";
/// The flags of a listening socket in /proc/net/unix (__SO_ACCEPTCON).
const FLAGS_LISTEN: &str = "00010000";

/// The name of a claim: `million-rps/port/8080/127.0.0.1/0123456789abcdef`. The last part is random; by it newcomers that
/// come at once find the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimName {
    text: String,
    ip: IpAddr,
    random: u64,
}

impl ClaimName {
    /// A claim on this address.
    pub fn new(address: SocketAddr, random: u64) -> ClaimName {
        let ip = address.ip().to_canonical();
        ClaimName { text: format!("{CLAIM_PREFIX}{}/{ip}/{random:016x}", address.port()), ip, random }
    }

    fn parse(text: &str, port: u16) -> Option<ClaimName> {
        let (ip, random) = text.strip_prefix(&format!("{CLAIM_PREFIX}{port}/"))?.split_once('/')?;
        let name = ClaimName::new(SocketAddr::new(ip.parse().ok()?, port), u64::from_str_radix(random, 16).ok()?);
        (name.text == text).then_some(name)
    }

    /// The name itself.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl PartialOrd for ClaimName {
    fn partial_cmp(&self, other: &ClaimName) -> Option<std::cmp::Ordering> {
        Some(self.random.cmp(&other.random))
    }
}

/// The claims of others on this port whose connections could be this address's.
///
/// # Errors
/// proc(5) cannot be read.
pub fn claims(address: SocketAddr, own: &ClaimName) -> io::Result<Vec<ClaimName>> {
    let mut found = Vec::new();
    for line in BufReader::new(open("/proc/self/net/unix")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let mut columns = line.split_ascii_whitespace().skip(3);
        let (flags, path) = (columns.next(), columns.nth(3));
        let name = path.and_then(|path| ClaimName::parse(path.strip_prefix('@')?, address.port()));
        found.extend(name.filter(|name| {
            flags == Some(FLAGS_LISTEN) && name != own && overlap(address.ip().to_canonical(), name.ip)
        }));
    }
    Ok(found)
}

/// A socket that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    address: SocketAddr,
    /// The user whose it is.
    user: u32,
    /// Its number.
    pub inode: u64,
}

impl Listening {
    fn parse(line: &str) -> Option<Option<Listening>> {
        let columns: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, _, state, _, _, _, user, _, inode] = columns[..] else { return Some(None) };
        if state != STATE_LISTEN {
            return None;
        }
        let address = local.split_once(':').and_then(|(ip, port)| {
            Some(SocketAddr::new(parse_ip(ip)?.to_canonical(), u16::from_str_radix(port, 16).ok()?))
        });
        let (Some(address), Ok(user), Ok(inode)) = (address, user.parse(), inode.parse()) else { return Some(None) };
        Some(Some(Listening { address, user, inode }))
    }

    /// Whose it is, as far as this process may know: `process 77 (nginx)`.
    pub fn holder(&self) -> String {
        match process_with_socket(self.inode) {
            Some(pid) => process_text(pid),
            None => format!("a process of user {} that this one may not look at", self.user),
        }
    }
}

/// The sockets that listen on this port for connections that could be this address's.
///
/// # Errors
/// proc(5) cannot be read.
pub fn listening(address: SocketAddr) -> io::Result<Vec<Listening>> {
    let own = address.ip().to_canonical();
    let mut found = Vec::new();
    for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let file = match open(path) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with('6') => continue,
            other => other?,
        };
        for line in BufReader::new(file).lines().skip(1) {
            // Sockets that listen stand first: of a busy machine's connections none is read.
            let Some(listening) = Listening::parse(&line?) else { break };
            found.extend(listening.filter(|listening| {
                let ip = listening.address.ip();
                let is_sure = own.is_ipv4() == ip.is_ipv4() || own.is_unspecified();
                listening.address.port() == address.port()
                    && overlap(own, ip)
                    // One of IPv6 alone (IPV6_V6ONLY) looks like one of both.
                    && (is_sure || listener::is_served(address))
            }));
        }
    }
    Ok(found)
}

/// Whether a connection could belong to either of two addresses.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let takes = |wide: IpAddr, ip: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4());
    one == other || takes(one, other) || takes(other, one)
}

/// An address as /proc/net/tcp has it: words of 32 bits, in network order, each written as a number of this machine.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = text
        .as_bytes()
        .chunks(8)
        .map(|digits| Some(u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?.to_ne_bytes()))
        .collect();
    match words?[..] {
        [word] => Some(Ipv4Addr::from(word).into()),
        [a, b, c, d] => Some(Ipv6Addr::from(<[u8; 16]>::try_from([a, b, c, d].concat()).ok()?).into()),
        _ => None,
    }
}

/// The number of a socket.
///
/// # Errors
/// The descriptor is closed.
pub fn inode_of(descriptor: RawFd) -> io::Result<u64> {
    // SAFETY: a `stat` of zeros is valid, and the call only writes it.
    let (status, result) = unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        let result = libc::fstat(descriptor, &raw mut status);
        (status, result)
    };
    if result == 0 { Ok(status.st_ino) } else { Err(io::Error::last_os_error()) }
}

/// The process that has this socket open, of those whose descriptors this one may read.
fn process_with_socket(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let processes = read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let descriptors = read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .into_iter()
            .any(|entry| read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
    })
}

/// A process with the name of its program.
pub fn process_text(pid: u32) -> String {
    match read_to_string(format!("/proc/{pid}/comm")) {
        Ok(program) => format!("process {pid} ({})", program.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

fn open(path: &str) -> io::Result<File> {
    File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}, which says who has a port: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_overlap_as_the_kernel_has_it() {
        for (one, other, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0", "127.0.0.1", true),
            ("::", "127.0.0.1", true),
            ("::", "0.0.0.0", true),
            ("::", "::1", true),
            ("0.0.0.0", "::1", false),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(overlap(ip(one), ip(other)), expected, "{one} {other}");
            assert_eq!(overlap(ip(other), ip(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn sockets_that_listen_are_found_with_their_process() {
        for host in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                assert!(host.contains('['), "IPv4 is there");
                continue;
            };
            let address = listener.local_addr().expect("bound");
            let found = listening(address).expect("readable");
            let inode = inode_of(listener.as_raw_fd()).expect("open");
            assert_eq!(found.iter().map(|found| found.inode).collect::<Vec<_>>(), [inode], "{host}");
            assert!(
                found[0].holder().starts_with(&format!("process {} (", std::process::id())),
                "{:?}",
                found[0].holder()
            );
            drop(listener);
            assert_eq!(listening(address).expect("readable"), []);
        }
    }

    #[test]
    fn a_claims_name_says_where_and_nothing_else_is_one() {
        let address: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
        let name = ClaimName::new(address, 0xABC);
        assert_eq!(name.text(), "million-rps/port/8080/127.0.0.1/0000000000000abc");
        assert_eq!(ClaimName::parse(name.text(), 8080), Some(name.clone()));
        for other in ["million-rps/port/8080/127.0.0.1", "million-rps/port/8080/x/1", "million-rps/port/80800/::/1", ""]
        {
            assert_eq!(ClaimName::parse(other, 8080), None, "{other}");
        }
        assert_eq!(ClaimName::parse(name.text(), 8081), None);
        assert!(name < ClaimName::new(address, 0xABD));
    }
}
