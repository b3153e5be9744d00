//! The whole vocabulary between the planes.

use std::sync::Arc;

use crate::shard::Policy;

/// What the control plane asks of a shard. Applied once per turn, before traffic, never in its middle.
#[derive(Clone, Debug)]
pub enum ShardCommand {
    /// Admit no new sessions; live ones run on.
    Drain,
    /// Admit new sessions again.
    Undrain,
    /// Use this policy from the next turn on.
    Reload(Arc<Policy>),
    /// Leave the loop after this turn.
    Stop,
}
