//! The path challenge: asks an unmodified KCP client whether it is there.
//!
//! Every stock implementation acknowledges a PUSH that lies before its window and drops its payload: that is how a lost
//! acknowledgement is repeated. So an empty PUSH far before anything this side ever sent is a question that the client's library
//! answers by itself. The answer echoes `sn` and `ts`, which together carry 61 secret bits; whoever gives it has received the
//! question. The application sees nothing, and no estimate or window of either side is touched.
//!
//! The distance is 2^29 at least: a client that restarted counts from 0, and a near number could fall into its window, where an
//! empty message would be delivered. It is below 2^30: beyond it a debug build of a known port overflows.

use std::hash::Hasher;

use kcp_core::wire::{Command, HEADER_LEN, Header, Segments};
use kcp_core::{Conv, Millis, Sn};
use siphasher::sip::SipHasher24;

use crate::session::{Key, Session};

/// Asks and recognises answers; holds the shard's secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Challenger {
    secret: [u64; 2],
}

/// An answer to the question that was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// What the client has received of ours: 0 after a restart.
    pub(super) una: Sn,
    /// From the question to the answer, the client's own delay included, in milliseconds.
    pub(super) rtt_ms: u32,
}

impl Challenger {
    /// Secrets drawn from `secret`, which must be random and is kept to this process.
    pub(super) const fn new(secret: [u64; 2]) -> Self {
        Self { secret }
    }

    /// Writes the question that `session` was marked to ask at `asked_at`.
    pub(super) fn question(&self, session: &Session, rcv_wnd: u32, out: &mut [u8; HEADER_LEN]) {
        let (back, ts) = self.bits(&session.key(), session.asked_at);
        let ready = session.kcp.queue_lengths().rcv_queue;
        let free = (rcv_wnd as usize).saturating_sub(ready).clamp(1, usize::from(u16::MAX));
        Header {
            conv: session.kcp.conv(),
            cmd: Command::Push,
            frg: 0,
            wnd: u16::try_from(free).unwrap_or(u16::MAX),
            ts,
            sn: Sn(session.kcp.snd_una().0.wrapping_sub(back)),
            una: harmless_una(session.kcp.rcv_nxt()),
            len: 0,
        }
        .encode(out);
    }

    /// The answer in `datagram` to the question `session` has open, if it is there.
    pub(super) fn answer(&self, session: &Session, datagram: &[u8], now: Millis) -> Option<Answer> {
        let (back, ts) = self.bits(&session.key(), session.asked_at);
        let sn = Sn(session.kcp.snd_una().0.wrapping_sub(back));
        let mut headers = Segments::new(datagram).map_while(Result::ok).map(|(header, _)| header);
        let found = headers.find(|h| h.cmd == Command::Ack && h.sn == sn && h.ts == ts)?;
        let rtt_ms = u32::try_from(now.since(session.asked_at)).unwrap_or(0);
        Some(Answer { una: found.una, rtt_ms })
    }

    /// How far before `snd_una` the question lies, and its clock: 29 and 32 bits that only this process can compute.
    fn bits(&self, key: &Key, asked_at: Millis) -> (u32, Millis) {
        let [k0, k1] = self.secret;
        let mut hasher = SipHasher24::new_with_keys(k0, k1);
        let Key { peer, conv: Conv(conv) } = key;
        hasher.write(&peer.to_bytes());
        hasher.write_u32(*conv);
        hasher.write_u32(asked_at.0);
        let [a, b, c, d, e, f, g, h] = hasher.finish().to_le_bytes();
        let r = u32::from_le_bytes([a, b, c, d]) & (NEAREST - 1);
        (NEAREST + r, Millis(u32::from_le_bytes([e, f, g, h])))
    }
}

/// An una that acknowledges nothing: neither to the client that sent everything before `rcv_nxt`, nor to one that restarted and
/// counts from 0 again, whose fresh messages the true una would strike off as received.
const fn harmless_una(rcv_nxt: Sn) -> Sn {
    if rcv_nxt.since(Sn(0)) >= 0 { Sn(0) } else { rcv_nxt }
}

/// Nearest distance of a question to `snd_una`; the farthest is twice that.
const NEAREST: u32 = 1 << 29;

const _: () = assert!(NEAREST >= kcp_core::FAR_BEHIND, "the protocol ignores the answers");

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::session::Peer;

    fn session(conv: u32, asked_at: u32) -> Session {
        let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut session = Session::new(Key { peer, conv: Conv(conv) }, 0, 0, Millis(0));
        session.asked_at = Millis(asked_at);
        session
    }

    fn echo(question: &[u8; HEADER_LEN], una: u32) -> Vec<u8> {
        let header = Header::decode(question).unwrap();
        let mut out = [0; HEADER_LEN];
        Header { cmd: Command::Ack, una: Sn(una), ..header }.encode(&mut out);
        out.to_vec()
    }

    #[test]
    fn an_echo_is_an_answer_and_nothing_else_is() {
        let challenger = Challenger::new([1, 2]);
        let asked = session(7, 1000);
        let mut question = [0; HEADER_LEN];
        challenger.question(&asked, 128, &mut question);
        let header = Header::decode(&question).unwrap();
        assert_eq!((header.cmd, header.len, header.frg, header.wnd), (Command::Push, 0, 0, 128));
        let behind = Sn(0).since(header.sn);
        assert!((1 << 29..1 << 30).contains(&behind), "{behind} behind");

        let answer = echo(&question, 5);
        let expected = Some(Answer { una: Sn(5), rtt_ms: 40 });
        assert_eq!(challenger.answer(&asked, &answer, Millis(1040)), expected);
        let mut data = [0; HEADER_LEN];
        Header { sn: Sn(0), ..header }.encode(&mut data);
        let behind_data = [&data[..], &answer].concat();
        assert_eq!(challenger.answer(&asked, &behind_data, Millis(1040)), expected);
        for bit in (32..128).chain(64..96) {
            let mut forged = answer.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let cmd_or_number = bit / 8 == 4 || (8..16).contains(&(bit / 8));
            let taken = challenger.answer(&asked, &forged, Millis(1040)).is_some();
            assert_eq!(taken, !cmd_or_number, "bit {bit}");
        }
    }

    #[test]
    fn no_two_questions_share_their_bits() {
        let challenger = Challenger::new([1, 2]);
        let mut seen = std::collections::BTreeSet::new();
        for conv in 0..100 {
            for asked_at in 0..100 {
                let mut question = [0; HEADER_LEN];
                challenger.question(&session(conv, asked_at), 128, &mut question);
                let header = Header::decode(&question).unwrap();
                assert!(seen.insert((header.sn.0, header.ts.0)));
            }
        }
        let mut other = [0; HEADER_LEN];
        Challenger::new([1, 3]).question(&session(0, 0), 128, &mut other);
        let other = Header::decode(&other).unwrap();
        assert!(!seen.contains(&(other.sn.0, other.ts.0)), "another process, other bits");
    }
}
