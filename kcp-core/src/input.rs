//! One datagram in: the strict pre-scan, and what each kind of segment does. Reference: `ikcp_input`.

use crate::config::KcpConfig;
use crate::error::InputError;
use crate::kcp::{Cx, Kcp};
use crate::recv::Inserted;
use crate::rtt::RTO_MAX;
use crate::units::{Millis, Sn};
use crate::wire::{Command, HEADER_LEN, Header, Segments};

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
        let mut segments = Segments::new(datagram);
        while let Some(conv) = segments.next_conv() {
            if conv != self.conv {
                return Err(InputError::WrongConv);
            }
            let Some(segment) = segments.next() else { break };
            self.check_segment(config, &segment?.0)?;
        }
        Ok(())
    }

    #[inline]
    fn check_segment(&self, config: &KcpConfig, header: &Header) -> Result<(), InputError> {
        if header.una.since(self.space.nxt) > 0 {
            return Err(InputError::UnaBeyondSent);
        }
        if header.cmd == Command::Push {
            if u32::from(header.frg) >= config.rcv_wnd {
                return Err(InputError::FragmentBeyondWindow);
            }
            return Ok(());
        }
        if header.len != 0 || header.frg != 0 {
            return Err(InputError::PayloadOnControl);
        }
        if header.cmd == Command::Ack && header.sn.since(self.space.nxt) >= 0 {
            return Err(InputError::AckBeyondSent);
        }
        Ok(())
    }

    /// Applies the segments of a datagram. An error ends the walk and skips the fast-ack count and the window's growth,
    /// as in the reference; what came before stays applied.
    pub(crate) fn apply_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        datagram: &[u8],
        mut deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), InputError> {
        let una_before = self.space.una;
        let mut newest = None;
        let mut segments = Segments::new(datagram);
        while let Some(conv) = segments.next_conv() {
            if conv != self.conv {
                return Err(InputError::WrongConv);
            }
            let Some(segment) = segments.next() else { break };
            let (header, payload) = segment?;
            if cx.config.strict && self.is_far_ack(&header) {
                continue;
            }
            self.rmt_wnd = header.wnd;
            if let Some(block) = self.block.as_deref_mut() {
                block.send.on_una(&mut self.space, header.una, cx.store);
            }
            if header.cmd == Command::Push {
                self.on_push(cx, &header, payload, &mut deliver);
            } else if header.cmd == Command::Ack {
                self.on_ack(cx, now, &header);
                newest =
                    Some(newest.map_or((header.sn, header.ts), |so_far| newer(so_far, &header)));
            } else if header.cmd == Command::Wask {
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
    fn is_far_ack(&self, header: &Header) -> bool {
        header.cmd == Command::Ack && header.sn.since(self.space.una) <= -FAR_BEHIND.cast_signed()
    }

    /// Every ACK is a round-trip sample, stale and repeated ones included, as in the reference.
    #[inline]
    fn on_ack(&mut self, cx: &mut Cx<'_>, now: Millis, header: &Header) {
        let rtt = now.since(header.ts);
        if cx.config.strict && rtt.cast_unsigned() > RTO_MAX {
            // The echoed clock is the peer's to choose; an honest one is never this late, nor ahead of us.
            cx.store.stats_mut().rtt_samples_dropped += 1;
        } else if rtt >= 0 {
            self.rtt.on_sample(rtt, cx.config);
        }
        if let Some(block) = self.block.as_deref_mut() {
            block.send.on_ack(&mut self.space, header.sn, cx.store);
        }
    }

    #[inline]
    fn on_push(
        &mut self,
        cx: &mut Cx<'_>,
        header: &Header,
        payload: &[u8],
        deliver: &mut impl FnMut(&[u8]) -> bool,
    ) {
        let rcv_wnd = cx.config.rcv_wnd;
        let ahead = header.sn.since(self.rcv_nxt);
        if header.sn.since(self.rcv_nxt.add(rcv_wnd)) >= 0 || ahead > REORDER_MAX {
            cx.store.stats_mut().pushes_beyond_window += 1;
            return;
        }
        // The ack's memory comes first: data must not be taken that cannot be acknowledged.
        let block = cx.store.block(&mut self.block);
        let Some(block) = block.and_then(|b| b.acks.reserve_one(cx.store).then_some(b)) else {
            cx.store.stats_mut().pushes_without_storage += 1;
            return;
        };
        let stats = cx.store.stats_mut();
        if ahead < 0 {
            stats.pushes_duplicate += 1;
        } else if ahead == 0
            && header.frg == 0
            && rcv_wnd > 1
            && block.recv.expects_next()
            && deliver(payload)
        {
            block.recv.on_bypassed(&mut self.rcv_nxt, rcv_wnd);
            stats.pushes_accepted += 1;
        } else {
            let ahead = ahead.cast_unsigned();
            match block.recv.insert(
                &mut self.rcv_nxt,
                ahead,
                header.frg,
                payload,
                rcv_wnd,
                cx.store,
            ) {
                Inserted::Taken => cx.store.stats_mut().pushes_accepted += 1,
                Inserted::Duplicate => cx.store.stats_mut().pushes_duplicate += 1,
                Inserted::StoreFull => {
                    cx.store.stats_mut().pushes_without_storage += 1;
                    return;
                }
            }
        }
        if cx.config.strict && block.acks.len() >= 2 * rcv_wnd as usize {
            cx.store.stats_mut().acks_dropped += 1;
        } else {
            block.acks.push(header.sn, header.ts);
        }
    }
}

/// The ack that the fast-ack count goes by: later acks of a datagram replace it only when number and clock advance both.
#[inline]
fn newer(so_far: (Sn, Millis), header: &Header) -> (Sn, Millis) {
    let (sn, ts) = so_far;
    if header.sn.since(sn) > 0 && header.ts.since(ts) > 0 { (header.sn, header.ts) } else { so_far }
}

/// Farthest reordering that is kept, whatever the receive window: `wnd` has 16 bits, so no window is honestly larger.
const REORDER_MAX: i32 = 65_535;

/// An ACK at least this far before `snd_una` is ignored as a whole by strict input: no reordering is that old, so it answers
/// something that was sent beside the protocol.
pub const FAR_BEHIND: u32 = 1 << 28;
