//! A flush: decides what leaves, then fills one datagram per call in the reference's order: acks, probes, data.
//!
//! The reference writes a whole flush in one call and hands datagrams to a callback. Here the caller pulls them, so a
//! flush is a stage and a cursor that survive between two calls; nothing is decided twice. Reference: `ikcp_flush`.

use crate::config::{FlushPolicy, Reference};
use crate::congestion::Losses;
use crate::kcp::{Cx, Kcp};
use crate::send::Rules;
use crate::units::{Millis, Sn};
use crate::wire::{Command, HEADER_LEN, Header};

/// How far the flush in progress has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No flush is in progress.
    Idle,
    Acks,
    Probes,
    Data,
}

/// Where the flush in progress stands, and what it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// The next in-flight segment to look at.
    sn: Sn,
    /// Segments transmitted before are being looked at too.
    scanning: bool,
    /// The ack written last: its numbers reappear in the probes of the same flush, as in the reference.
    last_ack: (Sn, Millis),
    losses: Losses,
}

/// Why writing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// Everything of this stage is written.
    Stage,
    /// The datagram is full; there is more.
    Datagram,
    /// The caller's buffer cannot hold the next segment at all.
    Never,
}

impl Kcp {
    /// Admits data to the window and decides whether older segments must be looked at.
    pub(crate) fn start_flush(&mut self, cx: &mut Cx<'_>, now: Millis) {
        let config = cx.config;
        let rmt_wnd = u32::from(self.rmt_wnd);
        let closed =
            rmt_wnd == 0 && (config.flush == FlushPolicy::Interval || self.queued_segments() > 0);
        self.probe.on_flush(now, closed, config.reference.first_probe_wait());
        let window = self.congestion.window(config, rmt_wnd);
        let resuming = self.stage != Stage::Idle;
        self.stage = Stage::Acks;
        let Some(block) = self.block.as_deref_mut() else {
            if !self.probe.pending() {
                self.finish_flush(cx);
            }
            return;
        };
        block.send.admit(&mut self.space, window);
        if !resuming {
            let timeout_base = match config.reference {
                Reference::V1_7_1 => window,
                Reference::V2_1_1 => self.congestion.cwnd(),
            };
            block.cursor = Cursor::default();
            block.cursor.losses.timeout_base = timeout_base;
        }
        // An interrupted scan has rebuilt only some of the bounds: it starts over.
        if block.cursor.scanning || block.send.must_scan(now, config.resent()) {
            block.cursor.scanning = true;
            block.cursor.sn = self.space.una;
            block.send.begin_scan();
        } else {
            block.cursor.sn = block.send.first_fresh(self.space);
        }
        let nothing = block.acks.is_empty()
            && !self.probe.pending()
            && block.cursor.sn.since(self.space.nxt) >= 0;
        if nothing {
            self.finish_flush(cx);
        }
    }

    /// Writes the next datagram of the flush in progress; its length, or 0 when nothing more fits or is left.
    pub(crate) fn fill(&mut self, cx: &mut Cx<'_>, now: Millis, buf: &mut [u8]) -> usize {
        let mut out = Datagram { limit: (cx.config.mtu as usize).min(buf.len()), buf, filled: 0 };
        let header = self.header_template(cx);
        loop {
            let filled = match self.stage {
                Stage::Idle => return out.filled,
                Stage::Acks => self.fill_acks(&mut out, header),
                Stage::Probes => self.fill_probes(cx, &mut out, header),
                Stage::Data => self.fill_data(cx, now, &mut out, header),
            };
            match (filled, self.stage) {
                (Filled::Datagram, _) => return out.filled,
                (Filled::Stage, Stage::Acks) => self.stage = Stage::Probes,
                (Filled::Stage, Stage::Probes) => self.stage = Stage::Data,
                (Filled::Stage, Stage::Data | Stage::Idle) | (Filled::Never, _) => {
                    self.finish_flush(cx);
                    return out.filled;
                }
            }
        }
    }

    /// The congestion window's reaction to what was resent, and the end of the flush.
    fn finish_flush(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Idle;
        let losses = match self.block.as_deref_mut() {
            Some(block) => core::mem::take(&mut block.cursor).losses,
            None => Losses::default(),
        };
        self.congestion.on_flushed(losses, self.space.numbered(), cx.config);
        self.release_if_empty(cx);
    }

