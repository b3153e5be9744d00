//! One address of a backend: its place in the shards' tables, its health, the links to it.

use std::sync::Arc;

use net_io::{Now, StreamAddr};

use super::links::Links;
use super::numbers::Numbers;
use crate::control::command::Report;
use crate::shard::backend_stats::{ConnectFailure, LinkEnd};
use crate::upstream::backend::{BackendId, Kind};
use crate::upstream::health::{Action as HealthAction, Health, State};

/// An address that sessions may have.
#[derive(Debug)]
pub(super) struct Member {
    /// Never given twice; what results of checks and connections are known by.
    pub(super) serial: u64,
    pub(super) id: BackendId,
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) health: Health,
    /// `yamux` only.
    pub(super) links: Option<Links>,
    pub(super) counts: Counts,
    /// What the shards had counted under this id before, for another one; `None` until somebody looked.
    pub(super) before: Option<Numbers>,
    /// When the last check or connection ended, and how.
    pub(super) last: Option<(Now, Result<(), String>)>,
    /// What a session met last.
    met: Option<&'static str>,
    ejected: bool,
    /// What was last said of it in the log; `None` while nothing was.
    said: Option<Standing>,
}

/// Where an address came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addr: StreamAddr,
    /// The record's share; 1 where there is none.
    pub(super) weight: u16,
    /// Only the lowest that is up gets sessions; 0 where there is none.
    pub(super) priority: u16,
}

/// What happened to an address so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Checks and links that worked.
    pub(super) passed: u64,
    /// Those that did not.
    pub(super) failed: u64,
    pub(super) ejections: u64,
}

/// What an address gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// New sessions.
    Up,
    /// None, while others of a better priority are up.
    Standby,
    /// None: it does not answer.
    Down,
    /// None for a while: sessions did not get through.
    Ejected,
    /// None: the operator empties it.
    Draining,
    /// None: it is not listed any more.
    Leaving,
}

impl Standing {
    /// Every one, in order.
    pub(crate) const ALL: [Self; 6] =
        [Self::Up, Self::Standby, Self::Down, Self::Ejected, Self::Draining, Self::Leaving];

    /// The name in the API, the log and the metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Standby => "standby",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        }
    }
}

impl Member {
    pub(super) fn new(
        (serial, id, name): (u64, BackendId, Arc<str>),
        place: Place,
        kind: Kind,
        health: Health,
        links: Option<Links>,
    ) -> Self {
        Self {
            serial,
            id,
            name,
            place,
            kind,
            health,
            links,
            counts: Counts::default(),
            before: None,
            last: None,
            met: None,
            ejected: false,
            said: None,
        }
    }

    /// What the shards counted for it, of what they counted under its id.
    pub(super) fn own(&self, numbers: Numbers) -> Numbers {
        match &self.before {
            Some(before) => numbers.since(before),
            None => numbers,
        }
    }

    /// Whether it may get sessions as far as itself is concerned.
    pub(super) fn is_up(&self) -> bool {
        self.health.state() == State::Up && self.links.as_ref().is_none_or(|l| l.live() > 0)
    }

    /// What it gets and why, in a group that is `drained` or not, of which others are `better`.
    pub(super) fn standing(&self, drained: bool, better: bool) -> (Standing, String) {
        if drained {
            return (Standing::Draining, "the operator empties it".into());
        }
        let error = match &self.last {
            Some((_, Err(error))) => Some(error.as_str()),
            Some((_, Ok(()))) | None => None,
        };
        match self.health.state() {
            State::Ejected { .. } => {
                let met = self.met.unwrap_or("connections fail");
                (Standing::Ejected, format!("sessions did not get through: {met}"))
            }
            State::Down => (Standing::Down, error.unwrap_or("not checked yet").into()),
            State::Up | State::Draining if !self.is_up() => {
                (Standing::Down, error.unwrap_or("no connection yet").into())
            }
            State::Up | State::Draining if better => {
                (Standing::Standby, "addresses of a better priority are up".into())
            }
            State::Up | State::Draining => (Standing::Up, String::new()),
        }
    }

