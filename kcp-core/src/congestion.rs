//! The congestion window: what may be in flight, and how acknowledgements and losses move that.

use crate::config::KcpConfig;

/// Slow start and additive increase of the reference, in segments and bytes.
///
/// Growth and reduction also run with `nocwnd`; only [`Congestion::window`] ignores the result then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    cwnd: u32,
    ssthresh: u32,
    /// The window in bytes, growing by parts of a segment.
    incr: u32,
}

/// What one flush had to send again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    /// Segments resent because later ones were acknowledged.
    pub(crate) fast: u32,
    /// A segment's timeout passed.
    pub(crate) timeout: bool,
    /// Half of this becomes `ssthresh` after a timeout.
    pub(crate) timeout_base: u32,
}

impl Congestion {
    /// A window of 0: the first flush opens it to 1, so without `nocwnd` the first data leaves one flush later.
    pub(crate) const fn new() -> Self {
        Self { cwnd: 0, ssthresh: THRESH_MIN, incr: 0 }
    }

    /// Segments that may be in flight.
    #[inline]
    pub(crate) fn window(&self, config: &KcpConfig, rmt_wnd: u32) -> u32 {
        let window = config.snd_wnd.min(rmt_wnd);
        if config.nocwnd { window } else { window.min(self.cwnd) }
    }

    pub(crate) const fn cwnd(&self) -> u32 {
        self.cwnd
    }

    pub(crate) const fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    pub(crate) const fn incr(&self) -> u32 {
        self.incr
    }

    /// One step of growth: once per datagram that moved `snd_una`, however many segments it acknowledged.
    /// Reference: end of `ikcp_input`.
    #[inline]
    pub(crate) fn on_acked(&mut self, config: &KcpConfig, rmt_wnd: u32) {
        if self.cwnd < rmt_wnd {
            self.grow(config.mss(), rmt_wnd);
        }
    }

    fn grow(&mut self, mss: u32, rmt_wnd: u32) {
        if self.cwnd < self.ssthresh {
            self.cwnd += 1;
            self.incr = self.incr.wrapping_add(mss);
        } else {
            self.incr = self.incr.max(mss);
            let step = mss.wrapping_mul(mss) / self.incr + mss / 16;
            self.incr = self.incr.wrapping_add(step);
            if (self.cwnd + 1).wrapping_mul(mss) <= self.incr {
                self.cwnd = self.incr.wrapping_add(mss - 1) / mss;
            }
        }
        if self.cwnd > rmt_wnd {
            self.cwnd = rmt_wnd;
            self.incr = rmt_wnd.wrapping_mul(mss);
        }
    }

    /// Shrinks by what a flush had to resend; a timeout outweighs fast resends of the same flush. Reference: end of
    /// `ikcp_flush`.
    #[cold]
    pub(crate) fn on_losses(&mut self, losses: Losses, in_flight: u32, config: &KcpConfig) {
        if losses.fast > 0 {
            self.ssthresh = (in_flight / 2).max(THRESH_MIN);
            self.cwnd = self.ssthresh.wrapping_add(config.resent());
            self.incr = self.cwnd.wrapping_mul(config.mss());
        }
        if losses.timeout {
            self.ssthresh = (losses.timeout_base / 2).max(THRESH_MIN);
            self.cwnd = 1;
            self.incr = config.mss();
        }
    }

    /// Opens a window of 0 at the end of a flush. Reference: end of `ikcp_flush`.
    #[inline]
    pub(crate) const fn on_flushed(&mut self, config: &KcpConfig) {
        if self.cwnd < 1 {
            self.cwnd = 1;
            self.incr = config.mss();
        }
    }
}

impl Losses {
    #[inline]
    pub(crate) const fn any(&self) -> bool {
        self.fast > 0 || self.timeout
    }
}

/// Initial and smallest `ssthresh`.
const THRESH_MIN: u32 = 2;
