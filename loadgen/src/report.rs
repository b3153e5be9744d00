//! What a run found: one object for machines, one page for people, and the verdict.

use std::io::{self, Write};
use std::time::Duration;

use kcp_core::Stats;
use serde::Serialize;

use crate::check::Verdict;
use crate::host::Host;
use crate::meter::{Counts, Quantiles};
use crate::scenario::Upstream;

/// Everything a run found. Serialised, it is the JSON report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Sessions asked for.
    pub sessions: u64,
    /// The measured time.
    pub duration_s: f64,
    /// What was counted over the whole run, ramp and warm-up included.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages whose echo never came, neither intact nor damaged.
    pub lost: u64,
    /// Echoes per second in the measured time.
    pub messages_per_s: f64,
    /// Their payload, one way, in millions of bytes per second.
    pub megabytes_per_s: f64,
    /// From the intended send time to the echo.
    pub latency_us: Quantiles,
    /// From the real send time to the echo.
    pub service_latency_us: Quantiles,
    /// From a session's due start to the acknowledgement of its first PUSH.
    pub connect_us: Quantiles,
    /// From the intended to the real send time: this process's own lateness, contained in `latency_us`.
    pub send_lag_us: Quantiles,
    /// What is told apart around a storm; `null` without bystanders and without a storm.
    pub around: Option<AroundReport>,
    /// What our side of the protocol did over the whole run; all zero for raw datagrams.
    pub kcp: KcpReport,
    /// How this process fared.
    pub generator: Generator,
    /// Processor seconds that the target's process used in the measured time; `null` unless it was named and could be read.
    pub target_cpu_s: Option<f64>,
    /// What was run, where, and by what.
    pub run: RunInfo,
    /// What became of each `--check`.
    pub checks: Vec<Verdict>,
    /// A signal ended the run early.
    pub interrupted: bool,
}

/// The bystanders' latencies, from the intended send time to the echo, and the newcomers' times to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct AroundReport {
    /// Sessions whose latencies these are.
    pub bystanders: u64,
    /// Sessions that were to vanish.
    pub vanish: u64,
    /// Sessions that were to come.
    pub arrive: u64,
    /// Of messages due before the storm; of all, when there was none.
    pub quiet_us: Quantiles,
    /// Of messages due in it: from its begin until its last newcomer was due, or to the end when there was none.
    pub storm_us: Quantiles,
    /// Of messages due after it.
    pub after_us: Quantiles,
    /// From a newcomer's due start to the acknowledgement of its first PUSH.
    pub newcomers_connect_us: Quantiles,
}

/// What our side of the protocol did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KcpReport {
    /// Segments sent for the first time.
    pub segments_sent: u64,
    /// Segments sent again because their timeout passed.
    pub resends_timeout: u64,
    /// Segments sent again because later ones were acknowledged.
    pub resends_fast: u64,
    /// Segments that had come before: the target's needless resends, the network's copies, and probes that ask whether the
    /// session is still there.
    pub duplicate_segments: u64,
}

impl KcpReport {
    /// Adds a worker's.
    pub(crate) fn add(&mut self, stats: &Stats) {
        self.segments_sent += stats.segments_sent;
        self.resends_timeout += stats.resends_timeout;
        self.resends_fast += stats.resends_fast;
        self.duplicate_segments += stats.pushes_duplicate;
    }
}

/// How the load generator itself fared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Generator {
    /// It could not keep up; the figures are then (also) its own, not the target's.
    pub saturated: bool,
    /// Why, and what to change.
    pub reasons: Vec<String>,
    /// Most memory this process ever had resident, in bytes; 0 where the kernel does not tell.
    pub resident_max_bytes: u64,
    /// The busiest worker's share of a core in the measured time, 0 to 1.
    pub client_core_busy: f64,
    /// Each worker.
    pub workers: Vec<WorkerReport>,
    /// What is worth knowing but no failure.
    pub notes: Vec<String>,
}