    /// What it was until now, when the log is to say that it is `standing`. Of a new one nothing is said until it works, or a
    /// check or a connection has failed.
    pub(super) fn news(&mut self, standing: Standing) -> Option<&'static str> {
        let failed = matches!(self.last, Some((_, Err(_))));
        let unknown = self.said.is_none() && standing == Standing::Down && !failed;
        if unknown || self.said == Some(standing) {
            return None;
        }
        Some(self.said.replace(standing).map_or("new", Standing::label))
    }

    /// Does what is due; tells whether a check is to begin.
    pub(super) fn handle_timeout(&mut self, now: Now) -> bool {
        let mut check = false;
        while let Some(action) = self.health.handle_timeout(now) {
            match action {
                HealthAction::Check => check = true,
                HealthAction::AbandonCheck => {
                    self.note(now, Err("the check had no answer in time".into()));
                }
            }
        }
        self.ejected = matches!(self.health.state(), State::Ejected { .. });
        check
    }

    pub(super) fn poll_timeout(&self) -> Option<Now> {
        let links = self.links.as_ref().and_then(Links::poll_timeout);
        self.health.poll_timeout().into_iter().chain(links).min()
    }

    /// A check ended.
    pub(super) fn on_check(&mut self, now: Now, result: Result<(), String>) {
        // One that came too late has been counted as such.
        if self.health.on_check(now, result.is_ok()) {
            self.note(now, result);
        }
    }

    /// An attempt to make a link for `shard` ended; one that succeeded has been handed over.
    pub(super) fn on_link(&mut self, now: Now, shard: usize, result: Result<(), String>) {
        if let Some(links) = &mut self.links {
            match result {
                Ok(()) => links.on_handed(now, shard),
                Err(_) => links.on_failed(now, shard),
            }
        }
        self.note(now, result);
    }

    /// A shard tells.
    pub(super) fn on_report(&mut self, now: Now, shard: usize, report: Report) {
        match report {
            Report::Connected => self.health.on_success(),
            Report::Failed(reason) => self.on_failure(now, reason),
            Report::LinkUp => {}
            Report::LinkRefused(error) => self.on_link_end(now, shard, &error.to_string(), false),
            Report::LinkRetired(end) | Report::LinkLost(end) => {
                self.on_link_end(now, shard, end.label(), is_misbehaviour(end));
            }
        }
    }

    fn on_failure(&mut self, now: Now, reason: ConnectFailure) {
        match reason {
            // This host's own want says nothing of the backend.
            ConnectFailure::Limit | ConnectFailure::Files | ConnectFailure::Ports => {}
            ConnectFailure::Refused
            | ConnectFailure::Unreachable
            | ConnectFailure::Timeout
            | ConnectFailure::Other => {
                self.met = Some(reason.label());
                self.fail(now);
            }
        }
    }

    fn on_link_end(&mut self, now: Now, shard: usize, why: &str, misbehaved: bool) {
        let lasted = self.links.as_mut().is_some_and(|links| links.on_lost(now, shard));
        self.last = Some((now, Err(format!("a connection ended: {why}"))));
        if misbehaved {
            self.met = Some("broken protocol");
            self.fail(now);
        } else if lasted {
            self.health.on_success();
        }
    }

    fn fail(&mut self, now: Now) {
        self.health.on_failure(now);
        if matches!(self.health.state(), State::Ejected { .. }) && !self.ejected {
            self.ejected = true;
            self.counts.ejections += 1;
        }
    }

    fn note(&mut self, now: Now, result: Result<(), String>) {
        *if result.is_ok() { &mut self.counts.passed } else { &mut self.counts.failed } += 1;
        self.last = Some((now, result));
    }
}

/// What a backend may not do, as opposed to going away.
const fn is_misbehaviour(end: LinkEnd) -> bool {
    !matches!(
        end,
        LinkEnd::Eof
            | LinkEnd::EofMidFrame
            | LinkEnd::Reset
            | LinkEnd::GoAway
            | LinkEnd::Exhausted
            | LinkEnd::Unlisted
            | LinkEnd::Unusable
    )
}
