//! One session: small, because there may be a million of them, and without settings, because all share theirs.

use kcp_core::{Conv, Kcp, Wheel};
use net_io::Now;

use crate::agenda::Place;
use crate::ledger::{Ledger, List, Times};
use crate::meter::Meter;
use crate::payload::{Codec, Stamp};
use crate::seed::low32;
use crate::sequence::{Arrival, Seen};

/// One client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) kcp: Kcp,
    pub(crate) flow: Flow,
}

impl Session {
    pub(crate) fn new(conv: Conv) -> Self {
        Self { kcp: Kcp::new(conv), flow: Flow::default() }
    }
}

/// What a session sent, and which echoes came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    sent: u32,
    seen: Seen,
    times: List,
    pub(crate) state: State,
    /// Among the sessions to flush at the end of the turn.
    pub(crate) place: Place,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// Its first message is not acknowledged yet.
    #[default]
    Opening,
    /// It may send.
    Ready,
    /// The protocol gave it up.
    Dead,
    /// A storm made it vanish: it neither hears nor speaks.
    Gone,
}

/// What the sessions of a worker share when they send and check messages.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) codec: &'a Codec,
    pub(crate) meter: &'a mut Meter,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) now: Now,
    /// Whether the run's messages carry a header.
    pub(crate) header: bool,
    /// Whether the session at hand is a bystander.
    pub(crate) bystander: bool,
    /// Whether others' messages come as well.
    pub(crate) rooms: bool,
}

impl Desk<'_> {
    fn on_echo(&mut self, intended: Now, lag_us: u32) {
        self.meter.on_echo(self.now, intended, lag_us);
        if self.bystander {
            self.meter.on_bystanders_echo(self.now, intended);
        }
    }
}

impl Flow {
    /// Messages on the way: sent, and no echo of them or of a later one has come.
    pub(crate) const fn on_the_way(&self) -> u32 {
        self.sent.wrapping_sub(self.seen.next())
    }

    /// Some message of it has not come back; of gaps, those among the last 64.
    pub(crate) const fn lacks_any(&self) -> bool {
        self.on_the_way() > 0 || !self.seen.is_whole()
    }

    /// The first echo has come.
    pub(crate) const fn any_echo(&self) -> bool {
        self.seen.next() != 0
    }

    /// The stamp of the next message.
    pub(crate) fn stamp(&self, session: u32, intended: Now, now: Now) -> Stamp {
        let lag = now.0.saturating_sub(intended.0).min(u64::from(u32::MAX));
        Stamp { session, sequence: self.sent, intended, lag_us: low32(lag) }
    }

    /// The message with `stamp` was taken by the protocol.
    pub(crate) fn on_sent(&mut self, stamp: &Stamp, desk: &mut Desk<'_>) {
        self.sent = self.sent.wrapping_add(1);
        desk.meter.on_sent(desk.now, stamp.intended);
        if !desk.header {
            let times = Times { intended: stamp.intended, lag_us: stamp.lag_us };
            desk.ledger.push(&mut self.times, times);
        }
    }

    /// A message came back to session number `session`; `len` is the size that small messages have.
    pub(crate) fn on_echo(
        &mut self,
        message: &[u8],
        session: u32,
        len: usize,
        desk: &mut Desk<'_>,
    ) {
        if desk.header {
            self.on_stamped(message, session, desk);
        } else {
            self.on_small(message, session, len, desk);
        }
    }

    fn on_stamped(&mut self, message: &[u8], session: u32, desk: &mut Desk<'_>) {
        let counts = &mut desk.meter.counts;
        let ours = |stamp: &Stamp| {
            let ahead = stamp.sequence.wrapping_sub(self.sent).cast_signed();
            stamp.session == session && ahead < 0
        };
        let read = desk.codec.read(message).ok();
        if desk.rooms && read.is_some_and(|stamp| stamp.session != session) {
            counts.heard += 1;
            return;
        }
        let Some(stamp) = read.filter(ours) else {
            counts.corrupted += 1;
            return;
        };
        match self.seen.note(stamp.sequence) {
            Arrival::New => {}
            Arrival::Late => counts.reordered += 1,
            Arrival::Repeated => {
                counts.duplicated += 1;
                return;
            }
        }
        desk.on_echo(stamp.intended, stamp.lag_us);
    }

