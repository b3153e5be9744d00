//! Stream sockets of the kernel: made, connected, ended.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::table::Duplex;
use super::{ConnectError, StreamAddr, StreamConfig};
use crate::sys;

/// A connected TCP or Unix stream socket, as the kernel's drivers adopt it.
#[derive(Debug)]
pub struct StreamSocket(Socket);

impl StreamSocket {
    /// Starts a connection without waiting for it. The flag tells whether it is made already.
    pub(crate) fn connect(
        to: &StreamAddr,
        bind: Option<IpAddr>,
        config: &StreamConfig,
    ) -> Result<(Self, bool), ConnectError> {
        let (domain, protocol, addr) = match to {
            StreamAddr::Tcp(addr) => {
                (Domain::for_address(*addr), Some(Protocol::TCP), SockAddr::from(*addr))
            }
            StreamAddr::Unix(path) => (Domain::UNIX, None, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), protocol)?;
        let fd = socket.as_fd();
        if config.send_buffer > 0 {
            socket.set_send_buffer_size(config.send_buffer)?;
        }
        if config.recv_buffer > 0 {
            socket.set_recv_buffer_size(config.recv_buffer)?;
        }
        if matches!(to, StreamAddr::Tcp(_)) {
            socket.set_tcp_nodelay(true)?;
            if let Some(ip) = bind {
                // The port is chosen with the connection, when the other end is known: ports are then counted per backend
                // address, not per host.
                sys::set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
                socket.bind(&SocketAddr::new(ip, 0).into())?;
            }
        }
        match socket.connect(&addr) {
            Ok(()) => Ok((Self(socket), true)),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                Ok((Self(socket), false))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a socket that came from elsewhere fit to be driven.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.0.set_nonblocking(true)?;
        if !self.0.local_addr()?.is_unix() {
            self.0.set_tcp_nodelay(true)?;
        }
        Ok(())
    }

    /// The socket's calls.
    pub(crate) fn as_socket(&self) -> &Socket {
        &self.0
    }
}

impl Duplex for StreamSocket {
    fn finish(&self) {
        // Fails only where the connection is gone already, which a read will tell.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn reset_on_drop(&self) {
        // A Unix socket knows no reset and ignores it.
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }

    fn connect_result(&self) -> Result<(), ConnectError> {
        match self.0.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(error.into()),
        }
    }
}

impl From<TcpStream> for StreamSocket {
    fn from(stream: TcpStream) -> Self {
        Self(stream.into())
    }
}

impl From<UnixStream> for StreamSocket {
    fn from(stream: UnixStream) -> Self {
        Self(stream.into())
    }
}

impl AsFd for StreamSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const _: () = assert!(size_of::<Option<StreamSocket>>() == 4);
