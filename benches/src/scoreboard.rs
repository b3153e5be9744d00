//! Samples into rows: medians, spread, and ratios that are taken within a round.

use serde::Serialize;

use crate::case::Case;
use crate::contender::{Contender, Io, Server};
use crate::machine::Machine;

/// One measurement of one server under one case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) messages_per_s: f64,
    pub(crate) cpu_s_per_million: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Share of its core that the server used.
    pub(crate) server_busy: f64,
    /// Share of its core that the client used.
    pub(crate) client_busy: f64,
    /// Segments that the server sent again although the client had them, per message.
    pub(crate) needless_resends: f64,
    /// Other programs had too much of the two cores.
    pub(crate) disturbed: bool,
    /// Why it must not be counted: data was lost or wrong.
    pub(crate) void: Option<String>,
}

/// The samples of one contender under one case, one per round.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) contender: Contender,
    pub(crate) case: Case,
    /// Sessions of the run.
    pub(crate) sessions: u16,
    /// Why it is not measured at all.
    pub(crate) absent: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

/// One line of the result. What was not measured is not a number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) server: Server,
    pub(crate) driver: Option<Io>,
    pub(crate) case: &'static str,
    pub(crate) sessions: u16,
    pub(crate) messages_per_s: f64,
    pub(crate) messages_per_s_min: f64,
    pub(crate) messages_per_s_max: f64,
    pub(crate) megabytes_per_s: f64,
    pub(crate) cpu_s_per_million: f64,
    pub(crate) cpu_s_per_million_min: f64,
    pub(crate) cpu_s_per_million_max: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) server_core_busy: f64,
    pub(crate) client_core_busy: f64,
    /// The client was full and the server was not: the rate is the client's, CPU per message is still the server's.
    pub(crate) client_bound: bool,
    /// The server did not answer all that was offered, so its latency is that of its queue.
    pub(crate) fell_behind: bool,
    pub(crate) needless_resends: f64,
    /// Of `messages_per_s`, to raw UDP on the same driver in the same round; the median of the rounds.
    pub(crate) ratio_to_raw: Option<f64>,
    /// The same of `cpu_s_per_million`.
    pub(crate) cpu_ratio_to_raw: Option<f64>,
    /// Of the gateway's rows: against every other server under the same case.
    pub(crate) against: Vec<Against>,
    pub(crate) void: bool,
    pub(crate) void_reason: Option<String>,
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// Rounds in which other programs took more of the two cores than allowed, and repeating did not help. They are left out.
    pub(crate) disturbed_rounds: usize,
    /// All rounds were disturbed, so they count.
    pub(crate) disturbed: bool,
    #[serde(flatten)]
    pub(crate) machine: Machine,
}

/// This row's figures divided by another server's, within a round; the median of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Against {
    pub(crate) server: Server,
    pub(crate) driver: Option<Io>,
    /// Of the rates; above 1 is better.
    pub(crate) messages: Option<f64>,
    /// Of CPU per message; below 1 is better.
    pub(crate) cpu: Option<f64>,
}

/// One row per entry, in their order.
pub(crate) fn rows(entries: &[Entry], machine: &Machine) -> Vec<Row> {
    entries.iter().map(|entry| row(entry, entries, machine)).collect()
}

