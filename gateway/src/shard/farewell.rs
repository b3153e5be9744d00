//! A word for whoever comes while the gateway drains: a message that says where to go instead.
//!
//! Nothing is kept of them. A client's first segment is answered by one PUSH that carries the message as the first of a
//! conversation and acknowledges nothing. Its library delivers it and drops repetitions; it goes on sending its own segment, which it
//! believes lost, and shows in its `una` whether the word has arrived. So a lost one is said again, and nobody is told twice.

use kcp_core::wire::{Command, HEADER_LEN, Header};
use kcp_core::{Conv, Millis, Sn};
use net_io::{Destination, Driver};

use super::Policy;
use super::ingress::Origin;
use super::stats::{Stat, Stats};
use crate::session::Credit;

/// Those of one turn that are to be told, as many as it takes datagrams.
#[derive(Debug, Default)]
pub(super) struct Farewells(Vec<(Origin, Conv)>);

impl Farewells {
    /// Notes whom to answer: the sender of a client's first datagram, if three times its length is enough for the word. Nobody knows
    /// whether the sender is where it says.
    pub(super) fn owe(&mut self, to: Origin, conv: Conv, datagram: &[u8], policy: &Policy) {
        let answer = HEADER_LEN + policy.farewell.len();
        if !policy.farewell.is_empty() && answer <= datagram.len() * Credit::FACTOR as usize {
            self.0.push((to, conv));
        }
    }

    /// Answers all of them.
    pub(super) fn say(
        &mut self,
        driver: &mut impl Driver,
        now: Millis,
        policy: &Policy,
        stats: &mut Stats,
    ) {
        let word = &policy.farewell;
        let len = HEADER_LEN + word.len();
        for ((socket, peer, local), conv) in self.0.drain(..) {
            let slot = driver.slot(len);
            let Some((header, payload)) = slot.split_first_chunk_mut() else { continue };
            word_header(conv, now, word.len()).encode(header);
            payload[..word.len()].copy_from_slice(word);
            driver.queue(len, &Destination { socket, peer, local });
            stats.add(Stat::Farewells, 1);
        }
    }
}

/// The first segment of a conversation in which nothing was received, and nothing will be.
fn word_header(conv: Conv, now: Millis, len: usize) -> Header {
    Header {
        conv,
        cmd: Command::Push,
        frg: 0,
        wnd: 0,
        ts: now,
        sn: Sn(0),
        una: Sn(0),
        len: u32::try_from(len).unwrap_or(0),
    }
}
