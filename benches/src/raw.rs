//! Raw UDP echo through a driver: what the kernel and `net-io` cost without a protocol.

use std::io;
use std::net::SocketAddr;

use net_io::{Destination, Driver, UdpSocket};

use crate::server::SOCKET;

/// Echoes every datagram until the driver fails.
///
/// # Errors
/// The driver is unusable.
pub(crate) fn echo<D: Driver<Socket = UdpSocket>>(
    mut driver: D,
    socket: UdpSocket,
) -> io::Result<()> {
    driver.add_socket(socket)?;
    let mut payload = [0; DATAGRAM_MAX];
    loop {
        driver.submit_and_wait(None)?;
        while let Some(datagram) = driver.recv() {
            let len = datagram.payload.len().min(DATAGRAM_MAX);
            payload[..len].copy_from_slice(&datagram.payload[..len]);
            let to =
                Destination { socket: datagram.socket, peer: datagram.peer, local: datagram.local };
            driver.slot(len)[..len].copy_from_slice(&payload[..len]);
            driver.queue(len, &to);
        }
    }
}

/// Binds where the kernel likes.
///
/// # Errors
/// No loopback UDP.
pub(crate) fn bind() -> anyhow::Result<(UdpSocket, SocketAddr)> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = UdpSocket::bind(any, &SOCKET)?;
    let addr = socket.local_addr()?;
    Ok((socket, addr))
}

/// More than a driver of default settings hands out.
const DATAGRAM_MAX: usize = 2048;
