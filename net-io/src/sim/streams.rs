//! Streams of a simulated driver, and the ends of connections that test harnesses handle.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;

use super::fabric::DriverId;
use super::net::{SimHost, SimNet};
use super::pipe::EndId;
use crate::stream::{
    Close, ConnectError, Duplex, Happened, Pieces, StreamAddr, StreamConfig, StreamEvent, StreamId,
    Streams, What,
};
use crate::wake::Waker;

/// One end of a connection. Dropping it closes it: with an RST if something unread is left in it, as the kernel does.
#[derive(Debug)]
pub struct SimStream {
    pub(super) net: SimNet,
    pub(super) end: EndId,
    pub(super) reset: Cell<bool>,
}

/// Waits for connections; see [`SimHost::listen_stream`]. Dropping it resets those that nobody accepted, and refuses all to
/// come.
#[derive(Debug)]
pub struct SimListener {
    net: SimNet,
    addr: StreamAddr,
}

impl SimHost {
    /// Listens for connections to an address of this machine, to a wildcard, or to a Unix path, which all machines share.
    /// Port 0 picks one.
    ///
    /// What a connection carries arrives whole and in order. Of the links between its two addresses the delay, the jitter and the
    /// blackouts count, and losses as the time it takes to notice them.
    ///
    /// # Errors
    /// `AddrNotAvailable`, `AddrInUse`.
    pub fn listen_stream(&self, addr: &StreamAddr) -> io::Result<SimListener> {
        let addr = self.net.listen(self.host, addr)?;
        Ok(SimListener { net: self.net.clone(), addr })
    }
}

impl SimListener {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> &StreamAddr {
        &self.addr
    }

    /// The next connection made, for a driver of the same network to adopt: the backend of a simulation is a driver, too.
    #[must_use]
    pub fn accept(&self) -> Option<SimStream> {
        let end = self.net.with(|inner| inner.pipes.accept(&self.addr))?;
        Some(SimStream { net: self.net.clone(), end, reset: Cell::new(false) })
    }

    /// Makes each connection wake a driver, so that its turn is due and its owner can accept.
    pub fn wake(&self, waker: Waker) {
        self.net.with(|inner| inner.pipes.set_waker(&self.addr, waker));
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.net.with(|inner| inner.drop_listener(&self.addr));
    }
}

impl SimStream {
    fn is_readable(&self) -> bool {
        self.net.with(|inner| inner.pipes.is_readable(self.end))
    }

    fn is_writable(&self) -> bool {
        self.net.with(|inner| inner.pipes.is_writable(self.end))
    }

    fn send(&self, pieces: Pieces<'_>) -> Result<usize, i32> {
        let mut total = 0;
        for piece in pieces {
            match self.net.with(|inner| inner.send_bytes(self.end, piece)) {
                Ok(sent) => total += sent,
                Err(_) if total > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(total)
    }
}

impl Duplex for SimStream {
    fn finish(&self) {
        self.net.with(|inner| inner.finish_end(self.end));
    }

    fn reset_on_drop(&self) {
        self.reset.set(true);
    }

    fn connect_result(&self) -> Result<(), ConnectError> {
        self.net.with(|inner| inner.pipes.connect_result(self.end))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.net.with(|inner| inner.drop_end(self.end, self.reset.get()));
    }
}

/// The streams of one [`SimDriver`](super::SimDriver).
#[derive(Debug)]
pub(super) struct SimStreams {
    pub(super) table: Streams<SimStream, ()>,
    /// What the read last handed out is in.
    buffer: Box<[u8]>,
}

impl SimStreams {
    #[expect(clippy::expect_used, reason = "bounds written in a test")]
    pub(super) fn new(config: &StreamConfig) -> Self {
        let table = Streams::new(config).expect("bounds that can be kept");
        let buffer = vec![0; config.read_buffer_len as usize].into_boxed_slice();
        Self { table, buffer }
    }

    pub(super) fn connect(
        &mut self,
        net: &SimNet,
        driver: DriverId,
        to: &StreamAddr,
        bind: Option<IpAddr>,
    ) -> Result<StreamId, ConnectError> {
        let id = self.table.connect(|config| {
            let (end, made) = net.open(driver, bind, to, config)?;
            Ok((SimStream { net: net.clone(), end, reset: Cell::new(false) }, made))
        })?;
        self.own(driver, id);
        Ok(id)
    }

    pub(super) fn adopt(
        &mut self,
        net: &SimNet,
        driver: DriverId,
        stream: SimStream,
    ) -> Result<StreamId, ConnectError> {
        let ours = net.is(&stream.net);
        let open = || if ours { Ok(stream) } else { Err(ConnectError::Other(libc::EINVAL)) };
        let id = self.table.adopt(open)?;
        self.own(driver, id);
        Ok(id)
    }

    fn own(&self, driver: DriverId, id: StreamId) {
        if let Some(stream) = self.table.socket(id) {
            stream.net.with(|inner| inner.pipes.set_owner(stream.end, (driver, id)));
        }
    }

    pub(super) fn close(&mut self, id: StreamId, how: Close) {
        self.table.close(id, how);
        self.table.graves.clear();
    }

    /// Sends what streams have queued, and sees which of the reads asked for need not wait.
    pub(super) fn flush(&mut self) {
        self.table.graves.clear();
        self.table.watches.clear();
        self.table.offer();
        let mut index = 0;
        while let Some(id) = self.table.offered(index) {
            index += 1;
            if let Some((_, stream, pieces)) = self.table.send(id) {
                let sent = stream.send(pieces);
                self.table.on_sent(id, sent);
            }
        }
        self.table.settle();
        for id in std::mem::take(&mut self.table.arms) {
            if self.table.arm(id).is_some_and(|(stream, _)| stream.is_readable()) {
                self.table.on_read(id, ());
            }
        }
    }

    /// Looks at the streams to which something happened.
    pub(super) fn collect(&mut self, touched: Vec<StreamId>) {
        for id in touched {
            if self.table.socket(id).is_some_and(SimStream::is_writable) {
                self.table.on_writable(id);
            }
            if self.table.is_armed(id) && self.table.socket(id).is_some_and(SimStream::is_readable)
            {
                self.table.on_read(id, ());
            }
        }
    }

    pub(super) fn next_event(&mut self) -> Option<StreamEvent<'_>> {
        loop {
            let Ok(Happened { id, what }) = self.table.pop_event()? else { continue };
            return Some(match what {
                What::Connected => StreamEvent::Connected(id),
                What::Failed(error) => StreamEvent::Failed(id, error),
                What::Writable => StreamEvent::Writable(id),
                What::Fin => StreamEvent::Fin(id),
                What::Closed(end, unsent) => StreamEvent::Closed(id, end, unsent),
                What::Read(()) => match self.read(id) {
                    Some(len) => StreamEvent::Data(id, &self.buffer[..len]),
                    None => continue,
                },
            });
        }
    }

    fn read(&mut self, id: StreamId) -> Option<usize> {
        let stream = self.table.socket(id)?;
        let buffer = &mut self.buffer;
        match stream.net.with(|inner| inner.read_bytes(stream.end, buffer)) {
            Ok(0) => self.table.on_read_end(id),
            Ok(len) => {
                let counters = self.table.counters_mut();
                counters.rx_reads += 1;
                counters.rx_bytes += len as u64;
                return Some(len);
            }
            Err(libc::EAGAIN) => {
                self.table.on_read_retry(id, true);
            }
            Err(errno) => self.table.on_read_error(id, errno),
        }
        None
    }
}

#[cfg(test)]
mod tests;
