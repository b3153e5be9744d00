//! What a message costs on its way to a backend and back: through the gateway with each upstream, and through HAProxy.
//!
//! Whose cost is measured has a core to itself: waking somebody on another one is dear, and the scheduler would put a gateway with
//! `echo` and its load together, which three programs are too much for. And what counts was measured with both cores near each other:
//! see [`apart_ns`].

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kcp_loadgen::host::process_time;
use serde::Serialize;

use super::apart::apart_ns;
use super::haproxy::{HaProxy, haproxy};
use super::pacer::Pacer;
use super::stage::{Backend, BackendSettings, Front, FrontSettings, Kind};
use super::{Plan, pause};
use crate::load::Load;
use crate::server::on_core;

/// What was measured, round after round.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Costs {
    messages_per_s: u64,
    sessions: u32,
    /// Of the gateway and HAProxy.
    server_core: usize,
    /// Of clients and backends.
    client_core: usize,
    echo: Vec<Measured>,
    yamux: Vec<Measured>,
    tcp: Vec<Measured>,
    /// TCP to TCP: no KCP in it. Empty where it is not installed.
    haproxy: Vec<Measured>,
}

/// The stretches of one measurement.
type Measured = Vec<Stretch>;

/// Half a second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Stretch {
    messages: f64,
    cpu_us: f64,
    /// How far the cores were from each other, before or after: the greater.
    apart_ns: f64,
}

impl Stretch {
    fn us(self) -> f64 {
        self.cpu_us / self.messages
    }
}

/// CPU time per message in microseconds: the first quartile of some stretches, because what else runs on the host only adds to it. Not a
/// number when there are none.
fn cost(stretches: &[Stretch]) -> f64 {
    part(stretches.iter().map(|one| one.us()), 4)
}

/// The value that `1 / nth` of all are below.
fn part(values: impl Iterator<Item = f64>, nth: usize) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / nth).copied().unwrap_or(f64::NAN)
}

