//! The figures of one candidate in one cell, and what they have to satisfy.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cell::Cell;
use crate::candidate::{Candidate, Kind};
use crate::measurement::Measurement;
use crate::report::{Bound, Row};
use crate::wrk::ReadResult;

/// The measurement that is compared and drawn.
pub const CPU: &str = "CPU per request";
/// A program that is so long on its CPU is at its limit.
const BUSY_SHARE: f64 = 0.90;

/// The figures of one candidate in one cell, one of each for a run.
#[derive(Default)]
pub struct Figures {
    /// The round of each.
    rounds: Vec<usize>,
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    server_share: Vec<f64>,
    load_share: Vec<f64>,
    response_bytes: Vec<f64>,
    p99_ms: Vec<f64>,
    errors: u64,
    /// Why there are no more figures.
    pub left_out: Option<String>,
}

impl Figures {
    /// Adds a run of this round.
    pub fn push(&mut self, round: usize, result: &ReadResult, cpu_time: Duration, response_bytes: f64) {
        let requests = result.requests as f64;
        self.rounds.push(round);
        self.rate.push(requests / result.elapsed.as_secs_f64());
        self.cpu_us.push(cpu_time.as_secs_f64() * 1e6 / requests);
        self.server_share.push(cpu_time.as_secs_f64() / result.elapsed.as_secs_f64());
        self.load_share.push(result.load_cpu_share);
        self.response_bytes.push(response_bytes);
        self.p99_ms.push(result.p99_ms);
        self.errors += result.errors;
    }

    /// Whether there is at least one run.
    pub fn has_any(&self) -> bool {
        !self.cpu_us.is_empty()
    }

