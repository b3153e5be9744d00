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

/// Honest clients have more to say than the shard's `store_bytes_max` holds, to a server that stands still for a while: nobody ends for
/// it, and everything arrives when it goes on.
pub(crate) fn those_who_wait_for_a_server_stay(
    world: &mut World,
    store_bytes_max: usize,
    stand_still: impl Fn(&mut World, bool),
) {
    let busy = |world: &mut World, messages, size| {
        world.add_client(20, messages, size);
        world.clients.last_mut().unwrap().outstanding = messages;
    };
    busy(world, 1_600, 1_200);
    busy(world, 120, 20_000);
    world.run(100, |_| false);
    stand_still(world, true);
    let mut most = 0;
    for tick in 0..90 {
        world.run(100, |_| false);
        most = most.max(world.stat(Stat::StoreBytes) as usize);
        if tick == 40 {
            busy(world, 120, 20_000); // to a store without room
        }
    }
    stand_still(world, false);
    assert!(most > store_bytes_max / 8 * 7, "{most} bytes: it was never full");
    assert!(most <= store_bytes_max, "{most} bytes");
    assert!(world.run(600_000, World::all_answered), "everything arrives");
    assert_eq!((world.stat(Stat::Sessions), world.stat(Stat::Births)), (60, 60), "nobody ended");
    assert_eq!(world.losses(), 0);
}

/// One of a crowd that means harm: it sends a message of as many fragments as a session may keep, but for the last one or the first
/// one, and begins again as another session when it is told off.
struct Hoarder {
    conv: u32,
    sent: u32,
    siege: Siege,
}

/// How a crowd fills a shard's memory.
#[derive(Clone, Copy)]
struct Siege {
    /// Those who leave out the first fragment, and begin before the others.
    early: u32,
    /// Those who leave out the last one.
    in_turn: u32,
    /// Bytes of a fragment.
    bytes: usize,
    store: usize,
    /// How much honest players say at once.
    sizes: [usize; 3],
    /// How many of those twelve may end, in the middle of a message, as if they were of the crowd.
    taken_for_one: usize,
}

/// Fragments of the message.
const FRAGMENTS: u32 = 128;

impl Hoarder {
    /// Sends the next fragments, and some again that may have been refused. `first` is the first one it ever sends.
    fn go_on(&mut self, first: u32, world: &mut World, rng: &mut Rng) {
        let next = self.sent;
        self.sent = (next + 1 + rng.below(8) as u32).min(FRAGMENTS - 1);
        let again: Vec<_> = (0..8).map(|_| rng.below(u64::from(self.sent)) as u32).collect();
        let mut datagram = Vec::new();
        for sn in (next..self.sent).chain(again).map(|n| first + n) {
            let left = (FRAGMENTS - 1 - sn) as u8;
            let header = Header { frg: left, ..header(self.conv, sn, 0) };
            datagram.extend(segment(header, &vec![left; self.siege.bytes]));
            if datagram.len() > 1_000 {
                world.ghost.send(&std::mem::take(&mut datagram));
            }
        }
        if !datagram.is_empty() {
            world.ghost.send(&datagram);
        }
    }
}

/// Whatever the crowd does.
fn honest_players_go_on(seed: u64, siege: Siege) {
    let link = LinkConfig { delay_us: 40_000, jitter_us: 1_000, ..LinkConfig::default() };
    let config = SimConfig { seed, link, ..SimConfig::default() };
    let mut world = World::with_store(&config, 1, policy(), siege.store);
    let mut rng = Rng::new(seed);
    // Honest players say small and large things, some of them all the time.
    for size in siege.sizes {
        world.add_client(4, 150, size);
    }
    world.run(200, |_| false);
    let crowd = |count: u32, from: u32| -> Vec<_> {
        (0..count).map(|n| Hoarder { conv: from + n, sent: 0, siege }).collect()
    };
    let (mut early, mut in_turn) = (crowd(siege.early, 800_000), crowd(siege.in_turn, 900_000));
    let early_rounds = if siege.early > 0 { 60 } else { 0 };
    let (mut silent_ms, mut most_ms) = (0, 0);
    let mut before: Vec<u32> = vec![0; 12];
    for round in 0..600_u32 {
        early.iter_mut().for_each(|hoarder| hoarder.go_on(1, &mut world, &mut rng));
        let now = if round < early_rounds { &mut [][..] } else { &mut in_turn };
        for (n, hoarder) in (0..).zip(now) {
            hoarder.go_on(0, &mut world, &mut rng);
            if hoarder.sent == FRAGMENTS - 1 && rng.below(100) == 0 {
                let conv = 1_000_000 + round * siege.in_turn + n;
                *hoarder = Hoarder { conv, sent: 0, siege };
            }
        }
        world.ghost.received.clear();
        world.run(20, |_| false);
        let now: Vec<u32> = received(&world);
        let moved = now.iter().zip(&before).any(|(now, before)| now > before);
        silent_ms = if moved { 0 } else { silent_ms + 20 };
        most_ms = most_ms.max(silent_ms);
        before = now;
        if all_but(siege.taken_for_one)(&world) {
            break;
        }
    }
    assert!(world.ends(EndReason::Unfinished) > 0, "nobody ended for it");
    let served = world.run(60_000, all_but(siege.taken_for_one));
    assert!(served, "{:?} of 150 each", received(&world));
    let all: u64 = EndReason::ALL.iter().map(|&reason| world.ends(reason)).sum();
    assert_eq!(world.stat(Stat::Births) - all, world.stat(Stat::Sessions));
    assert!(most_ms <= 2_000, "nobody was served for {most_ms} ms");
}

/// It could fill the memory three times over.
const LARGE: Siege = Siege {
    early: 0,
    in_turn: 40,
    bytes: 1_300,
    store: 2 << 20,
    sizes: [64, 20_000, 60_000],
    taken_for_one: 0,
};

#[test]
fn a_crowd_that_finishes_no_message_stops_nobody() {
    for_seeds(8, |seed| honest_players_go_on(seed, LARGE));
}

#[test]
fn a_crowd_that_fills_most_with_what_comes_early_and_the_rest_in_turn_stops_hardly_anybody() {
    for_seeds(8, |seed| {
        honest_players_go_on(
            seed,
            Siege { early: 20, sizes: [64, 2_000, 20_000], taken_for_one: 2, ..LARGE },
        )
    });
}

/// What a fragment of one byte takes is many times that.
#[test]
fn a_crowd_of_tiny_fragments_stops_nobody() {
    let sizes = [64, 500, 5_000];
    let tiny = Siege { bytes: 1, in_turn: 200, store: 768 << 10, sizes, ..LARGE };
    for_seeds(8, |seed| honest_players_go_on(seed, tiny));
}

fn all_but(count: usize) -> impl Fn(&World) -> bool {
    move |world| {
        let calls = world.clients.iter().flat_map(|client| &client.calls);
        calls.filter(|call| !call.is_complete()).count() <= count
    }
}

fn received(world: &World) -> Vec<u32> {
    world.clients.iter().flat_map(|client| &client.calls).map(|call| call.received).collect()
}
