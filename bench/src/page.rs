//! The page, its drawings, and the README's figures, all made from the kept reports.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use crate::candidate::{Candidate, Kind};
use crate::chart;
use crate::measurement::Measurement;
use crate::report::{Report, Row, Table, number};

/// Parts in the order of the page; others follow by name.
const PARTS: [&str; 5] = ["read", "ceiling", "mixed", "latency", "shards"];
/// Where the README's figures begin and end.
const README_BEGIN: &str = "<!-- benchmarks";
const README_END: &str = "<!-- end of benchmarks";
/// The tables that the README shows.
const README_TABLES: [(&str, &str); 3] = [
    ("limit=10, depth 1, 64 connections", "1"),
    ("limit=10, depth 16, 64 connections", "16"),
    ("limit=10, depth 64, 64 connections", "64"),
];
const CPU: &str = "CPU per request";

/// Whatever the page cannot be made for.
pub type PageError = Box<dyn Error>;

/// Makes the page of all reports in `folder`; the drawings go into a folder beside it, of the page's name. A part without a
/// report stays on the page as it was, with the machine and the commit that it names.
///
/// # Errors
/// A report cannot be read, or the page not be written.
pub fn write(folder: &Path, page: &Path) -> Result<(), PageError> {
    let reports = Report::load_all(folder)?;
    let drawings = page.with_extension("");
    std::fs::create_dir_all(&drawings)?;
    let mut sections = kept_sections(&std::fs::read_to_string(page).unwrap_or_default());
    for report in &reports {
        sections.retain(|(part, _)| *part != report.part);
        sections.push((report.part.clone(), section(report, &drawings)?));
    }
    let place = |part: &str| PARTS.iter().position(|one| *one == part).unwrap_or(PARTS.len());
    sections.sort_by_key(|(part, _)| (place(part), part.clone()));
    let bodies: Vec<&str> = sections.iter().map(|(_, text)| text.as_str()).collect();
    let body = bodies.join("\n");
    let mut text = String::from(
        "# Benchmarks\n\nMade by `million-rps-bench report` from what the parts have measured; changes by hand are lost. \
         `make bench` measures the first tables in minutes, `make bench-full` everything. Each part says when, where and at \
         which commit it was measured.\n",
    );
    let verdicts =
        |verdict: &str| body.lines().filter(|line| line.starts_with("| ") && line.ends_with(verdict)).count();
    let (held, failed) = (verdicts("| pass |"), verdicts("| **FAIL** |"));
    if held + failed > 0 {
        let _ = writeln!(text, "\nOf {} bounds {held} hold and {failed} do not.", held + failed);
    }
    text.push('\n');
    text.push_str(&body);
    std::fs::write(page, &text)?;
    for entry in std::fs::read_dir(&drawings)? {
        let entry = entry?;
        let is_drawing = entry.path().extension().is_some_and(|extension| extension == "svg");
        if is_drawing && !text.contains(&*entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The parts of a page: name and text.
fn kept_sections(page: &str) -> Vec<(String, String)> {
    let begins = page.match_indices("\n## ").map(|(at, _)| at + 1);
    let mut places: Vec<usize> = begins.chain([page.len() + 1]).collect();
    places.dedup();
    let section = |ends: &[usize]| {
        // A blank line stands before the next one.
        let text = page[ends[0]..ends[1] - 1].trim_end();
        let part = text.lines().next()?.strip_prefix("## ")?.to_owned();
        Some((part, format!("{text}\n")))
    };
    places.windows(2).filter_map(section).collect()
}

/// The text of a part; its drawings are written.
fn section(report: &Report, drawings: &Path) -> Result<String, PageError> {
    let name = drawings.file_name().unwrap_or_default().to_string_lossy();
    let mut drawn = Vec::new();
    for (table, chart) in report.tables.iter().filter_map(|table| Some((table, table.chart.as_ref()?))) {
        let file = format!("{}-{}.svg", report.part, chart.file);
        std::fs::write(drawings.join(&file), chart::draw(table, chart)?)?;
        drawn.push((table.title.as_str(), format!("{name}/{file}")));
    }
    Ok(report.to_markdown_with(|table| {
        let drawing = drawn.iter().find(|(title, _)| *title == table.title);
        drawing.map(|(title, file)| format!("![{title}]({file})")).unwrap_or_default()
    }))
}

/// Writes the README's figures between its markers. Without a report of reads nothing changes.
///
/// # Errors
/// The README has no markers, or cannot be written.
pub fn write_readme(folder: &Path, readme: &Path, page: &Path) -> Result<(), PageError> {
    let reports = Report::load_all(folder)?;
    let Some(block) = reports.iter().find(|report| report.part == "read").and_then(|report| readme_block(report, page))
    else {
        return Ok(());
    };
    let text = std::fs::read_to_string(readme)?;
    std::fs::write(readme, between_markers(&text, &block).ok_or("the README has no markers for the figures")?)?;
    Ok(())
}

fn between_markers(text: &str, block: &str) -> Option<String> {
    let begin = text.find(README_BEGIN)?;
    let begin = begin + text[begin..].find('\n')? + 1;
    let end = begin + text[begin..].find(README_END)?;
    Some(format!("{}{block}{}", &text[..begin], &text[end..]))
}

/// Ours, the cheaper floor and the cheapest rival, at each depth; `None` without such tables.
fn readme_block(report: &Report, page: &Path) -> Option<String> {
    let mut rows = String::new();
    for (title, depth) in README_TABLES {
        let Some(table) = report.tables.iter().find(|table| table.title == title) else { continue };
        let ours = cheapest(table, Kind::Ours)?;
        let cell = |kind| {
            cheapest(table, kind).map_or("none".into(), |(candidate, row)| {
                format!("{} µs ({})", number(figure(row, CPU)), candidate.name)
            })
        };
        let _ = writeln!(
            rows,
            "| {depth} | {} µs | {} | {} | {} |",
            number(figure(ours.1, CPU)),
            cell(Kind::Floor),
            cell(Kind::Rival),
            number(figure(ours.1, "rate")),
        );
    }
    if rows.is_empty() {
        return None;
    }
    let machine = &report.machine;
    Some(format!(
        "`GET /todos?limit=10` with live writes, one shard on one CPU of {}, the load (wrk, 64 connections) on another; Linux \
         {}, commit {}. The floor only counts requests and writes the same bytes.\n\n\
         | requests in flight on a connection | CPU per request | the floor's | the cheapest rival's | requests/s |\n\
         |---:|---:|---:|---:|---:|\n{rows}\n\
         All figures, with smallest and largest runs: [{page}]({page}).\n",
        machine.cpu_model,
        machine.kernel,
        machine.commit,
        page = page.display(),
    ))
}

fn cheapest(table: &Table, kind: Kind) -> Option<(&'static Candidate, &Row)> {
    let rows = table.rows.iter().filter_map(|row| Some((Candidate::labelled(&row.label)?, row)));
    rows.filter(|(candidate, _)| candidate.kind == kind)
        .min_by(|one, other| figure(one.1, CPU).total_cmp(&figure(other.1, CPU)))
}

fn figure(row: &Row, name: &str) -> f64 {
    row.measurements.iter().find(|measurement| measurement.name == name).map_or(f64::NAN, Measurement::median)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::machine::Machine;
    use crate::report::{Bound, ChartForm};

    fn sample() -> Report {
        // Looked at once: the load of the machine changes from one moment to the next.
        static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine::detect(2));
        let row = |name: &str, cpu: f64| Row {
            label: Candidate::named(name).expect("it is in the list").label(),
            measurements: vec![
                Measurement::new(CPU, "µs", vec![cpu]),
                Measurement::new("rate", "requests/s", vec![1e6 / cpu]),
            ],
        };
        let rows = vec![row("million-rps", 0.5), row("floor-epoll", 0.48), row("nginx", 8.0), row("may_minihttp", 0.8)];
        Report {
            part: "read".into(),
            about: "Shows a sample.".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
            machine: MACHINE.clone(),
            command: "read".into(),
            settings: Vec::new(),
            tables: vec![Table::new(README_TABLES[1].0, rows).drawn(ChartForm::Bars, CPU, "ten")],
            bounds: vec![Bound::at_most("small", 1.0, 1.2), Bound::at_most("smaller", 1.0, 0.2)],
            remarks: Vec::new(),
        }
    }

    #[test]
    fn the_page_shows_the_drawings_and_old_ones_are_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        sample().save(folder.path()).expect("it can be written");
        let page = folder.path().join("page.md");
        std::fs::create_dir(folder.path().join("page")).expect("a folder");
        std::fs::write(folder.path().join("page/old.svg"), "").expect("it can be written");
        write(folder.path(), &page).expect("it can be made");
        let text = std::fs::read_to_string(&page).expect("it is there");
        assert!(text.contains("Of 2 bounds 1 hold and 1 do not."), "{text}");
        assert!(text.contains("(page/read-ten.svg)") && text.contains("| nginx | 8.000 | 125,000 |"), "{text}");
        let drawings: Vec<_> = std::fs::read_dir(folder.path().join("page")).expect("it is there").collect();
        assert_eq!(drawings.len(), 1);
    }

    #[test]
    fn a_part_that_is_not_measured_again_stays() {
        let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let page = first.path().join("page.md");
        let other = Report { part: "apply".into(), about: "Shows another.".into(), ..sample() };
        other.save(first.path()).expect("it can be written");
        sample().save(first.path()).expect("it can be written");
        write(first.path(), &page).expect("it can be made");
        let before = std::fs::read_to_string(&page).expect("it is there");
        assert!(before.contains("Of 4 bounds 2 hold and 2 do not."), "{before}");
        Report { about: "Shows it again.".into(), ..sample() }.save(second.path()).expect("it can be written");
        for _ in 0..2 {
            write(second.path(), &page).expect("it can be made");
            let after = std::fs::read_to_string(&page).expect("it is there");
            assert_eq!(after, before.replace("Shows a sample.", "Shows it again."));
        }
        assert_eq!(std::fs::read_dir(first.path().join("page")).expect("it is there").count(), 2);
    }

    #[test]
    fn the_readme_gets_its_figures_between_the_markers() {
        let folder = tempfile::tempdir().expect("a folder");
        let readme = folder.path().join("README.md");
        let begin = "# A\n\n<!-- benchmarks: made by a machine -->\n";
        let end = "<!-- end of benchmarks -->\nB\n";
        std::fs::write(&readme, format!("{begin}old\n{end}")).expect("it can be written");
        write_readme(folder.path(), &readme, Path::new("docs/benchmarks.md")).expect("nothing to do");
        assert!(std::fs::read_to_string(&readme).expect("it is there").contains("old"));
        sample().save(folder.path()).expect("it can be written");
        for _ in 0..2 {
            write_readme(folder.path(), &readme, Path::new("docs/benchmarks.md")).expect("it can be written");
            let text = std::fs::read_to_string(&readme).expect("it is there");
            assert!(text.starts_with(begin) && text.ends_with(end) && !text.contains("old"), "{text}");
            let row = "| 16 | 0.500 µs | 0.480 µs (floor-epoll) | 0.800 µs (may_minihttp) | 2,000,000 |";
            assert!(text.contains(row), "{text}");
        }
        std::fs::write(&readme, "# A\n").expect("it can be written");
        assert!(write_readme(folder.path(), &readme, Path::new("docs/benchmarks.md")).is_err());
    }
}
