//! How far the server has come with what was published.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;

/// What is given to the client to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A client's message.
    Message,
    /// News of a session.
    News,
    /// A message to ourselves, see [`Window`].
    Mark,
}

/// How far the server has come with what was published: a message to ourselves, a mark, comes back behind all that was sent before
/// it. Then the server has taken that, and may not yet have written it to a backend: it writes to its clients in no order, after each
/// read. So a mark confirms what stood before the one that came back ahead of it: by then the server has read, and written, again.
#[derive(Default)]
pub(super) struct Window {
    pub(super) connected: Cell<bool>,
    /// Counts connections, so that a mark of an earlier one is told apart.
    epoch: Cell<u64>,
    published: Cell<Count>,
    confirmed: Cell<Count>,
    /// What was published when the last mark was sent, which the next one confirms.
    marked_at: Cell<Count>,
    /// A mark is on its way.
    marked: Cell<bool>,
    /// All that was given to the client, marks included, counted as the client counts what it has written.
    given: Cell<u64>,
    /// The last of it, so much as the client may not have written yet.
    recent: RefCell<VecDeque<Given>>,
}

/// What was published, or confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Everything but marks.
    all: u64,
    /// Of that, messages.
    messages: u64,
}

impl Window {
    /// For a connection that is not there yet; `run` tells this process's marks from those of another under the same id.
    pub(super) fn new(run: u32) -> Self {
        Self { epoch: Cell::new(u64::from(run) << 32), ..Self::default() }
    }

    /// More may be published.
    pub(super) fn is_open(&self) -> bool {
        self.connected.get()
            && self.published.get().all - self.confirmed.get().all < UNCONFIRMED_MAX
    }

    /// Something is about to be given to the client.
    pub(super) fn on_publish(&self, given: Given) {
        self.published.set(self.published.get().with(given));
        self.given.set(self.given.get() + 1);
        let mut recent = self.recent.borrow_mut();
        recent.push_back(given);
        while recent.len() > RECENT_MAX {
            recent.pop_front();
        }
    }

    /// The client did not take what was given last, and it is counted otherwise.
    pub(super) fn on_refused(&self) {
        let Some(given) = self.recent.borrow_mut().pop_back() else { return };
        self.published.set(self.published.get().without(given));
        self.given.set(self.given.get() - 1);
    }

    /// It is time to ask how far the server has come.
    pub(super) fn wants_mark(&self) -> bool {
        self.connected.get()
            && !self.marked.get()
            && self.published.get().all > self.confirmed.get().all
    }

    /// The connection is there, or there again.
    pub(super) fn on_connected(&self) {
        self.connected.set(true);
        self.marked.set(false);
    }

    /// Another client takes what is given from now on; it has written `written` already.
    pub(super) fn on_new_client(&self, written: u64) {
        self.given.set(written);
        self.recent.borrow_mut().clear();
    }

    /// The connection is lost; how many messages may be lost with it: those that the client had written of all that is not
    /// confirmed. What it has yet to write goes with the next connection.
    pub(super) fn on_disconnected(&self, written: u64) -> u64 {
        self.connected.set(false);
        self.epoch.set(self.epoch.get() + 1);
        let recent = self.recent.borrow();
        let left = self.given.get().saturating_sub(written);
        let left = usize::try_from(left).unwrap_or(usize::MAX).min(recent.len());
        let left = recent.iter().skip(recent.len() - left);
        let arrives = left.fold(self.published.get(), |count, given| count.without(*given));
        let lost = arrives.messages.saturating_sub(self.confirmed.get().messages);
        self.confirmed.set(arrives);
        self.marked_at.set(arrives);
        lost
    }

    /// What was received is lost, perhaps the mark among it: another one must be sent.
    pub(super) fn on_overrun(&self) {
        self.marked.set(false);
        self.marked_at.set(self.confirmed.get()); // nobody has seen that it came back
    }

    /// The payload of a mark, which is to be published at once.
    pub(super) fn mark(&self) -> Bytes {
        self.marked.set(true);
        self.on_publish(Given::Mark);
        let Count { all, messages } = self.marked_at.replace(self.published.get());
        [self.epoch.get(), all, messages].map(u64::to_be_bytes).concat().into()
    }

