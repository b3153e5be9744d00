//! Strays to their owners: a datagram that the kernel gave to the wrong shard (a GSO train is steered once, by its first
//! conv) crosses over in a recycled buffer through a bounded queue.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use net_io::{SocketId, Waker};

/// A datagram on its way to its owner.
#[derive(Debug)]
pub(super) struct Stray {
    /// The listener it arrived by; every shard numbers its sockets alike.
    pub(super) socket: SocketId,
    /// Who sent it.
    pub(super) peer: SocketAddr,
    /// The gateway's address it was sent to, on wildcard listeners.
    pub(super) local: Option<IpAddr>,
    /// Its bytes.
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Queue {
    full: ArrayQueue<Stray>,
    spare: ArrayQueue<Vec<u8>>,
}

/// One shard's end of the queues between shards: one queue per owner, any shard pushes, the owner pops.
#[derive(Debug)]
pub struct Handoff {
    index: usize,
    queues: Vec<Arc<Queue>>,
    wakers: Vec<Waker>,
    to_wake: Vec<bool>,
}

impl Handoff {
    /// One end per shard. Each owner's queue takes `capacity` strays of up to `datagram_max` bytes; the whole mesh claims
    /// `shards * capacity * datagram_max` bytes here and never more. One shard needs no queue and gets none.
    #[must_use]
    pub fn mesh(shards: usize, capacity: usize, datagram_max: usize) -> Vec<Self> {
        let room = if shards > 1 { capacity } else { 1 };
        let queues: Vec<_> = (0..shards)
            .map(|_| {
                let spare = ArrayQueue::new(room);
                while shards > 1 && spare.push(Vec::with_capacity(datagram_max)).is_ok() {}
                Arc::new(Queue { full: ArrayQueue::new(room), spare })
            })
            .collect();
        (0..shards)
            .map(|index| Self {
                index,
                queues: queues.clone(),
                wakers: Vec::new(),
                to_wake: vec![false; shards],
            })
            .collect()
    }

    /// Tells how to wake the other shards, in shard order, once their drivers exist. Strays pushed before wait until then.
    pub fn set_wakers(&mut self, wakers: Vec<Waker>) {
        self.wakers = wakers;
    }

    /// Copies a stray for `owner`; `false` when the owner's queue is full.
    #[must_use]
    pub(super) fn push(
        &mut self,
        owner: u32,
        (socket, peer, local): (SocketId, SocketAddr, Option<IpAddr>),
        payload: &[u8],
    ) -> bool {
        let Some(queue) = self.queues.get(owner as usize) else { return false };
        let Some(mut copy) = queue.spare.pop() else { return false };
        if payload.len() > copy.capacity() {
            let _ = queue.spare.push(copy);
            return false;
        }
        copy.clear();
        copy.extend_from_slice(payload);
        // There are as many buffers as places, so a buffer in hand means a place is free.
        let pushed = queue.full.push(Stray { socket, peer, local, payload: copy }).is_ok();
        self.to_wake[owner as usize] = true;
        pushed
    }

    /// Wakes the owners pushed to since the last call: once per turn, not once per stray.
    pub(super) fn wake_owners(&mut self) {
        for (wake, waker) in self.to_wake.iter_mut().zip(&self.wakers) {
            if std::mem::take(wake) {
                waker.wake();
            }
        }
    }

    /// The next stray that belongs to this shard. Give its buffer back with [`Handoff::recycle`].
    #[must_use]
    pub(super) fn pop(&mut self) -> Option<Stray> {
        self.queues[self.index].full.pop()
    }

    /// Takes back the buffer of a stray that was handled.
    pub(super) fn recycle(&mut self, stray: Stray) {
        let _ = self.queues[self.index].spare.push(stray.payload);
    }

    /// Strays wait for this shard.
    #[must_use]
    pub(super) fn is_waiting(&self) -> bool {
        !self.queues[self.index].full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> (SocketId, SocketAddr, Option<IpAddr>) {
        (SocketId(3), SocketAddr::from(([127, 0, 0, 1], 9)), None)
    }

    #[test]
    fn a_stray_arrives_whole_and_its_buffer_goes_round() {
        let mut mesh = Handoff::mesh(2, 2, 64);
        for round in 0..10_u8 {
            assert!(mesh[0].push(1, from(), &[round; 64]));
            assert!(mesh[0].pop().is_none(), "only the owner sees it");
            let stray = mesh[1].pop().unwrap();
            assert_eq!((stray.payload.as_slice(), stray.socket), (&[round; 64][..], SocketId(3)));
            mesh[1].recycle(stray);
        }
    }

    #[test]
    fn a_full_queue_refuses_and_recovers() {
        let mut mesh = Handoff::mesh(2, 2, 64);
        assert!(mesh[0].push(1, from(), b"a") && mesh[0].push(1, from(), b"b"));
        assert!(!mesh[0].push(1, from(), b"c"));
        let stray = mesh[1].pop().unwrap();
        mesh[1].recycle(stray);
        assert!(mesh[0].push(1, from(), b"c"));
    }

    #[test]
    fn a_stray_longer_than_a_buffer_is_refused_and_leaks_nothing() {
        let mut mesh = Handoff::mesh(2, 1, 64);
        let spare = mesh[0].queues[1].spare.pop().unwrap();
        let long = vec![0; spare.capacity() + 1];
        mesh[0].queues[1].spare.push(spare).unwrap();
        assert!(!mesh[0].push(1, from(), &long));
        assert!(mesh[0].push(1, from(), b"short"));
    }
}
