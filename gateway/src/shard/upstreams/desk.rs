//! Which backend a session gets, what is counted of it, and what the control plane is told.

use crossbeam::channel::Sender;
use kcp_core::{Conv, Millis};

use super::super::backend_stats::{BackendStat, BackendStats, ConnectFailure, Parting};
use super::super::mailbox::SharedBackends;
use super::waiting::{Waiting, WaitingList};
use super::yamux::Links;
use crate::control::command::{Report, ShardReport};
use crate::session::SessionId;
use crate::upstream::backend::{BACKENDS_MAX, Backend, BackendId, Kind};
use crate::upstream::route::{Candidate, Router};

/// The choice of backends, and the books about them.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) backends: SharedBackends,
    router: Router,
    /// The backends as the router sees them, in the order of the list.
    candidates: Vec<Candidate>,
    /// Sessions that each backend was given, for spreading them over its addresses; wrapping.
    turns: [u32; BACKENDS_MAX],
    pub(super) stats: BackendStats,
    pub(super) reports: Reports,
    pub(super) waiting: WaitingList,
    /// The one of them that tries again now.
    pub(super) trying: Option<Waiting>,
    /// The session whose backend tries again to be heard, as long as it was not.
    pub(super) resuming: Option<SessionId>,
}

impl Desk {
    pub(super) fn new(
        backends: SharedBackends,
        shard: u32,
        reports: Sender<ShardReport>,
        now: Millis,
    ) -> Self {
        let mut desk = Self {
            router: Router::new(backends.policy, shard as usize),
            candidates: Vec::new(),
            turns: [shard; BACKENDS_MAX],
            stats: BackendStats::default(),
            reports: Reports { shard, sender: reports, news: u64::MAX, lost: 0 },
            waiting: WaitingList::new(now),
            trying: None,
            resuming: None,
            backends,
        };
        desk.list_candidates();
        desk
    }

    /// Takes over another list.
    pub(super) fn replace(&mut self, backends: SharedBackends, now: Millis) {
        if backends.policy == self.backends.policy {
            self.router.reset();
        } else {
            self.router = Router::new(backends.policy, self.reports.shard as usize);
        }
        self.backends = backends;
        self.reports.news = u64::MAX;
        self.list_candidates();
        self.waiting.hurry(now);
    }

    fn list_candidates(&mut self) {
        let candidate = |backend: &Backend| Candidate {
            usable: backend.takes_sessions(),
            weight: backend.weight,
            sessions: 0,
            key: backend.key,
        };
        self.candidates.clear();
        self.candidates.extend(self.backends.list.iter().map(candidate));
    }

    /// The place in the list of the backend for a new session.
    pub(super) fn choose(&mut self, conv: Conv, links: &Links) -> Option<usize> {
        for (candidate, backend) in self.candidates.iter_mut().zip(&self.backends.list) {
            let sessions = self.stats.of(backend.id).get(BackendStat::Sessions);
            candidate.sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
            candidate.usable = backend.takes_sessions()
                && match backend.kind {
                    Kind::Tcp(_) => !backend.addresses.is_empty(),
                    Kind::Yamux(_) => links.has_open(backend.id),
                    Kind::Nats => false,
                };
        }
        self.router.choose(&self.candidates, conv)
    }

    /// Until when a session may look for a backend: it keeps its time if it has been looking.
    pub(super) fn until(&self, now: Millis, session: SessionId) -> Millis {
        let before = self.trying.filter(|trying| trying.session == session);
        before.map_or_else(|| now.add(self.backends.wait_ms), |trying| trying.until)
    }

    /// The number of a backend's next session.
    pub(super) fn turn(&mut self, backend: BackendId) -> u32 {
        let turn = &mut self.turns[backend.index()];
        *turn = turn.wrapping_add(1);
        *turn
    }

    /// A session got this backend.
    pub(super) fn took(&mut self, backend: BackendId) {
        self.stats.add(backend, BackendStat::Sessions, 1);
        self.stats.add(backend, BackendStat::SessionsAssigned, 1);
    }

    /// A session has it no more.
    pub(super) fn left(&mut self, backend: BackendId, how: Parting) {
        self.stats.lower(backend, BackendStat::Sessions);
        self.stats.parting(backend, how);
    }

    /// A session's backend has to wait: counted once, however often it tries again before anything is heard of it.
    pub(super) fn waits_for_client(&mut self, backend: BackendId, session: SessionId) {
        if self.resuming != Some(session) {
            self.stats.add(backend, BackendStat::WaitedForClient, 1);
        }
    }

    /// A session's connection was made.
    pub(super) fn connected(&mut self, backend: BackendId) {
        self.stats.add(backend, BackendStat::Connects, 1);
        self.reports.connected(backend);
    }

    /// A session's connection may not be begun yet: counted once, however often it tries again.
    pub(super) fn put_off(&mut self, backend: BackendId, session: SessionId) {
        if self.trying.is_none_or(|trying| trying.session != session) {
            self.stats.failure(backend, ConnectFailure::Limit);
        }
    }

    /// A session's connection could not be made.
    pub(super) fn failed(&mut self, backend: BackendId, why: ConnectFailure) {
        self.stats.failure(backend, why);
        self.reports.news |= 1 << backend.index();
        self.reports.send(backend, Report::Failed(why));
    }
}

/// The way back to the control plane.
#[derive(Debug)]
pub(super) struct Reports {
    shard: u32,
    sender: Sender<ShardReport>,
    /// Backends of which a success is news, a bit for each.
    news: u64,
    lost: u64,
}

impl Reports {
    /// Reports that the queue had no room for.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    fn connected(&mut self, backend: BackendId) {
        let bit = 1 << backend.index();
        if self.news & bit != 0 {
            self.news &= !bit;
            self.send(backend, Report::Connected);
        }
    }

    /// Sends a report if there is room for it.
    pub(super) fn send(&mut self, backend: BackendId, what: Report) {
        let report = ShardReport { shard: self.shard, backend, what };
        self.lost += u64::from(self.sender.try_send(report).is_err());
    }
}
