//! What one part has measured: kept as JSON, shown as a page of tables.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measurement::Measurement;

/// The result of one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The part's name, as on the command line.
    pub part: String,
    /// What the part shows, in a sentence or two.
    pub about: String,
    /// When it was started (RFC 3339).
    pub started_at: String,
    /// Where it ran.
    pub machine: Machine,
    /// The command line that repeats it.
    pub command: String,
    /// What it ran with: name and value.
    pub settings: Vec<(String, String)>,
    /// The figures.
    pub tables: Vec<Table>,
    /// What the figures have to satisfy, and whether they do.
    pub bounds: Vec<Bound>,
    /// What could not be measured, or has to be known to read the figures.
    pub remarks: Vec<String>,
}

/// Rows of the same measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What the table shows.
    pub title: String,
    /// Its rows.
    pub rows: Vec<Row>,
    /// How the table is also drawn.
    #[serde(default)]
    pub chart: Option<Chart>,
}

/// A drawing of one column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chart {
    /// Its form.
    pub form: ChartForm,
    /// The measurement that is drawn; of several of one name the first.
    pub measurement: String,
    /// The name of the drawing's file, without ending.
    pub file: String,
}

/// How figures are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChartForm {
    /// One bar a row.
    Bars,
    /// One point a row, at the number that its label begins with, joined by a line.
    Line,
}

/// The measurements of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub label: String,
    /// The figures; rows of a table need not have the same.
    pub measurements: Vec<Measurement>,
}

/// A figure, and what it may be at most or has to be at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// What is claimed.
    pub claim: String,
    /// The figure; `None` when it could not be made.
    pub measured: Option<f64>,
    /// What it is compared with.
    pub limit: Limit,
}

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Limit {
    /// It may be so much.
    AtMost(f64),
    /// It has to be so much.
    AtLeast(f64),
}

impl Bound {
    /// A figure that may be `limit` at most.
    pub fn at_most(claim: impl Into<String>, measured: f64, limit: f64) -> Bound {
        Bound { claim: claim.into(), measured: Some(measured).filter(|m| m.is_finite()), limit: Limit::AtMost(limit) }
    }

    /// A figure that has to be `limit` at least.
    pub fn at_least(claim: impl Into<String>, measured: f64, limit: f64) -> Bound {
        Bound { claim: claim.into(), measured: Some(measured).filter(|m| m.is_finite()), limit: Limit::AtLeast(limit) }
    }

    /// Whether the claim is true. A figure that could not be made proves nothing.
    pub fn holds(&self) -> bool {
        self.measured.is_some_and(|measured| match self.limit {
            Limit::AtMost(limit) => measured <= limit,
            Limit::AtLeast(limit) => measured >= limit,
        })
    }

    fn row(&self) -> String {
        let verdict = if self.holds() { "pass" } else { "**FAIL**" };
        // Ratios need the third digit, rates none.
        let shown = |value: f64| if value < 1000.0 { format!("{value:.3}") } else { number(value) };
        let measured = self.measured.map_or("none".into(), shown);
        let limit = match self.limit {
            Limit::AtMost(limit) => format!("≤ {}", shown(limit)),
            Limit::AtLeast(limit) => format!("≥ {}", shown(limit)),
        };
        format!("| {} | {measured} | {limit} | {verdict} |", self.claim)
    }
}

impl Table {
    /// A table that is not drawn.
    pub fn new(title: impl Into<String>, rows: Vec<Row>) -> Table {
        Table { title: title.into(), rows, chart: None }
    }

    /// Also draws one measurement of each row.
    #[must_use]
    pub fn drawn(mut self, form: ChartForm, measurement: &str, file: &str) -> Table {
        self.chart = Some(Chart { form, measurement: measurement.into(), file: file.into() });
        self
    }
}

impl Report {
    /// Writes the report into `folder`, as `PART.json`, instead of the part's last one.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn save(&self, folder: &Path) -> io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.part));
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }

    /// The bounds that do not hold.
    pub fn failed(&self) -> impl Iterator<Item = &Bound> {
        self.bounds.iter().filter(|bound| !bound.holds())
    }

    /// All reports in `folder`, by part.
    ///
    /// # Errors
    /// The folder cannot be read, or a file in it is no report.
    pub fn load_all(folder: &Path) -> io::Result<Vec<Report>> {
        let mut reports: Vec<Report> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let report = serde_json::from_slice(&std::fs::read(&path)?);
                reports.push(report.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?);
            }
        }
        reports.sort_by(|one, other| one.part.cmp(&other.part));
        Ok(reports)
    }

    /// The report as a section of a page, in Markdown.
    pub fn to_markdown(&self) -> String {
        self.to_markdown_with(|_| String::new())
    }

    /// The same, with something behind each table that is not empty.
    pub fn to_markdown_with(&self, behind: impl Fn(&Table) -> String) -> String {
        let mut text = String::new();
        let Machine { cpu_model, cpus, memory_mib, kernel, load_average, commit } = &self.machine;
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "## {}\n\n{}\n\nMeasured {} at commit {commit} on {cpu_model}, {cpus} CPUs, {memory_mib} MiB, Linux {kernel}; \
             load average before the first run {load_average}. Each figure is the median of its runs, with the smallest and \
             the largest in brackets.\n\nRepeat it: `{}`\n",
            self.part, self.about, self.started_at, self.command
        );
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(text, "\nSettings: {}.", settings.join("; "));
        for table in &self.tables {
            table.write_markdown(&mut text);
            let behind = behind(table);
            if !behind.is_empty() {
                let _ = write!(text, "\n{behind}\n");
            }
        }
        if !self.bounds.is_empty() {
            text.push_str("\n| bound | measured | limit | |\n|---|---:|---:|---|\n");
        }
        for bound in &self.bounds {
            let _ = writeln!(text, "{}", bound.row());
        }
        if !self.remarks.is_empty() {
            text.push('\n');
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "- {remark}");
        }
        text
    }
}

