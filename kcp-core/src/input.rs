//! One datagram in: what strict input wants of it, and what each kind of segment does. Reference: `ikcp_input`.
//!
//! Two ways lead through a datagram. The usual shapes (an ACK, a PUSH, an ACK and a PUSH) are read and checked at once and
//! applied without a walk; everything else is walked twice, to be checked and to be applied. Both do the same with a
//! segment, and the usual way takes nothing that the other would not.

use crate::block::Block;
use crate::config::KcpConfig;
use crate::error::InputError;
use crate::kcp::{Cx, Kcp};
use crate::recv::Inserted;
use crate::units::{Millis, Sn};
use crate::wire::{Command, HEADER_LEN, View};

impl Kcp {
    /// Whether strict input would take this datagram. Changes nothing.
    ///
    /// Old numbers are no offence: a reordered segment or a duplicate names what has long been acknowledged.
    ///
    /// # Errors
    /// The first rule that a segment breaks.
    pub fn check_datagram(&self, config: &KcpConfig, datagram: &[u8]) -> Result<(), InputError> {
        if datagram.len() < HEADER_LEN {
            return Err(InputError::TooShort);
        }
        self.skip_sound(true, config.rcv_wnd, &mut &*datagram)
    }

    /// Moves `rest` behind the segments that are as they must be: ours, whole, one of the four commands; if `strict`, also
    /// such that an honest peer may have sent them.
    ///
    /// # Errors
    /// What is wrong with the next segment, checked in the reference's order.
    fn skip_sound(&self, strict: bool, rcv_wnd: u32, rest: &mut &[u8]) -> Result<(), InputError> {
        while let Some((header, behind)) = View::split(rest) {
            if header.conv() != self.conv {
                return Err(InputError::WrongConv);
            }
            let (_, behind) = header.payload(behind).ok_or(InputError::BadLength)?;
            let cmd = header.cmd().ok_or(InputError::UnknownCommand)?;
            if strict {
                self.check_segment(rcv_wnd, header, cmd)?;
            }
            *rest = behind;
        }
        Ok(())
    }

    #[inline]
    fn check_segment(
        &self,
        rcv_wnd: u32,
        header: View<'_>,
        cmd: Command,
    ) -> Result<(), InputError> {
        if self.space.nxt.since(header.una()) < 0 {
            return Err(InputError::UnaBeyondSent);
        }
        if cmd == Command::Push {
            if u32::from(header.frg()) >= rcv_wnd.max(1) {
                return Err(InputError::FragmentBeyondWindow);
            }
            return Ok(());
        }
        if header.len() != 0 || header.frg() != 0 {
            return Err(InputError::PayloadOnControl);
        }
        if cmd == Command::Ack && header.sn().since(self.space.nxt) >= 0 {
            return Err(InputError::AckBeyondSent);
        }
        Ok(())
    }

