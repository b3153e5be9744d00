//! KCP as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod error;
pub mod kcp;
pub mod stats;
pub mod store;
pub mod units;
pub mod wheel;
pub mod wire;

mod ack;
mod block;
mod congestion;
mod flush;
mod input;
mod probe;
mod recv;
mod rtt;
mod send;

pub use config::{ConfigError, FlushPolicy, KcpConfig, Reference};
pub use error::{InputError, RecvError, SendError};
pub use kcp::{Cx, Kcp, QueueLengths, Resends};
pub use send::InFlight;
pub use stats::Stats;
pub use store::Store;
pub use units::{Conv, Millis, Sn};
pub use wheel::Wheel;
