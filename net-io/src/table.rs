//! The sockets of a driver, and what each has shown it can do.

use std::io;
use std::os::fd::AsFd;

use crate::cmsg;
use crate::driver::{Counters, Now, SocketId};
use crate::outbox::{Outbox, Train};
use crate::socket::UdpSocket;
use crate::sys::{self, Message, SendTable};

/// The sockets of one driver, by [`SocketId`].
#[derive(Debug)]
pub(crate) struct SocketTable {
    entries: Vec<Entry>,
    gso: bool,
    gro: bool,
    /// The next socket whose drops are read, and when.
    drops_next: usize,
    drops_due: Now,
}

#[derive(Debug)]
struct Entry {
    socket: UdpSocket,
    /// Largest segment that may join a train; 0 = the socket sends no trains.
    segment_max: u16,
    /// When a lowered `segment_max` is forgotten.
    segment_retry: Now,
    /// The kernel's drop counter when last read.
    drops: u32,
}

impl SocketTable {
    pub(crate) fn new(gso: bool, gro: bool) -> Self {
        Self { entries: Vec::new(), gso, gro, drops_next: 0, drops_due: Now(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The id the next socket will get.
    ///
    /// # Errors
    /// When all ids are taken.
    pub(crate) fn next_id(&self) -> io::Result<SocketId> {
        u16::try_from(self.entries.len())
            .map(SocketId)
            .map_err(|_| io::Error::new(io::ErrorKind::QuotaExceeded, "65,536 sockets per driver"))
    }

    pub(crate) fn add(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        let id = self.next_id()?;
        // Kernels before 4.18 do not know the option.
        let trains =
            self.gso && sys::option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let segment_max = if trains { u16::MAX } else { 0 };
        if self.gro {
            // Kernels before 5.0 do not know the option: they cut trains themselves, and nothing else changes.
            let _ = sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        }
        // Where the kernel does not tell, sandboxes for instance, the counter stays zero.
        let drops = sys::receive_memory(socket.as_fd()).map_or(0, |memory| memory.drops);
        self.entries.push(Entry { socket, segment_max, segment_retry: Now(u64::MAX), drops });
        Ok(id)
    }

    /// # Panics
    /// When the driver has no such socket.
    pub(crate) fn socket(&self, id: SocketId) -> &UdpSocket {
        &self.entries[usize::from(id.0)].socket
    }

    /// How many control bytes a receive of `id` asks for.
    pub(crate) fn control_len(&self, id: SocketId) -> usize {
        cmsg::receive_len(self.socket(id).is_wildcard(), self.gro)
    }

    /// Whether received trains have to be cut.
    pub(crate) const fn has_trains(&self) -> bool {
        self.gro
    }

    /// The largest segment that may join a train from `id` now.
    pub(crate) fn segment_max(&mut self, id: SocketId, now: Now) -> u16 {
        let entry = &mut self.entries[usize::from(id.0)];
        if entry.segment_retry <= now {
            entry.segment_max = u16::MAX;
            entry.segment_retry = Now(u64::MAX);
        }
        entry.segment_max
    }

    /// A train as the kernel takes it.
    pub(crate) fn message<'a>(&self, outbox: &'a Outbox, train: &Train) -> Message<'a> {
        let socket = self.socket(train.to.socket);
        Message {
            payload: outbox.bytes(train),
            peer: Some(train.to.peer).filter(|_| !socket.is_connected()),
            local: train.to.local.filter(|_| socket.is_wildcard()),
            segment: train.segment(),
        }
    }

    /// Accounts for a train the kernel refused; sends its datagrams one by one where the train itself was the reason.
    pub(crate) fn on_send_error(
        &mut self,
        error: i32,
        train: &Train,
        outbox: &Outbox,
        now: Now,
        scratch: &mut SendTable,
        counters: &mut Counters,
    ) {
        let refused = matches!(error, libc::EIO | libc::EINVAL | libc::EMSGSIZE);
        match train.segment() {
            Some(segment) if refused => {
                counters.tx_trains_refused += 1;
                let message = self.message(outbox, train);
                let sent = self.send_singly(train.to.socket, &message, segment, scratch, counters);
                // Where single datagrams fail as well, the destination is to blame, not the train.
                if sent {
                    self.on_train_refused(train.to.socket, error, segment, now);
                }
            }
            Some(_) | None => count_error(error, train.count, counters),
        }
    }

    /// Sends the datagrams of a train one by one; whether any left.
    fn send_singly(
        &self,
        id: SocketId,
        message: &Message<'_>,
        segment: u16,
        scratch: &mut SendTable,
        counters: &mut Counters,
    ) -> bool {
        let mut any = false;
        for payload in message.payload.chunks(usize::from(segment)) {
            let single = Message { payload, segment: None, ..*message };
            counters.enters += 1;
            counters.tx_sends += 1;
            match scratch.send(self.socket(id).as_fd(), std::iter::once(single)) {
                Ok(_) => any = true,
                Err(error) => count_error(error.raw_os_error().unwrap_or(0), 1, counters),
            }
        }
        any
    }

    fn on_train_refused(&mut self, id: SocketId, error: i32, segment: u16, now: Now) {
        let entry = &mut self.entries[usize::from(id.0)];
        if error == libc::EIO {
            // The device or the route (IPsec) cannot: that does not pass.
            entry.segment_max = 0;
            entry.segment_retry = Now(u64::MAX);
        } else if entry.segment_max > 0 {
            // Too long for the MTU of this route: shorter ones still go, and after a while longer ones may again.
            entry.segment_max = entry.segment_max.min(segment - 1);
            entry.segment_retry = Now(now.0 + SEGMENT_RETRY_US);
        }
    }

    /// Brings `rx_overflow` up to date, a bounded number of sockets per call and each at most every [`DROPS_EVERY_US`].
    ///
    /// SO_MEMINFO rather than SO_RXQ_OVFL: the latter puts a control message on every datagram once one was dropped, and only
    /// tells when another datagram gets through.
    pub(crate) fn read_drops(&mut self, now: Now, counters: &mut Counters) {
        if now < self.drops_due {
            return;
        }
        for entry in self.entries.iter_mut().skip(self.drops_next).take(DROPS_PER_TURN) {
            if let Ok(memory) = sys::receive_memory(entry.socket.as_fd()) {
                let drops = memory.drops;
                counters.rx_overflow += u64::from(drops.wrapping_sub(entry.drops));
                entry.drops = drops;
            }
        }
        self.drops_next += DROPS_PER_TURN;
        if self.drops_next >= self.entries.len() {
            self.drops_next = 0;
            self.drops_due = Now(now.0 + DROPS_EVERY_US);
        }
    }

    /// How many datagrams wait in the sockets, and in `held` buffers that were received, at most. A system call per socket.
    pub(crate) fn waiting_max(&self, held: usize) -> usize {
        let waiting = self.entries.iter().map(|entry| {
            let memory = sys::receive_memory(entry.socket.as_fd());
            memory.map_or(usize::MAX, |memory| memory.used.div_ceil(DATAGRAM_MEMORY) as usize)
        });
        let most = waiting.fold(held, usize::saturating_add);
        if self.gro { most.saturating_mul(TRAIN_MAX) } else { most }
    }
}

/// Counts `datagrams` that did not leave.
pub(crate) fn count_error(error: i32, datagrams: u8, counters: &mut Counters) {
    match error {
        libc::EAGAIN | libc::ENOBUFS => counters.tx_full += u64::from(datagrams),
        _ => counters.tx_errors += u64::from(datagrams),
    }
}

/// How long a segment size that the route refused is not tried again, in microseconds.
const SEGMENT_RETRY_US: u64 = 1_000_000;
/// What the shortest datagram occupies of a receive buffer at least, in bytes: two structures of the kernel's of almost 600, and
/// its data with room before it. Over loopback it is 768.
const DATAGRAM_MEMORY: u32 = 640;
/// Datagrams of the longest train; half as many on older kernels.
const TRAIN_MAX: usize = 128;
/// How often each socket's drops are read, in microseconds.
const DROPS_EVERY_US: u64 = 100_000;
/// Sockets whose drops one turn reads: 64 calls are about 10 us.
const DROPS_PER_TURN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;
    use crate::driver::{Destination, Driver, DriverConfig};
    use crate::epoll::EpollDriver;
    use crate::socket::SocketOptions;
    use crate::uring::UringDriver;

