//! The wheel against a sorted map, and its bounds on work and early wake-ups.

extern crate std;

use std::collections::{BTreeMap, BTreeSet};
use std::println;

use super::*;

/// xorshift64*: enough to choose operations.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn index(&mut self, n: u32) -> u32 {
        u32::try_from(self.below(u64::from(n))).unwrap()
    }
}

/// The same timers in a sorted map, on a clock that does not wrap.
struct Model {
    wheel: Wheel,
    start: u32,
    elapsed: u64,
    by_deadline: BTreeSet<(u64, u32)>,
    deadlines: BTreeMap<u32, u64>,
}

impl Model {
    fn new(start: u32, len: usize) -> Self {
        let mut wheel = Wheel::new(Millis(start));
        wheel.grow(len);
        Self { wheel, start, elapsed: 0, by_deadline: BTreeSet::new(), deadlines: BTreeMap::new() }
    }

    fn millis(&self, elapsed: u64) -> Millis {
        let wrapped = u32::try_from(elapsed & u64::from(u32::MAX)).unwrap();
        Millis(self.start.wrapping_add(wrapped))
    }

    fn now(&self) -> Millis {
        self.millis(self.elapsed)
    }

    fn arm(&mut self, index: u32, deadline: u64) {
        self.forget(index);
        self.by_deadline.insert((deadline, index));
        self.deadlines.insert(index, deadline);
        self.wheel.arm(index, self.millis(deadline));
    }

    fn cancel(&mut self, index: u32) {
        self.forget(index);
        self.wheel.cancel(index);
    }

    fn forget(&mut self, index: u32) -> Option<u64> {
        let deadline = self.deadlines.remove(&index)?;
        assert!(self.by_deadline.remove(&(deadline, index)));
        Some(deadline)
    }

    /// One pop. What comes out was armed and is due.
    fn pop(&mut self) -> Option<u32> {
        let index = self.wheel.pop(self.now())?;
        let deadline = self.forget(index).expect("only armed timers expire");
        assert!(deadline <= self.elapsed, "{index} expired {} ms early", deadline - self.elapsed);
        assert_eq!(self.wheel.deadline(index), None);
        Some(index)
    }

    /// Pops until the wheel would wait: nothing that is due may be left.
    fn drain(&mut self) {
        let mut empty_handed = 0;
        loop {
            if self.pop().is_none() {
                match self.wheel.next_deadline() {
                    Some(at) if at.since(self.now()) <= 0 => empty_handed += 1,
                    Some(_) | None => break,
                }
            }
            assert!(empty_handed <= 1 + self.deadlines.len() / REFILE_MAX, "no progress");
        }
        if let Some(&(deadline, index)) = self.by_deadline.first() {
            assert!(deadline > self.elapsed, "{index} was missed");
        }
    }

    fn check(&self) {
        for (&index, &deadline) in &self.deadlines {
            assert_eq!(self.wheel.deadline(index), Some(self.millis(deadline)));
        }
        match (self.by_deadline.first(), self.wheel.next_deadline()) {
            (None, None) => {}
            (Some(&(deadline, _)), Some(at)) => {
                let late = at.since(self.millis(deadline));
                assert!(late <= 0 || deadline <= self.elapsed, "would wake {late} ms late");
            }
            (armed, woken) => panic!("armed {armed:?}, wakes {woken:?}"),
        }
        self.check_structure();
    }

    /// Rings are well linked, slots hold what they should, and the occupancy bits say so.
    fn check_structure(&self) {
        let wheel = &self.wheel;
        let mut seen = 0;
        for head in FIRST_HEAD..=REFILE {
            let mut at = head;
            loop {
                let next = wheel.link(at).next;
                assert_eq!(wheel.link(next).prev, at);
                at = next;
                if at == head {
                    break;
                }
                seen += 1;
                assert!(self.deadlines.contains_key(&at));
                if head < DUE {
                    let deadline = wheel.node(at).deadline;
                    let level = level_of(wheel.clock, deadline);
                    assert_eq!(head, ring(level, digit(deadline, level)));
                }
            }
            if head < DUE {
                let slot = head - FIRST_HEAD;
                let bit = wheel.occupied[(slot / SLOTS) as usize] >> (slot % SLOTS) & 1;
                assert_eq!(bit == 0, wheel.is_empty(head));
            }
        }
        assert_eq!(seen, self.deadlines.len());
    }
}

const STARTS: [u32; 5] = [0, u32::MAX - 70, u32::MAX - 5_000, (1 << 31) - 100, (1 << 30) - 1];

