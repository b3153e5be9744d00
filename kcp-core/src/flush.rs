//! A flush: decides what leaves, then fills one datagram per call in the reference's order: acks, probes, data.
//!
//! The reference writes a whole flush in one call and hands datagrams to a callback. Here the caller pulls them, so a
//! flush is a stage and a cursor that survive between two calls; nothing is decided twice. Reference: `ikcp_flush`.

use crate::config::{FlushPolicy, KcpConfig, Reference};
use crate::congestion::Losses;
use crate::kcp::{Cx, Kcp};
use crate::probe::Probe;
use crate::segment::{Rules, Tally};
use crate::stats::Stats;
use crate::units::{Conv, Millis, Sn};
use crate::wire::{Command, HEADER_LEN, Header};

/// Where the flush in progress stands, and what it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Segments transmitted before are being looked at, from here on.
    scan: Option<Sn>,
    /// The ack written last: its numbers reappear in the probes of the same flush, as in the reference.
    last_ack: (Sn, Millis),
    losses: Losses,
}

/// The datagram has no room for the next segment, which takes this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full(usize);

/// How far the flush in progress has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No flush is in progress.
    Idle,
    /// A flush was asked for; it begins with the first datagram.
    Asked,
    /// Datagrams are being written.
    Writing,
}

impl Kcp {
    /// Admits data to the window and decides whether older segments must be looked at.
    #[inline]
    fn begin_flush(&mut self, cx: &Cx<'_>, now: Millis) {
        self.stage = Stage::Writing;
        let config = cx.config;
        let rmt_wnd = u32::from(self.rmt_wnd);
        let closed =
            rmt_wnd == 0 && (config.flush == FlushPolicy::Interval || self.queued_segments() > 0);
        self.probe.on_flush(now, closed, config.reference.first_probe_wait());
        let Some(block) = self.block.as_deref_mut() else { return };
        let window = self.congestion.window(config, rmt_wnd);
        block.send.admit(&mut self.space, window);
        // An interrupted scan has rebuilt only some of the bounds: it starts over.
        if block.cursor.scan.is_some() || block.send.must_scan(now, config.resent()) {
            block.cursor.scan = Some(self.space.una);
            block.cursor.losses.timeout_base = match config.reference {
                Reference::V1_7_1 => window,
                Reference::V2_1_1 => self.congestion.cwnd(),
            };
            block.send.begin_scan();
        }
    }

    /// Writes the next datagram of the flush in progress, at most `limit` bytes; its length, or 0 when the flush is
    /// complete.
    ///
    /// What came since the flush was asked for is written too: acks and probes before data, as always.
    pub(crate) fn fill(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        buf: &mut [u8],
        limit: usize,
    ) -> usize {
        if self.stage == Stage::Asked {
            self.begin_flush(cx, now);
        }
        let limit = limit.min(buf.len());
        let out = Datagram { rest: &mut buf[..limit], frame: self.frame(cx.config) };
        let (left, full) = self.fill_stages(cx, now, out);
        let filled = limit - left;
        match full {
            Ok(()) => self.finish_flush(cx),
            Err(Full(needed)) if filled == 0 => return self.fill_alone(cx, now, buf, needed),
            Err(Full(_)) => {}
        }
        filled
    }

    /// Writes a segment larger than the mtu, which goes out alone, as it does in the reference after a smaller mtu was
    /// set. If `buf` cannot hold it the flush ends here.
    #[cold]
    fn fill_alone(&mut self, cx: &mut Cx<'_>, now: Millis, buf: &mut [u8], needed: usize) -> usize {
        if needed <= buf.len() {
            return self.fill(cx, now, buf, needed);
        }
        self.finish_flush(cx);
        0
    }

    /// Returns the bytes of room left.
    #[inline(always)]
    fn fill_stages(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        mut out: Datagram<'_>,
    ) -> (usize, Result<(), Full>) {
        let Some(block) = self.block.as_deref_mut() else {
            let acked = (Sn(0), Millis(0));
            let (out, full) = self.probe.fill(out, acked, cx.store.stats_mut());
            return (out.rest.len(), full);
        };
        let last_ack = &mut block.cursor.last_ack;
        let written = block.acks.drain(|sn, ts| {
            *last_ack = (sn, ts);
            out.write_control(Command::Ack, sn, ts)
        });
        if written.is_err() {
            return (out.rest.len(), written);
        }
        if self.probe.pending() || block.cursor.scan.is_some() {
            let full;
            (out, full) = self.fill_rare(cx, now, out);
            if full.is_err() {
                return (out.rest.len(), full);
            }
        }
        let Some(block) = self.block.as_deref_mut() else { return (out.rest.len(), Ok(())) };
        if cx.config.dead_link <= 1 && block.send.has_fresh() {
            // Only a limit of one transmission is reached by a first one.
            self.dead = true;
        }
        let rto = self.rtt.rto();
        let wait = rto + if cx.config.nodelay == 0 { rto >> 3 } else { 0 };
        let stats = cx.store.stats_mut();
        let full = block.send.transmit_fresh(self.space, now, (rto, wait), stats, &mut out);
        (out.rest.len(), full)
    }

