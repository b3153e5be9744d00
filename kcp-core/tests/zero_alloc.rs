//! At a constant number of sessions and a constant load nothing is allocated: blocks, queues and buffers are recycled.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};

/// Sessions in parallel, each with both ends in one store.
const SESSIONS: usize = 16;

#[test]
fn nothing_is_allocated_after_warm_up() {
    let mut world = World::new(KcpConfig::game());
    world.warm_up();
    let before = world.received;
    let measured = allocation_counter::measure(|| world.run(400, 7));
    assert_eq!(measured.count_total, 0, "{measured:?}");
    assert!(world.received - before > 400 * SESSIONS, "{} messages", world.received - before);
}

#[test]
fn nothing_is_allocated_by_a_byte_stream() {
    let mut world = World::new(KcpConfig { stream: true, ..KcpConfig::game() });
    world.warm_up();
    let measured = allocation_counter::measure(|| world.run(400, 7));
    assert_eq!(measured.count_total, 0, "{measured:?}");
}

#[test]
fn idle_sessions_hold_no_storage() {
    let mut world = World::new(KcpConfig::game());
    world.run(100, 3);
    assert!(world.store.bytes_used() > 0);
    world.quiet(2_000);
    assert_eq!(world.store.bytes_used(), 0);
    assert!(world.peers.iter().flatten().all(Kcp::is_idle));
    world.store.trim(0);
    assert_eq!(world.store.bytes_recycled(), 0);
}

struct World {
    config: KcpConfig,
    store: Store,
    peers: Vec<[Kcp; 2]>,
    /// Datagrams under way to `peers[session][end]`; `spare` are their recycled buffers.
    wire: VecDeque<(usize, usize, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    message: Vec<u8>,
    now: Millis,
    sent: u32,
    received: usize,
}

impl World {
    fn new(config: KcpConfig) -> Self {
        let conv = |session| Conv(u32::try_from(session).unwrap());
        Self {
            config,
            store: Store::new(64 << 20),
            peers: (0..SESSIONS).map(|i| [Kcp::new(conv(i)), Kcp::new(conv(i))]).collect(),
            wire: VecDeque::with_capacity(8_192),
            spare: (0..8_192).map(|_| vec![0; 1_400]).collect(),
            message: vec![0; 16_384],
            now: Millis(0),
            sent: 0,
            received: 0,
        }
    }

    /// Harder than what is measured: every session works off a backlog while every third datagram is lost, so that its
    /// queues and the pools have seen worse.
    fn warm_up(&mut self) {
        for _ in 0..4 {
            for peer in self.peers.iter_mut().flatten() {
                let mut cx = Cx { config: &self.config, store: &mut self.store };
                for len in [64, 1, 1_376, 300, 5_000].repeat(20) {
                    peer.send(&mut cx, &self.message[..len]).unwrap();
                }
            }
            self.run(200, 3);
        }
    }

    /// Rounds of 10 ms in which each end sends a message of a few sizes and every `lose_each`th datagram is lost.
    fn run(&mut self, rounds: u32, lose_each: u32) {
        let lengths = [64, 1, 1_376, 300, 5_000, 64, 64];
        for round in 0..rounds {
            for session in 0..SESSIONS {
                for end in 0..2 {
                    let len = lengths[(round as usize + session + end) % lengths.len()];
                    let mut cx = Cx { config: &self.config, store: &mut self.store };
                    if self.peers[session][end].wait_snd() < 200 {
                        self.peers[session][end].send(&mut cx, &self.message[..len]).unwrap();
                    }
                }
            }
            self.turn(lose_each);
        }
    }

    fn quiet(&mut self, rounds: u32) {
        (0..rounds).for_each(|_| self.turn(u32::MAX));
    }

    fn turn(&mut self, lose_each: u32) {
        self.now = self.now.add(10);
        for _ in 0..self.wire.len() {
            let (session, end, datagram) = self.wire.pop_front().unwrap();
            let mut cx = Cx { config: &self.config, store: &mut self.store };
            let peer = &mut self.peers[session][end];
            let received = &mut self.received;
            let taken = peer.handle_datagram(&mut cx, self.now, &datagram, |_| {
                *received += 1;
                true
            });
            taken.unwrap();
            while peer.recv(&mut cx, &mut self.message).is_ok() {
                *received += 1;
            }
            self.spare.push(datagram);
        }
        for session in 0..SESSIONS {
            for end in 0..2 {
                self.flush(session, end, lose_each);
            }
        }
    }

    fn flush(&mut self, session: usize, end: usize, lose_each: u32) {
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        let peer = &mut self.peers[session][end];
        peer.flush(&mut cx, self.now);
        loop {
            let mut datagram = self.spare.pop().unwrap();
            datagram.resize(1_400, 0);
            let Some(len) = peer.poll_transmit(&mut cx, self.now, &mut datagram) else {
                self.spare.push(datagram);
                break;
            };
            datagram.truncate(len);
            self.sent += 1;
            if self.sent.is_multiple_of(lose_each) {
                self.spare.push(datagram);
            } else {
                self.wire.push_back((session, 1 - end, datagram));
            }
        }
    }
}
