//! What a listener's sessions share: the protocol's settings, checked once.

/// Which release of the C library the arithmetic follows, where releases differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reference {
    /// 1.7.1: first window probe after 7,000 ms; on loss `ssthresh` is half of the effective window.
    V1_7_1,
    /// 2.1.1: first window probe after 5,000 ms; on loss `ssthresh` is half of the window before the flush.
    #[default]
    V2_1_1,
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
