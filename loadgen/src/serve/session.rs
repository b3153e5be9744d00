//! One session, over whatever carries it.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::Serve;
use super::behaviour::{Act, Behaviour, Crash, Cut, Ending, Misdeed, Side};
use super::counts::Counts;
use super::messages::Messages;
use super::proxy;
use super::rooms::{Lobby, Seat};
use super::tamper::Link;
use crate::seed::mix64;

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) serve: Serve,
    pub(super) counts: Counts,
    lobby: Arc<Lobby>,
}

impl Host {
    pub(super) fn new(serve: &Serve) -> Self {
        let (counts, lobby) = (Counts::default(), Arc::default());
        Self { serve: serve.clone(), counts, lobby }
    }
}

/// What carries a session.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ends it at once. Dropping it without [`AsyncWriteExt::shutdown`] may end it either way.
    fn reset(self);
}

/// How a session ended.
enum Ended {
    /// The other side finished.
    Finished {
        mid_message: bool,
    },
    BadProxy,
    TooLong,
    /// As asked.
    Cut(Cut, Ending),
}

/// Runs one session to its end.
pub(super) async fn run<T: Transport>(host: Arc<Host>, mut io: T, link: Option<Arc<Link>>) {
    let counts = &host.counts;
    let number = counts.on_session();
    let ended = Session::new(&host, number, link.as_deref()).talk(&mut io).await;
    match ended {
        Ok(Ended::Finished { mid_message }) => {
            Counts::add(&counts.ended, 1);
            Counts::add(&counts.ended_mid_message, usize::from(mid_message));
            // The other side may have gone meanwhile: it is over either way.
            let _ = io.shutdown().await;
        }
        Ok(Ended::BadProxy | Ended::TooLong | Ended::Cut(Cut::Session, Ending::Reset)) => {
            io.reset();
        }
        Ok(Ended::Cut(Cut::Session, Ending::Fin)) => {
            let _ = io.shutdown().await;
        }
        Ok(Ended::Cut(Cut::Link, ending)) => match &link {
            Some(link) => link.cut(),
            None if ending == Ending::Reset => io.reset(),
            None => {
                let _ = io.shutdown().await;
            }
        },
        Err(_) => Counts::add(&counts.reset, 1),
    }
    counts.sessions_open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
}

struct Session<'a> {
    host: &'a Host,
    number: u64,
    link: Option<&'a Link>,
    messages: Messages,
    inbox: BytesMut,
    outbox: BytesMut,
    heard: u32,
    seat: Option<Seat>,
    deadline: Option<Instant>,
}

impl<'a> Session<'a> {
    fn new(host: &'a Host, number: u64, link: Option<&'a Link>) -> Self {
        let dialect = host.serve.dialect;
        let seat = match host.serve.behaviour {
            Behaviour::Rooms(rooms) => Some(host.lobby.enter(rooms, number)),
            Behaviour::Echo
            | Behaviour::Swell(_)
            | Behaviour::Slow(_)
            | Behaviour::Crash(_)
            | Behaviour::Garbage(_) => None,
        };
        let deadline = match host.serve.behaviour {
            Behaviour::Crash(Crash { after_time, .. }) => after_time.map(|t| Instant::now() + t),
            Behaviour::Echo
            | Behaviour::Swell(_)
            | Behaviour::Rooms(_)
            | Behaviour::Slow(_)
            | Behaviour::Garbage(_) => None,
        };
        Self {
            host,
            number,
            link,
            messages: Messages::new(dialect.framing, dialect.message_max),
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            heard: 0,
            seat,
            deadline,
        }
    }

