//! Until when a caller has taken in what arrived: the clock that timeouts are judged by.

use crate::units::Millis;

/// How far a caller has got with what arrives.
///
/// A caller that falls behind, because more arrives than it can take or because its processor was given to somebody else, finds
/// acknowledgements waiting that are older than the timeouts it would act on. If it passes [`Heard::at`] to
/// [`Kcp::poll_transmit_heard`](crate::Kcp::poll_transmit_heard) and to its [`Wheel`](crate::Wheel), a timeout causes a resend
/// only when everything that had arrived by then was taken in: queueing does not look like loss, and a caller that is late
/// does not add to its own load.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    at: Millis,
    mark: Option<Mark>,
}

/// When everything that waits at one moment is taken in, so is all that arrived before it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Millis,
    /// Datagrams until then.
    left: usize,
}

impl Heard {
    /// Nothing has arrived before `now`.
    #[must_use]
    pub const fn new(now: Millis) -> Self {
        Self { at: now, mark: None }
    }

    /// All that had arrived at `now` was taken in.
    pub const fn all(&mut self, now: Millis) {
        (self.at, self.mark) = (now, None);
    }

    /// Not all was, but `taken` datagrams more than when this was last said. `waiting` is asked now and then how many there are
    /// still, at most: when so many more were taken, all that had arrived by now was.
    ///
    /// A queue that never runs empty must not stop the timers for ever: [`Heard::at`] stays no further behind than half a second.
    pub fn not_all(&mut self, now: Millis, taken: usize, waiting: impl FnOnce() -> usize) {
        if let Some(mark) = &mut self.mark {
            mark.left = mark.left.saturating_sub(taken);
            if mark.left == 0 {
                if mark.at.since(self.at) > 0 {
                    self.at = mark.at;
                }
                self.mark = None;
            }
        }
        if self.mark.is_none() && self.behind_ms(now) >= MARK_FROM_MS {
            self.mark = Some(Mark { at: now, left: waiting() });
        }
        if self.behind_ms(now) > BEHIND_MAX_MS {
            self.at = Millis(now.0.wrapping_sub(BEHIND_MAX_MS));
        }
    }

    /// Everything that had arrived by then was taken in. Goes back only where the clock did.
    #[must_use]
    pub const fn at(self) -> Millis {
        self.at
    }

    /// Milliseconds from then to `now`.
    #[must_use]
    pub const fn behind_ms(self, now: Millis) -> u32 {
        let behind = now.since(self.at);
        if behind > 0 { behind.cast_unsigned() } else { 0 }
    }
}

/// Milliseconds that a timeout waits at most: what a receive buffer of a few thousand datagrams holds is taken in sooner, at a
/// tenth of a core's rate even.
const BEHIND_MAX_MS: u32 = 500;

/// From here on it is worth knowing how much is still waiting, in milliseconds: below the smallest timeout.
const MARK_FROM_MS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_wait_for_what_was_not_taken_in_but_not_for_ever() {
        // Just below the wrap of the clock.
        let at = |ms: u32| Millis((u32::MAX - 300).wrapping_add(ms));
        let mut heard = Heard::new(at(0));
        heard.all(at(10));
        for ms in [200, 210] {
            heard.not_all(at(ms), 10, || usize::MAX);
            assert_eq!((heard.at(), heard.behind_ms(at(ms))), (at(10), ms - 10));
        }
        heard.all(at(211));
        assert_eq!((heard.at(), heard.behind_ms(at(211))), (at(211), 0));
        for ms in (220..2_000).step_by(7) {
            heard.not_all(at(ms), 10, || usize::MAX);
            assert_eq!(heard.behind_ms(at(ms)), (ms - 211).min(BEHIND_MAX_MS));
        }
    }

    #[test]
    fn a_queue_that_never_runs_empty_is_heard_as_far_as_it_was_taken() {
        let at = |ms: u32| Millis((u32::MAX - 20).wrapping_add(ms));
        let mut heard = Heard::new(at(0));
        heard.not_all(at(4), 100, || unreachable!("nobody is late yet"));
        heard.not_all(at(6), 100, || 250);
        for (ms, want) in [(8, 0), (10, 0), (12, 6)] {
            heard.not_all(at(ms), 100, || 120);
            assert_eq!(heard.at(), at(want));
        }
        // Marked at 12, 120 to go.
        heard.not_all(at(40), 119, || unreachable!("one is still to come"));
        assert_eq!(heard.at(), at(6));
        heard.not_all(at(41), 1, || 0);
        assert_eq!(heard.at(), at(12));
        heard.not_all(at(42), 0, || 0);
        assert_eq!(heard.at(), at(41), "nothing was waiting then");
    }
}
