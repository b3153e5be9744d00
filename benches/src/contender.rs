//! Who is compared: the servers by name, and what each can and cannot be asked.

use clap::ValueEnum;
use net_io::IoChoice;
use serde::Serialize;

use crate::case::{Addresses, Case};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Server {
    /// The gateway with one shard and its `echo` upstream.
    #[serde(rename = "gateway")]
    Gateway,
    /// Plain datagrams, echoed: no protocol.
    #[serde(rename = "raw-udp")]
    RawUdp,
    /// The C library in a batching server of our own.
    #[serde(rename = "c-ikcp")]
    CIkcp,
    /// Crate `tokio_kcp`.
    #[value(name = "tokio_kcp")]
    #[serde(rename = "tokio_kcp")]
    TokioKcp,
    /// Crate `kcp-tokio`.
    #[serde(rename = "kcp-tokio")]
    KcpTokio,
    /// Debian's package of kcp-go.
    #[serde(rename = "kcp-go")]
    KcpGo,
}

/// Through which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Io {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// A server on a driver of `net-io`, or on its own way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    pub(crate) server: Server,
    pub(crate) io: Option<Io>,
}

/// Every contender, in the order of the table.
pub(crate) const CONTENDERS: [Contender; 8] = [
    Contender { server: Server::RawUdp, io: Some(Io::Uring) },
    Contender { server: Server::RawUdp, io: Some(Io::Epoll) },
    Contender { server: Server::Gateway, io: Some(Io::Uring) },
    Contender { server: Server::Gateway, io: Some(Io::Epoll) },
    Contender { server: Server::CIkcp, io: Some(Io::Epoll) },
    Contender { server: Server::TokioKcp, io: None },
    Contender { server: Server::KcpTokio, io: None },
    Contender { server: Server::KcpGo, io: None },
];

impl Server {
    /// The name in tables and results.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::RawUdp => "raw-udp",
            Self::CIkcp => "c-ikcp",
            Self::TokioKcp => "tokio_kcp",
            Self::KcpTokio => "kcp-tokio",
            Self::KcpGo => "kcp-go",
        }
    }

    /// What in the nature of this server makes `case` impossible for it.
    pub(crate) const fn cannot(self, case: &Case) -> Option<&'static str> {
        match (self, case.addresses) {
            (Self::TokioKcp | Self::KcpTokio | Self::KcpGo, Addresses::Shared) => {
                Some("finds sessions by address alone")
            }
            (_, Addresses::Own | Addresses::Shared) => None,
        }
    }
}

impl Io {
    /// The name in tables and results.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }

    /// The same for the libraries, without falling back.
    pub(crate) const fn choice(self) -> IoChoice {
        match self {
            Self::Uring => IoChoice::Uring,
            Self::Epoll => IoChoice::Epoll,
        }
    }
}

impl Contender {
    /// The name of the driver in tables.
    pub(crate) fn driver(self) -> &'static str {
        self.io.map_or("-", Io::label)
    }

    /// The limit it is measured by: raw datagrams on its driver. Servers with their own way to the kernel use epoll.
    pub(crate) const fn limit(self) -> Self {
        let io = match self.io {
            Some(io) => io,
            None => Io::Epoll,
        };
        Self { server: Server::RawUdp, io: Some(io) }
    }

    /// Whether the gateway is compared with it.
    pub(crate) const fn is_rival(self) -> bool {
        !matches!(self.server, Server::Gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_one_name() {
        for Contender { server, .. } in CONTENDERS {
            assert_eq!(Server::from_str(server.label(), false), Ok(server));
            assert_eq!(serde_json::to_value(server).unwrap(), server.label());
        }
        for io in [Io::Uring, Io::Epoll] {
            assert_eq!(Io::from_str(io.label(), false), Ok(io));
            assert_eq!(serde_json::to_value(io).unwrap(), io.label());
        }
    }

    #[test]
    fn everybody_has_a_limit_among_the_contenders() {
        for contender in CONTENDERS {
            assert!(CONTENDERS.contains(&contender.limit()), "{contender:?}");
        }
    }
}
