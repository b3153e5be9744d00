//! All backends and what is known of them, without I/O: facts in, what to do and the list for the shards out.
//!
//! After every `on_*`, `configure` or operator's word, and at [`Registry::poll_timeout`], call [`Registry::poll`], do what it
//! says, and publish [`Registry::list`] if it is another one than before.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use net_io::{Now, StreamAddr};

use super::group::{Group, LookupState};
use super::links::Links;
use super::member::{Member, Place, Standing};
use super::numbers::Numbers;
use crate::config::{Backend as Configured, BackendSettings, Carrier, Config, Target, Upstream};
use crate::control::command::ShardReport;
use crate::shard::backend_stats::BackendStat;
use crate::upstream::backend::{BACKENDS_MAX, Backend, BackendId, Backends};
use crate::upstream::backoff::{Backoff, mix};
use crate::upstream::framing::Codec;
use crate::upstream::health::Health;
use crate::upstream::route;

/// What is to be done, and whom to tell of it.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Connect and close again, for [`Registry::on_check`].
    Check { serial: u64, addr: StreamAddr, timeout_ms: u32 },
    /// Connect and hand the connection to the shard, for [`Registry::on_link`].
    Connect { serial: u64, id: BackendId, shard: usize, addr: StreamAddr, timeout_ms: u32 },
    /// Ask for the addresses of a target, for [`Registry::on_places`].
    Resolve { serial: u64, target: Target },
    /// Read the file of backends, for [`Registry::on_file`].
    Look { path: PathBuf, upstream: Arc<Upstream> },
}

/// The backends.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: usize,
    upstream: Arc<Upstream>,
    /// What every backend's sessions agree on, but for the framing.
    codec: Codec,
    pub(super) groups: Vec<Group>,
    /// Addresses that are not listed any more, until their last sessions have ended.
    pub(super) leaving: Vec<Leaving>,
    pub(super) file: File,
    used: [bool; BACKENDS_MAX],
    serials: u64,
    seed: u64,
    actions: VecDeque<Action>,
}

/// An address without a future.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) member: Member,
    pub(super) group: String,
    /// Every shard's turns when it had taken the list that lacks this address.
    turns: Option<Vec<u64>>,
}

/// The watched file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) backends: Vec<Configured>,
    /// Why it does not count at the moment.
    pub(super) error: Option<String>,
    pub(super) loads: u64,
    pub(super) failures: u64,
    /// `None` while it is being read, or there is none.
    next: Option<Now>,
}

/// What a shard says of itself now.
pub(crate) trait Shards {
    /// Whether shard `index` has taken every command.
    fn is_idle(&self, index: usize) -> bool;
    /// How often it has turned.
    fn turns(&self, index: usize) -> u64;
    /// Its gauge of `backend`.
    fn gauge(&self, index: usize, backend: BackendId, gauge: BackendStat) -> u64;
}

impl Registry {
    /// The backends of `config` for so many shards; nothing is known of them yet. `seed` draws the jitter.
    pub(crate) fn new(now: Now, config: &Config, shards: usize, seed: u64) -> Self {
        let mut registry = Self {
            shards,
            upstream: Arc::new(config.upstream.clone()),
            codec: codec(config),
            groups: Vec::new(),
            leaving: Vec::new(),
            file: File::default(),
            used: [false; BACKENDS_MAX],
            serials: 0,
            seed,
            actions: VecDeque::new(),
        };
        registry.configure(now, config);
        registry
    }

    /// Takes over another configuration.
    pub(crate) fn configure(&mut self, now: Now, config: &Config) {
        let upstream = Arc::new(config.upstream.clone());
        if upstream.discovery_file != self.upstream.discovery_file {
            self.file = File::default();
        }
        // Under other defaults, and beside other names, the same file may say something else.
        self.file.next = upstream.discovery_file.is_some().then_some(now);
        self.upstream = upstream;
        self.codec = codec(config);
        self.regroup(now);
    }

