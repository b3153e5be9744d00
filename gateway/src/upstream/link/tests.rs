use std::collections::VecDeque;

use super::super::dice::Dice;
use super::super::framing::Framing;
use super::super::pool::BLOCK;
use super::*;

/// A link, its stream and its pool, and everything that happened to its session.
struct Bench {
    config: LinkConfig,
    link: Link,
    pool: Pool,
    now: Now,
    has_room: bool,
    /// Bytes that the stream takes before it is full.
    room: usize,
    written: Vec<u8>,
    messages: Vec<Vec<u8>>,
    empty: u32,
    ends: Vec<End>,
}

fn config() -> LinkConfig {
    LinkConfig::new(Codec { framing: Framing::U16Be, message_max: 5000, cut: 1000 })
}

/// A stream that takes up to `room` bytes.
fn stream<'a>(room: &'a mut usize, written: &'a mut Vec<u8>) -> impl FnMut(&[u8]) -> usize + 'a {
    |bytes| {
        let n = bytes.len().min(*room);
        *room -= n;
        written.extend_from_slice(&bytes[..n]);
        n
    }
}

impl Bench {
    fn new() -> Self {
        let (config, now) = (config(), Now(1_000_000));
        let link = Link::new(now, &config);
        let mut bench = Self {
            config,
            link,
            pool: Pool::new(200 * BLOCK),
            now,
            has_room: true,
            room: usize::MAX,
            written: Vec::new(),
            messages: Vec::new(),
            empty: 0,
            ends: Vec::new(),
        };
        let write = stream(&mut bench.room, &mut bench.written);
        bench.link.hello(&mut bench.pool, b"hello", write).unwrap();
        bench
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        bench.link.on_connected();
        assert_eq!((bench.ops(), bench.written()), (vec![Op::Read], b"hello".to_vec()));
        bench
    }

    fn with(
        &mut self,
        call: impl FnOnce(&mut Link, &mut Cx<'_, &mut dyn FnMut(Event<'_>) -> bool>, &LinkConfig),
    ) {
        let (has_room, messages, ends) = (self.has_room, &mut self.messages, &mut self.ends);
        let empty = &mut self.empty;
        let mut sink = |event: Event<'_>| match event {
            Event::Message(_) if !has_room => false,
            Event::Message(message) => {
                messages.push(message.to_vec());
                true
            }
            Event::Empty(frames) => {
                *empty += frames;
                true
            }
            Event::End(end) => {
                ends.push(end);
                true
            }
        };
        let mut sink: &mut dyn FnMut(Event<'_>) -> bool = &mut sink;
        let mut cx = Cx { now: self.now, pool: &mut self.pool, sink: &mut sink };
        call(&mut self.link, &mut cx, &self.config);
    }

    fn push(&mut self, message: &[u8]) -> Result<(), PushError> {
        let write = stream(&mut self.room, &mut self.written);
        self.link.push(&self.config, &mut self.pool, message, write)
    }

    fn writable(&mut self, room: usize) -> bool {
        self.room = room;
        let write = stream(&mut self.room, &mut self.written);
        self.link.on_writable(&mut self.pool, write)
    }

    fn written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.written)
    }

    fn read(&mut self, bytes: &[u8]) {
        self.with(|link, cx, config| link.on_read(cx, config, bytes));
    }

    fn fin(&mut self) {
        self.with(|link, cx, config| link.on_fin(cx, config));
    }

    fn end(&mut self) {
        self.with(|link, cx, _| link.on_end(cx));
    }

    fn resume(&mut self) {
        self.with(|link, cx, config| link.resume(cx, config));
    }

    fn close(&mut self) {
        self.link.close(self.now, &self.config, &mut self.pool);
    }

    /// Time passes, and the link is looked at whenever it wants to be.
    fn wait(&mut self, ms: u32) {
        let end = self.now.add_ms(ms);
        while let Some(at) = self.link.poll_timeout().filter(|&at| at <= end) {
            self.now = at;
            self.with(|link, cx, config| link.handle_timeout(cx, config));
        }
        self.now = end;
    }

    fn ops(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        while let Some(op) = self.link.poll_op(self.now, &self.config, self.has_room) {
            ops.push(op);
        }
        ops
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

#[test]
fn messages_go_out_framed_behind_the_hello() {
    let mut bench = Bench::new();
    bench.push(b"early").unwrap();
    assert_eq!(bench.written(), [&b"hello"[..], &frame(b"early")].concat());
    bench.link.on_connected();
    assert_eq!((bench.ops(), bench.ops()), (vec![Op::Read], vec![]));
    assert_eq!(bench.link.poll_timeout(), None);
    assert_eq!(bench.push(b""), Err(PushError::Unsendable));
    assert_eq!(bench.push(&[0; 5001]), Err(PushError::Unsendable));
}

#[test]
fn connecting_takes_its_time_and_no_longer() {
    let mut bench = Bench::new();
    assert_eq!(bench.link.poll_timeout(), Some(bench.now.add_ms(3000)));
    bench.wait(2999);
    assert_eq!(bench.ends, []);
    bench.wait(1);
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::ConnectTimeout], vec![Op::Abort]));
    assert!(bench.link.is_gone());
    assert_eq!((bench.push(b"x"), bench.pool.bytes_used()), (Err(PushError::Gone), 0));

    let mut bench = Bench::new();
    bench.end();
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::ConnectFailed], vec![]));
    assert_eq!(bench.link.poll_timeout(), None);
}

