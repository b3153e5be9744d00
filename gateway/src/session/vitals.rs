//! How a client is doing, looked at now and then: what a session remembers between two looks.
//!
//! A session that is busy is looked at once in each period of eight seconds, with the first of its flushes that falls in it, while
//! its state is in the cache anyway. So every busy client counts once a period, however much it sends, and the cost grows with
//! neither scrapes nor messages.

use kcp_core::{Kcp, Millis, Sn};

/// What a session remembers of the last look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Since when its client has announced no room; meaningful while `stalled`.
    stalled_since: Millis,
    /// Segments sent first and sent again up to the last look, the low 16 bits of each.
    sent: u16,
    resent: u16,
    /// The period of the last look, wrapping.
    period: u8,
    stalled: bool,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The smoothed round trip in milliseconds; `None` before the client has acknowledged anything.
    pub srtt_ms: Option<u32>,
    /// Of the segments sent since the last look, how many were sent again, in millionths; `None` when none were sent.
    pub resent_ppm: Option<u32>,
    /// Its client has room again, after so many milliseconds.
    pub stalled_ms: Option<u32>,
    /// Its client has begun to announce no room.
    pub stalls: bool,
}

impl Vitals {
    /// Of a session born now.
    #[must_use]
    pub const fn new(now: Millis) -> Self {
        let period = period(now);
        Self { stalled_since: now, sent: 0, resent: 0, period, stalled: false }
    }

    /// A new period has begun, or the client's room has gone or come back. Asked with every flush.
    #[inline]
    #[must_use]
    pub const fn wants_look(&self, kcp: &Kcp, now: Millis) -> bool {
        self.period != period(now) || self.stalled != (kcp.rmt_wnd() == 0)
    }

    /// Looks.
    pub fn look(&mut self, kcp: &Kcp, now: Millis) -> Look {
        let mut look = Look::default();
        let closed = kcp.rmt_wnd() == 0;
        if closed && !self.stalled {
            look.stalls = true;
            self.stalled_since = now;
        } else if self.stalled && !closed {
            look.stalled_ms = self.stalled_for(now);
        }
        self.stalled = closed;
        if self.period != period(now) {
            self.period = period(now);
            look.srtt_ms = (kcp.snd_una() != Sn(0)).then(|| kcp.srtt());
            let (sent, resent) = (low(kcp.snd_nxt().0), low(resends(kcp)));
            let (firsts, agains) = (sent.wrapping_sub(self.sent), resent.wrapping_sub(self.resent));
            look.resent_ppm = ratio_ppm(firsts.into(), agains.into());
            (self.sent, self.resent) = (sent, resent);
        }
        look
    }

    /// For how many milliseconds its client has announced no room; `None` while it has room.
    #[must_use]
    pub const fn stalled_for(&self, now: Millis) -> Option<u32> {
        if self.stalled { Some(now.0.wrapping_sub(self.stalled_since.0)) } else { None }
    }
}

/// Of all segments of a conversation, how many were sent again, in millionths; `None` when none was ever sent.
#[must_use]
pub fn resent_ppm(kcp: &Kcp) -> Option<u32> {
    ratio_ppm(kcp.snd_nxt().0, resends(kcp))
}

const fn resends(kcp: &Kcp) -> u32 {
    let resends = kcp.resends();
    resends.timeout.wrapping_add(resends.fast)
}

fn ratio_ppm(firsts: u32, agains: u32) -> Option<u32> {
    let all = u64::from(firsts) + u64::from(agains);
    let ppm = (u64::from(agains) * 1_000_000).checked_div(all)?;
    u32::try_from(ppm).ok()
}

#[expect(clippy::cast_possible_truncation, reason = "only differences of counters are used")]
const fn low(counter: u32) -> u16 {
    counter as u16
}

#[expect(clippy::cast_possible_truncation, reason = "periods are only told from their neighbours")]
const fn period(now: Millis) -> u8 {
    (now.0 >> PERIOD_BITS) as u8
}

/// Periods of 2^13 ms: a division less with every flush.
const PERIOD_BITS: u32 = 13;

#[cfg(test)]
mod tests {
    use kcp_core::wire::{Command, HEADER_LEN, Header};
    use kcp_core::{Conv, Cx, KcpConfig, Store};

    use super::*;

