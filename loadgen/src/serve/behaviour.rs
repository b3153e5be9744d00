//! What a backend does with messages, and when it stops behaving.

use std::time::Duration;

use crate::seed::mix64;

/// What the backend does with a session's messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Each comes back.
    Echo,
    /// Each comes back this many times over, in one message: the backend says much more than it hears.
    Swell(u32),
    /// Each goes to everybody in the session's room, its sender included.
    Rooms(Rooms),
    /// Each comes back, but the backend cannot keep up.
    Slow(Slow),
    /// Each comes back, until the backend cuts the session off.
    Crash(Crash),
    /// Each comes back, until the backend sends what it must not.
    Garbage(Garbage),
}

/// Rooms fill in the order in which sessions arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rooms {
    /// Sessions in a room.
    pub size: u32,
    /// Messages that may wait for one member; further ones are dropped for it, and counted.
    pub queue: usize,
}

/// A session's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// What is slow.
    pub side: Side,
    /// Bytes per second of each session, at least 1.
    pub bytes_per_s: u32,
}

/// What is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The backend reads slowly.
    Reads,
    /// The backend writes slowly, and does not read meanwhile.
    Writes,
}

/// When and how sessions are cut off: whichever of the three comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crash {
    /// In place of an answer to a session's message of this number, counted from 1.
    pub after_messages: Option<u32>,
    /// This long after a session began.
    pub after_time: Option<Duration>,
    /// With each message, so likely, in parts per million.
    pub chance_ppm: u32,
    /// What is cut.
    pub cut: Cut,
    /// How.
    pub ending: Ending,
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The session that met the condition.
    Session,
    /// The connection it came on, with all sessions that share it.
    Link,
}

/// How something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Fin,
    /// At once, with an RST.
    Reset,
}

/// What is sent in place of an answer to a session's message of number `after`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Which.
    pub misdeed: Misdeed,
    /// When.
    pub after: u32,
}

/// Something that a backend must not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// A length prefix with all bits set, and a little of the message.
    Oversize,
    /// The beginning of a message, and then nothing for ever.
    Stall,
    /// Random bytes, which are no messages.
    Noise,
    /// yamux: data on a stream that nobody opened.
    LinkUnknown,
    /// yamux: more data than the window allows.
    LinkWindow,
    /// yamux: bytes that begin no frame.
    LinkNoise,
    /// yamux: the beginning of a frame, and then nothing for ever on the whole connection.
    LinkStall,
}

impl Misdeed {
    /// It concerns a connection that speaks yamux, not one session.
    #[must_use]
    pub const fn is_of_link(self) -> bool {
        matches!(self, Self::LinkUnknown | Self::LinkWindow | Self::LinkNoise | Self::LinkStall)
    }
}

/// What to do in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Crash(Cut, Ending),
    Misbehave(Misdeed),
}

impl Behaviour {
    /// What session number `session` gets in place of an answer to its message number `message`, both counted from 1.
    pub(super) fn act(&self, seed: u64, session: u64, message: u32) -> Option<Act> {
        match *self {
            Self::Echo | Self::Swell(_) | Self::Rooms(_) | Self::Slow(_) => None,
            Self::Crash(crash) => {
                let dice = mix64(seed ^ mix64(session ^ mix64(u64::from(message))));
                let due = crash.after_messages.is_some_and(|after| message >= after)
                    || dice % 1_000_000 < u64::from(crash.chance_ppm);
                due.then_some(Act::Crash(crash.cut, crash.ending))
            }
            Self::Garbage(garbage) => {
                (message == garbage.after).then_some(Act::Misbehave(garbage.misdeed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(after_messages: Option<u32>, chance_ppm: u32) -> Behaviour {
        let (cut, ending) = (Cut::Session, Ending::Fin);
        Behaviour::Crash(Crash { after_messages, after_time: None, chance_ppm, cut, ending })
    }

    #[test]
    fn the_seed_alone_decides_when_chance_does() {
        let ends = |seed, session| {
            (1..10_000).find(|&n| crash(None, 10_000).act(seed, session, n).is_some())
        };
        assert_eq!(ends(7, 1), ends(7, 1));
        assert_ne!((ends(7, 1), ends(7, 2)), (ends(8, 1), ends(8, 2)));
        let all: u32 = (1..=1000).map(|session| ends(7, session).unwrap()).sum();
        assert!((80_000..120_000).contains(&all), "one in a hundred on average: {all}");
    }

    #[test]
    fn a_number_decides_exactly() {
        let five = crash(Some(5), 0);
        assert_eq!(five.act(1, 1, 4), None);
        assert_eq!(five.act(1, 1, 5), Some(Act::Crash(Cut::Session, Ending::Fin)));
        let garbage = Behaviour::Garbage(Garbage { misdeed: Misdeed::Noise, after: 2 });
        let acts = [1, 2, 3].map(|n| garbage.act(1, 1, n));
        assert_eq!(acts, [None, Some(Act::Misbehave(Misdeed::Noise)), None]);
    }
}