#[test]
fn frames_without_a_message_are_passed_over_and_told() {
    let mut bench = Bench::connected();
    bench.read(&[&frame(b"")[..], &frame(b"one"), &frame(b""), &frame(b"")].concat());
    assert_eq!((bench.messages.clone(), bench.empty), (vec![b"one".to_vec()], 3));
    assert_eq!(bench.pool.bytes_used(), 0);
}

#[test]
fn a_slow_backend_is_waited_for_and_room_is_told_once() {
    let mut bench = Bench::connected();
    for (room, taken) in [(1, 1), (2, 2), (4, 4)] {
        bench.room = room;
        bench.push(b"abcdef").unwrap();
        assert_eq!(bench.written(), frame(b"abcdef")[..taken]);
        assert_eq!(bench.push(b"g"), Err(PushError::Full));
        assert!(!bench.writable(1), "not all of it");
        assert!(bench.writable(100));
        assert_eq!(bench.written(), frame(b"abcdef")[taken..]);
        assert!(!bench.writable(100), "nobody was refused since");
        assert_eq!(bench.pool.bytes_used(), 0);
    }
    bench.room = 0;
    assert_eq!(bench.push(b"g"), Err(PushError::Full));
    assert_eq!(bench.link.outbound(), 0);
    assert!(bench.writable(100));
    assert_eq!(bench.push(b"g"), Ok(()));
}

#[test]
fn a_slow_client_stops_the_reads() {
    let mut bench = Bench::connected();
    bench.has_room = false;
    bench.read(&[frame(b"one"), frame(b"two"), frame(b"three")[..4].to_vec()].concat());
    assert_eq!((bench.ops(), bench.messages.len()), (vec![], 0));
    assert_eq!(bench.link.poll_timeout(), None, "it is the session that is slow");
    bench.has_room = true;
    bench.resume();
    assert_eq!(bench.messages, [b"one", b"two"]);
    assert_eq!(bench.ops(), [Op::Read]);
    assert_eq!(bench.link.poll_timeout(), Some(bench.now.add_ms(5_000)), "half of its time");
    bench.read(&frame(b"three")[4..]);
    assert_eq!((bench.messages.len(), bench.pool.bytes_used()), (3, 0));
    assert_eq!(bench.link.poll_timeout(), None);
}

#[test]
fn a_backend_that_stops_inside_a_message_is_cut_off() {
    let mut bench = Bench::connected();
    bench.read(&frame(b"message")[..5]);
    bench.ops();
    bench.wait(9999);
    bench.read(b"s"); // progress
    bench.ops();
    bench.wait(9999);
    assert_eq!(bench.ends, []);
    bench.wait(1);
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::Stalled], vec![Op::Abort]));
}

