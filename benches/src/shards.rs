//! Do shards slow each other down? Two shards beside one at the same paced rate for each, and beside two that cannot know of
//! each other.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::contender::Io;
use crate::cpu::{self, Spent};
use crate::load::Load;
use crate::machine::Machine;
use crate::scoreboard::median;
use crate::watched::{Moment, Settings, Watched};

/// How to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// Times that each formation is measured.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Measured seconds of each.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Messages a second for each shard.
    #[arg(long, default_value_t = 40_000)]
    rate: u32,
    /// Sessions for each shard, each from a port of its own.
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// The two cores that shards and clients share.
    #[arg(long, value_delimiter = ',', num_args = 2, default_values_t = [0, 1])]
    cores: Vec<usize>,
    /// Driver of the gateway and of the clients.
    #[arg(long, value_enum, default_value = "uring")]
    io: Io,
    /// Write the result here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round with few messages: shows that it runs, measures nothing.
    #[arg(long)]
    smoke: bool,
}

/// Who shares what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Formation {
    /// One gateway with one shard on the first core.
    One,
    /// One gateway with two shards.
    Two,
    /// Two gateways with one shard each: as much work on the same cores, and nothing shared but the machine.
    Apart,
}

const FORMATIONS: [Formation; 3] = [Formation::One, Formation::Two, Formation::Apart];

impl Formation {
    const fn label(self) -> &'static str {
        match self {
            Self::One => "one shard",
            Self::Two => "two shards",
            Self::Apart => "two gateways of one shard",
        }
    }

    /// The cores of each gateway's shards, one for each shard.
    fn gateways(self, cores: &[usize]) -> Vec<&[usize]> {
        match self {
            Self::One => vec![&cores[..1]],
            Self::Two => vec![cores],
            Self::Apart => cores.chunks(1).collect(),
        }
    }
}

/// One formation, once.
#[derive(Clone, Debug)]
struct Sample {
    shards: Vec<Shard>,
    disturbed: bool,
}

/// What a shard did in the measured time.
#[derive(Clone, Copy, Debug)]
struct Shard {
    messages_per_s: f64,
    cpu_us_per_message: f64,
}

impl Sample {
    /// CPU of all shards by messages of all shards.
    fn cost(&self) -> f64 {
        let messages: f64 = self.shards.iter().map(|shard| shard.messages_per_s).sum();
        let cpu = self.shards.iter().map(|shard| shard.messages_per_s * shard.cpu_us_per_message);
        cpu.sum::<f64>() / messages
    }
}

/// What there is to say of a formation, and of two.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    machine: Machine,
    rate_per_shard: u32,
    rows: Vec<Row>,
    /// CPU per message of two shards divided by that of one, within a round.
    two_to_one: Ratio,
    /// The same, divided by that of two gateways.
    two_to_apart: Ratio,
    disturbed_rounds: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    formation: Formation,
    shard: usize,
    core: usize,
    messages_per_s: f64,
    cpu_us_per_message: f64,
    cpu_us_per_message_min: f64,
    cpu_us_per_message_max: f64,
    /// Share of its core that the shard used.
    busy: f64,
}

/// The median of the rounds, the least and the most.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

/// Runs the comparison, prints its table, writes its JSON.
///
/// # Errors
/// A gateway or a load could not run, a message was lost, a rate was not kept, or the result could not be written.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(mut plan: Plan) -> Result<()> {
    if plan.smoke {
        (plan.rounds, plan.seconds, plan.rate, plan.sessions) = (1, 1, 1000, 10);
    }
    ensure!(
        plan.rounds > 0 && plan.seconds > 0 && plan.sessions > 0,
        "nothing to measure: --rounds, --seconds and --sessions"
    );
    let machine = Machine::this();
    println!("{}\n", machine.lines().join("\n"));
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        rounds.push(measure_all(&plan, round)?);
    }
    let outcome = outcome(&plan, machine, &rounds);
    println!("{}", text(&outcome));
    if let Some(path) = &plan.json {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(file, &outcome)?;
    }
    Ok(())
}

/// One round, in the order of [`FORMATIONS`]; another begins each time.
fn measure_all(plan: &Plan, round: usize) -> Result<[Sample; 3]> {
    let mut samples = [const { None }; 3];
    for turn in 0..FORMATIONS.len() {
        let place = (turn + round) % FORMATIONS.len();
        let formation = FORMATIONS[place];
        let sample = undisturbed(plan, formation).context(formation.label())?;
        eprintln!(
            "round {} of {}: {}: {:.3} CPU us/message{}",
            round + 1,
            plan.rounds,
            formation.label(),
            sample.cost(),
            if sample.disturbed { ", disturbed" } else { "" }
        );
        samples[place] = Some(sample);
    }
    let [Some(one), Some(two), Some(apart)] = samples else { unreachable!("each has its turn") };
    Ok([one, two, apart])
}

