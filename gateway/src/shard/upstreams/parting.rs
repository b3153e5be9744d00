//! The end of a turn: backends hear of the sessions that ended, and links' bytes go to the kernel.

use net_io::Driver;

use super::super::backend_stats::{BackendStat, Parting};
use super::super::pace::Pace;
use super::{Floor, Upstreams, budget};
use crate::session::Tie;

impl Upstreams {
    /// Tells backends of the sessions that ended, and gives the kernel what links have for it. Tells whether the budgets were
    /// enough.
    pub(in crate::shard) fn part<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        pace.step();
        let mut in_time = self.tell_backends(driver, floor, pace);
        pace.step();
        in_time &= self.write_links(driver, floor, pace);
        in_time & self.links.bury(driver, &mut self.pool, &mut self.desk, floor)
    }

    /// Tells backends of the sessions that ended: as they ended, but for the order in one turn.
    fn tell_backends<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        if self.parting.is_empty() {
            std::mem::swap(&mut self.parting, &mut floor.sessions.parting);
        }
        for _ in 0..budget::PARTING {
            let Some((id, tie, _)) = self.parting.pop() else { return true };
            let (now, pool) = (floor.now, &mut self.pool);
            let closed = match tie {
                Tie::Tcp(slot) => self.tcp.close(slot, id, now, pool),
                Tie::Yamux { link, slot } => self.links.close((link, slot), id, now, pool),
                Tie::Free | Tie::Waiting | Tie::Nats | Tie::Leaving { .. } => None,
            };
            let Some((backend, lost)) = closed else { continue };
            self.desk.left(backend, Parting::Client);
            self.desk.stats.add(backend, BackendStat::BytesLost, lost as u64);
            if let Tie::Tcp(slot) = tie {
                self.pieces += budget::CONNECTION as u64;
                self.tend(driver, floor, slot);
            }
            if pace.is_over(budget::CONNECTION, budget::PART_US, driver) {
                break;
            }
        }
        self.parting.is_empty()
    }

    /// Gives the kernel what links have for it, and sessions the room that this makes.
    fn write_links<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        if !self.links.take_dirty() {
            return true;
        }
        let mut left = budget::ROOM;
        for link in self.links.numbers_in_turn() {
            self.links.write(driver, link, floor.now, &mut self.pool);
            while left > 0
                && let Some(session) = self.links.poll_room(link)
            {
                self.has_room(driver, floor, session);
                left = if pace.is_over(1, budget::PART_US, driver) { 0 } else { left - 1 };
                if left == 0 {
                    self.links.begin_after(link);
                }
            }
            self.links.write(driver, link, floor.now, &mut self.pool);
        }
        if left == 0 {
            self.links.mark_dirty();
        }
        left > 0
    }
}
