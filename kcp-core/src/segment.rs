//! One segment: what is known of it, when it is due again, and what a transmission changes.

use crate::datagram::{Datagram, Full, Room};
use crate::store::Fragment;
use crate::units::{Millis, Sn};

/// One segment, queued or in flight, or the vacant place of one. Names are the reference's.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) fragment: Fragment,
    pub(crate) ts: Millis,
    pub(crate) resendts: Millis,
    rto: u32,
    pub(crate) fastack: u32,
    xmit: u32,
    /// Acknowledged out of turn: a hole.
    pub(crate) acked: bool,
}

/// Why a segment is transmitted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Timeout,
    Fast,
}

/// The settings and estimates that decide about (re)transmission, fixed for one flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) rto: u32,
    pub(crate) nodelay: u32,
    pub(crate) resent: u32,
    pub(crate) fastlimit: u32,
    pub(crate) dead_link: u32,
    /// Timeouts are judged by this; see [`Clock`](crate::flush::Clock).
    pub(crate) heard: Millis,
}

/// Repeated transmissions of one pass, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) timeout: u32,
    pub(crate) fast: u32,
    /// One segment has been sent too often.
    pub(crate) dead: bool,
}

impl Segment {
    /// Puts a payload here, where none is.
    #[inline]
    pub(crate) fn occupy(&mut self, fragment: Fragment) {
        debug_assert!(self.fragment.is_vacant(), "a payload is in the way");
        // Nothing is lost with what lay here, and the straight line is spared a deallocation that never comes.
        core::mem::forget(core::mem::replace(&mut self.fragment, fragment));
    }

    /// The first transmission, to be repeated after `wait` ms. Only this one may wait longer than `rto`.
    ///
    /// The copy comes last: it is a call, and what is done before it need not be kept across it.
    #[inline]
    pub(crate) fn emit_first(
        &mut self,
        sn: Sn,
        now: Millis,
        (rto, wait): (u32, u32),
        room: Room<'_>,
    ) {
        self.ts = now;
        self.resendts = now.add(wait);
        self.rto = rto;
        self.fastack = 0;
        self.xmit = 1;
        room.push(self.fragment.frg(), sn, now, self.fragment.as_slice());
    }

    /// A further transmission, if one is due.
    pub(crate) fn emit_again(
        &mut self,
        sn: Sn,
        now: Millis,
        rules: &Rules,
        tally: &mut Tally,
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        if let Some(due) = self.due(rules) {
            let room = out.claim(self.fragment.len())?;
            room.push(self.fragment.frg(), sn, now, self.fragment.as_slice());
            self.book(due, now, rules);
            tally.count(due);
            tally.dead |= self.xmit >= rules.dead_link;
        }
        Ok(())
    }

    /// For introspection.
    pub(crate) fn in_flight(&self, sn: Sn) -> InFlight {
        let Self { ts, resendts, rto, fastack, xmit, .. } = *self;
        let (frg, len) = (self.fragment.frg(), self.fragment.len());
        InFlight { sn, frg, len, ts, resendts, rto, fastack, xmit }
    }

    /// Which of the reference's rules for a repeated transmission applies, if any. Reference: `ikcp_flush`.
    fn due(&self, rules: &Rules) -> Option<Due> {
        if rules.heard.since(self.resendts) >= 0 {
            Some(Due::Timeout)
        } else if self.fastack >= rules.resent
            && (rules.fastlimit == 0 || self.xmit <= rules.fastlimit)
        {
            Some(Due::Fast)
        } else {
            None
        }
    }

    /// Books a repeated transmission. A timeout keeps the fast-ack count and a fast resend keeps the timeout, as in the
    /// reference.
    fn book(&mut self, due: Due, now: Millis, rules: &Rules) {
        match due {
            Due::Timeout => self.rto = backed_off(self.rto, rules),
            Due::Fast => self.fastack = 0,
        }
        self.xmit = self.xmit.wrapping_add(1);
        self.ts = now;
        self.resendts = now.add(self.rto);
    }
}

impl Tally {
    #[inline]
    const fn count(&mut self, due: Due) {
        match due {
            Due::Timeout => self.timeout += 1,
            Due::Fast => self.fast += 1,
        }
    }
}

/// A segment in flight, for introspection. Names are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Its number.
    pub sn: Sn,
    /// Fragments of the message that follow this one.
    pub frg: u8,
    /// Payload bytes.
    pub len: usize,
    /// Time of the latest transmission.
    pub ts: Millis,
    /// When its timeout passes.
    pub resendts: Millis,
    /// Its timeout in milliseconds, backed off by each timeout so far.
    pub rto: u32,
    /// Datagrams that acknowledged a later segment since the last fast resend.
    pub fastack: u32,
    /// Transmissions so far.
    pub xmit: u32,
}

/// The timeout after one more expiry. Reference: `ikcp_flush`; the halves are signed there.
const fn backed_off(rto: u32, rules: &Rules) -> u32 {
    match rules.nodelay {
        0 => rto.wrapping_add(if rto > rules.rto { rto } else { rules.rto }),
        1 => rto.wrapping_add((rto.cast_signed() / 2).cast_unsigned()),
        _ => rto.wrapping_add(rules.rto / 2),
    }
}

/// An idle session holds none of these, a busy one many: the size is watched.
const _: () = assert!(size_of::<Segment>() <= 48);
