//! Wakes a driver from another thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

/// Ends a driver's wait from any thread. Cheap to clone; wakes that come before the wait are not lost; many count as one.
///
/// What the waking thread did before [`wake`](Waker::wake) is visible to the driver's thread when the wait returns.
#[derive(Clone, Debug)]
pub struct Waker {
    /// Set by the first wake, cleared by the driver: a burst of wakes costs one system call.
    pending: Arc<AtomicBool>,
    /// The eventfd the driver waits for; none where the wait is simulated.
    event: Option<Arc<File>>,
}

impl Waker {
    /// A waker for a driver that looks at [`is_pending`](Waker::is_pending) instead of a descriptor.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated() -> Self {
        Self { pending: Arc::default(), event: None }
    }

    /// Ends the current or the next wait.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel)
            && let Some(event) = &self.event
        {
            // Adds one to a 64-bit counter that the driver takes back to zero: it cannot block, and cannot fail while we hold
            // the descriptor.
            let written = (&**event).write(&1u64.to_ne_bytes());
            debug_assert!(matches!(written, Ok(8)), "eventfd write: {written:?}");
        }
    }

    /// Whether there was a wake since the last one was taken.
    #[cfg(feature = "sim")]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes a wake, if there was one since the last call. Must come before the caller looks at what it was woken for.
    pub(crate) fn take(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }
}

/// The driver's end of its wakers: a descriptor that becomes readable.
#[derive(Debug)]
pub(crate) struct WakeEvent {
    waker: Waker,
    event: Arc<File>,
}

impl WakeEvent {
    pub(crate) fn new() -> io::Result<Self> {
        let event = Arc::new(File::from(sys::eventfd()?));
        let waker = Waker { pending: Arc::default(), event: Some(Arc::clone(&event)) };
        Ok(Self { waker, event })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Makes the descriptor unreadable again. Blocks until it is readable, and must come before [`take`](WakeEvent::take): a
    /// wake between the two then counts with this one, while one between a take and a drain would be lost.
    pub(crate) fn drain(&self) -> io::Result<()> {
        (&*self.event).read_exact(&mut [0; 8])
    }

    /// See [`Waker::take`].
    pub(crate) fn take(&self) -> bool {
        self.waker.take()
    }
}

impl AsFd for WakeEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
