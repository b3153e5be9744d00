//! Sockets: bound, sized, in groups.

use std::io;
use std::net::SocketAddr;

/// How a socket is made.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_RCVBUF asked for, in bytes (default 4 MiB).
    pub recv_buffer: usize,
    /// SO_SNDBUF asked for, in bytes (default 4 MiB).
    pub send_buffer: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { recv_buffer: 4 << 20, send_buffer: 4 << 20 }
    }
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {}

impl UdpSocket {
    /// Binds one socket.
    ///
    /// # Errors
    /// [`BindError`](crate::socket::BindError) with the address, the cause and the remedy.
    pub fn bind(addr: SocketAddr, options: &SocketOptions) -> Result<Self, BindError> {
        let _ = (addr, options);
        todo!()
    }

    /// Binds `count` sockets to one address as a SO_REUSEPORT group; socket i is shard i's. Port 0 picks one port for all.
    ///
    /// # Errors
    /// As [`UdpSocket::bind`].
    pub fn bind_group(
        addr: SocketAddr,
        count: usize,
        options: &SocketOptions,
    ) -> Result<Vec<Self>, BindError> {
        let _ = (addr, count, options);
        todo!()
    }

    /// The bound address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }

    /// The receive and send buffer sizes the kernel granted, in bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        todo!()
    }
}

/// Why a socket could not be bound; the text names the address, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {addr}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub addr: SocketAddr,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}
