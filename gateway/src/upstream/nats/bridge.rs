//! The queues between shards and the connection to NATS: one pair a shard, bounded in messages and in bytes, and nobody waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use kcp_core::Conv;
use net_io::Waker;
use tokio::sync::Notify;

use super::stats::{Loss, NatsStats};
use crate::session::SessionId;
use crate::shard::stats::EndReason;

/// How much may wait, each way, for each shard.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Their bytes; one message is taken whatever its length when nothing else waits.
    pub bytes: usize,
}

/// Who a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its client.
    pub client: SocketAddr,
    /// Where its client sends to.
    pub listener: SocketAddr,
    /// Its conversation.
    pub conv: Conv,
}

/// From a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Up {
    Open(SessionId, Opening),
    Message(SessionId, Vec<u8>),
    Close(SessionId, EndReason),
}

/// To a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Down {
    Message(SessionId, Bytes),
    /// To each of these.
    Room(Vec<SessionId>, Bytes),
    Close(SessionId),
}

impl Down {
    /// What it counts for while it waits.
    fn len(&self) -> usize {
        match self {
            Self::Message(_, message) => message.len(),
            Self::Room(members, message) => message.len() + size_of_val(&members[..]),
            Self::Close(_) => 0,
        }
    }
}

/// One shard's queues.
#[derive(Debug)]
struct Lane {
    limits: Limits,
    up: ArrayQueue<Up>,
    up_bytes: AtomicUsize,
    /// Buffers that messages left in, to be filled again.
    spare: ArrayQueue<Vec<u8>>,
    /// The shard was refused and wants to be woken when there is room.
    starved: AtomicBool,
    down: ArrayQueue<Down>,
    down_bytes: AtomicUsize,
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardEnd {
    lane: Arc<Lane>,
    bell: Arc<Notify>,
    stats: Arc<NatsStats>,
    /// Something was pushed since the bell was rung.
    news: bool,
}

/// The connection's end.
#[derive(Debug)]
pub(crate) struct EngineEnd {
    lanes: Vec<Arc<Lane>>,
    wakers: Vec<Waker>,
    to_wake: Vec<bool>,
}

/// Everything before it is apart.
#[derive(Debug)]
pub struct Bridge {
    lanes: Vec<Arc<Lane>>,
    /// Rung when a shard has something to say.
    pub(crate) bell: Arc<Notify>,
    /// What is counted.
    pub(crate) stats: Arc<NatsStats>,
}

impl Bridge {
    /// Queues for `shards` shards. Claims a few words for each of `limits.messages`.
    #[must_use]
    pub fn new(shards: usize, limits: Limits) -> Self {
        let lane = || {
            Arc::new(Lane {
                limits,
                up: ArrayQueue::new(limits.messages),
                up_bytes: AtomicUsize::new(0),
                spare: ArrayQueue::new(limits.messages),
                starved: AtomicBool::new(false),
                down: ArrayQueue::new(limits.messages),
                down_bytes: AtomicUsize::new(0),
            })
        };
        let lanes = (0..shards).map(|_| lane()).collect();
        Self { lanes, bell: Arc::default(), stats: Arc::default() }
    }

    /// The end of shard `index`, which is below the number of shards.
    #[must_use]
    pub fn shard_end(&self, index: usize) -> ShardEnd {
        let lane = Arc::clone(&self.lanes[index]);
        let (bell, stats) = (Arc::clone(&self.bell), Arc::clone(&self.stats));
        ShardEnd { lane, bell, stats, news: false }
    }

    /// The connection's end, which wakes shards by `wakers`, in shard order.
    pub(crate) fn engine_end(&self, wakers: Vec<Waker>) -> EngineEnd {
        let lanes = self.lanes.clone();
        EngineEnd { to_wake: vec![false; lanes.len()], lanes, wakers }
    }
}

impl Lane {
    fn claim(&self, bytes: &AtomicUsize, len: usize) -> bool {
        let before = bytes.fetch_add(len, Ordering::AcqRel);
        let fits = len == 0 || before == 0 || before + len <= self.limits.bytes;
        if !fits {
            bytes.fetch_sub(len, Ordering::AcqRel);
        }
        fits
    }
}

impl ShardEnd {
    /// Tells of a session; `false` when there is no room. Then the engine wakes the shard when there is.
    pub(crate) fn open(&mut self, id: SessionId, opening: Opening) -> bool {
        self.push(|| Up::Open(id, opening), 0)
    }

    /// Tells of a session's end; as [`ShardEnd::open`].
    pub(crate) fn close(&mut self, id: SessionId, reason: EndReason) -> bool {
        self.push(|| Up::Close(id, reason), 0)
    }

    /// Copies a message of `len` bytes, which `fill` writes; as [`ShardEnd::open`].
    pub(crate) fn message(
        &mut self,
        id: SessionId,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let lane = Arc::clone(&self.lane);
        let copy = || {
            let mut buffer = lane.spare.pop().unwrap_or_default();
            buffer.resize(len, 0);
            fill(&mut buffer);
            Up::Message(id, buffer)
        };
        self.push(copy, len)
    }

    fn push(&mut self, make: impl FnOnce() -> Up, len: usize) -> bool {
        let lane = &self.lane;
        if !self.may_push(len) {
            // Room that came between the question and the mark would wake nobody: ask again.
            lane.starved.store(true, Ordering::SeqCst);
            if !self.may_push(len) {
                return false;
            }
        }
        // Nobody else pushes here, so there is room still.
        let pushed = lane.up.push(make()).is_ok();
        self.news = true;
        pushed
    }

