//! Progress while a run lasts: a bar on a terminal, one plain line a second in a pipe.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::live::Snapshot;
use crate::report::human;
use crate::timeline::Stage;

/// How progress is shown, always on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProgressMode {
    /// Not at all.
    #[default]
    Off,
    /// A bar when standard error is a terminal, lines when it is not.
    Auto,
    /// One line a second.
    Lines,
}

/// Draws one run.
#[derive(Debug)]
pub(crate) struct Progress {
    sessions: u64,
    planned: Duration,
    view: View,
    /// When the next line is due.
    next_line: Duration,
    last: Option<(Duration, u64)>,
}

#[derive(Debug)]
enum View {
    Off,
    Bar(ProgressBar),
    Lines,
}

impl View {
    /// How often the figures change: a line is read, a bar is glanced at.
    const fn every(&self) -> Duration {
        match self {
            Self::Off | Self::Lines => Duration::from_secs(1),
            Self::Bar(_) => Duration::from_millis(250),
        }
    }
}

impl Progress {
    pub(crate) fn new(mode: ProgressMode, sessions: u32, planned: Duration) -> Self {
        let view = match mode {
            ProgressMode::Off => View::Off,
            ProgressMode::Auto if io::stderr().is_terminal() => View::Bar(bar(planned)),
            ProgressMode::Auto | ProgressMode::Lines => View::Lines,
        };
        let next_line = Duration::ZERO;
        Self { sessions: u64::from(sessions), planned, view, next_line, last: None }
    }

    /// Shows `snapshot`, taken `elapsed` after the start.
    pub(crate) fn show(&mut self, elapsed: Duration, snapshot: &Snapshot) {
        let due = elapsed >= self.next_line;
        match &self.view {
            View::Off => {}
            View::Bar(bar) => {
                let position = elapsed.min(self.planned).as_millis();
                bar.set_position(u64::try_from(position).unwrap_or(u64::MAX));
                if due {
                    bar.set_message(self.line(elapsed, snapshot));
                }
            }
            View::Lines if due => {
                let line = self.line(elapsed, snapshot);
                // A closed pipe must not end the run.
                let _ = writeln!(io::stderr(), "{:>6.1}s {line}", elapsed.as_secs_f64());
            }
            View::Lines => {}
        }
        if due {
            self.last = Some((elapsed, snapshot.received));
            self.next_line = elapsed + self.view.every();
        }
    }

    pub(crate) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }

    fn line(&self, elapsed: Duration, snapshot: &Snapshot) -> String {
        let stage = match snapshot.stage {
            Stage::Ramp => "ramp",
            Stage::Warmup => "warm-up",
            Stage::Measure => "load",
            Stage::Drain | Stage::Done => "drain",
        };
        let Snapshot { established, sent, received, faults, late, p99_us, .. } = *snapshot;
        let (since, before) = self.last.unwrap_or((Duration::ZERO, 0));
        let seconds = (elapsed - since).as_secs_f64();
        let rate = if seconds > 0.0 { (received - before) as f64 / seconds } else { 0.0 };
        let p99 = if p99_us == 0 { "-".to_owned() } else { human(p99_us) };
        // The most telling first: a narrow terminal cuts the rest off.
        format!(
            "{stage:<7} {established}/{} sessions | {rate:.0} msg/s | p99 {p99} | {faults} faults, {late} late | {received} received, \
             {} on the way",
            self.sessions,
            sent.saturating_sub(received)
        )
    }
}

fn bar(planned: Duration) -> ProgressBar {
    let length = u64::try_from(planned.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    // The template is a constant: if it were wrong, the default style would be shown.
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:16}] {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_rate_since_the_last() {
        let mut progress = Progress::new(ProgressMode::Off, 10, Duration::from_secs(1));
        let mut snapshot = Snapshot {
            stage: Stage::Measure,
            established: 10,
            sent: 130,
            received: 100,
            faults: 0,
            late: 0,
            p99_us: 1234,
        };
        progress.show(Duration::from_secs(1), &snapshot);
        snapshot.received = 125;
        let line = progress.line(Duration::from_millis(1500), &snapshot);
        for part in ["load", "10/10 sessions", " 50 msg/s", "p99 1.23 ms", "5 on the way"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
