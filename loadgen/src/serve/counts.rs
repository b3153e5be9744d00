//! What happened, counted by all threads.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters that all sessions share. Each message touches them once; they are no bottleneck at a simulator's rates.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: AtomicU64,)+
            first_proxy_error: OnceLock<String>,
        }

        /// What happened since the start.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Totals {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// What was wrong with the first PROXY header that was refused.
            pub first_proxy_error: Option<String>,
        }

        impl Counts {
            pub(super) fn totals(&self) -> Totals {
                Totals {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    first_proxy_error: self.first_proxy_error.get().cloned(),
                }
            }
        }
    };
}

counts! {
    /// Connections accepted.
    connections,
    /// Connections that are open.
    connections_open,
    /// Connections the kernel would not hand over, for want of file descriptors.
    accept_errors,
    /// Sessions that began: connections of `tcp`, streams of `yamux`.
    sessions,
    /// Sessions that live.
    sessions_open,
    /// Most sessions that lived at once.
    sessions_peak,
    /// Sessions that ended before they said anything, of those that must begin with a PROXY header: a gateway's checks.
    checks,
    /// PROXY headers that were as they must be.
    proxy_headers,
    /// Sessions ended because theirs was not.
    proxy_errors,
    /// Messages taken; without framing, reads that brought something.
    messages_in,
    /// Messages sent.
    messages_out,
    /// Bytes of messages taken.
    bytes_in,
    /// Bytes of messages sent.
    bytes_out,
    /// Length prefixes of zero.
    empty_in,
    /// Sessions ended because they announced a message beyond `--message-max`.
    too_long,
    /// Messages not sent to a member of a room that was too slow.
    dropped,
    /// Sessions that the other side ended in order.
    ended,
    /// Of those, sessions that ended in the middle of a message.
    ended_mid_message,
    /// Sessions that the other side, or the loss of their connection, cut off.
    reset,
    /// Sessions and links that were cut off as asked.
    crashes,
    /// Times that something was sent that must not be, as asked.
    misdeeds,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// A session's number, from 1.
    pub(super) fn on_session(&self) -> u64 {
        let open = self.sessions_open.fetch_add(1, Ordering::Relaxed) + 1;
        self.sessions_peak.fetch_max(open, Ordering::Relaxed);
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn on_proxy_error(&self, error: &impl ToString) {
        Self::add(&self.proxy_errors, 1);
        self.first_proxy_error.get_or_init(|| error.to_string());
    }
}

impl Totals {
    /// Writes the totals for people.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_table(&self, out: &mut impl io::Write) -> io::Result<()> {
        let Self { connections, connections_open, accept_errors, .. } = self;
        writeln!(
            out,
            "connections {connections} accepted, {connections_open} open, {accept_errors} refused for want of file descriptors"
        )?;
        let Self { sessions, sessions_open, sessions_peak, ended, reset, .. } = self;
        writeln!(
            out,
            "sessions    {sessions} began, {sessions_open} open, {sessions_peak} at most at once, {ended} ended ({} in \
             mid-message), {reset} reset",
            self.ended_mid_message
        )?;
        writeln!(
            out,
            "messages    {} in ({} bytes, {} empty, {} too long), {} out ({} bytes), {} dropped for slow members",
            self.messages_in,
            self.bytes_in,
            self.empty_in,
            self.too_long,
            self.messages_out,
            self.bytes_out,
            self.dropped
        )?;
        let first = self.first_proxy_error.as_ref().map(|e| format!("; the first bad one: {e}"));
        writeln!(
            out,
            "PROXY       {} good, {} bad, {} checks that ended before one{}",
            self.proxy_headers,
            self.proxy_errors,
            self.checks,
            first.unwrap_or_default()
        )?;
        writeln!(out, "as asked    {} crashes, {} misdeeds", self.crashes, self.misdeeds)
    }
}
