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
    /// Those who have yet to try in the round that is on.
    left: usize,
}

impl WaitingList {
    /// Nobody waits.
    pub(super) const fn new(now: Millis) -> Self {
        Self { list: VecDeque::new(), next_round: now, left: 0 }
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

    /// Takes out the next one that may try again now; `budget` of them may in one round.
    pub(super) fn pop(&mut self, now: Millis, budget: usize) -> Option<Waiting> {
        if self.left == 0 {
            let ahead = self.next_round.since(now);
            // After a long silence the clock may have wrapped past it.
            if ahead > 0 && ahead <= ROUND_MS.cast_signed() {
                return None;
            }
            self.next_round = now.add(ROUND_MS);
            self.left = self.list.len().min(budget);
        }
        self.left = self.left.checked_sub(1)?;
        self.list.pop_front()
    }

    /// All have tried who may in this round.
    pub(super) const fn is_round_over(&self) -> bool {
        self.left == 0
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
            assert!(list.pop(start.add(ROUND_MS - 1), 10).is_none() && list.is_round_over());
            let now = start.add(ROUND_MS);
            assert_eq!(list.next_deadline(), Some(now));
            let first = list.pop(now, 1).unwrap();
            assert!(list.pop(now, 10).is_none() && list.is_round_over(), "one round at a time");
            list.push(first.session, now, first.until);
            list.hurry(now);
            // A round goes on with another turn. Those who have to wait again are not in it.
            let second = list.pop(now, 10).unwrap();
            list.push(second.session, now, second.until);
            assert!(!list.is_round_over());
            let third = list.pop(now.add(1), 10).unwrap();
            assert!(list.is_round_over() && list.pop(now.add(1), 10).is_none());
            assert_eq!([second.session, third.session], [id(2), id(1)]);
            assert_eq!((second.until, third.until), (until, until));
        }
    }
}
