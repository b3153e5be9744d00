//! What the service manager hears: that the gateway serves, reloads or stops, and, for as long as every shard turns, that
//! it lives. Where no manager asked (`NOTIFY_SOCKET` is unset), nothing is said.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use sd_notify::NotifyState;

use super::plane::Plane;
use crate::shard::stats::Stat;
use crate::supervisor::life::Lifecycle;

/// The gateway serves, and the first line of `status` says how.
pub(crate) fn ready(status: &str) {
    // A second line would be read as another assignment.
    let status = status.lines().next().unwrap_or_default();
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; [`ready`] ends it.
pub(crate) fn reloading() {
    // Without the time, managers that know it refuse the reload; older ones ignore it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell the service manager of the reload"),
    }
}

/// The gateway leaves.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping]);
}

fn say(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "cannot reach the service manager");
    }
}

/// Feeds the manager's watchdog while every shard turns. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Watchdog(Option<(JoinHandle<()>, Sender<()>)>);

impl Watchdog {
    /// Starts the thread that watches `plane`, if the manager wants to hear (`WATCHDOG_USEC`).
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(crate) fn start(plane: Arc<Plane>) -> io::Result<Self> {
        let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(Self(None)) };
        let (stop, stopped) = bounded(0);
        let watch = move || {
            let mut pulse = Pulse::default();
            while stopped.recv_timeout(limit / BEATS) == Err(RecvTimeoutError::Timeout) {
                let stuck = pulse.beat(plane.totals().shards.iter().map(|s| s.get(Stat::Turns)));
                match stuck {
                    // Shards that were told to end turn no more.
                    Some(shard) if plane.life.lifecycle() != Lifecycle::Stop => {
                        tracing::error!(shard, "the shard does not turn; the watchdog starves");
                    }
                    Some(_) | None => say(&[NotifyState::Watchdog]),
                }
                // An idle shard sleeps: this turns it once before the next look.
                for shard in plane.shards() {
                    shard.waker.wake();
                }
            }
        };
        let thread = thread::Builder::new().name("kcp-watchdog".into()).spawn(watch)?;
        Ok(Self(Some((thread, stop))))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((thread, stop)) = self.0.take() {
            drop(stop);
            // It only reads; a panic there has been printed and changes nothing here.
            let _ = thread.join();
        }
    }
}

/// Which shards turned between two looks.
#[derive(Debug, Default)]
struct Pulse {
    turns: Vec<u64>,
}

impl Pulse {
    /// Takes the shards' turns; returns the first shard that has not turned since they were last taken. The first look
    /// finds nothing, having nothing to compare with.
    fn beat(&mut self, turns: impl Iterator<Item = u64>) -> Option<usize> {
        let before = std::mem::replace(&mut self.turns, turns.collect());
        before.iter().zip(&self.turns).position(|(before, now)| before == now)
    }
}

/// Looks per watchdog period: one lost to a busy moment must not end the gateway.
const BEATS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_that_does_not_turn_is_named() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat([0, 0, 0].into_iter()), None);
        assert_eq!(pulse.beat([1, 1, 1].into_iter()), None);
        assert_eq!(pulse.beat([2, 1, 1].into_iter()), Some(1));
        assert_eq!(pulse.beat([3, 2, 1].into_iter()), Some(2));
        assert_eq!(pulse.beat([4, 3, 2].into_iter()), None);
    }
}
