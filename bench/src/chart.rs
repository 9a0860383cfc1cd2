//! Drawings of tables, as SVG that is legible on a light and on a dark page.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::candidate::{Candidate, Kind};
use crate::measurement::Measurement;
use crate::report::{Chart, ChartForm, Table, number};

const WIDTH: u32 = 860;
const TITLE_HEIGHT: i32 = 44;
const BAR_HEIGHT: i32 = 18;
const ROW_HEIGHT: i32 = 28;
const LABEL_WIDTH: i32 = 150;
/// Room for the figure behind the longest bar.
const FIGURE_WIDTH: i32 = 190;
const LINE_CHART_HEIGHT: u32 = 320;

const PAGE: RGBColor = RGBColor(255, 255, 255);
const TEXT: RGBColor = RGBColor(31, 35, 40);
const FAINT_TEXT: RGBColor = RGBColor(89, 99, 110);
const GRID: RGBColor = RGBColor(209, 217, 224);
const OURS: RGBColor = RGBColor(9, 105, 218);
const FLOOR: RGBColor = RGBColor(154, 103, 0);
const RIVAL: RGBColor = RGBColor(129, 139, 152);

/// What each colour is on a dark page.
const DARK: [(RGBColor, &str); 7] = [
    (PAGE, "#0D1117"),
    (TEXT, "#F0F6FC"),
    (FAINT_TEXT, "#9198A1"),
    (GRID, "#3D444D"),
    (OURS, "#4493F8"),
    (FLOOR, "#D29922"),
    (RIVAL, "#656C76"),
];

/// What may go wrong; a table without figures is an error too.
pub type ChartError = Box<dyn Error>;

/// Draws the table.
///
/// # Errors
/// No row has the measurement.
pub fn draw(table: &Table, chart: &Chart) -> Result<String, ChartError> {
    let figures: Vec<(&str, &Measurement)> = table
        .rows
        .iter()
        .filter_map(|row| {
            let found = row.measurements.iter().find(|measurement| measurement.name == chart.measurement);
            found.filter(|measurement| measurement.median().is_finite()).map(|found| (row.label.as_str(), found))
        })
        .collect();
    let (_, first) = figures.first().ok_or_else(|| format!("{} has no {}", table.title, chart.measurement))?;
    let unit = if first.unit.is_empty() { String::new() } else { format!(", {}", first.unit) };
    let title = format!("{}: {}{unit}", table.title, chart.measurement);
    let mut svg = String::new();
    match chart.form {
        ChartForm::Bars => draw_bars(&mut svg, &title, &figures)?,
        ChartForm::Line => draw_line(&mut svg, &title, &figures)?,
    }
    Ok(with_dark_colours(&svg))
}

fn draw_bars(svg: &mut String, title: &str, figures: &[(&str, &Measurement)]) -> Result<(), ChartError> {
    let height = TITLE_HEIGHT + ROW_HEIGHT * figures.len() as i32 + 10;
    let root = SVGBackend::with_string(svg, (WIDTH, height as u32)).into_drawing_area();
    root.fill(&PAGE)?;
    root.draw(&Text::new(title, (16, 14), text(16, TEXT, HPos::Left, VPos::Top)))?;
    let longest = figures.iter().map(|(_, figure)| figure.max()).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH as i32 - LABEL_WIDTH - FIGURE_WIDTH);
    let at = |figure: f64| LABEL_WIDTH + (figure / longest * room).round() as i32;
    for (row, (label, figure)) in figures.iter().enumerate() {
        let top = TITLE_HEIGHT + ROW_HEIGHT * row as i32;
        let middle = top + BAR_HEIGHT / 2;
        let candidate = Candidate::labelled(label);
        let colour = match candidate.map(|candidate| candidate.kind) {
            Some(Kind::Ours) | None => OURS,
            Some(Kind::Floor) => FLOOR,
            Some(Kind::Rival) => RIVAL,
        };
        let name = candidate.map_or_else(|| label.replace("**", ""), |candidate| candidate.name.to_owned());
        root.draw(&Text::new(name, (LABEL_WIDTH - 10, middle), text(14, TEXT, HPos::Right, VPos::Center)))?;
        let end = at(figure.median()).max(LABEL_WIDTH + 1);
        root.draw(&Rectangle::new([(LABEL_WIDTH, top), (end, top + BAR_HEIGHT)], colour.filled()))?;
        // From the smallest to the largest run.
        let whisker = [(at(figure.min()), middle), (at(figure.max()), middle)];
        root.draw(&PathElement::new(whisker, TEXT.stroke_width(1)))?;
        let mut shown = number(figure.median());
        if figure.runs.len() > 1 {
            shown += &format!("  ({} to {})", number(figure.min()), number(figure.max()));
        }
        let right = at(figure.max()).max(end) + 8;
        root.draw(&Text::new(shown, (right, middle), text(13, FAINT_TEXT, HPos::Left, VPos::Center)))?;
    }
    root.present()?;
    drop(root);
    Ok(())
}

