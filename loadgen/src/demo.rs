//! `kcp-loadgen demo`: a gateway and a load in one process, one command, nothing to set up.
//!
//! The only file that calls the gateway as a library. The load still reaches it as any client would: UDP on loopback.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway, ShardFailure, StartError};
use net_io::IoChoice;

use crate::check::Check;
use crate::progress::ProgressMode;
use crate::report::Report;
use crate::run::{RunError, run_with};
use crate::scenario::{Load, Scenario};
use crate::sources::Sources;

/// What may be changed about the demo.
#[derive(Clone, Debug)]
pub struct Demo {
    /// Sessions (default 10,000).
    pub sessions: u32,
    /// When a session sends (default twice a second).
    pub load: Load,
    /// How long to measure (default 15 s).
    pub duration: Duration,
    /// The driver of both sides.
    pub io: IoChoice,
    /// The gateway's shards (default: one per core).
    pub shards: Option<u16>,
    /// What makes the run repeatable.
    pub seed: u64,
    /// What must hold at the end.
    pub checks: Vec<Check>,
}

impl Default for Demo {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            load: Load::Open { period: Duration::from_millis(500) },
            duration: Duration::from_secs(15),
            io: IoChoice::Auto,
            shards: None,
            seed: crate::seed::fresh(),
            checks: Vec::new(),
        }
    }
}

/// Why a demo did not come to a report.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The gateway did not start.
    #[error("the gateway did not start: {0}")]
    Gateway(#[from] StartError),
    /// One of its shards died.
    #[error("the gateway failed: {0}")]
    Shard(ShardFailure),
    /// It listens nowhere.
    #[error("the gateway has no address; this is a defect of the demo")]
    NoAddress,
    /// The load did not run.
    #[error(transparent)]
    Load(#[from] RunError),
    /// The words about it could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Starts a gateway on free ports of 127.0.0.1, loads it, stops it. What is going on and where to look is written to `out`.
///
/// # Errors
/// The gateway or the load did not run, or the gateway failed under the load.
pub fn demo(
    demo: &Demo,
    progress: ProgressMode,
    stop: &AtomicBool,
    out: &mut impl Write,
) -> Result<Report, DemoError> {
    let gateway = Gateway::start(config(demo))?;
    let target = *gateway.listen_addrs().first().ok_or(DemoError::NoAddress)?;
    let status = gateway.status();
    writeln!(
        out,
        "gateway     {target}, {} shards, echo upstream, driver {}",
        status.shards, status.driver
    )?;
    if let Some(admin) = gateway.admin_addr() {
        writeln!(
            out,
            "look here   http://{admin}/metrics while it runs (curl, a browser, Prometheus)"
        )?;
    }
    let scenario = scenario(demo, target);
    writeln!(
        out,
        "load        {} sessions from {} addresses for {:?}",
        demo.sessions,
        scenario.clients.sources.addrs().len(),
        demo.duration
    )?;
    out.flush()?;
    let report = run_with(&scenario, progress, stop);
    // The cause before the symptom: without its shard the load has failed as well.
    if let Some(failure) = gateway.failure() {
        return Err(DemoError::Shard(failure));
    }
    Ok(report?)
}

fn config(demo: &Demo) -> Config {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners = vec![Listener::new(any_port)];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = Some(any_port);
    config.io.driver = demo.io;
    if let Some(shards) = demo.shards {
        config.shards.count = Auto::Exactly(shards);
    }
    config
}

fn scenario(demo: &Demo, target: SocketAddr) -> Scenario {
    // 16 addresses: every one of 127.0.0.0/8 is this host.
    let first = Ipv4Addr::new(127, 0, 0, 2);
    let sources = Sources::range(first.into(), SOURCES);
    let mut scenario = Scenario::new(target, demo.sessions, sources);
    scenario.traffic.load = demo.load;
    scenario.phases.duration = demo.duration;
    scenario.engine.io = demo.io;
    scenario.seed = demo.seed;
    scenario.checks.clone_from(&demo.checks);
    scenario
}

const SOURCES: u16 = 16;
