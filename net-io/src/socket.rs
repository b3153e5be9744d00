//! Sockets: bound, sized, in groups.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// How a socket is made.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_RCVBUF asked for, in bytes (default 4 MiB). A small datagram takes about 830 of them, one of 1,400 bytes 2,300.
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
///
/// One bound to a wildcard (`0.0.0.0`, `[::]`) reports the address each datagram was sent to. An IPv6 socket serves IPv6 only.
/// ICMP errors are not reported, unless it is [connected](UdpSocket::connect): a peer that is gone is silence, as for any datagram
/// lost on the way.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    wildcard: bool,
    connected: bool,
}

impl UdpSocket {
    /// Binds one socket, which nobody else can share.
    ///
    /// # Errors
    /// [`BindError`] with the address, the cause and the remedy.
    pub fn bind(addr: SocketAddr, options: &SocketOptions) -> Result<Self, BindError> {
        Self::open(addr, options, false).map_err(|source| BindError { addr, source })
    }

    /// Binds `count` sockets to one address as a SO_REUSEPORT group; socket i is shard i's. Port 0 picks one port for all.
    ///
    /// The kernel numbers a group's sockets in the order they were bound, and closing one gives its number to the last: keep
    /// all of them until the group ends.
    ///
    /// # Errors
    /// As [`UdpSocket::bind`]. A port that another process holds is refused even when that process would share it.
    pub fn bind_group(
        addr: SocketAddr,
        count: usize,
        options: &SocketOptions,
    ) -> Result<Vec<Self>, BindError> {
        Self::open_group(addr, count, options).map_err(|source| BindError { addr, source })
    }

    /// Ties the socket to one peer. It hears nobody else, and a driver sends from it to that peer whatever the destination says,
    /// which spares each send the search for a route: 15 % of its cost over loopback. That nobody listens there, where ICMP tells,
    /// is then an error of a later send or receive, which the driver counts and survives.
    ///
    /// Not for a member of a group: it would leave the group's choice and take all that comes from that peer.
    ///
    /// # Errors
    /// The kernel's: no route, or an address of the other family. The socket is as it was.
    pub fn connect(&mut self, peer: SocketAddr) -> io::Result<()> {
        self.socket.connect(&peer.into())?;
        self.connected = true;
        Ok(())
    }

    /// Whether the socket is tied to one peer.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The bound address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// The receive and send buffer sizes the kernel granted, in bytes, as they are asked for: without the kernel's own share,
    /// which is as large again. Less than asked for means `net.core.rmem_max` or `net.core.wmem_max` is lower and the process
    /// lacks CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel's.
    pub fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        Ok((self.socket.recv_buffer_size()? / 2, self.socket.send_buffer_size()? / 2))
    }

    /// Whether the socket is bound to a wildcard, so that datagrams carry the address they were sent to.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    fn open_group(
        addr: SocketAddr,
        count: usize,
        options: &SocketOptions,
    ) -> io::Result<Vec<Self>> {
        let mut group = Vec::with_capacity(count);
        if count > 0 {
            // The first binds alone and opens the door afterwards. Were it to bind with SO_REUSEPORT, a second gateway of the same
            // user would join the first one's group without an error and take part of its traffic.
            let first = Self::open(addr, options, false)?;
            first.socket.set_reuse_port(true)?;
            group.push(first);
        }
        for _ in 1..count {
            let addr = group[0].local_addr()?;
            group.push(Self::open(addr, options, true)?);
        }
        Ok(group)
    }

    fn open(addr: SocketAddr, options: &SocketOptions, share: bool) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(addr),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        let wildcard = addr.ip().is_unspecified();
        let fd = socket.as_fd();
        match addr {
            SocketAddr::V4(_) => {
                // No path MTU discovery: datagrams leave without DF and the learnt MTU is not looked at. The size of a datagram is
                // configured, and a forged ICMP message must not be able to shrink or stop it.
                let omit = libc::IP_PMTUDISC_OMIT;
                sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, omit)?;
                if wildcard {
                    sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
                }
            }
            SocketAddr::V6(_) => {
                // Path MTU discovery stays: in IPv6 only the sender can fragment, so it has to know.
                socket.set_only_v6(true)?;
                if wildcard {
                    sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
                }
            }
        }
        set_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.recv_buffer)?;
        set_buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer)?;
        if share {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        Ok(Self { socket, wildcard, connected: false })
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<UdpSocket> for std::net::UdpSocket {
    fn from(socket: UdpSocket) -> Self {
        socket.socket.into()
    }
}

/// Sets a buffer size past the system's limit where we may (CAP_NET_ADMIN), up to it where we may not.
fn set_buffer(fd: BorrowedFd<'_>, forced: c_int, plain: c_int, bytes: usize) -> io::Result<()> {
    // The kernel doubles what it is given.
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX).min(c_int::MAX / 2);
    match sys::set_option(fd, libc::SOL_SOCKET, forced, bytes) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            sys::set_option(fd, libc::SOL_SOCKET, plain, bytes)
        }
        result => result,
    }
}