    fn may_push(&self, len: usize) -> bool {
        !self.lane.up.is_full() && self.lane.claim(&self.lane.up_bytes, len)
    }

    /// Tells the engine's thread, once per turn, if there is anything to tell.
    pub(crate) fn ring(&mut self) {
        if std::mem::take(&mut self.news) {
            self.bell.notify_one();
        }
    }

    /// The next thing for a session of this shard.
    pub(crate) fn pop(&mut self) -> Option<Down> {
        let down = self.lane.down.pop()?;
        self.lane.down_bytes.fetch_sub(down.len(), Ordering::AcqRel);
        Some(down)
    }

    /// Something is there to be popped.
    pub(crate) fn has_down(&self) -> bool {
        !self.lane.down.is_empty()
    }

    /// Counts a message that this shard could not deliver.
    pub(crate) fn lose(&self, reason: Loss) {
        self.stats.lose(reason, 1);
    }
}

impl EngineEnd {
    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.lanes.len()
    }

    /// The next thing that a shard's sessions say. A message's buffer is to be given back.
    pub(crate) fn pop(&self, shard: usize) -> Option<Up> {
        let lane = &self.lanes[shard];
        let up = lane.up.pop()?;
        if let Up::Message(_, bytes) = &up {
            lane.up_bytes.fetch_sub(bytes.len(), Ordering::AcqRel);
        }
        Some(up)
    }

    /// Gives a buffer back, unless it is a large one: what is kept for ever must be small.
    pub(crate) fn recycle(&self, shard: usize, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            // More buffers than places are not kept.
            let _ = self.lanes[shard].spare.push(buffer);
        }
    }

    /// Wakes a shard that was refused.
    pub(crate) fn feed(&self, shard: usize) {
        if self.lanes[shard].starved.swap(false, Ordering::SeqCst)
            && let Some(waker) = self.wakers.get(shard)
        {
            waker.wake();
        }
    }

    /// Hands something to a session's shard; `false` when too much waits for that one, or there is no such shard.
    pub(crate) fn push(&mut self, shard: usize, down: Down) -> bool {
        let Some(lane) = self.lanes.get(shard) else { return false };
        if lane.down.is_full() || !lane.claim(&lane.down_bytes, down.len()) {
            return false;
        }
        self.to_wake[shard] = true;
        // Nobody else pushes here, so there is room still.
        lane.down.push(down).is_ok()
    }

    /// Wakes the shards that were pushed to since the last call.
    pub(crate) fn wake(&mut self) {
        for (wake, waker) in self.to_wake.iter_mut().zip(&self.wakers) {
            if std::mem::take(wake) {
                waker.wake();
            }
        }
    }
}

/// A buffer for any message that fits in a few datagrams.
const SPARE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SessionId = SessionId { index: 3, generation: 1 };

    fn pair(messages: usize, bytes: usize) -> (ShardEnd, EngineEnd) {
        let bridge = Bridge::new(1, Limits { messages, bytes });
        (bridge.shard_end(0), bridge.engine_end(Vec::new()))
    }

    fn say(shard: &mut ShardEnd, message: &[u8]) -> bool {
        shard.message(ID, message.len(), |out| out.copy_from_slice(message))
    }

    #[test]
    fn what_a_session_says_comes_in_order_and_its_buffer_is_used_again() {
        let (mut shard, engine) = pair(4, 100);
        assert!(say(&mut shard, b"hello"));
        assert!(shard.close(ID, EndReason::Idle));
        let Some(Up::Message(ID, buffer)) = engine.pop(0) else { panic!("no message") };
        assert_eq!(buffer, b"hello");
        let place = buffer.as_ptr();
        engine.recycle(0, buffer);
        assert_eq!(engine.pop(0), Some(Up::Close(ID, EndReason::Idle)));
        assert!(say(&mut shard, b"abc"));
        let Some(Up::Message(ID, buffer)) = engine.pop(0) else { panic!("no message") };
        assert_eq!((buffer.as_ptr(), &buffer[..]), (place, &b"abc"[..]));
    }

    #[test]
    fn both_bounds_hold_both_ways() {
        let (mut shard, mut engine) = pair(3, 10);
        assert!(say(&mut shard, &[0; 6]) && !say(&mut shard, &[0; 5]) && say(&mut shard, &[0; 4]));
        assert!(shard.close(ID, EndReason::Idle) && !shard.close(ID, EndReason::Idle));
        engine.pop(0).unwrap();
        assert!(say(&mut shard, &[0; 6]));
        let down = |len: usize| Down::Message(ID, Bytes::from(vec![0; len]));
        assert!(engine.push(0, down(11)), "one may be longer than all may be together");
        assert!(!engine.push(0, down(1)) && engine.push(0, Down::Close(ID)));
        assert_eq!((shard.pop(), shard.pop()), (Some(down(11)), Some(Down::Close(ID))));
        assert!(engine.push(0, down(10)) && !engine.push(0, down(1)));
        assert!(!engine.push(1, down(1)), "no such shard");
        let room = Down::Room(vec![ID; 2], Bytes::from_static(b"hello"));
        assert_eq!((room.len(), shard.pop()), (2 * 8 + 5, Some(down(10))));
        assert!(engine.push(0, room) && !engine.push(0, down(1)), "its members count as well");
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let (mut shard, engine) = pair(3, 100_000);
        assert!(say(&mut shard, &[0; 50_000]));
        let Some(Up::Message(_, buffer)) = engine.pop(0) else { panic!("no message") };
        engine.recycle(0, buffer);
        assert!(engine.lanes[0].spare.is_empty());
    }
}
