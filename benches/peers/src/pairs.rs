//! Two ends in memory on crates `kcp` and `kcp2`, with the settings that all have: nodelay 1, interval 10 ms, resend 2, nc 1,
//! windows of 256. A program for games flushes every message at once; so do these.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use crate::trips::Pair;

/// What an end sent and the other has not got: datagrams, end to end in one buffer.
#[derive(Clone, Debug, Default)]
struct Wire(Rc<RefCell<Datagrams>>);

#[derive(Debug, Default)]
struct Datagrams {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Wire {
    fn put(&self, datagram: &[u8]) {
        let Datagrams { bytes, ends } = &mut *self.0.borrow_mut();
        bytes.extend_from_slice(datagram);
        ends.push(bytes.len());
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().ends.is_empty()
    }

    fn drain(&self, mut take: impl FnMut(&[u8])) {
        let Datagrams { bytes, ends } = &mut *self.0.borrow_mut();
        let mut start = 0;
        for end in ends.drain(..) {
            take(&bytes[start..end]);
            start = end;
        }
        bytes.clear();
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.put(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One end, whoever wrote it.
trait End {
    fn send(&mut self, message: &[u8]);
    /// Moves the clock, which flushes at times.
    fn update(&mut self, now: u32);
    fn flush(&mut self);
    fn input(&mut self, datagram: &[u8]);
    fn recv(&mut self, message: &mut [u8]) -> usize;
}

struct Ends<E> {
    client: Side<E>,
    server: Side<E>,
    now: u32,
}

struct Side<E> {
    end: E,
    wire: Wire,
    received: Vec<u8>,
}

impl<E> Ends<E> {
    fn new(end: impl Fn(Wire) -> E) -> Self {
        let side = || {
            let wire = Wire::default();
            Side { end: end(wire.clone()), wire, received: vec![0; MTU] }
        };
        Self { client: side(), server: side(), now: 0 }
    }
}

impl<E: End> Pair for Ends<E> {
    fn round_trip(&mut self, message: &[u8]) -> &[u8] {
        let Self { client, server, now } = self;
        *now = now.wrapping_add(1);
        let len = transfer(*now, client, server, message);
        let echo = std::mem::take(&mut server.received);
        let len = transfer(*now, server, client, &echo[..len]);
        server.received = echo;
        &client.received[..len]
    }
}

/// `from` sends and flushes, once; `to` takes the datagrams and the message.
fn transfer<E: End>(now: u32, from: &mut Side<E>, to: &mut Side<E>, message: &[u8]) -> usize {
    from.end.send(message);
    from.end.update(now);
    if from.wire.is_empty() {
        from.end.flush();
    }
    from.wire.drain(|datagram| to.end.input(datagram));
    to.end.recv(&mut to.received)
}

/// Crate `kcp`.
pub(crate) fn kcp() -> impl Pair {
    Ends::new(|wire| {
        let mut end = kcp::Kcp::new(CONV, wire);
        end.set_nodelay(true, 10, 2, true);
        end.set_wndsize(256, 256);
        End::update(&mut end, 0);
        end
    })
}

impl End for kcp::Kcp<Wire> {
    fn send(&mut self, message: &[u8]) {
        sound(self.send(message));
    }

    fn update(&mut self, now: u32) {
        sound(self.update(now));
    }

    fn flush(&mut self) {
        sound(self.flush());
    }

    fn input(&mut self, datagram: &[u8]) {
        sound(self.input(datagram));
    }

    fn recv(&mut self, message: &mut [u8]) -> usize {
        sound(self.recv(message))
    }
}

/// Crate `kcp2`.
pub(crate) fn kcp2() -> impl Pair {
    Ends::new(|wire| {
        let mut end = kcp2::Kcp::new(CONV, move |datagram: &[u8]| wire.put(datagram));
        end.set_nodelay(true, 10, 2, true);
        end.set_wndsize(256, 256);
        end.update(0);
        end
    })
}

impl<F: Fn(&[u8])> End for kcp2::Kcp<F> {
    fn send(&mut self, message: &[u8]) {
        sound(self.send(message));
    }

    fn update(&mut self, now: u32) {
        self.update(now);
    }

    fn flush(&mut self) {
        self.flush();
    }

    fn input(&mut self, datagram: &[u8]) {
        sound(self.input(datagram));
    }

    fn recv(&mut self, message: &mut [u8]) -> usize {
        sound(self.recv(message))
    }
}

/// A round trip in memory cannot fail; one that did would be no measurement.
fn sound<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("a round trip failed: {error}"))
}

const CONV: u32 = 0x1122_3344;
const MTU: usize = 1400;
