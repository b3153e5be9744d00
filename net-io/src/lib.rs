//! One thread's kernel boundary.
#![deny(unsafe_code)]

pub mod driver;
pub mod epoll;
pub mod probe;
#[cfg(feature = "sim")]
pub mod sim;
pub mod socket;
pub mod steer;
pub mod uring;
pub mod wake;

pub use driver::{
    Counters, Datagram, Destination, Driver, DriverConfig, DriverKind, Now, SocketId,
};
pub use epoll::EpollDriver;
pub use probe::{IoChoice, Probe};
pub use socket::{SocketOptions, UdpSocket};
pub use uring::UringDriver;
pub use wake::Waker;