/// Random operations: short and long timers, re-arm out of the pop loop, budgets, steps of nothing to weeks.
fn run_script(seed: u64, steps: usize) {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let start = match rng.index(6) {
        5 => rng.index(u32::MAX),
        at => STARTS[at as usize],
    };
    let len = 1 + rng.index(if seed.is_multiple_of(8) { 6_000 } else { 60 });
    let mut model = Model::new(start, len as usize);
    // Half of a clock's turn, less what the script lets the wheel's clock fall behind.
    let furthest = (1 << 31) - 1 - 100 * steps as u64;
    for _ in 0..steps {
        let index = rng.index(len);
        match rng.index(16) {
            0..6 => {
                let reach = rng.below(32);
                let ahead = rng.below(1 << reach).min(furthest);
                let deadline = (model.elapsed + ahead).saturating_sub(rng.below(3));
                model.arm(index, deadline);
            }
            6 => model.cancel(index),
            7..12 => {
                let mut budget = rng.below(20);
                while let Some(popped) = model.pop() {
                    if rng.below(3) == 0 {
                        model.arm(popped, model.elapsed + rng.below(200));
                    }
                    budget = budget.saturating_sub(1);
                    if budget == 0 {
                        break;
                    }
                }
            }
            12 => model.drain(),
            13 => {
                // To the next wake-up, as a driver does.
                if let Some(at) = model.wheel.next_deadline() {
                    model.elapsed += u64::try_from(at.since(model.now()).max(0)).unwrap();
                }
                model.drain();
            }
            14 => model.elapsed += rng.below(100),
            _ => {
                let reach = rng.below(31);
                model.elapsed += rng.below(1 << reach);
                model.drain();
            }
        }
        model.check();
    }
}

