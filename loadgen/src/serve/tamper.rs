//! A connection that speaks yamux correctly until told otherwise: between two frames of the library that uses it, it sends what
//! that library never would.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::behaviour::Misdeed;
use super::session::noise;

/// What the sessions of a connection may do to it.
#[derive(Debug, Default)]
pub(super) struct Link {
    cut: Notify,
    armed: AtomicU8,
}

impl Link {
    /// Ends the connection.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    pub(super) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// Before the next frame goes out, `misdeed` does. One for a session does nothing here.
    pub(super) fn arm(&self, misdeed: Misdeed) {
        let code = MISDEEDS.iter().position(|m| *m == misdeed).map_or(0, |index| index + 1);
        self.armed.store(u8::try_from(code).unwrap_or(0), Ordering::Relaxed);
    }

    fn disarm(&self) -> Option<Misdeed> {
        let code = usize::from(self.armed.swap(0, Ordering::Relaxed));
        MISDEEDS.get(code.checked_sub(1)?).copied()
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed) != 0
    }
}

/// The wrapped connection.
#[derive(Debug)]
pub(super) struct Tamper<S> {
    inner: S,
    link: Arc<Link>,
    seed: u64,
    frames: Frames,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Honest,
    /// What is left to send that must not be, and whether anything comes after it.
    Sending {
        left: Bytes,
        then_silent: bool,
    },
    /// What is written goes nowhere.
    Silent,
}

impl<S> Tamper<S> {
    pub(super) fn new(inner: S, link: Arc<Link>, seed: u64) -> Self {
        Self { inner, link, seed, frames: Frames::default(), phase: Phase::Honest }
    }

    fn begin(&mut self, misdeed: Misdeed) {
        let mut left = BytesMut::new();
        match misdeed {
            Misdeed::LinkUnknown => put_data(&mut left, NEVER_OPENED, b"for nobody"),
            Misdeed::LinkWindow => {
                for _ in 0..BEYOND_ANY_WINDOW.div_ceil(PIECE.len()) {
                    put_data(&mut left, self.frames.last_stream, &PIECE);
                }
            }
            // The first byte of a frame is the protocol's version, 0.
            Misdeed::LinkNoise => left.extend_from_slice(&noise(self.seed).map(|byte| byte | 1)),
            Misdeed::LinkStall => {
                put_data(&mut left, self.frames.last_stream, &PIECE[..1000]);
                left.truncate(HEADER + 10);
            }
            Misdeed::Oversize | Misdeed::Stall | Misdeed::Noise => {}
        }
        let then_silent = misdeed == Misdeed::LinkStall;
        self.phase = Phase::Sending { left: left.freeze(), then_silent };
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tamper<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if matches!(this.phase, Phase::Honest)
            && this.frames.is_between()
            && let Some(misdeed) = this.link.disarm()
        {
            this.begin(misdeed);
        }
        while let Phase::Sending { left, then_silent } = &mut this.phase {
            if left.is_empty() {
                this.phase = if *then_silent { Phase::Silent } else { Phase::Honest };
                break;
            }
            let n = ready!(Pin::new(&mut this.inner).poll_write(cx, left))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(n);
        }
        if matches!(this.phase, Phase::Silent) {
            return Poll::Ready(Ok(bytes.len()));
        }
        // To stop where this frame ends, when something is to follow it.
        let len = if this.link.is_armed() { this.frames.rest_of(bytes.len()) } else { bytes.len() };
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, &bytes[..len]))?;
        this.frames.pass(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tamper<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, out)
    }
}

/// Follows what is written, frame by frame.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    header_len: usize,
    body_left: usize,
    /// The last stream that data was sent on.
    last_stream: u32,
}

impl Frames {
    const fn is_between(&self) -> bool {
        self.header_len == 0 && self.body_left == 0
    }

    /// How many of `len` bytes certainly belong to the frame at hand.
    fn rest_of(&self, len: usize) -> usize {
        let rest = if self.body_left > 0 { self.body_left } else { HEADER - self.header_len };
        rest.min(len)
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = self.rest_of(bytes.len());
            let (now, later) = bytes.split_at(n);
            bytes = later;
            if self.body_left > 0 {
                self.body_left -= n;
                continue;
            }
            self.header[self.header_len..self.header_len + n].copy_from_slice(now);
            self.header_len += n;
            if self.header_len == HEADER {
                self.header_len = 0;
                let [_, kind, _, _, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
                if kind == DATA {
                    self.body_left = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
                    self.last_stream = u32::from_be_bytes([s0, s1, s2, s3]);
                }
            }
        }
    }
}

/// Appends a frame of data without flags.
fn put_data(out: &mut BytesMut, stream: u32, body: &[u8]) {
    out.put_slice(&[0, DATA, 0, 0]);
    out.put_u32(stream);
    out.put_uint(body.len() as u64, 4);
    out.put_slice(body);
}

const MISDEEDS: [Misdeed; 4] =
    [Misdeed::LinkUnknown, Misdeed::LinkWindow, Misdeed::LinkNoise, Misdeed::LinkStall];
/// Version, type, flags, stream, length.
const HEADER: usize = 12;
const DATA: u8 = 0;
/// The server's own numbers are even.
const NEVER_OPENED: u32 = 0x7FFF_FFFE;
/// A window begins at 256 KiB; one that grows has been announced to be read from.
const BEYOND_ANY_WINDOW: usize = 32 << 20;
static PIECE: [u8; 32 << 10] = [b'w'; 32 << 10];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_whatever_the_pieces() {
        let mut stream = BytesMut::new();
        put_data(&mut stream, 7, b"hello");
        stream.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0]);
        put_data(&mut stream, 3, b"");
        let mut frames = Frames::default();
        let mut between = Vec::new();
        for (at, byte) in stream.iter().enumerate() {
            frames.pass(&[*byte]);
            if frames.is_between() {
                between.push(at + 1);
            }
        }
        assert_eq!((between, frames.last_stream), (vec![17, 29, 41], 3));
        let mut at_once = Frames::default();
        at_once.pass(&stream);
        assert!(at_once.is_between());
    }
}
