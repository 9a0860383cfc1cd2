//! The listeners: one for each shard on the same port, among which the kernel spreads the connections.
//!
//! A process may start beside one that it replaces, on the same port (SO_REUSEPORT). The newcomer listens from the moment on
//! at which it has a list to answer with; the one that leaves sends new connections to the others, accepts those that are
//! still on their way to it, and only then closes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::SEND_BUFFER_AT_FIRST_BYTES;

/// Connections that the kernel completes before a shard accepts them; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;
/// The congestion control (tcp(7)) of listeners that only this machine reaches.
const LOOPBACK_CONGESTION_CONTROL: &[u8] = b"reno";
/// Pause after an accept that failed because file descriptors or memory are used up: trying again at once would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a leaving process accepts the connections whose handshake had begun with it: some round trips.
pub const LEAVE_GRACE: Duration = Duration::from_millis(200);
/// How long another process on this machine may take to accept a connection, before it counts as absent.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether a process serves this address already.
pub fn is_served(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    address.port() != 0 && TcpStream::connect_timeout(&SocketAddr::new(ip, address.port()), NEIGHBOUR_TIMEOUT).is_ok()
}

/// Takes part in the port's connections.
///
/// # Errors
/// The system refuses.
pub fn listen(listener: &TcpListener) -> io::Result<()> {
    socket2::SockRef::from(listener).listen(BACKLOG)?;
    let on: libc::c_int = 1;
    // A process that has left may have left its choice of listeners behind. Fails where it has not, and before Linux 5.3.
    // SAFETY: a plain system call with a value that outlives it.
    unsafe {
        let length = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const on).cast(),
            length,
        );
    }
    Ok(())
}

/// Sends connections that begin from now on to another process on this port, where there is one (Linux 4.5). Listeners of a
/// port are numbered in the order in which they began to listen, so the oldest process has the first `own` of them; a number
/// that does not exist leaves the choice to the kernel.
pub fn yield_newcomers(listener: RawFd, own: usize) {
    let mut choose_the_next = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: u32::try_from(own).unwrap_or(u32::MAX),
    }];
    let program = libc::sock_fprog { len: 1, filter: choose_the_next.as_mut_ptr() };
    // SAFETY: a plain system call; the program lives until the call has copied it. Where it fails the process leaves with a
    // smaller margin.
    unsafe {
        let length = size_of_val(&program) as libc::socklen_t;
        libc::setsockopt(
            listener,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            length,
        );
    }
}

/// Binds one listener for each shard, which do not listen yet. With port 0, the first one finds a free port and the others
/// join it.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(shards);
    for _ in 0..shards {
        let address = match listeners.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        listeners.push(bind_one(address)?);
    }
    Ok(listeners)
}

/// Bounds what the system keeps for a client that has taken little (Linux 5.14, which knows how to lift the bound again). Accepted
/// sockets inherit it; see [`lift_send_bound`](reactor::Socket::lift_send_bound).
fn bound_send_buffer(socket: &Socket) -> io::Result<()> {
    let (mut locked, mut length) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the value and its length outlive the call.
    let can_be_lifted = unsafe {
        let value = (&raw mut locked as *mut libc::c_int).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BUF_LOCK, value, &raw mut length) == 0
    };
    // The kernel doubles it for what it needs beside the bytes (socket(7)).
    if can_be_lifted { socket.set_send_buffer_size(SEND_BUFFER_AT_FIRST_BYTES / 2) } else { Ok(()) }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // SO_REUSEPORT (Linux 3.9): also what lets a new process start beside one that is being replaced.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Inherited by accepted sockets: answers leave at once instead of waiting for the previous one's acknowledgement.
    socket.set_tcp_nodelay(true)?;
    bound_send_buffer(&socket)?;
    if address.ip().is_loopback() {
        // Inherited, too. What stays within the machine meets no network that it could congest: an algorithm that paces
        // (BBR, where it is the system's choice) makes timers and smaller pieces for nothing. This one is part of every
        // kernel, and any process may choose it. Where the system says otherwise, its own choice stays.
        let _ = socket.set_tcp_congestion(LOOPBACK_CONGESTION_CONTROL);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_a_free_port() {
        let listeners = bind("127.0.0.1:0".parse().expect("an address"), 3).expect("binds");
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn connections_that_stay_within_the_machine_are_not_paced() {
        let congestion_control = |socket: socket2::SockRef<'_>| {
            let padded = socket.tcp_congestion().expect("TCP has one");
            padded.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
        };
        let system = congestion_control((&bind_one("0.0.0.0:0".parse().expect("an address")).expect("binds")).into());
        let unbound = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        assert_eq!(system, congestion_control((&unbound).into()), "others may come from a network");
        for address in ["127.0.0.1:0", "127.1.2.3:0"] {
            let listener = bind_one(address.parse().expect("an address")).expect("binds");
            listen(&listener).expect("listens");
            let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            let (accepted, _) = listener.accept().expect("accepts");
            assert_eq!(congestion_control((&accepted).into()), LOOPBACK_CONGESTION_CONTROL, "{address}");
        }
    }

    #[test]
    fn newcomers_go_to_the_neighbour_and_back_to_all_when_another_joins() {
        let old = bind("127.0.0.1:0".parse().expect("an address"), 2).expect("binds");
        let address = old[0].local_addr().expect("bound");
        assert!(!is_served(address), "bound is not listening");
        old.iter().try_for_each(listen).expect("listens");
        assert!(is_served(address));
        let new = bind(address, 1).expect("binds");
        new.iter().try_for_each(listen).expect("listens");
        yield_newcomers(old[0].as_raw_fd(), old.len());
        for listener in old.iter().chain(&new) {
            listener.set_nonblocking(true).expect("a plain flag");
            while listener.accept().is_ok() {}
        }
        let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).expect("connects")).collect();
        assert!(old.iter().all(|listener| listener.accept().is_err()), "the old ones are passed by");
        drop(old);
        assert_eq!((0..clients.len()).filter(|_| new[0].accept().is_ok()).count(), clients.len());
        // Without the old ones the choice points at nobody, and is taken back by who comes next.
        let next = bind(address, 2).expect("binds");
        next.iter().try_for_each(listen).expect("listens");
        let _clients: Vec<_> = (0..200).map(|_| TcpStream::connect(address).expect("connects")).collect();
        for listener in new.iter().chain(&next) {
            listener.set_nonblocking(true).expect("a plain flag");
            assert!(listener.accept().is_ok(), "each gets some");
        }
    }
}
