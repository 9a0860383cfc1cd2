//! The I/O driver of a shard: io_uring with the flags that a single-threaded server wants, or epoll where the kernel has
//! no io_uring or forbids it.

use std::future::Future;
use std::io;

use io_uring::IoUring;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Entries of a shard's submission queue; the completion queue is twice as long. One entry is one operation submitted
/// between two waits, and a full queue is flushed, so this bounds the batch, not the connections.
const RING_ENTRIES: u32 = 4096;

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

/// What the shards use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with this set of flags.
    IoUring(RingFlags),
    /// epoll.
    Epoll,
}

/// Ring flags from best to plainest; a kernel that does not know a flag refuses the whole ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFlags {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN` (Linux 6.1): completions are run when this thread waits, never by
    /// interrupting it.
    DeferTaskrun,
    /// `COOP_TASKRUN` (Linux 5.19): no interruption of the thread for completions.
    CoopTaskrun,
    /// None.
    Plain,
}

impl RingFlags {
    const BEST_FIRST: [RingFlags; 3] = [RingFlags::DeferTaskrun, RingFlags::CoopTaskrun, RingFlags::Plain];

    fn builder(self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        match self {
            RingFlags::DeferTaskrun => builder.setup_single_issuer().setup_defer_taskrun(),
            RingFlags::CoopTaskrun => builder.setup_coop_taskrun(),
            RingFlags::Plain => &mut builder,
        };
        builder
    }
}

/// io_uring is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("io_uring is not available: {reason}. {remedy}")]
pub struct RingUnavailable {
    reason: io::Error,
    remedy: &'static str,
}

/// Finds out what this machine can do, by making a ring and throwing it away.
///
/// # Errors
/// [`RingUnavailable`] when `IO_DRIVER=io_uring` asks for what is not there. With `auto` the same reason and remedy are
/// logged, and epoll serves.
pub fn choose_driver(choice: DriverChoice) -> Result<Driver, RingUnavailable> {
    if choice == DriverChoice::Epoll {
        return Ok(Driver::Epoll);
    }
    match probe() {
        Ok(flags) => Ok(Driver::IoUring(flags)),
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

fn probe() -> Result<RingFlags, RingUnavailable> {
    let mut last_error = None;
    for flags in RingFlags::BEST_FIRST {
        match flags.builder().build(RING_ENTRIES) {
            Ok(_ring) => return Ok(flags),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last_error = Some(error),
            Err(error) => {
                last_error = Some(error);
                break;
            }
        }
    }
    let reason = last_error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
    let remedy = remedy(&reason);
    Err(RingUnavailable { reason, remedy })
}

fn remedy(reason: &io::Error) -> &'static str {
    match reason.raw_os_error() {
        Some(libc::ENOSYS) => {
            "The kernel is older than 5.6 or built without io_uring, or a sandbox hides it: use Linux 6.1 or later, or \
             set IO_DRIVER=epoll"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "It is switched off here: set `sysctl kernel.io_uring_disabled=0`; in a container allow the syscalls \
             io_uring_setup, io_uring_enter and io_uring_register (`--security-opt seccomp=unconfined` or a profile of \
             your own); or set IO_DRIVER=epoll"
        }
        Some(libc::ENOMEM) => {
            "The locked-memory limit is too small: raise it (`ulimit -l unlimited`, `LimitMEMLOCK=infinity` in a systemd \
             unit, `--ulimit memlock=-1` for a container), or set IO_DRIVER=epoll"
        }
        Some(libc::EMFILE | libc::ENFILE) => "The file-descriptor limit is reached: raise it (`ulimit -n`)",
        _ => "Set IO_DRIVER=epoll to serve without it",
    }
}

/// Runs `future` to its end on a runtime of this driver. The ring belongs to the calling thread (`SINGLE_ISSUER`).
///
/// # Errors
/// The runtime could not be made.
pub fn block_on<F: Future>(driver: Driver, future: F) -> io::Result<F::Output> {
    match driver {
        Driver::IoUring(flags) => {
            let builder =
                RuntimeBuilder::<IoUringDriver>::new().uring_builder(flags.builder()).with_entries(RING_ENTRIES);
            Ok(builder.enable_timer().build()?.block_on(future))
        }
        Driver::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_needs_no_probe_and_both_drivers_run() {
        assert_eq!(choose_driver(DriverChoice::Epoll).expect("always there"), Driver::Epoll);
        let auto = choose_driver(DriverChoice::Auto).expect("falls back");
        for driver in [auto, Driver::Epoll] {
            assert_eq!(block_on(driver, async { 7 }).expect("runs"), 7);
        }
    }

    #[test]
    fn each_known_reason_has_its_remedy() {
        for (errno, word) in [
            (libc::ENOSYS, "kernel"),
            (libc::EPERM, "io_uring_disabled"),
            (libc::ENOMEM, "memlock"),
            (libc::EMFILE, "ulimit -n"),
        ] {
            assert!(remedy(&io::Error::from_raw_os_error(errno)).contains(word));
        }
    }
}