#[test]
fn a_pause_of_our_own_is_not_the_backends() {
    let mut bench = Bench::connected();
    bench.read(&frame(b"message")[..5]);
    bench.ops();
    bench.now = bench.now.add_ms(3_600_000);
    bench.with(|link, cx, config| link.handle_timeout(cx, config));
    assert_eq!(bench.ends, [], "what came meanwhile is yet to be read");
    bench.wait(4_999);
    bench.read(&frame(b"message")[5..]);
    assert_eq!((bench.messages.len(), bench.link.poll_timeout()), (1, None));
}

#[test]
fn the_backends_fin_ends_the_session_when_all_is_delivered() {
    let mut bench = Bench::connected();
    bench.has_room = false;
    bench.read(&frame(b"bye"));
    bench.room = 3;
    bench.push(b"and you").unwrap();
    bench.fin();
    assert_eq!((bench.ends.len(), bench.ops()), (0, vec![]));
    bench.has_room = true;
    bench.resume();
    assert_eq!(
        (bench.messages.clone(), bench.ends.clone()),
        (vec![b"bye".to_vec()], vec![End::Fin])
    );
    assert_eq!((bench.push(b"x"), bench.ops()), (Err(PushError::Gone), vec![]));
    assert!(!bench.writable(100));
    assert_eq!((bench.written(), bench.ops()), (frame(b"and you"), vec![Op::Finish]));
    bench.end();
    assert!(bench.link.is_gone() && bench.ends.len() == 1);
}

#[test]
fn a_fin_inside_a_message_is_told_apart() {
    let mut bench = Bench::connected();
    bench.read(&frame(b"half")[..3]);
    bench.fin();
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::FinMidMessage], vec![Op::Finish]));
    assert_eq!(bench.pool.bytes_used(), 0);
}

#[test]
fn a_reset_is_an_end_now() {
    let mut bench = Bench::connected();
    bench.has_room = false;
    bench.read(&frame(b"never seen"));
    bench.room = 1;
    bench.push(b"never sent").unwrap();
    bench.end();
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::Reset], vec![]));
    assert_eq!((bench.messages.len(), bench.pool.bytes_used()), (0, 0));
}

#[test]
fn garbage_ends_the_session_and_resets_the_backend() {
    let mut bench = Bench::connected();
    bench.read(&[frame(b"fine"), vec![0xFF; 100]].concat());
    assert_eq!((bench.messages.len(), bench.ends.clone()), (1, vec![End::TooLong]));
    assert_eq!(bench.ops(), [Op::Abort]);
}

#[test]
fn a_session_that_ends_sends_the_rest_then_a_fin_and_listens_without_hearing() {
    let mut bench = Bench::connected();
    bench.room = 4;
    bench.push(b"last words").unwrap();
    bench.close();
    assert_eq!(bench.ops(), []);
    bench.read(b"anything at all");
    assert_eq!(bench.ops(), [Op::Read]);
    assert!(!bench.writable(100));
    assert_eq!((bench.written(), bench.ops()), (frame(b"last words"), vec![Op::Finish]));
    bench.read(&[0xFF; 3000]);
    assert_eq!(bench.ops(), [Op::Read]);
    bench.fin();
    bench.end();
    assert_eq!((bench.ops(), bench.link.poll_timeout()), (vec![], None));
    assert_eq!((bench.messages.len(), bench.ends.len()), (0, 0));
}

#[test]
fn a_link_without_a_session_does_not_live_for_ever() {
    let mut bench = Bench::connected();
    bench.close();
    assert_eq!(bench.ops(), [Op::Finish]);
    bench.wait(9999);
    assert_eq!(bench.ops(), []);
    bench.wait(1);
    assert_eq!((bench.ops(), bench.ends.len()), (vec![Op::Abort], 0));

    let mut bench = Bench::new();
    bench.push(b"not lost").unwrap();
    bench.close();
    assert_eq!(bench.ops(), [Op::Finish, Op::Read]);
    bench.wait(3000);
    bench.link.on_connected();
    bench.wait(6999);
    assert_eq!(bench.ops(), []);
    bench.wait(1);
    assert_eq!(bench.ops(), [Op::Abort]);
}

#[test]
fn an_abort_is_an_rst_and_nothing_else() {
    for connected in [true, false] {
        let mut bench = if connected { Bench::connected() } else { Bench::new() };
        bench.room = 1;
        bench.push(b"dropped").unwrap();
        bench.link.abort(&mut bench.pool);
        bench.link.abort(&mut bench.pool);
        bench.close();
        assert_eq!((bench.ops(), bench.ends.len()), (vec![Op::Abort], 0));
        assert_eq!((bench.ops(), bench.pool.bytes_used()), (vec![], 0));
    }
}

