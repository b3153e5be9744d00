use std::collections::BTreeSet;
use std::net::IpAddr;

use kcp_core::{Conv, Cx, KcpConfig};

use super::*;
use crate::session::{Key, Peer, Tie};
use crate::shard::{Nats, NatsSetup};
use crate::upstream::backend::OnOverflow;
use crate::upstream::echo::Echo;
use crate::upstream::nats::bridge::{Bridge, Limits};

const BORN: Millis = Millis(u32::MAX - 10);

struct Bench {
    policy: Policy,
    sessions: Sessions,
    locals: Locals,
    outlet: Outlet,
    stats: Stats,
}

impl Bench {
    /// `count` sessions: conversations from 0, two to an address.
    fn new(count: u32) -> Self {
        let policy = Policy {
            listeners: vec![KcpConfig::game()],
            sessions_max: count,
            idle_timeout_ms: 300_000,
            keepalive_ms: 60_000,
            tombstone_ms: 30_000,
            tombstones_max: 1000,
            session_bytes_max: 64 << 10,
            farewell: Vec::new(),
        };
        let sessions = Sessions::new(&policy, 64 << 20, 1, BORN);
        let mut bench = Self {
            policy,
            sessions,
            locals: Locals::default(),
            outlet: Outlet::Echo(Echo::new(0)),
            stats: Stats::default(),
        };
        for conv in 0..count {
            bench.add(conv);
        }
        bench
    }

    fn add(&mut self, conv: u32) -> u32 {
        let ip = IpAddr::from((0x0a00_0000 + conv / 2).to_be_bytes());
        let peer = Peer::from(SocketAddr::new(ip, 5000 + u16::try_from(conv % 2).unwrap()));
        let session = Session::new(Key { peer, conv: Conv(conv) }, 0, 0, BORN);
        self.sessions.add(session, &mut self.stats)
    }

    /// Queues so many messages of 100 bytes towards the client.
    fn queue(&mut self, slot: u32, messages: u32) {
        let Sessions { table, store, .. } = &mut self.sessions;
        let kcp = &mut table.get_mut(slot).unwrap().kcp;
        let mut cx = Cx { config: &self.policy.listeners[0], store };
        for _ in 0..messages {
            kcp.send(&mut cx, &[0; 100]).unwrap();
        }
    }

    fn ask(&mut self, question: &Question) -> Answer {
        let mut answerer = Answerer {
            now: Millis(BORN.0.wrapping_add(1500)),
            index: 3,
            policy: &self.policy,
            sessions: &mut self.sessions,
            locals: &self.locals,
            outlet: &self.outlet,
            stats: &mut self.stats,
        };
        answerer.answer(question)
    }

    fn scan(&mut self, scan: &Scan) -> Page {
        match self.ask(&Question::Scan(scan.clone())) {
            Answer::Page(page) => page,
            Answer::Session(_) => panic!("an answer to another question"),
        }
    }

    fn session(&mut self, question: &Question) -> Option<Box<Portrait>> {
        match self.ask(question) {
            Answer::Session(portrait) => portrait,
            Answer::Page(_) => panic!("an answer to another question"),
        }
    }

    /// Walks the whole table as the control plane does; every look is bounded.
    fn walk(&mut self, mut scan: Scan) -> Vec<(Rank, Portrait)> {
        let mut all = Vec::new();
        loop {
            let page = self.scan(&scan);
            assert!(page.visited <= budget::SCANNED_SLOTS, "{} slots in a turn", page.visited);
            assert!(page.sessions.len() <= scan.limit);
            assert!(page.visited > 0 || page.next.is_none(), "it stands still");
            all.extend(page.sessions);
            match page.next {
                Some(next) => scan.from = next,
                None => return all,
            }
        }
    }
}

fn all(limit: usize) -> Scan {
    Scan {
        from: 0,
        limit,
        filter: Filter::default(),
        order: Order::Slot,
        after: None,
        before: None,
    }
}

#[test]
fn a_million_sessions_are_listed_a_bounded_number_of_slots_at_a_time() {
    let mut bench = Bench::new(1_000_000);
    let wanted = 777_777;
    bench.queue(wanted, 3);
    let filter = Filter { conv: Some(Conv(wanted)), ..Filter::default() };
    let found = bench.walk(Scan { filter, ..all(50) });
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].1.conv, found[0].1.queues.bytes_to_client), (wanted, 300));

    // The one with the most comes out of all of them.
    let busiest = bench.walk(Scan { order: Order::Queued, ..all(1) });
    let best = busiest.iter().min_by_key(|(rank, _)| *rank).unwrap();
    assert_eq!((best.0.value, best.0.slot), (300, wanted));

    let convs: BTreeSet<u32> = bench.walk(all(256)).iter().map(|(_, p)| p.conv).collect();
    assert_eq!(convs.len(), 1_000_000, "each of them came");
}