#[test]
fn agrees_with_a_sorted_map() {
    for seed in 0..400 {
        let outcome = std::panic::catch_unwind(|| run_script(seed, 300));
        if let Err(panic) = outcome {
            println!("seed {seed}: rerun with run_script({seed}, 300)");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn every_distance_expires_on_the_tick() {
    for start in STARTS {
        for exponent in 0..31 {
            for ahead in [(1_u64 << exponent) - 1, 1 << exponent, (1 << exponent) + 1] {
                let mut model = Model::new(start, 1);
                model.arm(0, ahead);
                let mut wakes = 0;
                while let Some(at) = model.wheel.next_deadline() {
                    model.elapsed += u64::try_from(at.since(model.now())).unwrap();
                    wakes += 1;
                    if model.pop().is_some() {
                        break;
                    }
                    model.check();
                }
                assert_eq!(model.elapsed, ahead, "start {start}");
                assert!(wakes <= LEVELS, "start {start}, {ahead} ms ahead: {wakes} wake-ups");
                assert_eq!(model.wheel.next_deadline(), None);
            }
        }
    }
}

#[test]
fn a_million_due_in_one_tick_cost_each_pop_the_same() {
    const MILLION: u32 = 1_000_000;
    let start = Millis(u32::MAX - 1_000);
    let mut wheel = Wheel::new(start);
    wheel.grow(MILLION as usize);
    // Two hours: three levels up, so the slot has to be filed again on the way down.
    let deadline = start.add(7_200_000);
    for index in 0..MILLION {
        wheel.arm(index, deadline);
    }
    let mut now = start;
    let mut filed_again = 0_u64;
    let mut popped = Vec::new();
    while popped.len() < MILLION as usize {
        let Some(at) = wheel.next_deadline() else { panic!("timers were lost") };
        assert!(at.since(deadline) <= 0);
        if at.since(now) > 0 {
            now = at;
        }
        let moved = refile_steps(&mut wheel, now, &mut popped);
        assert!(moved <= REFILE_MAX);
        filed_again += moved as u64;
    }
    assert_eq!(now, deadline);
    assert_eq!(wheel.next_deadline(), None);
    assert!(filed_again <= 5 * u64::from(MILLION), "{filed_again} moves");
    popped.sort_unstable();
    assert!(popped.iter().copied().eq(0..MILLION), "each exactly once");
}

/// One pop; returns how many timers it filed again, told by how much nearer the ring's end has come.
fn refile_steps(wheel: &mut Wheel, now: Millis, popped: &mut Vec<u32>) -> usize {
    let before: Vec<u32> = ring_start(wheel, REFILE_MAX + 1);
    popped.extend(wheel.pop(now));
    let after = wheel.first(REFILE);
    before.iter().position(|&index| Some(index) == after).unwrap_or(before.len())
}

fn ring_start(wheel: &Wheel, len: usize) -> Vec<u32> {
    let mut start = Vec::new();
    let mut at = REFILE;
    while start.len() < len {
        at = wheel.link(at).next;
        if at == REFILE {
            break;
        }
        start.push(at);
    }
    start
}

#[test]
fn a_far_jump_expires_everything_at_once() {
    let start = Millis(u32::MAX - 1_000);
    let mut wheel = Wheel::new(start);
    wheel.grow(10_000);
    for index in 0..10_000 {
        wheel.arm(index, start.add(index * 60_000));
    }
    let now = start.add((1 << 31) - 1);
    // Whole slots pass straight to the due ring: nothing has to be filed again on the way.
    for _ in 0..10_000 {
        assert!(wheel.pop(now).is_some());
    }
    assert_eq!(wheel.pop(now), None);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn an_empty_wheel_takes_any_clock() {
    let mut wheel = Wheel::new(Millis(0));
    wheel.grow(1);
    // 40 days, which reads as 9 days back.
    let now = Millis(40 * 86_400_000);
    assert_eq!(wheel.pop(now), None);
    wheel.arm(0, now.add(10));
    assert_eq!(wheel.pop(now.add(9)), None);
    assert_eq!(wheel.pop(now.add(10)), Some(0));
}

#[test]
fn a_clock_that_goes_back_is_ignored() {
    let mut wheel = Wheel::new(Millis(1_000));
    wheel.grow(2);
    wheel.arm(0, Millis(1_010));
    wheel.arm(1, Millis(1_020));
    assert_eq!(wheel.pop(Millis(900)), None);
    assert_eq!(wheel.pop(Millis(1_010)), Some(0));
    assert_eq!(wheel.pop(Millis(1_000)), None);
    assert_eq!(wheel.next_deadline(), Some(Millis(1_020)));
}

#[test]
fn a_deadline_in_the_past_expires_at_once() {
    let mut wheel = Wheel::new(Millis(5));
    wheel.grow(1);
    wheel.arm(0, Millis(5).add(u32::MAX - 10));
    assert_eq!(wheel.next_deadline(), Some(Millis(5)));
    assert_eq!(wheel.pop(Millis(5)), Some(0));
}

#[test]
fn cancelling_what_is_due_or_being_filed_again_takes_it_out() {
    let mut wheel = Wheel::new(Millis(0));
    wheel.grow(200);
    for index in 0..200 {
        wheel.arm(index, Millis(4_096 + index));
    }
    assert_eq!(wheel.pop(Millis(4_096)), Some(0));
    assert!(!wheel.is_empty(REFILE));
    for index in 1..199 {
        wheel.cancel(index);
    }
    assert!(wheel.is_empty(REFILE) || wheel.first(REFILE) == Some(199));
    while wheel.next_deadline() == Some(Millis(4_096)) {
        assert_eq!(wheel.pop(Millis(4_096)), None);
    }
    assert_eq!(wheel.pop(Millis(5_000)), Some(199));
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn growth_keeps_what_is_armed() {
    let mut wheel = Wheel::new(Millis(0));
    wheel.grow(1);
    wheel.arm(0, Millis(7));
    wheel.grow(3 * Wheel::CHUNK);
    wheel.grow(5);
    assert_eq!(wheel.chunks.len(), 3);
    wheel.arm(u32::try_from(3 * Wheel::CHUNK - 1).unwrap(), Millis(7));
    assert_eq!(wheel.deadline(0), Some(Millis(7)));
    assert!(wheel.pop(Millis(7)).is_some());
    assert!(wheel.pop(Millis(7)).is_some());
}

#[test]
#[should_panic(expected = "a wheel has room for")]
fn growth_stops_at_its_bound() {
    Wheel::new(Millis(0)).grow(Wheel::LEN_MAX + 1);
}

#[test]
fn what_is_released_has_room_again_when_it_is_made() {
    let mut wheel = Wheel::new(Millis(0));
    wheel.grow(3 * Wheel::CHUNK);
    let [low, high] = [0, 2 * Wheel::CHUNK].map(|index| u32::try_from(index).unwrap());
    wheel.arm(low, Millis(5));
    wheel.arm(high, Millis(6));
    assert_eq!(wheel.pop(Millis(6)), Some(low));
    wheel.release(low + 7);
    assert_eq!((wheel.pop(Millis(6)), wheel.pop(Millis(6))), (Some(high), None));
    wheel.make_room(low);
    wheel.make_room(high);
    assert_eq!(wheel.deadline(low), None);
    wheel.arm(low, Millis(9));
    assert_eq!(wheel.pop(Millis(9)), Some(low));
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn what_is_released_has_no_timer() {
    let mut wheel = Wheel::new(Millis(0));
    wheel.grow(1);
    wheel.release(0);
    wheel.arm(0, Millis(1));
}