    /// Takes a datagram. With an error strict input has changed nothing; otherwise what came before stays applied, but the
    /// fast-ack count and the window's growth are skipped, as in the reference.
    #[inline]
    pub(crate) fn apply_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        datagram: &[u8],
        mut deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), InputError> {
        let Some(usual) = self.usual(datagram) else {
            return self.apply_segments(cx, now, datagram, deliver);
        };
        let una_before = self.space.una;
        if let Some(ack) = usual.ack {
            self.on_ack(cx, now, ack);
        }
        if let Some((push, payload)) = usual.push {
            self.on_push(cx, now, push, payload, &mut deliver);
        }
        self.after_segments(cx, usual.ack, una_before);
        Ok(())
    }

    /// Reads a datagram of a usual shape. Whatever is odd about it, if only to strict input, is left to the walk.
    #[inline]
    fn usual<'a>(&self, datagram: &'a [u8]) -> Option<Usual<'a>> {
        let (mut header, mut behind) = View::split(datagram)?;
        let mut ack = None;
        if header.is_simple(self.conv, Command::Ack) {
            let age = self.space.nxt.since(header.sn()).cast_unsigned();
            let known = (1..FAR_BEHIND).contains(&age) && self.space.nxt.since(header.una()) >= 0;
            if !known || header.len() != 0 {
                return None;
            }
            ack = Some(header);
            if behind.is_empty() {
                return Some(Usual { ack, push: None });
            }
            (header, behind) = View::split(behind)?;
        }
        let push = header.len() as usize == behind.len()
            && header.is_simple(self.conv, Command::Push)
            && self.space.nxt.since(header.una()) >= 0;
        push.then_some(Usual { ack, push: Some((header, behind)) })
    }

    /// Takes a datagram of any shape.
    #[inline(never)] // beside the straight line
    fn apply_segments(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        datagram: &[u8],
        mut deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), InputError> {
        if datagram.len() < HEADER_LEN {
            return Err(InputError::TooShort);
        }
        let mut unsound = datagram;
        let verdict = self.skip_sound(cx.config.strict, cx.config.rcv_wnd, &mut unsound);
        if cx.config.strict {
            verdict?;
        }
        let mut rest = &datagram[..datagram.len() - unsound.len()];
        let una_before = self.space.una;
        let mut newest = None;
        while let Some((header, behind)) = View::split(rest)
            && let Some((payload, behind)) = header.payload(behind)
        {
            rest = behind;
            if header.is(Command::Push) {
                self.on_push(cx, now, header, payload, &mut deliver);
            } else if !header.is(Command::Ack) {
                self.on_window(cx, header);
                if header.is(Command::Wask) {
                    self.probe.tell();
                }
            } else if !cx.config.strict || !self.is_far_behind(header.sn()) {
                self.on_ack(cx, now, header);
                newest = Some(newer(newest, header));
            }
        }
        verdict?;
        self.after_segments(cx, newest, una_before);
        Ok(())
    }

    /// An ACK of what this conversation cannot have sent lately: an answer to a question that was asked beside the protocol. It
    /// says nothing about data in flight, and its clock is no round-trip sample.
    #[inline]
    fn is_far_behind(&self, sn: Sn) -> bool {
        sn.since(self.space.una) <= -FAR_BEHIND.cast_signed()
    }

    /// What every segment says: the peer's free slots, and what it has received.
    #[inline]
    fn on_window(&mut self, cx: &mut Cx<'_>, header: View<'_>) {
        self.rmt_wnd = header.wnd();
        if let Some(block) = self.block.as_deref_mut() {
            block.send.on_una(&mut self.space, header.una(), cx.store);
        }
    }

    /// Every ACK is a round-trip sample, stale and repeated ones included, as in the reference.
    #[inline(always)] // at two places, one of them the straight line
    fn on_ack(&mut self, cx: &mut Cx<'_>, now: Millis, header: View<'_>) {
        self.rmt_wnd = header.wnd();
        self.rtt.on_echo(now.since(header.ts()), cx.config, cx.store.stats_mut());
        if let Some(block) = self.block.as_deref_mut() {
            block.send.on_una_and_ack(&mut self.space, header.una(), header.sn(), cx.store);
        }
    }

    /// The straight line is the expected segment of a message of one, with nothing unread before it.
    #[inline(always)] // at two places, as above
    fn on_push(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        header: View<'_>,
        payload: &[u8],
        deliver: &mut impl FnMut(&[u8]) -> bool,
    ) {
        let rcv_wnd = cx.config.rcv_wnd;
        self.rmt_wnd = header.wnd();
        let Some(block) = cx.store.block(&mut self.block) else {
            cx.store.stats_mut().pushes_without_storage += 1;
            return;
        };
        block.send.on_una(&mut self.space, header.una(), cx.store);
        let expected = header.sn() == self.rcv_nxt && header.frg() == 0 && rcv_wnd > 1;
        let owed = block.acks.len();
        if expected
            && block.recv.expects_next()
            && block.acks.owe(header.sn(), header.ts(), cx.config, cx.store)
        {
            if deliver(payload) {
                block.recv.on_bypassed(&mut self.rcv_nxt, rcv_wnd);
                cx.store.stats_mut().pushes_accepted += 1;
                return;
            }
            block.insert(&mut self.rcv_nxt, 0, header, payload, owed, cx);
        } else {
            block.on_push(&mut self.rcv_nxt, header, payload, cx);
        }
        block.recv.see(now);
    }

    /// Once per datagram, after its segments.
    #[inline]
    fn after_segments(&mut self, cx: &mut Cx<'_>, newest: Option<View<'_>>, una_before: Sn) {
        if let (Some(header), Some(block)) = (newest, self.block.as_deref_mut()) {
            block.send.on_fastack(self.space, header.sn(), header.ts());
        }
        if self.space.una != una_before {
            self.congestion.on_acked(cx.config, u32::from(self.rmt_wnd));
        }
    }
}

