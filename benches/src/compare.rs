//! The comparison: every server under every case, round after round, in turn.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use kcp_loadgen::scenario::Protocol;
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{RunError, Scenario};

use crate::case::{CASES, Case};
use crate::contender::{CONTENDERS, Contender, Io, Server};
use crate::cpu::{self, FOREIGN_MAX, Spent};
use crate::machine::Machine;
use crate::outsider::Outsiders;
use crate::picture;
use crate::scoreboard::{Entry, Row, Sample, rows};
use crate::server::Running;
use crate::table::tables;

/// How to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// Servers [default: all].
    #[arg(long = "server", value_enum)]
    servers: Vec<Server>,
    /// Drivers of those servers that have a choice [default: all].
    #[arg(long = "io", value_enum)]
    drivers: Vec<Io>,
    /// Cases, measured one after the other [default: all].
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<Case>,
    /// Times that each is measured.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Measured seconds of each; half a second more warms up.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Sessions at most; a case has 1,000, 100 or 1.
    #[arg(long, default_value_t = 1000)]
    sessions: u16,
    /// Driver of the client, the same for all servers.
    #[arg(long, value_enum, default_value = "uring")]
    client_io: Io,
    /// Where the server runs.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Where the client runs.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Write the rows here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the rows here.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// One short round of everything with a few sessions: shows that it runs, measures nothing.
    #[arg(long)]
    smoke: bool,
}

impl Plan {
    /// Fills in what was left to us.
    fn complete(mut self) -> Self {
        if self.smoke {
            (self.rounds, self.seconds, self.sessions) = (1, 0.2, 10);
        }
        if self.cases.is_empty() {
            self.cases = CASES.to_vec();
        }
        self
    }

    fn contenders(&self) -> impl Iterator<Item = Contender> {
        CONTENDERS.into_iter().filter(|contender| {
            let asked = self.servers.is_empty() || self.servers.contains(&contender.server);
            let driven = contender.io.is_none_or(|io| self.drivers.contains(&io));
            asked && (self.drivers.is_empty() || driven)
        })
    }

    /// Everybody under one case, in the order of the table.
    fn entries(&self, case: Case, outsiders: &Outsiders) -> Vec<Entry> {
        let entry = |contender: Contender| {
            let server = contender.server;
            let absent = server.cannot(&case).or(outsiders.missing(server)).map(str::to_owned);
            let sessions = case.sessions(self.sessions);
            Entry { contender, case, sessions, absent, samples: Vec::new() }
        };
        self.contenders().map(entry).collect()
    }
}

/// Runs the comparison, prints its tables, writes its JSON and its picture.
///
/// # Errors
/// A result could not be written; nothing could be measured; or, of a smoke run, a server could not run or data was lost. In a full run such a row is
/// marked in the table.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(plan: Plan) -> Result<()> {
    let plan = plan.complete();
    ensure!(plan.rounds > 0 && plan.seconds > 0.0, "nothing to measure: --rounds and --seconds");
    let machine = Machine::this();
    println!("{}\n", machine.lines().join("\n"));
    let servers: Vec<Server> = plan.contenders().map(|contender| contender.server).collect();
    let outsiders = Outsiders::build(&servers);
    let groups: Vec<_> = plan.cases.iter().map(|&case| plan.entries(case, &outsiders)).collect();
    let mut progress = Progress::of(&plan, &groups);
    let mut entries = Vec::new();
    for mut group in groups {
        measure_case(&plan, &outsiders, &mut group, &mut progress)?;
        entries.append(&mut group);
        // Whoever is stopped later has this much.
        write_results(&plan, &rows(&entries, &machine), &machine)?;
    }
    println!("{}", tables(&rows(&entries, &machine)));
    let measured = entries.iter().any(|entry| !entry.samples.is_empty());
    ensure!(measured, "nothing could be measured: the reasons are above");
    let lost = entries.iter().flat_map(|entry| &entry.samples).any(|sample| sample.void.is_some());
    ensure!(!(lost && plan.smoke), "a server lost data");
    Ok(())
}

/// Every round of one case. What is divided by each other is measured within seconds of each other; another contender begins
/// each round.
fn measure_case(
    plan: &Plan,
    outsiders: &Outsiders,
    group: &mut [Entry],
    progress: &mut Progress,
) -> Result<()> {
    let count = group.len();
    for (round, turn) in (0..plan.rounds).flat_map(|round| (0..count).map(move |n| (round, n))) {
        let entry = &mut group[(turn + round) % count];
        if entry.absent.is_some() {
            continue;
        }
        let name = name(entry);
        let outcome = undisturbed(plan, outsiders, entry);
        let head = progress.step();
        match outcome {
            Ok(sample) => {
                eprintln!("{head}: {name}: {}", told(&sample));
                entry.samples.push(sample);
            }
            // On this host it cannot run, or not any more. The others can.
            Err(error) if !plan.smoke => {
                eprintln!("{head}: {name}: {error:#}");
                entry.absent = Some(format!("{error:#}"));
            }
            Err(error) => return Err(error.context(name)),
        }
    }
    Ok(())
}

fn told(sample: &Sample) -> String {
    let disturbed = if sample.disturbed { ", disturbed" } else { "" };
    let void = sample.void.as_ref().map_or(String::new(), |reason| format!(", VOID: {reason}"));
    let Sample { messages_per_s, cpu_s_per_million, .. } = sample;
    format!("{messages_per_s:.0} messages/s, {cpu_s_per_million:.2} CPU s/M{disturbed}{void}")
}

