//! When a conversation wants to be woken.

use crate::config::{FlushPolicy, KcpConfig};
use crate::flush::Stage;
use crate::kcp::{Cx, Kcp, RESYNC_MS};
use crate::units::Millis;

impl Kcp {
    /// When [`Kcp::handle_timeout`] must be called next; `None` when nothing but input can change anything. Not in the past
    /// after a complete drain, so it never spins.
    ///
    /// Policy `Interval`: the next flush, or `None` while the conversation is idle: an idle conversation skips flushes that would do
    /// nothing, and its interval starts anew when it has something to do.
    ///
    /// Policy `Turn`: `now` while something waits for a flush that the caller owes after input; else the earliest of the next
    /// timeout in flight, the next window probe, and one interval after the last flush where that left data behind that the
    /// window allows.
    #[must_use]
    pub fn poll_timeout(&self, cx: &Cx<'_>, now: Millis) -> Option<Millis> {
        let deadline = match cx.config.flush {
            FlushPolicy::Interval => self.interval_deadline(now)?,
            FlushPolicy::Turn => self.turn_deadline(cx.config, now)?,
        };
        Some(if deadline.since(now) < 0 { now } else { deadline })
    }

    /// When `ikcp_check` would have the next update. Reference: `ikcp_check`, without its remedy: a segment whose timeout
    /// has passed makes it answer `now` although an update does nothing before the interval's end, so a timer driven by
    /// it spins. Walks the in-flight segments. [`Kcp::poll_timeout`] does neither.
    #[must_use]
    pub fn check(&self, cx: &Cx<'_>, now: Millis) -> Millis {
        let late = now.since(self.ts_flush);
        if !self.updated || !(-RESYNC_MS..0).contains(&late) {
            return now;
        }
        let mut wait = self.ts_flush.since(now);
        for segment in self.in_flight() {
            let left = segment.resendts.since(now);
            if left <= 0 {
                return now;
            }
            wait = wait.min(left);
        }
        now.add(wait.cast_unsigned().min(cx.config.interval))
    }

    fn interval_deadline(&self, now: Millis) -> Option<Millis> {
        if self.is_idle() {
            return None;
        }
        let late = now.since(self.ts_flush);
        let unusable = !self.updated || !(-RESYNC_MS..RESYNC_MS).contains(&late);
        Some(if unusable || self.stage != Stage::Idle { now } else { self.ts_flush })
    }

    fn turn_deadline(&self, config: &KcpConfig, now: Millis) -> Option<Millis> {
        if self.stage != Stage::Idle || self.probe.pending() {
            return Some(now);
        }
        let block = self.block.as_deref()?;
        if !block.acks.is_empty() {
            return Some(now);
        }
        let resend = block.send.earliest_resend(self.space, now, config.interval);
        let held_back = self.held_back_deadline(config, now);
        match (resend, held_back) {
            (Some(resend), Some(held_back)) => Some(resend.earliest(held_back)),
            (resend, held_back) => resend.or(held_back),
        }
    }

    /// When data that the last flush left behind is to be looked at again, unless an acknowledgement comes first.
    fn held_back_deadline(&self, config: &KcpConfig, now: Millis) -> Option<Millis> {
        if self.queued_segments() == 0 {
            return None;
        }
        if self.rmt_wnd == 0 {
            // Without a wait the window closed after the last flush: the next one starts it.
            return Some(self.probe.deadline().unwrap_or(now));
        }
        let window = self.congestion.window(config, u32::from(self.rmt_wnd));
        let open = window.wrapping_sub(self.space.numbered()).cast_signed() > 0;
        // Without a flush for a long time, or ever, the interval clock says nothing.
        let recent = self.ts_flush.since(now).cast_unsigned() <= config.interval;
        open.then_some(if recent { self.ts_flush } else { now })
    }
}
