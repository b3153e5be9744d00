//! Values of flags that have a grammar of their own.

use std::str::FromStr;
use std::time::Duration;

use crate::scenario::Load;

/// `--rate`: the time between two messages of a session, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub Load);

/// `--ramp`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RampArg {
    /// All within this time.
    Within(Duration),
    /// So many per second.
    PerSecond(f64),
}

/// `--storm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormArg {
    /// Clients that vanish, and that come.
    pub clients: u32,
    /// How long the newcomers take to come.
    pub within: Duration,
}

/// `--pin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

/// `--window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Send window in segments.
    pub snd: u32,
    /// Receive window in segments.
    pub rcv: u32,
}

/// A flag's value that cannot be understood: the value is quoted by clap, this says what to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(&'static str);

/// A percentage, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(pub u32);

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate(pub u64);

impl RampArg {
    /// How long the ramp of `sessions` takes.
    pub(super) fn within(self, sessions: u32) -> Duration {
        match self {
            Self::Within(time) => time,
            Self::PerSecond(rate) => Duration::from_secs_f64((f64::from(sessions) / rate).min(1e9)),
        }
    }
}

impl FromStr for RampArg {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = ValueError("write a time (10s) or a rate per second (20000/s)");
        match text.strip_suffix("/s") {
            Some(rate) => match rate.trim().parse::<f64>() {
                Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
                _ => Err(error),
            },
            None => humantime::parse_duration(text).map(Self::Within).map_err(|_| error),
        }
    }
}

impl FromStr for StormArg {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError("write how many and within what time, e.g. 100000@2s");
        let (clients, within) = text.split_once('@').ok_or_else(error)?;
        let clients = clients.trim().parse().map_err(|_| error())?;
        let within = humantime::parse_duration(within.trim()).map_err(|_| error())?;
        Ok(Self { clients, within })
    }
}

impl FromStr for Cores {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError("write core numbers and ranges, e.g. 1 or 2,4-7");
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < CORES_MAX);
        let mut cores = Vec::new();
        for piece in text.split(',') {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let (first, last) = (number(first).ok_or_else(error)?, number(last).ok_or_else(error)?);
            if last < first {
                return Err(error());
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl FromStr for Windows {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError("write the send and the receive window, e.g. 256,256");
        let (snd, rcv) = text.split_once(',').ok_or_else(error)?;
        let number = |text: &str| text.trim().parse().map_err(|_| error());
        Ok(Self { snd: number(snd)?, rcv: number(rcv)? })
    }
}

impl FromStr for Chance {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let percent =
            text.trim().strip_suffix('%').and_then(|text| text.trim().parse::<f64>().ok());
        match percent {
            Some(percent) if (0.0..=100.0).contains(&percent) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 1,000,000"
                )]
                let ppm = (percent * 10_000.0).round() as u32;
                Ok(Self(ppm))
            }
            _ => Err(ValueError("write 0% to 100%, e.g. 5% or 0.1%")),
        }
    }
}

impl FromStr for BitRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000_u64)];
        units
            .into_iter()
            .find_map(|(unit, scale)| Some((text.trim().strip_suffix(unit)?, scale)))
            .and_then(|(number, scale)| number.trim().parse::<u64>().ok()?.checked_mul(scale))
            .filter(|rate| *rate > 0)
            .map(Self)
            .ok_or(ValueError("write a whole number and kbit, mbit or gbit, e.g. 10mbit"))
    }
}

/// Parses `--rate`.
pub(super) fn parse_rate(text: &str) -> Result<Rate, ValueError> {
    let error = ValueError("write messages per second per session, e.g. 0.1 or 10; 0 = idle");
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Rate(Load::Idle)),
        Ok(rate) if (RATE_MIN..=1e9).contains(&rate) => {
            Ok(Rate(Load::Open { period: Duration::from_secs_f64(1.0 / rate) }))
        }
        _ => Err(error),
    }
}

/// Once in seven days: the schedule's own limit.
const RATE_MIN: f64 = 1.0 / (7.0 * 86_400.0);
const CORES_MAX: usize = 65_536;