#[test]
fn what_ends_and_begins_meanwhile_hides_nobody() {
    let mut bench = Bench::new(5_000);
    let (mut seen, mut scan, mut next_conv) = (BTreeSet::new(), all(100), 1_000_000);
    loop {
        let page = bench.scan(&scan);
        for (rank, portrait) in &page.sessions {
            assert!(seen.insert(portrait.conv), "{} came twice", portrait.conv);
            // Every seventh of those seen ends, and another takes its place.
            if rank.slot % 7 == 0 {
                assert!(bench.session(&Question::Close(portrait.id.session)).is_some());
                bench.add(next_conv);
                next_conv += 1;
            }
        }
        match page.next {
            Some(next) => scan.from = next,
            None => break,
        }
    }
    assert!((0..5_000).all(|conv| seen.contains(&conv)), "those that lived throughout all came");
}

#[test]
fn filters_and_orders_choose() {
    let mut bench = Bench::new(100);
    for (slot, messages) in [(10, 5), (20, 9), (30, 1), (40, 9)] {
        bench.queue(slot, messages);
    }
    let filter = Filter { ip: Some("10.0.0.7".parse().unwrap()), ..Filter::default() };
    let convs =
        |found: Vec<(Rank, Portrait)>| -> Vec<u32> { found.iter().map(|f| f.1.conv).collect() };
    assert_eq!(convs(bench.walk(Scan { filter, ..all(9) })), [14, 15]);
    let filter =
        Filter { port: Some(5001), ip: Some("10.0.0.7".parse().unwrap()), ..Filter::default() };
    assert_eq!(convs(bench.walk(Scan { filter, ..all(9) })), [15]);

    for (name, count) in [("echo", 100), ("other", 0)] {
        let filter = Filter { backend: Some(name.into()), ..Filter::default() };
        assert_eq!(bench.walk(Scan { filter, ..all(9) }).len(), count);
    }
    let queued = Scan { order: Order::Queued, ..all(3) };
    let first = bench.scan(&queued).sessions;
    assert_eq!(convs(first.clone()), [20, 40, 10]);
    let rest = bench.scan(&Scan { after: Some(first[2].0), ..queued.clone() }).sessions;
    assert_eq!(rest[0].1.conv, 30);
    assert!(rest.iter().skip(1).all(|(rank, _)| rank.value == 0));
    let before = bench.scan(&Scan { before: Some(first[1].0), ..queued }).sessions;
    assert_eq!(convs(before), [20]);
}

#[test]
fn a_session_has_nats_as_its_backend_once_nats_has_been_told_of_it() {
    let mut bench = Bench::new(2);
    let bridge = Bridge::new(1, Limits { messages: 1, bytes: 1 });
    bench.outlet = Outlet::Nats(Nats::new(NatsSetup {
        end: bridge.shard_end(0),
        listen_addrs: Vec::new(),
        on_overflow: OnOverflow::Pause,
        linger_ms: 0,
    }));
    bench.sessions.table.get_mut(1).unwrap().tie = Tie::Nats;
    let backends: Vec<_> = bench.walk(all(9)).into_iter().map(|(_, it)| it.backend).collect();
    assert_eq!(backends, [None, Some("nats".to_owned())]);
}

#[test]
fn a_session_is_described_and_closed_once() {
    let mut bench = Bench::new(3);
    bench.queue(1, 2);
    let id = bench.sessions.id(1).unwrap();
    let portrait = bench.session(&Question::Look(id)).unwrap();
    assert_eq!(portrait.id, GlobalId { shard: 3, session: id });
    assert_eq!(portrait.address, "10.0.0.0:5001".parse().unwrap());
    assert_eq!((portrait.age_ms, portrait.silent_ms, portrait.proven), (1500, 1500, false));
    assert_eq!((portrait.windows.send, portrait.windows.receive), (256, 256));
    assert_eq!((portrait.queues.unsent, portrait.queues.bytes_to_client), (2, 200));

    assert_eq!(bench.session(&Question::Close(id)), Some(portrait));
    assert_eq!(bench.session(&Question::Close(id)), None);
    assert_eq!(bench.session(&Question::Look(id)), None);
    assert_eq!(bench.stats.ends(EndReason::Operator), 1);
    assert_eq!(bench.sessions.tombstones.len(), 1);
    // The slot's next occupant is another session.
    bench.add(99);
    assert_eq!(bench.session(&Question::Look(id)), None);
}