    fn bind() -> UdpSocket {
        UdpSocket::bind(([127, 0, 0, 1], 0).into(), &SocketOptions::default()).unwrap()
    }

    /// A socket that must not checksum cannot cut trains: the kernel says EINVAL, as it does where a segment exceeds the MTU.
    fn a_refused_train_leaves_as_single_datagrams<D: Driver<Socket = UdpSocket>>(mut driver: D) {
        let socket = bind();
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let socket = driver.add_socket(socket).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = Destination { socket, peer: peer.local_addr().unwrap(), local: None };
        let burst = |driver: &mut D, len: usize| {
            for mark in 0..5 {
                driver.slot(len).fill(mark);
                driver.queue(len, &to);
            }
            driver.submit_and_wait(Some(Now(0))).unwrap();
            let mut payload = [0; 2000];
            for mark in 0..5 {
                assert_eq!(peer.recv(&mut payload).unwrap(), len);
                assert_eq!(payload[0], mark);
            }
        };
        burst(&mut driver, 100);
        assert_eq!(driver.counters().tx_trains_refused, 1);
        // Segments as long are not tried again soon; shorter ones are.
        burst(&mut driver, 100);
        assert_eq!(driver.counters().tx_trains_refused, 1);
        burst(&mut driver, 99);
        assert_eq!(driver.counters().tx_trains_refused, 2);
        let counters = driver.counters();
        assert_eq!((counters.tx_datagrams, counters.tx_errors, counters.tx_full), (15, 0, 0));
    }

