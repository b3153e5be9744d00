//! Two drivers and what their streams told.

use std::fmt;

use net_io::{
    Close, ConnectError, Driver, DriverConfig, Now, StreamAddr, StreamConfig, StreamEnd,
    StreamEvent, StreamId,
};

use crate::bed::{Bed, PATIENCE_US};

/// A driver's world that has streams in it.
pub(crate) trait StreamBed: Bed {
    type Listener;

    /// A listener on a free address of the family that `addr` is an example of, and where it is.
    fn listen(&mut self, addr: &StreamAddr) -> (Self::Listener, StreamAddr);

    /// The next connection made to a listener, if there is one.
    fn accept(&mut self, listener: &Self::Listener) -> Option<<Self::Driver as Driver>::Stream>;

    /// A driver that has streams.
    fn side(&mut self, streams: StreamConfig) -> Side<Self::Driver> {
        let config = DriverConfig { streams: Some(streams), ..DriverConfig::default() };
        Side { driver: self.driver(&config), seen: Vec::new(), reads: true }
    }

    /// Two drivers and a stream between them, the first of which made it.
    fn pair(&mut self, streams: &StreamConfig) -> Pair<Self::Driver> {
        let (listener, addr) = self.listen(&loopback());
        let (mut a, mut b) = (self.side(streams.clone()), self.side(streams.clone()));
        let at_a = a.driver.connect(&addr, None).unwrap();
        let at_b = self.accepted(&listener, &mut a, &mut b);
        until(&mut a, &mut b, |a, _| a.seen == [Seen::Connected(at_a)]);
        a.seen.clear();
        a.driver.stream_read(at_a);
        Pair { a, b, at_a, at_b }
    }

    /// Turns both drivers until there is a connection, which the second one takes.
    fn accepted(
        &mut self,
        listener: &Self::Listener,
        a: &mut Side<Self::Driver>,
        b: &mut Side<Self::Driver>,
    ) -> StreamId {
        let limit = Now(a.driver.now().0 + PATIENCE_US);
        loop {
            if let Some(stream) = self.accept(listener) {
                let id = b.driver.adopt(stream).unwrap();
                if b.reads {
                    b.driver.stream_read(id);
                }
                return id;
            }
            a.turn(TURN_US);
            b.turn(TURN_US);
            assert!(a.driver.now() < limit, "no connection came");
        }
    }
}

/// Where a scenario listens that does not care.
pub(crate) fn loopback() -> StreamAddr {
    StreamAddr::Tcp(([127, 0, 0, 1], 0).into())
}

/// A stream between two drivers.
pub(crate) struct Pair<D> {
    pub(crate) a: Side<D>,
    pub(crate) b: Side<D>,
    pub(crate) at_a: StreamId,
    pub(crate) at_b: StreamId,
}

/// A driver, and what its streams told that nobody has looked at.
pub(crate) struct Side<D> {
    pub(crate) driver: D,
    pub(crate) seen: Vec<Seen>,
    /// Asks for another read after each.
    pub(crate) reads: bool,
}

/// A [`StreamEvent`], kept. Bytes that follow each other on a stream are one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Connected(StreamId),
    Failed(StreamId, ConnectError),
    Data(StreamId, Vec<u8>),
    Writable(StreamId),
    Fin(StreamId),
    Closed(StreamId, StreamEnd),
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(id) => write!(f, "{id:?} connected"),
            Self::Failed(id, error) => write!(f, "{id:?} failed: {error}"),
            Self::Data(id, bytes) if bytes.len() > 32 => {
                write!(f, "{id:?} {} bytes from {:?}", bytes.len(), &bytes[..8])
            }
            Self::Data(id, bytes) => write!(f, "{id:?} {bytes:?}"),
            Self::Writable(id) => write!(f, "{id:?} writable"),
            Self::Fin(id) => write!(f, "{id:?} fin"),
            Self::Closed(id, end) => write!(f, "{id:?} closed: {end:?}"),
        }
    }
}

impl<D: Driver> Side<D> {
    /// One turn of at most `us` microseconds. Keeps what the streams tell.
    pub(crate) fn turn(&mut self, us: u64) {
        let deadline = Now(self.driver.now().0 + us);
        self.driver.submit_and_wait(Some(deadline)).unwrap();
        while self.take_event() {}
    }

    /// One turn that may wait long and must not have to.
    pub(crate) fn turn_at_once(&mut self) {
        let limit = Now(self.driver.now().0 + PATIENCE_US);
        self.driver.submit_and_wait(Some(limit)).unwrap();
        assert!(self.driver.now() < limit, "it waited");
        while self.take_event() {}
    }

    /// Keeps one event; whether there was one.
    pub(crate) fn take_event(&mut self) -> bool {
        let Some(event) = self.driver.stream_event() else { return false };
        let seen = match event {
            StreamEvent::Connected(id) => Seen::Connected(id),
            StreamEvent::Failed(id, error) => Seen::Failed(id, error),
            StreamEvent::Data(id, bytes) => Seen::Data(id, bytes.to_vec()),
            StreamEvent::Writable(id) => Seen::Writable(id),
            StreamEvent::Fin(id) => Seen::Fin(id),
            StreamEvent::Closed(id, end, _) => Seen::Closed(id, end),
        };
        if let Seen::Data(id, bytes) = &seen {
            assert!(!bytes.is_empty());
            if self.reads {
                self.driver.stream_read(*id);
            }
            if let Some(Seen::Data(last, before)) = self.seen.last_mut()
                && last == id
            {
                before.extend_from_slice(bytes);
                return true;
            }
        }
        self.seen.push(seen);
        true
    }

    /// Takes what the streams told so far.
    pub(crate) fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// How many bytes have come for a stream that nobody has looked at.
    pub(crate) fn bytes(&self, stream: StreamId) -> usize {
        let mut total = 0;
        for seen in &self.seen {
            if let Seen::Data(id, bytes) = seen
                && *id == stream
            {
                total += bytes.len();
            }
        }
        total
    }

    /// Writes all of `bytes`, which must fit.
    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8]) {
        assert_eq!(self.driver.stream_write(id, bytes), bytes.len(), "the write was cut short");
    }

    pub(crate) fn finish(&mut self, id: StreamId) {
        self.driver.stream_close(id, Close::Finish);
    }

    pub(crate) fn abort(&mut self, id: StreamId) {
        self.driver.stream_close(id, Close::Abort);
    }
}

/// Turns both until it is so.
///
/// # Panics
/// When it does not become so in time.
pub(crate) fn until<D: Driver>(
    a: &mut Side<D>,
    b: &mut Side<D>,
    done: impl Fn(&mut Side<D>, &mut Side<D>) -> bool,
) {
    let limit = Now(a.driver.now().0 + PATIENCE_US);
    while !done(a, b) {
        assert!(a.driver.now() < limit, "it did not happen: {:?} {:?}", a.seen, b.seen);
        let before = (moved(a), moved(b));
        a.turn(0);
        b.turn(0);
        if (moved(a), moved(b)) == before {
            a.turn(TURN_US);
            b.turn(TURN_US);
        }
    }
}

/// What a driver's streams have moved so far.
fn moved<D: Driver>(side: &Side<D>) -> (u64, u64) {
    let counters = side.driver.stream_counters();
    (counters.rx_bytes, counters.tx_bytes)
}

/// How long a turn of one driver may keep the other waiting.
pub(crate) const TURN_US: u64 = 1000;