/// Why a socket could not be bound; the text names the address, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {addr}: {}", Explained { addr: *addr, error: source })]
pub struct BindError {
    /// The address asked for.
    pub addr: SocketAddr,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// The kernel's answer in the operator's terms.
struct Explained<'a> {
    addr: SocketAddr,
    error: &'a io::Error,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.addr.port();
        match self.error.raw_os_error() {
            Some(libc::EADDRINUSE) => write!(
                f,
                "the port is in use; stop the process that `ss -ulpn 'sport = :{port}'` names, or choose another port"
            ),
            Some(libc::EACCES) => write!(
                f,
                "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; grant it, or choose a higher port"
            ),
            Some(libc::EADDRNOTAVAIL) => write!(
                f,
                "no interface of this host has the address; use one that `ip address` lists, or 0.0.0.0 or [::] for all"
            ),
            Some(libc::EMFILE) => write!(
                f,
                "the process has no file descriptor left; raise LimitNOFILE (`ulimit -n`)"
            ),
            Some(libc::ENFILE) => {
                write!(f, "the host has no file descriptor left; raise the sysctl fs.file-max")
            }
            Some(libc::EAFNOSUPPORT) if self.addr.is_ipv6() => write!(
                f,
                "this host has no IPv6; listen on an IPv4 address only, or boot without ipv6.disable=1"
            ),
            _ => write!(f, "{}", self.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn a_group_shares_one_port_and_keeps_strangers_out() {
        let options = SocketOptions::default();
        let group = UdpSocket::bind_group(loopback(), 3, &options).unwrap();
        let addr = group[0].local_addr().unwrap();
        assert!(addr.port() != 0 && group.iter().all(|s| s.local_addr().unwrap() == addr));

        let again = UdpSocket::bind_group(addr, 3, &options).unwrap_err();
        assert_eq!(again.source.raw_os_error(), Some(libc::EADDRINUSE));
        let text = again.to_string();
        assert!(text.contains(&addr.to_string()) && text.contains("ss -ulpn"), "{text}");
        assert!(UdpSocket::bind(addr, &options).is_err());
        let wildcard = SocketAddr::from(([0, 0, 0, 0], addr.port()));
        assert!(UdpSocket::bind_group(wildcard, 2, &options).is_err());
    }

    #[test]
    fn an_address_of_another_host_says_so() {
        // TEST-NET-1 is nobody's.
        let error = UdpSocket::bind(([192, 0, 2, 1], 0).into(), &SocketOptions::default());
        let error = error.unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert!(error.to_string().contains("ip address"), "{error}");
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        for (errno, remedy) in [
            (libc::EADDRINUSE, "ss -ulpn"),
            (libc::EACCES, "CAP_NET_BIND_SERVICE"),
            (libc::EADDRNOTAVAIL, "ip address"),
            (libc::EMFILE, "LimitNOFILE"),
            (libc::ENFILE, "fs.file-max"),
            (libc::EAFNOSUPPORT, "IPv4 address only"),
            (libc::ENOMEM, "os error 12"),
        ] {
            let addr = "[::1]:4000".parse().unwrap();
            let text = BindError { addr, source: io::Error::from_raw_os_error(errno) }.to_string();
            assert!(
                text.starts_with("cannot bind [::1]:4000: ") && text.contains(remedy),
                "{text}"
            );
            assert!(!text.contains('\n'));
        }
    }

    #[test]
    fn buffers_are_granted_up_to_the_limit_and_read_back() {
        let options = SocketOptions { recv_buffer: 96 << 10, send_buffer: 80 << 10 };
        let socket = UdpSocket::bind(loopback(), &options).unwrap();
        assert_eq!(socket.buffer_sizes().unwrap(), (96 << 10, 80 << 10));
    }

    #[test]
    fn only_wildcards_ask_for_the_local_address() {
        let options = SocketOptions::default();
        for (addr, wildcard) in
            [("127.0.0.1:0", false), ("0.0.0.0:0", true), ("[::1]:0", false), ("[::]:0", true)]
        {
            let socket = UdpSocket::bind(addr.parse().unwrap(), &options).unwrap();
            let (level, name) = if addr.starts_with('[') {
                (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
            } else {
                (libc::IPPROTO_IP, libc::IP_PKTINFO)
            };
            assert_eq!(sys::option(socket.as_fd(), level, name).unwrap() != 0, wildcard, "{addr}");
            assert_eq!(socket.is_wildcard(), wildcard);
        }
    }

    #[test]
    fn ipv4_and_ipv6_wildcards_share_a_port() {
        let options = SocketOptions::default();
        let v6 = UdpSocket::bind("[::]:0".parse().unwrap(), &options).unwrap();
        let port = v6.local_addr().unwrap().port();
        UdpSocket::bind(([0, 0, 0, 0], port).into(), &options).unwrap();
    }
}
