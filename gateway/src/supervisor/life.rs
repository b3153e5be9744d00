//! Where the process is in its life, and what went wrong in it. The only thing that shards and control plane both
//! write, and a shard only when it dies.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::ShardFailure;

/// The life of a gateway. It goes forward only, but for [`Drain`](Lifecycle::Drain) and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// Sockets are bound, shards come up.
    Start,
    /// New sessions are admitted.
    Serve,
    /// Live sessions go on, new ones are refused.
    Drain,
    /// Shards end.
    Stop,
}

impl Lifecycle {
    /// Every state, in order.
    pub const ALL: [Self; 4] = [Self::Start, Self::Serve, Self::Drain, Self::Stop];

    /// The name in the API and the metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Serve => "serve",
            Self::Drain => "drain",
            Self::Stop => "stop",
        }
    }
}

/// The state, its changes and the news of a dead shard.
#[derive(Debug)]
pub(crate) struct Life {
    state: Mutex<State>,
    failures: (Sender<ShardFailure>, Receiver<ShardFailure>),
}

#[derive(Debug)]
struct State {
    lifecycle: Lifecycle,
    failures: Vec<ShardFailure>,
}

impl Life {
    pub(crate) fn new() -> Self {
        let state = State { lifecycle: Lifecycle::Start, failures: Vec::new() };
        Self { state: Mutex::new(state), failures: bounded(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain data that no panic leaves half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        self.state().lifecycle
    }

    /// Moves to `to` if the gateway is in one of `from`; returns where it was.
    pub(crate) fn advance(
        &self,
        from: &[Lifecycle],
        to: Lifecycle,
    ) -> Result<Lifecycle, Lifecycle> {
        let mut state = self.state();
        let was = state.lifecycle;
        if !from.contains(&was) {
            return Err(was);
        }
        state.lifecycle = to;
        Ok(was)
    }

    /// Records a dead shard and tells whoever waits on [`Life::failures`].
    pub(crate) fn fail(&self, failure: ShardFailure) {
        self.state().failures.push(failure.clone());
        // Full means that the news is already waiting there.
        let _ = self.failures.0.try_send(failure);
    }

    /// Delivers the first dead shard to one waiter.
    pub(crate) fn failures(&self) -> &Receiver<ShardFailure> {
        &self.failures.1
    }

    /// The shard that died first.
    pub(crate) fn failure(&self) -> Option<ShardFailure> {
        self.state().failures.first().cloned()
    }

    /// Whether shard `index` died.
    pub(crate) fn is_dead(&self, index: usize) -> bool {
        self.state().failures.iter().any(|failure| failure.shard == index)
    }

    /// Why the gateway should get no new clients, or `None` when it should.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let state = self.state();
        if let Some(failure) = state.failures.first() {
            return Some(failure.to_string());
        }
        match state.lifecycle {
            Lifecycle::Serve => None,
            Lifecycle::Start => Some("starting".into()),
            Lifecycle::Drain => Some("draining: new sessions are refused".into()),
            Lifecycle::Stop => Some("stopping".into()),
        }
    }
}
