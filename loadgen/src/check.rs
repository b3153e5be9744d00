//! `--check 'p99<50ms'`: what must hold at the end of a run, in a small grammar.
//!
//! ```text
//! check  = metric op value
//! op     = < | <= | > | >= | = | ==
//! metric = [service. | connect. | lag. | quiet. | storm. | after. | newcomers.] p50 | p90 | p99 | p999 | p9999 | max | mean      value with us, ms or s
//!        | loss                                                                          value with %
//!        | messages_per_s | sent | received | established | lost | duplicated | reordered | corrupted
//!        | missed_sends | throttled_sends | dead_sessions | newcomers                    plain number
//! ```

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::meter::Quantiles;
use crate::report::Report;

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    text: String,
    metric: Metric,
    op: Op,
    bound: f64,
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The check as written.
    pub check: String,
    /// What was measured, in the metric's base unit (microseconds, percent, or a count).
    pub measured: f64,
    /// It holds.
    pub ok: bool,
}

/// Why a check was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No operator.
    #[error("`{0}` has no <, <=, >, >= or =; write e.g. p99<50ms")]
    NoOperator(String),
    /// An unknown metric.
    #[error("`{metric}` in `{text}` is no metric; known are {}", known())]
    UnknownMetric {
        /// The whole check.
        text: String,
        /// Its left side.
        metric: String,
    },
    /// The value does not fit the metric.
    #[error("`{value}` in `{text}`: {metric} is compared with {wanted}")]
    BadValue {
        /// The whole check.
        text: String,
        /// Its left side.
        metric: String,
        /// Its right side.
        value: String,
        /// What the metric wants.
        wanted: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Time(Series, Figure),
    Loss,
    Number(Number),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Series {
    Latency,
    Service,
    Connect,
    Lag,
    Quiet,
    Storm,
    After,
    Newcomers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    P50,
    P90,
    P99,
    P999,
    P9999,
    Max,
    Mean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    MessagesPerS,
    Sent,
    Received,
    Established,
    Lost,
    Duplicated,
    Reordered,
    Corrupted,
    MissedSends,
    ThrottledSends,
    DeadSessions,
    Newcomers,
}

const SERIES: [(&str, Series); 7] = [
    ("service.", Series::Service),
    ("connect.", Series::Connect),
    ("lag.", Series::Lag),
    ("quiet.", Series::Quiet),
    ("storm.", Series::Storm),
    ("after.", Series::After),
    ("newcomers.", Series::Newcomers),
];

const FIGURES: [(&str, Figure); 7] = [
    ("p50", Figure::P50),
    ("p90", Figure::P90),
    ("p99", Figure::P99),
    ("p999", Figure::P999),
    ("p9999", Figure::P9999),
    ("max", Figure::Max),
    ("mean", Figure::Mean),
];

const NUMBERS: [(&str, Number); 12] = [
    ("messages_per_s", Number::MessagesPerS),
    ("sent", Number::Sent),
    ("received", Number::Received),
    ("established", Number::Established),
    ("lost", Number::Lost),
    ("duplicated", Number::Duplicated),
    ("reordered", Number::Reordered),
    ("corrupted", Number::Corrupted),
    ("missed_sends", Number::MissedSends),
    ("throttled_sends", Number::ThrottledSends),
    ("dead_sessions", Number::DeadSessions),
    ("newcomers", Number::Newcomers),
];

/// Longer operators first, for `<` begins `<=`.
const OPS: [(&str, Op); 6] = [
    ("<=", Op::LessOrEqual),
    (">=", Op::GreaterOrEqual),
    ("==", Op::Equal),
    ("<", Op::Less),
    (">", Op::Greater),
    ("=", Op::Equal),
];

impl Check {
    /// Compares with what was measured.
    #[must_use]
    pub fn verdict(&self, report: &Report) -> Verdict {
        let measured = self.metric.value(report);
        let ok = match self.op {
            Op::Less => measured < self.bound,
            Op::LessOrEqual => measured <= self.bound,
            Op::Greater => measured > self.bound,
            Op::GreaterOrEqual => measured >= self.bound,
            Op::Equal => (measured - self.bound).abs() < f64::EPSILON,
        };
        // A quantile of nothing holds nothing.
        let ok = ok && self.metric.samples(report) != Some(0);
        Verdict { check: self.text.clone(), measured, ok }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(text: &str) -> Result<Self, CheckError> {
        let text = text.trim();
        let at =
            text.find(['<', '>', '=']).ok_or_else(|| CheckError::NoOperator(text.to_owned()))?;
        let (left, right) = text.split_at(at);
        let (sign, op) = OPS
            .into_iter()
            .find(|(sign, _)| right.starts_with(sign))
            .ok_or_else(|| CheckError::NoOperator(text.to_owned()))?;
        let (name, value) = (left.trim(), right[sign.len()..].trim());
        let metric = Metric::parse(name).ok_or_else(|| CheckError::UnknownMetric {
            text: text.to_owned(),
            metric: name.to_owned(),
        })?;
        let bound = metric.parse_value(value).ok_or_else(|| CheckError::BadValue {
            text: text.to_owned(),
            metric: name.to_owned(),
            value: value.to_owned(),
            wanted: metric.wanted(),
        })?;
        Ok(Self { text: text.to_owned(), metric, op, bound })
    }
}

impl Metric {
    fn parse(name: &str) -> Option<Self> {
        if name == "loss" {
            return Some(Self::Loss);
        }
        if let Some((_, number)) = NUMBERS.into_iter().find(|(known, _)| *known == name) {
            return Some(Self::Number(number));
        }
        let (series, figure) = SERIES
            .into_iter()
            .find_map(|(prefix, series)| Some((series, name.strip_prefix(prefix)?)))
            .unwrap_or((Series::Latency, name));
        let (_, figure) = FIGURES.into_iter().find(|(known, _)| *known == figure)?;
        Some(Self::Time(series, figure))
    }

    fn parse_value(self, text: &str) -> Option<f64> {
        let number = |text: &str, scale: f64| {
            let value = text.trim().parse::<f64>().ok()?;
            (value.is_finite() && value >= 0.0).then_some(value * scale)
        };
        match self {
            // "ms" and "us" before "s", which ends both.
            Self::Time(..) => [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
                .into_iter()
                .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))
                .and_then(|(text, scale)| number(text, scale)),
            Self::Loss => number(text.strip_suffix('%')?, 1.0),
            Self::Number(_) => number(text, 1.0),
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Time(..) => "a time with its unit: us, ms or s",
            Self::Loss => "a percentage, e.g. 0.1%",
            Self::Number(_) => "a number without unit",
        }
    }

    fn value(self, report: &Report) -> f64 {
        match self {
            Self::Time(series, figure) => figure.of(series.of(report)),
            Self::Loss => 100.0 * report.lost as f64 / (report.counts.sent.max(1)) as f64,
            Self::Number(number) => number.of(report),
        }
    }

    /// How many values stand behind a time.
    fn samples(self, report: &Report) -> Option<u64> {
        match self {
            Self::Time(series, _) => Some(series.of(report).samples),
            Self::Loss | Self::Number(_) => None,
        }
    }
}

impl Series {
    /// Without bystanders and newcomers theirs are empty.
    fn of(self, report: &Report) -> Quantiles {
        let around = report.around.unwrap_or_default();
        match self {
            Self::Latency => report.latency_us,
            Self::Service => report.service_latency_us,
            Self::Connect => report.connect_us,
            Self::Lag => report.send_lag_us,
            Self::Quiet => around.quiet_us,
            Self::Storm => around.storm_us,
            Self::After => around.after_us,
            Self::Newcomers => around.newcomers_connect_us,
        }
    }
}

impl Figure {
    const fn of(self, quantiles: Quantiles) -> f64 {
        match self {
            Self::P50 => quantiles.p50 as f64,
            Self::P90 => quantiles.p90 as f64,
            Self::P99 => quantiles.p99 as f64,
            Self::P999 => quantiles.p999 as f64,
            Self::P9999 => quantiles.p9999 as f64,
            Self::Max => quantiles.max as f64,
            Self::Mean => quantiles.mean,
        }
    }
}

impl Number {
    const fn of(self, report: &Report) -> f64 {
        let counts = &report.counts;
        let count = match self {
            Self::MessagesPerS => return report.messages_per_s,
            Self::Sent => counts.sent,
            Self::Received => counts.received,
            Self::Established => counts.established,
            Self::Lost => report.lost,
            Self::Duplicated => counts.duplicated,
            Self::Reordered => counts.reordered,
            Self::Corrupted => counts.corrupted,
            Self::MissedSends => counts.missed_sends,
            Self::ThrottledSends => counts.throttled_sends,
            Self::DeadSessions => counts.dead_sessions,
            Self::Newcomers => counts.newcomers,
        };
        count as f64
    }
}

fn known() -> String {
    let figures = FIGURES.map(|(name, _)| name).join(", ");
    let prefixes = SERIES.map(|(name, _)| name).join(", ");
    let numbers = NUMBERS.map(|(name, _)| name).join(", ");
    format!("{figures} (also with {prefixes}), loss, {numbers}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn verdict(text: &str) -> Verdict {
        text.parse::<Check>().unwrap().verdict(&sample())
    }

    #[test]
    fn every_operator_and_unit() {
        // The sample has p99 = 2,000 us, service p99 = 1,500 us, 1 of 1,000 lost.
        for (text, ok) in [
            ("p99<2ms", false),
            ("p99<=2ms", true),
            (" p99 < 2001us ", true),
            ("p99<0.0021s", true),
            ("p99>1ms", true),
            ("p99>=2ms", true),
            ("p99=2ms", true),
            ("p99==1.999ms", false),
            ("service.p99<2ms", true),
            ("loss<=0.1%", true),
            ("loss<0.1%", false),
            ("lost=1", true),
            ("sent>=1000", true),
            ("messages_per_s>1e9", false),
        ] {
            assert_eq!(verdict(text).ok, ok, "{text}: {:?}", verdict(text));
        }
        assert_eq!(verdict("p99<50ms").measured, 2000.0);
        assert_eq!(verdict("loss<1%").measured, 0.1);
    }

    #[test]
    fn a_time_of_no_samples_holds_nothing() {
        assert!(!verdict("connect.max<1s").ok);
    }

    #[test]
    fn every_metric_of_the_tables_parses_to_itself() {
        for (prefix, series) in SERIES.into_iter().chain([("", Series::Latency)]) {
            for (name, figure) in FIGURES {
                assert_eq!(
                    Metric::parse(&format!("{prefix}{name}")),
                    Some(Metric::Time(series, figure))
                );
            }
        }
        for (name, number) in NUMBERS {
            assert_eq!(Metric::parse(name), Some(Metric::Number(number)));
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (text, parts) in [
            ("p99", ["`p99`", "p99<50ms"]),
            ("", ["``", "p99<50ms"]),
            ("p98<1ms", ["`p98`", "p9999"]),
            ("service.lost<1", ["`service.lost`", "service."]),
            ("p99<50", ["`50`", "us, ms or s"]),
            ("p99<-1ms", ["`-1ms`", "us, ms or s"]),
            ("p99<ms", ["`ms`", "us, ms or s"]),
            ("loss<1", ["`1`", "percentage"]),
            ("lost<1%", ["`1%`", "without unit"]),
            ("lost!<3", ["`lost!`", "is no metric"]),
            ("lost<NaN", ["`NaN`", "without unit"]),
        ] {
            let error = text.parse::<Check>().unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
