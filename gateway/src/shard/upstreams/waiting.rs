//! Sessions that have messages and no backend yet: none is usable, or no connection may be begun now.

use std::collections::VecDeque;

use kcp_core::Millis;

use crate::session::SessionId;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) session: SessionId,
    /// It gives up then.
    pub(super) until: Millis,
}

/// All of them, each once. They try again in turn, in rounds.
#[derive(Debug)]
pub(super) struct WaitingList {
    list: VecDeque<Waiting>,
    next_round: Millis,
}

impl WaitingList {
    /// Nobody waits.
    pub(super) const fn new(now: Millis) -> Self {
        Self { list: VecDeque::new(), next_round: now }
    }

    /// Sessions that wait.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Puts a session at the end.
    pub(super) fn push(&mut self, session: SessionId, now: Millis, until: Millis) {
        if self.list.is_empty() {
            self.next_round = now.add(ROUND_MS);
        }
        self.list.push_back(Waiting { session, until });
    }

    /// What keeps them waiting may be over: they try again with the next turn.
    pub(super) fn hurry(&mut self, now: Millis) {
        self.next_round = now;
    }

    /// How many may try again now.
    pub(super) fn round(&mut self, now: Millis, budget: usize) -> usize {
        let ahead = self.next_round.since(now);
        // After a long silence the clock may have wrapped past it.
        if ahead > 0 && ahead <= ROUND_MS.cast_signed() {
            return 0;
        }
        self.next_round = now.add(ROUND_MS);
        self.list.len().min(budget)
    }

    /// The first.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.list.pop_front()
    }

    /// When the next round is.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        (!self.list.is_empty()).then_some(self.next_round)
    }
}

/// From one round to the next, in milliseconds: how long a session waits at least after its connection failed.
const ROUND_MS: u32 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SessionId {
        SessionId { index, generation: 0 }
    }

    #[test]
    fn all_try_once_a_round_in_turn() {
        for start in [Millis(0), Millis(u32::MAX - 10)] {
            let mut list = WaitingList::new(start);
            assert_eq!(list.next_deadline(), None);
            let until = start.add(100);
            list.push(id(1), start, until);
            list.push(id(2), start, until);
            assert_eq!(list.round(start.add(ROUND_MS - 1), 10), 0);
            let now = start.add(ROUND_MS);
            assert_eq!(list.next_deadline(), Some(now));
            assert_eq!((list.round(now, 1), list.round(now, 10)), (1, 0), "one round at a time");
            let first = list.pop().unwrap();
            list.push(first.session, now, first.until);
            list.hurry(now);
            assert_eq!(list.round(now, 10), 2);
            let all: Vec<_> = std::iter::from_fn(|| list.pop()).collect();
            let seen: Vec<_> = all.iter().map(|w| (w.session, w.until)).collect();
            assert_eq!(seen, [(id(2), until), (id(1), until)]);
        }
    }
}
