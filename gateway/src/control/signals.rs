//! Signals: TERM or INT drains and then stops, a second one stops now, HUP reloads, and so does a configuration file that changed,
//! if it is watched.

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded, never, select, tick};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Caught;

use super::notify::{self, Watchdog};
use super::watch::Watch;
use crate::error::ShardFailure;
use crate::shard::stats::Stat;
use crate::supervisor::{Drained, Gateway};

/// The process's signals, caught from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    stop: Receiver<()>,
    reload: Receiver<()>,
}

impl Signals {
    /// Catches TERM, INT and HUP for the rest of the process's life.
    ///
    /// # Errors
    /// The system's, making the handlers or their thread.
    pub fn catch() -> io::Result<Self> {
        let mut caught = Caught::new([SIGTERM, SIGINT, SIGHUP])?;
        // A third TERM says nothing that the second did not; a second HUP before the first is served neither. Each kind
        // has its own queue, so that a flood of one never hides the other.
        let (say_stop, stop) = bounded(2);
        let (say_reload, reload) = bounded(1);
        thread::Builder::new().name("kcp-signals".into()).spawn(move || {
            for signal in caught.forever() {
                let say = if signal == SIGHUP { &say_reload } else { &say_stop };
                let _ = say.try_send(());
            }
        })?;
        Ok(Self { stop, reload })
    }

    /// Lets `gateway` run until a signal ends it, then drains and stops it. `watch` is on its configuration file.
    ///
    /// # Errors
    /// A shard died; the gateway is stopped.
    pub fn serve(&self, gateway: Gateway, mut watch: Option<Watch>) -> Result<(), ShardFailure> {
        let watchdog = gateway.watchdog();
        notify::ready("serving");
        let second = if watch.is_some() { tick(SECOND) } else { never() };
        let mut seconds = 0;
        loop {
            select! {
                recv(self.stop) -> _ => break,
                recv(self.reload) -> _ => {
                    watch.iter_mut().for_each(Watch::take);
                    reload(&gateway);
                }
                recv(second) -> _ => {
                    seconds += 1;
                    let every = gateway.config().reload.watch_s;
                    if every > 0 && seconds >= every {
                        seconds = 0;
                        if watch.as_mut().is_some_and(Watch::look) {
                            tracing::info!("the configuration file has changed");
                            reload(&gateway);
                        }
                    }
                }
                recv(gateway.failures()) -> _ => break,
            }
        }
        notify::stopping();
        if gateway.failure().is_none() {
            self.drain(&gateway);
        }
        let failure = gateway.failure();
        let sessions = gateway.stats().get(Stat::Sessions);
        drop(gateway);
        drop(watchdog);
        tracing::info!(sessions_ended = sessions, "stopped");
        failure.map_or(Ok(()), Err)
    }

    fn drain(&self, gateway: &Gateway) {
        let timeout = gateway.drain_timeout();
        tracing::info!(
            timeout_s = timeout.as_secs(),
            "asked to stop; asked again, without waiting"
        );
        match gateway.drain_within(timeout, &self.stop) {
            Drained::Empty => tracing::info!("the last session has ended"),
            Drained::TimedOut => tracing::warn!("drain.timeout_s is up; ending what is left"),
            Drained::Interrupted => tracing::warn!("asked again: ending what is left"),
            // Logged where it happened.
            Drained::Failed => {}
        }
    }
}

fn reload(gateway: &Gateway) {
    notify::reloading();
    // The outcome is logged where it is made.
    match gateway.reload() {
        Ok(_) => notify::ready("serving"),
        Err(error) => notify::ready(&format!("serving; the last reload failed: {error}")),
    }
}

impl Gateway {
    /// Feeds the service manager's watchdog until the result is dropped.
    fn watchdog(&self) -> Option<Watchdog> {
        let started = Watchdog::start(self.plane());
        started
            .inspect_err(|error| tracing::error!(%error, "no watchdog; the manager will restart"))
            .ok()
    }

    /// How long a drain may take, as configured now.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.config().drain.timeout_s.into())
    }
}

/// The finest step in which the configuration file is looked at.
const SECOND: Duration = Duration::from_secs(1);
