//! Datagrams that no honest peer sends: truncated, spliced, or made up around the receiver's own numbers.

use kcp_core::wire::{Command, HEADER_LEN, Header};
use kcp_core::{Conv, Millis, Sn};
use netem::Rng;

use crate::lockstep::Lockstep;

/// Replaces `datagram` now and then by something worse.
pub(crate) fn tamper(rng: &mut Rng, victim: &Lockstep, conv: u32, datagram: Vec<u8>) -> Vec<u8> {
    match rng.below(8) {
        0 => truncated(rng, datagram),
        1 => forged(rng, victim, conv),
        2 => [datagram, forged(rng, victim, conv)].concat(),
        3 => [forged(rng, victim, conv), datagram].concat(),
        4 => flipped(rng, datagram),
        _ => datagram,
    }
}

fn truncated(rng: &mut Rng, mut datagram: Vec<u8>) -> Vec<u8> {
    datagram.truncate(pick(rng, datagram.len() + 1));
    datagram
}

fn flipped(rng: &mut Rng, mut datagram: Vec<u8>) -> Vec<u8> {
    let at = pick(rng, datagram.len());
    if let Some(byte) = datagram.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
    datagram
}

/// One to three segments near the victim's windows; one in four breaks the format as well.
fn forged(rng: &mut Rng, victim: &Lockstep, conv: u32) -> Vec<u8> {
    let mut datagram = Vec::new();
    for _ in 0..=rng.below(3) {
        let commands = [Command::Push, Command::Ack, Command::Wask, Command::Wins];
        let cmd = commands[pick(rng, commands.len())];
        let own_number = cmd == Command::Push;
        let base = if own_number { victim.rcv_nxt() } else { victim.snd_nxt() };
        let len = if own_number || rng.below(8) == 0 { pick(rng, 40) } else { 0 };
        let header = Header {
            conv: Conv(conv),
            cmd,
            frg: if rng.below(2) == 0 { 0 } else { byte(rng) },
            wnd: u16::from(byte(rng)) * if rng.below(4) == 0 { 0 } else { 1 },
            ts: Millis(near(rng, victim.current())),
            sn: Sn(near(rng, base)),
            una: Sn(near(rng, victim.snd_nxt())),
            len: u32::try_from(len).unwrap(),
        };
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        match rng.below(16) {
            0 => bytes[4] = byte(rng),
            1 => bytes[0] ^= 1,
            2 => bytes[20..24].copy_from_slice(&rng.next_u32().to_le_bytes()),
            _ => {}
        }
        datagram.extend(bytes);
        datagram.extend((0..len).map(|_| byte(rng)));
    }
    datagram
}

/// Mostly a little before or after `base`, sometimes far, rarely half a turn away.
fn near(rng: &mut Rng, base: u32) -> u32 {
    let spread = match rng.below(16) {
        0 => 200_000_000,
        1 | 2 => 5_000,
        _ => 12,
    };
    let offset = u32::try_from(rng.below(2 * spread)).unwrap();
    let turn = if rng.below(64) == 0 { 1 << 31 } else { 0 };
    base.wrapping_add(offset).wrapping_sub(u32::try_from(spread).unwrap()).wrapping_add(turn)
}

fn byte(rng: &mut Rng) -> u8 {
    u8::try_from(rng.below(256)).unwrap()
}

fn pick(rng: &mut Rng, n: usize) -> usize {
    usize::try_from(rng.below(n as u64)).unwrap()
}
