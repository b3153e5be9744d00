//! An echo server on the C library, as good as one can write it: datagrams by recvmmsg and sendmmsg in batches, a session
//! found by one hash of its address and conversation, acknowledgements and data of a session together at the end of a turn,
//! and a session without anything in flight parked: no timer, no work.

use std::io;
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use kcp_core::{Conv, Millis, Wheel, wire};
use kcp_oracle::Reference;
use net_io::{Destination, Driver, Now, UdpSocket};

use crate::case::Case;

/// Echoes every message until the driver fails.
///
/// # Errors
/// The driver is unusable.
pub(crate) fn echo<D: Driver<Socket = UdpSocket>>(
    mut driver: D,
    socket: UdpSocket,
) -> io::Result<()> {
    driver.add_socket(socket)?;
    let mut sessions = Sessions::new(millis(driver.now()));
    loop {
        let deadline = sessions.wheel.next_deadline();
        let deadline = deadline.map(|due| at_millis(driver.now(), due));
        let now = millis(driver.submit_and_wait(deadline)?);
        while let Some(datagram) = driver.recv() {
            let to =
                Destination { socket: datagram.socket, peer: datagram.peer, local: datagram.local };
            sessions.input(now, to, datagram.payload);
        }
        sessions.expire(now);
        sessions.flush(now, &mut driver);
    }
}

struct Sessions {
    index: HashMap<(SocketAddr, Conv), u32, RandomState>,
    all: Vec<Session>,
    /// To be flushed at the end of the turn, each once.
    dirty: Vec<u32>,
    /// One timer for each session that has something in flight.
    wheel: Wheel,
    message: Vec<u8>,
}

struct Session {
    kcp: Reference,
    to: Destination,
    dirty: bool,
    flushed: Millis,
}

impl Sessions {
    fn new(now: Millis) -> Self {
        Self {
            index: HashMap::with_hasher(RandomState::default()),
            all: Vec::new(),
            dirty: Vec::new(),
            wheel: Wheel::new(now),
            message: vec![0; MESSAGE_MAX],
        }
    }

    /// Feeds a datagram to its session and sends back every message that it completes.
    fn input(&mut self, now: Millis, to: Destination, payload: &[u8]) {
        let Some(conv) = wire::conv(payload) else { return };
        let index = match self.index.get(&(to.peer, conv)) {
            Some(index) => *index,
            None => self.open(now, to, conv),
        };
        let Some(Session { kcp, .. }) = self.all.get_mut(index as usize) else { return };
        kcp.set_current(now.0);
        kcp.input(payload);
        while let Ok(len) = usize::try_from(kcp.recv(&mut self.message)) {
            kcp.send(&self.message[..len]);
        }
        self.touch(index);
    }

    fn open(&mut self, now: Millis, to: Destination, conv: Conv) -> u32 {
        let settings = Case::protocol();
        let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let mut kcp = Reference::new(conv.0);
        kcp.nodelay(
            int(settings.nodelay),
            int(settings.interval),
            int(settings.fastresend),
            i32::from(settings.nocwnd),
        );
        kcp.wndsize(int(settings.snd_wnd), int(settings.rcv_wnd));
        kcp.set_mtu(int(settings.mtu));
        // Without a first update a flush does nothing.
        kcp.update(now.0);
        let index = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(Session { kcp, to, dirty: false, flushed: now });
        self.wheel.grow(self.all.len());
        self.index.insert((to.peer, conv), index);
        index
    }

    fn touch(&mut self, index: u32) {
        let Some(session) = self.all.get_mut(index as usize) else { return };
        if !session.dirty {
            session.dirty = true;
            self.dirty.push(index);
        }
    }

