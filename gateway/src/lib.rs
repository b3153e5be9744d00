//! A multi-core KCP gateway on io_uring: terminates KCP over UDP on every core and hands ordered messages upstream.
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
