//! Whether a backend gets new sessions: active checks, what sessions meet on the way, and the operator's word, in one state.

use net_io::Now;

use super::backoff::Backoff;

/// What a backend's health is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// Active checks; `None` believes a backend to be up until sessions meet failures.
    pub check: Option<CheckConfig>,
    /// Failures in a row, met by sessions, that eject a backend; 0 never ejects (default 5).
    pub eject_after: u32,
    /// How long the first ejection lasts at most, in milliseconds; each further one twice as long (default 1,000).
    pub eject_base_ms: u32,
    /// How long an ejection lasts at most, in milliseconds (default 60,000).
    pub eject_max_ms: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            check: Some(CheckConfig::default()),
            eject_after: 5,
            eject_base_ms: 1000,
            eject_max_ms: 60_000,
        }
    }
}

/// How a backend is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// From one check to the next, in milliseconds (default 2,000); of a backend that is down, the first step of a back-off.
    pub interval_ms: u32,
    /// The longest pause between two checks of a backend that stays down, in milliseconds (default 30,000).
    pub interval_max_ms: u32,
    /// A check without an answer for this long has failed, in milliseconds (default 1,000).
    pub timeout_ms: u32,
    /// Good checks in a row that bring a backend up; at least 1 (default 1).
    pub rise: u32,
    /// Bad checks in a row that take it down; at least 1 (default 3).
    pub fall: u32,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self { interval_ms: 2000, interval_max_ms: 30_000, timeout_ms: 1000, rise: 1, fall: 3 }
    }
}

/// What a backend gets. Only [`State::Up`] gets new sessions; in every state those it has run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// New sessions.
    Up,
    /// Nothing: its checks fail, or none has passed yet.
    Down,
    /// Nothing before this instant: its checks may pass, but sessions do not get through.
    Ejected {
        /// When it gets its next chance.
        until: Now,
    },
    /// Nothing: the operator is emptying it.
    Draining,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a check; its result is expected by [`Health::on_check`].
    Check,
    /// The check under way has had its time: abandon it. It has been counted as failed.
    AbandonCheck,
}

/// One backend's health. Driven by the four `on_*` inputs and the operator's [`drain`](Health::drain); after each, and at
/// [`poll_timeout`](Health::poll_timeout), call [`handle_timeout`](Health::handle_timeout) until `None`.
#[derive(Clone, Debug)]
pub struct Health {
    config: HealthConfig,
    checks: Checks,
    ejection: Ejection,
    draining: bool,
}

/// What active checks say.
#[derive(Clone, Debug)]
struct Checks {
    up: bool,
    /// Results in a row that speak against `up`.
    against: u32,
    next: Next,
    pause: Backoff,
}

/// What the checks wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// There are no checks.
    Never,
    /// The next one begins then.
    Begin(Now),
    /// The one under way fails then.
    Deadline(Now),
}

/// What sessions met.
#[derive(Clone, Debug)]
struct Ejection {
    failures: u32,
    until: Option<Now>,
    /// It was ejected and no session has got through since: one more failure ejects it again.
    on_trial: bool,
    term: Backoff,
}

impl Health {
    /// A backend's health at its beginning: down until a check passes, or up where there are no checks. `seed` draws the
    /// jitter.
    #[must_use]
    pub fn new(now: Now, config: HealthConfig, seed: u64) -> Self {
        let check = config.check.unwrap_or_default();
        Self {
            checks: Checks {
                up: config.check.is_none(),
                against: 0,
                next: config.check.map_or(Next::Never, |_| Next::Begin(now)),
                pause: Backoff::new(check.interval_ms, check.interval_max_ms, seed),
            },
            ejection: Ejection {
                failures: 0,
                until: None,
                on_trial: false,
                term: Backoff::new(config.eject_base_ms, config.eject_max_ms, !seed),
            },
            config,
            draining: false,
        }
    }

