//! The rows as a picture: memory above, processor time below, both against the number of sessions.

use std::ops::Range;
use std::path::Path;

use anyhow::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Row;
use crate::machine::Machine;

/// Writes the picture.
///
/// # Errors
/// The file cannot be written.
pub(super) fn draw(rows: &[Row], machine: &Machine, path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, (WIDTH, HEAD + 2 * PANEL)).into_drawing_area();
    root.fill(&WHITE).map_err(own)?;
    let (head, panels) = root.split_vertically(HEAD);
    let style = ("sans-serif", 12).into_font().color(&PALE);
    for (line, top) in machine.lines().iter().zip([10, 28]) {
        head.draw(&Text::new(line.as_str(), (12, top), style.clone())).map_err(own)?;
    }
    let (above, below) = panels.split_vertically(PANEL);
    let bytes = [
        Curve { name: "gateway's process", of: |row| row.bytes_per_session, colour: BLUE_INK },
        Curve {
            name: "load generator's process",
            of: |row| row.load_bytes_per_session,
            colour: PALE,
        },
    ];
    panel(&above, "Memory divided by sessions, bytes", rows, &bytes, &POWERS)?;
    let times = [
        Curve { name: "message and echo", of: |row| row.cpu_us_per_message, colour: BLUE_INK },
        Curve { name: "birth", of: |row| row.cpu_us_per_birth, colour: GREEN_INK },
        Curve { name: "question and answer", of: |row| row.cpu_us_per_probe, colour: ORANGE_INK },
        Curve { name: "death", of: |row| row.cpu_us_per_death, colour: RED_INK },
    ];
    panel(&below, "Gateway's CPU time for each, microseconds", rows, &times, &EVEN)?;
    root.present().map_err(own)
}

struct Curve {
    name: &'static str,
    of: fn(&Row) -> f64,
    colour: RGBColor,
}

/// How high a value is drawn, and what the axis says there.
struct Scale {
    height: fn(f64) -> f64,
    label: fn(&f64) -> String,
    /// From the lowest and the highest: what is drawn, with room for the legend above.
    range: fn(f64, f64) -> Range<f64>,
}

const EVEN: Scale = Scale {
    height: |value| value,
    label: |height| format!("{height:.0}"),
    range: |_, high| 0.0..high * 1.5 + 1.0,
};
const POWERS: Scale = Scale {
    height: f64::log10,
    label: |height| format!("{:.0}", 10_f64.powf(*height)),
    range: |low, high| (low.min(high) - 0.4).max(0.0)..high + 1.2,
};

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    rows: &[Row],
    curves: &[Curve],
    Scale { height, label, range }: &Scale,
) -> Result<()> {
    let points = |curve: &Curve| {
        let known = rows.iter().map(|row| (f64::from(row.sessions), (curve.of)(row)));
        let known = known.filter(|(_, value)| value.is_finite());
        known.map(|(sessions, value)| (sessions, height(value))).collect::<Vec<_>>()
    };
    let heights = curves.iter().flat_map(points).map(|(_, height)| height);
    let (low, high) = heights.fold((f64::MAX, 0.0), |(l, h): (f64, f64), v| (l.min(v), h.max(v)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(sessions(rows).log_scale(), range(low, high))
        .map_err(own)?;
    chart
        .configure_mesh()
        .x_desc("sessions")
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(label)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(own)?;
    for curve in curves {
        let (line, colour) = (points(curve), curve.colour);
        chart
            .draw_series([PathElement::new(line.clone(), colour.stroke_width(2))])
            .map_err(own)?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let dots = line.into_iter().map(|at| Circle::new(at, 3, colour.filled()));
        chart.draw_series(dots).map_err(own)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(PALE)
        .draw()
        .map_err(own)
}

fn sessions(rows: &[Row]) -> Range<f64> {
    let of = |row: Option<&Row>| row.map_or(1.0, |row| f64::from(row.sessions));
    of(rows.first()) / 1.5..of(rows.last()) * 1.5
}

/// The library's error borrows the picture.
fn own<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::msg(error.to_string())
}

const WIDTH: u32 = 900;
const HEAD: u32 = 50;
const PANEL: u32 = 400;
const BLUE_INK: RGBColor = RGBColor(0, 114, 178);
const GREEN_INK: RGBColor = RGBColor(0, 158, 115);
const RED_INK: RGBColor = RGBColor(213, 94, 0);
const ORANGE_INK: RGBColor = RGBColor(230, 159, 0);
const PALE: RGBColor = RGBColor(117, 117, 117);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_in_the_picture() {
        let row = |sessions| Row {
            sessions,
            resident_bytes: 1 << 20,
            bytes_per_session: 200.0,
            grown_bytes_per_session: 190.0,
            births_per_s: 1e5,
            cpu_us_per_birth: 4.0,
            cpu_us_per_message: 7.0,
            cpu_us_per_probe: 3.0,
            deaths_per_s: 1e5,
            cpu_us_per_death: f64::NAN,
            idle_cores: 0.0,
            longest_turn_us: 10,
            longest_turn_cpu_us: 400,
            left_bytes: 9e6,
            load_bytes_per_session: 150.0,
            memory_max_bytes: 1 << 21,
        };
        let file = std::env::temp_dir().join(format!("kcp-scale-{}.svg", std::process::id()));
        draw(&[1_000, 10_000, 100_000].map(row), &Machine::default(), &file).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        for part in ["bytes", "100000", "birth", "question and answer", "<circle"] {
            assert!(svg.contains(part), "{part}:\n{svg}");
        }
    }
}
