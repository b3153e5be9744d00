//! The connections to one address of a `yamux` backend: how many each shard has, and when to make the next. Without I/O.

use net_io::Now;

use crate::upstream::backoff::Backoff;

/// What is known of the links to one address.
#[derive(Debug)]
pub(super) struct Links {
    wanted: u16,
    shards: Vec<OfShard>,
}

/// The links of one shard. They are alike, so that counting them is enough.
#[derive(Debug)]
struct OfShard {
    /// Handed to the shard and not reported as over.
    live: u16,
    connecting: u16,
    /// No attempt before this.
    next: Now,
    pause: Backoff,
    /// When the last one was handed over.
    since: Now,
    /// The shard's own count was lower when last compared.
    doubtful: bool,
}

impl Links {
    /// No links yet; `wanted` for each of `shards`, the first ones at once. A pause between failures begins at `base_ms` and
    /// grows to `max_ms` milliseconds.
    pub(super) fn new(
        now: Now,
        shards: usize,
        wanted: u16,
        (base_ms, max_ms): (u32, u32),
        seed: u64,
    ) -> Self {
        let of_shard = |shard: u64| OfShard {
            live: 0,
            connecting: 0,
            next: now,
            pause: Backoff::new(base_ms, max_ms, seed.wrapping_add(shard)),
            since: now,
            doubtful: false,
        };
        Self { wanted, shards: (0..shards as u64).map(of_shard).collect() }
    }

    /// Changes how many each shard gets. Links beyond that live on.
    pub(super) const fn want(&mut self, wanted: u16) {
        self.wanted = wanted;
    }

    /// Links that shards have.
    pub(super) fn live(&self) -> u64 {
        self.shards.iter().map(|shard| u64::from(shard.live)).sum()
    }

    /// A shard that is to get another link now; the attempt counts as begun.
    pub(super) fn due(&mut self, now: Now) -> Option<usize> {
        let wanted = self.wanted;
        let index = self.shards.iter().position(|s| s.lacks(wanted) && s.next <= now)?;
        self.shards[index].connecting += 1;
        Some(index)
    }

    /// When to ask [`Links::due`] again.
    pub(super) fn poll_timeout(&self) -> Option<Now> {
        self.shards.iter().filter(|s| s.lacks(self.wanted)).map(|s| s.next).min()
    }

    /// An attempt for `shard` succeeded, and the shard has the link.
    pub(super) fn on_handed(&mut self, now: Now, shard: usize) {
        let Some(shard) = self.shards.get_mut(shard) else { return };
        shard.connecting = shard.connecting.saturating_sub(1);
        shard.live += 1;
        shard.since = now;
        shard.doubtful = false;
    }

    /// An attempt for `shard` failed.
    pub(super) fn on_failed(&mut self, now: Now, shard: usize) {
        let Some(shard) = self.shards.get_mut(shard) else { return };
        shard.connecting = shard.connecting.saturating_sub(1);
        shard.pause(now);
    }

    /// `shard` has one link less. A link that lasted is replaced at once, one that did not after a pause: a backend that
    /// takes every connection and drops it is not asked in a tight loop. Tells whether it lasted.
    pub(super) fn on_lost(&mut self, now: Now, shard: usize) -> bool {
        let Some(shard) = self.shards.get_mut(shard) else { return false };
        shard.live = shard.live.saturating_sub(1);
        let lasted = shard.since.add_ms(LASTING_MS) <= now;
        if lasted {
            shard.pause.reset();
            shard.next = now;
        } else {
            shard.pause(now);
        }
        lasted
    }

    /// Compares with `shard`'s own count, which a lost report makes the truth: believed when it is lower twice in a row.
    pub(super) fn compare(&mut self, shard: usize, has: u64) {
        let Some(shard) = self.shards.get_mut(shard) else { return };
        if has >= u64::from(shard.live) {
            shard.doubtful = false;
        } else if std::mem::replace(&mut shard.doubtful, true) {
            shard.live = u16::try_from(has).unwrap_or(u16::MAX);
            shard.doubtful = false;
        }
    }
}

impl OfShard {
    const fn lacks(&self, wanted: u16) -> bool {
        self.live + self.connecting < wanted
    }

    /// Several that fail at once pause once.
    fn pause(&mut self, now: Now) {
        if self.next <= now {
            self.next = now.add_ms(self.pause.next_ms());
        }
    }
}

/// A link that lived this long was a good one.
const LASTING_MS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now(1_000_000_000);

    fn links(shards: usize, wanted: u16) -> Links {
        Links::new(START, shards, wanted, (100, 400), 1)
    }

    #[test]
    fn every_shard_gets_its_links_and_no_more() {
        let mut links = links(2, 2);
        let mut due: Vec<usize> = std::iter::from_fn(|| links.due(START)).collect();
        due.sort_unstable();
        assert_eq!((due, links.poll_timeout()), (vec![0, 0, 1, 1], None));
        links.on_handed(START, 0);
        assert_eq!((links.live(), links.due(START)), (1, None));
        links.want(3);
        assert_eq!(
            (links.due(START), links.due(START), links.due(START)),
            (Some(0), Some(1), None)
        );
    }

    #[test]
    fn failures_pause_longer_and_longer_and_several_at_once_only_once() {
        let mut links = links(1, 2);
        assert_eq!((links.due(START), links.due(START)), (Some(0), Some(0)));
        links.on_failed(START, 0);
        let next = links.poll_timeout().unwrap();
        links.on_failed(START, 0);
        assert_eq!(links.poll_timeout(), Some(next));
        assert!(next >= START.add_ms(50) && next <= START.add_ms(100), "{next:?}");
        assert_eq!(links.due(START), None);
        assert_eq!(links.due(next), Some(0));
        links.on_failed(next, 0);
        let later = links.poll_timeout().unwrap();
        assert!(later >= next.add_ms(100) && later <= next.add_ms(200), "{later:?}");
    }

    #[test]
    fn a_lasting_link_is_replaced_at_once_and_a_short_one_is_not() {
        let mut links = links(1, 1);
        assert_eq!(links.due(START), Some(0));
        links.on_handed(START, 0);
        let soon = START.add_ms(9999);
        assert!(!links.on_lost(soon, 0));
        assert_eq!((links.live(), links.due(soon)), (0, None));
        let again = links.poll_timeout().unwrap();
        assert_eq!(links.due(again), Some(0));
        links.on_handed(again, 0);
        let late = again.add_ms(LASTING_MS);
        assert!(links.on_lost(late, 0));
        assert_eq!(links.due(late), Some(0));
    }

    #[test]
    fn a_lost_report_is_made_up_for() {
        let mut links = links(1, 1);
        assert_eq!(links.due(START), Some(0));
        links.on_handed(START, 0);
        // The shard may not have taken the link up yet.
        links.compare(0, 0);
        assert_eq!(links.live(), 1);
        links.compare(0, 1);
        links.compare(0, 0);
        assert_eq!(links.live(), 1);
        links.compare(0, 0);
        assert_eq!((links.live(), links.due(START)), (0, Some(0)));
    }
}