    /// Judges by `config` from now on. What is known of the backend stays: it is not down because its checks are others.
    pub fn reconfigure(&mut self, now: Now, config: HealthConfig, seed: u64) {
        if config == self.config {
            return;
        }
        let Self { checks, ejection, .. } = Self::new(now, config, seed);
        match (self.checks.next, checks.next) {
            (_, Next::Never) => self.checks = checks,
            // Its result still counts; the next one begins by the new rules.
            (Next::Deadline(_), _) => self.checks.pause = checks.pause,
            (Next::Never | Next::Begin(_), next) => {
                (self.checks.next, self.checks.pause) = (next, checks.pause);
            }
        }
        if config.eject_after == 0 {
            self.ejection = ejection;
        } else {
            self.ejection.term = ejection.term;
        }
        self.config = config;
    }

    /// What the backend gets now.
    #[must_use]
    pub const fn state(&self) -> State {
        if self.draining {
            State::Draining
        } else if !self.checks.up {
            State::Down
        } else if let Some(until) = self.ejection.until {
            State::Ejected { until }
        } else {
            State::Up
        }
    }

    /// The result of the check under way. Ignored when none is: it was abandoned. Tells whether it counted.
    pub fn on_check(&mut self, now: Now, passed: bool) -> bool {
        let is_expected = matches!(self.checks.next, Next::Deadline(_));
        if is_expected {
            self.conclude(now, passed);
        }
        is_expected
    }

    /// A session, or a link for many, could not be connected or was cut by a broken protocol.
    ///
    /// Not for a session that the backend resets: a client could then eject a backend by making it refuse what the client
    /// sends. A connection that was never made is beyond any client's reach.
    pub fn on_failure(&mut self, now: Now) {
        let ejection = &mut self.ejection;
        if self.config.eject_after == 0 || ejection.until.is_some() {
            return; // those that fail while it is ejected set out before
        }
        ejection.failures = ejection.failures.saturating_add(1);
        if ejection.on_trial || ejection.failures >= self.config.eject_after {
            ejection.until = Some(now.add_ms(ejection.term.next_ms()));
            ejection.failures = 0;
        }
    }

    /// A session, or a link for many, was connected.
    pub const fn on_success(&mut self) {
        if self.ejection.until.is_none() {
            self.ejection.failures = 0;
            self.ejection.on_trial = false;
            self.ejection.term.reset();
        }
    }

    /// New sessions go elsewhere until [`Health::undrain`]; those the backend has run on. Checks go on.
    pub const fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends [`Health::drain`].
    pub const fn undrain(&mut self) {
        self.draining = false;
    }

    /// When to call [`Health::handle_timeout`] next; `None` when nothing will happen by itself.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        let check = match self.checks.next {
            Next::Never => None,
            Next::Begin(at) | Next::Deadline(at) => Some(at),
        };
        match (check, self.ejection.until) {
            (Some(check), Some(until)) => Some(check.min(until)),
            (check, until) => check.or(until),
        }
    }

    /// Does what is due by `now` and says what its owner has to do, until `None`.
    pub fn handle_timeout(&mut self, now: Now) -> Option<Action> {
        if self.ejection.until.is_some_and(|until| until <= now) {
            self.ejection.until = None;
            self.ejection.on_trial = true;
        }
        match self.checks.next {
            Next::Begin(at) if at <= now => {
                let timeout_ms = self.config.check?.timeout_ms.max(1);
                self.checks.next = Next::Deadline(now.add_ms(timeout_ms));
                Some(Action::Check)
            }
            Next::Deadline(at) if at <= now => {
                self.conclude(now, false);
                Some(Action::AbandonCheck)
            }
            Next::Never | Next::Begin(_) | Next::Deadline(_) => None,
        }
    }

    fn conclude(&mut self, now: Now, passed: bool) {
        let Some(config) = self.config.check else { return };
        let checks = &mut self.checks;
        if passed == checks.up {
            checks.against = 0;
        } else {
            checks.against += 1;
            if checks.against >= if passed { config.rise } else { config.fall } {
                checks.up = passed;
                checks.against = 0;
            }
        }
        if checks.up || passed {
            checks.pause.reset();
        }
        checks.next = Next::Begin(now.add_ms(checks.pause.next_ms()));
    }
}

#[cfg(test)]
mod tests;
