//! The listeners: one for each shard on the same port, among which the kernel spreads the connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel completes before a shard accepts them; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed because file descriptors or memory are used up: trying again at once would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds one listener for each shard. With port 0, the first one finds a free port and the others join it.
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
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
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
}
