//! A shard that does not get its core, or gets less than it needs: what arrives is late then, and late is not lost.

use kcp_gateway::shard::stats::{DropReason, Stat};
use net_io::sim::SimConfig;
use netem::{LinkConfig, Rng};

use crate::world::{World, policy};
use crate::{for_seeds, push};

fn world(seed: u64, link: LinkConfig) -> World {
    World::new(&SimConfig { seed, link, ..SimConfig::default() }, 1, policy())
}

/// Somebody else has the core for 40 to 90 ms, ten times.
fn starve(world: &mut World, rng: &mut Rng) {
    for _ in 0..10 {
        world.run(20 + rng.below(60), |_| false);
        world.run(0, |_| false); // not in the middle of a short turn: nobody takes its length
        world.starve(40 + rng.below(51));
    }
}

#[test]
fn a_starved_shard_sends_nothing_again_that_was_not_lost() {
    for_seeds(3, |seed| {
        let mut world = world(seed, LinkConfig { delay_us: 1_000, ..LinkConfig::default() });
        // More sessions than a turn takes datagrams: some acknowledgements are still waiting after the first.
        for _ in 0..3 {
            world.add_client(400, 1_000_000, 64);
        }
        starve(&mut world, &mut Rng::new(seed));
        assert_eq!(world.stat(Stat::RxOverflow), 0);
        let over_budget = world.stat(Stat::TurnsOverBudget);
        assert!(
            over_budget >= 5,
            "{over_budget}: what came while it starved was too little for a test"
        );
        assert!(
            world.stat(Stat::PushesDuplicate) > 0,
            "the clients, who know nothing of it, resend"
        );
        assert_eq!((world.stat(Stat::RtoResends), world.stat(Stat::FastResends)), (0, 0));
        assert_eq!(world.stat(Stat::Sessions), 1_200);
        assert_eq!(world.stat(Stat::Shedding), 0, "a pause is no overload");
    });
}

#[test]
fn what_was_lost_is_sent_again_by_a_starved_shard() {
    for_seeds(4, |seed| {
        let link = LinkConfig { loss_ppm: 30_000, delay_us: 1_000, ..LinkConfig::default() };
        let mut world = world(seed, link);
        world.add_client(200, 200, 64);
        starve(&mut world, &mut Rng::new(seed));
        assert!(world.stat(Stat::RtoResends) > 0);
        assert!(world.run(120_000, World::all_answered));
    });
}

/// Datagrams that a turn takes.
const TURN: u32 = 384;

/// A turn every `ms` milliseconds, and `count` datagrams for each.
fn flood(world: &mut World, turns: u32, ms: u64, count: u32) {
    for _ in 0..turns {
        for _ in 0..count {
            world.ghost.send(b"noise");
        }
        world.starve(ms);
        world.shards[0].turn().unwrap();
    }
}

/// Two clients that go on for ever, one of them always with answers on the way. With a delay: over a perfect link they would
/// have all their answers before the clock moves at all.
fn served() -> World {
    let mut world = world(0, LinkConfig { delay_us: 1_000, ..LinkConfig::default() });
    for _ in 0..2 {
        world.add_client(5, 1_000_000, 64);
        world.run(51, |_| false);
    }
    world
}

fn answered(world: &World) -> u32 {
    let calls = world.clients.iter().flat_map(|client| &client.calls);
    calls.map(|call| call.received).min().unwrap()
}

#[test]
fn an_overloaded_shard_turns_newcomers_away_and_serves_those_that_are_there() {
    let mut world = served();
    flood(&mut world, 1, 1, 4 * TURN); // three turns' worth is waiting from now on
    flood(&mut world, 4, 20, TURN - 9);
    assert_eq!(world.stat(Stat::Shedding), 0, "not at once");
    flood(&mut world, 6, 20, TURN - 9);
    assert_eq!(world.stat(Stat::Shedding), 1);
    let behind_ms = world.stat(Stat::BehindMs);
    assert!((40..=200).contains(&behind_ms), "{behind_ms} ms behind");
    let before = answered(&world);
    world.ghost.send(&push(7, 0, 0, b"let me in"));
    flood(&mut world, 20, 20, TURN - 9);
    assert!(world.drops(DropReason::Overload) > 0);
    let after = answered(&world);
    assert!(after >= before + 10, "{before}, then {after}: those that are there go on");
    assert_eq!((world.stat(Stat::Births), world.stat(Stat::Sessions)), (10, 10));
    assert_eq!((world.stat(Stat::RtoResends), world.stat(Stat::RxOverflow)), (0, 0));

    world.run(600, |_| false);
    assert_eq!((world.stat(Stat::Shedding), world.stat(Stat::BehindMs)), (0, 0));
    world.ghost.send(&push(7, 0, 0, b"let me in"));
    world.run(10, |_| false);
    assert_eq!(world.stat(Stat::Births), 11, "and afterwards newcomers are welcome again");
}

#[test]
fn a_shard_that_is_full_but_not_late_takes_newcomers() {
    let mut world = served();
    flood(&mut world, 500, 1, TURN + 2); // the queue never runs empty
    assert!(world.stat(Stat::TurnsOverBudget) >= 500);
    let behind_ms = world.stat(Stat::BehindMs);
    assert!(behind_ms < 20, "{behind_ms} ms behind");
    assert_eq!(world.stat(Stat::Shedding), 0);
    world.ghost.send(&push(7, 0, 0, b"let me in"));
    flood(&mut world, 20, 1, TURN - 9);
    assert_eq!((world.stat(Stat::Births), world.stat(Stat::RtoResends)), (11, 0));
}