/// One worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerReport {
    /// Its number.
    pub worker: u32,
    /// The core it was pinned to.
    pub core: Option<usize>,
    /// Its sessions.
    pub sessions: u32,
    /// Share of the measured time it ran on a core; `null` where the kernel does not tell.
    pub busy: Option<f64>,
    /// Share of the measured time it was ready to run but another task had the core.
    pub starved: Option<f64>,
    /// Longest in the measured time that something had arrived at its sockets and was not taken in, in microseconds.
    pub behind_max_us: u64,
    /// Datagrams sent, whole run.
    pub tx_datagrams: u64,
    /// Their payload bytes.
    pub tx_bytes: u64,
    /// Datagrams received, whole run.
    pub rx_datagrams: u64,
    /// Their payload bytes.
    pub rx_bytes: u64,
    /// System calls of the driver that submitted or waited.
    pub enters: u64,
    /// Datagrams dropped at its sockets because it did not fetch them in time; those of a train that came whole count as one.
    pub rx_overflow: u64,
    /// Datagrams not sent because a socket's send buffer was full.
    pub tx_full: u64,
    /// Datagrams not sent for another reason.
    pub tx_errors: u64,
}

/// What was run, where, and by what.
#[derive(Clone, Debug, Serialize)]
pub struct RunInfo {
    /// Of this program.
    pub version: &'static str,
    /// The commit it was built from.
    pub commit: &'static str,
    /// The command line.
    pub command: String,
    /// What makes the run repeatable.
    pub seed: u64,
    /// Where the sessions went.
    pub target: String,
    /// `kcp` or `raw`.
    pub protocol: &'static str,
    /// What was expected to come back.
    pub upstream: Upstream,
    /// Bytes per message.
    pub size: usize,
    /// Sockets used.
    pub sockets: u32,
    /// `uring` or `epoll`.
    pub driver: &'static str,
    /// Why that one.
    pub driver_reason: String,
    /// The machine.
    #[serde(flatten)]
    pub host: Host,
}