    /// A session in flight is looked at one interval after its last flush, as the library would; timers are not moved with
    /// every flush but when they ring.
    fn expire(&mut self, now: Millis) {
        while let Some(index) = self.wheel.pop(now) {
            let Some(session) = self.all.get(index as usize) else { continue };
            if session.kcp.wait_snd() == 0 {
                continue;
            }
            let due = session.flushed.add(INTERVAL_MS);
            if due.since(now) > 0 {
                self.wheel.arm(index, due);
            } else {
                self.touch(index);
            }
        }
    }

    fn flush<D: Driver>(&mut self, now: Millis, driver: &mut D) {
        for index in self.dirty.drain(..) {
            let Some(session) = self.all.get_mut(index as usize) else { continue };
            let Session { kcp, to, dirty, flushed } = session;
            (*dirty, *flushed) = (false, now);
            kcp.set_current(now.0);
            kcp.flush_into(|datagram| {
                driver.slot(datagram.len())[..datagram.len()].copy_from_slice(datagram);
                driver.queue(datagram.len(), to);
            });
            if kcp.wait_snd() > 0 && self.wheel.deadline(index).is_none() {
                self.wheel.arm(index, now.add(INTERVAL_MS));
            }
        }
    }
}

/// The library's clock: the driver's, in milliseconds, wrapping.
#[expect(clippy::cast_possible_truncation, reason = "the clock wraps")]
const fn millis(now: Now) -> Millis {
    Millis(now.as_millis() as u32)
}

/// The driver's time of a deadline not far from `now`.
fn at_millis(now: Now, due: Millis) -> Now {
    let ahead = due.since(millis(now));
    Now(now.as_millis().saturating_add_signed(i64::from(ahead)) * 1000)
}

const INTERVAL_MS: u32 = 10;
/// More than the load generator sends.
const MESSAGE_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use kcp_core::{Cx, Kcp, Store};

    use super::*;

    fn to(port: u16) -> Destination {
        let peer = SocketAddr::from(([127, 0, 0, 1], port));
        Destination { socket: net_io::SocketId(0), peer, local: None }
    }

    /// The datagrams that a fresh client's first message makes.
    fn first_datagram(conv: u32, message: &[u8]) -> Vec<u8> {
        let config = Case::protocol();
        let mut store = Store::new(1 << 20);
        let mut cx = Cx { config: &config, store: &mut store };
        let mut kcp = Kcp::new(Conv(conv));
        kcp.send(&mut cx, message).unwrap();
        kcp.flush(&mut cx, Millis(0));
        let mut datagram = vec![0; 1400];
        let len = kcp.poll_transmit(&mut cx, Millis(0), &mut datagram).unwrap();
        datagram.truncate(len);
        datagram
    }

    #[test]
    fn one_address_has_room_for_many_conversations() {
        let mut sessions = Sessions::new(Millis(0));
        for (port, conv) in [(1, 1), (1, 2), (2, 1), (1, 1)] {
            sessions.input(Millis(0), to(port), &first_datagram(conv, b"hello"));
        }
        assert_eq!(sessions.all.len(), 3);
        assert_eq!(sessions.dirty.len(), 3, "a session is flushed once a turn");
    }

    #[test]
    fn a_session_rests_when_nothing_is_in_flight() {
        let mut driver = net_io::EpollDriver::new(&net_io::DriverConfig::default()).unwrap();
        let socket = driver.add_socket(crate::raw::bind().unwrap().0).unwrap();
        let mut sessions = Sessions::new(Millis(0));
        sessions.input(Millis(0), Destination { socket, ..to(9) }, &first_datagram(7, b"hello"));
        sessions.flush(Millis(0), &mut driver);
        assert_eq!(sessions.wheel.deadline(0), Some(Millis(10)), "the echo is in flight");
        // The client acknowledges it: conversation 7, ACK, number 0.
        let ack = [7, 0, 0, 0, 82, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        sessions.input(Millis(5), Destination { socket, ..to(9) }, &ack);
        sessions.flush(Millis(5), &mut driver);
        sessions.expire(Millis(20));
        assert_eq!(sessions.wheel.next_deadline(), None);
        assert!(sessions.dirty.is_empty());
    }
}
