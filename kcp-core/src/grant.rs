//! How much room a peer is told of: what its window leaves free, and less while its messages wait in a store that is short.
//!
//! All windows together are far more than the store. What is sent into a full one is refused, and its sender repeats it, ever
//! more slowly, long after there is room again. A peer that is told of no room keeps its messages and waits to be told of some.
//! So from half of the store on, those whose messages nobody reads are given an equal share of what is left. Whoever is read at
//! once is not: that others fill the store is no fault of his.

use crate::recv::Receiver;
use crate::store::Store;

/// What a peer was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// All that its window leaves free.
    Window,
    /// A share of what is left: its messages wait, or did since the store became short.
    Share,
    /// Nothing, although its window leaves something free.
    Nothing,
}

impl Grant {
    /// Free slots, as a peer that was told this is told next; and what it is told then, to be kept once that has been sent.
    /// Reference: `ikcp_wnd_unused`, which knows no store.
    #[inline]
    pub(crate) fn next(self, recv: Option<&Receiver>, rcv_wnd: u32, store: &Store) -> (u32, Self) {
        let ready = recv.map_or(0, Receiver::ready);
        let free = rcv_wnd.saturating_sub(ready);
        if ready == 0 && self == Self::Window {
            return (free, self);
        }
        self.next_share(recv, free, store)
    }

    #[cold]
    fn next_share(self, recv: Option<&Receiver>, free: u32, store: &Store) -> (u32, Self) {
        let slots = self.slots(recv, free, store);
        let told = match slots {
            _ if slots == free => Self::Window,
            0 => Self::Nothing,
            _ => Self::Share,
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
    /// what still waits, not for every segment.
    #[inline]
    pub(crate) fn reopens(&mut self, recv: &Receiver, rcv_wnd: u32, store: &Store) -> bool {
        if *self != Self::Nothing {
            return false;
        }
        let ready = recv.ready();
        let reopens = self.slots(Some(recv), rcv_wnd.saturating_sub(ready), store) >= ready.max(1);
        if reopens {
            *self = Self::Share;
        }
        reopens
    }

    /// Of `free` slots, those that the peer may use.
    fn slots(self, recv: Option<&Receiver>, free: u32, store: &Store) -> u32 {
        let lacking = recv.and_then(Receiver::lacking);
        if self == Self::Window && !(lacking == Some(0) && store.is_short()) {
            return free;
        }
        let at_least = match lacking {
            // The rest of a message has its room, or nobody could ever read it.
            Some(rest) => rest,
            None => FEW,
        };
        let share = u32::try_from(store.share_bytes() / SEGMENT_BYTES).unwrap_or(u32::MAX);
        free.min(share.max(at_least))
    }
}

/// Slots of a peer of whom nothing waits any more.
const FEW: u32 = 2;

/// What a segment takes that fills a datagram of the common size.
const SEGMENT_BYTES: usize = 1536;
