//! Memory that runs short: who has to end, and who does not notice.

use kcp_core::wire::Header;
use kcp_gateway::shard::backend_stats::Parting;
use kcp_gateway::shard::stats::{EndReason, Stat};
use net_io::sim::SimConfig;
use netem::{LinkConfig, Rng};

use crate::world::{Call, World, policy};
use crate::{for_seeds, header, segment};

/// Clients that take nothing fill what may wait between a backend that echoes and its sessions: of them, some end, and others
/// are served. `pool_bytes_max` is what may wait; each session may have a fraction of it queued.
pub(crate) fn those_who_hold_most_end(world: &mut World, pool_bytes_max: usize) {
    world.add_client(40, 100, 20_000);
    world.clients[0].outstanding = 100;
    world.clients[0].reading = false;
    world.add_client(10, 300, 1000);
    let mut most = 0;
    for _ in 0..400 {
        world.run(50, |_| false);
        most = most.max(world.stat(Stat::PoolBytes));
    }
    assert!(most <= pool_bytes_max as u64, "{most}");
    let shed = world.ends(EndReason::Shed);
    assert!((1..40).contains(&shed), "{shed} ended");
    assert_eq!(world.ends(EndReason::PoolFull), 0);
    assert!(world.clients[1].calls.iter().all(Call::is_complete), "and the others are served");
    assert_eq!(world.backend(0, |b| b.partings(Parting::Shed)), shed);
}

/// One of a crowd that means harm: it sends a message of as many fragments as a session may keep, but for the last one, in
/// order, and begins again as another session when it is told off.
struct Hoarder {
    conv: u32,
    sent: u32,
}

/// Fragments of the message, and how many bytes each has.
const FRAGMENTS: u32 = 128;
const BYTES: usize = 1_300;

impl Hoarder {
    /// Sends the next fragments, and some again that may have been refused.
    fn go_on(&mut self, world: &mut World, rng: &mut Rng) {
        let next = self.sent;
        self.sent = (next + 1 + rng.below(8) as u32).min(FRAGMENTS - 1);
        let again: Vec<_> = (0..8).map(|_| rng.below(u64::from(self.sent)) as u32).collect();
        for sn in (next..self.sent).chain(again) {
            let left = (FRAGMENTS - 1 - sn) as u8;
            let header = Header { frg: left, ..header(self.conv, sn, 0) };
            world.ghost.send(&segment(header, &[left; BYTES]));
        }
    }
}

/// Memory for the payload of a shard that the crowd could fill three times over, and how many they are.
const STORE: usize = 2 << 20;
const CROWD: u32 = 40;

#[test]
fn a_crowd_that_finishes_no_message_stops_nobody() {
    for_seeds(8, |seed| {
        let link = LinkConfig { delay_us: 40_000, jitter_us: 1_000, ..LinkConfig::default() };
        let config = SimConfig { seed, link, ..SimConfig::default() };
        let mut world = World::with_store(&config, 1, policy(), STORE);
        let mut rng = Rng::new(seed);
        // Honest players say small and large things, some of them all the time.
        for size in [64, 20_000, 60_000] {
            world.add_client(4, 150, size);
        }
        world.run(200, |_| false);
        let mut crowd: Vec<_> =
            (0..CROWD).map(|n| Hoarder { conv: 900_000 + n, sent: 0 }).collect();
        let (mut silent_ms, mut most_ms) = (0, 0);
        let mut before: Vec<u32> = vec![0; 12];
        for round in 0..600_u32 {
            for (n, hoarder) in (0..).zip(&mut crowd) {
                hoarder.go_on(&mut world, &mut rng);
                if hoarder.sent == FRAGMENTS - 1 && rng.below(100) == 0 {
                    *hoarder = Hoarder { conv: 1_000_000 + round * CROWD + n, sent: 0 };
                }
            }
            world.ghost.received.clear();
            world.run(20, |_| false);
            let now: Vec<u32> = received(&world);
            let moved = now.iter().zip(&before).any(|(now, before)| now > before);
            silent_ms = if moved { 0 } else { silent_ms + 20 };
            most_ms = most_ms.max(silent_ms);
            before = now;
            if world.all_answered() {
                break;
            }
        }
        assert!(world.ends(EndReason::Unfinished) > 0, "the crowd never filled the store");
        assert!(world.run(60_000, World::all_answered), "{:?} of 150 each", received(&world));
        let all: u64 = EndReason::ALL.iter().map(|&reason| world.ends(reason)).sum();
        assert_eq!(world.stat(Stat::Births) - all, world.stat(Stat::Sessions));
        assert!(most_ms <= 2_000, "nobody was served for {most_ms} ms");
    });
}

fn received(world: &World) -> Vec<u32> {
    world.clients.iter().flat_map(|client| &client.calls).map(|call| call.received).collect()
}
