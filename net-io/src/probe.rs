//! Picks the driver at start; says which, and why not the other, with what to try.

use crate::driver::{DriverConfig, DriverKind};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// io_uring when the host allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// The outcome: which driver, and why.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The driver to use.
    pub kind: DriverKind,
    /// One line for the log, the metrics and the status page.
    pub reason: String,
}

/// Why the driver asked for cannot be had; the text has the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct ProbeError {
    /// What the kernel refused.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl Probe {
    /// Tries a ring by using it: set-up, buffer ring, multishot receive, one loopback datagram.
    ///
    /// # Errors
    /// Only with [`IoChoice::Uring`], or where the host has no loopback UDP at all.
    pub fn run(choice: IoChoice, config: &DriverConfig) -> Result<Self, ProbeError> {
        let _ = (choice, config);
        todo!()
    }
}
