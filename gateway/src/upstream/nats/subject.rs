//! Subjects, both ways.

use std::fmt::Write;

use crate::session::SessionId;

/// A session as the whole gateway knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// Its shard.
    pub shard: u16,
    /// Its place there.
    pub id: SessionId,
}

/// What a backend's message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    /// One session.
    Session(Name),
    /// Everybody in a room, at this gateway or at every one.
    Room {
        /// Its name.
        room: &'a str,
        /// Every gateway is told.
        everywhere: bool,
    },
    /// A session of this gateway from before it was started again.
    Former,
    /// The gateway itself, to learn how far the server has come.
    Mark,
}

/// One gateway's subjects, as long as it runs.
#[derive(Clone, Debug)]
pub struct Subjects {
    prefix: String,
    run: u32,
}

impl Subjects {
    /// Of gateway `id`, which [`is_id`] allows. `run` is drawn at each start, so that what is meant for a session of an
    /// earlier one does not reach whoever has its place now.
    #[must_use]
    pub fn new(id: &str, run: u32) -> Self {
        Self { prefix: format!("kcp.{id}."), run }
    }

    /// What the gateway subscribes to for its sessions and rooms.
    #[must_use]
    pub fn wildcard(&self) -> String {
        format!("{}*.out", self.prefix)
    }

    /// `kcp.G.S.` with `verb` behind it.
    #[must_use]
    pub fn of(&self, name: Name, verb: &str) -> String {
        let Name { shard, id } = name;
        let mut subject = String::with_capacity(self.prefix.len() + 48);
        subject.push_str(&self.prefix);
        // Writing to a string cannot fail.
        let _ =
            write!(subject, "{:x}-{shard:x}-{:x}-{:x}.{verb}", self.run, id.index, id.generation);
        subject
    }

    /// What the gateway sends to itself.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}{MARK}.out", self.prefix)
    }

    /// What stands between the gateway and `out` in a subject that the gateway subscribes to.
    #[must_use]
    pub fn address<'a>(&self, subject: &'a str) -> Option<Address<'a>> {
        let subject = subject.strip_suffix(".out")?;
        let ours = subject.strip_prefix(&self.prefix);
        let token = ours.or_else(|| subject.strip_prefix(EVERYWHERE))?;
        if let Some(room) = token.strip_prefix('@') {
            return is_id(room).then_some(Address::Room { room, everywhere: ours.is_none() });
        }
        if ours? == MARK {
            return Some(Address::Mark);
        }
        let (run, name) = parse(token)?;
        Some(if run == self.run { Address::Session(name) } else { Address::Former })
    }
}

/// The session that `token` names, and the run that it is of, if it is written as [`Subjects::of`] does.
fn parse(token: &str) -> Option<(u32, Name)> {
    let mut parts = token.split('-');
    let mut number = || {
        let part = parts.next()?;
        let plain = part == "0" || !part.starts_with(['0', '+']);
        u32::from_str_radix(part, 16).ok().filter(|_| plain)
    };
    let (run, shard, index, generation) = (number()?, number()?, number()?, number()?);
    let shard = u16::try_from(shard).ok()?;
    let lower = !token.bytes().any(|b| b.is_ascii_uppercase());
    let whole = lower && parts.next().is_none();
    whole.then_some((run, Name { shard, id: SessionId { index, generation } }))
}

/// Whether `id` may name a gateway or a room: 1 to 64 letters, digits, `_` and `-`.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Every gateway's wildcard for rooms.
pub const ALL: &str = "kcp.all.*.out";
const EVERYWHERE: &str = "kcp.all.";
/// The header that makes a request of a message.
pub const OP: &str = "Kcp-Op";
/// No session and no room is named so.
const MARK: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    fn name(shard: u16, index: u32, generation: u32) -> Name {
        Name { shard, id: SessionId { index, generation } }
    }

    #[test]
    fn what_is_written_is_read() {
        for run in [0, u32::MAX] {
            let ours = Subjects::new("gw-1", run);
            for name in [name(0, 0, 0), name(1, 0xab, 7), name(u16::MAX, u32::MAX, u32::MAX)] {
                let subject = ours.of(name, "out");
                assert_eq!(ours.address(&subject), Some(Address::Session(name)), "{subject}");
            }
        }
        let ours = Subjects::new("gw-1", 0x1f);
        assert_eq!(ours.of(name(1, 0xab, 7), "in"), "kcp.gw-1.1f-1-ab-7.in");
        assert_eq!(ours.address(&ours.mark()), Some(Address::Mark));
        let lobby = |everywhere| Some(Address::Room { room: "lobby_1", everywhere });
        assert_eq!(ours.address("kcp.all.@lobby_1.out"), lobby(true));
        assert_eq!(ours.address("kcp.gw-1.@lobby_1.out"), lobby(false));
    }

    #[test]
    fn a_session_of_an_earlier_run_is_nobody() {
        let (earlier, now) = (Subjects::new("g", 1), Subjects::new("g", 2));
        assert_eq!(now.address(&earlier.of(name(0, 0, 0), "out")), Some(Address::Former));
    }

    #[test]
    fn one_session_has_one_name() {
        let ours = Subjects::new("g", 9);
        for token in [
            "",
            "9",
            "9-1-2",
            "9-1-2-3-4",
            "09-1-2-3",
            "9-01-2-3",
            "9-1-+2-3",
            "9-1-2-G",
            "9-10000-0-0",
            "9-A-0-0",
            "9-1--3",
            "@",
            "@a.b",
        ] {
            assert_eq!(ours.address(&format!("kcp.g.{token}.out")), None, "{token}");
        }
        for subject in ["kcp.g.9-1-2-3.in", "kcp.all.9-1-2-3.out", "kcp.all.-.out", "kcp.h.-.out"] {
            assert_eq!(ours.address(subject), None, "{subject}");
        }
    }

    #[test]
    fn ids_are_one_plain_token() {
        assert!(is_id("gw-1_B") && is_id(&"x".repeat(64)));
        for id in ["", "a.b", "a*", ">", "a b", &"x".repeat(65)] {
            assert!(!is_id(id), "{id}");
        }
    }
}
