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
    let busy = |world: &mut World, sessions, messages, size| {
        world.add_client(sessions, messages, size);
        world.clients.last_mut().unwrap().outstanding = messages;
    };
    busy(world, 20, 1_600, 1_200);
    busy(world, 12, 60, 40_000);
    world.run(100, |_| false);
    stand_still(world, true);
    let mut most = 0;
    for tick in 0..90 {
        world.run(100, |_| false);
        most = most.max(world.stat(Stat::StoreBytes) as usize);
        if tick == 40 {
            busy(world, 12, 60, 40_000); // to a store without room
        }
    }
    stand_still(world, false);
    // From seven eighths on it is full. Windows close before, so that only the rest of messages that were begun takes it that far.
    assert!(most > store_bytes_max / 16 * 13, "{most} bytes: it was never short");
    assert!(most <= store_bytes_max, "{most} bytes");
    assert!(world.run(600_000, World::all_answered), "everything arrives");
    assert_eq!((world.stat(Stat::Sessions), world.stat(Stat::Births)), (44, 44), "nobody ended");
    assert_eq!(world.losses(), 0);
}

/// One of a crowd that means harm: it sends what makes the gateway keep as much for it as a session may, and begins again as another
/// session when it is told off.
struct Hoarder {
    conv: u32,
    sent: u32,
    manner: Manner,
    bytes: usize,
}

/// How it makes the gateway keep that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It leaves out the first fragment of a message.
    Early,
    /// It leaves out the last one.
    Unfinished,
    /// It says whole messages, and has no room for what comes back.
    Deaf,
    /// It has room for one segment, and takes so many a second.
    Slow(u32),
}

/// How a crowd fills a shard's memory.
#[derive(Clone, Copy)]
pub(crate) struct Siege {
    /// Those who are early, and begin before the others.
    early: u32,
    others: u32,
    manner: Manner,
    /// Bytes of a fragment.
    bytes: usize,
    pub(crate) store: usize,
    /// How much honest players say at once.
    sizes: [usize; 3],
    /// How many of those twelve may end, in the middle of a message, as if they were of the crowd.
    taken_for_one: usize,
    /// For how long no honest player may be served, in milliseconds.
    silent_max_ms: u32,
}

/// Fragments of a message.
const FRAGMENTS: u32 = 128;
/// Messages that those say who take little or nothing.
const MESSAGES: u32 = 400;
/// How often they all speak, in milliseconds.
const ROUND_MS: u32 = 20;

impl Hoarder {
    fn has_sent_all(&self) -> bool {
        self.sent == self.last()
    }

    fn last(&self) -> u32 {
        if self.is_whole() { MESSAGES } else { FRAGMENTS - 1 }
    }

    fn is_whole(&self) -> bool {
        matches!(self.manner, Manner::Deaf | Manner::Slow(_))
    }

    /// Sends the next segments, and some again that may have been refused.
    fn go_on(&mut self, round: u32, world: &mut World, rng: &mut Rng) {
        let next = self.sent;
        self.sent = (next + 1 + rng.below(8) as u32).min(self.last());
        let again: Vec<_> = (0..8).map(|_| rng.below(u64::from(self.sent)) as u32).collect();
        let first = u32::from(self.manner == Manner::Early);
        let (wnd, una) = match self.manner {
            Manner::Early | Manner::Unfinished => (128, 0),
            Manner::Deaf => (0, 0),
            Manner::Slow(per_s) => (1, round * ROUND_MS * per_s / 1_000),
        };
        let mut datagram = Vec::new();
        for sn in (next..self.sent).chain(again).map(|n| first + n) {
            let frg = if self.is_whole() { 0 } else { (FRAGMENTS - 1 - sn) as u8 };
            let header = Header { frg, wnd, ..header(self.conv, sn, una) };
            datagram.extend(segment(header, &vec![frg; self.bytes]));
            if datagram.len() > 1_000 {
                world.ghost.send(&std::mem::take(&mut datagram));
            }
        }
        if !datagram.is_empty() {
            world.ghost.send(&datagram);
        }
    }
}

/// Where they play.
pub(crate) fn besieged(seed: u64) -> SimConfig {
    let link = LinkConfig { delay_us: 40_000, jitter_us: 1_000, ..LinkConfig::default() };
    SimConfig { seed, link, ..SimConfig::default() }
}

