//! A configured backend: where its addresses come from, and the members that they make.

use net_io::{Now, StreamAddr};

use super::member::{Member, Place};
use crate::config::{Backend, BackendSettings, Carrier, Target};
use crate::upstream::backend::Kind;
use crate::upstream::framing::Codec;
use crate::upstream::link::LinkConfig;
use crate::upstream::yamux;

/// A backend of the configuration or of the watched file.
#[derive(Debug)]
pub(super) struct Group {
    /// Never given twice.
    pub(super) serial: u64,
    pub(super) config: Backend,
    pub(super) settings: BackendSettings,
    /// The operator empties it.
    pub(super) drained: bool,
    pub(super) lookups: Vec<Lookup>,
    /// In the order of the addresses, so that the list keeps its order whatever an answer's.
    pub(super) members: Vec<Member>,
    /// Addresses that found no place among [`BACKENDS_MAX`](crate::upstream::backend::BACKENDS_MAX).
    pub(super) unplaced: usize,
}

/// One target and what it stands for.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) target: Target,
    /// The last good answer.
    pub(super) places: Vec<Place>,
    pub(super) state: LookupState,
    /// Why the last question got no answer.
    pub(super) error: Option<String>,
    pub(super) answered: Option<Now>,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
}

/// What a target waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupState {
    /// It is an address by itself.
    Fixed,
    /// The next question is due then.
    Due(Now),
    /// It has been asked.
    Asked,
}

impl Lookup {
    pub(super) fn new(now: Now, target: Target) -> Self {
        let fixed = |addr| vec![Place { addr, weight: 1, priority: 0 }];
        let (places, state) = match &target {
            Target::Addr(addr) => (fixed(StreamAddr::Tcp(*addr)), LookupState::Fixed),
            Target::Unix(path) => (fixed(StreamAddr::Unix(path.clone())), LookupState::Fixed),
            Target::Host { .. } | Target::Srv(_) => (Vec::new(), LookupState::Due(now)),
        };
        Self { target, places, state, error: None, answered: None, succeeded: 0, failed: 0 }
    }
}

impl Group {
    /// A group whose addresses are still to be placed.
    pub(super) fn new(now: Now, serial: u64, config: Backend, settings: BackendSettings) -> Self {
        let lookups = config.url.targets.iter().map(|t| Lookup::new(now, t.clone())).collect();
        Self { serial, config, settings, drained: false, lookups, members: Vec::new(), unplaced: 0 }
    }

    /// Whether `config` with `settings` is this backend with other numbers, and not another one: sessions under one id share
    /// how they are carried and framed.
    pub(super) fn is_same(&self, config: &Backend, settings: &BackendSettings) -> bool {
        self.config.name == config.name
            && self.config.url.carrier == config.url.carrier
            && self.settings.framing == settings.framing
    }

    /// Takes over other numbers and targets. What is known of targets that stay is kept.
    pub(super) fn update(&mut self, now: Now, config: Backend, settings: BackendSettings) {
        let mut known = std::mem::take(&mut self.lookups);
        let mut lookup = |target: &Target| match known.iter().position(|l| l.target == *target) {
            Some(index) => known.swap_remove(index),
            None => Lookup::new(now, target.clone()),
        };
        self.lookups = config.url.targets.iter().map(&mut lookup).collect();
        (self.config, self.settings) = (config, settings);
    }

    /// Every address, each once, in order.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for place in self.lookups.iter().flat_map(|lookup| &lookup.places) {
            if !places.iter().any(|other| other.addr == place.addr) {
                places.push(place.clone());
            }
        }
        places
    }

    /// What the sessions on `addr` call their backend. One that is an address by itself needs none added.
    pub(super) fn name_of(&self, addr: &StreamAddr) -> String {
        let name = &self.config.name;
        match self.lookups.as_slice() {
            [Lookup { state: LookupState::Fixed, .. }] => name.clone(),
            _ => format!("{name}@{addr}"),
        }
    }

    /// The lowest priority of an address that is up: those of higher ones stand by.
    pub(super) fn best_priority(&self) -> Option<u16> {
        self.members.iter().filter(|m| m.is_up()).map(|m| m.place.priority).min()
    }

    /// How its sessions are carried.
    pub(super) fn kind(&self, codec: Codec) -> Kind {
        let codec = Codec { framing: self.settings.framing, ..codec };
        let s = &self.settings;
        match self.config.url.carrier {
            Carrier::Tcp => Kind::Tcp(LinkConfig {
                codec,
                connect_ms: s.connect_ms,
                stall_ms: s.stall_ms,
                linger_ms: s.linger_ms,
            }),
            Carrier::Yamux => {
                let defaults = yamux::Config::new(codec);
                // A message leaves in one frame, beside which control frames must fit.
                let write_max = codec.message_max.saturating_add(WRITE_RESERVE);
                Kind::Yamux(yamux::Config {
                    unacked_max: s.unacked_max,
                    write_max: defaults.write_max.max(write_max),
                    stall_ms: s.stall_ms,
                    // Who may stand still for so long may take as long to answer.
                    ping_timeout_ms: defaults.ping_timeout_ms.max(s.stall_ms),
                    linger_ms: s.linger_ms,
                    ..defaults
                })
            }
        }
    }
}

const WRITE_RESERVE: u32 = 64 << 10;
