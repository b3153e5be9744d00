//! Twenty reloads and a drain while thousands of sessions play: does anything get lost?
//!
//! A gateway serves a load of the load generator. Its configuration file is changed, and reloaded by signal and by API in turn, with
//! files among the changes that must be refused. Then it drains under the same load: newcomers are turned away, whoever is there plays to
//! the end. A shorter idle timeout, reloaded in the middle of the drain, ends the silent sessions, and a TERM the process.

use std::fs;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use crossbeam::channel::after;
use serde_json::Value;

use crate::child::{Gateway, Process, segment};

/// How it is tried.
#[derive(Debug)]
pub struct Reloads {
    /// Where `kcp-gateway` and `kcp-loadgen` are.
    pub programs: PathBuf,
    /// Sessions that play.
    pub sessions: u32,
    /// Messages per second of each.
    pub rate: u32,
    /// How long they play.
    pub time: Duration,
}

/// What is written into the file, and what has to come of it.
struct Step {
    what: &'static str,
    text: String,
    outcome: &'static str,
}

/// Reloads that change something.
const CHANGES: usize = 20;
/// After so many of them, a file that must be refused.
const WRONG_EVERY: usize = 4;
/// What newcomers are told.
const FAREWELL: &[u8] = b"this gateway drains";

impl Reloads {
    /// Does it, and prints each step and what the load said.
    ///
    /// # Errors
    /// Anything was lost, refused that should not be, or taken that should not be.
    pub fn run(&self) -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("gateway.toml");
        fs::write(&file, text(0))?;
        let mut command = Command::new(self.programs.join("kcp-gateway"));
        command.env("KCP_GATEWAY_CONFIG", &file);
        let mut gateway = Gateway::start(&mut command)?;
        let report = dir.path().join("load.json");
        let mut load = self.load(&gateway, &report)?;
        settled(&gateway, self.sessions)?;
        say(&format!("{} sessions play {} messages a second each", self.sessions, self.rate))?;

        let steps = steps();
        // A fifth of the time is for the drain.
        let pause = self.time.mul_f64(0.8) / u32::try_from(steps.len())?;
        for (number, step) in steps.iter().enumerate() {
            reload(&gateway, &file, step, number)?;
            let _ = after(pause).recv();
        }
        self.drain(&gateway)?;

        ensure!(load.ends_within(self.time + PATIENCE)?.is_some(), "the load does not end");
        let report: Value = serde_json::from_str(&fs::read_to_string(&report)?)?;
        let lost = self.lost(&report)?;
        part(&mut gateway, &file, steps.len(), self.sessions)?;
        ensure!(!lost, "something was lost");
        say("nothing was lost")
    }

    fn load(&self, gateway: &Gateway, report: &Path) -> anyhow::Result<Process> {
        let mut load = Command::new(self.programs.join("kcp-loadgen"));
        let (sessions, rate) = (self.sessions.to_string(), self.rate.to_string());
        let seconds = format!("{}s", self.time.as_secs());
        load.args(["run", "--target", &gateway.listener.to_string(), "--progress", "off"]);
        load.args(["--sessions", &sessions, "--rate", &rate, "--duration", &seconds]);
        load.args(["--drain", "30s"]).arg("--json").arg(report);
        Process::start(&mut load)
    }

    /// Newcomers are told to go, and everybody else stays.
    fn drain(&self, gateway: &Gateway) -> anyhow::Result<()> {
        gateway.post("/api/v1/drain")?;
        let status = status(gateway)?;
        ensure!(status["state"] == "drain" && status["ready"] == false, "it does not drain");
        let left = status["drain"]["sessions_left"].as_u64();
        ensure!(left == Some(self.sessions.into()), "{left:?} sessions are left");
        let told = newcomer(gateway)?;
        ensure!(told == FAREWELL, "a newcomer is told {:?}", String::from_utf8_lossy(&told));
        say("drains; a newcomer is told so, and everybody else plays on")
    }

    /// Prints what the load counted; tells whether anything is missing.
    fn lost(&self, report: &Value) -> anyhow::Result<bool> {
        let count = |name: &str| report[name].as_u64().with_context(|| format!("no {name}"));
        if report["generator"]["saturated"] == true {
            say(
                "the load generator did not keep up: what it misses may be its own; take a quieter machine",
            )?;
        }
        let mut lost = count("established")? != u64::from(self.sessions);
        let latency = &report["latency_us"];
        say(&format!(
            "{} of {} sessions, {} messages sent, {} came back; p50 {} us, p99 {} us, longest {} us",
            count("established")?,
            self.sessions,
            count("sent")?,
            count("received")?,
            latency["p50"],
            latency["p99"],
            latency["max"]
        ))?;
        lost |= count("sent")? == 0 || count("sent")? != count("received")?;
        for name in ["lost", "duplicated", "reordered", "corrupted"] {
            let n = count(name)?;
            say(&format!("  {name}: {n}"))?;
            lost |= n != 0;
        }
        Ok(lost)
    }
}

/// The file after so many changes: each changes what is there for live sessions and for new ones.
fn text(n: usize) -> String {
    format!(
        "[session]\nidle_timeout_s = {}\nkeepalive_s = {}\nqueue_bytes_max = {}\n\
         [kcp]\ninterval_ms = {}\nresend = {}\nsnd_wnd = {}\nrcv_wnd = {}\n\
         [drain]\ntimeout_s = 60\nfarewell = \"{}\"\n",
        300 + n,
        60 + n,
        (256 << 10) + (n << 10),
        10 + 5 * (n % 4),
        2 + n % 3,
        256 - 8 * (n % 8),
        256 + 8 * (n % 8),
        String::from_utf8_lossy(FAREWELL),
    )
}

