//! How much room a peer is told of: what its window leaves free, and less while its messages wait in a store that is short.
//!
//! All windows together are far more than the store. What is sent into a full one is refused, and its sender repeats it, ever
//! more slowly, long after there is room again. A peer that is told of no room keeps its messages and waits to be told of some.
//! So from half of the store on, those whose messages nobody reads are given an equal share of what is left. Whoever has been
//! read at once all along is not: that others fill the store is no fault of his.
//!
//! Those who had to wait begin again with a few segments, or all of them together would fill the store at once with what they
//! have kept back. From then on they have twice as much with each word, as long as there is plenty.

use crate::config::KcpConfig;
use crate::recv::Receiver;
use crate::store::Store;

/// What a peer was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// All that its window leaves free.
    Window,
    /// A part of that: its messages wait, or did since the store became short. At least two to this power, while it is not.
    Part(u8),
    /// Nothing, although its window leaves something free.
    Nothing,
}

impl Grant {
    /// Free slots, as a peer that was told this is told next; and what it is told then, to be kept once that has been sent.
    /// Reference: `ikcp_wnd_unused`, which knows no store.
    #[inline]
    pub(crate) fn next(
        self,
        recv: Option<&Receiver>,
        config: &KcpConfig,
        store: &Store,
    ) -> (u32, Self) {
        let ready = recv.map_or(0, Receiver::ready);
        if ready == 0 && self == Self::Window {
            return (config.rcv_wnd, self);
        }
        self.next_part(recv, config, store)
    }

    #[cold]
    fn next_part(self, recv: Option<&Receiver>, config: &KcpConfig, store: &Store) -> (u32, Self) {
        let ready = recv.map_or(0, Receiver::ready);
        let free = config.rcv_wnd.saturating_sub(ready);
        let slots = self.slots(recv, config, store);
        let told = match slots {
            _ if slots == free => Self::Window,
            0 => Self::Nothing,
            _ if store.has_plenty() => Self::Part((self.power() + 1).min(POWER_MAX)),
            _ if store.is_short() => Self::Part(POWER_FIRST),
            _ => Self::Part(self.power()),
        };
        (slots, told)
    }

    /// That was sent.
    #[inline]
    pub(crate) fn tell(&mut self, told: Self, store: &mut Store) {
        if *self != told {
            store.stats_mut().windows_withheld += u64::from(told == Self::Nothing);
            *self = told;
        }
    }

    /// A message was read: whether the peer was told of nothing and is to be told of some room. It is as soon as there is as much as
    /// what still waits, not for every segment; and at once when what waits cannot be read without the rest of it.
    #[inline]
    pub(crate) fn reopens(&mut self, recv: &Receiver, config: &KcpConfig, store: &Store) -> bool {
        if *self != Self::Nothing {
            return false;
        }
        let enough = if recv.lacking() == Some(0) { recv.ready() } else { 1 };
        let reopens = self.slots(Some(recv), config, store) >= enough;
        if reopens {
            *self = Self::Part(POWER_FIRST);
        }
        reopens
    }

    /// At least two to this power may be used while the store is not short.
    const fn power(self) -> u8 {
        match self {
            Self::Part(power) => power,
            Self::Window | Self::Nothing => POWER_FIRST,
        }
    }

    /// Of the slots that the window leaves free, those that the peer may use.
    fn slots(self, recv: Option<&Receiver>, config: &KcpConfig, store: &Store) -> u32 {
        let free = config.rcv_wnd.saturating_sub(recv.map_or(0, Receiver::ready));
        let lacking = recv.and_then(Receiver::lacking);
        let (waits, is_short) = (lacking == Some(0), store.is_short());
        if self == Self::Window && !(waits && is_short) {
            return free;
        }
        let few = match (is_short, waits) {
            (true, true) => 0,
            (true, false) => 1 << POWER_FIRST,
            (false, _) => 1 << self.power(),
        };
        // The rest of a message has its room, or nobody could ever read it.
        let at_least = lacking.unwrap_or(0).max(few);
        let segments = store.left_bytes() / config.mtu.max(1) as usize;
        free.min(u32::try_from(segments).unwrap_or(u32::MAX).max(at_least))
    }
}

/// Two segments for a peer of whom nothing waits any more.
const POWER_FIRST: u8 = 1;

/// More than any window.
const POWER_MAX: u8 = 16;
