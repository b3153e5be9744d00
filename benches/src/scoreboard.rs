//! From samples to rows: medians, spread, ratios, the table and the JSON.

use std::fs;

use serde::Serialize;

use crate::case::Case;
use crate::server::{Io, Server};

/// One measurement of one server under one case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Messages echoed per second.
    pub(crate) messages_per_s: f64,
    /// CPU seconds of the server per million messages.
    pub(crate) cpu_s_per_million: f64,
    /// Median latency from intended send time, in microseconds.
    pub(crate) p50_us: f64,
    /// Its 99th percentile.
    pub(crate) p99_us: f64,
    /// Share of its core that the server used.
    pub(crate) server_busy: f64,
    /// Share of its core that the client used.
    pub(crate) client_busy: f64,
    /// Share of the two cores that neither used: another program's, and the rounding of ticks.
    pub(crate) foreign: f64,
    /// Why it must not be counted: data was lost or wrong.
    pub(crate) void: Option<String>,
}

/// The samples of one server on one driver under one case, one per round.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) server: Server,
    pub(crate) io: Io,
    pub(crate) case: Case,
    pub(crate) samples: Vec<Sample>,
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    driver: &'static str,
    case: &'static str,
    messages_per_s: f64,
    messages_per_s_min: f64,
    messages_per_s_max: f64,
    megabytes_per_s: f64,
    cpu_s_per_million: f64,
    p50_us: f64,
    p99_us: f64,
    server_core_busy: f64,
    client_core_busy: f64,
    /// Of `messages_per_s`, to raw UDP on the same driver in the same round; the median of the rounds.
    ratio_to_raw: Option<f64>,
    /// The same of `cpu_s_per_million`.
    cpu_ratio_to_raw: Option<f64>,
    void: bool,
    void_reason: Option<String>,
    rounds: usize,
    /// Rounds in which other programs took more of the two cores than allowed, and repeating did not help.
    disturbed_rounds: usize,
    #[serde(flatten)]
    machine: Machine,
}

/// Where and of what the figures are.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    kernel: String,
    cores: usize,
    commit: String,
    command: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
        Self {
            cpu: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            commit: commit(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }

    /// For the head of a table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} cores, Linux {}, commit {}\n{}",
            self.cpu, self.cores, self.kernel, self.commit, self.command
        )
    }
}

/// The checked-out commit; `+` when the tree has changes that are not in it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if clean { head } else { head + "+" }
}

/// One row per entry, in their order.
pub(crate) fn rows(entries: &[Entry], foreign_max: f64, machine: &Machine) -> Vec<Row> {
    entries.iter().map(|entry| row(entry, raw_of(entries, entry), foreign_max, machine)).collect()
}

fn raw_of<'a>(entries: &'a [Entry], of: &Entry) -> Option<&'a Entry> {
    entries.iter().find(|e| e.server == Server::RawUdp && e.io == of.io && e.case == of.case)
}

fn row(entry: &Entry, raw: Option<&Entry>, foreign_max: f64, machine: &Machine) -> Row {
    let all = |value: fn(&Sample) -> f64| entry.samples.iter().map(value).collect::<Vec<_>>();
    let ratio = |value: fn(&Sample) -> f64| {
        let pairs = entry.samples.iter().zip(&raw?.samples);
        let whole = pairs.filter(|(own, raw)| own.void.is_none() && raw.void.is_none());
        Some(median(whole.map(|(own, raw)| value(own) / value(raw)).collect()))
            .filter(|ratio| ratio.is_finite())
    };
    let rates = all(|s| s.messages_per_s);
    let messages_per_s = median(rates.clone());
    let void_reason = entry.samples.iter().find_map(|s| s.void.clone());
    Row {
        server: entry.server.label(),
        driver: entry.io.label(),
        case: entry.case.name,
        messages_per_s,
        messages_per_s_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
        messages_per_s_max: rates.iter().copied().fold(0.0, f64::max),
        megabytes_per_s: messages_per_s * entry.case.size as f64 / 1e6,
        cpu_s_per_million: median(all(|s| s.cpu_s_per_million)),
        p50_us: median(all(|s| s.p50_us)),
        p99_us: median(all(|s| s.p99_us)),
        server_core_busy: median(all(|s| s.server_busy)),
        client_core_busy: median(all(|s| s.client_busy)),
        ratio_to_raw: ratio(|s| s.messages_per_s),
        cpu_ratio_to_raw: ratio(|s| s.cpu_s_per_million),
        void: void_reason.is_some(),
        void_reason,
        rounds: entry.samples.len(),
        disturbed_rounds: entry.samples.iter().filter(|s| s.foreign > foreign_max).count(),
        machine: machine.clone(),
    }
}

