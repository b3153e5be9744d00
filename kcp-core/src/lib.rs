//! KCP as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod error;
pub mod kcp;
pub mod store;
pub mod units;
pub mod wheel;
pub mod wire;

pub use config::{FlushPolicy, KcpConfig, Reference};
pub use error::{InputError, RecvError, SendError};
pub use kcp::{Cx, Kcp};
pub use store::Store;
pub use units::{Conv, Millis, Sn};
pub use wheel::Wheel;
