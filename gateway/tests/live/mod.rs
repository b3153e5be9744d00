//! A gateway on real sockets, for tests that bring clients of their own.

use std::net::SocketAddr;

use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway};
use net_io::IoChoice;

/// Both kernel drivers; neither falls back to the other.
pub(crate) const DRIVERS: [IoChoice; 2] = [IoChoice::Uring, IoChoice::Epoll];

/// A gateway with two shards, all else by default, on loopback ports of the kernel's choice.
pub(crate) fn start(io: IoChoice) -> Gateway {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config { listeners: vec![Listener::new(any)], ..Config::default() };
    config.shards.count = Auto::Exactly(2);
    config.io.driver = io;
    config.admin.listen = Some(any);
    match Gateway::start(config) {
        Ok(gateway) => gateway,
        Err(error) => panic!("cannot start a gateway on {io:?}: {error}"),
    }
}
