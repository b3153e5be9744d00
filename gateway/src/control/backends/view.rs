//! The backends as the API shows them.

use net_io::Now;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::group::{Group, LookupState};
use super::member::{Member, Standing};
use super::numbers::Numbers;
use super::registry::{Leaving, Registry};
use crate::shard::backend_stats::{BackendStat, ConnectFailure, LinkEnd, Parting};
use crate::upstream::backend::BackendId;

/// All of them.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    /// Why no new session would find one; null when one would.
    not_ready: Option<String>,
    /// In the order of the configuration, those of the file after them.
    backends: Vec<OfBackend>,
    /// Addresses that are not listed any more, with the sessions they still have.
    leaving: Vec<OfAddress>,
    /// The watched file.
    file: OfFile,
}

#[derive(Debug, Serialize)]
struct OfBackend {
    name: String,
    url: String,
    weight: u16,
    /// `up` when one address is, else as the first.
    state: &'static str,
    why: String,
    sessions: u64,
    addresses: Vec<OfAddress>,
    /// Names that were asked for.
    lookups: Vec<OfLookup>,
    /// Addresses that found no place.
    left_out: usize,
}

#[derive(Debug, Serialize)]
struct OfAddress {
    name: String,
    address: String,
    weight: u16,
    priority: u16,
    state: &'static str,
    why: String,
    sessions: u64,
    last_check: Option<LastCheck>,
    checks_passed: u64,
    checks_failed: u64,
    ejections: u64,
    stats: Map<String, Json>,
    connect_failures: Map<String, Json>,
    sessions_ended: Map<String, Json>,
    links_ended: Map<String, Json>,
}

#[derive(Debug, Serialize)]
struct LastCheck {
    ago_s: u64,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct OfLookup {
    target: String,
    addresses: Vec<String>,
    answered_ago_s: Option<u64>,
    error: Option<String>,
    succeeded: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct OfFile {
    backends: usize,
    loads: u64,
    failures: u64,
    error: Option<String>,
}

/// One address as the metrics show it.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) backend: &'a str,
    pub(crate) address: String,
    pub(crate) standing: Standing,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ejections: u64,
    pub(crate) numbers: Numbers,
}

impl Registry {
    /// The API's answer; `numbers` are what the shards counted.
    pub(crate) fn view(&self, now: Now, numbers: &impl Fn(BackendId) -> Numbers) -> View {
        let leaving = self.leaving.iter().map(|l| {
            let said = (Standing::Leaving, "not listed any more; its sessions go on".to_owned());
            address(&l.member, said, now, numbers)
        });
        View {
            not_ready: self.not_ready(),
            backends: self.groups.iter().map(|group| backend(group, now, numbers)).collect(),
            leaving: leaving.collect(),
            file: OfFile {
                backends: self.file.backends.len(),
                loads: self.file.loads,
                failures: self.file.failures,
                error: self.file.error.clone(),
            },
        }
    }

    /// Every address that sessions may have, with what is known of it: for the metrics.
    pub(crate) fn addresses(
        &self,
        numbers: &impl Fn(BackendId) -> Numbers,
    ) -> impl Iterator<Item = Seen<'_>> {
        let seen = |backend, member: &Member, standing| Seen {
            backend,
            address: member.place.addr.to_string(),
            standing,
            passed: member.counts.passed,
            failed: member.counts.failed,
            ejections: member.counts.ejections,
            numbers: member.own(numbers(member.id)),
        };
        let listed = self.groups.iter().flat_map(move |group| {
            let best = group.best_priority();
            group.members.iter().map(move |member| {
                let better = best.is_some_and(|best| best < member.place.priority);
                let (standing, _) = member.standing(group.drained, better);
                seen(group.config.name.as_str(), member, standing)
            })
        });
        // What has come back under another framing keeps its name and its address, and a series may come once only.
        let is_listed = |l: &&Leaving| {
            self.groups.iter().any(|group| {
                let members = || group.members.iter();
                group.config.name == l.group
                    && members().any(|m| m.place.addr == l.member.place.addr)
            })
        };
        let leaving = self.leaving.iter().filter(move |l| !is_listed(l));
        listed.chain(leaving.map(move |l| seen(&l.group, &l.member, Standing::Leaving)))
    }

