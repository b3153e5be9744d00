//! One client's session: who it is, its conversation, and where it stands in its life.

mod vitals;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use kcp_core::wire::HEADER_LEN;
use kcp_core::{Conv, Kcp, Millis, Sn};

use crate::upstream::End;

pub use vitals::{Look, Vitals, resent_ppm};

/// A client's address in 24 bytes instead of `SocketAddr`'s 32: a million sessions each keep one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    v4: bool,
}

impl Peer {
    /// Fills a place where no peer is.
    pub(crate) const NOBODY: Self = Self { ip: [0; 16], scope: 0, port: 0, v4: false };

    /// A number that is the same for the same address and mostly differs for others.
    #[must_use]
    pub(crate) const fn fold(&self) -> u64 {
        let ip = u128::from_ne_bytes(self.ip);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let (low, high) = (ip as u64, (ip >> 64) as u64);
        low ^ high.rotate_left(32) ^ ((self.port as u64) << 48) ^ ((self.scope as u64) << 32)
    }

    /// The address as bytes, different for different addresses.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 23] {
        let mut bytes = [0; 23];
        bytes[..16].copy_from_slice(&self.ip);
        bytes[16..20].copy_from_slice(&self.scope.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.port.to_le_bytes());
        bytes[22] = u8::from(self.v4);
        bytes
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(a) => {
                let mut ip = [0; 16];
                ip[..4].copy_from_slice(&a.ip().octets());
                Self { ip, scope: 0, port: a.port(), v4: true }
            }
            SocketAddr::V6(a) => {
                Self { ip: a.ip().octets(), scope: a.scope_id(), port: a.port(), v4: false }
            }
        }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> Self {
        if peer.v4 {
            let [a, b, c, d, ..] = peer.ip;
            Self::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), peer.port)
        } else {
            Self::V6(SocketAddrV6::new(Ipv6Addr::from(peer.ip), peer.port, 0, peer.scope))
        }
    }
}

/// What a session is found by. Two clients that pick one conv are two sessions; nobody takes a session over by guessing
/// its conv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client's address.
    pub peer: Peer,
    /// The conversation.
    pub conv: Conv,
}

/// A session of one shard: a slot, and which of the slot's occupants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The slot in the shard's table.
    pub index: u32,
    /// Counts the slot's occupants, wrapping: an id kept past its session's end finds nobody.
    pub generation: u32,
}

/// How much may be sent to an address that has not shown that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// The client acknowledged data of ours or answered a challenge: it is where it says.
    Proven,
    /// This many bytes more, three for each byte received.
    Unproven(u32),
}

impl Credit {
    /// Bytes that may be sent for each byte that came from an unproven address.
    pub const FACTOR: u32 = 3;

    /// Books `len` received bytes.
    pub fn earn(&mut self, len: usize) {
        if let Self::Unproven(bytes) = self {
            let earned = u32::try_from(len).unwrap_or(u32::MAX).saturating_mul(Self::FACTOR);
            *bytes = bytes.saturating_add(earned);
        }
    }

    /// Takes `len` bytes for data; `false` when that would leave nothing for a challenge, whose answer is proof. Without
    /// it, lost acknowledgements would leave an honest client for ever unproven.
    #[must_use]
    pub fn spend_on_data(&mut self, len: usize) -> bool {
        match self {
            Self::Proven => true,
            Self::Unproven(bytes) => *bytes as usize >= len + HEADER_LEN && self.spend(len),
        }
    }

    /// Takes `len` bytes to send; `false` when that would be more than the address has earned.
    #[must_use]
    pub fn spend(&mut self, len: usize) -> bool {
        match self {
            Self::Proven => true,
            Self::Unproven(bytes) => {
                match u32::try_from(len).ok().and_then(|n| bytes.checked_sub(n)) {
                    Some(rest) => {
                        *bytes = rest;
                        true
                    }
                    None => false,
                }
            }
        }
    }
}

/// What binds a session to its backend. What the backend's part takes beyond that is kept by the shard's upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// Nothing yet: its next message finds it a backend.
    Free,
    /// It stands in the list of those that wait for one.
    Waiting,
    /// A connection of its own, by its stream's slot.
    Tcp(u32),
    /// A stream of a link that many sessions share.
    Yamux {
        /// The link's number in its shard.
        link: u16,
        /// The stream's slot on that link.
        slot: u32,
    },
    /// Subjects of its own, of which NATS has been told.
    Nats,
    /// The backend has closed; the session ends when its client has received everything, or at this time.
    Leaving {
        /// The end of the time.
        until: Millis,
        /// How the backend closed.
        end: End,
    },
}

impl Tie {
    /// Whoever looks after backends is to hear of the session's end.
    #[must_use]
    pub const fn is_bound(self) -> bool {
        match self {
            Self::Tcp(_) | Self::Yamux { .. } | Self::Nats | Self::Leaving { .. } => true,
            Self::Free | Self::Waiting => false,
        }
    }
}