    /// Makes the groups those of configuration and file.
    fn regroup(&mut self, now: Now) {
        let mut old = std::mem::take(&mut self.groups);
        let upstream = Arc::clone(&self.upstream);
        let mut wanted = upstream.named();
        for found in self.file.backends.clone() {
            if !wanted.iter().any(|other| other.name == found.name) {
                wanted.push(found);
            }
        }
        for config in wanted {
            let settings = upstream.settings_of(&config).clone();
            let group = match old.iter().position(|group| group.is_same(&config, &settings)) {
                Some(index) => {
                    let mut group = old.swap_remove(index);
                    group.update(now, config, settings);
                    group
                }
                None => {
                    tracing::info!(backend = %config.name, url = %config.url, "a backend is listed");
                    let drained =
                        old.iter().any(|old| old.drained && old.config.name == config.name);
                    Group { drained, ..Group::new(now, self.serial(), config, settings) }
                }
            };
            self.groups.push(group);
        }
        for group in old {
            tracing::info!(backend = %group.config.name, "a backend is no longer listed; its sessions go on");
            for member in group.members {
                self.leave(member, &group.config.name);
            }
        }
        for index in 0..self.groups.len() {
            self.place(now, index);
        }
    }

    /// Makes a group's members those that its places want.
    fn place(&mut self, now: Now, index: usize) {
        let (shards, seed) = (self.shards, mix(self.seed ^ self.serials));
        let group = &mut self.groups[index];
        let kind = group.kind(self.codec);
        let carrier = group.config.url.carrier;
        let health = group.settings.to_health(carrier == Carrier::Tcp);
        let mut old = std::mem::take(&mut group.members);
        let name = group.config.name.clone();
        group.unplaced = 0;
        for place in group.places() {
            let same = |member: &Member| member.place.addr == place.addr;
            let found = old.iter().position(same).map(|at| old.swap_remove(at));
            // One that comes back before its last session has ended is the same as before.
            let found = found.or_else(|| {
                let at = self.leaving.iter().position(|l| {
                    l.group == name
                        && same(&l.member)
                        && l.member.kind.label() == kind.label()
                        && l.member.kind.codec().map(|c| c.framing)
                            == kind.codec().map(|c| c.framing)
                })?;
                Some(self.leaving.swap_remove(at).member)
            });
            let group = &mut self.groups[index];
            if let Some(mut member) = found {
                (member.place, member.kind) = (place, kind);
                member.health.reconfigure(now, health, seed);
                if let Some(links) = &mut member.links {
                    links.want(group.settings.links);
                }
                group.members.push(member);
                continue;
            }
            let Some(free) = self.used.iter().position(|used| !used) else {
                group.unplaced += 1;
                continue;
            };
            self.used[free] = true;
            self.serials += 1;
            let seed = mix(self.seed ^ self.serials);
            let settings = &group.settings;
            let pauses = (settings.check_interval_ms, settings.check_interval_max_ms);
            let links = (carrier == Carrier::Yamux)
                .then(|| Links::new(now, shards, settings.links, pauses, seed));
            let id = BackendId(u16::try_from(free).unwrap_or(u16::MAX));
            let name: Arc<str> = group.name_of(&place.addr).into();
            let health = Health::new(now, health, seed);
            group.members.push(Member::new((self.serials, id, name), place, kind, health, links));
        }
        let group = &self.groups[index];
        if group.unplaced > 0 {
            tracing::warn!(
                backend = %name, left_out = group.unplaced,
                "more than {BACKENDS_MAX} addresses of backends, those with last sessions included"
            );
        }
        for member in old {
            tracing::info!(backend = %member.name, "an address is no longer listed; its sessions go on");
            self.leave(member, &name);
        }
    }

    fn leave(&mut self, mut member: Member, group: &str) {
        if let Some(links) = &mut member.links {
            links.want(0);
        }
        self.leaving.push(Leaving { member, group: group.to_owned(), turns: None });
    }

    fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// Does what is due by `now` and returns what its owner has to do.
    pub(super) fn poll(&mut self, now: Now) -> Vec<Action> {
        if self.file.next.is_some_and(|next| next <= now)
            && let Some(path) = &self.upstream.discovery_file
        {
            self.file.next = None;
            let upstream = Arc::clone(&self.upstream);
            self.actions.push_back(Action::Look { path: path.clone(), upstream });
        }
        for group in &mut self.groups {
            for lookup in &mut group.lookups {
                if matches!(lookup.state, LookupState::Due(at) if at <= now) {
                    lookup.state = LookupState::Asked;
                    let target = lookup.target.clone();
                    self.actions.push_back(Action::Resolve { serial: group.serial, target });
                }
            }
            let timeout_ms = group.settings.check_timeout_ms;
            for member in &mut group.members {
                if member.handle_timeout(now) {
                    let (serial, addr) = (member.serial, member.place.addr.clone());
                    self.actions.push_back(Action::Check { serial, addr, timeout_ms });
                }
                let timeout_ms = group.settings.connect_ms;
                while let Some(shard) = member.links.as_mut().and_then(|links| links.due(now)) {
                    let (serial, id) = (member.serial, member.id);
                    let addr = member.place.addr.clone();
                    self.actions.push_back(Action::Connect { serial, id, shard, addr, timeout_ms });
                }
            }
        }
        self.say();
        self.actions.drain(..).collect()
    }

    /// When to call [`Registry::poll`] next.
    pub(super) fn poll_timeout(&self) -> Option<Now> {
        let lookups = self.groups.iter().flat_map(|g| &g.lookups).filter_map(|l| match l.state {
            LookupState::Due(at) => Some(at),
            LookupState::Fixed | LookupState::Asked => None,
        });
        let members = self.groups.iter().flat_map(|g| &g.members).filter_map(Member::poll_timeout);
        lookups.chain(members).chain(self.file.next).min()
    }

    /// The list for the shards.
    pub(crate) fn list(&self) -> Backends {
        let of_group = |group: &Group| -> Vec<Backend> {
            let best = group.best_priority();
            group.members.iter().map(|m| to_backend(group, m, best)).collect()
        };
        Backends {
            policy: self.upstream.policy,
            on_loss: self.upstream.on_loss,
            on_overflow: self.upstream.overflow,
            wait_ms: self.upstream.wait_ms,
            linger_ms: self.upstream.deliver_ms,
            list: self.groups.iter().flat_map(of_group).collect(),
        }
    }