/// How far it is.
struct Progress {
    done: u32,
    all: usize,
    began: Instant,
}

impl Progress {
    fn of(plan: &Plan, groups: &[Vec<Entry>]) -> Self {
        let present = groups.iter().flatten().filter(|entry| entry.absent.is_none()).count();
        Self { done: 0, all: present * plan.rounds, began: cpu::now() }
    }

    /// One more is done; says how many are, and how long the others will take.
    fn step(&mut self) -> String {
        self.done += 1;
        let left = self.all.saturating_sub(self.done as usize);
        let seconds = self.began.elapsed().as_secs_f64() / f64::from(self.done) * left as f64;
        format!("{} of {}, {:.0} min left", self.done, self.all, seconds / 60.0)
    }
}

fn write_results(plan: &Plan, rows: &[Row], machine: &Machine) -> Result<()> {
    if let Some(path) = &plan.json {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(file, rows)?;
    }
    if let Some(path) = &plan.svg {
        picture::draw(rows, machine, path)
            .with_context(|| format!("cannot draw {}", path.display()))?;
    }
    Ok(())
}

fn name(entry: &Entry) -> String {
    let Contender { server, .. } = entry.contender;
    format!("{} {} {}", entry.case.name, server.label(), entry.contender.driver())
}

/// One sample; measured again, up to a limit, while other programs take too much of the two cores.
fn undisturbed(plan: &Plan, outsiders: &Outsiders, entry: &Entry) -> Result<Sample> {
    const ATTEMPTS: usize = 3;
    let mut best = measure(plan, outsiders, entry)?;
    for _ in 1..ATTEMPTS {
        if best.1 <= FOREIGN_MAX || plan.smoke {
            break;
        }
        let again = measure(plan, outsiders, entry)?;
        if again.1 < best.1 {
            best = again;
        }
    }
    let (sample, foreign) = best;
    Ok(Sample { disturbed: foreign > FOREIGN_MAX, ..sample })
}

/// A fresh server, a fresh client, one run. Also tells the share of the two cores that went to others.
fn measure(plan: &Plan, outsiders: &Outsiders, entry: &Entry) -> Result<(Sample, f64)> {
    let server = Running::start(entry.contender, outsiders, plan.server_core)?;
    let scenario = scenario(plan, entry, server.addr, server.pid());
    let before = spent(plan, &server)?;
    let report = match kcp_loadgen::run(&scenario) {
        Err(error @ RunError::NobodyThere { .. }) => {
            let void = Some(error.to_string());
            return Ok((Sample { void, ..Sample::default() }, 0.0));
        }
        report => report?,
    };
    // Who was held up for longer than the measured time has measured nothing.
    let held_up = report.target_cpu_s.is_none() || report.counts.measured_received == 0;
    let foreign = spent(plan, &server)?.since(&before).foreign();
    let foreign = if held_up { 1.0 } else { foreign };
    let cpu_s = report.target_cpu_s.unwrap_or(f64::NAN);
    let received = report.counts.measured_received as f64;
    let sample = Sample {
        messages_per_s: report.messages_per_s,
        cpu_s_per_million: cpu_s * 1e6 / received,
        p50_us: report.latency_us.p50 as f64,
        p99_us: report.latency_us.p99 as f64,
        server_busy: cpu_s / report.duration_s,
        client_busy: report.generator.client_core_busy,
        needless_resends: report.kcp.duplicate_segments as f64 / report.counts.received as f64,
        disturbed: false,
        void: report.failures().into_iter().next(),
    };
    Ok((sample, foreign))
}

fn scenario(plan: &Plan, entry: &Entry, target: SocketAddr, pid: u32) -> Scenario {
    let Entry { case, sessions, .. } = entry;
    let sockets = case.sockets(*sessions);
    let first = IpAddr::V4(Ipv4Addr::new(127, 1, 0, 1));
    let sources = Sources::range(first, sockets);
    let mut scenario = Scenario::new(target, (*sessions).into(), sources);
    scenario.clients.sockets = sockets.into();
    scenario.traffic.size = case.size;
    scenario.traffic.load = case.load();
    scenario.phases.warmup = if plan.smoke { Duration::ZERO } else { WARM_UP };
    scenario.phases.duration = Duration::from_secs_f64(plan.seconds);
    scenario.protocol = match entry.contender.server {
        Server::RawUdp => Protocol::Raw { datagram: case.datagram() },
        Server::Gateway | Server::CIkcp | Server::TokioKcp | Server::KcpTokio | Server::KcpGo => {
            Protocol::Kcp(Case::protocol())
        }
    };
    scenario.engine.io = plan.client_io.choice();
    scenario.engine.pin = vec![plan.client_core];
    scenario.engine.target_pid = Some(pid);
    scenario
}

/// What the two cores did until now.
fn spent(plan: &Plan, server: &Running) -> Result<Spent> {
    let mut cores = vec![plan.server_core, plan.client_core];
    cores.dedup();
    Spent::read(&cores, server.cpu()? + cpu::of_process_ever(std::process::id())?)
}

const WARM_UP: Duration = Duration::from_millis(500);
