//! The control plane: one thread for everything that may block, resolve, parse or render.

pub mod command;
pub mod plane;
pub mod reload;
