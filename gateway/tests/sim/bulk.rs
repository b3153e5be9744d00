//! Births, deaths and questions by the ten thousand at one instant: no turn does more than its share.

use kcp_gateway::shard::Policy;
use kcp_gateway::shard::stats::{DropReason, EndReason, Stat};
use net_io::sim::SimConfig;

use crate::push;
use crate::world::{World, policy};

const CROWD: u32 = 20_000;

/// What one turn may have done at most.
const WORK_MAX: [(Stat, u64); 4] = [
    (Stat::RxDatagrams, 384),
    (Stat::Births, 384),
    (Stat::TimersExpired, 512),
    (Stat::TxDatagrams, 768),
];

/// A shard that is looked at after each of its turns.
struct Watched {
    world: World,
    last: [u64; WORK_MAX.len()],
    last_turns: u64,
    busiest: [u64; WORK_MAX.len()],
}

impl Watched {
    fn new(policy: Policy) -> Self {
        let world = World::new(&SimConfig::default(), 1, policy);
        Self { world, last: [0; 4], last_turns: 0, busiest: [0; 4] }
    }

    /// One turn of the shard; the clock stands still.
    fn turn(&mut self) {
        self.world.shards[0].turn().unwrap();
        self.look();
    }

    fn look(&mut self) {
        let stats = self.world.stats[0].read();
        let turns = stats.get(Stat::Turns);
        assert!(turns - self.last_turns <= 1, "one turn at a time");
        self.last_turns = turns;
        for (at, (stat, max)) in WORK_MAX.into_iter().enumerate() {
            let done = stats.get(stat) - self.last[at];
            assert!(done <= max, "{done} {stat:?} in one turn");
            self.busiest[at] = self.busiest[at].max(done);
            self.last[at] = stats.get(stat);
        }
    }

    fn run(&mut self, limit_ms: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.world.net.now().0 + limit_ms * 1000;
        while self.world.net.now().0 < end {
            let left_ms = (end - self.world.net.now().0).div_ceil(1000);
            // Stops at the first turn, so that each is looked at.
            let turns = self.last_turns;
            self.world.run(left_ms, |world| world.stat(Stat::Turns) > turns);
            self.look();
            if done(&self.world) {
                return true;
            }
        }
        false
    }

    /// Everybody of the crowd comes in the same millisecond, in waves that the socket can hold.
    fn log_in(&mut self) {
        let began = self.world.net.now();
        for first in (0..CROWD).step_by(4_000) {
            for conv in first..first + 4_000 {
                self.world.ghost.send(&push(conv, 0, 0, b"hello"));
            }
            while self.world.stat(Stat::Births) < u64::from(first + 4_000) {
                self.turn();
            }
        }
        assert_eq!(self.world.net.now(), began);
    }
}

#[test]
fn a_login_storm_is_taken_in_turns() {
    let mut watched = Watched::new(Policy { sessions_max: CROWD, ..policy() });
    watched.log_in();
    assert_eq!(watched.world.stat(Stat::Sessions), u64::from(CROWD));
    assert!(watched.world.stat(Stat::TurnsOverBudget) > 0, "the budget was put to the test");
    assert_eq!(watched.world.drops(DropReason::SessionCap), 0);
}

#[test]
fn a_crowd_whose_time_ends_in_one_tick_is_reaped_in_turns() {
    let policy = Policy {
        sessions_max: CROWD,
        idle_timeout_ms: 2_000_000, // after the links are dead
        ..policy()
    };
    for idle_timeout_ms in [50, 2_000_000] {
        let mut watched = Watched::new(Policy { idle_timeout_ms, ..policy.clone() });
        watched.log_in();
        let gone = |world: &World| world.stat(Stat::Sessions) == 0;
        assert!(watched.run(1_000_000, gone), "{} left", watched.world.stat(Stat::Sessions));
        let reason = if idle_timeout_ms == 50 { EndReason::Idle } else { EndReason::DeadLink };
        assert_eq!(watched.world.ends(reason), u64::from(CROWD));
        assert_eq!(watched.busiest[2], 512, "the budget was put to the test");
        assert_eq!(watched.world.stat(Stat::StoreBytes), 0);
        // What the peak took is given back, without anything that happens.
        let settled = |world: &World| world.stat(Stat::StoreBytesRecycled) <= 4 << 20;
        assert!(watched.run(40_000, settled));
    }
}

#[test]
fn those_who_fall_silent_one_after_the_other_end_together_and_none_too_early() {
    const IDLE_MS: u32 = 8_192;
    const CLIENTS: u32 = 40;
    let mut watched = Watched::new(Policy { idle_timeout_ms: IDLE_MS, ..policy() });
    let now_ms = |watched: &Watched| watched.world.net.now().0 / 1000;
    let first = now_ms(&watched);
    for conv in 0..CLIENTS {
        watched.world.ghost.send(&push(conv, 0, 0, b"hello"));
        watched.world.run(1, |_| false);
        watched.last_turns = watched.world.stat(Stat::Turns);
    }
    let last = now_ms(&watched);
    let mut ends = Vec::new();
    while watched.world.stat(Stat::Sessions) > 0 {
        let before = watched.world.ends(EndReason::Idle);
        assert!(watched.run(20_000, |world| world.ends(EndReason::Idle) > before));
        ends.push(now_ms(&watched));
    }
    // Within a 512th of the timeout, and a tick.
    assert!(ends[0] >= first + u64::from(IDLE_MS), "one ended early: {ends:?}");
    assert!(ends[ends.len() - 1] <= last + u64::from(IDLE_MS) + 8 + 1, "one ended late: {ends:?}");
    assert!(ends.len() <= 7, "{} times to wake up for {CLIENTS} sessions: {ends:?}", ends.len());
}

#[test]
fn a_crowd_is_asked_in_turns_and_given_up_in_turns() {
    let policy = Policy { sessions_max: CROWD, keepalive_ms: 1_000, ..policy() };
    let mut watched = Watched::new(policy);
    watched.log_in();
    let gone = |world: &World| world.stat(Stat::Sessions) == 0;
    assert!(watched.run(1_000_000, gone), "{} left", watched.world.stat(Stat::Sessions));
    let ended = EndReason::ALL.iter().map(|&reason| watched.world.ends(reason)).sum::<u64>();
    assert_eq!((ended, watched.world.ends(EndReason::Keepalive)), (CROWD.into(), CROWD.into()));
}

#[test]
fn where_everything_takes_long_a_turn_does_less() {
    let policy = Policy { sessions_max: CROWD, keepalive_ms: 1_000, ..policy() };
    let mut watched = Watched::new(policy);
    // 32 pieces of work take as long as a step may.
    watched.world.net.set_look_us(1_200);
    watched.log_in();
    let gone = |world: &World| world.stat(Stat::Sessions) == 0;
    assert!(watched.run(1_000_000, gone), "{} left", watched.world.stat(Stat::Sessions));
    let [datagrams, births, timers, sent] = watched.busiest;
    assert!(datagrams <= 64 && births <= 64 && timers <= 64, "{:?}", watched.busiest);
    assert!(sent <= 64, "{sent} sent in a turn that was over its time");
}
