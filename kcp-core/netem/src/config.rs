//! What a link does to packets.

/// The settings of one [`Link`](crate::Link). The default is a perfect link: no delay, no limit, no fault.
///
/// Chances are in parts per million (1 % = 10,000); 1,000,000 and more is certain. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Chance of a packet to be lost, each for itself.
    pub loss_ppm: u32,
    /// Losses in bursts, in addition to `loss_ppm`.
    pub bursts: Option<Bursts>,
    /// How long a packet travels at least.
    pub delay_us: u64,
    /// The most by which a packet travels longer than `delay_us`; uniform.
    pub jitter_us: u64,
    /// Jitter never lets a packet overtake an earlier one: it then arrives together with it (default true).
    pub keep_order: bool,
    /// Chance of a packet to be held back by `reorder_us`, so that later ones overtake it whatever `keep_order` says.
    pub reorder_ppm: u32,
    /// How long such a packet is held back.
    pub reorder_us: u64,
    /// Chance of a packet to arrive twice. The copy draws a jitter of its own.
    pub duplicate_ppm: u32,
    /// Chance of a packet to arrive with one bit flipped.
    pub corrupt_ppm: u32,
    /// Bits per second that leave the sender's side; 0 = no limit.
    pub rate_bits_per_s: u64,
    /// Bytes that may wait for the rate limit, the packet being sent included; a packet beyond is dropped (default 256 KiB).
    pub queue_bytes_max: u64,
    /// Bytes that each packet takes of the rate and the queue beyond its payload (default 28: IPv4 and UDP headers).
    pub overhead_bytes: u32,
    /// Largest payload in bytes; longer packets are dropped without notice, as on a path with a smaller MTU.
    pub payload_max: usize,
    /// When the link is dark: every packet pushed then is dropped.
    pub blackouts: Vec<Blackout>,
    /// Packets held at once, copies included: the bound of the link's memory. A packet beyond is dropped (default 65,536).
    pub held_max: usize,
}

/// Losses that come together: Gilbert and Elliott's two-state chain. Each packet first moves the state, then meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Chance, at each packet, that a burst begins.
    pub enter_ppm: u32,
    /// Chance, at each packet, that the burst ends: bursts are on average 1,000,000 / `leave_ppm` packets long.
    pub leave_ppm: u32,
    /// Chance of a packet to be lost during a burst.
    pub loss_ppm: u32,
}

/// A time during which nothing passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blackout {
    /// When it begins.
    pub from_us: u64,
    /// How long it lasts.
    pub for_us: u64,
    /// After how long, counted from its beginning, it comes again; 0 = never.
    pub every_us: u64,
}

impl Blackout {
    /// Whether `at_us` lies within.
    #[must_use]
    pub const fn covers(&self, at_us: u64) -> bool {
        let Some(since) = at_us.checked_sub(self.from_us) else { return false };
        match since.checked_rem(self.every_us) {
            Some(phase) => phase < self.for_us,
            None => since < self.for_us,
        }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            loss_ppm: 0,
            bursts: None,
            delay_us: 0,
            jitter_us: 0,
            keep_order: true,
            reorder_ppm: 0,
            reorder_us: 0,
            duplicate_ppm: 0,
            corrupt_ppm: 0,
            rate_bits_per_s: 0,
            queue_bytes_max: 256 << 10,
            overhead_bytes: 28,
            payload_max: usize::MAX,
            blackouts: Vec::new(),
            held_max: 65_536,
        }
    }
}
