//! The gateways in front of a crowd, and the loads that come to them: one of each, or as many as the limit of open files asks for.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kcp_loadgen::host::allow_most_files;
use serde_json::Value;

use super::stage::{Exported, Front, FrontSettings, Kind};
use super::{Plan, pause};
use crate::load::Load;

/// How a crowd is shared out.
#[derive(Clone, Debug)]
pub(super) struct Division {
    pub(super) gateways: u32,
    pub(super) backends: usize,
    /// Sessions of one gateway; the last has fewer.
    pub(super) each: u32,
    /// Files that a process may open.
    files: u64,
}

impl Division {
    /// A session over `tcp` is an open file in its gateway and another in its backend.
    ///
    /// # Errors
    /// Not even a few sessions fit.
    pub(super) fn new(plan: &Plan, kind: Kind) -> Result<Self> {
        let files = allow_most_files();
        let (sessions, backends) = (plan.sessions, plan.backends);
        if kind == Kind::Yamux {
            return Ok(Self { gateways: 1, backends, each: sessions, files });
        }
        let most = u32::try_from(files - files / 8).unwrap_or(u32::MAX).saturating_sub(OTHER_FILES);
        ensure!(
            most > 0,
            "a process may open {files} files here, which is too few; raise the hard limit (`ulimit -Hn` as root, LimitNOFILE= in a unit)"
        );
        let gateways = sessions.div_ceil(most);
        let backends = backends.max(usize::try_from(gateways)?);
        Ok(Self { gateways, backends, each: sessions.div_ceil(gateways), files })
    }

    /// Why so, when it is more than one.
    pub(super) fn line(&self) -> Option<String> {
        let Self { gateways, backends, each, files } = self;
        (*gateways > 1).then(|| {
            format!(
                "{gateways} gateways of {each} sessions and {backends} backends, because a process may open {files} files here"
            )
        })
    }

    /// Shards of each gateway: there are no more cores than before.
    pub(super) fn shards(&self, plan: &Plan) -> u16 {
        if self.gateways > 1 { 1 } else { plan.shards }
    }
}

/// Gateways, and the load of each.
#[derive(Debug)]
pub(super) struct Fronts {
    fronts: Vec<Front>,
    loads: Vec<Load>,
}

impl Fronts {
    /// Starts the gateways, one after the other. Several connect from an address each, 127.0.`net`.1 and so on: with one for
    /// all, most of its ports would be in use.
    ///
    /// # Errors
    /// As [`Front::start`].
    pub(super) fn start(division: &Division, settings: &FrontSettings, net: u8) -> Result<Self> {
        let start = |number: u32| {
            let host = u8::try_from(number + 1)?;
            let source = (division.gateways > 1).then(|| Ipv4Addr::new(127, 0, net, host).into());
            Front::start(&FrontSettings { source, ..settings.clone() })
        };
        let fronts = (0..division.gateways).map(start).collect::<Result<_>>()?;
        Ok(Self { fronts, loads: Vec::new() })
    }

    /// Starts the load: `sessions` in all, of which `per_s` begin in a second.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub(super) fn load(&mut self, sessions: u32, per_s: u32, flags: &str) -> Result<()> {
        let gateways = u32::try_from(self.fronts.len())?;
        let ramp = sessions.div_ceil(per_s).max(1);
        for (number, front) in (0..).zip(&self.fronts) {
            // As many at each, one more at the first few.
            let own = sessions / gateways + u32::from(number < sessions % gateways);
            let flags = format!("--sessions {own} --ramp {ramp}s {flags}");
            self.loads.push(Load::start(front.addr, &flags)?);
        }
        Ok(())
    }

    /// Looks until something is so of all gateways together.
    ///
    /// # Errors
    /// A load has ended before, or a gateway is gone.
    pub(super) fn await_that(&mut self, holds: impl Fn(&Exported) -> bool) -> Result<()> {
        while !holds(&self.look()?) {
            ensure!(!self.any_ended()?, "the load ended too early");
            pause(Duration::from_millis(50));
        }
        Ok(())
    }

    fn any_ended(&mut self) -> Result<bool> {
        let ended = self.loads.iter_mut().map(Load::ended).collect::<Result<Vec<_>>>()?;
        Ok(ended.iter().any(Option::is_some))
    }

    /// What they exported, added up.
    ///
    /// # Errors
    /// One is gone.
    pub(super) fn look(&self) -> Result<Exported> {
        self.fronts.iter().try_fold(Exported::default(), |mut all, front| {
            all.add(front.look()?);
            Ok(all)
        })
    }

    /// The loads' reports, once they have ended, whatever they say was lost.
    ///
    /// # Errors
    /// One left none.
    pub(super) fn reports(&mut self) -> Result<Reports> {
        let reports = self.loads.drain(..).map(Load::report_with_failures);
        Ok(Reports(reports.collect::<Result<_>>()?))
    }

    /// The first gateway.
    pub(super) fn first(&self) -> Result<&Front> {
        self.fronts.first().context("no gateway")
    }

    /// How many there are.
    pub(super) fn count(&self) -> f64 {
        self.fronts.len() as f64
    }

    /// The most files that one of them has open, and the memory of all, in bytes.
    ///
    /// # Errors
    /// One is gone.
    pub(super) fn size(&self) -> Result<(usize, u64)> {
        self.fronts.iter().try_fold((0, 0), |(files, resident), front| {
            Ok((files.max(front.files()?), resident + front.resident()?))
        })
    }
}

/// What the loads reported.
#[derive(Debug)]
pub(super) struct Reports(Vec<Value>);

impl Reports {
    /// A count of all together.
    ///
    /// # Errors
    /// One does not have it.
    pub(super) fn sum(&self, key: &str) -> Result<u64> {
        self.0.iter().map(|one| one[key].as_u64().with_context(|| format!("no {key}"))).sum()
    }

    /// The worst 99th percentile, in milliseconds.
    pub(super) fn p99_ms(&self, key: &str) -> f64 {
        let of = |one: &Value| one[key]["p99"].as_f64().unwrap_or(f64::NAN) / 1e3;
        self.0.iter().map(of).fold(0.0, f64::max)
    }
}

/// TCP sockets in use on this host, as the kernel counts them.
pub(super) fn tcp_sockets() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").context("cannot read sockstat")?;
    let count = text.lines().find_map(|line| line.strip_prefix("TCP: inuse ")?.split(' ').next());
    Ok(count.context("no count of TCP sockets")?.parse()?)
}

/// What a process has open beside its sessions.
const OTHER_FILES: u32 = 500;
