//! The timer wheel and the session table, from a thousand entries to ten million.

use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;

use kcp_core::{Conv, Millis, Wheel};
use kcp_gateway::session::{Key, Peer, Session};
use kcp_gateway::shard::table::{AHEAD, Table};
use net_io::clock::processor_time;

use crate::micro::Effort;

/// Measures both and prints their tables.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(effort: Effort) {
    println!("The timer wheel, ns per timer, deadlines at random within a minute\n");
    println!("{:>10} {:>8} {:>8} {:>8} {:>8}", "timers", "arm", "move", "cancel", "expire");
    for count in sizes(effort) {
        let [arm, rearm, cancel, expire] = wheel(count);
        println!("{count:>10} {arm:>8.1} {rearm:>8.1} {cancel:>8.1} {expire:>8.1}");
    }
    println!("\nThe session table, ns per session, keys at random\n");
    println!("{:>10} {:>8} {:>8} {:>8} {:>8}", "sessions", "insert", "find", "miss", "of 16");
    for count in sizes(effort) {
        let needed = u64::from(count) * SESSION_BYTES;
        if available_bytes().is_some_and(|available| available < needed) {
            println!("{count:>10} not measured: takes {} MiB, more than is free", needed >> 20);
            continue;
        }
        let [insert, find, miss, of_many] = table(count, effort.repeats);
        println!("{count:>10} {insert:>8.1} {find:>8.1} {miss:>8.1} {of_many:>8.1}");
    }
    println!();
}

fn sizes(effort: Effort) -> impl Iterator<Item = u32> {
    (3..).map(|power| 10_u32.pow(power)).take_while(move |&count| count <= effort.sessions_max)
}

/// Nanoseconds of arming a timer, moving it, cancelling it, and of its expiry while the clock goes on millisecond by
/// millisecond.
fn wheel(count: u32) -> [f64; 4] {
    let mut wheel = Wheel::new(Millis(0));
    wheel.grow(count as usize);
    let mut random = Random(u64::from(count));
    let arm_all = |wheel: &mut Wheel, random: &mut Random| {
        timed(count, || {
            for index in 0..count {
                wheel.arm(index, Millis(1 + random.below(MINUTE_MS)));
            }
        })
    };
    let arm = arm_all(&mut wheel, &mut random);
    let rearm = arm_all(&mut wheel, &mut random);
    let cancel = timed(count, || (0..count).for_each(|index| wheel.cancel(index)));
    arm_all(&mut wheel, &mut random);
    let mut expired = 0;
    let expire = timed(count, || {
        for ms in 0..=MINUTE_MS {
            while let Some(index) = wheel.pop(Millis(ms)) {
                black_box(index);
                expired += 1;
            }
        }
    });
    assert_eq!(expired, count, "every timer rings once");
    [arm, rearm, cancel, expire]
}

/// Nanoseconds of a session's birth, of finding one by its key, of not finding one, and of finding one of several that are
/// looked for at once.
fn table(count: u32, repeats: u32) -> [f64; 4] {
    let mut table = Table::new(count, 1);
    let insert = timed(count, || {
        for n in 0..count {
            table.insert(Session::new(key(n), 0, 0, Millis(0)));
        }
    });
    let mut random = Random(u64::from(count));
    let find = timed(repeats, || {
        for _ in 0..repeats {
            let found = table.find(&key(random.below(count)));
            assert!(black_box(found).is_some(), "it was put in");
        }
    });
    let miss = timed(repeats, || {
        for _ in 0..repeats {
            let found = table.find(&key(u32::MAX - random.below(count)));
            assert!(black_box(found).is_none(), "nobody put it in");
        }
    });
    let batches = repeats.div_ceil(u32::try_from(AHEAD).unwrap_or(u32::MAX));
    let of_many = timed(repeats, || {
        for _ in 0..batches {
            let keys = [(); AHEAD].map(|()| key(random.below(count)));
            let _ = table.warm_keys(&keys);
            for key in &keys {
                assert!(black_box(table.find(key)).is_some(), "it was put in");
            }
        }
    });
    [insert, find, miss, of_many]
}

/// Client `n`: an address of its own and a conversation that tells nothing about it.
fn key(n: u32) -> Key {
    let addr = SocketAddr::from((n.to_be_bytes(), 4000));
    Key { peer: Peer::from(addr), conv: Conv(n.wrapping_mul(0x9E37_79B1)) }
}

/// Processor time: others may use the machine meanwhile.
fn timed(count: u32, work: impl FnOnce()) -> f64 {
    let began = processor_time();
    work();
    (processor_time() - began).as_secs_f64() * 1e9 / f64::from(count)
}

/// Xorshift: the same sequence each run, at the cost of a few instructions.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scaled = ((self.0 >> 32) * u64::from(limit)) >> 32;
        u32::try_from(scaled).unwrap_or(0)
    }
}

/// Memory that a new user could have without swapping; `None` where the kernel does not tell.
fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A session with its entry in the index, and something to spare.
const SESSION_BYTES: u64 = 300;
const MINUTE_MS: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_run_and_check_themselves() {
        assert!(wheel(1000).iter().all(|ns| *ns > 0.0));
        assert!(table(1000, 1000).iter().all(|ns| *ns > 0.0));
    }

    #[test]
    fn sizes_are_powers_of_ten() {
        let effort = Effort { sessions_max: 100_000, ..Effort::SMOKE };
        assert_eq!(sizes(effort).collect::<Vec<_>>(), [1000, 10_000, 100_000]);
        assert!(available_bytes().is_some());
    }

    #[test]
    fn random_numbers_are_below_their_limit_and_differ() {
        let mut random = Random(1);
        let numbers: Vec<u32> = (0..1000).map(|_| random.below(10)).collect();
        assert!((0..10).all(|n| numbers.contains(&n)) && numbers.iter().all(|n| *n < 10));
    }
}
