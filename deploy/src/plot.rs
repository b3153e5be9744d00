//! Dashboards as pictures, where no Grafana is at hand.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::dashboards::Dashboard;
use crate::drill::Line;

/// Draws every panel of a dashboard into one SVG file.
///
/// # Errors
/// `ask` fails, or the file cannot be written.
pub(crate) fn dashboard(
    dashboard: &Dashboard,
    file: &Path,
    ask: impl Fn(&str) -> anyhow::Result<Vec<Line>>,
) -> anyhow::Result<()> {
    let panels: Vec<_> = dashboard.panels().collect();
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (WIDTH * u32::try_from(COLUMNS)?, HEIGHT * u32::try_from(rows)?);
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    for (panel, area) in panels.iter().zip(root.split_evenly((rows, COLUMNS))) {
        let mut lines = Vec::new();
        for (expr, legend) in panel.queries {
            lines.extend(ask(expr)?.into_iter().map(|line| (legend_of(legend, &line), line)));
        }
        // Of many, those are named that reach highest.
        lines.sort_by(|(_, a), (_, b)| peak(b).total_cmp(&peak(a)));
        draw(&area, panel.title, panel.unit, &lines)?;
    }
    root.present().map_err(failed)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    unit: &str,
    lines: &[(String, Line)],
) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|(_, line)| &line.points).filter(|(_, y)| y.is_finite());
    let last = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let first = points().map(|(x, _)| *x).fold(last, f64::min);
    let top = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
    // Nothing but zeros: an axis that can be read all the same.
    let top = if top > 0.0 { top } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(20)
        .y_label_area_size(60)
        .build_cartesian_2d(first..last, 0.0..top)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(5)
        .x_label_formatter(&|x| format!("{x:.0} s"))
        .y_labels(5)
        .y_label_formatter(&|y| amount(*y, unit))
        .draw()
        .map_err(failed)?;
    for (i, (legend, line)) in lines.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let finite = line.points.iter().copied().filter(|(_, y)| y.is_finite());
        let series = chart.draw_series(LineSeries::new(finite, color)).map_err(failed)?;
        if i < LEGENDS {
            let stroke = move |(x, y)| PathElement::new([(x, y), (x + 12, y)], color);
            series.label(legend).legend(stroke);
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.4))
        .draw()
        .map_err(failed)
}

/// The highest value of a line.
fn peak(line: &Line) -> f64 {
    let finite = line.points.iter().map(|(_, y)| *y).filter(|y| y.is_finite());
    finite.fold(0.0, f64::max)
}

/// A value as people write it: 20 %, 250 ms, 1.5 MB/s, 80 k.
fn amount(value: f64, unit: &str) -> String {
    let ending = match unit {
        "percentunit" => return format!("{} %", rounded(value * 100.0)),
        "s" if value < 1.0 => return format!("{} ms", rounded(value * 1000.0)),
        "s" => "s",
        "bytes" => "B",
        "Bps" => "B/s",
        "ops" | "pps" => "/s",
        _ => "",
    };
    let steps = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
    let (size, prefix) = steps.into_iter().find(|(size, _)| value >= *size).unwrap_or((1.0, ""));
    format!("{} {prefix}{ending}", rounded(value / size)).trim_end().to_owned()
}

/// To two digits or so.
fn rounded(value: f64) -> String {
    let digits = if value >= 10.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    if digits == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Fills `{{label}}`s.
fn legend_of(template: &str, line: &Line) -> String {
    let fill = |text: String, (name, value): &(String, String)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    };
    let legend = line.labels.iter().fold(template.to_owned(), fill);
    // A line without labels, like `vector(0)`.
    let legend = if legend.contains("{{") { "none".to_owned() } else { legend };
    legend.chars().take(LEGEND_CHARS).collect()
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

const COLUMNS: usize = 3;
const WIDTH: u32 = 520;
const HEIGHT: u32 = 280;
/// More would hide the graph.
const LEGENDS: usize = 8;
/// Nor would longer ones be read.
const LEGEND_CHARS: usize = 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_people_do() {
        let cases = [
            (0.25, "percentunit", "25 %"),
            (0.25, "s", "250 ms"),
            (2.0, "s", "2 s"),
            (1_500_000.0, "Bps", "1.5 MB/s"),
            (80_000.0, "short", "80 k"),
            (0.0, "ops", "0 /s"),
            (0.5, "ops", "0.5 /s"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(amount(value, unit), text);
        }
    }
}