    /// Until the session ends; an error is the transport's.
    async fn talk<T: Transport>(&mut self, io: &mut T) -> io::Result<Ended> {
        if self.host.serve.dialect.proxy
            && let Some(ended) = self.greet(io).await?
        {
            return Ok(ended);
        }
        loop {
            let unanswered = match self.answer() {
                Ok(unanswered) => unanswered,
                Err(ended) => return Ok(ended),
            };
            self.flush(io).await?;
            if unanswered {
                continue;
            }
            tokio::select! {
                read = read_some(io, &mut self.inbox, self.host.serve.behaviour) => {
                    let n = read?;
                    if n == 0 {
                        return Ok(Ended::Finished { mid_message: !self.inbox.is_empty() });
                    }
                    self.pace(Side::Reads, n).await;
                }
                said = heard(&mut self.seat) => {
                    self.outbox.extend_from_slice(&said);
                    Counts::add(&self.host.counts.messages_out, 1);
                    let prefix = self.host.serve.dialect.framing.prefix_len();
                    Counts::add(&self.host.counts.bytes_out, said.len() - prefix);
                }
                () = at(self.deadline) => {
                    Counts::add(&self.host.counts.crashes, 1);
                    let Behaviour::Crash(crash) = self.host.serve.behaviour else { continue };
                    return Ok(Ended::Cut(crash.cut, crash.ending));
                }
            }
        }
    }

    /// Reads the PROXY header; `Some` when that ends the session.
    async fn greet<T: Transport>(&mut self, io: &mut T) -> io::Result<Option<Ended>> {
        let counts = &self.host.counts;
        loop {
            match proxy::take(&mut self.inbox) {
                Ok(Some(_)) => {
                    Counts::add(&counts.proxy_headers, 1);
                    return Ok(None);
                }
                Ok(None) => {}
                Err(error) => {
                    counts.on_proxy_error(&error);
                    return Ok(Some(Ended::BadProxy));
                }
            }
            if read_some(io, &mut self.inbox, self.host.serve.behaviour).await? == 0 {
                if self.inbox.is_empty() {
                    Counts::add(&counts.checks, 1);
                    return Ok(Some(Ended::Finished { mid_message: false }));
                }
                let error = "a session that ended before its PROXY header did";
                counts.on_proxy_error(&error);
                return Ok(Some(Ended::BadProxy));
            }
        }
    }

    /// Answers each whole message that was read, into the outbox, until that is worth a write: then `true`, and the rest is to be
    /// answered when it is written. A session whose client takes nothing would keep all its answers otherwise.
    fn answer(&mut self) -> Result<bool, Ended> {
        let Host { serve, counts, .. } = self.host;
        loop {
            if self.outbox.len() >= READ_MAX {
                return Ok(true);
            }
            let message = match self.messages.next(&mut self.inbox) {
                Ok(Some(message)) if message.is_empty() => {
                    Counts::add(&counts.empty_in, 1);
                    continue;
                }
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => {
                    Counts::add(&counts.too_long, 1);
                    return Err(Ended::TooLong);
                }
            };
            self.heard = self.heard.saturating_add(1);
            Counts::add(&counts.messages_in, 1);
            Counts::add(&counts.bytes_in, message.len());
            match serve.behaviour.act(serve.seed, self.number, self.heard) {
                None => self.reply(&message),
                Some(Act::Crash(cut, ending)) => {
                    Counts::add(&counts.crashes, 1);
                    return Err(Ended::Cut(cut, ending));
                }
                Some(Act::Misbehave(misdeed)) => {
                    Counts::add(&counts.misdeeds, 1);
                    self.misbehave(misdeed, &message);
                }
            }
        }
        if self.inbox.is_empty() {
            // An idle session keeps no buffer.
            self.inbox = BytesMut::new();
        }
        Ok(false)
    }

    fn reply(&mut self, message: &[u8]) {
        let counts = &self.host.counts;
        let framing = self.host.serve.dialect.framing;
        let Some(seat) = &self.seat else {
            let times = match self.host.serve.behaviour {
                Behaviour::Swell(times) => times as usize,
                Behaviour::Echo
                | Behaviour::Rooms(_)
                | Behaviour::Slow(_)
                | Behaviour::Crash(_)
                | Behaviour::Garbage(_) => 1,
            };
            framing.put_prefix(&mut self.outbox, message.len() * times);
            (0..times).for_each(|_| self.outbox.extend_from_slice(message));
            Counts::add(&counts.messages_out, 1);
            Counts::add(&counts.bytes_out, message.len() * times);
            return;
        };
        let mut framed = BytesMut::with_capacity(framing.prefix_len() + message.len());
        framing.put_prefix(&mut framed, message.len());
        framed.extend_from_slice(message);
        Counts::add(&counts.dropped, seat.tell(&framed.freeze()));
    }

