//! How far two cores are from each other.
//!
//! The host of a virtual machine may move its cores while it works, onto one die or onto two. What a program sends to one on the
//! other core then costs it more or less, and it is the same program. So whoever measures such costs tells how far the cores were.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::cpu::now;
use crate::scoreboard::median;
use crate::server::on_core;

/// Nanoseconds that a word takes from one core to the other: the median of a few batches of round trips, halved. What else runs there
/// interrupts some of them; with both cores free all take less than a millisecond.
///
/// # Errors
/// A core is not allowed.
pub(super) fn apart_ns(asks: usize, answers: usize) -> Result<f64> {
    for core in [asks, answers] {
        on_core(core, || Ok(()))?; // or one would wait for the other for ever
    }
    let line = Line(AtomicU32::new(0));
    let times = thread::scope(|scope| {
        scope.spawn(|| on_core(answers, || answer(&line.0)));
        let asking = scope.spawn(|| on_core(asks, || Ok(ask(&line.0))));
        asking.join().map_err(|_| anyhow!("the thread that asks panicked"))?
    })?;
    Ok(median(times))
}

/// Round trip `n` is `2 n + 1` there and `2 n + 2` back.
fn ask(word: &AtomicU32) -> Vec<f64> {
    let batch = |batch: u32| {
        let began = now();
        for n in batch * TRIPS..(batch + 1) * TRIPS {
            word.store(2 * n + 1, Ordering::Release);
            wait(word, 2 * n + 2);
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(2 * TRIPS)
    };
    (0..BATCHES).map(batch).collect()
}

fn answer(word: &AtomicU32) -> Result<()> {
    for n in 0..BATCHES * TRIPS {
        wait(word, 2 * n + 1);
        word.store(2 * n + 2, Ordering::Release);
    }
    Ok(())
}

fn wait(word: &AtomicU32, value: u32) {
    while word.load(Ordering::Acquire) != value {
        spin_loop();
    }
}

/// Nothing else lies on the word's cache lines, of which processors fetch two at once.
#[repr(align(128))]
struct Line(AtomicU32);

const BATCHES: u32 = 21;
const TRIPS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_of_round_trips_takes_time() {
        let line = Line(AtomicU32::new(0));
        let times = thread::scope(|scope| {
            scope.spawn(|| answer(&line.0));
            ask(&line.0)
        });
        assert_eq!(times.len(), BATCHES as usize);
        assert!(times.iter().all(|&ns| ns > 0.0), "{times:?}");
    }
}
