//! The streams of a ring: what the table of streams asks for as operations, and what their completions tell it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use super::op::Op;
use super::ring::{Completion, Filled, Ring, StreamBuffer, StreamSend};
use crate::stream::{Happened, StreamConfig, StreamEvent, StreamId, StreamSocket, Streams, What};

/// The streams of one [`UringDriver`](super::UringDriver).
#[derive(Debug)]
pub(super) struct UringStreams {
    pub(super) table: Streams<StreamSocket, Bytes>,
    /// Streams whose read found no buffer. They are armed again as buffers come back, not all at once: each that finds none
    /// costs a completion.
    starved: VecDeque<StreamId>,
    /// Buffers that the kernel may fill.
    buffers_free: usize,
    /// The buffer of the read last handed out.
    lent: Option<StreamBuffer>,
    /// Sockets to be closed when the entries that end their operations have been submitted: until then their numbers
    /// must not become those of others.
    closing: Vec<StreamSocket>,
}

/// What a read brought.
#[derive(Debug)]
pub(super) struct Bytes {
    buffer: StreamBuffer,
    len: u32,
}

impl UringStreams {
    /// For a ring with the buffers that `config` names.
    pub(super) fn new(config: &StreamConfig) -> io::Result<Self> {
        Ok(Self {
            table: Streams::new(config)?,
            starved: VecDeque::new(),
            buffers_free: config.read_buffers.into(),
            lent: None,
            closing: Vec::new(),
        })
    }

    /// Puts everything that streams wait for into the submission queue.
    pub(super) fn prepare(&mut self, ring: &mut Ring) -> io::Result<()> {
        self.take_back(ring);
        ring.stream_publish();
        for id in std::mem::take(&mut self.table.watches) {
            if let Some(socket) = self.table.watch(id) {
                ring.stream_ready(socket.as_fd(), Op::StreamReady(id))?;
            }
        }
        let mut arms = std::mem::take(&mut self.table.arms);
        for id in arms.drain(..) {
            self.arm(id, ring)?;
        }
        self.table.arms = arms;
        for _ in 0..self.buffers_free {
            let Some(id) = self.starved.pop_front() else { break };
            self.arm(id, ring)?;
        }
        for grave in self.table.graves.drain(..) {
            if grave.armed {
                ring.cancel(Op::StreamRead(grave.id))?;
            }
            if grave.watched {
                ring.cancel(Op::StreamReady(grave.id))?;
            }
            self.closing.push(grave.socket);
        }
        Ok(())
    }

    fn arm(&mut self, id: StreamId, ring: &mut Ring) -> io::Result<()> {
        let Some((socket, has_more)) = self.table.arm(id) else { return Ok(()) };
        ring.stream_read(socket.as_fd(), has_more, Op::StreamRead(id))
    }

    /// What streams have to send in this turn. Ends with [`settle`](UringStreams::settle).
    pub(super) fn sends(&self) -> impl Iterator<Item = StreamSend<'_>> {
        self.table.offers().map(|(id, socket, pieces)| StreamSend {
            fd: socket.as_fd(),
            pieces,
            op: Op::StreamSend(id),
        })
    }

    /// The submission queue is empty and every completion has been seen.
    pub(super) fn settle(&mut self) {
        self.closing.clear();
        self.table.settle();
    }

    pub(super) fn on_read(&mut self, id: StreamId, completion: Completion, ring: &mut Ring) {
        let Filled::StreamBuffer(buffer) = completion.filled else {
            return self.on_read_without_bytes(id, completion.result);
        };
        self.buffers_free -= 1;
        self.table.set_has_more(id, completion.has_more);
        let unwanted = match completion.result {
            Ok(len @ 1..) => {
                self.table.on_read(id, Bytes { buffer, len }).map(|bytes| bytes.buffer)
            }
            result => {
                self.on_read_without_bytes(id, result);
                Some(buffer)
            }
        };
        if let Some(buffer) = unwanted {
            self.give_back(buffer, ring);
        }
    }

    fn on_read_without_bytes(&mut self, id: StreamId, result: Result<u32, i32>) {
        match result {
            Ok(_) => self.table.on_read_end(id),
            Err(libc::ENOBUFS) => {
                self.table.counters_mut().rx_dry += 1;
                self.table.set_has_more(id, true);
                if self.table.on_read_retry(id, false) {
                    self.starved.push_back(id);
                }
            }
            Err(libc::EINTR | libc::EAGAIN) => {
                if self.table.on_read_retry(id, false) {
                    self.table.arms.push(id);
                }
            }
            Err(errno) => self.table.on_read_error(id, errno),
        }
    }

    pub(super) fn next_event<'a>(&'a mut self, ring: &'a mut Ring) -> Option<StreamEvent<'a>> {
        self.take_back(ring);
        loop {
            match self.table.pop_event()? {
                Err(stale) => self.give_back(stale.buffer, ring),
                Ok(Happened { id, what }) => {
                    return Some(match what {
                        What::Connected => StreamEvent::Connected(id),
                        What::Failed(error) => StreamEvent::Failed(id, error),
                        What::Writable => StreamEvent::Writable(id),
                        What::Fin => StreamEvent::Fin(id),
                        What::Closed(end, unsent) => StreamEvent::Closed(id, end, unsent),
                        What::Read(Bytes { buffer, len }) => {
                            let counters = self.table.counters_mut();
                            counters.rx_reads += 1;
                            counters.rx_bytes += u64::from(len);
                            let buffer = self.lent.insert(buffer);
                            StreamEvent::Data(id, ring.stream_bytes(buffer, len as usize))
                        }
                    });
                }
            }
        }
    }

    /// Takes back what was lent to the caller.
    fn take_back(&mut self, ring: &mut Ring) {
        if let Some(buffer) = self.lent.take() {
            self.give_back(buffer, ring);
        }
    }

    fn give_back(&mut self, buffer: StreamBuffer, ring: &mut Ring) {
        ring.stream_give_back(buffer);
        self.buffers_free += 1;
    }
}