fn steps() -> Vec<Step> {
    let wrong = [
        ("a file that is no TOML", "[session\n".to_owned(), "broken"),
        ("a key that does not exist", format!("{}[io]\nbufers = 1\n", text(1)), "broken"),
        ("a value out of range", "[session]\nidle_timeout_s = 0\n".to_owned(), "broken"),
        ("a key that needs a restart", format!("{}[io]\nbuffers = 512\n", text(1)), "refused"),
        ("a value of another type", "[drain]\nfarewell = 7\n".into(), "broken"),
    ];
    let mut wrong = wrong.into_iter().cycle();
    let mut steps = Vec::new();
    for n in 1..=CHANGES {
        steps.push(Step { what: "seven keys change", text: text(n), outcome: "applied" });
        if n % WRONG_EVERY == 0
            && let Some((what, text, outcome)) = wrong.next()
        {
            steps.push(Step { what, text, outcome });
        }
    }
    steps
}

/// Writes the file and has it read, by signal and by API in turn; waits for what comes of it.
fn reload(gateway: &Gateway, file: &Path, step: &Step, number: usize) -> anyhow::Result<()> {
    let before = status(gateway)?["reloads"].clone();
    fs::write(file, &step.text)?;
    let how = if number.is_multiple_of(2) {
        gateway.process.signal("HUP")?;
        "HUP"
    } else {
        gateway.post_whatever("/api/v1/reload")?;
        "API"
    };
    for _ in 0..LOOKS {
        let now = status(gateway)?["reloads"].clone();
        if now == before {
            let _ = after(LOOK).recv();
            continue;
        }
        let came =
            ["applied", "refused", "broken", "failed"].iter().find(|o| now[**o] != before[**o]);
        let changed = now["generation"] != before["generation"];
        ensure!(came == Some(&step.outcome), "{}: {came:?}: {now}", step.what);
        ensure!(changed == (step.outcome == "applied"), "{}: {now}", step.what);
        return say(&format!("{:>2} {how}: {}: {}", number + 1, step.what, step.outcome));
    }
    bail!("{}: nothing comes of it", step.what)
}

/// A shorter idle timeout ends who is silent now, and a TERM the process, which has nobody left to wait for.
fn part(gateway: &mut Gateway, file: &Path, number: usize, sessions: u32) -> anyhow::Result<()> {
    let text = "[session]\nidle_timeout_s = 5\nkeepalive_s = 0\n".into();
    let step = Step { what: "who is silent for 5 s ends", text, outcome: "applied" };
    reload(gateway, file, &step, number)?;
    settled(gateway, 0)?;
    let ends = sessions_ended(gateway)?;
    say(&format!("sessions ended: {ends}"))?;
    ensure!(ends == format!("{sessions} idle"), "others than the silent ended");
    gateway.process.signal("TERM")?;
    let status = gateway.process.ends_within(STOP)?.context("it does not stop")?;
    ensure!(status.success(), "it ended with {status}");
    say("TERM: stopped")
}

/// How many sessions ended for each reason.
fn sessions_ended(gateway: &Gateway) -> anyhow::Result<String> {
    let metrics = gateway.get("/metrics")?;
    let mut ends = std::collections::BTreeMap::<String, f64>::new();
    for line in metrics.lines().filter(|line| line.starts_with("kcp_gateway_sessions_ended_total{"))
    {
        let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count: f64 = line.rsplit(' ').next().context("no value")?.parse()?;
        *ends.entry(reason.context("no reason")?.to_owned()).or_default() += count;
    }
    let ends = ends.iter().filter(|(_, count)| **count > 0.0);
    Ok(ends.map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", "))
}

/// Waits until so many sessions live.
fn settled(gateway: &Gateway, sessions: u32) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        if status(gateway)?["sessions"].as_u64() == Some(sessions.into()) {
            return Ok(());
        }
        let _ = after(LOOK).recv();
    }
    bail!("it never had {sessions} sessions")
}

/// What a client hears that comes now: the payload of the first segment of the answer.
fn newcomer(gateway: &Gateway) -> anyhow::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&segment(0x600d_c0de, 0, 0, b"is anybody there?"), gateway.listener)?;
    let mut answer = [0; 1500];
    let len = socket.recv(&mut answer).context("a newcomer hears nothing")?;
    Ok(answer.get(HEADER..len).unwrap_or_default().to_vec())
}

fn status(gateway: &Gateway) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&gateway.get("/api/v1/status")?)?)
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Of a segment.
const HEADER: usize = 24;
/// How often something is looked at, and how many times at most.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 3_000;
/// For a process that has nothing left to do.
const STOP: Duration = Duration::from_secs(10);
/// For the load to say what it counted.
const PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_twenty_changes_something_and_wrong_files_come_between() {
        let (mut before, steps) = (text(0), steps());
        for step in steps.iter().filter(|step| step.outcome == "applied") {
            assert_ne!(step.text, before);
            before.clone_from(&step.text);
        }
        let wrong: Vec<_> =
            (1..).zip(&steps).filter(|(_, step)| step.outcome != "applied").collect();
        assert_eq!((steps.len(), wrong.len()), (CHANGES + 5, 5));
        assert_eq!(wrong.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [5, 10, 15, 20, 25]);
    }
}
