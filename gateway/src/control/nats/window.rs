//! How far the server has come with what was published.

use std::cell::Cell;

use bytes::Bytes;

/// How far the server has confirmed what was published: a message to ourselves comes back behind all that was sent before it.
#[derive(Default)]
pub(super) struct Window {
    pub(super) connected: Cell<bool>,
    /// Counts connections, so that a mark of an earlier one is told apart.
    epoch: Cell<u64>,
    published: Cell<u64>,
    confirmed: Cell<u64>,
    /// A mark is on its way.
    marked: Cell<bool>,
}

impl Window {
    /// For a connection that is not there yet; `run` tells this process's marks from those of another under the same id.
    pub(super) fn new(run: u32) -> Self {
        Self { epoch: Cell::new(u64::from(run) << 32), ..Self::default() }
    }

    /// More may be published.
    pub(super) fn is_open(&self) -> bool {
        self.connected.get() && self.published.get() - self.confirmed.get() < UNCONFIRMED_MAX
    }

    /// A message is about to be published.
    pub(super) fn on_publish(&self) {
        self.published.set(self.published.get() + 1);
    }

    /// It was not sent, and is counted otherwise; unless a connection that ended meanwhile has counted it.
    pub(super) fn on_refused(&self) {
        self.published.set((self.published.get() - 1).max(self.confirmed.get()));
    }

    /// It is time to ask how far the server has come.
    pub(super) fn wants_mark(&self) -> bool {
        self.connected.get() && !self.marked.get() && self.published.get() > self.confirmed.get()
    }

    /// The connection is there, or there again.
    pub(super) fn on_connected(&self) {
        self.connected.set(true);
        self.marked.set(false);
    }

    /// The connection is lost; how many messages may be lost with it.
    pub(super) fn on_disconnected(&self) -> u64 {
        self.connected.set(false);
        self.epoch.set(self.epoch.get() + 1);
        let unconfirmed = self.published.get() - self.confirmed.get();
        self.confirmed.set(self.published.get());
        unconfirmed
    }

    /// What was received is lost, perhaps the mark among it: another one must be sent.
    pub(super) fn on_overrun(&self) {
        self.marked.set(false);
    }

    /// The payload of a mark, which is to be published at once.
    pub(super) fn mark(&self) -> Bytes {
        self.marked.set(true);
        [self.epoch.get().to_be_bytes(), self.published.get().to_be_bytes()].concat().into()
    }

    /// A mark came back.
    pub(super) fn on_mark(&self, payload: &[u8]) {
        let Some((epoch, published)) = payload.split_first_chunk::<8>() else { return };
        let Ok(published) = published.try_into().map(u64::from_be_bytes) else { return };
        let known = self.confirmed.get()..=self.published.get();
        if u64::from_be_bytes(*epoch) == self.epoch.get() && known.contains(&published) {
            self.confirmed.set(published);
            self.marked.set(false);
        }
    }
}

/// Messages published and not confirmed: as many may be lost unseen with a connection, and no more.
const UNCONFIRMED_MAX: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_confirms_what_was_published_before_it() {
        let window = Window::new(7);
        assert!(!window.is_open() && !window.wants_mark());
        window.on_connected();
        window.published.set(UNCONFIRMED_MAX - 1);
        assert!(window.is_open() && window.wants_mark());
        let mark = window.mark();
        assert!(!window.wants_mark());
        window.published.set(UNCONFIRMED_MAX);
        assert!(!window.is_open());
        window.on_mark(&mark);
        assert!(window.is_open() && window.wants_mark());
        window.mark();
        window.on_overrun();
        assert!(window.wants_mark(), "the mark may have been lost");
        assert_eq!(window.on_disconnected(), 1);
        assert!(!window.is_open());
        window.on_connected();
        window.on_mark(&mark);
        assert_eq!(window.confirmed.get(), UNCONFIRMED_MAX, "a mark of another connection");
    }

    #[test]
    fn what_is_refused_is_not_waited_for() {
        let window = Window::new(7);
        window.on_connected();
        window.on_publish();
        let mark = window.mark();
        for _ in 0..3 {
            window.on_publish();
            window.on_refused();
        }
        window.on_mark(&mark);
        assert!(window.is_open() && !window.wants_mark(), "all that was sent is confirmed");
        window.on_publish();
        assert_eq!(window.on_disconnected(), 1);
        window.on_refused();
        assert_eq!(window.on_disconnected(), 0);
    }
}
