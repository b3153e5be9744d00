//! The registry as its owner drives it, on a clock of the test's own.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::member::Member;
use super::registry::{Action, Shards};
use super::*;
use crate::config::{Backend, BackendSettings, BackendUrl, Target};
use crate::control::command::{Report, ShardReport};
use crate::shard::backend_stats::{BackendStat, ConnectFailure, LinkEnd};
use crate::upstream::backend::{BackendId, Kind};
use crate::upstream::framing::{Codec, Framing};
use crate::upstream::health::{Health, HealthConfig};
use crate::upstream::link::LinkConfig;
use net_io::{Now, StreamAddr};

const START: Now = Now(10_000_000_000);

/// What the registry would hear of two shards.
#[derive(Default)]
struct Fake {
    busy: RefCell<bool>,
    turns: RefCell<u64>,
    gauges: RefCell<BTreeMap<(usize, BackendId, &'static str), u64>>,
}

impl Fake {
    fn set(&self, shard: usize, backend: BackendId, gauge: BackendStat, value: u64) {
        self.gauges.borrow_mut().insert((shard, backend, gauge.label()), value);
    }
}

impl Shards for Fake {
    fn is_idle(&self, _: usize) -> bool {
        !*self.busy.borrow()
    }
    fn turns(&self, _: usize) -> u64 {
        *self.turns.borrow()
    }
    fn gauge(&self, shard: usize, backend: BackendId, gauge: BackendStat) -> u64 {
        self.gauges.borrow().get(&(shard, backend, gauge.label())).copied().unwrap_or(0)
    }
}

fn backend(name: &str, url: &str) -> Backend {
    let url = BackendUrl::parse(url).unwrap();
    Backend { name: name.into(), url, weight: 1, settings: None }
}

fn config(backends: &[Backend]) -> Config {
    let mut config = Config::default();
    config.upstream.backends = backends.to_vec();
    config
}

fn registry(config: &Config) -> Registry {
    Registry::new(START, config, 2, 1)
}

fn addr(text: &str) -> StreamAddr {
    StreamAddr::Tcp(text.parse().unwrap())
}

fn place(text: &str) -> member::Place {
    member::Place { addr: addr(text), weight: 1, priority: 0 }
}

/// Answers every check that is due, by address.
fn check(registry: &mut Registry, now: Now, good: impl Fn(&str) -> bool) -> usize {
    let mut checks = 0;
    for action in registry.poll(now) {
        if let Action::Check { serial, addr, .. } = action {
            checks += 1;
            let good = good(&addr.to_string());
            registry.on_check(now, serial, good.then_some(()).ok_or("refused".into()));
        }
    }
    registry.poll(now);
    checks
}

/// Name, id and whether it takes sessions, of the list as it would be published.
fn listed(registry: &Registry) -> Vec<(String, u16, bool)> {
    let list = registry.list().list;
    list.iter().map(|b| (b.name.to_string(), b.id.0, b.takes_sessions())).collect()
}

fn report(registry: &mut Registry, now: Now, backend: u16, what: Report) {
    let backend = BackendId(backend);
    registry.on_report(now, ShardReport { shard: 1, backend, what });
}

#[test]
fn a_backend_is_down_until_a_check_passes_and_asked_again_with_pauses() {
    let mut registry = registry(&config(&[backend("a", "tcp://10.0.0.1:1")]));
    assert_eq!(listed(&registry), [("a".into(), 0, false)]);
    assert_eq!(
        registry.not_ready().unwrap(),
        "no backend takes sessions: a: down, not checked yet"
    );
    assert_eq!(check(&mut registry, START, |_| false), 1);
    assert_eq!(registry.not_ready().unwrap(), "no backend takes sessions: a: down, refused");
    let mut pauses = Vec::new();
    let mut now = START;
    for _ in 0..6 {
        let next = registry.poll_timeout().unwrap();
        pauses.push(next.as_millis() - now.as_millis());
        now = next;
        assert_eq!(check(&mut registry, now, |_| false), 1);
    }
    assert!(pauses[0] <= 2000 && pauses[5] > 10_000 && pauses[5] <= 30_000, "{pauses:?}");
    now = registry.poll_timeout().unwrap();
    check(&mut registry, now, |_| true);
    assert_eq!((listed(&registry), registry.not_ready()), (vec![("a".into(), 0, true)], None));
}

#[test]
fn a_check_without_an_answer_is_abandoned() {
    let mut registry = registry(&config(&[backend("a", "tcp://10.0.0.1:1")]));
    let actions = registry.poll(START);
    let [Action::Check { serial, timeout_ms: 1000, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    let late = START.add_ms(1000);
    assert_eq!(registry.poll_timeout(), Some(late));
    assert_eq!(registry.poll(late), []);
    let why = registry.not_ready().unwrap();
    assert!(why.ends_with("the check had no answer in time"), "{why}");
    registry.on_check(late, serial, Ok(()));
    assert_eq!(listed(&registry), [("a".into(), 0, false)]);
}

#[test]
fn a_yamux_backend_is_up_while_a_link_lives() {
    let mut registry = registry(&config(&[backend("y", "yamux+unix:///run/y.sock")]));
    let mut connects = Vec::new();
    for action in registry.poll(START) {
        let Action::Connect { serial, id, shard, addr, .. } = action else { panic!("{action:?}") };
        assert_eq!((id, addr), (BackendId(0), StreamAddr::Unix("/run/y.sock".into())));
        connects.push((serial, shard));
    }
    let shards: Vec<usize> = connects.iter().map(|(_, shard)| *shard).collect();
    assert_eq!(shards, [0, 0, 1, 1]);
    let (serial, _) = connects[0];
    registry.on_link(START, serial, 0, Err("no such file".into()));
    assert_eq!(registry.not_ready().unwrap(), "no backend takes sessions: y: down, no such file");
    registry.on_link(START, serial, 1, Ok(()));
    assert_eq!(listed(&registry), [("y".into(), 0, true)]);
    report(&mut registry, START, 0, Report::LinkUp);
    report(&mut registry, START, 0, Report::LinkLost(LinkEnd::Eof));
    assert_eq!(
        registry.not_ready().unwrap(),
        "no backend takes sessions: y: down, a connection ended: eof"
    );
    // The pause after a short life, then the next attempt.
    assert_eq!(registry.poll(START), []);
    let next = registry.poll_timeout().unwrap();
    let again = registry.poll(next);
    assert!(matches!(again[..], [Action::Connect { .. }]), "{again:?}");
}

#[test]
fn a_backend_that_breaks_the_protocol_again_and_again_is_ejected() {
    let mut registry = registry(&config(&[backend("y", "yamux://10.0.0.1:1")]));
    let mut now = START;
    for round in 0..5 {
        assert_eq!(registry.not_ready().is_none(), round > 0, "{round}");
        let actions = registry.poll(now);
        for action in actions {
            let Action::Connect { serial, shard, .. } = action else { panic!("{action:?}") };
            registry.on_link(now, serial, shard, Ok(()));
        }
        report(&mut registry, now, 0, Report::LinkLost(LinkEnd::WindowExceeded));
        now = registry.poll_timeout().unwrap();
    }
    let why = registry.not_ready().unwrap();
    assert!(why.contains("ejected") && why.contains("broken protocol"), "{why}");
}

#[test]
fn sessions_that_fail_eject_a_backend_but_this_hosts_own_want_does_not() {
    let mut settings = config(&[backend("a", "tcp://10.0.0.1:1")]);
    settings.upstream.each.check_fall = 100;
    let mut registry = registry(&settings);
    check(&mut registry, START, |_| true);
    for reason in [ConnectFailure::Files, ConnectFailure::Ports, ConnectFailure::Limit] {
        (0..10).for_each(|_| report(&mut registry, START, 0, Report::Failed(reason)));
    }
    assert_eq!(listed(&registry), [("a".into(), 0, true)]);
    let refused = Report::Failed(ConnectFailure::Refused);
    (0..4).for_each(|_| report(&mut registry, START, 0, refused));
    report(&mut registry, START, 0, Report::Connected);
    (0..4).for_each(|_| report(&mut registry, START, 0, refused));
    assert_eq!(listed(&registry), [("a".into(), 0, true)]);
    report(&mut registry, START, 0, refused);
    let why = registry.not_ready().unwrap();
    assert!(why.contains("ejected, sessions did not get through: refused"), "{why}");
    let back = registry.poll_timeout().unwrap();
    assert!(back <= START.add_ms(1000), "{back:?}");
    registry.poll(back);
    assert_eq!(listed(&registry), [("a".into(), 0, true)]);
}

/// The question under way for a backend.
fn question(registry: &mut Registry, now: Now) -> (u64, Target) {
    let mut asked = None;
    for action in registry.poll(now) {
        match action {
            Action::Resolve { serial, target } => asked = Some((serial, target)),
            Action::Check { serial, .. } => registry.on_check(now, serial, Ok(())),
            Action::Connect { .. } | Action::Look { .. } => {}
        }
    }
    asked.expect("a question")
}

#[test]
fn names_become_addresses_and_those_that_go_keep_their_sessions() {
    let mut registry = registry(&config(&[backend("g", "tcp://game:7000")]));
    assert_eq!(registry.not_ready().unwrap(), "no backend takes sessions: g: not resolved yet");
    let (serial, target) = question(&mut registry, START);
    assert_eq!(target, Target::Host { name: "game".into(), port: 7000 });
    registry.on_places(START, serial, &target, Err("game: no such name".into()));
    assert_eq!(registry.not_ready().unwrap(), "no backend takes sessions: g: game: no such name");
    let mut now = registry.poll_timeout().unwrap();
    assert!(now <= START.add_ms(1000));
    question(&mut registry, now);
    let both = vec![place("10.0.0.2:7000"), place("10.0.0.1:7000")];
    registry.on_places(now, serial, &target, Ok(both.clone()));
    check(&mut registry, now, |_| true);
    let name = |ip: &str| format!("g@{ip}:7000");
    assert_eq!(listed(&registry), [(name("10.0.0.1"), 0, true), (name("10.0.0.2"), 1, true)]);

    // One is gone, and has a session.
    let fake = Fake::default();
    now = now.add_ms(10_000);
    question(&mut registry, now);
    registry.on_places(now, serial, &target, Ok(vec![place("10.0.0.2:7000")]));
    assert_eq!(listed(&registry), [(name("10.0.0.2"), 1, true)]);
    fake.set(1, BackendId(0), BackendStat::Sessions, 1);
    // An answer that does not come changes nothing.
    now = now.add_ms(10_000);
    question(&mut registry, now);
    registry.on_places(now, serial, &target, Err("no answer".into()));
    assert_eq!(listed(&registry), [(name("10.0.0.2"), 1, true)]);

    // It comes back before the session has ended: it is the same as before.
    now = now.add_ms(10_000);
    question(&mut registry, now);
    registry.on_places(now, serial, &target, Ok(both));
    assert_eq!(listed(&registry), [(name("10.0.0.1"), 0, true), (name("10.0.0.2"), 1, true)]);
    assert!(!registry.reconcile(START, &fake));
}

#[test]
fn an_id_is_free_when_every_shard_says_so_and_not_before() {
    let fake = Fake::default();
    let a = backend("a", "tcp://10.0.0.1:1");
    let mut registry = registry(&config(std::slice::from_ref(&a)));
    let id = BackendId(0);
    fake.set(1, id, BackendStat::Closing, 1);
    *fake.busy.borrow_mut() = true;
    registry.configure(START, &config(&[backend("b", "tcp://10.0.0.2:1")]));
    assert_eq!(listed(&registry), [("b".into(), 1, false)]);
    let turn = || *fake.turns.borrow_mut() += 1;
    for _ in 0..3 {
        turn();
        assert!(registry.reconcile(START, &fake), "the list has not been taken");
    }
    *fake.busy.borrow_mut() = false;
    fake.set(1, id, BackendStat::Closing, 0);
    assert!(registry.reconcile(START, &fake));
    assert!(registry.reconcile(START, &fake), "the shards have not turned since");
    fake.set(0, id, BackendStat::Sessions, 1);
    turn();
    assert!(registry.reconcile(START, &fake), "a session is left");
    fake.set(0, id, BackendStat::Sessions, 0);
    assert!(!registry.reconcile(START, &fake));
    registry.configure(START, &config(&[backend("b", "tcp://10.0.0.2:1"), a]));
    assert_eq!(listed(&registry), [("b".into(), 1, false), ("a".into(), 0, false)]);
}

#[test]
fn a_reload_keeps_what_is_the_same_backend() {
    let mut a = backend("a", "tcp://10.0.0.1:1");
    let mut registry = registry(&config(std::slice::from_ref(&a)));
    check(&mut registry, START, |_| true);
    registry.drain("a", true);
    a.weight = 7;
    a.settings = Some(BackendSettings { proxy: false, stall_ms: 500, ..Default::default() });
    registry.configure(START, &config(std::slice::from_ref(&a)));
    let of = |registry: &Registry| registry.list().list[0].clone();
    let now = of(&registry);
    assert_eq!((now.id, now.weight, now.usable, now.draining), (BackendId(0), 7, true, true));
    assert!(!now.proxy);
    // Another framing is another backend: its sessions cannot share a place. The operator has drained the name.
    let settings = BackendSettings { framing: Framing::U16Le, ..Default::default() };
    a.settings = Some(settings);
    registry.configure(START, &config(&[a]));
    let now = of(&registry);
    assert_eq!((now.id, now.usable, now.draining), (BackendId(1), false, true));
    assert_eq!(now.kind.codec().unwrap().framing, Framing::U16Le);
    assert!(registry.reconcile(START, &Fake::default()));
}

#[test]
fn a_drained_backend_takes_none_until_it_may_again() {
    let both = [backend("a", "tcp://10.0.0.1:1"), backend("b", "tcp://10.0.0.2:1")];
    let mut registry = registry(&config(&both));
    check(&mut registry, START, |_| true);
    assert!(registry.drain("a", true) && !registry.drain("c", true));
    assert_eq!(listed(&registry), [("a".into(), 0, false), ("b".into(), 1, true)]);
    assert_eq!(registry.not_ready(), None);
    registry.drain("b", true);
    let why = registry.not_ready().unwrap();
    assert!(why.contains("b: draining, the operator empties it"), "{why}");
    registry.drain("a", false);
    assert_eq!(listed(&registry), [("a".into(), 0, true), ("b".into(), 1, false)]);
}

#[test]
fn only_the_best_priority_that_is_up_gets_sessions_and_weights_multiply() {
    let mut srv = backend("s", "tcp+srv://_kcp._tcp.game");
    srv.weight = 3;
    let mut registry = registry(&config(&[srv]));
    let (serial, target) = question(&mut registry, START);
    let ranked = |text: &str, weight, priority| member::Place { weight, priority, ..place(text) };
    let places = vec![ranked("10.0.0.1:1", 5, 10), ranked("10.0.0.2:1", 30_000, 20)];
    registry.on_places(START, serial, &target, Ok(places));
    check(&mut registry, START, |_| true);
    let takes = |registry: &Registry| listed(registry).iter().map(|b| b.2).collect::<Vec<_>>();
    assert_eq!(takes(&registry), [true, false]);
    let weights: Vec<u16> = registry.list().list.iter().map(|b| b.weight).collect();
    assert_eq!(weights, [15, u16::MAX]);
    let mut now = START;
    for _ in 0..3 {
        now = now.add_ms(3000);
        check(&mut registry, now, |addr| addr != "10.0.0.1:1");
    }
    assert_eq!(takes(&registry), [false, true]);
}

#[test]
fn the_watched_file_adds_backends_and_a_wrong_one_changes_nothing() {
    let mut settings = config(&[backend("a", "tcp://10.0.0.1:1")]);
    settings.upstream.discovery_file = Some("backends.toml".into());
    let mut registry = registry(&settings);
    let looks = |actions: Vec<Action>| {
        actions.iter().filter(|action| matches!(action, Action::Look { .. })).count()
    };
    assert_eq!(looks(registry.poll(START)), 1);
    assert_eq!(looks(registry.poll(START.add_ms(60_000))), 0, "one at a time");
    // A name that the configuration has is the configuration's.
    let found = vec![backend("a", "tcp://10.0.0.9:1"), backend("f", "tcp://10.0.0.2:1")];
    registry.on_file(START, Ok(found));
    let names = |registry: &Registry| {
        let list = registry.list().list;
        list.iter().map(|b| format!("{} {}", b.name, b.addresses[0])).collect::<Vec<_>>()
    };
    assert_eq!(names(&registry), ["a 10.0.0.1:1", "f 10.0.0.2:1"]);
    registry.on_file(START, Err("backends.toml:1:1: not TOML".into()));
    assert_eq!(names(&registry), ["a 10.0.0.1:1", "f 10.0.0.2:1"]);
    assert!(registry.not_ready().unwrap().contains("backends.toml:1:1"));
    assert_eq!(looks(registry.poll(START.add_ms(2000))), 1);
    registry.on_file(START, Ok(vec![]));
    assert_eq!(names(&registry), ["a 10.0.0.1:1"]);
}

#[test]
fn more_addresses_than_places_are_left_out_and_counted() {
    let mut registry = registry(&config(&[backend("g", "tcp://game:7000")]));
    let (serial, target) = question(&mut registry, START);
    let places = |range: std::ops::Range<u8>| range.map(|i| place(&format!("10.0.0.{i}:7000")));
    registry.on_places(START, serial, &target, Ok(places(0..60).collect()));
    assert_eq!(registry.list().list.len(), 60);
    let now = START.add_ms(10_000);
    question(&mut registry, now);
    // The sixty that leave keep their places until their sessions have ended.
    registry.on_places(now, serial, &target, Ok(places(100..110).collect()));
    assert_eq!(registry.list().list.len(), 4);
    assert_eq!(registry.resolutions().next(), Some(("g", 2, 0, 6)));
    let fake = Fake::default();
    assert!(registry.reconcile(START, &fake));
    *fake.turns.borrow_mut() += 1;
    assert!(!registry.reconcile(START, &fake));
    assert_eq!(registry.list().list.len(), 10);
    assert_eq!(registry.resolutions().next(), Some(("g", 2, 0, 0)));
}

#[test]
fn the_log_tells_of_a_backend_that_was_never_there() {
    let codec = Codec { framing: Framing::U32Be, message_max: 1000, cut: 1000 };
    let kind = Kind::Tcp(LinkConfig::new(codec));
    let health = Health::new(START, HealthConfig::default(), 1);
    let (name, place) = ("a".into(), place("10.0.0.1:1"));
    let mut member = Member::new((1, BackendId(0), name), place, kind, health, None);
    let news = |member: &mut Member| {
        let (standing, _) = member.standing(false, false);
        member.news(standing)
    };
    assert_eq!(news(&mut member), None, "not checked yet");
    assert!(member.handle_timeout(START));
    member.on_check(START, Err("refused".into()));
    assert_eq!(news(&mut member), Some("new"));
    assert_eq!(news(&mut member), None, "once is enough");
    let later = START.add_ms(60_000);
    assert!(member.handle_timeout(later));
    member.on_check(later, Ok(()));
    assert_eq!(news(&mut member), Some("down"));
}
