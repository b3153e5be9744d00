//! Commands from the control plane, read once per turn.

use std::sync::Arc;

use crossbeam::channel::Receiver;

use super::Policy;
use crate::control::command::ShardCommand;

/// The policy in force, shared by all shards and replaced as a whole: a shard reads it and never waits for it.
pub type SharedPolicy = Arc<Policy>;

/// What the control plane decided, as of this turn.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Receiver<ShardCommand>,
    /// The policy in force.
    pub(super) policy: SharedPolicy,
    /// No new sessions.
    pub(super) draining: bool,
    /// Leave the loop after this turn.
    pub(super) stopping: bool,
}

impl Mailbox {
    /// An open mailbox with the first policy.
    #[must_use]
    pub(super) fn new(commands: Receiver<ShardCommand>, policy: SharedPolicy) -> Self {
        Self { commands, policy, draining: false, stopping: false }
    }

    /// Applies what came since the last turn. The queue is bounded, and so is this loop.
    pub(super) fn apply(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                ShardCommand::Drain => self.draining = true,
                ShardCommand::Undrain => self.draining = false,
                ShardCommand::Reload(policy) => self.policy = policy,
                ShardCommand::Stop => self.stopping = true,
            }
        }
    }
}
