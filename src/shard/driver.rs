//! Which driver a shard has: io_uring as a single-threaded server wants it, or epoll where the kernel has no such io_uring or
//! forbids it.

use std::io;

use reactor::Driver;

/// What the setting asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring, or fail to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// The error of a shard for which the driver was chosen, and for which the system then had none left: each ring takes descriptors
/// and memory, so that one can be had does not say that there are enough for every shard.
pub fn cannot_be_had(driver: Driver, reason: io::Error) -> io::Error {
    let kind = reason.kind();
    let remedy = match (driver, reason.raw_os_error()) {
        (Driver::IoUring, _) => remedy(&reason),
        (Driver::Epoll, Some(libc::EMFILE | libc::ENFILE)) => TOO_FEW_DESCRIPTORS,
        (Driver::Epoll, _) => "Take fewer SHARDS, or give the process more memory",
    };
    io::Error::new(kind, DriverUnavailable { driver: driver.name(), reason, remedy })
}

/// A driver is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("{driver} is not available: {reason}. {remedy}")]
pub struct DriverUnavailable {
    driver: &'static str,
    reason: io::Error,
    remedy: &'static str,
}

/// Finds out what this machine can do.
///
/// # Errors
/// [`DriverUnavailable`] when `IO_DRIVER=io_uring` asks for what is not there. With `auto` the same reason and remedy are
/// logged, and epoll serves.
pub fn choose_driver(choice: DriverChoice) -> Result<Driver, DriverUnavailable> {
    if choice == DriverChoice::Epoll {
        return Ok(Driver::Epoll);
    }
    match probe() {
        Ok(()) => Ok(Driver::IoUring),
        Err(unavailable) if choice == DriverChoice::Auto => {
            tracing::warn!(
                reason = %unavailable.reason,
                remedy = unavailable.remedy,
                "io_uring is not available; serving with epoll, which costs more CPU per request"
            );
            Ok(Driver::Epoll)
        }
        Err(unavailable) => Err(unavailable),
    }
}

fn probe() -> Result<(), DriverUnavailable> {
    Driver::IoUring.probe().map_err(|reason| {
        let remedy = remedy(&reason);
        DriverUnavailable { driver: Driver::IoUring.name(), reason, remedy }
    })
}

const TOO_FEW_DESCRIPTORS: &str = "The file-descriptor limit is reached: raise it (`ulimit -n`), or take fewer SHARDS";

fn remedy(reason: &io::Error) -> &'static str {
    match reason.raw_os_error() {
        Some(libc::ENOSYS) => {
            "The kernel is older than 5.6 or built without io_uring, or a sandbox hides it: use Linux 6.1 or later, or \
             set IO_DRIVER=epoll"
        }
        Some(libc::EINVAL) => "The kernel is older than 6.1: use a newer one, or set IO_DRIVER=epoll",
        Some(libc::EPERM | libc::EACCES) => {
            "It is switched off here: set `sysctl kernel.io_uring_disabled=0`; in a container allow the syscalls \
             io_uring_setup, io_uring_enter and io_uring_register (`--security-opt seccomp=unconfined` or a profile of \
             your own); or set IO_DRIVER=epoll"
        }
        Some(libc::ENOMEM) => {
            "There is too little memory, or the limit of locked memory is too small: give the process more (`MemoryMax=` in a \
             systemd unit, `--memory` for a container), raise the limit (`ulimit -l unlimited`, `LimitMEMLOCK=infinity`, \
             `--ulimit memlock=-1`), take fewer SHARDS, or set IO_DRIVER=epoll"
        }
        Some(libc::EMFILE | libc::ENFILE) => TOO_FEW_DESCRIPTORS,
        _ => "Set IO_DRIVER=epoll to serve without it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_needs_no_probe() {
        assert_eq!(choose_driver(DriverChoice::Epoll).expect("always there"), Driver::Epoll);
    }

    #[test]
    fn each_known_reason_has_its_remedy() {
        for (errno, word) in [
            (libc::ENOSYS, "kernel"),
            (libc::EINVAL, "6.1"),
            (libc::EPERM, "io_uring_disabled"),
            (libc::ENOMEM, "memlock"),
            (libc::EMFILE, "ulimit -n"),
        ] {
            assert!(remedy(&io::Error::from_raw_os_error(errno)).contains(word));
        }
    }
}
