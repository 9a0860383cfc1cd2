//! How far a seeding is: a bar on a terminal, a few plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::cli::duration::show_duration;
use crate::counted::Counted;

/// Plain lines that one seeding prints.
const PLAIN_LINES: u64 = 10;

/// Shows how many of `count` todos have been taken; threads share it.
pub struct SeedProgress {
    count: u64,
    done: AtomicU64,
    started: Instant,
    display: Display,
}

enum Display {
    Bar(ProgressBar),
    Lines(Mutex<Box<dyn Write + Send>>),
}

impl SeedProgress {
    /// Shows on standard error.
    pub fn on_stderr(count: u64) -> SeedProgress {
        if io::stderr().is_terminal() {
            SeedProgress::new(count, Display::Bar(bar(count)))
        } else {
            SeedProgress::plain(count, Box::new(io::stderr()))
        }
    }

    /// Writes plain lines into `out`.
    pub fn plain(count: u64, out: Box<dyn Write + Send>) -> SeedProgress {
        SeedProgress::new(count, Display::Lines(Mutex::new(out)))
    }

    fn new(count: u64, display: Display) -> SeedProgress {
        SeedProgress { count, done: AtomicU64::new(0), started: Instant::now(), display }
    }

    /// So many more have been taken.
    pub fn add(&self, todos: u64) {
        let before = self.done.fetch_add(todos, Ordering::Relaxed);
        match &self.display {
            Display::Bar(bar) => bar.inc(todos),
            Display::Lines(out) => {
                let line = |done: u64| done * PLAIN_LINES / self.count.max(1);
                if line(before) != line(before + todos) {
                    let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // Nobody may be reading any more; the seeding goes on.
                    let _ = writeln!(out, "{}", progress_line(before + todos, self.count, self.started.elapsed()));
                }
            }
        }
    }

    /// How many have been taken.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes the bar away, so that what comes next starts on a clean line.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

fn bar(count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {human_pos} of {human_len} todos, {rate}, {left} left")
        .expect("the template names only keys that exist")
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A display has nobody to report an error to.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{}", show_duration(state.eta()));
        });
    ProgressBar::new(count).with_style(style)
}

fn progress_line(done: u64, count: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let per_second = done as f64 / seconds;
    let left = Duration::from_secs_f64(count.saturating_sub(done) as f64 / per_second.max(0.001));
    format!("{done} of {}, {per_second:.0}/s, {} left", Counted(count, "todos"), show_duration(left))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn plain_lines_come_once_a_tenth_and_end_with_all() {
        let out = Shared::default();
        let progress = SeedProgress::plain(1_000, Box::new(out.clone()));
        for _ in 0..250 {
            progress.add(4);
        }
        progress.finish();
        assert_eq!(progress.done(), 1_000);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 10, "{text}");
        assert!(text.lines().last().unwrap().starts_with("1000 of 1000 todos, "), "{text}");
    }

    #[test]
    fn a_line_has_rate_and_time_left() {
        assert_eq!(progress_line(200, 1_000, Duration::from_secs(2)), "200 of 1000 todos, 100/s, 8s left");
        assert_eq!(progress_line(1_000, 1_000, Duration::from_secs(2)), "1000 of 1000 todos, 500/s, 0s left");
    }

    #[test]
    fn the_bar_counts() {
        let bar = bar(10);
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        let progress = SeedProgress::new(10, Display::Bar(bar));
        progress.add(10);
        let Display::Bar(bar) = &progress.display else { panic!("not a bar") };
        assert_eq!((progress.done(), bar.position()), (10, 10));
    }
}
