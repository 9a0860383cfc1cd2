//! What TCP knows of a connection, and is told about its end (tcp(7)).

use crate::Socket;

impl Socket {
    /// Bytes that the socket has taken and the client's system has not acknowledged (SIOCOUTQ, tcp(7)); `None` if it cannot be
    /// asked.
    pub fn unacknowledged_bytes(&self) -> Option<u64> {
        let mut waiting: libc::c_int = 0;
        // SAFETY: SIOCOUTQ writes one int, into `waiting`, which outlives the call.
        let is_known = unsafe { libc::ioctl(self.descriptor, libc::TIOCOUTQ, &raw mut waiting) == 0 };
        is_known.then(|| waiting.try_into().ok()).flatten()
    }

    /// Bytes of the largest segments that are sent to the client.
    pub fn segment_bytes(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        let mut length = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the number and its length outlive the call.
        let is_known = unsafe {
            let value = (&raw mut bytes).cast();
            libc::getsockopt(self.descriptor, libc::IPPROTO_TCP, libc::TCP_MAXSEG, value, &raw mut length) == 0
        };
        if is_known { bytes.try_into().unwrap_or(0) } else { 0 }
    }

    /// Bytes that the client's system has acknowledged since the connection began (`tcpi_bytes_acked`, Linux 4.1); 0 if it cannot
    /// be asked.
    pub fn acknowledged_bytes(&self) -> u64 {
        // SAFETY: numbers alone, for which zeros are valid.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the structure and its length outlive the call, which writes no more than that.
        let is_known = unsafe {
            let value = (&raw mut info).cast();
            libc::getsockopt(self.descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) == 0
        };
        if is_known { info.tcpi_bytes_acked } else { 0 }
    }

    /// Lets the system decide how much of what is sent it keeps for the client, where that was bounded before (`SO_BUF_LOCK`,
    /// Linux 5.14).
    pub fn lift_send_bound(&self) {
        let by_system: libc::c_int = 0;
        let length = size_of_val(&by_system) as libc::socklen_t;
        if self.is_open.get() {
            // SAFETY: a plain system call with a value that outlives it. Where it fails, the bound stays.
            unsafe {
                let value = (&raw const by_system).cast();
                libc::setsockopt(self.descriptor, libc::SOL_SOCKET, libc::SO_BUF_LOCK, value, length);
            }
        }
    }

    /// Has what was not sent dropped when the socket is closed. Otherwise the system would go on to send it, and keep some
    /// megabytes for a client that takes little or nothing.
    pub fn drop_unsent_at_close(&self) {
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        let length = size_of_val(&at_once) as libc::socklen_t;
        if self.is_open.get() {
            // SAFETY: a plain system call with a value that outlives it. Where it fails, the socket is closed as any.
            unsafe {
                let value = (&raw const at_once).cast();
                libc::setsockopt(self.descriptor, libc::SOL_SOCKET, libc::SO_LINGER, value, length);
            }
        }
    }
}
