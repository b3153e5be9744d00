//! Sessions over a real connection to a backend that speaks somebody else's yamux.
#![allow(dead_code, reason = "each backend's test takes what fits it")]

pub(crate) mod scenarios;

use std::collections::VecDeque;
use std::hash::Hasher;
use std::io;
use std::time::Duration;

use fnv::FnvHasher;
use kcp_core::Conv;
use kcp_gateway::upstream::framing::{Codec, Framing};
use kcp_gateway::upstream::pool::Pool;
use kcp_gateway::upstream::proxy::Header;
use kcp_gateway::upstream::yamux::{Config, LinkError, Mux, OpenError, PushError, StreamKey};
use kcp_gateway::upstream::{Cx, End, Event};
use net_io::Now;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

/// The connection that carries everything.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.ready(interest).await.map(drop),
            Self::Unix(socket) => socket.ready(interest).await.map(drop),
        }
    }

    fn try_read(&self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(out),
            Self::Unix(socket) => socket.try_read(out),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Unix(socket) => socket.try_write(bytes),
        }
    }
}

/// What one session wants to say, and what it has heard.
pub(crate) struct Session {
    key: Option<StreamKey>,
    to_send: VecDeque<Vec<u8>>,
    /// Times that it had to wait for room.
    pub(crate) refused: u64,
    /// Whether it takes messages.
    has_room: bool,
    /// The messages it took, unless it only counts them.
    pub(crate) heard: Vec<Vec<u8>>,
    counts_only: bool,
    pub(crate) heard_bytes: u64,
    hash: FnvHasher,
    pub(crate) end: Option<End>,
}

/// The gateway's end of the connection.
pub(crate) struct Gate {
    socket: Socket,
    pub(crate) mux: Mux<u32>,
    pub(crate) pool: Pool,
    pub(crate) sessions: Vec<Session>,
    pub(crate) ended: Option<LinkError>,
    began: Instant,
    buffer: Vec<u8>,
}

/// Sessions speak messages of up to 150,000 bytes with four bytes of length before each.
pub(crate) fn config() -> Config {
    Config::new(Codec { framing: Framing::U32Be, message_max: 150_000, cut: 1000 })
}

