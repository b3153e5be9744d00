//! What happens when the memory for bytes that wait is nearly used up: those who hold most of it end.

use net_io::Driver;

use super::{Floor, Upstreams};

impl Upstreams {
    /// When nine tenths of the pool are used: ends the sessions that hold most of it, until eight tenths are. Fewer than one
    /// tenth being free also stops `tcp` reads, so without this some sessions could hold up all others for ever. Asked after
    /// each read, because those that are under way are not bounded by it.
    pub(super) fn shed<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>) {
        if self.pool.bytes_used() <= self.pool.bytes_max() / 10 * 9 {
            return;
        }
        let goal = self.pool.bytes_max() / 10 * 8;
        let bytes_min = self.fewest_bytes_to_shed(goal);
        self.links.shed(bytes_min, goal, &mut self.pool, &mut self.desk, floor);
        for slot in self.tcp.slots() {
            if self.pool.bytes_used() <= goal {
                return;
            }
            if self.tcp.shed(slot, bytes_min, &mut self.pool, &mut self.desk, floor) {
                self.tend(driver, floor, slot);
            }
        }
    }

    /// Ending everybody who keeps so many bytes frees enough: the largest power of two of which that is so.
    fn fewest_bytes_to_shed(&self, goal: usize) -> usize {
        let mut classes = [0; 32];
        self.links.count_backlogs(&mut classes);
        self.tcp.count_backlogs(&mut classes);
        let mut excess = self.pool.bytes_used().saturating_sub(goal);
        for (class, count) in classes.into_iter().enumerate().rev() {
            let bytes_min = 1 << class;
            excess = excess.saturating_sub(count as usize * bytes_min);
            if excess == 0 {
                return bytes_min;
            }
        }
        1
    }
}
