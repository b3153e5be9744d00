//! conv -> shard, in the kernel (classic BPF) and here: the same expression, held equal by a test.

use std::io;

use crate::socket::UdpSocket;

/// The steering function of one gateway: a multiplier chosen at start and the number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    multiplier: u32,
    shards: u32,
}

impl Steering {
    /// A steering function; `multiplier` is made odd.
    #[must_use]
    pub const fn new(multiplier: u32, shards: u32) -> Self {
        Self { multiplier: multiplier | 1, shards }
    }

    /// The shard of `conv`, below the number of shards.
    #[must_use]
    pub const fn shard(self, conv: u32) -> u32 {
        let a = conv.swap_bytes();
        ((a ^ (a >> 16)).wrapping_mul(self.multiplier) >> 16) % self.shards
    }

    /// Attaches the program to the group that `socket` belongs to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(self, socket: &UdpSocket) -> io::Result<()> {
        let _ = socket;
        todo!()
    }
}
