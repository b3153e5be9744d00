//! The rows for people.

use crate::contender::{Io, Server};
use crate::scoreboard::{Against, Row};

/// Every row, then the gateway against each of the others.
pub(crate) fn tables(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<13} {:<9} {:<6} {:>10} {:>19} {:>6} {:>7} {:>8} {:>13} {:>6} {:>8} {:>8} {:>6} {:>6}\n",
        "case",
        "server",
        "driver",
        "messages/s",
        "min..max",
        "of raw",
        "MB/s",
        "CPU s/M",
        "min..max",
        "of raw",
        "p50 us",
        "p99 us",
        "server",
        "client"
    );
    for (position, row) in rows.iter().enumerate() {
        if position > 0 && rows[position - 1].case != row.case {
            text.push('\n');
        }
        text += &line(row);
    }
    text + &standings(rows)
}

fn line(row: &Row) -> String {
    let head = format!("{:<13} {:<9} {:<6}", row.case, row.server.label(), driver(row.driver));
    if row.rounds == 0 {
        let reason = row.void_reason.as_deref().unwrap_or("no rounds");
        return format!("{head} not measured: {reason}\n");
    }
    let rates = format!("{:.0}..{:.0}", row.messages_per_s_min, row.messages_per_s_max);
    let costs = format!("{:.2}..{:.2}", row.cpu_s_per_million_min, row.cpu_s_per_million_max);
    let figures = format!(
        "{:>10.0} {rates:>19} {:>6} {:>7.1} {:>8.3} {costs:>13} {:>6} {:>8.0} {:>8.0} {:>5.0}% {:>5.0}%",
        row.messages_per_s,
        ratio(row.ratio_to_raw),
        row.megabytes_per_s,
        row.cpu_s_per_million,
        ratio(row.cpu_ratio_to_raw),
        row.p50_us,
        row.p99_us,
        row.server_core_busy * 100.0,
        row.client_core_busy * 100.0,
    );
    format!("{head} {figures}{}\n", remarks(row))
}

fn remarks(row: &Row) -> String {
    let mut text = String::new();
    if let Some(reason) = &row.void_reason {
        text += &format!("  VOID: {reason}");
    }
    if row.client_bound {
        text += "  client full: compare CPU s/M only";
    }
    if row.fell_behind {
        text += "  fell behind";
    }
    if row.needless_resends >= RESENDS_SHOWN {
        text += &format!("  {:.1} % needless resends", row.needless_resends * 100.0);
    }
    if row.disturbed_rounds > 0 {
        let fate = if row.disturbed { "counted" } else { "left out" };
        text += &format!("  {} disturbed rounds {fate}", row.disturbed_rounds);
    }
    text
}

/// The gateway divided by each of the others: rate and CPU per message.
fn standings(rows: &[Row]) -> String {
    let compared: Vec<&Row> = rows.iter().filter(|row| !row.against.is_empty()).collect();
    let Some(first) = compared.first() else { return String::new() };
    let mut text = String::from(
        "\nThe gateway's figure divided by the other's: messages/s (more is better), CPU s/M (less is better)\n",
    );
    text += &format!("{:<13} {:<6}", "case", "driver");
    for rival in &first.against {
        text += &format!(" {:>13}", name(rival));
    }
    for row in compared {
        text += &format!("\n{:<13} {:<6}", row.case, driver(row.driver));
        for rival in &row.against {
            let pair = format!("{} {}", ratio(rival.messages), ratio(rival.cpu));
            text += &format!(" {pair:>13}");
        }
    }
    text + "\n"
}

fn name(rival: &Against) -> String {
    match (rival.server, rival.driver) {
        (Server::RawUdp, Some(io)) => format!("raw {}", io.label()),
        (server, _) => server.label().to_owned(),
    }
}

fn driver(io: Option<Io>) -> &'static str {
    io.map_or("-", Io::label)
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |r| format!("{r:.3}"))
}

/// From this share on resends are worth a word.
const RESENDS_SHOWN: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::scoreboard::tests::{GATEWAY, RAW, entry};
    use crate::scoreboard::{Entry, rows};

    fn text(entries: &[Entry]) -> String {
        tables(&rows(entries, &Machine::default()))
    }

    #[test]
    fn what_must_not_be_overlooked_is_said() {
        let mut gateway = entry(GATEWAY, &[90.0, 90.0]);
        gateway.samples[0].disturbed = true;
        gateway.samples.iter_mut().for_each(|s| s.client_busy = 0.99);
        gateway.samples[1].void = Some("1 lost".into());
        gateway.samples[1].needless_resends = 0.17;
        let absent = Entry { absent: Some("no go here".into()), ..entry(RAW, &[]) };
        let text = text(&[gateway, absent]);
        for part in [
            "VOID: 1 lost",
            "client full",
            "1 disturbed rounds left out",
            "17.0 % needless resends",
            "not measured: no go here",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn the_gateway_is_divided_by_the_others() {
        let text = text(&[entry(GATEWAY, &[90.0]), entry(RAW, &[100.0])]);
        let last = text.lines().last().unwrap();
        assert_eq!(
            last.split_whitespace().collect::<Vec<_>>(),
            ["64x1", "uring", "0.900", "1.111"]
        );
        assert!(text.contains("raw uring"));
    }
}
