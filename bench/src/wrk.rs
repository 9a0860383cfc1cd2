//! The read load: wrk.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::unlike::{Order, Requests};

/// What wrk is told; the first lines of the files say what they do.
const READS: &str = include_str!("../wrk/load.lua");
const MIXED: &str = include_str!("../wrk/mixed.lua");
const TURNS: &str = include_str!("../wrk/turns.lua");
const DONE: &str = include_str!("../wrk/done.lua");

/// Writes between the reads.
#[derive(Debug, Clone, Copy)]
pub struct WritesBetween<'l> {
    /// So many of a hundred requests create a todo.
    pub percent: u32,
    /// The bearer token.
    pub token: &'l str,
}

/// What wrk sends.
#[derive(Debug, Clone)]
pub struct ReadLoad<'l> {
    /// The server.
    pub address: SocketAddr,
    /// The request target.
    pub target: &'l str,
    /// The entity tag of a conditional request.
    pub if_none_match: Option<&'l str>,
    /// Writes between the reads; then neither depth nor entity tag is looked at.
    pub writes: Option<WritesBetween<'l>>,
    /// Requests that differ; then neither target nor entity tag is looked at.
    pub unlike: Option<&'l Requests>,
    /// Requests that a connection sends together.
    pub depth: usize,
    /// Connections.
    pub connections: usize,
    /// Threads of wrk; as many connections at least.
    pub threads: usize,
    /// How long.
    pub duration: Duration,
}

/// What wrk has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadResult {
    /// Responses.
    pub requests: u64,
    /// Over which time.
    pub elapsed: Duration,
    /// Bytes of the responses.
    pub bytes: u64,
    /// Failed connects, reads and writes, responses that are neither 2xx nor 3xx, and timeouts.
    pub errors: u64,
    /// The time below which 99 % of the responses came, in milliseconds; without meaning at a depth above 1.
    pub p99_ms: f64,
    /// The part of the time in which wrk was on its CPU, of each of its threads: near 1 it could not have sent more.
    pub load_cpu_share: f64,
}

impl ReadLoad<'_> {
    /// Runs wrk on the CPUs of the calling thread.
    ///
    /// # Errors
    /// wrk is missing, fails, or says something else than expected.
    pub fn run(&self) -> io::Result<ReadResult> {
        let mut script = tempfile::Builder::new().suffix(".lua").tempfile()?;
        let mut requests = tempfile::NamedTempFile::new()?;
        let text = match (self.writes, self.unlike) {
            (Some(_), _) => MIXED,
            (None, Some(unlike)) => {
                requests.write_all(unlike.texts.concat().as_bytes())?;
                TURNS
            }
            (None, None) => READS,
        };
        script.write_all([text, DONE].concat().as_bytes())?;
        let mut command = Command::new("wrk");
        // wrk wants at least a second.
        command.args([
            &format!("-t{}", self.threads),
            &format!("-c{}", self.connections),
            &format!("-d{}s", self.duration.as_secs().max(1)),
        ]);
        command.arg("-s").arg(script.path()).arg(format!("http://{}{}", self.address, self.target));
        command.arg("--");
        match (self.writes, self.unlike) {
            (Some(WritesBetween { percent, token }), _) => command.arg(percent.to_string()).arg(token),
            (None, Some(unlike)) => {
                let order = if unlike.order == Order::Turn { "turn" } else { "random" };
                command.arg(requests.path()).arg(self.depth.to_string()).arg(order)
            }
            (None, None) => command.arg(self.depth.to_string()).args(self.if_none_match),
        };
        let begin = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
            let hint =
                if error.kind() == io::ErrorKind::NotFound { "; install it (Debian: apt install wrk)" } else { "" };
            io::Error::new(error.kind(), format!("wrk cannot be started: {error}{hint}"))
        })?;
        let mut output = String::new();
        child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut output))?;
        let cpu_time = wait_with_cpu_time(child.id())?;
        let wall = begin.elapsed();
        let mut result = read_result(&output)
            .ok_or_else(|| io::Error::other(format!("`{command:?}` gave no result. It wrote:\n{output}")))?;
        result.load_cpu_share = cpu_time.as_secs_f64() / wall.as_secs_f64() / self.threads as f64;
        Ok(result)
    }
}

/// Waits for a child, and tells the CPU time that it has used.
fn wait_with_cpu_time(process: u32) -> io::Result<Duration> {
    let process = libc::pid_t::try_from(process).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is valid, and both pointers are to values on the stack that live through the call. The
    // child is waited for here and nowhere else.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(process, &raw mut status, 0, &raw mut usage), usage)
    };
    if waited != process {
        return Err(io::Error::last_os_error());
    }
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// The line that the script writes in the end.
fn read_result(output: &str) -> Option<ReadResult> {
    let line = output.lines().find_map(|line| line.strip_prefix("RESULT "))?;
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [requests, duration_us, bytes, connect, read, write, status, timeout, p99_us] = numbers[..] else {
        return None;
    };
    Some(ReadResult {
        requests,
        elapsed: Duration::from_micros(duration_us),
        bytes,
        errors: connect + read + write + status + timeout,
        p99_ms: p99_us as f64 / 1e3,
        load_cpu_share: f64::NAN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_is_found() {
        let output = "Running 1s test\nRESULT 100 1000000 5000 0 1 0 2 0 1500\nRequests/sec: 100\n";
        let result = read_result(output).expect("a result");
        assert_eq!((result.requests, result.bytes, result.errors), (100, 5000, 3));
        assert_eq!((result.elapsed, result.p99_ms), (Duration::from_secs(1), 1.5));
        assert_eq!(read_result("RESULT 1 2 3\n"), None);
        assert_eq!(read_result("unable to connect\n"), None);
    }

    #[test]
    fn the_cpu_time_of_a_child_is_told() {
        let child = Command::new("sh").args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]).spawn();
        let time = wait_with_cpu_time(child.expect("sh can be started").id()).expect("it is our child");
        assert!(time > Duration::ZERO);
    }
}