fn row(entry: &Entry, entries: &[Entry], machine: &Machine) -> Row {
    let Entry { contender, case, sessions, .. } = *entry;
    let counted = entry.counted();
    let all = |value: fn(&Sample) -> f64| counted.iter().map(|s| value(s)).collect::<Vec<_>>();
    let middle = |value| median(all(value));
    let (rates, costs) = (all(|s| s.messages_per_s), all(|s| s.cpu_s_per_million));
    let (server_core_busy, client_core_busy) =
        (middle(|s| s.server_busy), middle(|s| s.client_busy));
    let messages_per_s = median(rates.clone());
    let rivals = entries.iter().filter(|e| e.case == case);
    let raw = rivals.clone().find(|e| e.contender == contender.limit());
    let lost = counted.iter().find_map(|s| s.void.clone());
    let void_reason = entry.absent.clone().or(lost);
    let is_gateway = contender.server == Server::Gateway;
    let rivals = rivals.filter(|e| is_gateway && e.contender.is_rival());
    let disturbed_rounds = entry.samples.iter().filter(|s| s.disturbed).count();
    Row {
        server: contender.server,
        driver: contender.io,
        case: case.name,
        sessions,
        messages_per_s,
        messages_per_s_min: least(&rates),
        messages_per_s_max: most(&rates),
        megabytes_per_s: messages_per_s * case.size as f64 / 1e6,
        cpu_s_per_million: median(costs.clone()),
        cpu_s_per_million_min: least(&costs),
        cpu_s_per_million_max: most(&costs),
        p50_us: middle(|s| s.p50_us),
        p99_us: middle(|s| s.p99_us),
        server_core_busy,
        client_core_busy,
        client_bound: client_core_busy > FULL && server_core_busy < FULL,
        fell_behind: case
            .offered(sessions)
            .is_some_and(|offered| messages_per_s < offered * KEPT_UP),
        needless_resends: middle(|s| s.needless_resends),
        ratio_to_raw: raw.and_then(|raw| ratio(entry, raw, |s| s.messages_per_s)),
        cpu_ratio_to_raw: raw.and_then(|raw| ratio(entry, raw, |s| s.cpu_s_per_million)),
        against: rivals.map(|rival| against(entry, rival)).collect(),
        void: void_reason.is_some(),
        void_reason,
        rounds: counted.len(),
        disturbed_rounds,
        disturbed: disturbed_rounds > 0 && disturbed_rounds == entry.samples.len(),
        machine: machine.clone(),
    }
}

impl Entry {
    /// The samples that make the row: those not disturbed, or all when there are none.
    fn counted(&self) -> Vec<&Sample> {
        let calm: Vec<_> = self.samples.iter().filter(|s| !s.disturbed).collect();
        if calm.is_empty() { self.samples.iter().collect() } else { calm }
    }
}

fn against(entry: &Entry, rival: &Entry) -> Against {
    let Contender { server, io } = rival.contender;
    Against {
        server,
        driver: io,
        messages: ratio(entry, rival, |s| s.messages_per_s),
        cpu: ratio(entry, rival, |s| s.cpu_s_per_million),
    }
}

/// The median of the rounds' ratios; of undisturbed rounds only, while there are any. `None` when no round has both sound.
fn ratio(entry: &Entry, to: &Entry, value: fn(&Sample) -> f64) -> Option<f64> {
    let sound = |(own, other): &(&Sample, &Sample)| own.void.is_none() && other.void.is_none();
    let pairs = || entry.samples.iter().zip(&to.samples).filter(sound);
    let divided = |(own, other): (&Sample, &Sample)| value(own) / value(other);
    let calm = pairs().filter(|(own, other)| !own.disturbed && !other.disturbed);
    let calm: Vec<f64> = calm.map(divided).collect();
    let ratios = if calm.is_empty() { pairs().map(divided).collect() } else { calm };
    Some(median(ratios)).filter(|ratio| ratio.is_finite())
}

/// The middle value; of an even number, the mean of the middle two. Not a number when there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

