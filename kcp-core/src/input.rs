//! One datagram in: the strict pre-scan, and what each kind of segment does. Reference: `ikcp_input`.

use crate::block::Block;
use crate::config::KcpConfig;
use crate::error::InputError;
use crate::kcp::{Cx, Kcp};
use crate::recv::Inserted;
use crate::rtt::RTO_MAX;
use crate::store::Store;
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
        let mut rest = datagram;
        while let Some((header, behind)) = View::split(rest) {
            let (cmd, _, behind) = self.parse(header, behind)?;
            self.check_segment(config, header, cmd)?;
            rest = behind;
        }
        Ok(())
    }

    /// What every segment must be, in the reference's order: ours, whole, and one of the four commands.
    #[inline]
    fn parse<'a>(
        &self,
        header: View<'a>,
        behind: &'a [u8],
    ) -> Result<(Command, &'a [u8], &'a [u8]), InputError> {
        if header.conv() != self.conv {
            return Err(InputError::WrongConv);
        }
        let (payload, behind) = header.payload(behind).ok_or(InputError::BadLength)?;
        let cmd = header.cmd().ok_or(InputError::UnknownCommand)?;
        Ok((cmd, payload, behind))
    }

    #[inline]
    fn check_segment(
        &self,
        config: &KcpConfig,
        header: View<'_>,
        cmd: Command,
    ) -> Result<(), InputError> {
        if header.una().since(self.space.nxt) > 0 {
            return Err(InputError::UnaBeyondSent);
        }
        if cmd == Command::Push {
            if u32::from(header.frg()) >= config.rcv_wnd {
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

    /// Applies the segments of a datagram. An error ends the walk and skips the fast-ack count and the window's growth,
    /// as in the reference; what came before stays applied.
    #[inline]
    pub(crate) fn apply_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        datagram: &[u8],
        mut deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), InputError> {
        let una_before = self.space.una;
        let mut newest = None;
        let mut rest = datagram;
        while let Some((header, behind)) = View::split(rest) {
            let (cmd, payload, behind) = self.parse(header, behind)?;
            rest = behind;
            if cmd == Command::Ack && cx.config.strict && self.is_far_behind(header.sn()) {
                continue;
            }
            self.rmt_wnd = header.wnd();
            if let Some(block) = self.block.as_deref_mut() {
                block.send.on_una(&mut self.space, header.una(), cx.store);
            }
            if cmd == Command::Push {
                self.on_push(cx, header, payload, &mut deliver);
            } else if cmd == Command::Ack {
                self.on_ack(cx, now, header.sn(), header.ts());
                newest = Some(newer(newest, header));
            } else if cmd == Command::Wask {
                self.probe.tell();
            }
        }
        if let (Some((sn, ts)), Some(block)) = (newest, self.block.as_deref_mut()) {
            block.send.on_fastack(self.space, sn, ts);
        }
        if self.space.una.since(una_before) > 0 {
            self.congestion.on_acked(cx.config.mss(), u32::from(self.rmt_wnd));
        }
        Ok(())
    }

    /// An ACK of what this conversation cannot have sent lately: an answer to a question that was asked beside the protocol. It
    /// says nothing about data in flight, and its clock is no round-trip sample.
    #[inline]
    fn is_far_behind(&self, sn: Sn) -> bool {
        sn.since(self.space.una) <= -FAR_BEHIND.cast_signed()
    }

    /// Every ACK is a round-trip sample, stale and repeated ones included, as in the reference.
    #[inline]
    fn on_ack(&mut self, cx: &mut Cx<'_>, now: Millis, sn: Sn, ts: Millis) {
        let rtt = now.since(ts);
        if cx.config.strict && rtt.cast_unsigned() > RTO_MAX {
            // The echoed clock is the peer's to choose; an honest one is never this late, nor ahead of us.
            cx.store.stats_mut().rtt_samples_dropped += 1;
        } else if rtt >= 0 {
            self.rtt.on_sample(rtt, cx.config);
        }
        if let Some(block) = self.block.as_deref_mut() {
            block.send.on_ack(&mut self.space, sn, cx.store);
        }
    }

    /// The straight line is the expected segment of a message of one, with nothing unread before it.
    #[inline]
    fn on_push(
        &mut self,
        cx: &mut Cx<'_>,
        header: View<'_>,
        payload: &[u8],
        deliver: &mut impl FnMut(&[u8]) -> bool,
    ) {
        let rcv_wnd = cx.config.rcv_wnd;
        let expected = header.sn() == self.rcv_nxt && header.frg() == 0 && rcv_wnd > 1;
        if expected
            && let Some(block) = self.owing_block(cx.store)
            && block.recv.expects_next()
            && deliver(payload)
        {
            let Some(block) = self.block.as_deref_mut() else { return };
            block.recv.on_bypassed(&mut self.rcv_nxt, rcv_wnd);
            cx.store.stats_mut().pushes_accepted += 1;
            block.acks.push(header.sn(), header.ts(), cx.config, cx.store.stats_mut());
        } else {
            self.queue_push(cx, header, payload);
        }
    }

    fn queue_push(&mut self, cx: &mut Cx<'_>, header: View<'_>, payload: &[u8]) {
        let rcv_wnd = cx.config.rcv_wnd;
        let ahead = header.sn().since(self.rcv_nxt);
        if header.sn().since(self.rcv_nxt.add(rcv_wnd)) >= 0 || ahead > REORDER_MAX {
            cx.store.stats_mut().pushes_beyond_window += 1;
            return;
        }
        if self.owing_block(cx.store).is_none() {
            cx.store.stats_mut().pushes_without_storage += 1;
            return;
        }
        let Some(block) = self.block.as_deref_mut() else { return };
        let inserted = match u32::try_from(ahead) {
            Ok(ahead) => {
                let nxt = &mut self.rcv_nxt;
                block.recv.insert(nxt, ahead, header.frg(), payload, rcv_wnd, cx.store)
            }
            Err(_) => Inserted::Duplicate,
        };
        let stats = cx.store.stats_mut();
        match inserted {
            Inserted::Taken => stats.pushes_accepted += 1,
            Inserted::Duplicate => stats.pushes_duplicate += 1,
            Inserted::StoreFull => {
                stats.pushes_without_storage += 1;
                return;
            }
        }
        block.acks.push(header.sn(), header.ts(), cx.config, stats);
    }

    /// The block, with room for an ack: data must not be taken that cannot be acknowledged.
    #[inline]
    fn owing_block(&mut self, store: &mut Store) -> Option<&mut Block> {
        let block = store.block(&mut self.block)?;
        block.acks.reserve_one(store).then_some(block)
    }
}

/// The ack that the fast-ack count goes by: later acks of a datagram replace it only when number and clock advance both.
#[inline]
fn newer(so_far: Option<(Sn, Millis)>, header: View<'_>) -> (Sn, Millis) {
    match so_far {
        Some((sn, ts)) if header.sn().since(sn) <= 0 || header.ts().since(ts) <= 0 => (sn, ts),
        Some(_) | None => (header.sn(), header.ts()),
    }
}

/// Farthest reordering that is kept, whatever the receive window: `wnd` has 16 bits, so no window is honestly larger.
const REORDER_MAX: i32 = 65_535;

/// An ACK at least this far before `snd_una` is ignored as a whole by strict input: no reordering is that old, so it answers
/// something that was sent beside the protocol.
pub const FAR_BEHIND: u32 = 1 << 28;
