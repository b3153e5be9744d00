//! UringDriver.

use std::io;

use crate::driver::{
    Counters, Datagram, Destination, Driver, DriverConfig, DriverKind, Now, SocketId,
};
use crate::socket::UdpSocket;
use crate::wake::Waker;

/// The uring driver.
#[derive(Debug)]
pub struct UringDriver {}

impl UringDriver {
    /// Builds the driver on the thread that will use it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(config: &DriverConfig) -> io::Result<Self> {
        let _ = config;
        todo!()
    }
}

#[expect(unused_variables, reason = "signatures agreed ahead of the implementation")]
impl Driver for UringDriver {
    type Socket = UdpSocket;

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        todo!()
    }
    fn submit_and_wait(&mut self, deadline: Option<Now>) -> io::Result<Now> {
        todo!()
    }
    fn now(&self) -> Now {
        todo!()
    }
    fn recv(&mut self) -> Option<Datagram<'_>> {
        todo!()
    }
    fn slot(&mut self, len_max: usize) -> &mut [u8] {
        todo!()
    }
    fn queue(&mut self, len: usize, to: &Destination) {
        todo!()
    }
    fn waker(&self) -> Waker {
        todo!()
    }
    fn counters(&self) -> Counters {
        todo!()
    }
    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }
}
