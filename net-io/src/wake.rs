//! Wakes a driver from another thread.

/// Ends a driver's wait from any thread. Cheap to clone; wakes that come before the wait are not lost; many count as one.
#[derive(Clone, Debug)]
pub struct Waker {}

impl Waker {
    /// Ends the current or the next wait.
    pub fn wake(&self) {
        todo!()
    }
}
