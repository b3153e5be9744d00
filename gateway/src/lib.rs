//! A multi-core KCP gateway on io_uring.
#![forbid(unsafe_code)]

pub mod control;
pub mod session;
pub mod shard;
pub mod upstream;
