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
        draw(&area, &format!("{} ({})", panel.title, panel.unit), &lines)?;
    }
    root.present().map_err(failed)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &[(String, Line)],
) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|(_, line)| &line.points).filter(|(_, y)| y.is_finite());
    let last = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let first = points().map(|(x, _)| *x).fold(last, f64::min);
    let top = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1 + f64::EPSILON;
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
        .y_labels(5)
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
    chart.configure_series_labels().background_style(WHITE.mix(0.7)).draw().map_err(failed)
}

/// Fills `{{label}}`s.
fn legend_of(template: &str, line: &Line) -> String {
    let fill = |text: String, (name, value): &(String, String)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    };
    line.labels.iter().fold(template.to_owned(), fill)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

const COLUMNS: usize = 3;
const WIDTH: u32 = 520;
const HEIGHT: u32 = 280;
/// More would hide the graph.
const LEGENDS: usize = 8;