    /// Names asked for so far, by backend: answered, and not; and addresses that found no place.
    pub(crate) fn resolutions(&self) -> impl Iterator<Item = (&str, u64, u64, u64)> {
        self.groups.iter().map(|group| {
            let sum = |of: fn(&super::group::Lookup) -> u64| group.lookups.iter().map(of).sum();
            let left_out = group.unplaced as u64;
            (group.config.name.as_str(), sum(|l| l.succeeded), sum(|l| l.failed), left_out)
        })
    }

    /// How often the watched file was taken, and not.
    pub(crate) const fn file_loads(&self) -> (u64, u64) {
        (self.file.loads, self.file.failures)
    }
}

fn backend(group: &Group, now: Now, numbers: &impl Fn(BackendId) -> Numbers) -> OfBackend {
    let best = group.best_priority();
    let addresses: Vec<_> = group
        .members
        .iter()
        .map(|member| {
            let better = best.is_some_and(|best| best < member.place.priority);
            address(member, member.standing(group.drained, better), now, numbers)
        })
        .collect();
    let up = addresses.iter().find(|a| a.state == Standing::Up.label());
    let told = up.or_else(|| addresses.first()).map(|a| (a.state, a.why.clone()));
    let unresolved = || {
        let error = group.lookups.iter().find_map(|lookup| lookup.error.clone());
        (Standing::Down.label(), error.unwrap_or_else(|| "not resolved yet".into()))
    };
    let (state, why) = told.unwrap_or_else(unresolved);
    let lookups = group.lookups.iter().filter(|l| l.state != LookupState::Fixed);
    OfBackend {
        name: group.config.name.clone(),
        url: group.config.url.to_string(),
        weight: group.config.weight,
        state,
        why,
        sessions: addresses.iter().map(|a| a.sessions).sum(),
        lookups: lookups
            .map(|lookup| OfLookup {
                target: lookup.target.to_string(),
                addresses: lookup.places.iter().map(|p| p.addr.to_string()).collect(),
                answered_ago_s: lookup.answered.map(|at| seconds(at, now)),
                error: lookup.error.clone(),
                succeeded: lookup.succeeded,
                failed: lookup.failed,
            })
            .collect(),
        addresses,
        left_out: group.unplaced,
    }
}

fn address(
    member: &Member,
    (standing, why): (Standing, String),
    now: Now,
    numbers: &impl Fn(BackendId) -> Numbers,
) -> OfAddress {
    let numbers = member.own(numbers(member.id));
    let last_check = member.last.as_ref().map(|(at, result)| LastCheck {
        ago_s: seconds(*at, now),
        error: result.as_ref().err().cloned(),
    });
    OfAddress {
        name: member.name.to_string(),
        address: member.place.addr.to_string(),
        weight: member.place.weight,
        priority: member.place.priority,
        state: standing.label(),
        why,
        sessions: numbers.get(BackendStat::Sessions),
        last_check,
        checks_passed: member.counts.passed,
        checks_failed: member.counts.failed,
        ejections: member.counts.ejections,
        stats: object(BackendStat::ALL.iter().map(|s| (s.label(), numbers.get(*s)))),
        connect_failures: object(
            ConnectFailure::ALL.iter().map(|r| (r.label(), numbers.failures(*r))),
        ),
        sessions_ended: object(Parting::ALL.iter().map(|p| (p.label(), numbers.partings(*p)))),
        links_ended: object(LinkEnd::ALL.iter().map(|e| (e.label(), numbers.links(*e)))),
    }
}

fn object(numbers: impl Iterator<Item = (&'static str, u64)>) -> Map<String, Json> {
    numbers.map(|(name, n)| (name.to_owned(), n.into())).collect()
}

const fn seconds(at: Now, now: Now) -> u64 {
    now.0.saturating_sub(at.0) / 1_000_000
}