/// One client's session. The listener's settings, the payload in flight and the timer live elsewhere.
#[derive(Debug)]
pub struct Session {
    /// The conversation.
    pub kcp: Kcp,
    /// The client's address.
    pub peer: Peer,
    /// When it was born.
    pub born: Millis,
    /// When the client last showed that it is there: a valid datagram, or an answer to a challenge.
    pub last_rx: Millis,
    /// When the last challenge was sent; meaningful while `asked` is not 0.
    pub asked_at: Millis,
    /// Challenges sent since the client last showed that it is there.
    pub asked: u8,
    /// A challenge is to leave with this turn's flush.
    pub ask: bool,
    /// The open challenge is to tell whether the client restarted.
    pub suspect: bool,
    /// What may still be sent before the address is proven.
    pub credit: Credit,
    /// Bytes of its messages that the echo upstream holds.
    pub upstream_bytes: usize,
    /// How its client is doing.
    pub vitals: Vitals,
    /// Its backend.
    pub tie: Tie,
    /// The slot's occupant number; see [`SessionId`].
    pub generation: u32,
    /// The listener it came in by.
    pub listener: u16,
    /// Which of the gateway's addresses the client uses: an index into the shard's list, 0 for the socket's own.
    pub local: u16,
    /// It is not a player's but the gateway's own prober's.
    pub is_probe: bool,
    /// It stands in the list of sessions to flush this turn.
    pub dirty: bool,
    /// It stands in the list of sessions that wait for something that all share.
    pub blocked: bool,
    /// Its messages wait until its backend takes more.
    pub waits_for_backend: bool,
    /// Its backend waits until its client has taken more.
    pub backend_waits: bool,
}

impl Session {
    /// A session born now.
    #[must_use]
    pub fn new(key: Key, listener: u16, local: u16, now: Millis) -> Self {
        Self {
            kcp: Kcp::new(key.conv),
            peer: key.peer,
            born: now,
            last_rx: now,
            asked_at: now,
            asked: 0,
            ask: false,
            suspect: false,
            credit: Credit::Unproven(0),
            upstream_bytes: 0,
            vitals: Vitals::new(now),
            tie: Tie::Free,
            generation: 0,
            listener,
            local,
            is_probe: false,
            dirty: false,
            blocked: false,
            waits_for_backend: false,
            backend_waits: false,
        }
    }

    /// Bytes of messages it may still have queued towards its client, of `bytes_max`.
    #[must_use]
    pub fn room(&self, bytes_max: usize) -> usize {
        bytes_max.saturating_sub(self.kcp.send_bytes()).saturating_sub(self.upstream_bytes)
    }

    /// Half of the bytes that made its backend wait have gone.
    #[must_use]
    pub fn has_room_again(&self, bytes_max: usize) -> bool {
        self.kcp.send_bytes() <= bytes_max / 2
    }

    /// The datagram's sender has received nothing of ours, although this session's client acknowledged data.
    #[must_use]
    pub fn may_have_restarted(&self, datagram: &[u8]) -> bool {
        let una = self.kcp.snd_una();
        una != Sn(0)
            && datagram.get(UNA).is_some_and(|field| field == [0; 4])
            && Sn(0).since(una) < 0
    }

    /// Marks the session to be asked whether its client is there.
    pub fn ask_at(&mut self, now: Millis) {
        self.asked = self.asked.saturating_add(1);
        self.asked_at = now;
        self.ask = true;
    }

    /// The client has shown that it is there and who it is.
    pub fn answered(&mut self) {
        self.asked = 0;
        self.suspect = false;
    }

    /// Until when nothing but the challenge is sent, because the client may have restarted: a segment of the old session would
    /// acknowledge a fresh client's messages, and they would be lost. Bounded, since anybody can send in a client's name.
    #[must_use]
    pub fn held_until(&self, now: Millis) -> Option<Millis> {
        let until = self.asked_at.add(HELD_MS);
        (self.suspect && until.since(now) > 0).then_some(until)
    }

    /// Reads a little of each of its cache lines.
    #[must_use]
    pub(crate) fn look_ahead(&self) -> u32 {
        let (kcp, fields) = (&self.kcp, [self.last_rx.0, self.asked_at.0, self.generation]);
        let words = [kcp.snd_una().0, kcp.conv().0, kcp.rcv_nxt().0].into_iter().chain(fields);
        words.fold(u32::from(self.listener), u32::wrapping_add)
    }

    /// What the session is found by.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { peer: self.peer, conv: self.kcp.conv() }
    }
}

/// How long a client that may have restarted is left in peace, in milliseconds: a stock client answers in 10 to 100.
const HELD_MS: u32 = 500;

/// Where the first segment of a datagram says what its sender has received.
const UNA: std::ops::Range<usize> = 16..20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_its_address_again() {
        for text in ["127.0.0.1:4000", "255.255.255.255:65535", "[::1]:1", "[fe80::1%7]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Peer::from(addr)), addr);
        }
    }

    #[test]
    fn a_v4_peer_is_not_the_v6_peer_with_the_same_bytes() {
        let v4: SocketAddr = "1.2.3.4:5".parse().unwrap();
        let v6: SocketAddr = "[102:304::]:5".parse().unwrap();
        assert_ne!(Peer::from(v4), Peer::from(v6));
    }

    #[test]
    fn an_unproven_address_gets_three_bytes_for_one() {
        let mut credit = Credit::Unproven(0);
        assert!(!credit.spend(1));
        credit.earn(24);
        assert!(!credit.spend_on_data(49), "nothing would be left for a challenge");
        assert!(credit.spend_on_data(46));
        assert!(credit.spend(24));
        assert!(!credit.spend(3));
        assert!(credit.spend(2));
        assert!(Credit::Proven.spend(usize::MAX));
    }
}
