//! What a drill found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::Instance;
use super::alertmanager::Routed;
use crate::dashboards::Query;

/// What a drill found.
#[derive(Debug)]
pub(super) struct Outcome {
    speed: u32,
    /// By alert.
    pub(super) fired: BTreeMap<String, Fired>,
    /// Other alerts of the same gateways, by the gateway's fault.
    also: BTreeMap<String, BTreeSet<String>>,
    /// How long the gateway that is well kept silent.
    pub(super) watched: Duration,
    /// Of the dashboards.
    pub(super) shown: Shown,
}

/// An alert that its fault fired.
#[derive(Debug)]
pub(super) struct Fired {
    pub(super) fault: &'static str,
    pub(super) severity: String,
    pub(super) after: Duration,
    pub(super) routed: Routed,
}

/// What the dashboards' queries showed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) queries: usize,
    /// Those that showed nothing but zeros.
    pub(super) flat: Vec<Query>,
    /// Those that can show nothing in a drill, and why.
    pub(super) empty: Vec<(Query, &'static str)>,
}

impl Outcome {
    pub(super) fn new(speed: u32) -> Self {
        Self {
            speed,
            fired: BTreeMap::new(),
            also: BTreeMap::new(),
            watched: Duration::ZERO,
            shown: Shown::default(),
        }
    }

    /// An alert that fires beside the one that was wanted of this gateway.
    pub(super) fn also(&mut self, instance: &Instance, inhibited: bool) {
        let name = instance.alert.trim_start_matches(PREFIX);
        let also = self.also.entry(instance.gateway.clone()).or_default();
        if inhibited {
            also.remove(name);
            also.insert(format!("{name} (inhibited)"));
        } else if !also.contains(&format!("{name} (inhibited)")) {
            also.insert(name.to_owned());
        }
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let alerts = self.fired.iter().map(|(alert, fired)| {
            json!({
                "alert": alert,
                "severity": fired.severity,
                "fault": fired.fault,
                "fired_after_s": fired.after.as_secs_f64(),
                "rules_clock_s": (fired.after * self.speed).as_secs(),
                "receiver": fired.routed.receiver,
                "summary": fired.routed.summary,
                "also": self.also.get(alert).cloned().unwrap_or_default(),
            })
        });
        let flat = self.shown.flat.iter().map(|query| json!([query.place, query.expr]));
        let empty = self.shown.empty.iter();
        let empty = empty.map(|(query, why)| json!([query.place, query.expr, why]));
        json!({
            "speed": self.speed,
            "alerts": alerts.collect::<Vec<_>>(),
            "well": { "watched_s": self.watched.as_secs_f64(), "alerts": [] },
            "dashboards": { "queries": self.shown.queries, "all_zero": flat.collect::<Vec<_>>(), "empty": empty.collect::<Vec<_>>() },
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.fired.values().map(|fired| fired.fault.len()).max().unwrap_or(0);
        writeln!(
            f,
            "{:24} {:8} {:wide$} {:>7} {:>9}  also fired there",
            "alert", "receiver", "fault", "fired", "as rules"
        )?;
        for (alert, fired) in &self.fired {
            let also = self.also.get(alert).into_iter().flatten();
            writeln!(
                f,
                "{:24} {:8} {:wide$} {:>5} s {:>5} min  {}",
                alert.trim_start_matches(PREFIX),
                fired.routed.receiver,
                fired.fault,
                fired.after.as_secs(),
                (fired.after * self.speed).as_secs() / 60,
                also.map(String::as_str).collect::<Vec<_>>().join(", ")
            )?;
        }
        writeln!(
            f,
            "\n{} alerts fired, each by its fault; none in {} s ({} min of the rules' clock) for the gateway that is well.",
            self.fired.len(),
            self.watched.as_secs(),
            (self.watched * self.speed).as_secs() / 60
        )?;
        let Shown { queries, flat, empty } = &self.shown;
        writeln!(
            f,
            "{queries} queries of dashboards: {} show something, {} nothing but zeros, {} nothing:",
            queries - flat.len() - empty.len(),
            flat.len(),
            empty.len()
        )?;
        for query in flat {
            writeln!(f, "  zeros: {}: {}", query.place, query.expr)?;
        }
        empty.iter().try_for_each(|(query, why)| writeln!(f, "  nothing: {}: {why}", query.place))
    }
}

/// Of every alert's name.
const PREFIX: &str = "KcpGateway";
