//! One thread's kernel boundary: datagrams in batches, and byte streams, through io_uring, through epoll, or simulated.
//!
//! A thread owns one [`Driver`] and its sockets, and works in turns:
//!
//! ```
//! use net_io::{Destination, Driver, DriverConfig, EpollDriver, SocketOptions, UdpSocket};
//!
//! let mut driver = EpollDriver::new(&DriverConfig::default())?;
//! let socket = UdpSocket::bind("127.0.0.1:0".parse()?, &SocketOptions::default())?;
//! let peer = socket.local_addr()?;
//! let socket = driver.add_socket(socket)?;
//!
//! driver.slot(5).copy_from_slice(b"hello");
//! driver.queue(5, &Destination { socket, peer, local: None });
//! driver.submit_and_wait(None)?; // sends, waits, reads the clock
//! let datagram = driver.recv().ok_or("nothing came")?;
//! assert_eq!((datagram.peer, datagram.payload), (peer, &b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Who owns a buffer when:
//!
//! - A received payload is the kernel's buffer, lent until the driver is called again; copy what must last.
//! - A slot is the driver's arena. What was queued is the driver's until the next wait (or until the arena is full), and then
//!   free again: no send outlives the system call that took it, because none may block.
//! - The same holds for streams: a read is lent from a buffer of the driver, and what is written is copied to chunks of the driver,
//!   which go back to their pool with the bytes that the kernel took. So nothing of a stream is ever in flight but its
//!   handle: a completion that finds it gone gives its buffer back.
//!
//! Loss is a number, never an error: what does not fit a buffer, a socket or the wire is dropped and counted, as UDP drops it
//! anywhere else on its way.
//!
//! Unsafe code is confined to `sys.rs` (system calls) and `uring/ring.rs` (the ring).
#![deny(unsafe_code)]

mod addr;
pub mod clock;
mod cmsg;
pub mod driver;
pub mod epoll;
pub mod heap;
mod outbox;
pub mod probe;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slabs;
pub mod socket;
pub mod steer;
pub mod stream;
#[expect(unsafe_code, reason = "the system calls")]
mod sys;
mod table;
pub mod uring;
pub mod wake;

pub use driver::{
    Counters, Datagram, Destination, Driver, DriverConfig, DriverKind, Now, SocketId,
};
pub use epoll::EpollDriver;
pub use probe::{IoChoice, Probe};
pub use socket::{SocketOptions, UdpSocket};
pub use stream::{
    Close, ConnectError, StreamAddr, StreamConfig, StreamCounters, StreamEnd, StreamEvent,
    StreamId, StreamSocket,
};
pub use uring::UringDriver;
pub use wake::Waker;
