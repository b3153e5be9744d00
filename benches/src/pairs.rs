//! Two peers in memory, in our implementation and in the C library, with the same settings: profile `game`.

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};

use crate::trips::Pair;

/// `kcp-core`: each end with a store of its own, as on a shard and on a client.
#[derive(Debug)]
pub(crate) struct Core {
    config: KcpConfig,
    client: End,
    server: End,
    now: Millis,
    datagram: [u8; MTU],
}

#[derive(Debug)]
struct End {
    kcp: Kcp,
    store: Store,
    received: Vec<u8>,
}

impl End {
    fn new() -> Self {
        Self { kcp: Kcp::new(CONV), store: Store::new(1 << 20), received: Vec::new() }
    }
}

impl Core {
    pub(crate) fn new() -> Self {
        let config = KcpConfig::game();
        let (client, server) = (End::new(), End::new());
        Self { config, client, server, now: Millis(0), datagram: [0; MTU] }
    }
}

impl Pair for Core {
    fn round_trip(&mut self, message: &[u8]) -> &[u8] {
        let Self { config, client, server, now, datagram } = self;
        *now = now.add(1);
        transfer(config, *now, datagram, client, server, message);
        let echo = std::mem::take(&mut server.received);
        transfer(config, *now, datagram, server, client, &echo);
        server.received = echo;
        &client.received
    }
}

/// `from` sends and flushes; `to` takes the datagrams and keeps the message.
fn transfer(
    config: &KcpConfig,
    now: Millis,
    datagram: &mut [u8],
    from: &mut End,
    to: &mut End,
    message: &[u8],
) {
    let mut cx = Cx { config, store: &mut from.store };
    let sent = from.kcp.send(&mut cx, message);
    debug_assert!(sent.is_ok(), "the store has room for one message");
    from.kcp.flush(&mut cx, now);
    while let Some(len) = from.kcp.poll_transmit(&mut cx, now, datagram) {
        let received = &mut to.received;
        let deliver = |payload: &[u8]| {
            received.clear();
            received.extend_from_slice(payload);
            true
        };
        let mut cx = Cx { config, store: &mut to.store };
        let taken = to.kcp.handle_datagram(&mut cx, now, &datagram[..len], deliver);
        debug_assert!(taken.is_ok(), "what one end sends the other accepts");
    }
}

/// The C library with the same settings, called as a program for games calls it: every message is flushed at once.
#[derive(Debug)]
pub(crate) struct Reference {
    client: CEnd,
    server: CEnd,
    now: u32,
}

#[derive(Debug)]
struct CEnd {
    kcp: kcp_oracle::Reference,
    received: Vec<u8>,
}

impl CEnd {
    fn new() -> Self {
        let mut kcp = kcp_oracle::Reference::new(CONV.0);
        kcp.nodelay(1, 10, 2, 1);
        kcp.wndsize(256, 256);
        kcp.update(0);
        Self { kcp, received: vec![0; MTU] }
    }
}

impl Reference {
    pub(crate) fn new() -> Self {
        Self { client: CEnd::new(), server: CEnd::new(), now: 0 }
    }
}

impl Pair for Reference {
    fn round_trip(&mut self, message: &[u8]) -> &[u8] {
        let Self { client, server, now } = self;
        *now = now.wrapping_add(1);
        let len = c_transfer(*now, client, server, message);
        let echo = std::mem::take(&mut server.received);
        let len = c_transfer(*now, server, client, &echo[..len]);
        server.received = echo;
        &client.received[..len]
    }
}

/// As [`transfer`]. The update moves the clock; a flush follows it only if the update did none itself.
fn c_transfer(now: u32, from: &mut CEnd, to: &mut CEnd, message: &[u8]) -> usize {
    from.kcp.send(message);
    from.kcp.update(now);
    if from.kcp.output().is_empty() {
        from.kcp.flush();
    }
    for datagram in from.kcp.output().iter() {
        to.kcp.input(datagram);
    }
    from.kcp.output_mut().clear();
    usize::try_from(to.kcp.recv(&mut to.received)).unwrap_or(0)
}

const CONV: Conv = Conv(0x1122_3344);
const MTU: usize = 1400;
