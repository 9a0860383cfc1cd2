//! One figure, measured several times.

use serde::{Deserialize, Serialize};

/// A figure of several runs. What is shown is the median, with the smallest and the largest beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured, such as `CPU per write`.
    pub name: String,
    /// Its unit, such as `µs`.
    pub unit: String,
    /// The figure of each run, in the order of the runs.
    pub runs: Vec<f64>,
}

impl Measurement {
    /// A measurement of these runs.
    pub fn new(name: &str, unit: &str, runs: Vec<f64>) -> Measurement {
        Measurement { name: name.into(), unit: unit.into(), runs }
    }

    /// The middle run; of an even number of runs the mean of the two in the middle; NaN of none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The smallest run.
    pub fn min(&self) -> f64 {
        self.runs.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The largest run.
    pub fn max(&self) -> f64 {
        self.runs.iter().copied().fold(f64::NAN, f64::max)
    }
}

/// The value below which `percent` of the values lie; `values` are sorted here. NaN of none.
pub fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * percent / 100.0).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_run() {
        let odd = Measurement::new("a", "µs", vec![9.0, 1.0, 2.0]);
        assert_eq!((odd.median(), odd.min(), odd.max()), (2.0, 1.0, 9.0));
        assert_eq!(Measurement::new("a", "µs", vec![4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        assert!(Measurement::new("a", "µs", vec![]).median().is_nan());
    }

    #[test]
    fn percentiles_are_found_in_unsorted_values() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 99.0), 99.0);
        assert_eq!(percentile(&mut values, 0.0), 0.0);
        assert!(percentile(&mut [], 50.0).is_nan());
    }
}