/// Whatever the crowd does.
pub(crate) fn honest_players_go_on(world: &mut World, seed: u64, siege: Siege) {
    let mut rng = Rng::new(seed);
    // Honest players say small and large things, some of them all the time.
    for size in siege.sizes {
        world.add_client(4, 150, size);
    }
    world.run(200, |_| false);
    let Siege { manner, bytes, .. } = siege;
    let crowd = |count: u32, from: u32, manner| -> Vec<_> {
        (0..count).map(|n| Hoarder { conv: from + n, sent: 0, manner, bytes }).collect()
    };
    let mut early = crowd(siege.early, 800_000, Manner::Early);
    let mut others = crowd(siege.others, 900_000, manner);
    let early_rounds = if siege.early > 0 { 60 } else { 0 };
    let (mut silent_ms, mut most_ms) = (0, 0);
    let mut before: Vec<u32> = vec![0; 12];
    for round in 0..600_u32 {
        early.iter_mut().for_each(|hoarder| hoarder.go_on(round, world, &mut rng));
        let now = if round < early_rounds { &mut [][..] } else { &mut others };
        for (n, hoarder) in (0..).zip(now) {
            hoarder.go_on(round, world, &mut rng);
            if hoarder.has_sent_all() && rng.below(100) == 0 {
                let conv = 1_000_000 + round * siege.others + n;
                *hoarder = Hoarder { conv, sent: 0, manner, bytes };
            }
        }
        world.ghost.received.clear();
        world.run(ROUND_MS.into(), |_| false);
        let now: Vec<u32> = received(world);
        let moved = now.iter().zip(&before).any(|(now, before)| now > before);
        silent_ms = if moved { 0 } else { silent_ms + ROUND_MS };
        most_ms = most_ms.max(silent_ms);
        before = now;
        if all_but(siege.taken_for_one)(world) {
            break;
        }
    }
    let ended = world.ends(EndReason::Unfinished) + world.ends(EndReason::Shed);
    assert!(ended > 0, "nobody ended for it");
    let served = world.run(60_000, all_but(siege.taken_for_one));
    assert!(served, "{:?} of 150 each", received(world));
    let all: u64 = EndReason::ALL.iter().map(|&reason| world.ends(reason)).sum();
    assert_eq!(world.stat(Stat::Births) - all, world.stat(Stat::Sessions));
    assert!(most_ms <= siege.silent_max_ms, "nobody was served for {most_ms} ms");
}

fn with_an_echo(seed: u64, siege: Siege) {
    let mut world = World::with_store(&besieged(seed), 1, policy(), siege.store);
    honest_players_go_on(&mut world, seed, siege);
}

/// It could fill the memory three times over.
const LARGE: Siege = Siege {
    early: 0,
    others: 40,
    manner: Manner::Unfinished,
    bytes: 1_300,
    store: 2 << 20,
    sizes: [64, 20_000, 60_000],
    taken_for_one: 0,
    silent_max_ms: 2_000,
};

/// Ten times over, within a tenth of a second, and who does not take what is there is not blamed within a second.
pub(crate) const DEAF: Siege = Siege { manner: Manner::Deaf, silent_max_ms: 8_000, ..LARGE };

#[test]
fn a_crowd_that_finishes_no_message_stops_nobody() {
    for_seeds(8, |seed| with_an_echo(seed, LARGE));
}

#[test]
fn a_crowd_that_fills_most_with_what_comes_early_and_the_rest_in_turn_stops_hardly_anybody() {
    for_seeds(8, |seed| {
        with_an_echo(
            seed,
            Siege { early: 20, sizes: [64, 2_000, 20_000], taken_for_one: 2, ..LARGE },
        )
    });
}

/// What a fragment of one byte takes is many times that.
#[test]
fn a_crowd_of_tiny_fragments_stops_nobody() {
    let sizes = [64, 500, 5_000];
    let tiny = Siege { bytes: 1, others: 200, store: 768 << 10, sizes, ..LARGE };
    for_seeds(8, |seed| with_an_echo(seed, tiny));
}

#[test]
fn a_crowd_that_takes_nothing_stops_nobody() {
    for_seeds(8, |seed| with_an_echo(seed, DEAF));
}

#[test]
fn a_crowd_that_takes_a_little_now_and_then_stops_nobody() {
    for_seeds(8, |seed| with_an_echo(seed, Siege { manner: Manner::Slow(5), ..DEAF }));
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