    /// A mark came back.
    pub(super) fn on_mark(&self, payload: &[u8]) {
        let (numbers, rest) = payload.as_chunks::<8>();
        let ([epoch, all, messages], []) = (numbers, rest) else { return };
        let [epoch, all, messages] = [epoch, all, messages].map(|bytes| u64::from_be_bytes(*bytes));
        let known = self.confirmed.get().all..=self.published.get().all;
        if epoch == self.epoch.get() && known.contains(&all) {
            self.confirmed.set(Count { all, messages });
            self.marked.set(false);
        }
    }
}

impl Count {
    const fn with(self, given: Given) -> Self {
        let Self { all, messages } = self;
        match given {
            Given::Message => Self { all: all + 1, messages: messages + 1 },
            Given::News => Self { all: all + 1, messages },
            Given::Mark => self,
        }
    }

    const fn without(self, given: Given) -> Self {
        let Self { all, messages } = self;
        match given {
            Given::Message => Self { all: all - 1, messages: messages - 1 },
            Given::News => Self { all: all - 1, messages },
            Given::Mark => self,
        }
    }
}

/// Messages and news published and not confirmed: as many may be lost unseen with a connection, and no more.
const UNCONFIRMED_MAX: u64 = 8192;

/// What the client may not have written yet: its queue, and one that waits for room there.
const RECENT_MAX: usize = super::engine::COMMANDS_MAX + 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(window: &Window, count: u64) {
        (0..count).for_each(|_| window.on_publish(Given::Message));
    }

    #[test]
    fn a_mark_confirms_what_stood_before_the_one_ahead_of_it() {
        let window = Window::new(7);
        assert!(!window.is_open() && !window.wants_mark());
        window.on_connected();
        publish(&window, UNCONFIRMED_MAX - 1);
        assert!(window.is_open() && window.wants_mark());
        let mark = window.mark();
        assert!(!window.wants_mark());
        window.on_publish(Given::Message);
        assert!(!window.is_open());
        window.on_mark(&mark);
        assert!(!window.is_open() && window.wants_mark(), "taken, and handed on to nobody yet");
        let mark = window.mark();
        window.on_mark(&mark);
        assert!(window.is_open() && window.wants_mark(), "all but the last");
        window.mark();
        window.on_overrun();
        assert!(window.wants_mark(), "the mark may have been lost");
        let next = window.mark();
        window.on_mark(&next);
        assert!(window.wants_mark(), "the one ahead of it may not have come so far");
        assert_eq!(window.on_disconnected(u64::MAX), 1);
        assert!(!window.is_open());
        window.on_connected();
        window.on_mark(&mark);
        assert_eq!(window.confirmed.get().all, UNCONFIRMED_MAX, "a mark of another connection");
        for odd in [&[][..], &[0; 8], &[0; 23], &[0; 32]] {
            window.on_mark(odd);
        }
        assert_eq!(window.confirmed.get().all, UNCONFIRMED_MAX);
    }

    #[test]
    fn what_is_refused_is_not_waited_for() {
        let window = Window::new(7);
        window.on_connected();
        window.on_publish(Given::Message);
        let mark = window.mark();
        for _ in 0..3 {
            window.on_publish(Given::Message);
            window.on_refused();
        }
        window.on_mark(&mark);
        let mark = window.mark();
        window.on_mark(&mark);
        assert!(window.is_open() && !window.wants_mark(), "all that was sent is confirmed");
        window.on_publish(Given::Message);
        assert_eq!(window.on_disconnected(1), 0, "its turn has not come");
        window.on_refused();
        assert_eq!(
            (window.published.get(), window.on_disconnected(2)),
            (window.confirmed.get(), 0)
        );
    }

    #[test]
    fn what_the_client_has_yet_to_write_is_not_lost_and_news_is_no_message() {
        let window = Window::new(7);
        window.on_new_client(1); // the proof
        window.on_connected();
        window.on_publish(Given::News);
        publish(&window, 10);
        window.mark();
        publish(&window, 5);
        assert_eq!(window.on_disconnected(1 + 1 + 10 + 1 + 2), 12);
        window.on_connected();
        assert!(window.is_open() && window.wants_mark(), "three are on their way still");
        assert_eq!(window.on_disconnected(u64::MAX), 3);
        window.on_new_client(1);
        window.on_connected();
        assert!(!window.wants_mark());
        publish(&window, RECENT_MAX as u64 + 10);
        assert_eq!(window.recent.borrow().len(), RECENT_MAX);
        assert_eq!(window.on_disconnected(1 + 10), 10);
    }
}