    /// A session's conversation, driven by hand.
    struct Talk {
        kcp: Kcp,
        config: KcpConfig,
        store: Store,
        now: Millis,
    }

    impl Talk {
        fn new(now: Millis) -> Self {
            let (config, store) = (KcpConfig::game(), Store::new(1 << 20));
            Self { kcp: Kcp::new(Conv(1)), config, store, now }
        }

        fn send(&mut self, messages: usize) {
            let mut cx = Cx { config: &self.config, store: &mut self.store };
            for _ in 0..messages {
                self.kcp.send(&mut cx, b"x").unwrap();
            }
            self.flush();
        }

        fn flush(&mut self) {
            let mut cx = Cx { config: &self.config, store: &mut self.store };
            self.kcp.flush(&mut cx, self.now);
            while self.kcp.poll_transmit(&mut cx, self.now, &mut [0; 1500]).is_some() {}
        }

        /// The client acknowledges everything before `una`, sent `rtt_ms` ago, and announces its room.
        fn ack(&mut self, una: u32, rtt_ms: u32, wnd: u16) {
            let mut bytes = [0; HEADER_LEN];
            let ts = Millis(self.now.0.wrapping_sub(rtt_ms));
            let (cmd, sn, una) = (Command::Ack, Sn(una - 1), Sn(una));
            Header { conv: Conv(1), cmd, frg: 0, wnd, ts, sn, una, len: 0 }.encode(&mut bytes);
            let mut cx = Cx { config: &self.config, store: &mut self.store };
            self.kcp.handle_datagram(&mut cx, self.now, &bytes, |_| true).unwrap();
        }
    }

    #[test]
    fn a_busy_session_is_looked_at_once_a_period() {
        for start in [Millis(0), Millis(u32::MAX - 9_000)] {
            let mut talk = Talk::new(start);
            let mut vitals = Vitals::new(start);
            let (mut looks, mut una) = (0, 0);
            for _ in 0..10_000 {
                talk.send(1);
                talk.now = talk.now.add(10);
                una += 1;
                talk.ack(una, 10, 128);
                if vitals.wants_look(&talk.kcp, talk.now) {
                    let look = vitals.look(&talk.kcp, talk.now);
                    assert_eq!((look.srtt_ms, look.resent_ppm), (Some(10), Some(0)));
                    assert!(!vitals.wants_look(&talk.kcp, talk.now));
                    looks += 1;
                }
            }
            assert!((12..=13).contains(&looks), "{looks} looks in 100 s");
        }
    }

    #[test]
    fn what_was_sent_again_since_the_last_look_is_told() {
        let mut talk = Talk::new(Millis(0));
        let mut vitals = Vitals::new(Millis(0));
        talk.send(3);
        talk.now = Millis(5_000); // far past their timeout: all three go again
        talk.flush();
        talk.now = Millis(9_000);
        assert_eq!(vitals.look(&talk.kcp, talk.now).resent_ppm, Some(500_000));
        assert_eq!(resent_ppm(&talk.kcp), Some(500_000));
        talk.ack(3, 1, 128);
        talk.now = Millis(17_000);
        let look = vitals.look(&talk.kcp, talk.now);
        assert_eq!((look.srtt_ms, look.resent_ppm), (Some(1), None), "nothing was sent since");
        assert_eq!(resent_ppm(&Kcp::new(Conv(2))), None);
    }

    #[test]
    fn a_client_without_room_is_timed() {
        let mut talk = Talk::new(Millis(u32::MAX - 100));
        let mut vitals = Vitals::new(talk.now);
        talk.send(1);
        talk.ack(1, 0, 0);
        assert!(vitals.wants_look(&talk.kcp, talk.now));
        let look = vitals.look(&talk.kcp, talk.now);
        assert_eq!((look.stalls, look.stalled_ms), (true, None));
        talk.now = talk.now.add(1_500);
        assert_eq!(vitals.stalled_for(talk.now), Some(1_500));
        assert!(!vitals.look(&talk.kcp, talk.now).stalls, "told once");
        talk.ack(1, 0, 1);
        assert!(vitals.wants_look(&talk.kcp, talk.now));
        let look = vitals.look(&talk.kcp, talk.now);
        assert_eq!((look.stalls, look.stalled_ms), (false, Some(1_500)));
        assert_eq!(vitals.stalled_for(talk.now), None);
    }
}