impl Report {
    /// What makes the run a failure whatever was checked, one line each. Empty = the run is sound.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let Counts {
            established,
            newcomers,
            sent,
            duplicated,
            reordered,
            corrupted,
            dead_sessions,
            ..
        } = self.counts;
        let mut lines = Vec::new();
        if established < self.sessions {
            lines.push(format!(
                "{} of {} sessions were not established",
                self.sessions - established,
                self.sessions
            ));
        }
        for (count, what) in [
            (self.lost, "messages were lost"),
            (duplicated, "messages came twice"),
            (reordered, "messages came out of order"),
            (corrupted, "messages came damaged"),
        ] {
            if count > 0 {
                lines.push(format!("{count} of {sent} {what}"));
            }
        }
        let arrive = self.around.map_or(0, |around| around.arrive);
        if newcomers < arrive {
            lines
                .push(format!("{} of {arrive} newcomers were not established", arrive - newcomers));
        }
        if dead_sessions > 0 {
            lines.push(format!("{dead_sessions} sessions died: the target stopped answering them"));
        }
        if self.interrupted {
            lines.push("interrupted: the figures cover the time until then".to_owned());
        }
        lines
    }

    /// 0, 1 when the run failed, 3 when it is sound and a check is not met.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if !self.failures().is_empty() {
            1
        } else if self.checks.iter().any(|check| !check.ok) {
            3
        } else {
            0
        }
    }

    /// The JSON report, one object.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// The page for people.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let RunInfo { host, .. } = &self.run;
        let counts = &self.counts;
        writeln!(out)?;
        writeln!(
            out,
            "target      {} ({}, {} bytes per message{})",
            self.run.target,
            self.run.protocol,
            self.run.size,
            match self.run.upstream {
                Upstream::Echo => "",
                Upstream::Stream => ", back as a byte stream",
                Upstream::Rooms => ", to rooms",
            }
        )?;
        writeln!(
            out,
            "sessions    {} of {} established, {} sockets",
            counts.established, self.sessions, self.run.sockets
        )?;
        writeln!(
            out,
            "messages    {} sent, {} received, {} lost (of {} sessions), {} duplicated, {} reordered, {} corrupted",
            counts.sent,
            counts.received,
            self.lost,
            self.counts.lossy_sessions,
            counts.duplicated,
            counts.reordered,
            counts.corrupted
        )?;
        writeln!(
            out,
            "rate        {:.0} messages/s, {:.2} MB/s each way, over {:.1} s",
            self.messages_per_s, self.megabytes_per_s, self.duration_s
        )?;
        writeln!(out)?;
        writeln!(
            out,
            "{:<20}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        )?;
        for (name, quantiles) in [
            ("latency (intended)", &self.latency_us),
            ("latency (service)", &self.service_latency_us),
            ("connect", &self.connect_us),
            ("send lag (ours)", &self.send_lag_us),
        ] {
            write_quantiles(out, name, quantiles)?;
        }
        if let Some(around) = &self.around {
            for (name, quantiles) in [
                ("bystanders, quiet", &around.quiet_us),
                ("bystanders, storm", &around.storm_us),
                ("bystanders, after", &around.after_us),
                ("newcomers connect", &around.newcomers_connect_us),
            ] {
                write_quantiles(out, name, quantiles)?;
            }
        }
        writeln!(out)?;
        if self.around.is_some_and(|around| around.vanish + around.arrive > 0) {
            let Counts { vanished, abandoned, newcomers, .. } = counts;
            writeln!(
                out,
                "storm       {vanished} vanished with {abandoned} messages on the way, {newcomers} newcomers established"
            )?;
        }
        if self.generator.resident_max_bytes > 0 {
            let bytes = self.generator.resident_max_bytes;
            let each = bytes / counts.established.max(1);
            writeln!(
                out,
                "memory      {:.1} MB resident at most, {each} bytes per session",
                bytes as f64 / 1e6
            )?;
        }
        if self.run.protocol == "kcp" {
            let KcpReport { segments_sent, resends_timeout, resends_fast, duplicate_segments } =
                self.kcp;
            writeln!(
                out,
                "segments    {segments_sent} sent, {resends_timeout} again after a timeout, {resends_fast} again fast, \
                 {duplicate_segments} received twice"
            )?;
        }
        for worker in &self.generator.workers {
            write_worker(out, worker)?;
        }
        writeln!(out, "driver      {} ({})", self.run.driver, self.run.driver_reason)?;
        writeln!(out, "machine     {}, {} cores, {}", host.cpu, host.cores, host.kernel)?;
        writeln!(out, "built from  {} ({})", self.run.version, self.run.commit)?;
        writeln!(out, "command     {}", self.run.command)?;
        writeln!(out, "seed        {}", self.run.seed)?;
        writeln!(out)?;
        self.write_verdict(out)
    }

    fn write_verdict(&self, out: &mut impl Write) -> io::Result<()> {
        for note in &self.generator.notes {
            writeln!(out, "note        {note}")?;
        }
        for reason in &self.generator.reasons {
            writeln!(out, "SATURATED   the load generator, not the target: {reason}")?;
        }
        for verdict in &self.checks {
            let word = if verdict.ok { "check ok   " } else { "CHECK FAILS" };
            writeln!(out, "{word} {} (measured {})", verdict.check, verdict.measured)?;
        }
        let failures = self.failures();
        for failure in &failures {
            writeln!(out, "FAILED      {failure}")?;
        }
        if failures.is_empty() {
            writeln!(out, "ok          {}", self.what_is_sound())?;
        }
        Ok(())
    }

    /// What was verified, and what could not be.
    fn what_is_sound(&self) -> String {
        match self.run.upstream {
            Upstream::Stream => "every byte came back once, in order and intact (messages are not told apart on the way)".into(),
            Upstream::Rooms => format!(
                "every message came back to its sender once, in order and intact, and so did {} of others (whether each member \
                 heard each is not verified)",
                self.counts.heard
            ),
            Upstream::Echo => "every message came back once, in order and intact".into(),
        }
    }
}

fn write_quantiles(out: &mut impl Write, name: &str, quantiles: &Quantiles) -> io::Result<()> {
    write!(out, "{name:<20}")?;
    if quantiles.samples == 0 {
        return writeln!(out, "{:>10}", "no samples");
    }
    let Quantiles { p50, p90, p99, p999, p9999, max, .. } = *quantiles;
    for value in [p50, p90, p99, p999, p9999, max] {
        write!(out, "{:>10}", human(value))?;
    }
    writeln!(out)
}

fn write_worker(out: &mut impl Write, worker: &WorkerReport) -> io::Result<()> {
    write!(out, "worker {:<5}", worker.worker)?;
    if let Some(core) = worker.core {
        write!(out, "on core {core}, ")?;
    }
    if let (Some(busy), Some(starved)) = (worker.busy, worker.starved) {
        write!(out, "{:.0} % busy, {:.0} % waiting for a core, ", busy * 100.0, starved * 100.0)?;
    }
    writeln!(
        out,
        "{} datagrams out, {} in, {} system calls",
        worker.tx_datagrams, worker.rx_datagrams, worker.enters
    )
}

/// Microseconds in three digits and the unit that suits.
#[must_use]
pub fn human(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Share of `whole` that `part` is; 0 when there is no whole.
pub(crate) fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

#[cfg(test)]
pub(crate) mod tests;