impl Costs {
    fn all(&self) -> [(&'static str, &[Measured]); 4] {
        [
            ("gateway, echo", &self.echo),
            ("gateway, yamux", &self.yamux),
            ("gateway, tcp", &self.tcp),
            ("HAProxy, TCP to TCP", &self.haproxy),
        ]
    }

    fn stretches(&self) -> impl Iterator<Item = Stretch> {
        self.all().into_iter().flat_map(|(_, rounds)| rounds.iter().flatten()).copied()
    }

    /// What counts as near: half as far again as the nearest tenth.
    fn near_ns(&self) -> f64 {
        1.5 * part(self.stretches().map(|one| one.apart_ns), 10)
    }

    /// What counts, and what does not.
    fn split(&self, rounds: &[Measured]) -> (Vec<Stretch>, Vec<Stretch>) {
        let near_ns = self.near_ns();
        rounds.iter().flatten().partition(|one| one.apart_ns <= near_ns)
    }

    fn ratio(&self, over: &[Measured], under: &[Measured]) -> f64 {
        cost(&self.split(over).0) / cost(&self.split(under).0)
    }

    /// The least that counts of any program, in stretches.
    fn least(&self) -> usize {
        let all = self.all().into_iter().filter(|(_, rounds)| !rounds.is_empty());
        all.map(|(_, rounds)| self.split(rounds).0.len()).min().unwrap_or(0)
    }

    pub(super) fn verdicts(&self) -> Vec<(String, bool)> {
        let yamux = self.ratio(&self.yamux, &self.echo);
        let mut all =
            vec![(format!("yamux costs {yamux:.2} of echo (at most 1.67)"), yamux <= 1.67)];
        if !self.haproxy.is_empty() {
            let tcp = self.ratio(&self.haproxy, &self.tcp);
            all.push((format!("HAProxy costs {tcp:.2} of tcp (at least 1.2)"), tcp >= 1.2));
        }
        all
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let near_ns = self.near_ns();
        let (near, far): (Vec<_>, Vec<_>) =
            self.stretches().partition(|one| one.apart_ns <= near_ns);
        let mut lines = vec![
            format!(
                "64 bytes there and back, {} sessions, {} messages/s; core {} apart from clients and backends on core {}",
                self.sessions, self.messages_per_s, self.server_core, self.client_core
            ),
            format!(
                "from one of these cores to the other a word took {} ns; {} of {} half-seconds",
                range(&near, |one| one.apart_ns, 0),
                near.len(),
                near.len() + far.len()
            ),
        ];
        if !far.is_empty() {
            lines.push(format!(
                "left out: {} in which it took {} ns, because the host of this machine moves its cores",
                far.len(),
                range(&far, |one| one.apart_ns, 0)
            ));
        }
        for (name, rounds) in self.all() {
            let (near, far) = self.split(rounds);
            lines.push(if rounds.is_empty() {
                format!("{name:<24}not measured: install haproxy")
            } else {
                format!(
                    "{name:<24}{:>8.2} us of CPU per message, first quartile of {} half-seconds ({})",
                    cost(&near),
                    near.len(),
                    range(&near, Stretch::us, 2)
                )
            });
            if !far.is_empty() {
                lines.push(format!("{:<24}{:>8.2} us in {} left out", "", cost(&far), far.len()));
            }
        }
        lines
    }
}

fn range(stretches: &[Stretch], of: impl Fn(Stretch) -> f64, digits: usize) -> String {
    let values = || stretches.iter().map(|&one| of(one));
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    format!("{least:.digits$} to {most:.digits$}")
}

/// Measures each in turn, round after round. Goes on, to three times the rounds, until half of what they measure of each counts.
///
/// # Errors
/// Something could not be started, or messages were lost.
pub(super) fn run(plan: &Plan) -> Result<Costs> {
    let Plan { pace, pacers, server_core, client_core, .. } = *plan;
    ensure!(server_core != client_core, "gateway and clients need a core each");
    let mut costs = Costs {
        messages_per_s: pace,
        sessions: pacers,
        server_core,
        client_core,
        ..Costs::default()
    };
    let haproxy = haproxy();
    let enough = (plan.rounds * plan.cost_seconds) as usize;
    for round in 1..=3 * plan.rounds {
        if round > plan.rounds && costs.least() >= enough {
            break;
        }
        eprintln!("cost, round {round} of {}: {} of {enough} count", plan.rounds, costs.least());
        costs.echo.push(of_gateway(plan, Vec::new())?);
        for (kind, of) in [(Kind::Yamux, &mut costs.yamux), (Kind::Tcp, &mut costs.tcp)] {
            let backend = on_core(client_core, || Backend::start(&BackendSettings::new(kind)))?;
            of.push(of_gateway(plan, vec![backend.url()])?);
        }
        if let Some(program) = &haproxy {
            costs.haproxy.push(of_haproxy(plan, program)?);
        }
    }
    Ok(costs)
}

fn of_gateway(plan: &Plan, backends: Vec<String>) -> Result<Measured> {
    let sessions_max = plan.pacers * 2;
    let settings = FrontSettings {
        backends,
        shards: 1,
        io: plan.io,
        sessions_max,
        store_bytes_max: 0,
        pool_bytes_max: 0,
        queue_bytes_max: 0,
        stall_ms: 0,
        source: None,
    };
    let front = on_core(plan.server_core, || Front::start(&settings))?;
    let Plan { pacers, pace, cost_seconds, .. } = plan;
    let rate = *pace as f64 / f64::from(*pacers);
    let flags = format!(
        "--sessions {pacers} --rate {rate} --ramp 1s --warmup {SETTLE_S}s --duration {}s --sources 127.0.0.2+16 --io {} \
         --progress off",
        cost_seconds + 2,
        plan.io.label()
    );
    let load = on_core(plan.client_core, || Load::start(front.addr, &flags))?;
    while front.look()?.sum("kcp_gateway_sessions", "shard") < f64::from(*pacers) {
        pause(Duration::from_millis(50));
    }
    pause(Duration::from_secs(SETTLE_S));
    let messages =
        || Ok::<_, anyhow::Error>(front.look()?.sum("kcp_gateway_messages_received_total", ""));
    let measured = stretches(plan, || Ok((messages()?, front.cpu()?)))?;
    load.report()?;
    Ok(measured)
}

/// Looks at messages and CPU time used, every half second for as long as a measurement takes.
fn stretches(plan: &Plan, look: impl Fn() -> Result<(f64, Duration)>) -> Result<Measured> {
    let apart = || apart_ns(plan.server_core, plan.client_core);
    let (mut before, mut apart_before) = (look()?, apart()?);
    let stretch = |_| {
        pause(STRETCH);
        let (after, apart_after) = (look()?, apart()?);
        let (messages, cpu) = (after.0 - before.0, after.1.saturating_sub(before.1));
        ensure!(messages > 0.0, "nothing comes back");
        let apart_ns = apart_before.max(apart_after);
        (before, apart_before) = (after, apart_after);
        Ok(Stretch { messages, cpu_us: cpu.as_secs_f64() * 1e6, apart_ns })
    };
    (0..2 * plan.cost_seconds).map(stretch).collect()
}

fn of_haproxy(plan: &Plan, program: &Path) -> Result<Measured> {
    let Plan { server_core, client_core, pacers, pace, .. } = *plan;
    let settings = BackendSettings { plain: true, ..BackendSettings::new(Kind::Tcp) };
    let backend = on_core(client_core, || Backend::start(&settings))?;
    let proxy = on_core(server_core, || HaProxy::start(program, backend.addr, pacers + 10))?;
    let pacer = on_core(client_core, || Pacer::start(proxy.addr, pacers, pace))?;
    pause(Duration::from_secs(SETTLE_S));
    let cpu = || process_time(proxy.child.id()).context("HAProxy is gone");
    let measured = stretches(plan, || Ok((pacer.echoed() as f64, cpu()?)))?;
    pacer.stop()?;
    Ok(measured)
}

/// From the last session's start to the measurement.
const SETTLE_S: u64 = 2;

/// A stretch of a measurement.
const STRETCH: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// Two seconds at each distance, with what a message costs there; in half a second of them something disturbs.
    fn measured(at: &[(f64, f64)]) -> Measured {
        let stretch = |&(apart_ns, us): &(f64, f64)| {
            [1.0, 1.0, 1.0, 1.4].map(|disturbed| Stretch {
                messages: 100.0,
                cpu_us: 100.0 * us * disturbed,
                apart_ns,
            })
        };
        at.iter().flat_map(stretch).collect()
    }

    #[test]
    fn what_was_measured_far_is_left_out() {
        let costs = Costs {
            echo: vec![measured(&[(40.0, 10.0), (180.0, 12.0)]); 2],
            yamux: vec![measured(&[(180.0, 30.0)]), measured(&[(45.0, 15.0), (180.0, 30.0)])],
            ..Costs::default()
        };
        assert_eq!(costs.ratio(&costs.yamux, &costs.echo), 1.5);
        assert_eq!(costs.least(), 4, "of yamux, in its second round");
        let lines = costs.lines().join("\n");
        assert!(lines.contains("40 to 45 ns; 12 of 28 half-seconds"), "{lines}");
        assert!(lines.contains("10.00 us of CPU per message, first quartile of 8"), "{lines}");
        assert!(lines.contains("12.00 us in 8 left out"), "{lines}");
    }

    #[test]
    fn cores_that_are_always_far_are_as_near_as_it_gets() {
        let costs = Costs { echo: vec![measured(&[(180.0, 12.0)])], ..Costs::default() };
        assert_eq!(costs.least(), 4);
        assert!(costs.lines().iter().all(|line| !line.contains("left out")));
    }
}