    #[test]
    fn uring_sends_a_refused_train_singly() {
        a_refused_train_leaves_as_single_datagrams(
            UringDriver::new(&DriverConfig::default()).unwrap(),
        );
    }

    #[test]
    fn epoll_sends_a_refused_train_singly() {
        a_refused_train_leaves_as_single_datagrams(
            EpollDriver::new(&DriverConfig::default()).unwrap(),
        );
    }

    /// A destination that cannot be sent to says nothing about trains.
    fn a_bad_destination_costs_nobody_else<D: Driver<Socket = UdpSocket>>(mut driver: D) {
        let socket = driver.add_socket(bind()).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let good = Destination { socket, peer: peer.local_addr().unwrap(), local: None };
        // Any peer can claim to send from port 0.
        let bad = Destination { peer: ([127, 0, 0, 1], 0).into(), ..good };
        for (to, count) in [(&bad, 3), (&good, 2), (&bad, 1), (&good, 4)] {
            for _ in 0..count {
                driver.slot(9).fill(9);
                driver.queue(9, to);
            }
        }
        driver.submit_and_wait(Some(Now(0))).unwrap();
        for _ in 0..6 {
            assert_eq!(peer.recv(&mut [0; 99]).unwrap(), 9);
        }
        let counters = driver.counters();
        assert_eq!((counters.tx_datagrams, counters.tx_errors), (10, 4));
        assert_eq!(counters.tx_trains_refused, 1);
        for _ in 0..4 {
            driver.slot(9).fill(9);
            driver.queue(9, &good);
        }
        let before = driver.counters().tx_sends;
        driver.submit_and_wait(Some(Now(0))).unwrap();
        assert_eq!(driver.counters().tx_sends, before + 1, "trains were given up");
    }

    #[test]
    fn uring_survives_a_bad_destination() {
        a_bad_destination_costs_nobody_else(UringDriver::new(&DriverConfig::default()).unwrap());
    }

    #[test]
    fn epoll_survives_a_bad_destination() {
        a_bad_destination_costs_nobody_else(EpollDriver::new(&DriverConfig::default()).unwrap());
    }

    #[test]
    fn a_refused_size_is_tried_again_and_a_device_that_cannot_is_not() {
        let mut table = SocketTable::new(true, false);
        let id = table.add(bind()).unwrap();
        let now = monotonic();
        let later = Now(now.0 + SEGMENT_RETRY_US);
        table.on_train_refused(id, libc::EMSGSIZE, 1400, now);
        assert_eq!(table.segment_max(id, now), 1399);
        assert_eq!(table.segment_max(id, later), u16::MAX);
        table.on_train_refused(id, libc::EMSGSIZE, 1400, now);
        table.on_train_refused(id, libc::EIO, 100, now);
        table.on_train_refused(id, libc::EMSGSIZE, 1400, now);
        assert_eq!(table.segment_max(id, later), 0);
    }

