//! Which messages of a session came: in order, early, late or twice.

/// What a sequence number's arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The one that had to come next, or one after a gap: those between are missing so far.
    New,
    /// A missing one after a later one: out of order.
    Late,
    /// One that had come, or one so old that this cannot be told any more.
    Repeated,
}

/// The next sequence number of a session and which of the 64 before it came. Sequence numbers wrap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    next: u32,
    /// Bit `b` = number `next - 1 - b` came.
    came: u64,
}

impl Seen {
    /// The number that must come next.
    #[must_use]
    pub(crate) const fn next(&self) -> u32 {
        self.next
    }

    /// Whether none is missing among the last 64 before the next.
    #[must_use]
    pub(crate) const fn is_whole(&self) -> bool {
        let expected = if self.next >= u64::BITS { u64::MAX } else { (1 << self.next) - 1 };
        self.came & expected == expected
    }

    /// Takes note of one arrival.
    pub(crate) fn note(&mut self, sequence: u32) -> Arrival {
        let ahead = sequence.wrapping_sub(self.next);
        if ahead.cast_signed() >= 0 {
            self.came = self.came.checked_shl(ahead.saturating_add(1)).unwrap_or(0) | 1;
            self.next = sequence.wrapping_add(1);
            return Arrival::New;
        }
        let back = self.next.wrapping_sub(sequence) - 1;
        match 1_u64.checked_shl(back) {
            Some(bit) if self.came & bit == 0 => {
                self.came |= bit;
                Arrival::Late
            }
            _ => Arrival::Repeated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u32]) -> Vec<Arrival> {
        let mut seen = Seen { next: numbers[0], came: u64::MAX };
        numbers.iter().map(|&n| seen.note(n)).collect()
    }

    #[test]
    fn order_gap_late_and_twice() {
        use Arrival::{Late, New, Repeated};
        assert_eq!(arrivals(&[5, 6, 7]), [New, New, New]);
        assert_eq!(arrivals(&[5, 8, 6, 6, 8, 7]), [New, New, Late, Repeated, Repeated, Late]);
        assert_eq!(arrivals(&[u32::MAX, 0, u32::MAX, 2, 1]), [New, New, Repeated, New, Late]);
        assert_eq!(arrivals(&[100, 35]), [New, Repeated], "65 back: too old to tell");
        assert_eq!(arrivals(&[0, 64, 1, 63]), [New, New, Late, Late]);
        assert_eq!(arrivals(&[0, 1 << 30, 0]), [New, New, Repeated]);
    }

    #[test]
    fn a_gap_shows_until_it_is_filled_or_long_ago() {
        let whole = |numbers: &[u32]| {
            let mut seen = Seen::default();
            for &number in numbers {
                seen.note(number);
            }
            seen.is_whole()
        };
        assert!(whole(&[]) && whole(&[0]) && whole(&[0, 1, 2]) && whole(&[0, 2, 1]));
        assert!(!whole(&[1]) && !whole(&[0, 2]));
        let all: Vec<u32> = (0..200).collect();
        assert!(whole(&all));
        let without = |gap: u32| all.iter().copied().filter(|&n| n != gap).collect::<Vec<_>>();
        assert!(!whole(&without(150)) && whole(&without(100)));
    }

    #[test]
    fn agrees_with_a_set_while_it_can_remember() {
        let seed = crate::seed::fresh();
        let mut seen = Seen::default();
        let mut set = std::collections::BTreeSet::new();
        let mut top = 0_u32;
        for step in 0..20_000_u64 {
            let random = crate::seed::mix64(seed ^ step);
            let number = (top + 20).saturating_sub(crate::seed::low32(random) % 60);
            let was_new = set.insert(number);
            let arrival = seen.note(number);
            assert_eq!(arrival != Arrival::Repeated, was_new, "seed {seed} step {step}");
            assert_eq!(arrival == Arrival::New, number >= top, "seed {seed} step {step}");
            top = top.max(number + 1);
        }
    }
}