/// The middle value; of an even number, the mean of the middle two. Not a number when there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The rows for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<7} {:<9} {:<6} {:>11} {:>21} {:>7} {:>8} {:>7} {:>9} {:>9} {:>6} {:>6}\n",
        "case",
        "server",
        "driver",
        "messages/s",
        "min..max",
        "of raw",
        "CPU s/M",
        "of raw",
        "p50 us",
        "p99 us",
        "server",
        "client"
    );
    let ratio = |r: Option<f64>| r.map_or("-".to_owned(), |r| format!("{r:.3}"));
    for row in rows {
        let spread = format!("{:.0}..{:.0}", row.messages_per_s_min, row.messages_per_s_max);
        text += &format!(
            "{:<7} {:<9} {:<6} {:>11.0} {spread:>21} {:>7} {:>8.3} {:>7} {:>9.0} {:>9.0} {:>5.0}% {:>5.0}%",
            row.case,
            row.server,
            row.driver,
            row.messages_per_s,
            ratio(row.ratio_to_raw),
            row.cpu_s_per_million,
            ratio(row.cpu_ratio_to_raw),
            row.p50_us,
            row.p99_us,
            row.server_core_busy * 100.0,
            row.client_core_busy * 100.0,
        );
        if row.disturbed_rounds > 0 {
            text += &format!("  {} of {} rounds disturbed", row.disturbed_rounds, row.rounds);
        }
        if let Some(reason) = &row.void_reason {
            text += &format!("  VOID: {reason}");
        }
        if row.client_core_busy > CLIENT_BUSY_MAX && row.server_core_busy < CLIENT_BUSY_MAX {
            text += "  client-bound: compare CPU s/M only";
        }
        text.push('\n');
    }
    text
}

/// Above this share of its core the client may be what limits the rate.
const CLIENT_BUSY_MAX: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(server: Server, rates: &[f64]) -> Entry {
        let sample = |&rate: &f64| Sample {
            messages_per_s: rate,
            cpu_s_per_million: 1e6 / rate,
            ..Sample::default()
        };
        let case = "64x1".parse().unwrap();
        Entry { server, io: Io::Uring, case, samples: rates.iter().map(sample).collect() }
    }

    fn machine() -> Machine {
        let text = String::new;
        Machine { cpu: text(), kernel: text(), cores: 2, commit: text(), command: text() }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as fast in the second round: that is no ratio.
        let entries = [
            entry(Server::Gateway, &[90.0, 180.0, 95.0]),
            entry(Server::RawUdp, &[100.0, 200.0, 100.0]),
        ];
        let rows = rows(&entries, 0.1, &machine());
        assert_eq!(rows[0].ratio_to_raw, Some(0.9));
        assert_eq!(rows[1].ratio_to_raw, Some(1.0));
        assert_eq!((rows[0].messages_per_s, rows[0].messages_per_s_max), (95.0, 180.0));
    }

    #[test]
    fn a_round_that_lost_data_voids_the_row_and_its_ratio() {
        let mut gateway = entry(Server::Gateway, &[90.0]);
        gateway.samples[0].void = Some("1 lost".into());
        let rows = rows(&[gateway, entry(Server::RawUdp, &[100.0])], 0.1, &machine());
        assert!(rows[0].void && !rows[1].void);
        assert_eq!(rows[0].ratio_to_raw, None);
        assert!(table(&rows).contains("VOID: 1 lost"));
        let json = serde_json::to_value(&rows).unwrap();
        for key in ["server", "driver", "case", "messages_per_s", "megabytes_per_s", "void"] {
            assert!(json[0].get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn disturbed_rounds_and_a_busy_client_are_named() {
        let mut gateway = entry(Server::Gateway, &[90.0, 90.0]);
        gateway.samples[0].foreign = 0.5;
        gateway.samples.iter_mut().for_each(|s| s.client_busy = 0.99);
        let table = table(&rows(&[gateway], 0.1, &machine()));
        assert!(table.contains("1 of 2 rounds disturbed") && table.contains("client-bound"));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }
}
