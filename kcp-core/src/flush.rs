//! A flush: decides what leaves, then fills one datagram per call in the reference's order: acks, probes, data.
//!
//! The reference writes a whole flush in one call and hands datagrams to a callback. Here the caller pulls them, so a
//! flush is a stage and a cursor that survive between two calls; nothing is decided twice. Reference: `ikcp_flush`.

use crate::config::{FlushPolicy, KcpConfig, Reference};
use crate::congestion::Losses;
use crate::datagram::{Datagram, Full};
use crate::grant::Grant;
use crate::kcp::{Cx, Kcp};
use crate::probe::Probe;
use crate::segment::{Rules, Tally};
use crate::stats::Stats;
use crate::units::{Millis, Sn};
use crate::wire::{Command, HEADER_LEN};

/// Where the flush in progress stands, and what it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Segments transmitted before are being looked at, from here on.
    scan: Option<Sn>,
    /// The ack written last: its numbers reappear in the probes of the same flush, as in the reference.
    last_ack: (Sn, Millis),
    losses: Losses,
}

/// The time of a flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Millis,
    /// All that arrived until then was passed on: timeouts are judged by this.
    pub(crate) heard: Millis,
}

/// How far the flush in progress has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No flush is in progress.
    Idle,
    /// A flush was asked for; it begins with the first datagram.
    Asked,
    /// Datagrams are being written: acks and new data only, as most often.
    Plain,
    /// Datagrams are being written: also probes, or segments that were transmitted before.
    Thorough,
}

impl Kcp {
    /// Writes the next datagram of the flush in progress, at most `limit` bytes; its length, or 0 when the flush is
    /// complete.
    ///
    /// Acks and messages that came since the flush was asked for are written too: acks before data, as always.
    #[inline(always)] // one caller in a program, or two (measured: 6 % of a round trip's instructions)
    pub(crate) fn fill(
        &mut self,
        cx: &mut Cx<'_>,
        clock: Clock,
        buf: &mut [u8],
        limit: usize,
    ) -> usize {
        if self.stage == Stage::Asked {
            self.stage = self.begin_flush(cx.config, clock);
        }
        if self.stage == Stage::Thorough {
            return self.fill_thoroughly(cx, clock, buf, limit);
        }
        let limit = limit.min(buf.len());
        let (mut out, told) = self.datagram(cx, &mut buf[..limit]);
        let full = self.fill_acks(&mut out).and_then(|()| self.fill_new(cx, clock.now, &mut out));
        let filled = limit - out.left();
        if filled > 0 {
            self.grant.tell(told, cx.store);
        }
        if full.is_ok() {
            self.stage = Stage::Idle;
            self.finish_flush(cx);
        } else if filled == 0 {
            self.stage = Stage::Thorough;
            return self.fill_thoroughly(cx, clock, buf, limit);
        }
        filled
    }

    /// As [`Kcp::fill`], whatever is to be written.
    #[cold]
    fn fill_thoroughly(
        &mut self,
        cx: &mut Cx<'_>,
        clock: Clock,
        buf: &mut [u8],
        limit: usize,
    ) -> usize {
        let limit = limit.min(buf.len());
        let (mut out, told) = self.datagram(cx, &mut buf[..limit]);
        let full = self.fill_all(cx, clock, &mut out);
        let filled = limit - out.left();
        if filled > 0 {
            self.grant.tell(told, cx.store);
        }
        match full {
            Err(Full(needed)) if filled == 0 && needed <= buf.len() => {
                // A segment larger than the mtu goes out alone, as it does in the reference after a smaller mtu was set.
                return self.fill_thoroughly(cx, clock, buf, needed);
            }
            Err(Full(_)) if filled > 0 => {}
            // Complete, or `buf` is too small for the rest, which stays for the next flush.
            Ok(()) | Err(Full(_)) => self.finish_thorough_flush(cx),
        }
        filled
    }

    /// Runs the probe's timer and decides whether older segments must be looked at.
    #[inline]
    fn begin_flush(&mut self, config: &KcpConfig, Clock { now, heard }: Clock) -> Stage {
        let rmt_wnd = u32::from(self.rmt_wnd);
        let closed =
            rmt_wnd == 0 && (config.flush == FlushPolicy::Interval || self.queued_segments() > 0);
        self.probe.on_flush(now, closed, config.reference.first_probe_wait());
        // Without a block there can be nothing but a probe.
        let Some(block) = self.block.as_deref_mut() else { return Stage::Thorough };
        if closed {
            block.send.see(self.space, now);
        }
        // An interrupted scan has rebuilt only some of the bounds: it starts over.
        if block.cursor.scan.is_some() || block.send.must_scan(self.space, heard, config) {
            block.cursor.scan = Some(self.space.una);
            block.cursor.losses.timeout_base = match config.reference {
                Reference::V1_7_1 => self.congestion.window(config, rmt_wnd),
                Reference::V2_1_1 => self.congestion.cwnd(),
            };
            block.send.see(self.space, now);
            block.send.begin_scan(heard);
            return Stage::Thorough;
        }
        // Only a limit of one transmission is reached by a first one.
        if self.probe.pending() || config.dead_link <= 1 { Stage::Thorough } else { Stage::Plain }
    }

