//! What a message costs on its way to a backend and back: through the gateway with each upstream, and through HAProxy.
//!
//! Whose cost is measured has a core to itself: waking somebody on another one is dear, and the scheduler would put a gateway with
//! `echo` and its load together, which three programs are too much for.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kcp_loadgen::host::process_time;
use serde::Serialize;

use super::pacer::Pacer;
use super::stage::{Backend, BackendSettings, Front, FrontSettings, Kind};
use super::{Plan, pause};
use crate::load::Load;
use crate::server::on_core;

/// CPU time per message in microseconds, a figure a round.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Costs {
    messages_per_s: u64,
    sessions: u32,
    /// Of the gateway and HAProxy.
    server_core: usize,
    /// Of clients and backends.
    client_core: usize,
    echo: Vec<f64>,
    yamux: Vec<f64>,
    tcp: Vec<f64>,
    /// TCP to TCP: no KCP in it. Empty where it is not installed.
    haproxy: Vec<f64>,
}

impl Costs {
    /// Medians of what is measured within a round.
    fn ratio(over: &[f64], under: &[f64]) -> f64 {
        median(over.iter().zip(under).map(|(over, under)| over / under).collect())
    }

    pub(super) fn verdicts(&self) -> Vec<(String, bool)> {
        let yamux = Self::ratio(&self.yamux, &self.echo);
        let mut all =
            vec![(format!("yamux costs {yamux:.2} of echo (at most 1.67)"), yamux <= 1.67)];
        if !self.haproxy.is_empty() {
            let tcp = Self::ratio(&self.haproxy, &self.tcp);
            all.push((format!("HAProxy costs {tcp:.2} of tcp (at least 1.2)"), tcp >= 1.2));
        }
        all
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let row = |name: &str, costs: &[f64]| {
            let of = |pick: fn(f64, f64) -> f64, start| costs.iter().copied().fold(start, pick);
            if costs.is_empty() {
                return format!("{name:<24}not measured: install haproxy");
            }
            format!(
                "{name:<24}{:>8.2} us of CPU per message (rounds: {:.2} to {:.2})",
                median(costs.to_vec()),
                of(f64::min, f64::MAX),
                of(f64::max, 0.0)
            )
        };
        vec![
            format!(
                "64 bytes there and back, {} sessions, {} messages/s; core {} apart from clients and backends on core {}",
                self.sessions, self.messages_per_s, self.server_core, self.client_core
            ),
            row("gateway, echo", &self.echo),
            row("gateway, yamux", &self.yamux),
            row("gateway, tcp", &self.tcp),
            row("HAProxy, TCP to TCP", &self.haproxy),
        ]
    }
}

/// Measures each in turn, round after round.
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
    for round in 0..plan.rounds {
        eprintln!("cost, round {} of {}", round + 1, plan.rounds);
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

fn of_gateway(plan: &Plan, backends: Vec<String>) -> Result<f64> {
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
    let (count, cpu) = (messages()?, front.cpu()?);
    pause(Duration::from_secs(u64::from(*cost_seconds)));
    let used = front.cpu()?.saturating_sub(cpu);
    let count = messages()? - count;
    load.report()?;
    Ok(used.as_secs_f64() * 1e6 / count)
}

fn of_haproxy(plan: &Plan, program: &Path) -> Result<f64> {
    let Plan { server_core, client_core, pacers, pace, .. } = *plan;
    let settings = BackendSettings { plain: true, ..BackendSettings::new(Kind::Tcp) };
    let backend = on_core(client_core, || Backend::start(&settings))?;
    let proxy = on_core(server_core, || HaProxy::start(program, backend.addr, pacers + 10))?;
    let pacer = on_core(client_core, || Pacer::start(proxy.addr, pacers, pace))?;
    pause(Duration::from_secs(SETTLE_S));
    let cpu = || process_time(proxy.child.id()).context("HAProxy is gone");
    let (count, before) = (pacer.echoed(), cpu()?);
    pause(Duration::from_secs(u64::from(plan.cost_seconds)));
    let (used, count) = (cpu()?.saturating_sub(before), pacer.echoed() - count);
    pacer.stop()?;
    ensure!(count > 0, "nothing came back through HAProxy");
    Ok(used.as_secs_f64() * 1e6 / count as f64)
}

/// HAProxy with one thread. Dropping it ends the process.
#[derive(Debug)]
struct HaProxy {
    child: Child,
    config: PathBuf,
    addr: SocketAddr,
}

impl HaProxy {
    /// Starts it in front of `server`. A port that was free may be another's by then: another is tried.
    fn start(program: &Path, server: SocketAddr, most: u32) -> Result<Self> {
        let config = std::env::temp_dir().join(format!("kcp-benches-{}.cfg", std::process::id()));
        for _ in 0..10 {
            let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let text = CONFIG
                .replace("LISTEN", &addr.to_string())
                .replace("SERVER", &server.to_string())
                .replace("MOST", &most.to_string());
            std::fs::write(&config, text)?;
            let child = Command::new(program)
                .arg("-db")
                .arg("-f")
                .arg(&config)
                .stdin(Stdio::null())
                .spawn()?;
            let mut proxy = Self { child, config: config.clone(), addr };
            while proxy.child.try_wait()?.is_none() {
                if TcpStream::connect(addr).is_ok() {
                    return Ok(proxy);
                }
                pause(Duration::from_millis(5));
            }
        }
        bail!("HAProxy does not come to listen; its own words are above")
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// Where it is, if it is installed.
fn haproxy() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.map(|dir| dir.join("haproxy")).find(|file| file.is_file())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

const CONFIG: &str = "\
global
    nbthread 1
    maxconn MOST
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen front
    bind LISTEN
    server one SERVER
";

/// From the last session's start to the measurement.
const SETTLE_S: u64 = 2;
