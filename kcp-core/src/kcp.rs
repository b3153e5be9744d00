//! The control block: public API and control flow only.

use crate::config::KcpConfig;
use crate::error::{InputError, RecvError, SendError};
use crate::store::Store;
use crate::units::{Conv, Millis};

/// What every call needs beside the session itself: its listener's settings and its shard's storage.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The listener's settings.
    pub config: &'a KcpConfig,
    /// The shard's storage.
    pub store: &'a mut Store,
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Kcp {}

#[expect(unused_variables, reason = "signatures agreed ahead of the implementation")]
impl Kcp {
    /// A fresh conversation. Reference: `ikcp_create`.
    #[must_use]
    pub fn new(conv: Conv) -> Self {
        todo!()
    }

    /// Takes one datagram from the peer.
    ///
    /// `deliver` is offered each in-order single-fragment message straight out of the datagram while nothing is queued
    /// ahead of it; `true` means taken. Refused messages and all others are queued for [`Kcp::recv`].
    ///
    /// # Errors
    /// The rule the datagram broke. With `strict` nothing was changed; otherwise earlier segments stay applied, as in
    /// the reference (`ikcp_input`).
    pub fn handle_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        datagram: &[u8],
        deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), InputError> {
        todo!()
    }

    /// Tells that time has passed: starts a flush when one is due. Reference: `ikcp_update`.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>, now: Millis) {
        todo!()
    }

    /// Starts a flush now, whatever the interval clock says. Reference: `ikcp_flush` after `ikcp_update`.
    pub fn flush(&mut self, cx: &mut Cx<'_>, now: Millis) {
        todo!()
    }

    /// Queues a message (message mode) or bytes (stream mode). Returns the bytes queued.
    ///
    /// # Errors
    /// Nothing was queued.
    pub fn send(&mut self, cx: &mut Cx<'_>, message: &[u8]) -> Result<usize, SendError> {
        todo!()
    }

    /// Writes the next datagram of a started flush into `buf` (at least `mtu` bytes) and returns its length;
    /// `None` when the flush is complete.
    pub fn poll_transmit(&mut self, cx: &mut Cx<'_>, now: Millis, buf: &mut [u8]) -> Option<usize> {
        todo!()
    }

    /// Copies the next whole message into `buf`.
    ///
    /// # Errors
    /// Nothing was consumed.
    pub fn recv(&mut self, cx: &mut Cx<'_>, buf: &mut [u8]) -> Result<usize, RecvError> {
        todo!()
    }

    /// Size in bytes of the next whole message. Reference: `ikcp_peeksize`.
    #[must_use]
    pub fn peek_size(&self, store: &Store) -> Option<usize> {
        todo!()
    }

    /// When [`Kcp::handle_timeout`] (policy `Interval`) or [`Kcp::flush`] (policy `Turn`) must be called next; `None` when
    /// nothing but input can change anything. Never in the past after a complete drain, so it never spins.
    #[must_use]
    pub fn poll_timeout(&self, cx: &Cx<'_>, now: Millis) -> Option<Millis> {
        todo!()
    }

    /// Returns all storage; the conversation is as new afterwards.
    pub fn reset(&mut self, store: &mut Store) {
        todo!()
    }

    /// The conversation id.
    #[must_use]
    pub fn conv(&self) -> Conv {
        todo!()
    }

    /// Segments queued or in flight. Reference: `ikcp_waitsnd`.
    #[must_use]
    pub fn wait_snd(&self, store: &Store) -> usize {
        todo!()
    }

    /// A segment was sent `dead_link` times without an answer. Reference: `state == -1`.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        todo!()
    }

    /// Nothing queued, in flight, to acknowledge or to probe: the session holds no storage and has no deadline.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        todo!()
    }
}
