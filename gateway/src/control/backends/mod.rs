//! The backends: which there are, whether they live, and the links to them.
//!
//! [`registry`] knows everything and does nothing: it is told what happened and says what to do. [`service`] does it, on the
//! control thread: it resolves names, connects, reads the file of backends, publishes the list to every shard and hands them
//! their links.

mod group;
mod links;
mod member;
mod numbers;
pub(crate) mod registry;
mod resolve;
pub(crate) mod service;
pub(crate) mod view;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use net_io::clock;
use tokio::sync::{Notify, watch};

use crate::config::Config;
pub(crate) use member::Standing;
pub(crate) use numbers::Numbers;
use registry::Registry;

/// What the control plane's threads share of the backends.
#[derive(Debug)]
pub(crate) struct Directory {
    registry: Mutex<Registry>,
    changed: Notify,
    /// Told each time that every shard has been sent what there is to say.
    told: watch::Sender<()>,
}

impl Directory {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry: Mutex::new(registry),
            changed: Notify::new(),
            told: watch::Sender::new(()),
        }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        // Facts about backends; whatever a panic left of them is made good by the next checks.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over another configuration.
    pub(crate) fn configure(&self, config: &Config) {
        self.registry().configure(clock::monotonic(), config);
        self.changed.notify_one();
    }

    /// Empties the backend `name`, or ends that; returns when the shards have been told. `false`: there is none of that name.
    /// On the control thread.
    pub(crate) async fn drain(&self, name: &str, drained: bool) -> bool {
        // Before the change, so that what is heard comes after it.
        let mut told = self.told.subscribe();
        let known = self.registry().drain(name, drained);
        self.changed.notify_one();
        if known {
            // The sender is here.
            let _ = told.changed().await;
        }
        known
    }

    /// Why no new session would find a backend.
    pub(crate) fn not_ready(&self) -> Option<String> {
        self.registry().not_ready()
    }
}
