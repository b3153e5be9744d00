//! A multi-core KCP gateway on io_uring: terminates KCP over UDP on every core and hands ordered messages upstream.
//!
//! ```text
//!  clients                    data plane: one thread, one driver, one of everything per shard
//!  ───────    ┌──────────────────────────────────────────────────────────────────────────────┐
//!  datagram ─▶│ kernel steers by conv ─▶ driver ─▶ ingress ─▶ session ─▶ kcp ─▶ upstream      │
//!  datagram ◀─│                          driver ◀─ egress  ◀─ session ◀─ kcp ◀─ upstream      │
//!             └──────▲───────────────────────────────────────────────────────────────┬───────┘
//!                    │ ShardCommand, by bounded queue              SharedStats, when read │
//!             ┌──────┴───────────────────────────────────────────────────────────────▼───────┐
//!  operator ─▶│ signals, admin ─▶ plane (config in force, state of life) ─▶ metrics, status   │
//!             └──────────────────────────────────────────────────────────────────────────────┘
//!                              control plane: one thread for what may block
//! ```
//!
//! [`Gateway`] is the whole of it as a value: `supervisor` binds, steers, starts and joins; `shard` is the data path;
//! `control` is what an operator reaches; [`config`] is the manual.
#![forbid(unsafe_code)]

pub mod banner;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod error;
pub mod log;
mod metrics;
pub mod session;
pub mod shard;
mod sizing;
mod supervisor;
pub mod upstream;

pub use config::Config;
pub use control::plane::{Status, Totals};
pub use error::{ShardFailure, StartError};
pub use supervisor::life::Lifecycle;
pub use supervisor::{Drained, Gateway};
