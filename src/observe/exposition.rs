//! Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;

use super::counter::Histogram;

/// What histograms of times count in, and what they are shown in: microseconds of a second.
pub(super) const MICROS: f64 = 1e6;

/// Text in the making.
pub struct Text(String);

impl Default for Text {
    fn default() -> Text {
        Text(String::with_capacity(16 * 1024))
    }
}

impl Text {
    /// The text.
    pub fn finish(self) -> String {
        self.0
    }

    /// Starts a family: its type and what it means.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a sample; `labels` is empty or `name="value",…`.
    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }

    /// A family with one sample and no label.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    /// A family of one histogram, the sum of `parts`, which have the same bounds; what was observed is divided by `unit`.
    pub fn histogram<'h>(&mut self, name: &str, help: &str, unit: f64, parts: impl IntoIterator<Item = &'h Histogram>) {
        let mut counts: Vec<u64> = Vec::new();
        let (mut bounds, mut sum) = (&[][..], 0);
        for part in parts {
            bounds = part.bounds();
            counts.resize(bounds.len() + 1, 0);
            counts.iter_mut().zip(part.counts()).for_each(|(total, count)| *total += count);
            sum += part.sum();
        }
        self.family(name, "histogram", help);
        let mut total = 0;
        for (bucket, count) in counts.iter().enumerate() {
            total += count;
            let bound =
                bounds.get(bucket).map_or_else(|| "+Inf".to_owned(), |bound| (*bound as f64 / unit).to_string());
            self.sample(&format!("{name}_bucket"), &format!("le=\"{bound}\""), total as f64);
        }
        self.sample(&format!("{name}_sum"), "", sum as f64 / unit);
        self.sample(&format!("{name}_count"), "", total as f64);
    }
}