    /// Writes the probes, and what is due of the segments that were transmitted before.
    #[cold]
    fn fill_rare<'a>(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        out: Datagram<'a>,
    ) -> (Datagram<'a>, Result<(), Full>) {
        let Some(block) = self.block.as_deref_mut() else { return (out, Ok(())) };
        let (mut out, full) = self.probe.fill(out, block.cursor.last_ack, cx.store.stats_mut());
        let Some(cursor) = block.cursor.scan.as_mut().filter(|_| full.is_ok()) else {
            return (out, full);
        };
        let rules = Rules {
            rto: self.rtt.rto(),
            nodelay: cx.config.nodelay,
            resent: cx.config.resent(),
            fastlimit: cx.config.fastlimit,
            dead_link: cx.config.dead_link,
        };
        let mut tally = Tally::default();
        let full = block.send.retransmit(self.space, cursor, now, &rules, &mut tally, &mut out);
        if full.is_ok() {
            block.cursor.scan = None;
        }
        block.cursor.losses.fast += tally.fast;
        block.cursor.losses.timeout |= tally.timeout > 0;
        self.dead |= tally.dead;
        self.resends.add(&tally, cx.store.stats_mut());
        (out, full)
    }

    /// The congestion window's reaction to what was resent, and the end of the flush.
    #[inline]
    fn finish_flush(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Idle;
        if let Some(block) = self.block.as_deref_mut() {
            block.cursor.last_ack = (Sn(0), Millis(0));
            if block.cursor.losses.any() {
                let losses = core::mem::take(&mut block.cursor.losses);
                self.congestion.on_losses(losses, self.space.numbered(), cx.config);
            }
        }
        self.congestion.on_flushed(cx.config);
        self.release_if_empty(cx);
    }

    #[inline]
    fn frame(&self, config: &KcpConfig) -> Frame {
        let ready = self.block.as_deref().map_or(0, |block| block.recv.ready());
        let free = config.rcv_wnd.saturating_sub(ready);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the reference cuts wnd to the field's 16 bits"
        )]
        let wnd = free as u16;
        Frame { conv: self.conv, wnd, una: self.rcv_nxt }
    }
}

impl Probe {
    /// Writes what is to be asked and told, with the numbers of the ack before it.
    #[cold]
    fn fill<'a>(
        &mut self,
        mut out: Datagram<'a>,
        (sn, ts): (Sn, Millis),
        stats: &mut Stats,
    ) -> (Datagram<'a>, Result<(), Full>) {
        if self.must_ask() {
            let full = out.write_control(Command::Wask, sn, ts);
            if full.is_err() {
                return (out, full);
            }
            self.asked();
            stats.probes_sent += 1;
        }
        if self.must_tell() {
            let full = out.write_control(Command::Wins, sn, ts);
            if full.is_err() {
                return (out, full);
            }
            self.told();
        }
        (out, Ok(()))
    }
}

/// What all segments of a flush say alike.
#[derive(Clone, Copy, Debug)]
struct Frame {
    conv: Conv,
    wnd: u16,
    una: Sn,
}

/// The datagram being filled.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    /// The room that is left.
    rest: &'a mut [u8],
    frame: Frame,
}

impl<'a> Datagram<'a> {
    /// Appends a segment without payload.
    #[inline]
    fn write_control(&mut self, cmd: Command, sn: Sn, ts: Millis) -> Result<(), Full> {
        let Frame { conv, wnd, una } = self.frame;
        let header = Header { conv, cmd, frg: 0, wnd, ts, sn, una, len: 0 };
        let (head, _) = self.claim(0)?;
        header.encode(head);
        Ok(())
    }

    /// Appends a segment with payload.
    #[inline]
    pub(crate) fn write_push(
        &mut self,
        frg: u8,
        sn: Sn,
        ts: Millis,
        payload: &[u8],
    ) -> Result<(), Full> {
        let Frame { conv, wnd, una } = self.frame;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a payload's length fits the wire's 32 bits"
        )]
        let len = payload.len() as u32;
        let header = Header { conv, cmd: Command::Push, frg, wnd, ts, sn, una, len };
        let (head, body) = self.claim(payload.len())?;
        header.encode(head);
        body.copy_from_slice(payload);
        Ok(())
    }

    /// Takes room for a header and `len` bytes off the front.
    #[inline]
    fn claim(&mut self, len: usize) -> Result<(&'a mut [u8; HEADER_LEN], &'a mut [u8]), Full> {
        let rest = core::mem::take(&mut self.rest);
        if rest.len() < HEADER_LEN + len {
            self.rest = rest;
            return Err(Full(HEADER_LEN + len));
        }
        let (segment, rest) = rest.split_at_mut(HEADER_LEN + len);
        self.rest = rest;
        segment.split_first_chunk_mut().ok_or(Full(HEADER_LEN + len))
    }
}