    fn misbehave(&mut self, misdeed: Misdeed, message: &[u8]) {
        let framing = self.host.serve.dialect.framing;
        match misdeed {
            Misdeed::Oversize => {
                self.outbox.extend_from_slice(&[0xFF; 4][..framing.prefix_len()]);
                self.outbox.extend_from_slice(message);
            }
            Misdeed::Stall => {
                framing.put_prefix(&mut self.outbox, message.len() + 1);
                self.outbox.extend_from_slice(message);
                // Nothing may follow, or it would be the rest.
                self.messages = Messages::Deaf;
            }
            Misdeed::Noise => self.outbox.extend_from_slice(&noise(self.host.serve.seed)),
            Misdeed::LinkUnknown
            | Misdeed::LinkWindow
            | Misdeed::LinkNoise
            | Misdeed::LinkStall => {
                if let Some(link) = self.link {
                    link.arm(misdeed);
                }
                // The answer makes the connection write, and that is when it happens.
                self.reply(message);
            }
        }
    }

    /// Writes the outbox out, as slowly as asked.
    async fn flush<T: Transport>(&mut self, io: &mut T) -> io::Result<()> {
        let chunk = chunk(self.host.serve.behaviour, Side::Writes);
        while !self.outbox.is_empty() {
            let mut piece = self.outbox.split_to(chunk.min(self.outbox.len()));
            let len = piece.len();
            io.write_all_buf(&mut piece).await?;
            self.pace(Side::Writes, len).await;
        }
        self.outbox = BytesMut::new();
        io.flush().await
    }

    /// Waits as long as `n` bytes take on the side that is slow.
    async fn pace(&self, side: Side, n: usize) {
        if let Behaviour::Slow(slow) = self.host.serve.behaviour
            && slow.side == side
        {
            let micros = n as u64 * 1_000_000 / u64::from(slow.bytes_per_s);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }
}

/// Appends what there is to read to `inbox`, through the stack, so that a session that waits holds no buffer. 0 at the end.
async fn read_some<T: AsyncRead + Unpin>(
    io: &mut T,
    inbox: &mut BytesMut,
    behaviour: Behaviour,
) -> io::Result<usize> {
    let max = chunk(behaviour, Side::Reads);
    poll_fn(|cx| {
        let mut space = [0; READ_MAX];
        let mut space = ReadBuf::new(&mut space[..max]);
        std::task::ready!(Pin::new(&mut *io).poll_read(cx, &mut space))?;
        inbox.extend_from_slice(space.filled());
        std::task::Poll::Ready(Ok(space.filled().len()))
    })
    .await
}

/// How much is moved at once: what is slow moves a tenth of a second's worth.
fn chunk(behaviour: Behaviour, side: Side) -> usize {
    match behaviour {
        Behaviour::Slow(slow) if slow.side == side => {
            (slow.bytes_per_s as usize / 10).clamp(1, READ_MAX)
        }
        Behaviour::Echo
        | Behaviour::Swell(_)
        | Behaviour::Rooms(_)
        | Behaviour::Slow(_)
        | Behaviour::Crash(_)
        | Behaviour::Garbage(_) => READ_MAX,
    }
}

async fn heard(seat: &mut Option<Seat>) -> bytes::Bytes {
    match seat {
        // Its own room has a sender for as long as the seat is taken.
        Some(seat) => match seat.heard.recv().await {
            Some(said) => said,
            None => pending().await,
        },
        None => pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Bytes without sense, other ones for each seed.
pub(super) fn noise(seed: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (chunk, n) in bytes.chunks_mut(8).zip(0..) {
        chunk.copy_from_slice(&mix64(seed ^ mix64(n)).to_le_bytes());
    }
    bytes
}

const READ_MAX: usize = 16 << 10;
