//! A gateway on real sockets, for tests that bring clients of their own.

use std::net::SocketAddr;

use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway};
use net_io::IoChoice;

/// Both kernel drivers; neither falls back to the other.
pub(crate) const DRIVERS: [IoChoice; 2] = [IoChoice::Uring, IoChoice::Epoll];

/// A gateway with two shards on loopback ports of the kernel's choice; all else as `config` has it.
pub(crate) fn start(mut config: Config, io: IoChoice) -> Gateway {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listeners = vec![Listener::new(any)];
    config.shards.count = Auto::Exactly(2);
    config.io.driver = io;
    config.admin.listen = Some(any);
    match Gateway::start(config) {
        Ok(gateway) => gateway,
        Err(error) => panic!("cannot start a gateway on {io:?}: {error}"),
    }
}
