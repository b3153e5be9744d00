//! Asking a peer whose window is closed, and telling ours when it opened.

use crate::units::Millis;

/// The window probe's timer and what the next flush asks or tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    at: Millis,
    wait: u32,
    ask: u8,
}

impl Probe {
    pub(crate) const fn new() -> Self {
        Self { at: Millis(0), wait: 0, ask: 0 }
    }

    /// Runs the back-off while the peer's window is `closed`. The first expiry already waits half as long again.
    /// Reference: `ikcp_flush`.
    #[inline]
    pub(crate) fn on_flush(&mut self, now: Millis, closed: bool, first_wait: u32) {
        if !closed {
            self.at = Millis(0);
            self.wait = 0;
        } else if self.wait == 0 {
            self.wait = first_wait;
            self.at = now.add(self.wait);
        } else if now.since(self.at) >= 0 {
            let wait = self.wait.max(first_wait);
            self.wait = (wait + wait / 2).min(PROBE_LIMIT);
            self.at = now.add(self.wait);
            self.ask |= ASK_SEND;
        }
    }

    /// The next flush tells our window.
    pub(crate) const fn tell(&mut self) {
        self.ask |= ASK_TELL;
    }

    /// A WASK is to be written.
    pub(crate) const fn must_ask(&self) -> bool {
        self.ask & ASK_SEND != 0
    }

    /// A WINS is to be written.
    pub(crate) const fn must_tell(&self) -> bool {
        self.ask & ASK_TELL != 0
    }

    pub(crate) const fn asked(&mut self) {
        self.ask &= !ASK_SEND;
    }

    pub(crate) const fn told(&mut self) {
        self.ask &= !ASK_TELL;
    }

    /// Something is to be written.
    pub(crate) const fn pending(&self) -> bool {
        self.ask != 0
    }

    /// When the peer is to be asked, once a flush has started the wait.
    pub(crate) const fn deadline(&self) -> Option<Millis> {
        if self.wait == 0 { None } else { Some(self.at) }
    }

    /// The raw timer (`ts_probe`, `probe_wait`, `probe`).
    pub(crate) const fn raw(&self) -> (Millis, u32, u8) {
        (self.at, self.wait, self.ask)
    }
}

const ASK_SEND: u8 = 1;
const ASK_TELL: u8 = 2;

/// Longest wait between two probes, in milliseconds.
const PROBE_LIMIT: u32 = 120_000;
