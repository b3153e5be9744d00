//! The rows as a picture: a panel for each case, a bar for each server, as long as what a message costs it.

use std::path::Path;

use anyhow::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contender::{Io, Server};
use crate::machine::Machine;
use crate::scoreboard::Row;

/// Writes the picture.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(rows: &[Row], machine: &Machine, path: &Path) -> Result<()> {
    let cases: Vec<&[Row]> = rows.chunk_by(|one, other| one.case == other.case).collect();
    let tallest = cases.iter().map(|rows| rows.len()).max().unwrap_or(0);
    let columns = cases.len().clamp(1, COLUMNS);
    let panel_rows = cases.len().div_ceil(columns).max(1);
    let panel_height = TITLE + BAR * pixels(tallest) + GAP;
    let size = (
        unsigned(pixels(columns) * PANEL_WIDTH + 2 * GAP),
        unsigned(HEAD + pixels(panel_rows) * panel_height),
    );
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE).map_err(own)?;
    head(&root, machine)?;
    for (position, rows) in cases.into_iter().enumerate() {
        let left = GAP + pixels(position % columns) * PANEL_WIDTH;
        let top = HEAD + pixels(position / columns) * panel_height;
        let (width, height) = (unsigned(PANEL_WIDTH - GAP), unsigned(panel_height));
        panel(&root.clone().shrink((left, top), (width, height)), rows)?;
    }
    root.present().map_err(own)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn head(area: &Area<'_>, machine: &Machine) -> Result<()> {
    let [what, command] = machine.lines();
    let lines = [
        ("CPU seconds of the server per million messages: shorter is better", 22, INK),
        (
            "Bar: median of the rounds; line: least to most. Behind it: what was reached at that cost",
            14,
            PALE,
        ),
        (what.as_str(), 12, PALE),
        (command.as_str(), 12, PALE),
    ];
    let mut top = GAP;
    for (line, size, colour) in lines {
        text(area, line, (GAP, top), size, colour, VPos::Top)?;
        top += size + 8;
    }
    Ok(())
}

fn panel(area: &Area<'_>, rows: &[Row]) -> Result<()> {
    let case = rows.first().map_or("", |row| row.case);
    text(area, case, (0, 4), 17, INK, VPos::Top)?;
    let costs = rows.iter().filter(|row| !row.void).map(|row| row.cpu_s_per_million);
    let longest = costs.fold(0.0, f64::max);
    for (position, row) in rows.iter().enumerate() {
        bar(area, row, TITLE + pixels(position) * BAR, longest)?;
    }
    Ok(())
}

fn bar(area: &Area<'_>, row: &Row, top: i32, longest: f64) -> Result<()> {
    let middle = top + BAR / 2;
    let name = match row.driver {
        Some(io) => format!("{} {}", row.server.label(), Io::label(io)),
        None => row.server.label().to_owned(),
    };
    text(area, &name, (0, middle), 13, INK, VPos::Center)?;
    if row.void || longest <= 0.0 {
        let reason = row.void_reason.as_deref().unwrap_or("nothing measured");
        let (reason, cut) = reason.split_at(reason.floor_char_boundary(REASON_MAX));
        let reason = format!("{reason}{}", if cut.is_empty() { "" } else { " …" });
        return text(area, &reason, (NAMES, middle), 11, PALE, VPos::Center);
    }
    let at = |cost: f64| NAMES + scaled(cost / longest);
    let end = at(row.cpu_s_per_million);
    let corners = [(NAMES, top + 4), (end, top + BAR - 4)];
    area.draw(&Rectangle::new(corners, colour(row.server).filled())).map_err(own)?;
    let spread = [(at(row.cpu_s_per_million_min), middle), (at(row.cpu_s_per_million_max), middle)];
    area.draw(&PathElement::new(spread, INK.stroke_width(1))).map_err(own)?;
    let behind = end.max(spread[1].0) + 6;
    let label = format!("{:.2} · {}", row.cpu_s_per_million, reached(row));
    text(area, &label, (behind, middle), 12, INK, VPos::Center)
}

/// What besides the cost is worth knowing of this case.
fn reached(row: &Row) -> String {
    let mark = if row.client_bound { "+ (client full)" } else { "" };
    if row.case.starts_with("paced") {
        let behind = if row.fell_behind { ", behind" } else { "" };
        format!("p99 {:.2} ms{behind}", row.p99_us / 1e3)
    } else if row.case.starts_with("bulk") {
        format!("{:.0} MB/s{mark}", row.megabytes_per_s)
    } else {
        format!("{:.0}k/s{mark}", row.messages_per_s / 1e3)
    }
}

fn text(
    area: &Area<'_>,
    line: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    vertical: VPos,
) -> Result<()> {
    let font = ("sans-serif", size).into_font().color(&colour);
    let style = font.pos(Pos::new(HPos::Left, vertical));
    area.draw(&Text::new(line.to_owned(), at, style)).map_err(own)
}

const fn colour(server: Server) -> RGBColor {
    match server {
        Server::RawUdp => RGBColor(189, 189, 189),
        Server::Gateway => RGBColor(0, 114, 178),
        Server::CIkcp => RGBColor(230, 159, 0),
        Server::TokioKcp => RGBColor(204, 121, 167),
        Server::KcpTokio => RGBColor(213, 94, 0),
        Server::KcpGo => RGBColor(0, 158, 115),
    }
}

/// The library's error borrows the picture.
fn own<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::msg(error.to_string())
}

fn pixels(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(0)
}

fn unsigned(pixels: i32) -> u32 {
    u32::try_from(pixels).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "a share of the longest bar")]
fn scaled(share: f64) -> i32 {
    (share * f64::from(BARS)) as i32
}

const COLUMNS: usize = 4;
const PANEL_WIDTH: i32 = 430;
const HEAD: i32 = 130;
const TITLE: i32 = 30;
const BAR: i32 = 22;
const GAP: i32 = 16;
/// Pixels for the names, and for the longest bar; what is left is for its label.
const NAMES: i32 = 100;
const BARS: i32 = 160;
const REASON_MAX: usize = 48;
const INK: RGBColor = RGBColor(33, 33, 33);
const PALE: RGBColor = RGBColor(117, 117, 117);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::tests::{GATEWAY, RAW, entry};
    use crate::scoreboard::{Entry, rows};

    #[test]
    fn every_row_is_in_the_picture() {
        let absent = Entry {
            absent: Some("no go here, it must be installed first".into()),
            ..entry(RAW, &[])
        };
        let rows = rows(&[entry(GATEWAY, &[90.0]), absent], &Machine::default());
        let file = std::env::temp_dir().join(format!("kcp-benches-{}.svg", std::process::id()));
        draw(&rows, &Machine::default(), &file).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        for part in ["gateway uring", "raw-udp uring", "no go here", "64x1", "0k/s"] {
            assert!(svg.contains(part), "{part}:\n{svg}");
        }
    }
}
