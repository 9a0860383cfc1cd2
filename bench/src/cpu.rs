//! Which CPU a thread or a program runs on, and how much CPU time a program has used.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The CPUs that this process may use, ascending.
///
/// # Errors
/// The kernel refuses to tell.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero `cpu_set_t` is an empty set, and the kernel writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Err(io::Error::last_os_error());
        }
        set
    };
    let capacity = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: `cpu` is below the number of bits of the set.
    Ok((0..capacity).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Pins the calling thread, and whatever it starts afterwards, to one CPU.
///
/// # Errors
/// There is no such CPU, or this process may not use it.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    pin_current_thread_to(&[cpu])
}

/// Pins the calling thread, and whatever it starts afterwards, to some CPUs.
///
/// # Errors
/// There is no such CPU, or this process may use none of them.
pub fn pin_current_thread_to(cpus: &[usize]) -> io::Result<()> {
    if cpus.iter().any(|cpu| *cpu >= 8 * size_of::<libc::cpu_set_t>()) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the set is on the stack for the length of the call, and each `cpu` is within it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cpus.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the program that `command` starts run on these CPUs from its first instruction.
pub fn pin_command(command: &mut Command, cpus: &[usize]) {
    let cpus = cpus.to_vec();
    // SAFETY: between fork and exec only a system call is made: no allocation, no lock.
    unsafe { command.pre_exec(move || pin_current_thread_to(&cpus)) };
}

/// Has a thread run only when nobody else wants its CPU; 0 is the calling thread.
///
/// # Errors
/// There is no such thread.
pub fn run_when_idle(thread: u32) -> io::Result<()> {
    let thread = libc::pid_t::try_from(thread).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are on the stack for the length of the call.
    match unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same for all threads that a process has now.
///
/// # Errors
/// The process has ended.
pub fn run_process_when_idle(process: u32) -> io::Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        if let Some(thread) = thread?.file_name().to_str().and_then(|name| name.parse().ok()) {
            run_when_idle(thread)?;
        }
    }
    Ok(())
}

/// The processes that a process has started, and those that they have.
///
/// # Errors
/// `/proc` cannot be read.
pub fn descendants(process: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between the listing and the reading.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; behind it are the state and the parent (proc(5)).
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent: u32| (id, parent)));
    }
    let mut found = vec![process];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    Ok(found.split_off(1))
}

/// Lets the calling thread, and whatever it starts afterwards, run on every CPU again.
///
/// # Errors
/// The kernel refuses.
pub fn unpin_current_thread() -> io::Result<()> {
    // SAFETY: the set is on the stack for the length of the call. The kernel takes what it allows out of a full set.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (0..8 * size_of::<libc::cpu_set_t>()).for_each(|cpu| libc::CPU_SET(cpu, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// User and system time of all threads of a process, also of those that have ended. The kernel keeps it in nanoseconds;
/// `/proc/PID/stat` shows the same in hundredths of a second.
///
/// # Errors
/// The process has ended.
pub fn process_cpu_time(process: u32) -> io::Result<Duration> {
    let process = libc::pid_t::try_from(process).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are to values on the stack that live through the calls.
    unsafe {
        let error = libc::clock_getcpuclockid(process, &raw mut clock);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        if libc::clock_gettime(clock, &raw mut time) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()))
}

/// CPU time of the threads that a process has now, by the threads' names; several of one name are added up.
///
/// # Errors
/// The process has ended.
pub fn thread_cpu_times(process: u32) -> io::Result<BTreeMap<String, Duration>> {
    let mut times = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the listing and the reading.
        if let Ok((name, time)) = thread_cpu_time(&thread?.path()) {
            *times.entry(name).or_default() += time;
        }
    }
    Ok(times)
}

fn thread_cpu_time(thread: &Path) -> io::Result<(String, Duration)> {
    let name = std::fs::read_to_string(thread.join("comm"))?.trim_end().to_owned();
    // The first field is the time on a CPU, in nanoseconds (the kernel's sched-stats.rst).
    let schedstat = std::fs::read_to_string(thread.join("schedstat"))?;
    let on_cpu_ns = schedstat.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    let on_cpu_ns = on_cpu_ns.ok_or_else(|| io::Error::other("schedstat without a first number"))?;
    Ok((name, Duration::from_nanos(on_cpu_ns)))
}

/// The CPU time that all processes of the machine have used together, in hundredths of a second.
///
/// # Errors
/// `/proc/stat` cannot be read.
pub fn machine_cpu_time() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    busy_time(&text).ok_or_else(|| io::Error::other("/proc/stat does not begin with the sum of all CPUs"))
}

/// User, nice, system, interrupts and soft interrupts of the first line of `/proc/stat`; not idle and waiting for I/O, which
/// stand between them, nor what is behind (proc_stat(5)).
fn busy_time(stat: &str) -> Option<Duration> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _io_wait, interrupts, soft_interrupts, ..] = fields[..] else { return None };
    Some(Duration::from_millis((user + nice + system + interrupts + soft_interrupts) * 10))
}

/// The CPU time that the calling thread has used.
///
/// # Errors
/// The kernel refuses to tell.
pub fn current_thread_cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value on the stack that lives through the call.
    match unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_what_is_neither_idle_nor_waiting() {
        let stat = "cpu  100 20 3 9999 8888 4 5 7777 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_time(stat), Some(Duration::from_millis(1_320)));
        assert_eq!(busy_time("intr 1 2 3"), None);
    }

    #[test]
    fn a_process_has_used_at_least_what_its_thread_has() {
        std::thread::Builder::new()
            .name("burner".into())
            .spawn(|| {
                let before = process_cpu_time(std::process::id()).expect("this process is there");
                while process_cpu_time(std::process::id()).expect("still there") < before + Duration::from_millis(2) {}
                let threads = thread_cpu_times(std::process::id()).expect("this process is there");
                assert!(threads["burner"] > Duration::ZERO, "{threads:?}");
            })
            .expect("a thread can be started")
            .join()
            .expect("the thread's checks hold");
    }

    #[test]
    fn the_processes_of_a_process_are_found() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().expect("sh can be started");
        let give_up_at = std::time::Instant::now() + Duration::from_secs(30);
        let mut of_child = Vec::new();
        while of_child.is_empty() && std::time::Instant::now() < give_up_at {
            of_child = descendants(child.id()).expect("/proc is there");
        }
        assert_eq!(of_child.len(), 1);
        let of_this = descendants(std::process::id()).expect("/proc is there");
        assert!(of_this.contains(&child.id()) && of_this.contains(&of_child[0]), "{of_this:?}");
        for process in [of_child[0], child.id()] {
            // SAFETY: no pointers; both are processes of this test, and the child has not been waited for.
            unsafe { libc::kill(process as libc::pid_t, libc::SIGKILL) };
        }
        child.wait().expect("it is our child");
    }

    #[test]
    fn a_pinned_thread_has_one_cpu_and_an_impossible_one_is_refused() {
        let cpu = allowed_cpus().expect("Linux tells")[0];
        std::thread::spawn(move || {
            pin_current_thread(cpu).expect("it is allowed");
            assert_eq!(allowed_cpus().expect("Linux tells"), [cpu]);
            assert!(pin_current_thread(usize::MAX).is_err());
        })
        .join()
        .expect("the thread's checks hold");
    }
}
