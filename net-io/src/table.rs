//! The sockets of a driver, and what each has shown it can do.

use std::io;
use std::os::fd::AsFd;

use crate::driver::{Counters, Now, SocketId};
use crate::outbox::{Outbox, Train};
use crate::socket::UdpSocket;
use crate::sys::{self, Message, SendTable};

/// The sockets of one driver, by [`SocketId`].
#[derive(Debug)]
pub(crate) struct SocketTable {
    entries: Vec<Entry>,
    gso: bool,
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
    pub(crate) fn new(gso: bool) -> Self {
        Self { entries: Vec::new(), gso, drops_next: 0, drops_due: Now(0) }
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
        let drops = sys::drops(socket.as_fd())?;
        self.entries.push(Entry { socket, segment_max, segment_retry: Now(u64::MAX), drops });
        Ok(id)
    }

    /// # Panics
    /// When the driver has no such socket.
    pub(crate) fn socket(&self, id: SocketId) -> &UdpSocket {
        &self.entries[usize::from(id.0)].socket
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
        Message {
            payload: outbox.bytes(train),
            peer: train.to.peer,
            local: train.to.local.filter(|_| self.socket(train.to.socket).is_wildcard()),
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
        } else {
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
            if let Ok(drops) = sys::drops(entry.socket.as_fd()) {
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
/// How often each socket's drops are read, in microseconds.
const DROPS_EVERY_US: u64 = 100_000;
/// Sockets whose drops one turn reads: 64 calls are about 10 us.
const DROPS_PER_TURN: usize = 64;