fn draw_line(svg: &mut String, title: &str, figures: &[(&str, &Measurement)]) -> Result<(), ChartError> {
    let points: Vec<(f64, f64)> = figures
        .iter()
        .filter_map(|(label, figure)| Some((label.split(' ').next()?.parse().ok()?, figure.median())))
        .collect();
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let (x_max, y_max) = (most(&mut points.iter().map(|point| point.0)), most(&mut points.iter().map(|point| point.1)));
    let root = SVGBackend::with_string(svg, (WIDTH, LINE_CHART_HEIGHT)).into_drawing_area();
    root.fill(&PAGE)?;
    root.draw(&Text::new(title, (16, 14), text(16, TEXT, HPos::Left, VPos::Top)))?;
    let below = root.margin(TITLE_HEIGHT, 16, 16, 40);
    let mut chart = ChartBuilder::on(&below)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..x_max * 1.05, 0.0..y_max * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .label_style(text(13, FAINT_TEXT, HPos::Left, VPos::Top))
        .x_labels(x_max as usize + 1)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| if *y == 0.0 { "0".into() } else { number(*y) })
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), OURS.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, OURS.filled())))?;
    chart.draw_series(points.iter().map(|point| {
        let style = text(13, TEXT, HPos::Right, VPos::Bottom);
        EmptyElement::at(*point) + Text::new(number(point.1), (-6, -6), style)
    }))?;
    root.present()?;
    drop(chart);
    Ok(())
}

fn text(size: i32, colour: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour).pos(Pos::new(horizontal, vertical))
}

/// The drawing follows the reader's choice of light and dark, also inside an image of a page.
fn with_dark_colours(svg: &str) -> String {
    let rules: String = DARK
        .iter()
        .map(|(light, dark)| {
            let light = format!("#{:02X}{:02X}{:02X}", light.0, light.1, light.2);
            format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
        })
        .collect();
    let style = format!("<style>@media (prefers-color-scheme:dark){{{rules}}}</style>");
    match svg.find('>').map(|head_end| svg.split_at(head_end + 1)) {
        Some((head, rest)) => format!("{head}\n{style}{}", rest.trim_end_matches('\n')) + "\n",
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    fn table(form: ChartForm, labels: &[&str]) -> Table {
        let row = |(at, label): (usize, &&str)| Row {
            label: (*label).to_owned(),
            measurements: vec![Measurement::new("rate", "1/s", vec![1e6 * (at + 1) as f64, 2e6, 3e6])],
        };
        Table::new("A & B", labels.iter().enumerate().map(row).collect()).drawn(form, "rate", "file")
    }

    #[test]
    fn bars_have_names_figures_and_colours_for_dark_pages() {
        let table = table(ChartForm::Bars, &["**million-rps**", "nginx", "another"]);
        let svg = draw(&table, table.chart.as_ref().expect("it has one")).expect("it can be drawn");
        for words in ["million-rps", "nginx", "2,000,000", "A &amp; B: rate, 1/s", "prefers-color-scheme:dark"] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(svg.contains("fill=\"#0969DA\"") && svg.contains("fill=\"#818B98\""), "{svg}");
        assert!(svg.contains("[fill=\"#0969DA\"]{fill:#4493F8}"), "{svg}");
    }

    #[test]
    fn lines_go_through_the_numbers_of_the_labels() {
        let table = table(ChartForm::Line, &["1 shard", "2 shards", "4 shards"]);
        let svg = draw(&table, table.chart.as_ref().expect("it has one")).expect("it can be drawn");
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
    }

    #[test]
    fn a_table_without_the_measurement_cannot_be_drawn() {
        let mut table = table(ChartForm::Bars, &["a"]);
        table.rows[0].measurements.clear();
        assert!(draw(&table, &table.chart.clone().expect("it has one")).is_err());
    }
}
