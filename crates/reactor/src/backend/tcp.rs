//! What the kernel knows of a connection and its TCP, and is told about its end (tcp(7), socket(7)): the same for every backend
//! that has a kernel. The descriptors here are open, and are closed by this thread alone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

/// Whether bytes have come that nobody has received (FIONREAD, tcp(7)).
pub fn has_bytes_waiting(socket: RawFd) -> bool {
    let mut waiting: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, into `waiting`, which outlives the call.
    unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut waiting) == 0 && waiting > 0 }
}

/// Where the other end is; `None` when it is not connected any more.
pub fn peer(socket: RawFd) -> Option<SocketAddr> {
    // SAFETY: the descriptor is open, and is closed by this thread alone.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    socket2::SockRef::from(&socket).peer_addr().ok()?.as_socket()
}

/// Ends receiving, sending, or both.
pub fn shut_down(socket: RawFd, how: libc::c_int) {
    // SAFETY: a plain system call.
    unsafe { libc::shutdown(socket, how) };
}

/// Another descriptor of the same socket.
///
/// # Errors
/// No descriptor is free.
pub fn duplicate(socket: RawFd) -> io::Result<RawFd> {
    // SAFETY: no pointers; a descriptor that is not open is an error.
    let copy = unsafe { libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(copy) }
}

/// Closes a descriptor.
pub fn close(socket: RawFd) {
    // SAFETY: no pointers; the descriptor is its owner's, who does not use it any more.
    unsafe { libc::close(socket) };
}

/// Sends as much of this as the socket takes at once.
///
/// # Errors
/// It takes nothing now, or the connection is broken.
pub fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of `bytes`.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Drops at most `max_bytes` of what has come, in the kernel and without a copy; 0 is the end.
///
/// # Errors
/// Nothing has come, or the connection is broken.
pub fn drop_received(socket: RawFd, max_bytes: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC a TCP socket drops its bytes and writes nothing (tcp(7)), so there is no buffer.
    let dropped = unsafe { libc::recv(socket, std::ptr::null_mut(), max_bytes, flags) };
    usize::try_from(dropped).map_err(|_| io::Error::last_os_error())
}

/// Fills this with random numbers of the system (getrandom(2)).
///
/// # Errors
/// It has none to give.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and the length are those of `rest`.
        match usize::try_from(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) }) {
            Ok(more) => filled += more,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Bytes that the socket has taken and the client's system has not acknowledged (SIOCOUTQ, tcp(7)); `None` if it cannot be
/// asked.
pub fn unacknowledged_bytes(socket: RawFd) -> Option<u64> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes one int, into `waiting`, which outlives the call.
    let is_known = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut waiting) == 0 };
    is_known.then(|| waiting.try_into().ok()).flatten()
}

/// Bytes of the largest segments that are sent to the client; 0 if it cannot be asked.
pub fn segment_bytes(socket: RawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    let mut length = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the number and its length outlive the call.
    let is_known = unsafe {
        let value = (&raw mut bytes).cast();
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, value, &raw mut length) == 0
    };
    if is_known { bytes.try_into().unwrap_or(0) } else { 0 }
}

/// Bytes that the client's system has acknowledged since the connection began (`tcpi_bytes_acked`, Linux 4.1); 0 if it cannot
/// be asked.
pub fn acknowledged_bytes(socket: RawFd) -> u64 {
    // SAFETY: numbers alone, for which zeros are valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the structure and its length outlive the call, which writes no more than that.
    let is_known = unsafe {
        let value = (&raw mut info).cast();
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) == 0
    };
    if is_known { info.tcpi_bytes_acked } else { 0 }
}

/// Lets the system decide how much of what is sent it keeps for the client, where that was bounded before (`SO_BUF_LOCK`,
/// Linux 5.14): `first_bytes` at first, or as much as any program may ask for. Where that fails, the bound stays.
pub fn lift_send_bound(socket: RawFd, first_bytes: usize) {
    // The kernel doubles it for what it needs beside the bytes (socket(7)).
    let first = libc::c_int::try_from(first_bytes / 2).unwrap_or(libc::c_int::MAX);
    let by_system: libc::c_int = 0;
    for (option, value) in [(libc::SO_SNDBUF, first), (libc::SO_BUF_LOCK, by_system)] {
        let length = size_of_val(&value) as libc::socklen_t;
        // SAFETY: a plain system call with a value that outlives it.
        unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const value).cast(), length) };
    }
}

/// Has what was not sent dropped when the socket is closed. Where that fails, the socket is closed as any.
pub fn drop_unsent_at_close(socket: RawFd) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of_val(&at_once) as libc::socklen_t;
    // SAFETY: a plain system call with a value that outlives it.
    unsafe {
        let value = (&raw const at_once).cast();
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, value, length);
    }
}

/// The next connection of a non-blocking listener, non-blocking itself.
///
/// # Errors
/// `WouldBlock` when there is none, and what accept4(2) can say.
pub fn accept(listener: RawFd) -> io::Result<RawFd> {
    // An accept that finds nobody has made a socket and a file by then, and frees them again: to ask before is cheaper.
    let mut asked = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call; it does not wait.
    if unsafe { libc::poll(&raw mut asked, 1, 0) } == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let (no_address, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the kernel writes no address to null pointers.
    let accepted = unsafe { libc::accept4(listener, no_address, no_length, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
    if accepted < 0 { Err(io::Error::last_os_error()) } else { Ok(accepted) }
}