impl Gate {
    pub(crate) fn new(socket: Socket, config: Config) -> Self {
        Self {
            socket,
            mux: Mux::new(config, Now(0)).unwrap(),
            pool: Pool::new(64 << 20),
            sessions: Vec::new(),
            ended: None,
            began: Instant::now(),
            buffer: vec![0; 64 << 10],
        }
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.began.elapsed().as_micros()).unwrap())
    }

    /// Opens a session's stream, as soon as the backend takes one, and says `command`.
    pub(crate) async fn open(&mut self, command: &str) -> u32 {
        let session = u32::try_from(self.sessions.len()).unwrap();
        let hello = Header::new(
            "192.0.2.7:50000".parse().unwrap(),
            "198.51.100.1:4000".parse().unwrap(),
            Conv(session),
        );
        let key = loop {
            match self.mux.open(session, hello.as_slice()) {
                Ok(key) => break key,
                Err(OpenError::Unacked | OpenError::Full) => self.turn().await,
                Err(error) => panic!("cannot open: {error:?}"),
            }
        };
        self.sessions.push(Session {
            key: Some(key),
            to_send: VecDeque::new(),
            refused: 0,
            has_room: true,
            heard: Vec::new(),
            counts_only: false,
            heard_bytes: 0,
            hash: FnvHasher::default(),
            end: None,
        });
        self.say(session, command.as_bytes());
        session
    }

    pub(crate) fn session(&self, session: u32) -> &Session {
        &self.sessions[session as usize]
    }

    pub(crate) fn session_mut(&mut self, session: u32) -> &mut Session {
        &mut self.sessions[session as usize]
    }

    /// Sends a message, now or when there is room.
    pub(crate) fn say(&mut self, session: u32, message: &[u8]) {
        self.session_mut(session).to_send.push_back(message.to_vec());
        self.push(session);
    }

    pub(crate) fn count_only(&mut self, session: u32) {
        self.session_mut(session).counts_only = true;
    }

    pub(crate) fn hold(&mut self, session: u32) {
        self.session_mut(session).has_room = false;
    }

    pub(crate) fn release(&mut self, session: u32) {
        self.session_mut(session).has_room = true;
        if let Some(key) = self.session(session).key {
            self.with(|mux, cx| mux.resume(cx, key));
        }
    }

    pub(crate) fn close(&mut self, session: u32) {
        let now = self.now();
        if let Some(key) = self.session_mut(session).key.take() {
            self.mux.close(now, &mut self.pool, key);
        }
    }

    pub(crate) fn abort(&mut self, session: u32) {
        if let Some(key) = self.session_mut(session).key.take() {
            self.mux.abort(&mut self.pool, key);
        }
    }

    /// Works until `done`.
    pub(crate) async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            assert!(self.ended.is_none(), "the connection ended: {:?}", self.ended);
            self.turn().await;
        }
    }

    /// Works until the connection is over, and tells every session.
    pub(crate) async fn until_the_end(&mut self) -> LinkError {
        let error = loop {
            match self.ended {
                Some(error) => break error,
                None => self.turn().await,
            }
        };
        assert!(self.with(|mux, cx| mux.tear_down(cx, &mut { usize::MAX })));
        error
    }

    /// Moves what moves, and waits when nothing does.
    async fn turn(&mut self) {
        if self.move_bytes() {
            // The backend may live on this thread, and what it holds decides whether windows open.
            return tokio::task::yield_now().await;
        }
        let (now, idle) = (self.now(), Duration::from_secs(3600));
        let wait = match self.mux.poll_timeout(now) {
            Some(at) => Duration::from_micros(at.0.saturating_sub(now.0)),
            None => idle,
        };
        let waits_to_write = !self.mux.pending(now).is_empty();
        let interest = if waits_to_write {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        if tokio::time::timeout(wait, self.socket.ready(interest)).await.is_err()
            && let Err(error) = self.with(|mux, cx| mux.handle_timeout(cx))
        {
            self.ended = Some(error);
        }
    }

    /// Writes and reads once each; whether anything moved.
    fn move_bytes(&mut self) -> bool {
        let now = self.now();
        let pending = self.mux.pending(now);
        let mut moved = false;
        if !pending.is_empty() {
            match self.socket.try_write(pending) {
                Ok(n) => {
                    self.mux.on_written(now, n, &mut self.pool);
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.ended = Some(self.mux.fail(LinkError::Reset)),
            }
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        match self.socket.try_read(&mut buffer) {
            Ok(0) => self.ended = Some(self.mux.on_eof()),
            Ok(n) => {
                if let Err(error) = self.with(|mux, cx| mux.on_read(cx, &buffer[..n])) {
                    self.ended = Some(error);
                }
                moved = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.ended = Some(self.mux.fail(LinkError::Reset)),
        }
        self.buffer = buffer;
        while let Some(session) = self.mux.poll_room() {
            self.push(session);
        }
        moved || self.ended.is_some()
    }

    fn push(&mut self, session: u32) {
        let it = &mut self.sessions[session as usize];
        while let (Some(message), Some(key)) = (it.to_send.front(), it.key) {
            match self.mux.push(&mut self.pool, key, message) {
                Ok(()) => drop(it.to_send.pop_front()),
                Err(PushError::Full) => {
                    it.refused += 1;
                    return;
                }
                Err(PushError::Gone) => return,
                Err(error) => panic!("session {session}: {error:?}"),
            }
        }
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Mux<u32>, &mut Cx<'_, &mut dyn FnMut(u32, Event<'_>) -> bool>) -> T,
    ) -> T {
        let now = self.now();
        let sessions = &mut self.sessions;
        let mut sink = |session: u32, event: Event<'_>| {
            let session = &mut sessions[session as usize];
            match event {
                Event::Message(message) => {
                    if session.has_room {
                        session.hear(message);
                    }
                    session.has_room
                }
                Event::Empty(frames) => panic!("{frames} of a backend that sends none"),
                Event::End(end) => {
                    assert_eq!(session.end.replace(end), None, "one end for each");
                    true
                }
            }
        };
        let mut sink: &mut dyn FnMut(u32, Event<'_>) -> bool = &mut sink;
        call(&mut self.mux, &mut Cx { now, pool: &mut self.pool, sink: &mut sink })
    }
}

impl Session {
    fn hear(&mut self, message: &[u8]) {
        self.heard_bytes += message.len() as u64;
        self.hash.write(message);
        if !self.counts_only {
            self.heard.push(message.to_vec());
        }
    }

    /// FNV-1a of everything it heard.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// Everything it wanted to say is on its way.
    pub(crate) fn has_said_all(&self) -> bool {
        self.to_send.is_empty()
    }
}

/// Byte `i` of what both ends send in bulk.
pub(crate) fn bulk(from: u64, len: usize) -> Vec<u8> {
    (from..).take(len).map(|i| (i.wrapping_mul(31) ^ (i >> 9)).to_le_bytes()[0]).collect()
}
