//! Resident memory of a process, from `/proc`.

use std::io;

/// Resident memory now, in bytes (`VmRSS`).
///
/// # Errors
/// The process has ended.
pub fn resident_bytes(process: u32) -> io::Result<u64> {
    status_bytes(process, "VmRSS:")
}

/// The same of a process and of those that it has started.
///
/// # Errors
/// The process has ended.
pub fn resident_bytes_with_descendants(process: u32) -> io::Result<u64> {
    let of_descendants = crate::cpu::descendants(process)?.into_iter();
    // One may end between the listing and the asking.
    let of_descendants: u64 = of_descendants.map(|descendant| resident_bytes(descendant).unwrap_or_default()).sum();
    Ok(resident_bytes(process)? + of_descendants)
}

/// The most resident memory since [`reset_peak`], in bytes (`VmHWM`).
///
/// # Errors
/// The process has ended.
pub fn peak_resident_bytes(process: u32) -> io::Result<u64> {
    status_bytes(process, "VmHWM:")
}

/// Makes the peak start again from what is resident now (`5` in `clear_refs`, proc(5)).
///
/// # Errors
/// The process has ended, or belongs to another user.
pub fn reset_peak(process: u32) -> io::Result<()> {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5")
}

fn status_bytes(process: u32, field: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    field_bytes(&status, field).ok_or_else(|| io::Error::other(format!("/proc/{process}/status has no {field}")))
}

fn field_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2052 kB\nVmRSS:\t       4 kB\n";
        assert_eq!(field_bytes(status, "VmHWM:"), Some(2052 * 1024));
        assert_eq!(field_bytes(status, "VmRSS:"), Some(4096));
        assert_eq!(field_bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn the_peak_shows_memory_that_is_gone_again() {
        let this = std::process::id();
        reset_peak(this).expect("this process is ours");
        // Larger than what the allocator keeps, so that it is given back to the kernel. Other tests of this process take and give
        // back memory meanwhile, so what counts is what was there at the time.
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let with = resident_bytes(this).expect("this process is there");
        drop(held);
        let peak = peak_resident_bytes(this).expect("this process is there");
        // The kernel counts by CPU and adds up now and then.
        assert!(peak + (4 << 20) >= with, "the peak is {peak} bytes, and there were {with}");
        let after = resident_bytes(this).expect("this process is there");
        assert!(after < peak, "of {with} bytes, {after} are still there");
    }
}
