//! After warm-up, messages to and from backends cost no allocation: neither those that lie whole in a read nor those that are
//! put together, that wait for their session, or that wait for their stream.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use kcp_gateway::upstream::framing::{Codec, Framing};
use kcp_gateway::upstream::link::{Link, LinkConfig};
use kcp_gateway::upstream::pool::Pool;
use kcp_gateway::upstream::yamux::{Config, Mux, PushError, StreamKey};
use kcp_gateway::upstream::{Cx, Event};
use net_io::Now;

const STREAMS: usize = 200;
const MESSAGE: usize = 3000;
const CODEC: Codec = Codec { framing: Framing::U32Be, message_max: 5000, cut: 1000 };
const NOW: Now = Now(0);

struct World {
    mux: Mux<usize>,
    keys: Vec<StreamKey>,
    pool: Pool,
    link: Link,
    /// A backend's data frames, one message a stream, and the window that it gives back for one.
    frames: Vec<u8>,
    updates: Vec<u8>,
    heard: u64,
}

fn frame(kind: u8, stream: usize, length: usize, payload: &[u8]) -> Vec<u8> {
    let [stream, length] = [stream, length].map(|n| u32::try_from(n).unwrap().to_be_bytes());
    [&[0, kind, 0, 0][..], &stream, &length, payload].concat()
}

fn framed() -> Vec<u8> {
    [&u32::try_from(MESSAGE).unwrap().to_be_bytes()[..], &[7; MESSAGE]].concat()
}

impl World {
    fn new() -> Self {
        let config = Config { write_max: 200_000, ..Config::new(CODEC) };
        let mut mux = Mux::new(config, NOW).unwrap();
        let keys = (0..STREAMS).map(|session| mux.open(session, b"hello").unwrap()).collect();
        let id = |session: usize| 2 * session + 1;
        let (len, payload) = (framed().len(), framed());
        Self {
            mux,
            keys,
            pool: Pool::new(8 << 20),
            link: Link::new(NOW, &LinkConfig::new(CODEC)),
            frames: (0..STREAMS).flat_map(|s| frame(0, id(s), len, &payload)).collect(),
            updates: (0..STREAMS).flat_map(|s| frame(1, id(s), len, &[])).collect(),
            heard: 0,
        }
    }

    /// Every session says one message and hears one; half of them only when it is offered again.
    fn round(&mut self) {
        for session in 0..STREAMS {
            while self.mux.push(&mut self.pool, self.keys[session], &[1; MESSAGE])
                == Err(PushError::Full)
            {
                self.write();
                let _ = self.mux.poll_room();
            }
        }
        self.write();
        let mut heard = 0;
        let mut first = |session: usize, event: Event<'_>| {
            let takes = session.is_multiple_of(2);
            heard += u64::from(takes && matches!(event, Event::Message(_)));
            takes
        };
        let mut cx = Cx { now: NOW, pool: &mut self.pool, sink: &mut first };
        for chunk in self.frames.chunks(8192) {
            self.mux.on_read(&mut cx, chunk).unwrap();
        }
        self.mux.on_read(&mut cx, &self.updates).unwrap();
        let mut second = |_: usize, event: Event<'_>| {
            heard += u64::from(matches!(event, Event::Message(_)));
            true
        };
        let mut cx = Cx { now: NOW, pool: &mut self.pool, sink: &mut second };
        for &key in &self.keys {
            self.mux.resume(&mut cx, key);
        }
        self.heard += heard;
    }

    fn write(&mut self) {
        let n = self.mux.pending(NOW).len();
        self.mux.on_written(NOW, n, &mut self.pool);
    }

    /// A session's own connection, whose stream takes everything in two parts and gives it in pieces.
    fn link_round(&mut self, bytes: &[u8]) {
        let config = LinkConfig::new(CODEC);
        let half = |bytes: &[u8]| bytes.len().div_ceil(2);
        self.link.push(&config, &mut self.pool, &[1; MESSAGE], half).unwrap();
        let _ = self.link.on_writable(&mut self.pool, |bytes| bytes.len());
        let heard = &mut self.heard;
        let mut sink = |event: Event<'_>| {
            *heard += u64::from(matches!(event, Event::Message(_)));
            true
        };
        let mut cx = Cx { now: NOW, pool: &mut self.pool, sink: &mut sink };
        for piece in bytes.chunks(1000) {
            self.link.on_read(&mut cx, &config, piece);
        }
    }
}

#[test]
fn streams_of_one_connection_allocate_nothing_per_message() {
    let mut world = World::new();
    for _ in 0..20 {
        world.round();
    }
    world.heard = 0;
    let measured = allocation_counter::measure(|| (0..200).for_each(|_| world.round()));
    assert_eq!(world.heard, 200 * STREAMS as u64);
    assert_eq!((measured.count_total, world.pool.bytes_used()), (0, 0));
}

#[test]
fn a_sessions_own_connection_allocates_nothing_per_message() {
    let (mut world, bytes) = (World::new(), framed());
    world.link.on_connected();
    for _ in 0..20 {
        world.link_round(&bytes);
    }
    world.heard = 0;
    let measured = allocation_counter::measure(|| (0..200).for_each(|_| world.link_round(&bytes)));
    assert_eq!((world.heard, measured.count_total, world.pool.bytes_used()), (200, 0, 0));
}
