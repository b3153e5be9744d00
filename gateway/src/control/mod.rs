//! The control plane: one thread for everything that may block, resolve, parse or render.

pub(crate) mod admin;
pub(crate) mod backends;
pub mod command;
pub mod health;
pub mod nats;
pub(crate) mod notify;
pub mod plane;
pub mod prober;
pub mod question;
pub mod reload;
pub(crate) mod sessions;
pub mod signals;
pub(crate) mod thread;
pub mod watch;
