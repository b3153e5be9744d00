//! Streams that the backend has not accepted yet. Its library refuses them beyond a number (256 in Go's), so we wait there.

/// Counts opened streams without an ACK.
///
/// Some libraries send the ACK with the first byte that the application answers, and an application that only reads would
/// so close the connection to new streams. An answered ping proves as much for the streams opened before the ping: the
/// backend's library has seen them and refused none. They stop counting then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unacked {
    /// Below this id, streams count no more.
    released: u32,
    /// The first id opened after the last ping.
    mark: u32,
    /// Without an ACK, opened before the last ping and not released.
    before: u32,
    /// Without an ACK, opened after it.
    after: u32,
}

impl Unacked {
    pub(super) const fn count(&self) -> u32 {
        self.before + self.after
    }

    /// A stream was opened. Ids only grow.
    pub(super) const fn on_open(&mut self) {
        self.after += 1;
    }

    /// A stream without an ACK got it, or is gone. Once for each.
    pub(super) const fn on_settled(&mut self, id: u32) {
        if id >= self.mark {
            self.after -= 1;
        } else if id >= self.released {
            self.before -= 1;
        }
    }

    /// A ping goes out; the next stream to be opened is `next_id`.
    pub(super) const fn on_ping(&mut self, next_id: u32) {
        self.before += self.after;
        self.after = 0;
        self.mark = next_id;
    }

    /// The last ping was answered.
    pub(super) const fn on_pong(&mut self) {
        self.before = 0;
        self.released = self.mark;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::dice::Dice;
    use super::*;

    /// Against a set of ids that says the same in many words.
    #[test]
    fn what_an_answered_ping_covers_counts_no_more() {
        for seed in 0..50 {
            let mut dice = Dice::new(seed);
            let (mut unacked, mut open, mut counted) =
                (Unacked::default(), BTreeSet::new(), BTreeSet::new());
            let (mut next_id, mut asked) = (1, None);
            for _ in 0..1000 {
                match dice.below(8) {
                    0 if asked.is_none() => {
                        unacked.on_ping(next_id);
                        asked = Some(next_id);
                    }
                    1 => {
                        if let Some(mark) = asked.take() {
                            unacked.on_pong();
                            counted.retain(|&id| id >= mark);
                        }
                    }
                    2 | 3 if !open.is_empty() => {
                        let id = *open.iter().nth(dice.below(open.len())).unwrap();
                        unacked.on_settled(id);
                        open.remove(&id);
                        counted.remove(&id);
                    }
                    _ => {
                        unacked.on_open();
                        open.insert(next_id);
                        counted.insert(next_id);
                        next_id += 2;
                    }
                }
                assert_eq!(unacked.count() as usize, counted.len());
            }
        }
    }
}