impl Table {
    fn write_markdown(&self, text: &mut String) {
        let mut columns: Vec<(&str, &str)> = Vec::new();
        for measurement in self.rows.iter().flat_map(|row| &row.measurements) {
            let column = (measurement.name.as_str(), measurement.unit.as_str());
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let heads: Vec<String> = columns
            .iter()
            .map(|(name, unit)| if unit.is_empty() { (*name).to_owned() } else { format!("{name}, {unit}") })
            .collect();
        let _ =
            writeln!(text, "\n### {}\n\n| | {} |\n|---|{}", self.title, heads.join(" | "), "---:|".repeat(heads.len()));
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.label);
            for column in &columns {
                let found = row.measurements.iter().find(|m| (m.name.as_str(), m.unit.as_str()) == *column);
                let _ = match found {
                    Some(measurement) => write!(text, " {} |", shown(measurement)),
                    None => write!(text, " |"),
                };
            }
            text.push('\n');
        }
    }
}

fn shown(measurement: &Measurement) -> String {
    let median = number(measurement.median());
    match measurement.runs.len() {
        0 => "none".into(),
        1 => median,
        _ => format!("{median} ({} to {})", number(measurement.min()), number(measurement.max())),
    }
}

/// Four significant digits below a thousand; above it whole numbers, grouped.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "none".into();
    }
    let magnitude = value.abs();
    if magnitude < 1000.0 {
        let decimals =
            [(100.0, 1), (10.0, 2)].iter().find(|(from, _)| magnitude >= *from).map_or(3, |(_, digits)| *digits);
        return format!("{value:.decimals$}");
    }
    let digits = format!("{magnitude:.0}");
    let mut grouped = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        Report {
            part: "sample".into(),
            about: "Shows a sample.".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
            machine: Machine::detect(2),
            command: "sample --runs 3".into(),
            settings: vec![("runs".into(), "3".into())],
            tables: vec![Table::new(
                "Figures",
                vec![
                    Row { label: "a".into(), measurements: vec![Measurement::new("CPU", "µs", vec![3.0, 1.0, 2.0])] },
                    Row { label: "b".into(), measurements: vec![Measurement::new("rate", "1/s", vec![1_234_567.8])] },
                ],
            )],
            bounds: vec![
                Bound::at_most("small", 1.0, 1.2),
                Bound::at_least("fast", 1_234_567.0, 1e6),
                Bound::at_least("slow", 999_999.0, 1e6),
                Bound::at_most("unknown", f64::NAN, 1.2),
            ],
            remarks: vec!["one thing is missing".into()],
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_saved_and_shown_in_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        let report = sample();
        report.save(folder.path()).expect("it can be written");
        assert_eq!(Report::load_all(folder.path()).expect("it can be read"), [report]);
        let text = sample().to_markdown();
        assert!(text.contains("| a | 2.000 (1.000 to 3.000) | |\n| b | | 1,234,568 |\n"), "{text}");
    }

    #[test]
    fn a_bound_without_a_figure_does_not_hold() {
        let text = sample().to_markdown();
        assert!(text.contains("| small | 1.000 | ≤ 1.200 | pass |"), "{text}");
        assert!(text.contains("| fast | 1,234,567 | ≥ 1,000,000 | pass |"), "{text}");
        assert!(text.contains("| slow | 999,999 | ≥ 1,000,000 | **FAIL** |"), "{text}");
        assert!(text.contains("| unknown | none | ≤ 1.200 | **FAIL** |"), "{text}");
        let failed: Vec<String> = sample().failed().map(|bound| bound.claim.clone()).collect();
        assert_eq!(failed, ["slow", "unknown"]);
    }

    #[test]
    fn numbers_have_four_digits_or_groups() {
        let shown: Vec<String> = [0.5678, 12.345, 999.96, 1000.0, 1_234_567.0, f64::NAN].map(number).into();
        assert_eq!(shown, ["0.568", "12.35", "1000.0", "1,000", "1,234,567", "none"]);
    }
}