/// One sample; measured again, up to a limit, while other programs take too much of the two cores, or so much that it failed.
fn undisturbed(plan: &Plan, formation: Formation) -> Result<Sample> {
    const ATTEMPTS: usize = 3;
    for _ in 1..ATTEMPTS {
        match measure(plan, formation) {
            Ok(sample) if sample.disturbed && !plan.smoke => {}
            Err(error) if !plan.smoke => eprintln!("{}: {error:#}; again", formation.label()),
            outcome => return outcome,
        }
    }
    measure(plan, formation)
}

/// Fresh gateways and fresh loads: as many loads as shards, all alike, so that a formation differs in its shards only.
fn measure(plan: &Plan, formation: Formation) -> Result<Sample> {
    let mut gateways = Vec::new();
    let mut loads = Vec::new();
    for cores in formation.gateways(&plan.cores) {
        let gateway = Watched::start(&settings(plan, cores))?;
        for _ in cores {
            loads.push(Load::start(gateway.addr, &flags(plan))?);
        }
        gateways.push(gateway);
    }
    let all = u64::from(plan.sessions) * loads.len() as u64;
    while look(&mut gateways)?.iter().map(|moment| moment.sum(|c| c.births)).sum::<u64>() < all {
        ensure!(ended(&mut loads)?.is_none(), "a load ended before its sessions were there");
        pause(LOOK_EVERY);
    }
    pause(SETTLING);
    let used = |loads: &[Load], moments: &[Moment]| -> Result<Spent> {
        let loads = loads.iter().map(Load::cpu).sum::<Result<Duration>>()?;
        Spent::read(&plan.cores, loads + moments.iter().map(|m| m.cpu).sum::<Duration>())
    };
    let before = look(&mut gateways)?;
    let used_before = used(&loads, &before)?;
    pause(Duration::from_secs(plan.seconds.into()));
    let after = look(&mut gateways)?;
    let foreign = used(&loads, &after)?.since(&used_before).foreign();
    ensure!(ended(&mut loads)?.is_none(), "a load ended in the measured time");
    for load in loads {
        load.report()?;
    }
    let shards = shards(&before, &after);
    let kept = f64::from(plan.rate) * KEPT;
    let total: f64 = shards.iter().map(|shard| shard.messages_per_s).sum();
    ensure!(
        total >= kept * shards.len() as f64 || plan.smoke,
        "{total:.0} messages/s: behind {} for each shard",
        plan.rate
    );
    Ok(Sample { shards, disturbed: foreign > cpu::FOREIGN_MAX })
}

fn settings(plan: &Plan, cores: &[usize]) -> Settings {
    Settings {
        cores: cores.to_vec(),
        shards: u16::try_from(cores.len()).unwrap_or(u16::MAX),
        io: plan.io,
        sessions_max: plan.sessions * 4,
        keepalive_s: 60,
        idle_timeout_s: 300,
    }
}

/// The clients of one shard's worth: a thread on each of the two cores.
fn flags(plan: &Plan) -> String {
    let Plan { sessions, rate, seconds, cores, io, .. } = plan;
    let each = f64::from(*rate) / f64::from(*sessions);
    format!(
        "--sessions {sessions} --sockets {sessions} --sources 127.1.0.1+16 --rate {each} --ramp 0s --warmup 0s \
         --duration {}s --threads 2 --pin {},{} --io {} --progress off",
        seconds + SLACK_S,
        cores[0],
        cores[1],
        io.label(),
    )
}

fn look(gateways: &mut [Watched]) -> Result<Vec<Moment>> {
    gateways.iter_mut().map(Watched::look).collect()
}

fn ended(loads: &mut [Load]) -> Result<Option<()>> {
    for load in loads {
        if load.ended()?.is_some() {
            return Ok(Some(()));
        }
    }
    Ok(None)
}

fn shards(before: &[Moment], after: &[Moment]) -> Vec<Shard> {
    let mut shards = Vec::new();
    for (before, after) in before.iter().zip(after) {
        let seconds = after.at.saturating_sub(before.at).as_secs_f64();
        for (&(was, cpu_was), &(is, cpu_is)) in before.shards.iter().zip(&after.shards) {
            let messages = is.messages.saturating_sub(was.messages) as f64;
            let cpu_us = cpu_is.saturating_sub(cpu_was).as_secs_f64() * 1e6;
            shards.push(Shard {
                messages_per_s: messages / seconds,
                cpu_us_per_message: cpu_us / messages,
            });
        }
    }
    shards
}