    #[test]
    fn drops_are_read_in_slices_and_not_too_often() {
        let mut table = SocketTable::new(false, false);
        let tiny = SocketOptions { recv_buffer: 1, ..SocketOptions::default() };
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..=DROPS_PER_TURN {
            let socket = UdpSocket::bind(([127, 0, 0, 1], 0).into(), &tiny).unwrap();
            let addr = socket.local_addr().unwrap();
            table.add(socket).unwrap();
            // The first fits, whatever the limit; the others do not.
            for _ in 0..20 {
                peer.send_to(&[0; 1000], addr).unwrap();
            }
        }
        let mut counters = Counters::default();
        let now = monotonic();
        table.read_drops(now, &mut counters);
        let first = counters.rx_overflow;
        assert!(first >= DROPS_PER_TURN as u64 * 10);
        table.read_drops(now, &mut counters);
        let all = counters.rx_overflow;
        assert!(all > first, "the last socket was not read");
        table.read_drops(Now(now.0 + DROPS_EVERY_US - 1), &mut counters);
        assert_eq!(table.drops_next, 0);
        table.read_drops(Now(now.0 + DROPS_EVERY_US), &mut counters);
        assert_eq!(table.drops_next, DROPS_PER_TURN);
        assert_eq!(counters.rx_overflow, all, "drops were counted twice");
    }

    /// Turns until the driver has received something; what was first, and from whom.
    fn heard<D: Driver>(driver: &mut D) -> (Vec<u8>, std::net::SocketAddr) {
        let limit = Now(driver.now().0 + 10_000_000);
        loop {
            assert!(driver.submit_and_wait(Some(limit)).unwrap() < limit, "nothing came");
            if let Some(datagram) = driver.recv() {
                return (datagram.payload.to_vec(), datagram.peer);
            }
        }
    }

    /// Whatever the destination says: alone, and as a train. Nobody else is heard.
    fn a_connected_socket_knows_one_peer<D: Driver<Socket = UdpSocket>>(mut driver: D) {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut socket = bind();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let id = driver.add_socket(socket).unwrap();
        let elsewhere = ([127, 0, 0, 1], 9).into();
        let to = Destination { socket: id, peer: elsewhere, local: None };
        for count in [1, 3] {
            for _ in 0..count {
                driver.slot(4).copy_from_slice(b"well");
                driver.queue(4, &to);
            }
            driver.submit_and_wait(Some(Now(0))).unwrap();
            for _ in 0..count {
                assert_eq!(peer.recv_from(&mut [0; 9]).unwrap(), (4, own));
            }
        }
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"stranger", own).unwrap();
        peer.send_to(b"friend", own).unwrap();
        assert_eq!(heard(&mut driver), (b"friend".to_vec(), peer.local_addr().unwrap()));
        assert_eq!(driver.counters().tx_errors, 0);
    }

    /// ICMP tells of its absence, and nothing ends by that.
    fn a_peer_that_was_gone_is_heard_again<D: Driver<Socket = UdpSocket>>(mut driver: D) {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = peer.local_addr().unwrap();
        let mut socket = bind();
        socket.connect(addr).unwrap();
        let id = driver.add_socket(socket).unwrap();
        let say = |driver: &mut D| {
            driver.slot(4).copy_from_slice(b"well");
            driver.queue(4, &Destination { socket: id, peer: addr, local: None });
            driver.submit_and_wait(Some(Now(0))).unwrap();
            while driver.recv().is_some() {}
        };
        drop(peer);
        for _ in 0..10 {
            say(&mut driver);
        }
        let counters = driver.counters();
        assert!(counters.tx_errors + counters.rx_errors > 0, "{counters:?}");
        let peer = std::net::UdpSocket::bind(addr).unwrap();
        // The first may meet what ICMP said last.
        say(&mut driver);
        say(&mut driver);
        let (_, own) = peer.recv_from(&mut [0; 9]).unwrap();
        peer.send_to(b"again", own).unwrap();
        assert_eq!(heard(&mut driver).0, b"again");
    }

    #[test]
    fn uring_keeps_to_a_connected_peer() {
        let driver = || UringDriver::new(&DriverConfig::default()).unwrap();
        a_connected_socket_knows_one_peer(driver());
        a_peer_that_was_gone_is_heard_again(driver());
    }

    #[test]
    fn epoll_keeps_to_a_connected_peer() {
        let driver = || EpollDriver::new(&DriverConfig::default()).unwrap();
        a_connected_socket_knows_one_peer(driver());
        a_peer_that_was_gone_is_heard_again(driver());
    }
}