    fn on_small(&mut self, message: &[u8], session: u32, len: usize, desk: &mut Desk<'_>) {
        let counts = &mut desk.meter.counts;
        let sequence = self.seen.next();
        if sequence == self.sent {
            counts.duplicated += 1;
            return;
        }
        self.seen.note(sequence);
        let times = desk.ledger.pop(&mut self.times).unwrap_or_default();
        match desk.codec.check_small(message, len, session, sequence) {
            Ok(()) => desk.on_echo(times.intended, times.lag_us),
            Err(_) => counts.corrupted += 1,
        }
    }
}

/// Ten million sessions in one process: with its timer and its places on the two lists of those to flush, an idle one takes 148
/// bytes. Its payload and queues exist while a message is on the way.
const _: () = assert!(size_of::<Session>() + Wheel::TIMER_BYTES + 2 * size_of::<u32>() <= 148);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Counts;

    struct Rig {
        codec: Codec,
        meter: Meter,
        ledger: Ledger,
        flow: Flow,
        len: usize,
        rooms: bool,
    }

    impl Rig {
        fn new(len: usize) -> Self {
            let (meter, ledger) = (Meter::new(), Ledger::default());
            let flow = Flow::default();
            Self { codec: Codec::new(9, 64), meter, ledger, flow, len, rooms: false }
        }

        fn with<T>(&mut self, act: impl FnOnce(&mut Flow, &mut Desk<'_>) -> T) -> T {
            let Self { codec, meter, ledger, flow, len, rooms } = self;
            let header = Codec::has_header(*len);
            let (now, bystander) = (Now(100), false);
            let rooms = *rooms;
            act(flow, &mut Desk { codec, meter, ledger, now, header, bystander, rooms })
        }

        fn send(&mut self) -> Vec<u8> {
            let stamp = self.flow.stamp(3, Now(90), Now(100));
            let mut message = vec![0; self.len];
            self.codec.write(&mut message, &stamp);
            self.with(|flow, desk| flow.on_sent(&stamp, desk));
            message
        }

        fn echo(&mut self, message: &[u8]) {
            let len = self.len;
            self.with(|flow, desk| flow.on_echo(message, 3, len, desk));
        }
    }

    #[test]
    fn with_a_header_every_fault_has_its_name() {
        let mut rig = Rig::new(64);
        let messages: Vec<_> = (0..6).map(|_| rig.send()).collect();
        assert_eq!(rig.flow.on_the_way(), 6);
        let mut damaged = messages[3].clone();
        damaged[40] ^= 0x10;
        for message in [&messages[0], &messages[2], &messages[1], &messages[1], &damaged] {
            rig.echo(message);
        }
        let wanted = Counts {
            sent: 6,
            received: 3,
            reordered: 1,
            duplicated: 1,
            corrupted: 1,
            ..Counts::default()
        };
        assert_eq!(rig.meter.counts, wanted);
        assert_eq!(rig.meter.counts.missing(), 3);
    }

    #[test]
    fn a_message_of_another_session_or_of_the_future_is_corrupted() {
        let mut rig = Rig::new(64);
        let mut other = Rig::new(64);
        let message = other.send();
        rig.echo(&message);
        assert_eq!((rig.meter.counts.corrupted, rig.meter.counts.received), (1, 0), "never sent");
        rig.send();
        rig.with(|flow, desk| flow.on_echo(&message, 4, 64, desk));
        assert_eq!(rig.meter.counts.corrupted, 2, "session 3's message at session 4");
    }

    #[test]
    fn in_a_room_others_are_heard_and_damage_is_still_seen() {
        let mut rig = Rig::new(64);
        rig.rooms = true;
        let mine = rig.send();
        let mut damaged = mine.clone();
        damaged[50] ^= 1;
        rig.with(|flow, desk| flow.on_echo(&mine, 4, 64, desk));
        for message in [&damaged, &mine, &mine] {
            rig.echo(message);
        }
        let Counts { heard, received, corrupted, duplicated, .. } = rig.meter.counts;
        assert_eq!((heard, received, corrupted, duplicated), (1, 1, 1, 1));
    }

    #[test]
    fn small_messages_are_checked_by_place() {
        let mut rig = Rig::new(8);
        let messages: Vec<_> = (0..3).map(|_| rig.send()).collect();
        rig.echo(&messages[0]);
        rig.echo(&messages[2]);
        rig.echo(&messages[2]);
        rig.echo(&messages[2]);
        let counts = rig.meter.counts;
        assert_eq!((counts.received, counts.corrupted, counts.duplicated), (2, 1, 1));
    }
}
