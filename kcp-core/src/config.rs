//! What a listener's sessions share: the protocol's settings, checked once.

use core::fmt;

use crate::send::FRAGMENTS_MAX;
use crate::wire::HEADER_LEN;

/// Which release of the C library the arithmetic follows, where releases differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reference {
    /// 1.7.1: first window probe after 7,000 ms; on loss `ssthresh` is half of the effective window.
    V1_7_1,
    /// 2.1.1: first window probe after 5,000 ms; on loss `ssthresh` is half of the window before the flush.
    #[default]
    V2_1_1,
}

impl Reference {
    /// Milliseconds from the closing of the peer's window to the first probe timer's expiry.
    pub(crate) const fn first_probe_wait(self) -> u32 {
        match self {
            Self::V1_7_1 => 7_000,
            Self::V2_1_1 => 5_000,
        }
    }
}

/// When pending output leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlushPolicy {
    /// At the caller's [`Kcp::flush`](crate::Kcp::flush), once per turn that touched the session, and when a
    /// deadline of the protocol passes. An idle session has no deadline.
    Turn,
    /// Every `interval`, as `ikcp_update` does.
    #[default]
    Interval,
}

/// Settings of a conversation. Shared by all sessions of a listener and passed to every call, so that a session
/// carries none of it. Changing a field between two calls is the reference's setter of that name.
///
/// Any values are safe to use; [`KcpConfig::check`] tells which make sense. What they cost: a session's receive side
/// holds at most `2 * rcv_wnd` fragments (in order and unread, or out of order), each as large as the datagrams the caller
/// passes in, see [`KcpConfig::receive_bytes_max`]; its send side what the caller queues, so bound
/// [`Kcp::wait_snd`](crate::Kcp::wait_snd). All of it counts against the [`Store`](crate::Store)'s bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KcpConfig {
    /// Largest datagram in bytes, 50 and more (default 1400). Reference: `ikcp_setmtu`.
    pub mtu: u32,
    /// 0: RTO at least 100 ms, doubling. 1: at least 30 ms, growing by half of itself. 2: by half of the base RTO.
    pub nodelay: u32,
    /// Flush interval in milliseconds, 10 to 5000 (default 100).
    pub interval: u32,
    /// Resend after this many later acknowledgements; 0 = never (default).
    pub fastresend: u32,
    /// How many transmissions fast resend may cause; 0 = no limit (default 5).
    pub fastlimit: u32,
    /// Ignore the congestion window (default false).
    pub nocwnd: bool,
    /// Send window in segments, 1 and more (default 32).
    pub snd_wnd: u32,
    /// Receive window in segments, 128 to 65,535 (default 128).
    pub rcv_wnd: u32,
    /// Byte stream instead of messages (default false).
    pub stream: bool,
    /// Transmissions of one segment after which the link counts as dead (default 20).
    pub dead_link: u32,
    /// Which release to follow.
    pub reference: Reference,
    /// When output leaves.
    pub flush: FlushPolicy,
    /// Refuse what no honest peer sends (see [`InputError`](crate::InputError)); bound what a peer can grow.
    /// Off only to compare with the reference, which believes everybody.
    pub strict: bool,
}

impl Default for KcpConfig {
    /// The C library's own defaults (2.1.1).
    fn default() -> Self {
        Self {
            mtu: 1400,
            nodelay: 0,
            interval: 100,
            fastresend: 0,
            fastlimit: 5,
            nocwnd: false,
            snd_wnd: 32,
            rcv_wnd: 128,
            stream: false,
            dead_link: 20,
            reference: Reference::V2_1_1,
            flush: FlushPolicy::Interval,
            strict: false,
        }
    }
}

impl KcpConfig {
    /// For games, where latency is worth bandwidth: flush at the end of each turn and at least every 10 ms while
    /// data waits, resend after two later acknowledgements, no congestion window, windows of 256, strict input.
    #[must_use]
    pub fn game() -> Self {
        Self {
            nodelay: 1,
            interval: 10,
            fastresend: 2,
            nocwnd: true,
            snd_wnd: 256,
            rcv_wnd: 256,
            flush: FlushPolicy::Turn,
            strict: true,
            ..Self::default()
        }
    }

    /// Whether every setting is inside its documented range.
    ///
    /// # Errors
    /// The first setting that is not, with its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("mtu", self.mtu, 50, 65_507),
            ("nodelay", self.nodelay, 0, 2),
            ("interval", self.interval, 10, 5_000),
            ("fastresend", self.fastresend, 0, 65_535),
            ("fastlimit", self.fastlimit, 0, 65_535),
            ("snd_wnd", self.snd_wnd, 1, 65_535),
            ("rcv_wnd", self.rcv_wnd, 128, 65_535),
            ("dead_link", self.dead_link, 1, u32::MAX),
        ];
        for (setting, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError { setting, value, min, max });
            }
        }
        Ok(())
    }

    /// Payload bytes of a segment, at least 1.
    #[must_use]
    #[inline]
    pub const fn mss(&self) -> u32 {
        let mss = self.mtu.saturating_sub(OVERHEAD);
        if mss == 0 { 1 } else { mss }
    }

    /// Longest message that [`Kcp::send`](crate::Kcp::send) takes, in bytes: 127 full fragments. A peer may send longer ones.
    #[must_use]
    pub const fn message_max(&self) -> usize {
        (FRAGMENTS_MAX - 1) * self.mss() as usize
    }

    /// Bytes that a session's receive side takes from the store at worst, when no datagram is larger than `datagram_max`.
    #[must_use]
    pub const fn receive_bytes_max(&self, datagram_max: usize) -> usize {
        // A slot of the reorder window, and a buffer that may be half as large again as its payload.
        let fragment = 24 + datagram_max.saturating_sub(HEADER_LEN) / 2 * 3 + 64;
        // An acknowledgement for each is owed twice over at most; queues double as they grow.
        let acks = 4 * self.rcv_wnd as usize * 8;
        2 * self.rcv_wnd as usize * fragment + acks
    }

    /// Smallest retransmission timeout in milliseconds.
    #[inline]
    pub(crate) const fn min_rto(&self) -> u32 {
        if self.nodelay == 0 { 100 } else { 30 }
    }

    /// The fast-ack count that causes a resend; unreachable when fast resend is off.
    #[inline]
    pub(crate) const fn resent(&self) -> u32 {
        if self.fastresend > 0 { self.fastresend } else { u32::MAX }
    }
}

/// [`HEADER_LEN`] in the wire's own width.
const OVERHEAD: u32 = 24;

const _: () = assert!(OVERHEAD as usize == HEADER_LEN);

/// A setting outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field of [`KcpConfig`].
    pub setting: &'static str,
    /// What it was set to.
    pub value: u32,
    /// Smallest value allowed.
    pub min: u32,
    /// Largest value allowed.
    pub max: u32,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, min, max } = self;
        write!(f, "{setting} = {value}: {min} to {max} is allowed")
    }
}

impl core::error::Error for ConfigError {}
