//! The streams of an epoll set: edge-triggered, so that a stream costs one registration for life and one call per read and send.

use std::io::{self, IoSlice, Read};
use std::os::fd::AsFd;

use crate::driver::Counters;
use crate::stream::{
    Close, ConnectError, Happened, Pieces, StreamConfig, StreamEvent, StreamId, StreamSocket,
    Streams, What,
};
use crate::sys::Epoll;

/// The streams of one [`EpollDriver`](super::EpollDriver).
#[derive(Debug)]
pub(super) struct EpollStreams {
    pub(super) table: Streams<StreamSocket, ()>,
    /// By slot.
    readiness: Vec<Readiness>,
    /// What the read last handed out is in.
    buffer: Box<[u8]>,
}

/// What is known of a stream's receive queue. An edge is told once, so it has to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// It is empty, or an edge will tell.
    Dry,
    /// There is something in it.
    Readable,
    /// The end is in it: no further edge will come, so only reading tells when it is empty.
    Ending,
}

impl EpollStreams {
    pub(super) fn new(config: &StreamConfig) -> io::Result<Self> {
        let table = Streams::new(config)?;
        let buffer = vec![0; config.read_buffer_len as usize].into_boxed_slice();
        Ok(Self { table, readiness: Vec::new(), buffer })
    }

    /// Watches a stream that has just been taken in.
    pub(super) fn register(
        &mut self,
        id: StreamId,
        epoll: &Epoll,
    ) -> Result<StreamId, ConnectError> {
        if self.readiness.len() <= id.slot() {
            self.readiness.resize(id.slot() + 1, Readiness::Dry);
        }
        self.readiness[id.slot()] = Readiness::Dry;
        let Some(socket) = self.table.socket(id) else { return Ok(id) };
        match epoll.add_stream(socket.as_fd(), TOKEN | id.to_bits()) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.table.close(id, Close::Abort);
                Err(error.into())
            }
        }
    }

    /// Whether an event with this token is a stream's.
    pub(super) const fn owns(token: u64) -> bool {
        token & KIND == TOKEN
    }

    pub(super) fn on_edge(&mut self, event: &libc::epoll_event) {
        let (token, events) = (event.u64, event.events.cast_signed());
        let id = StreamId::from_bits(token);
        if self.table.socket(id).is_none() {
            return;
        }
        let ends = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
        let readiness = &mut self.readiness[id.slot()];
        if events & ends != 0 {
            *readiness = Readiness::Ending;
        } else if events & libc::EPOLLIN != 0 && *readiness == Readiness::Dry {
            *readiness = Readiness::Readable;
        }
        if events & (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            self.table.on_writable(id);
        }
        if self.readiness[id.slot()] != Readiness::Dry && self.table.is_armed(id) {
            self.table.on_read(id, ());
        }
    }

    /// Sends what streams have queued, and sees which of the reads asked for need not wait.
    pub(super) fn flush(&mut self, counters: &mut Counters) {
        self.table.graves.clear();
        self.table.watches.clear();
        self.table.offer();
        let mut index = 0;
        while let Some(id) = self.table.offered(index) {
            index += 1;
            if let Some((_, socket, pieces)) = self.table.send(id) {
                let sent = send(socket, pieces, counters);
                self.table.on_sent(id, sent);
            }
        }
        self.table.settle();
        let mut arms = std::mem::take(&mut self.table.arms);
        for id in arms.drain(..) {
            if self.table.arm(id).is_some() && self.readiness[id.slot()] != Readiness::Dry {
                self.table.on_read(id, ());
            }
        }
        self.table.arms = arms;
    }

    pub(super) fn next_event(&mut self, counters: &mut Counters) -> Option<StreamEvent<'_>> {
        loop {
            let Ok(Happened { id, what }) = self.table.pop_event()? else { continue };
            return Some(match what {
                What::Connected => StreamEvent::Connected(id),
                What::Failed(error) => StreamEvent::Failed(id, error),
                What::Writable => StreamEvent::Writable(id),
                What::Fin => StreamEvent::Fin(id),
                What::Closed(end, unsent) => StreamEvent::Closed(id, end, unsent),
                What::Read(()) => match self.read(id, counters) {
                    Some(len) => StreamEvent::Data(id, &self.buffer[..len]),
                    None => continue,
                },
            });
        }
    }

    /// Reads from a stream that is readable, as far as is known. `None` when that brings no bytes.
    fn read(&mut self, id: StreamId, counters: &mut Counters) -> Option<usize> {
        let socket = self.table.socket(id)?;
        counters.enters += 1;
        let result = socket.as_socket().read(&mut self.buffer);
        let readiness = &mut self.readiness[id.slot()];
        match result {
            Ok(0) => self.table.on_read_end(id),
            Ok(len) => {
                if len < self.buffer.len() && *readiness == Readiness::Readable {
                    *readiness = Readiness::Dry;
                }
                let counters = self.table.counters_mut();
                counters.rx_reads += 1;
                counters.rx_bytes += len as u64;
                return Some(len);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *readiness = Readiness::Dry;
                self.table.on_read_retry(id, true);
            }
            Err(error) => self.table.on_read_error(id, error.raw_os_error().unwrap_or(libc::EIO)),
        }
        None
    }
}

/// Sends as many of the pieces as the kernel takes.
///
/// # Errors
/// What the first call met; later ones are not told, and the next send meets them first.
fn send(socket: &StreamSocket, pieces: Pieces<'_>, counters: &mut Counters) -> Result<usize, i32> {
    const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let mut pieces = pieces.peekable();
    let mut total = 0;
    while pieces.peek().is_some() {
        let mut batch = [IoSlice::new(&[]); GATHER_MAX];
        let (mut count, mut len) = (0, 0);
        for (slot, piece) in batch.iter_mut().zip(&mut pieces) {
            *slot = IoSlice::new(piece);
            count += 1;
            len += piece.len();
        }
        counters.enters += 1;
        match socket.as_socket().send_vectored_with_flags(&batch[..count], FLAGS) {
            Ok(sent) => {
                total += sent;
                if sent < len {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(error) => return Err(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
    Ok(total)
}

/// Marks a stream's token among those of sockets and the waker.
const TOKEN: u64 = 1 << 56;
const KIND: u64 = 0xFF << 56;
/// Pieces that one send takes: 128 KiB.
const GATHER_MAX: usize = 64;