    /// Why no new session would find a backend, or `None` when one would.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.list().list.iter().any(Backend::takes_sessions) {
            return None;
        }
        let mut why = Vec::new();
        for group in &self.groups {
            let name = &group.config.name;
            for error in group.lookups.iter().filter_map(|l| l.error.as_ref()) {
                why.push(format!("{name}: {error}"));
            }
            if group.members.is_empty() && why.is_empty() {
                why.push(format!("{name}: not resolved yet"));
            }
            for member in &group.members {
                let (standing, reason) = member.standing(group.drained, false);
                let reason = if standing == Standing::Up {
                    "its weight is 0".to_owned()
                } else {
                    format!("{}, {reason}", standing.label())
                };
                why.push(format!("{}: {reason}", member.name));
            }
        }
        why.extend(self.file.error.clone());
        if why.is_empty() {
            why.push("none is listed".into());
        }
        let more = why.len().saturating_sub(REASONS_SHOWN);
        why.truncate(REASONS_SHOWN);
        if more > 0 {
            why.push(format!("and {more} more"));
        }
        Some(format!("no backend takes sessions: {}", why.join("; ")))
    }

    /// Empties the backend `name`, or ends that. `false`: there is none of that name.
    pub(crate) fn drain(&mut self, name: &str, drained: bool) -> bool {
        let Some(group) = self.groups.iter_mut().find(|g| g.config.name == name) else {
            return false;
        };
        group.drained = drained;
        true
    }

    /// Looks at what was counted before under the ids of new members; before anybody can count for them.
    pub(super) fn begin_counting(&mut self, numbers: &impl Fn(BackendId) -> Numbers) {
        for member in self.groups.iter_mut().flat_map(|group| &mut group.members) {
            let id = member.id;
            member.before.get_or_insert_with(|| numbers(id));
        }
    }

    /// The section in force.
    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A check ended.
    pub(super) fn on_check(&mut self, now: Now, serial: u64, result: Result<(), String>) {
        if let Some(member) = self.member(|m| m.serial == serial) {
            member.on_check(now, result);
        }
    }

    /// An attempt to connect a link for `shard` ended, and the shard has it if it succeeded.
    pub(super) fn on_link(
        &mut self,
        now: Now,
        serial: u64,
        shard: usize,
        result: Result<(), String>,
    ) {
        if let Some(member) = self.member(|m| m.serial == serial) {
            member.on_link(now, shard, result);
        }
    }

    /// A shard tells.
    pub(super) fn on_report(&mut self, now: Now, report: ShardReport) {
        let shard = usize::try_from(report.shard).unwrap_or(usize::MAX);
        if let Some(member) = self.member(|m| m.id == report.backend) {
            member.on_report(now, shard, report.what);
        }
    }

    /// Whether the member is one that may get sessions.
    pub(super) fn is_listed(&self, serial: u64) -> bool {
        self.groups.iter().flat_map(|group| &group.members).any(|member| member.serial == serial)
    }

    fn member(&mut self, is: impl Fn(&Member) -> bool) -> Option<&mut Member> {
        let listed = self.groups.iter_mut().flat_map(|group| &mut group.members);
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.member);
        listed.chain(leaving).find(|member| is(member))
    }

    /// A question for a target's addresses ended. None is as bad as no answer: those that are known stay.
    pub(super) fn on_places(
        &mut self,
        now: Now,
        serial: u64,
        target: &Target,
        result: Result<Vec<Place>, String>,
    ) {
        let interval_ms = self.upstream.resolve_interval_ms;
        let seed = mix(self.seed ^ now.0);
        let Some(index) = self.groups.iter().position(|g| g.serial == serial) else { return };
        let group = &mut self.groups[index];
        let name = group.config.name.clone();
        let Some(lookup) = group.lookups.iter_mut().find(|l| l.target == *target) else { return };
        match result {
            Ok(mut places) => {
                places.sort_by_key(|place| place.addr.to_string());
                places.truncate(BACKENDS_MAX);
                lookup.succeeded += 1;
                (lookup.answered, lookup.error) = (Some(now), None);
                lookup.state = LookupState::Due(now.add_ms(jittered(interval_ms, seed)));
                if lookup.places != places {
                    let shown: Vec<_> = places.iter().map(|p| p.addr.to_string()).collect();
                    tracing::info!(backend = %name, %target, addresses = %shown.join(" "), "resolved");
                    lookup.places = places;
                    self.place(now, index);
                }
            }
            Err(error) => {
                lookup.failed += 1;
                // What is known already can wait; what is not is asked for soon.
                let soon = if lookup.places.is_empty() { RETRY_MS } else { interval_ms };
                lookup.state = LookupState::Due(now.add_ms(jittered(soon.min(interval_ms), seed)));
                if lookup.error.as_ref() != Some(&error) {
                    let known = lookup.places.len();
                    tracing::warn!(backend = %name, %target, known, %error, "cannot resolve");
                    lookup.error = Some(error);
                }
            }
        }
    }

    /// The file has been read.
    pub(super) fn on_file(&mut self, now: Now, result: Result<Vec<Configured>, String>) {
        if self.upstream.discovery_file.is_none() {
            return;
        }
        self.file.next = Some(now.add_ms(self.upstream.discovery_interval_ms));
        match result {
            Ok(backends) => {
                self.file.loads += 1;
                let was_wrong = self.file.error.take().is_some();
                if backends != self.file.backends || was_wrong {
                    tracing::info!(backends = backends.len(), "the file of backends is in force");
                    self.file.backends = backends;
                    self.regroup(now);
                }
            }
            Err(error) => {
                self.file.failures += 1;
                if self.file.error.as_ref() != Some(&error) {
                    tracing::error!(%error, "the file of backends changes nothing; the last good one stays");
                    self.file.error = Some(error);
                }
            }
        }
    }

    /// Compares what is known with what the shards publish: makes up for lost reports, and forgets addresses that left
    /// when no shard counts anything under them any more. Tells whether some are still waited for.
    pub(super) fn reconcile(&mut self, now: Now, shards: &impl Shards) -> bool {
        for member in self.groups.iter_mut().flat_map(|group| &mut group.members) {
            let id = member.id;
            for shard in 0..self.shards {
                if let Some(links) = &mut member.links {
                    links.compare(shard, shards.gauge(shard, id, BackendStat::Links));
                }
            }
        }
        let (count, mut freed) = (self.shards, false);
        self.leaving.retain_mut(|leaving| {
            let stays = leaving.is_in_use(count, shards);
            if !stays {
                freed = true;
                self.used[leaving.member.id.index()] = false;
                tracing::info!(backend = %leaving.member.name, "gone: its last session has ended");
            }
            stays
        });
        for index in 0..self.groups.len() {
            if freed && self.groups[index].unplaced > 0 {
                self.place(now, index);
            }
        }
        !self.leaving.is_empty()
    }

    /// Says in the log what has changed.
    fn say(&mut self) {
        for group in &mut self.groups {
            let best = group.best_priority();
            for member in &mut group.members {
                let better = best.is_some_and(|best| best < member.place.priority);
                let (standing, why) = member.standing(group.drained, better);
                let Some(was) = member.news(standing) else { continue };
                let backend = &member.name;
                match standing {
                    Standing::Up => tracing::info!(%backend, was, "a backend is up"),
                    Standing::Down | Standing::Ejected => {
                        tracing::warn!(%backend, was, %why, "a backend is {}", standing.label());
                    }
                    Standing::Standby | Standing::Draining | Standing::Leaving => {
                        tracing::info!(%backend, was, %why, "a backend is {}", standing.label());
                    }
                }
            }
        }
    }
}