    fn header_template(&self, cx: &Cx<'_>) -> Header {
        let ready = self.block.as_deref().map_or(0, |block| block.recv.ready());
        let free = cx.config.rcv_wnd.saturating_sub(ready);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the reference cuts wnd to the field's 16 bits"
        )]
        let wnd = free as u16;
        Header {
            conv: self.conv,
            cmd: Command::Ack,
            frg: 0,
            wnd,
            ts: Millis(0),
            sn: Sn(0),
            una: self.rcv_nxt,
            len: 0,
        }
    }

    fn fill_acks(&mut self, out: &mut Datagram<'_>, mut header: Header) -> Filled {
        let Some(block) = self.block.as_deref_mut() else { return Filled::Stage };
        while let Some((sn, ts)) = block.acks.next() {
            (header.sn, header.ts) = (sn, ts);
            if let Err(filled) = out.write(&header, &[]) {
                return filled;
            }
            block.cursor.last_ack = (sn, ts);
            block.acks.advance();
        }
        Filled::Stage
    }

    fn fill_probes(
        &mut self,
        cx: &mut Cx<'_>,
        out: &mut Datagram<'_>,
        mut header: Header,
    ) -> Filled {
        if !self.probe.pending() {
            return Filled::Stage;
        }
        if let Some(block) = self.block.as_deref() {
            (header.sn, header.ts) = block.cursor.last_ack;
        }
        if self.probe.must_ask() {
            header.cmd = Command::Wask;
            if let Err(filled) = out.write(&header, &[]) {
                return filled;
            }
            self.probe.asked();
            cx.store.stats_mut().probes_sent += 1;
        }
        if self.probe.must_tell() {
            header.cmd = Command::Wins;
            if let Err(filled) = out.write(&header, &[]) {
                return filled;
            }
            self.probe.told();
        }
        Filled::Stage
    }

    fn fill_data(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        out: &mut Datagram<'_>,
        mut header: Header,
    ) -> Filled {
        let Some(block) = self.block.as_deref_mut() else { return Filled::Stage };
        let rules = Rules {
            rto: self.rtt.rto(),
            nodelay: cx.config.nodelay,
            resent: cx.config.resent(),
            fastlimit: cx.config.fastlimit,
        };
        header.cmd = Command::Push;
        header.ts = now;
        // Input between two calls may have moved the window past the cursor.
        if block.cursor.sn.since(self.space.una) < 0 {
            block.cursor.sn = self.space.una;
        }
        while block.cursor.sn.since(self.space.nxt) < 0 {
            let sn = block.cursor.sn;
            let Some(segment) = block.send.segment_mut(self.space, sn) else { break };
            let due = segment.due(now, &rules);
            if let Some(due) = due {
                header.sn = sn;
                header.frg = segment.fragment().frg();
                if let Err(filled) = out.write(&header, segment.fragment().as_slice()) {
                    return filled;
                }
                segment.transmit(due, now, &rules);
                self.dead |= segment.xmit() >= cx.config.dead_link;
                self.resends.count(due, &mut block.cursor.losses, cx.store.stats_mut());
            }
            block.send.on_visited(self.space, sn, due, now);
            block.cursor.sn = sn.add(1);
        }
        Filled::Stage
    }
}

/// The datagram being filled.
struct Datagram<'a> {
    buf: &'a mut [u8],
    filled: usize,
    limit: usize,
}

impl Datagram<'_> {
    /// Appends a segment, whose `len` becomes the payload's. One that exceeds the limit goes out alone, as it does in the
    /// reference after a smaller mtu was set.
    #[inline]
    fn write(&mut self, header: &Header, payload: &[u8]) -> Result<(), Filled> {
        let end = self.filled + HEADER_LEN + payload.len();
        if end > self.limit && self.filled > 0 {
            return Err(Filled::Datagram);
        }
        let Some(room) = self.buf.get_mut(self.filled..end) else { return Err(Filled::Never) };
        let Some((head, body)) = room.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(Filled::Never);
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a payload's length fits the wire's 32 bits"
        )]
        let len = payload.len() as u32;
        Header { len, ..*header }.encode(head);
        body.copy_from_slice(payload);
        self.filled = end;
        Ok(())
    }
}