    /// CPU time of a request in this round: the mean of its runs.
    fn cpu_us_in(&self, round: usize) -> Option<f64> {
        let runs = self.rounds.iter().zip(&self.cpu_us).filter(|(of, _)| **of == round);
        let (count, sum) = runs.fold((0, 0.0), |(count, sum), (_, cpu_us)| (count + 1, sum + cpu_us));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The row of the table.
    pub fn row(&self, candidate: &Candidate, cell: Cell) -> Row {
        let percent = |shares: &[f64]| shares.iter().map(|share| share * 100.0).collect();
        let mut measurements = vec![
            Measurement::new(CPU, "µs", self.cpu_us.clone()),
            Measurement::new("rate", "requests/s", self.rate.clone()),
            Measurement::new("server's CPU", "%", percent(&self.server_share)),
            Measurement::new("wrk's CPU", "%", percent(&self.load_share)),
            Measurement::new("response", "bytes", self.response_bytes.clone()),
        ];
        // wrk does not know when a pipelined request was due.
        if cell.depth == 1 {
            measurements.push(Measurement::new("p99", "ms", self.p99_ms.clone()));
        }
        Row { label: candidate.label(), measurements }
    }
}

fn median(runs: &[f64]) -> f64 {
    Measurement::new("", "", runs.to_vec()).median()
}

/// The median of the ratios of each round. What else happens on the machine changes from one round to the next by more than
/// candidates differ, but hardly within a round, where they are measured one after the other.
fn paired_ratio(ours: &Figures, theirs: &Figures) -> f64 {
    let rounds = ours.rounds.iter().copied().collect::<BTreeSet<usize>>();
    let ratio = |round| Some(ours.cpu_us_in(round)? / theirs.cpu_us_in(round)?);
    median(&rounds.into_iter().filter_map(ratio).collect::<Vec<f64>>())
}

/// Ours against the cheaper floor and against every rival, round by round.
pub fn bounds(cell: Cell, candidates: &[&Candidate], figures: &[Figures]) -> Vec<Bound> {
    let title = cell.title();
    let of = |kind| {
        let all = candidates.iter().zip(figures).filter(|(_, figures)| figures.has_any());
        all.filter(move |(candidate, _)| candidate.kind == kind)
    };
    let Some((_, ours)) = of(Kind::Ours).next() else { return Vec::new() };
    let mut bounds = Vec::new();
    let floors = of(Kind::Floor).map(|(_, floor)| floor);
    if let Some(floor) = floors.min_by(|one, other| median(&one.cpu_us).total_cmp(&median(&other.cpu_us))) {
        let ratio = paired_ratio(ours, floor);
        let claim = format!("{title}: CPU per request over the cheaper floor");
        bounds.push(Bound::at_most(claim, ratio, cell.load.floor_ratio_max()));
        let difference = (median(&ours.response_bytes) / median(&floor.response_bytes) - 1.0).abs();
        let difference_max = cell.load.length_difference_max();
        if difference > difference_max {
            let claim = format!("{title}: the floor's responses are as long as ours, as part of their length");
            bounds.push(Bound::at_most(claim, difference, difference_max));
        }
    }
    bounds.extend(of(Kind::Rival).map(|(rival, figures)| {
        let claim = format!("{title}: CPU per request over {}", rival.name);
        Bound::at_most(claim, paired_ratio(ours, figures), 1.0)
    }));
    bounds
}

/// What one has to know to read the figures.
pub fn remarks(title: &str, candidates: &[&Candidate], figures: &[Figures]) -> Vec<String> {
    let mut remarks = Vec::new();
    let all = || candidates.iter().zip(figures);
    let is_limited_by_load = |figures: &Figures| figures.has_any() && median(&figures.server_share) < BUSY_SHARE;
    let limited: Vec<&str> =
        all().filter(|(_, figures)| is_limited_by_load(figures)).map(|(one, _)| one.name).collect();
    if !limited.is_empty() {
        remarks.push(format!(
            "{title}: the load, not the server, was the limit of the rate for {}; CPU per request holds.",
            limited.join(", ")
        ));
    }
    let failed = all().filter(|(_, figures)| figures.errors > 0);
    remarks.extend(failed.map(|(one, figures)| format!("{title}: {} had {} errors.", one.name, figures.errors)));
    for (one, figures) in all() {
        remarks.extend(figures.left_out.iter().map(|reason| format!("{title}: {} is left out: {reason}.", one.name)));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::CANDIDATES;
    use crate::parts::read::cell::{self, Load};

    fn figures(cpu_us: f64, server_share: f64, response_bytes: f64) -> Figures {
        let one = |figure| vec![figure];
        Figures {
            rounds: vec![0],
            cpu_us: one(cpu_us),
            server_share: one(server_share),
            response_bytes: one(response_bytes),
            ..Figures::default()
        }
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        let in_rounds = |rounds: &[usize], cpu_us: &[f64]| Figures {
            rounds: rounds.to_vec(),
            cpu_us: cpu_us.to_vec(),
            ..Figures::default()
        };
        // The machine is slower in every other round, and ours is measured twice in each.
        let ours = in_rounds(&[0, 0, 1, 1, 2, 2, 3, 3], &[1.0, 1.2, 2.1, 2.3, 1.1, 1.1, 2.2, 2.2]);
        let floor = in_rounds(&[0, 1, 2, 3], &[1.0, 2.0, 1.0, 2.0]);
        assert!((paired_ratio(&ours, &floor) - 1.1).abs() < 1e-9);
        // A rival that was left out after two rounds.
        assert!((paired_ratio(&ours, &in_rounds(&[0, 1], &[1.0, 2.0])) - 1.1).abs() < 1e-9);
        assert!(paired_ratio(&ours, &Figures::default()).is_nan());
    }

    #[test]
    fn ours_is_compared_with_the_cheaper_floor_and_each_rival() {
        let candidates: Vec<&Candidate> = CANDIDATES.iter().take(5).collect();
        let cell = cell::product(&[Load::Ten], &[1], &[64])[0];
        let measured = [(6.6, 1.0), (6.4, 1.0), (6.0, 0.6), (6.5, 1.0)];
        let mut measured: Vec<Figures> = measured.map(|(cpu, server)| figures(cpu, server, 3000.0)).into();
        measured.push(Figures { left_out: Some("it is broken".into()), ..Figures::default() });
        let made = bounds(cell, &candidates, &measured);
        assert_eq!(made.len(), 2);
        assert!(made[0].measured.is_some_and(|ratio| (ratio - 1.1).abs() < 1e-9) && !made[0].holds(), "{made:?}");
        assert!(made[1].claim.ends_with("over may_minihttp") && !made[1].holds(), "{made:?}");
        let told = remarks("t", &candidates, &measured);
        assert!(told[0].ends_with("for floor-io_uring; CPU per request holds."), "{told:?}");
        assert_eq!(told[1], "t: xitca-web is left out: it is broken.");
        // A floor with other bytes is no floor.
        measured[2].response_bytes = vec![2000.0];
        assert!(!bounds(cell, &candidates, &measured)[1].holds());
    }
}