impl Leaving {
    /// Whether some shard may still use it. First every shard must have taken the list without it, then have turned and
    /// published, and only then is a zero believed.
    fn is_in_use(&mut self, count: usize, shards: &impl Shards) -> bool {
        let all = 0..count;
        let turns = match &self.turns {
            Some(turns) => turns,
            None => {
                if all.clone().all(|shard| shards.is_idle(shard)) {
                    self.turns = Some(all.map(|shard| shards.turns(shard)).collect());
                }
                return true;
            }
        };
        const GAUGES: [BackendStat; 5] = [
            BackendStat::Sessions,
            BackendStat::Connecting,
            BackendStat::Closing,
            BackendStat::Links,
            BackendStat::Streams,
        ];
        let id = self.member.id;
        all.zip(turns).any(|(shard, turns)| {
            shards.turns(shard) <= *turns
                || GAUGES.iter().any(|gauge| shards.gauge(shard, id, *gauge) > 0)
        })
    }
}

fn to_backend(group: &Group, member: &Member, best: Option<u16>) -> Backend {
    let ipv4 = match &member.place.addr {
        StreamAddr::Tcp(addr) => addr.is_ipv4(),
        StreamAddr::Unix(_) => false,
    };
    let sources = &group.settings.sources.0;
    Backend {
        id: member.id,
        name: Arc::clone(&member.name),
        kind: member.kind,
        addresses: vec![member.place.addr.clone()],
        sources: sources.iter().copied().filter(|ip| ip.is_ipv4() == ipv4).collect(),
        weight: group.config.weight.saturating_mul(member.place.weight),
        key: route::key(&member.name),
        usable: member.is_up() && best.is_none_or(|best| best >= member.place.priority),
        draining: group.drained,
        proxy: group.settings.proxy,
    }
}

/// Messages as long as a session may hold and some listener's protocol carries; bytes without framing in pieces that fit the
/// smallest listener's segment.
fn codec(config: &Config) -> Codec {
    let kcp = || config.listeners.iter().map(|listener| config.kcp_of(listener).to_core());
    let cut = kcp().map(|kcp| kcp.mss()).min().unwrap_or(1);
    let carried = kcp().map(|kcp| kcp.message_max()).max().unwrap_or(0);
    let carried = u32::try_from(carried).unwrap_or(u32::MAX);
    Codec {
        framing: BackendSettings::default().framing,
        message_max: config.session.queue_bytes_max.min(carried),
        cut: cut.max(1),
    }
}

/// Between three quarters of `ms` and `ms`: many gateways do not ask in step.
fn jittered(ms: u32, seed: u64) -> u32 {
    let mut draw = Backoff::new(ms, ms, seed);
    ms / 2 + draw.next_ms() / 2
}

/// How soon a name that has never been answered is asked for again, in milliseconds.
const RETRY_MS: u32 = 1000;
const REASONS_SHOWN: usize = 4;