/// Above this share of its core somebody counts as full.
const FULL: f64 = 0.95;
/// A server that answers less than this share of what is offered has fallen behind.
const KEPT_UP: f64 = 0.98;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const GATEWAY: Contender =
        Contender { server: Server::Gateway, io: Some(Io::Uring) };
    pub(crate) const RAW: Contender = Contender { server: Server::RawUdp, io: Some(Io::Uring) };

    pub(crate) fn entry(contender: Contender, rates: &[f64]) -> Entry {
        let sample = |&rate: &f64| Sample {
            messages_per_s: rate,
            cpu_s_per_million: 1e6 / rate,
            ..Sample::default()
        };
        let samples = rates.iter().map(sample).collect();
        Entry { contender, case: "64x1".parse().unwrap(), sessions: 1000, absent: None, samples }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as fast in the second round: that is no ratio.
        let entries = [entry(GATEWAY, &[90.0, 180.0, 95.0]), entry(RAW, &[100.0, 200.0, 100.0])];
        let rows = rows(&entries, &Machine::default());
        assert_eq!(rows[0].ratio_to_raw, Some(0.9));
        assert_eq!(rows[1].ratio_to_raw, Some(1.0));
        assert_eq!((rows[0].messages_per_s, rows[0].messages_per_s_max), (95.0, 180.0));
        let against = rows[0].against[0];
        assert_eq!((against.server, against.messages), (Server::RawUdp, Some(0.9)));
        assert!((against.cpu.unwrap() - 1.0 / 0.9).abs() < 1e-9);
        assert!(rows[1].against.is_empty());
    }

    #[test]
    fn a_round_that_lost_data_voids_the_row_and_its_ratio() {
        let mut gateway = entry(GATEWAY, &[90.0]);
        gateway.samples[0].void = Some("1 lost".into());
        let rows = rows(&[gateway, entry(RAW, &[100.0])], &Machine::default());
        assert!(rows[0].void && !rows[1].void);
        assert_eq!(rows[0].ratio_to_raw, None);
    }

    #[test]
    fn disturbed_rounds_count_only_when_there_is_nothing_else() {
        let mut gateway = entry(GATEWAY, &[90.0, 10.0]);
        gateway.samples[1].disturbed = true;
        let raw = entry(RAW, &[100.0, 100.0]);
        let calm = &rows(&[gateway.clone(), raw.clone()], &Machine::default())[0];
        assert_eq!((calm.messages_per_s, calm.ratio_to_raw), (90.0, Some(0.9)));
        assert_eq!((calm.rounds, calm.disturbed_rounds, calm.disturbed), (1, 1, false));
        gateway.samples[0].disturbed = true;
        let rough = &rows(&[gateway, raw], &Machine::default())[0];
        assert_eq!((rough.messages_per_s, rough.ratio_to_raw), (50.0, Some(0.5)));
        assert_eq!((rough.rounds, rough.disturbed_rounds, rough.disturbed), (2, 2, true));
    }

    #[test]
    fn the_limits_of_client_and_server_are_named() {
        let mut gateway = entry(GATEWAY, &[90.0]);
        gateway.samples[0].client_busy = 0.99;
        assert!(rows(&[gateway.clone()], &Machine::default())[0].client_bound);
        gateway.samples[0].server_busy = 0.99;
        assert!(!rows(&[gateway.clone()], &Machine::default())[0].client_bound);
        gateway.case = "paced20k".parse().unwrap();
        assert!(rows(&[gateway], &Machine::default())[0].fell_behind);
    }

    #[test]
    fn the_result_has_its_agreed_keys() {
        let absent = Entry { absent: Some("no go".into()), ..entry(RAW, &[]) };
        let rows = rows(&[entry(GATEWAY, &[90.0]), absent], &Machine::default());
        let json = serde_json::to_value(&rows).unwrap();
        for key in
            "server driver case messages_per_s megabytes_per_s cpu_s_per_million p50_us p99_us \
                    server_core_busy client_core_busy ratio_to_raw void"
                .split_whitespace()
        {
            assert!(json[0].get(key).is_some(), "{key}");
        }
        assert_eq!(
            (json[0]["server"].as_str(), json[0]["driver"].as_str()),
            (Some("gateway"), Some("uring"))
        );
        assert!(json[1]["void"].as_bool().unwrap() && json[1]["messages_per_s"].is_null());
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }
}
