//! What all shards together counted for one backend.

use crate::shard::backend_stats::{BackendNumbers, BackendStat, ConnectFailure, LinkEnd, Parting};

/// Sums over the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    shards: Vec<BackendNumbers>,
    /// What was counted under the same id for one that is gone.
    before: Vec<BackendNumbers>,
}

impl Numbers {
    /// The numbers of each shard.
    pub(crate) fn new(shards: impl Iterator<Item = BackendNumbers>) -> Self {
        Self { shards: shards.collect(), before: Vec::new() }
    }

    /// The same from the moment of `before` on; gauges are as they are.
    #[must_use]
    pub(super) fn since(self, before: &Self) -> Self {
        Self { before: before.shards.clone(), ..self }
    }

    /// A counter or gauge.
    pub(crate) fn get(&self, stat: BackendStat) -> u64 {
        if is_gauge(stat) {
            self.shards.iter().map(|shard| shard.get(stat)).sum()
        } else {
            self.counted(|shard| shard.get(stat))
        }
    }

    /// Connections that could not be made for one reason.
    pub(crate) fn failures(&self, reason: ConnectFailure) -> u64 {
        self.counted(|shard| shard.failures(reason))
    }

    /// Sessions that left it in one way.
    pub(crate) fn partings(&self, how: Parting) -> u64 {
        self.counted(|shard| shard.partings(how))
    }

    /// Links that ended for one reason.
    pub(crate) fn links(&self, reason: LinkEnd) -> u64 {
        self.counted(|shard| shard.links(reason))
    }

    fn counted(&self, of: impl Fn(&BackendNumbers) -> u64) -> u64 {
        let sum = |numbers: &[BackendNumbers]| numbers.iter().map(&of).sum::<u64>();
        sum(&self.shards).saturating_sub(sum(&self.before))
    }
}

/// Whether a number goes down as well as up.
const fn is_gauge(stat: BackendStat) -> bool {
    matches!(
        stat,
        BackendStat::Sessions
            | BackendStat::Connecting
            | BackendStat::Closing
            | BackendStat::Links
            | BackendStat::Streams
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::backend_stats::{BackendStats, SharedBackendStats};

    #[test]
    fn counters_begin_where_another_one_ended_and_gauges_do_not() {
        let id = crate::upstream::backend::BackendId(3);
        let (mut stats, shared) = (BackendStats::default(), SharedBackendStats::default());
        stats.add(id, BackendStat::Connects, 5);
        stats.parting(id, Parting::Fin);
        shared.publish(&mut stats);
        let before = Numbers::new([shared.read(id), shared.read(id)].into_iter());
        stats.add(id, BackendStat::Connects, 2);
        stats.add(id, BackendStat::Sessions, 4);
        stats.parting(id, Parting::Reset);
        shared.publish(&mut stats);
        let now = Numbers::new([shared.read(id), shared.read(id)].into_iter()).since(&before);
        assert_eq!((now.get(BackendStat::Connects), now.get(BackendStat::Sessions)), (4, 8));
        assert_eq!((now.partings(Parting::Fin), now.partings(Parting::Reset)), (0, 2));
    }
}