fn outcome(plan: &Plan, machine: Machine, rounds: &[[Sample; 3]]) -> Outcome {
    let calm: Vec<_> = rounds.iter().filter(|round| !round.iter().any(|s| s.disturbed)).collect();
    let disturbed_rounds = rounds.len() - calm.len();
    // Better disturbed figures, marked, than none.
    let counted = if calm.is_empty() { rounds.iter().collect() } else { calm };
    let mut rows = Vec::new();
    for (place, formation) in FORMATIONS.into_iter().enumerate() {
        for (shard, &core) in formation.gateways(&plan.cores).concat().iter().enumerate() {
            let of = |value: fn(&Shard) -> f64| {
                Ratio::of(counted.iter().map(|round| value(&round[place].shards[shard])).collect())
            };
            let (rate, cost) = (of(|s| s.messages_per_s), of(|s| s.cpu_us_per_message));
            let busy = of(|s| s.messages_per_s * s.cpu_us_per_message / 1e6);
            rows.push(Row {
                formation,
                shard,
                core,
                messages_per_s: rate.median,
                cpu_us_per_message: cost.median,
                cpu_us_per_message_min: cost.min,
                cpu_us_per_message_max: cost.max,
                busy: busy.median,
            });
        }
    }
    let ratio = |to: usize| Ratio::of(counted.iter().map(|r| r[1].cost() / r[to].cost()).collect());
    Outcome {
        machine,
        rate_per_shard: plan.rate,
        rows,
        two_to_one: ratio(0),
        two_to_apart: ratio(2),
        disturbed_rounds,
    }
}

impl Ratio {
    fn of(values: Vec<f64>) -> Self {
        let min = values.iter().copied().fold(f64::NAN, f64::min);
        let max = values.iter().copied().fold(f64::NAN, f64::max);
        Self { median: median(values), min, max }
    }
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "{:<26} {:>5} {:>5} {:>11} {:>15} {:>13} {:>6}\n",
        "", "shard", "core", "messages/s", "CPU us/message", "min..max", "busy"
    );
    for row in &outcome.rows {
        let spread =
            format!("{:.3}..{:.3}", row.cpu_us_per_message_min, row.cpu_us_per_message_max);
        text += &format!(
            "{:<26} {:>5} {:>5} {:>11.0} {:>15.3} {spread:>13} {:>5.1}%\n",
            row.formation.label(),
            row.shard,
            row.core,
            row.messages_per_s,
            row.cpu_us_per_message,
            row.busy * 100.0
        );
    }
    for (to, ratio) in [("one", outcome.two_to_one), ("two apart", outcome.two_to_apart)] {
        let Ratio { median, min, max } = ratio;
        text += &format!("\nCPU per message, two shards to {to}: {median:.3} ({min:.3}..{max:.3})");
    }
    if outcome.disturbed_rounds > 0 {
        text += &format!("\n{} rounds disturbed", outcome.disturbed_rounds);
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "what is watched goes on by itself")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// From the last birth to the measured time.
const SETTLING: Duration = Duration::from_millis(500);
/// What the load lasts beyond the measured time: settling, and room for a busy machine.
const SLACK_S: u32 = 2;
/// A total rate below this share of what is offered is no measurement at that rate.
const KEPT: f64 = 0.98;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watched::Counted;

    fn plan() -> Plan {
        Plan {
            rounds: 1,
            seconds: 1,
            rate: 100,
            sessions: 10,
            cores: vec![4, 7],
            io: Io::Epoll,
            json: None,
            smoke: false,
        }
    }

    fn sample(costs: &[f64], disturbed: bool) -> Sample {
        let shard = |&cost: &f64| Shard { messages_per_s: 100.0, cpu_us_per_message: cost };
        Sample { shards: costs.iter().map(shard).collect(), disturbed }
    }

    #[test]
    fn a_shard_is_charged_its_own_time() {
        let moment = |at, messages: [u64; 2], cpu_ms: [u64; 2]| Moment {
            at: Duration::from_secs(at),
            shards: (0..2)
                .map(|n| {
                    let counted = Counted { messages: messages[n], ..Counted::default() };
                    (counted, Duration::from_millis(cpu_ms[n]))
                })
                .collect(),
            ..Moment::default()
        };
        let before = moment(10, [1000, 2000], [5, 50]);
        let after = moment(12, [1200, 2400], [7, 58]);
        let shards = shards(&[before], &[after]);
        let figures: Vec<_> =
            shards.iter().map(|s| (s.messages_per_s, s.cpu_us_per_message.round())).collect();
        assert_eq!(figures, [(100.0, 10.0), (200.0, 20.0)]);
        assert_eq!(Sample { shards, disturbed: false }.cost().round(), 17.0);
    }

    #[test]
    fn ratios_are_taken_within_calm_rounds() {
        let round = |scale: f64, disturbed| {
            [
                sample(&[2.0 * scale], disturbed),
                sample(&[2.2 * scale, 2.6 * scale], false),
                sample(&[2.0 * scale, 4.0 * scale], false),
            ]
        };
        let outcome = outcome(
            &plan(),
            Machine::default(),
            &[round(1.0, false), round(2.0, false), round(9.0, true)],
        );
        assert!((outcome.two_to_one.median - 1.2).abs() < 1e-9, "{outcome:?}");
        assert!((outcome.two_to_apart.max - 0.8).abs() < 1e-9, "{outcome:?}");
        assert_eq!((outcome.rows.len(), outcome.disturbed_rounds), (5, 1));
        let cores: Vec<_> = outcome.rows.iter().map(|row| row.core).collect();
        assert_eq!(cores, [4, 4, 7, 4, 7]);
        let text = text(&outcome);
        assert!(text.contains("to one: 1.200") && text.contains("1 rounds disturbed"), "{text}");
    }
}