#[test]
fn a_full_pool_takes_no_part_of_a_message() {
    let mut bench = Bench::connected();
    bench.pool = Pool::new(2 * BLOCK);
    assert_eq!(bench.push(&[0; 2 * BLOCK]), Err(PushError::PoolFull));
    assert_eq!((bench.link.outbound(), bench.written()), (0, vec![]));
    assert_eq!(bench.push(&[0; 2 * BLOCK - 2]), Ok(()));
}

/// The backend, which echoes what follows the hello and ends when its client has, or before.
#[derive(Default)]
struct Backend {
    received: Vec<u8>,
    /// Echo that the link has not read.
    echo: VecDeque<u8>,
    reading: bool,
    finished: bool,
    aborted: bool,
}

impl Backend {
    fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.received.len() >= b"hello".len() {
                self.echo.push_back(byte);
            }
            self.received.push(byte);
        }
    }

    fn ask(&mut self, ops: Vec<Op>) {
        for op in ops {
            assert!(!self.aborted, "nothing after the end");
            match op {
                Op::Read => self.reading = true,
                Op::Finish => self.finished = true,
                Op::Abort => self.aborted = true,
            }
        }
    }
}

/// A stream that takes and gives any number of bytes, and everything in any order: every message arrives, both ways, and
/// both ends end, whichever begins.
#[test]
fn any_conversation_keeps_every_message() {
    let (mut messages, mut refused) = (0, 0);
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let (mut bench, mut backend, mut sent) = (Bench::new(), Backend::default(), Vec::new());
        let (backend_ends, mut fin) = (dice.one_in(2), false);
        let mut steps = 0;
        while !(fin && backend.finished) {
            steps += 1;
            assert!(steps < 100_000 && !backend.aborted, "it does not end in order");
            let last = steps > 1000; // nobody says anything new, and what waits is delivered
            match dice.below(8) {
                0 => bench.link.on_connected(),
                1 | 2 if !last => {
                    let longest = if dice.one_in(4) { 5000 } else { 60 };
                    let len = 1 + dice.below(longest);
                    let message = dice.bytes(len);
                    match bench.push(&message) {
                        Ok(()) => sent.push(message),
                        Err(error) => {
                            assert_eq!(error, PushError::Full);
                            refused += 1;
                        }
                    }
                }
                3 | 4 => {
                    let room = dice.below(6000);
                    let _ = bench.writable(room);
                }
                5 | 6 if backend.reading && !backend.echo.is_empty() => {
                    let n = 1 + dice.below(backend.echo.len().min(4000));
                    backend.reading = false;
                    bench.read(&backend.echo.drain(..n).collect::<Vec<_>>());
                }
                7 => {
                    bench.has_room = last || !bench.has_room;
                    if bench.has_room {
                        bench.resume();
                    }
                }
                _ => {}
            }
            if last && !backend_ends {
                bench.close();
            }
            backend.hear(&bench.written());
            let said_all = last && bench.link.outbound() == 0;
            if (backend.finished || (said_all && backend_ends))
                && backend.reading
                && backend.echo.is_empty()
            {
                (backend.reading, fin) = (false, true);
                bench.fin();
            }
            backend.ask(bench.ops());
            assert!(bench.link.outbound() <= 5002, "the rest of one message");
        }
        bench.end();
        let all: Vec<u8> = [b"hello".to_vec()]
            .into_iter()
            .chain(sent.iter().map(|message| frame(message)))
            .flatten()
            .collect();
        assert!(backend.received == all, "not what the session sent");
        assert!(sent.starts_with(&bench.messages), "not what the backend sent");
        assert_eq!((bench.link.is_gone(), bench.pool.bytes_used()), (true, 0));
        if backend_ends {
            assert_eq!((bench.messages.len(), bench.ends), (sent.len(), vec![End::Fin]));
        } else {
            assert_eq!(bench.ends, []);
        }
        messages += bench.messages.len();
    }
    assert!(messages > 10_000 && refused > 1000, "they were conversations: {messages}, {refused}");
}
