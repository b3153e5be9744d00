//! One round of probes without I/O: a conversation for each shard, until each has acknowledged.

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Sn, Store, wire};
use net_io::Now;

/// Conversations that wait for their first acknowledgement.
pub(super) struct Round {
    calls: Vec<Call>,
    config: KcpConfig,
    store: Store,
    began: Now,
    out: [u8; MTU as usize],
}

struct Call {
    kcp: Kcp,
    answered_us: Option<u64>,
}

impl Round {
    /// Begins with all of them; [`Round::transmit`] has what is to be sent.
    pub(super) fn new(convs: &[(Conv, Option<u32>)], now: Now) -> Self {
        // One segment in flight: the second fragment never leaves, and the message is never whole.
        let config = KcpConfig { mtu: MTU, snd_wnd: 1, ..KcpConfig::game() };
        let mut store = Store::new(convs.len() * STORE_PER_CALL);
        let call = |&(conv, _): &(Conv, _)| {
            let mut kcp = Kcp::new(conv);
            let mut cx = Cx { config: &config, store: &mut store };
            let message = vec![0; config.mss() as usize + 1];
            // The store has room for all, and two fragments are no long message.
            let _ = kcp.send(&mut cx, &message);
            kcp.flush(&mut cx, millis(now));
            Call { kcp, answered_us: None }
        };
        let calls = convs.iter().map(call).collect();
        Self { calls, config, store, began: now, out: [0; MTU as usize] }
    }

    /// The next datagram to send now, first or again; `None` when nothing is due.
    pub(super) fn transmit(&mut self, now: Now) -> Option<&[u8]> {
        let now = millis(now);
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        for call in self.calls.iter_mut().filter(|call| call.answered_us.is_none()) {
            if call.kcp.poll_timeout(&cx, now).is_some_and(|due| now.since(due) >= 0) {
                call.kcp.flush(&mut cx, now);
            }
            if let Some(len) = call.kcp.poll_transmit(&mut cx, now, &mut self.out) {
                return Some(&self.out[..len]);
            }
        }
        None
    }

    /// Takes what came.
    pub(super) fn on_datagram(&mut self, now: Now, datagram: &[u8]) {
        let Some(conv) = wire::conv(datagram) else { return };
        let Some(call) = self.calls.iter_mut().find(|call| call.kcp.conv() == conv) else { return };
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        // What is refused is not the answer.
        let _ = call.kcp.handle_datagram(&mut cx, millis(now), datagram, |_| true);
        if call.kcp.snd_una() != Sn(0) && call.answered_us.is_none() {
            call.answered_us = Some(now.0.saturating_sub(self.began.0));
        }
    }

    /// Milliseconds until something is to be sent again, 1 at least.
    pub(super) fn wait_ms(&mut self, now: Now) -> u32 {
        let now = millis(now);
        let cx = Cx { config: &self.config, store: &mut self.store };
        let waiting = self.calls.iter().filter(|call| call.answered_us.is_none());
        let due = waiting.filter_map(|call| call.kcp.poll_timeout(&cx, now));
        let wait = due.map(|due| due.since(now)).min().unwrap_or(WAIT_MS_MAX);
        wait.clamp(1, WAIT_MS_MAX).cast_unsigned()
    }

    /// Every conversation is answered.
    pub(super) fn is_over(&self) -> bool {
        self.answered().all(|came| came)
    }

    /// Which are answered, in order.
    pub(super) fn answered(&self) -> impl Iterator<Item = bool> {
        self.calls.iter().map(|call| call.answered_us.is_some())
    }

    /// How long the slowest answer took, in microseconds.
    pub(super) fn slowest_us(&self) -> u64 {
        self.calls.iter().filter_map(|call| call.answered_us).max().unwrap_or(0)
    }
}

/// The protocol's clock: the low 32 bits of the milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "the protocol's clock wraps by design")]
const fn millis(now: Now) -> Millis {
    Millis(now.as_millis() as u32)
}

/// Small datagrams: a probe shows the way, not its width.
const MTU: u32 = 64;
/// Two fragments and what keeps them.
const STORE_PER_CALL: usize = 16 << 10;
const WAIT_MS_MAX: i32 = 1_000;

#[cfg(test)]
mod tests {
    use kcp_core::wire::{Command, HEADER_LEN, Header};

    use super::*;

    const START: Now = Now(5_000_000);

    fn sent(round: &mut Round, now: Now) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| round.transmit(now).map(<[u8]>::to_vec)).collect()
    }

    fn head(datagram: &[u8]) -> Header {
        Header::decode(datagram.first_chunk().unwrap()).unwrap()
    }

    fn ack(datagram: &[u8]) -> Vec<u8> {
        let header = head(datagram);
        let mut out = [0; HEADER_LEN];
        Header { cmd: Command::Ack, una: Sn(1), len: 0, frg: 0, ..header }.encode(&mut out);
        out.to_vec()
    }

    #[test]
    fn the_first_fragment_goes_again_until_it_is_answered_and_the_second_never_leaves() {
        let convs = [(Conv(7), Some(0)), (Conv(8), Some(1))];
        let mut round = Round::new(&convs, START);
        let first = sent(&mut round, START);
        assert_eq!(first.len(), 2);
        for datagram in &first {
            let header = head(datagram);
            assert_eq!((header.cmd, header.sn, header.una), (Command::Push, Sn(0), Sn(0)));
            assert_eq!((header.frg, datagram.len()), (1, 64), "the first fragment of two");
        }
        let later = Now(START.0 + 400);
        round.on_datagram(later, &ack(&first[1]));
        round.on_datagram(later, b"noise");
        assert_eq!(round.answered().collect::<Vec<_>>(), [false, true]);
        assert!(!round.is_over() && sent(&mut round, later).is_empty());

        let again = START.add_ms(round.wait_ms(START));
        let repeated = sent(&mut round, again);
        assert_eq!(repeated.len(), 1, "the one without an answer");
        assert_eq!(head(&repeated[0]).sn, Sn(0));
        round.on_datagram(again.add_ms(3), &ack(&repeated[0]));
        assert!(round.is_over() && sent(&mut round, again.add_ms(3)).is_empty());
        assert_eq!(round.slowest_us(), again.add_ms(3).0 - START.0);
    }
}