/// What a conversation's datagrams mostly are: at most one ACK, then at most one PUSH that is a message or the end of one.
#[derive(Clone, Copy, Debug)]
struct Usual<'a> {
    ack: Option<View<'a>>,
    push: Option<(View<'a>, &'a [u8])>,
}

impl Block {
    /// A PUSH that cannot be handed on at once.
    #[inline(never)] // beside the straight line
    fn on_push(&mut self, rcv_nxt: &mut Sn, header: View<'_>, payload: &[u8], cx: &mut Cx<'_>) {
        let rcv_wnd = cx.config.rcv_wnd;
        let ahead = header.sn().since(*rcv_nxt);
        let owed = self.acks.len();
        if header.sn().since(rcv_nxt.add(rcv_wnd)) >= 0 || ahead > REORDER_MAX {
            cx.store.stats_mut().pushes_beyond_window += 1;
        } else if !self.acks.owe(header.sn(), header.ts(), cx.config, cx.store) {
            cx.store.stats_mut().pushes_without_storage += 1;
        } else {
            self.insert(rcv_nxt, ahead, header, payload, owed, cx);
        }
    }

    /// Keeps a PUSH whose ack is noted already. If the store is full the ack is taken back, to the number `owed` before.
    #[inline(never)] // beside the straight line
    fn insert(
        &mut self,
        rcv_nxt: &mut Sn,
        ahead: i32,
        header: View<'_>,
        payload: &[u8],
        owed: usize,
        cx: &mut Cx<'_>,
    ) {
        let rcv_wnd = cx.config.rcv_wnd;
        let inserted = match u32::try_from(ahead) {
            Ok(ahead) => self.recv.insert(rcv_nxt, ahead, header.frg(), payload, rcv_wnd, cx.store),
            Err(_) => Inserted::Duplicate,
        };
        let stats = cx.store.stats_mut();
        match inserted {
            Inserted::Taken => stats.pushes_accepted += 1,
            Inserted::Duplicate => stats.pushes_duplicate += 1,
            Inserted::StoreFull => {
                stats.pushes_without_storage += 1;
                self.acks.truncate(owed);
            }
        }
    }
}

/// The ack that the fast-ack count goes by: later acks of a datagram replace it only when number and clock advance both.
#[inline]
fn newer<'a>(so_far: Option<View<'a>>, header: View<'a>) -> View<'a> {
    match so_far {
        Some(other) if header.sn().since(other.sn()) <= 0 || header.ts().since(other.ts()) <= 0 => {
            other
        }
        Some(_) | None => header,
    }
}

/// Farthest reordering that is kept, whatever the receive window: `wnd` has 16 bits, so no window is honestly larger.
const REORDER_MAX: i32 = 65_535;

/// An ACK at least this far before `snd_una` is ignored as a whole by strict input: no reordering is that old, so it answers
/// something that was sent beside the protocol.
pub const FAR_BEHIND: u32 = 1 << 28;