    /// Writes the acks.
    #[inline]
    fn fill_acks(&mut self, out: &mut Datagram<'_>) -> Result<(), Full> {
        let Some(block) = self.block.as_deref_mut() else { return Ok(()) };
        let written = out.acks(block.acks.as_slice());
        if block.acks.pay(written) { Ok(()) } else { Err(Full(HEADER_LEN)) }
    }

    /// Writes data that was never transmitted, as far as the window allows.
    #[inline(always)] // at two places, one of them the straight line
    fn fill_new(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        let Some(block) = self.block.as_deref_mut() else { return Ok(()) };
        let window = self.congestion.window(cx.config, u32::from(self.rmt_wnd));
        let rto = self.rtt.rto();
        let wait = rto + if cx.config.nodelay == 0 { rto >> 3 } else { 0 };
        let before = self.space.nxt;
        let full = block.send.transmit_queued(&mut self.space, window, now, (rto, wait), out);
        let sent = self.space.nxt.since(before).cast_unsigned();
        cx.store.stats_mut().segments_sent += u64::from(sent);
        full
    }

    /// Writes acks, the probes, what is due of the segments that were transmitted before, and new data.
    fn fill_all(
        &mut self,
        cx: &mut Cx<'_>,
        Clock { now, heard }: Clock,
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        if let Some(block) = self.block.as_deref_mut()
            && let Some(&last) = block.acks.as_slice().last()
        {
            block.cursor.last_ack = last;
        }
        self.fill_acks(out)?;
        let Some(block) = self.block.as_deref_mut() else {
            return self.probe.fill(out, (Sn(0), Millis(0)), cx.store.stats_mut());
        };
        self.probe.fill(out, block.cursor.last_ack, cx.store.stats_mut())?;
        if let Some(at) = &mut block.cursor.scan {
            let rules = Rules {
                rto: self.rtt.rto(),
                nodelay: cx.config.nodelay,
                resent: cx.config.resent(),
                fastlimit: cx.config.fastlimit,
                dead_link: cx.config.dead_link,
                heard,
            };
            let mut tally = Tally::default();
            let full = block.send.retransmit(self.space, at, now, &rules, &mut tally, out);
            block.cursor.losses.fast += tally.fast;
            block.cursor.losses.timeout |= tally.timeout > 0;
            self.dead |= tally.dead;
            self.resends.add(&tally, cx.store.stats_mut());
            full?;
            block.cursor.scan = None;
        }
        let before = self.space.nxt;
        let full = self.fill_new(cx, now, out);
        self.dead |= cx.config.dead_link <= 1 && self.space.nxt != before;
        full
    }

    /// What ends every flush.
    #[inline]
    fn finish_flush(&mut self, cx: &mut Cx<'_>) {
        self.congestion.on_flushed(cx.config);
        self.release_if_empty(cx);
    }

    /// The congestion window's reaction to what was resent, and the end of the flush.
    fn finish_thorough_flush(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Idle;
        if let Some(block) = self.block.as_deref_mut() {
            block.cursor.last_ack = (Sn(0), Millis(0));
            let losses = core::mem::take(&mut block.cursor.losses);
            if losses.any() {
                self.congestion.on_losses(losses, self.space.numbered(), cx.config);
            }
        }
        self.finish_flush(cx);
    }

    /// A datagram to be filled, which tells the peer how much room our receive queue has; and what it has been told then.
    #[inline]
    fn datagram<'a>(&self, cx: &Cx<'_>, room: &'a mut [u8]) -> (Datagram<'a>, Grant) {
        let recv = self.block.as_deref().map(|block| &block.recv);
        let (free, told) = self.grant.next(recv, cx.config, cx.store);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the reference cuts wnd to the field's 16 bits"
        )]
        let wnd = free as u16;
        (Datagram::new(room, self.conv, wnd, self.rcv_nxt), told)
    }
}

impl Probe {
    /// Writes what is to be asked and told, with the numbers of the ack before it.
    fn fill(
        &mut self,
        out: &mut Datagram<'_>,
        (sn, ts): (Sn, Millis),
        stats: &mut Stats,
    ) -> Result<(), Full> {
        if self.must_ask() {
            out.control(Command::Wask, sn, ts)?;
            self.asked();
            stats.probes_sent += 1;
        }
        if self.must_tell() {
            out.control(Command::Wins, sn, ts)?;
            self.told();
        }
        Ok(())
    }
}
