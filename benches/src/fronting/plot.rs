//! What the gateway kept over time, as a picture.

use std::path::Path;

use anyhow::{Error, Result};
use plotters::prelude::*;

use super::kept::{Kept, Sample};
use crate::machine::Machine;

/// Writes the picture: a panel for each.
///
/// # Errors
/// The file cannot be written.
pub(super) fn draw(
    runs: &[(&'static str, &'static str, &Kept)],
    machine: &Machine,
    path: &Path,
) -> Result<()> {
    let panels = u32::try_from(runs.len())?;
    let root = SVGBackend::new(path, (WIDTH, HEAD + PANEL * panels)).into_drawing_area();
    root.fill(&WHITE).map_err(own)?;
    let (head, below) = root.split_vertically(HEAD);
    let style = ("sans-serif", 12).into_font();
    for (line, top) in machine.lines().iter().zip([10, 28]) {
        head.draw(&Text::new(line.as_str(), (12, top), style.clone())).map_err(own)?;
    }
    for ((what, kind, kept), area) in runs.iter().zip(below.split_evenly((runs.len(), 1))) {
        let most = kept.samples.iter().map(|s| s.resident as f64).fold(kept.kept_max, f64::max);
        let end = kept.samples.last().map_or(1.0, |sample| sample.at_s);
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("{kind}: {what}: MB over seconds"), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..most / 1e6 * 1.2)
            .map_err(own)?;
        chart.configure_mesh().light_line_style(TRANSPARENT).draw().map_err(own)?;
        type Curve = (&'static str, fn(&Sample) -> f64, RGBColor);
        let curves: [Curve; 3] = [
            ("process", |sample| sample.resident as f64, RGBColor(0, 114, 178)),
            ("kept", |sample| sample.kept, RGBColor(213, 94, 0)),
            ("on its way to backends", |sample| sample.queued, RGBColor(0, 158, 115)),
        ];
        for (name, of, colour) in curves {
            let points = kept.samples.iter().map(|sample| (sample.at_s, of(sample) / 1e6));
            chart
                .draw_series([PathElement::new(points.collect::<Vec<_>>(), colour.stroke_width(2))])
                .map_err(own)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        let bound = kept.kept_max / 1e6;
        chart
            .draw_series([PathElement::new([(0.0, bound), (end, bound)], BLACK.stroke_width(1))])
            .map_err(own)?
            .label("bound of what is kept")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK));
        chart.configure_series_labels().background_style(WHITE).draw().map_err(own)?;
    }
    root.present().map_err(own)
}

/// The library's error borrows the picture.
fn own<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::msg(error.to_string())
}

const WIDTH: u32 = 900;
const HEAD: u32 = 50;
const PANEL: u32 = 360;
