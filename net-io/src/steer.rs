//! conv -> shard, in the kernel (classic BPF) and here: the same expression, held equal by a test.

use std::io;
use std::os::fd::AsFd;

use libc::sock_filter;

use crate::socket::UdpSocket;
use crate::sys;

/// The steering function of one gateway: a multiplier chosen at start and the number of shards.
///
/// The kernel's half only places datagrams well. It sees no more than the first datagram of a train, and no conv in one shorter
/// than four bytes (those go to shard 0), so a shard asks [`shard`](Steering::shard) and hands strays on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    multiplier: u32,
    shards: u32,
}

impl Steering {
    /// A steering function; `multiplier` is made odd. No shards count as one.
    #[must_use]
    pub const fn new(multiplier: u32, shards: u32) -> Self {
        Self { multiplier: multiplier | 1, shards: if shards == 0 { 1 } else { shards } }
    }

    /// The shard of `conv`, below the number of shards.
    ///
    /// The fold before the multiplication is needed: the program reads the little-endian conv as a big-endian word, so small
    /// convs differ in its top byte only, and a product modulo a power of two would send all of them to shard 0.
    #[must_use]
    pub const fn shard(self, conv: u32) -> u32 {
        let a = conv.swap_bytes();
        ((a ^ (a >> 16)).wrapping_mul(self.multiplier) >> 16) % self.shards
    }

    /// Attaches the program to the group that `socket` belongs to, after the last of the group was bound and before the first
    /// receives. A group of one needs no program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(self, socket: &UdpSocket) -> io::Result<()> {
        if self.shards == 1 {
            return Ok(());
        }
        sys::attach_reuseport(socket.as_fd(), &self.program())
    }

    /// [`shard`](Steering::shard) in classic BPF. Offset 0 is the first byte of the UDP payload; the result is the index of the
    /// socket in the group.
    const fn program(self) -> [sock_filter; 8] {
        const ALU: u32 = libc::BPF_ALU;
        [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
            instruction(libc::BPF_MISC | libc::BPF_TAX, 0),
            instruction(ALU | libc::BPF_RSH | libc::BPF_K, 16),
            instruction(ALU | libc::BPF_XOR | libc::BPF_X, 0),
            instruction(ALU | libc::BPF_MUL | libc::BPF_K, self.multiplier),
            instruction(ALU | libc::BPF_RSH | libc::BPF_K, 16),
            instruction(ALU | libc::BPF_MOD | libc::BPF_K, self.shards),
            instruction(libc::BPF_RET | libc::BPF_A, 0),
        ]
    }
}

/// An instruction without jumps. Every code above fits 8 bits, so nothing is cut.
const fn instruction(code: u32, k: u32) -> sock_filter {
    assert!(code <= 0xff);
    sock_filter { code: (code & 0xff) as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_sequential_convs_spread_over_every_number_of_shards() {
        for shards in 1..=32u32 {
            for multiplier in [1, 0x9E37_79B1, 0xDEAD_BEEF, u32::MAX] {
                let steering = Steering::new(multiplier, shards);
                let mut load = vec![0u32; shards as usize];
                for conv in 0..shards * 1000 {
                    load[steering.shard(conv) as usize] += 1;
                }
                // 1 is the weakest multiplier there is: the fold alone.
                let limit = if multiplier == 1 { 2000 } else { 1300 };
                let worst = load.iter().max().unwrap();
                assert!(
                    *worst <= limit,
                    "{worst} of 1000 at {shards} shards, multiplier {multiplier}"
                );
            }
        }
    }

    #[test]
    fn no_shards_count_as_one() {
        assert_eq!(Steering::new(7, 0).shard(12345), 0);
    }
}
