//! Commands from the control plane, read once per turn.

use std::sync::Arc;

use crossbeam::channel::Receiver;

use super::Policy;
use crate::control::command::ShardCommand;
use crate::control::question::Ask;
use crate::upstream::backend::{BackendId, Backends};

/// The policy in force, shared by all shards and replaced as a whole: a shard reads it and never waits for it.
pub type SharedPolicy = Arc<Policy>;

/// The backends, likewise.
pub type SharedBackends = Arc<Backends>;

/// What the control plane decided, as of this turn.
#[derive(Debug)]
pub(super) struct Mailbox<S> {
    commands: Receiver<ShardCommand<S>>,
    /// The policy in force.
    pub(super) policy: SharedPolicy,
    /// No new sessions.
    pub(super) draining: bool,
    /// A question to answer in this turn.
    pub(super) asked: Option<Ask>,
    /// More may stand behind it.
    more: bool,
    /// Leave the loop after this turn.
    pub(super) stopping: bool,
    /// The latest backends, until somebody takes them.
    pub(super) backends: Option<SharedBackends>,
    /// Connections for backends, until somebody takes them. As many as there are commands in a queue.
    pub(super) adopted: Vec<(BackendId, S)>,
}

impl<S> Mailbox<S> {
    /// An open mailbox with the first policy.
    #[must_use]
    pub(super) fn new(commands: Receiver<ShardCommand<S>>, policy: SharedPolicy) -> Self {
        let (draining, stopping, backends, adopted) = (false, false, None, Vec::new());
        let (asked, more) = (None, false);
        Self { commands, policy, draining, asked, more, stopping, backends, adopted }
    }

    /// Applies what came since the last turn, up to the first question: what stands behind it waits for the next turn. The queue
    /// is bounded, and so is this loop. Tells whether the policy is another now.
    pub(super) fn apply(&mut self) -> bool {
        self.more = false;
        let mut reloaded = false;
        while let Ok(command) = self.commands.try_recv() {
            match command {
                ShardCommand::Drain => self.draining = true,
                ShardCommand::Undrain => self.draining = false,
                ShardCommand::Reload(policy) => (self.policy, reloaded) = (policy, true),
                ShardCommand::Backends(backends) => self.backends = Some(backends),
                ShardCommand::Adopt { backend, stream } => self.adopted.push((backend, stream)),
                ShardCommand::Sessions(ask) => {
                    (self.asked, self.more) = (Some(ask), true);
                    break;
                }
                ShardCommand::Stop => self.stopping = true,
            }
        }
        reloaded
    }

    /// The next turn must not wait: the wake for what stands behind a question may be spent.
    #[must_use]
    pub(super) const fn is_waiting(&self) -> bool {
        self.more
    }
}
