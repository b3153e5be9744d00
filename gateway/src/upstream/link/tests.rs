use std::collections::VecDeque;

use super::super::dice::Dice;
use super::super::framing::Framing;
use super::super::pool::BLOCK;
use super::*;

/// A link, its pool, and everything that happened to its session.
struct Bench {
    config: LinkConfig,
    link: Link,
    pool: Pool,
    now: Now,
    has_room: bool,
    messages: Vec<Vec<u8>>,
    ends: Vec<End>,
}

/// An [`Op`] that outlives the pool it borrows from.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Write(Vec<u8>),
    Read,
    Shutdown,
    Close,
    Reset,
}

fn config() -> LinkConfig {
    LinkConfig::new(Codec { framing: Framing::U16Be, message_max: 5000, cut: 1000 })
}

impl Bench {
    fn new() -> Self {
        let (config, now) = (config(), Now(1_000_000));
        let mut pool = Pool::new(200 * BLOCK);
        let link = Link::new(now, &config, &mut pool, b"hello").unwrap();
        let (messages, ends) = (Vec::new(), Vec::new());
        Self { config, link, pool, now, has_room: true, messages, ends }
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        bench.link.on_connected();
        assert_eq!(bench.ops(), [Asked::Write(b"hello".to_vec()), Asked::Read]);
        assert!(!bench.written(5));
        bench
    }

    fn with(
        &mut self,
        call: impl FnOnce(&mut Link, &mut Cx<'_, &mut dyn FnMut(Event<'_>) -> bool>, &LinkConfig),
    ) {
        let (has_room, messages, ends) = (self.has_room, &mut self.messages, &mut self.ends);
        let mut sink = |event: Event<'_>| match event {
            Event::Message(_) if !has_room => false,
            Event::Message(message) => {
                messages.push(message.to_vec());
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
        self.link.push(&self.config, &mut self.pool, message)
    }

    fn written(&mut self, n: usize) -> bool {
        self.link.on_written(&self.config, &mut self.pool, n)
    }

    fn read(&mut self, bytes: &[u8]) {
        self.with(|link, cx, config| link.on_read(cx, config, bytes));
    }

    fn eof(&mut self) {
        self.with(|link, cx, config| link.on_eof(cx, config));
    }

    fn resume(&mut self) {
        self.with(|link, cx, config| link.resume(cx, config));
    }

    fn close(&mut self) {
        self.link.close(self.now, &self.config, &mut self.pool);
    }

    fn wait(&mut self, ms: u32) {
        self.now = self.now.add_ms(ms);
        self.with(|link, cx, _| link.handle_timeout(cx));
    }

    fn ops(&mut self) -> Vec<Asked> {
        let mut ops = Vec::new();
        while let Some(op) =
            self.link.poll_op(self.now, &self.config, &mut self.pool, self.has_room)
        {
            ops.push(match op {
                Op::Write(bytes) => Asked::Write(bytes.to_vec()),
                Op::Read => Asked::Read,
                Op::Shutdown => Asked::Shutdown,
                Op::Close => Asked::Close,
                Op::Reset => Asked::Reset,
            });
        }
        ops
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

#[test]
fn nothing_is_asked_of_a_socket_before_it_is_connected() {
    let mut bench = Bench::new();
    bench.push(b"early").unwrap();
    assert_eq!(bench.ops(), []);
    bench.link.on_connected();
    let first = [&b"hello"[..], &frame(b"early")].concat();
    assert_eq!(bench.ops(), [Asked::Write(first), Asked::Read]);
    assert_eq!(bench.ops(), [], "one write and one read at a time");
    assert_eq!(bench.link.poll_timeout(), None);
}

#[test]
fn connecting_takes_its_time_and_no_longer() {
    let mut bench = Bench::new();
    assert_eq!(bench.link.poll_timeout(), Some(bench.now.add_ms(3000)));
    bench.wait(2999);
    assert_eq!((bench.ends.len(), bench.ops()), (0, vec![]));
    bench.wait(1);
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::ConnectTimeout], vec![Asked::Close]));
    assert_eq!((bench.push(b"x"), bench.pool.bytes_used()), (Err(PushError::Gone), 0));

    let mut bench = Bench::new();
    bench.with(|link, cx, _| link.on_error(cx));
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::ConnectFailed], vec![Asked::Close]));
    assert_eq!((bench.ops(), bench.link.poll_timeout()), (vec![], None));
}

#[test]
fn what_the_kernel_did_not_take_is_offered_again() {
    let mut bench = Bench::connected();
    bench.push(b"abcdef").unwrap();
    assert_eq!(bench.ops(), [Asked::Write(frame(b"abcdef"))]);
    bench.push(b"g").unwrap();
    assert!(!bench.written(3));
    assert_eq!(bench.ops(), [Asked::Write([&b"bcdef"[..], &frame(b"g")].concat())]);
    assert!(!bench.written(8));
    assert_eq!((bench.ops(), bench.pool.bytes_used()), (vec![], 0));
}

#[test]
fn a_slow_backend_is_waited_for_and_room_is_told_once() {
    let mut bench = Bench::connected();
    let long = vec![1; 5000];
    let taken = (0..100).take_while(|_| bench.push(&long).is_ok()).count();
    assert_eq!(taken, 13, "of 64 KiB");
    assert_eq!(bench.push(&long), Err(PushError::Full));
    let writes = bench.ops();
    assert!(matches!(&writes[..], [Asked::Write(bytes)] if bytes.len() == 65_026));
    assert!(!bench.written(20_000), "more than half still waits");
    bench.ops();
    assert!(bench.written(20_000));
    bench.ops();
    assert!(!bench.written(1), "nobody was refused since");
    assert_eq!(bench.push(&long), Ok(()));
    assert_eq!(bench.push(b""), Err(PushError::Unsendable));
    assert_eq!(bench.push(&[0; 5001]), Err(PushError::Unsendable));
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
    assert_eq!(bench.ops(), [Asked::Read]);
    assert_eq!(bench.link.poll_timeout(), Some(bench.now.add_ms(10_000)));
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
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::Stalled], vec![Asked::Reset]));
}

#[test]
fn the_backends_fin_ends_the_session_when_all_is_delivered() {
    let mut bench = Bench::connected();
    bench.has_room = false;
    bench.read(&frame(b"bye"));
    bench.has_room = true;
    bench.push(b"and you").unwrap();
    bench.ops();
    bench.has_room = false;
    bench.eof();
    assert_eq!((bench.ends.len(), bench.ops()), (0, vec![]));
    bench.has_room = true;
    bench.resume();
    assert_eq!(
        (bench.messages.clone(), bench.ends.clone()),
        (vec![b"bye".to_vec()], vec![End::Fin])
    );
    assert_eq!((bench.push(b"x"), bench.ops()), (Err(PushError::Gone), vec![]));
    assert!(!bench.written(9));
    assert_eq!(bench.ops(), [Asked::Close]);
}

#[test]
fn a_fin_inside_a_message_is_told_apart() {
    let mut bench = Bench::connected();
    bench.read(&frame(b"half")[..3]);
    bench.eof();
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::FinMidMessage], vec![Asked::Close]));
    assert_eq!(bench.pool.bytes_used(), 0);
}

#[test]
fn a_reset_is_an_end_now() {
    let mut bench = Bench::connected();
    bench.has_room = false;
    bench.read(&frame(b"never seen"));
    bench.push(b"never sent").unwrap();
    bench.with(|link, cx, _| link.on_error(cx));
    assert_eq!((bench.ends.clone(), bench.ops()), (vec![End::Reset], vec![Asked::Close]));
    assert_eq!((bench.messages.len(), bench.pool.bytes_used()), (0, 0));
}

#[test]
fn garbage_ends_the_session_and_resets_the_backend() {
    let mut bench = Bench::connected();
    bench.read(&[frame(b"fine"), vec![0xFF; 100]].concat());
    assert_eq!((bench.messages.len(), bench.ends.clone()), (1, vec![End::TooLong]));
    assert_eq!(bench.ops(), [Asked::Reset]);
}

#[test]
fn a_session_that_ends_sends_the_rest_then_a_fin_and_listens_without_hearing() {
    let mut bench = Bench::connected();
    bench.push(b"last words").unwrap();
    bench.close();
    assert_eq!(bench.ops(), [Asked::Write(frame(b"last words"))]);
    bench.read(b"anything at all");
    assert_eq!(bench.ops(), [Asked::Read]);
    assert!(!bench.written(12));
    assert_eq!(bench.ops(), [Asked::Shutdown]);
    bench.read(&[0xFF; 3000]);
    assert_eq!(bench.ops(), [Asked::Read]);
    bench.eof();
    assert_eq!(bench.ops(), [Asked::Close]);
    assert_eq!((bench.messages.len(), bench.ends.len()), (0, 0));
}

#[test]
fn a_link_without_a_session_does_not_live_for_ever() {
    let mut bench = Bench::connected();
    bench.close();
    assert_eq!(bench.ops(), [Asked::Shutdown]);
    bench.wait(9999);
    assert_eq!(bench.ops(), []);
    bench.wait(1);
    assert_eq!((bench.ops(), bench.ends.len()), (vec![Asked::Reset], 0));

    let mut bench = Bench::new();
    bench.push(b"not lost").unwrap();
    bench.close();
    bench.wait(2999);
    bench.link.on_connected();
    let all = [&b"hello"[..], &frame(b"not lost")].concat();
    assert_eq!(bench.ops(), [Asked::Write(all.clone()), Asked::Read]);
    assert!(!bench.written(all.len()));
    assert_eq!(bench.ops(), [Asked::Shutdown]);
    bench.wait(7001);
    assert_eq!(bench.ops(), [Asked::Reset]);
}

#[test]
fn an_abort_is_an_rst_and_nothing_else() {
    for connected in [true, false] {
        let mut bench = if connected { Bench::connected() } else { Bench::new() };
        bench.push(b"dropped").unwrap();
        bench.link.abort(&mut bench.pool);
        bench.link.abort(&mut bench.pool);
        bench.close();
        assert_eq!((bench.ops(), bench.ends.len()), (vec![Asked::Reset], 0));
        assert_eq!(bench.pool.bytes_used(), 0);
    }
}

#[test]
fn a_full_pool_takes_no_part_of_a_message() {
    let mut bench = Bench::connected();
    bench.pool = Pool::new(2 * BLOCK);
    assert_eq!(bench.push(&[0; 2 * BLOCK]), Err(PushError::PoolFull));
    assert_eq!(bench.link.outbound(), 0);
    assert_eq!(bench.push(&[0; 2 * BLOCK - 2]), Ok(()));
}

/// The socket and the backend behind it, which echoes what follows the hello and ends when its client has.
#[derive(Default)]
struct Backend {
    /// The write and the read that are under way.
    writing: Vec<u8>,
    reading: bool,
    received: Vec<u8>,
    /// Echo that the link has not read.
    echo: VecDeque<u8>,
    shut: bool,
    closed: Option<Asked>,
}

impl Backend {
    fn ask(&mut self, ops: Vec<Asked>) {
        for op in ops {
            assert_eq!(self.closed, None, "nothing after the end");
            match op {
                Asked::Write(bytes) => self.writing = bytes,
                Asked::Read => self.reading = true,
                Asked::Shutdown => self.shut = true,
                Asked::Close | Asked::Reset => self.closed = Some(op),
            }
        }
    }

    fn take(&mut self, n: usize) {
        for byte in self.writing.drain(..).take(n) {
            if self.received.len() >= b"hello".len() {
                self.echo.push_back(byte);
            }
            self.received.push(byte);
        }
    }
}

/// A socket that takes and gives any number of bytes, and everything in any order: every message arrives, both ways, and
/// both ends end, whichever begins.
#[test]
fn any_conversation_keeps_every_message() {
    let mut messages = 0;
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let (mut bench, mut backend, mut sent) = (Bench::new(), Backend::default(), Vec::new());
        let backend_ends = dice.one_in(2);
        let mut steps = 0;
        while backend.closed.is_none() {
            steps += 1;
            assert!(steps < 100_000, "it does not end");
            let last = steps > 1000; // nobody says anything new, and what waits is delivered
            match dice.below(8) {
                0 => bench.link.on_connected(),
                1 | 2 if !last => {
                    let longest = if dice.one_in(4) { 5000 } else { 60 };
                    let len = 1 + dice.below(longest);
                    let message = dice.bytes(len);
                    match bench.push(&message) {
                        Ok(()) => sent.push(message),
                        Err(error) => assert_eq!(error, PushError::Full),
                    }
                }
                3 | 4 if !backend.writing.is_empty() => {
                    let n = 1 + dice.below(backend.writing.len());
                    backend.take(n);
                    let _ = bench.written(n);
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
            let said_all = last && bench.link.outbound() == 0;
            if (backend.shut || (said_all && backend_ends))
                && backend.reading
                && backend.echo.is_empty()
            {
                backend.reading = false;
                bench.eof();
            }
            backend.ask(bench.ops());
            assert!(bench.link.outbound() <= bench.config.write_max as usize);
        }
        let all: Vec<u8> = [b"hello".to_vec()]
            .into_iter()
            .chain(sent.iter().map(|message| frame(message)))
            .flatten()
            .collect();
        assert!(backend.received == all, "not what the session sent");
        assert!(sent.starts_with(&bench.messages), "not what the backend sent");
        assert_eq!((backend.closed, bench.pool.bytes_used()), (Some(Asked::Close), 0));
        if backend_ends {
            assert_eq!((bench.messages.len(), bench.ends), (sent.len(), vec![End::Fin]));
        } else {
            assert_eq!((backend.shut, bench.ends), (true, vec![]));
        }
        messages += bench.messages.len();
    }
    assert!(messages > 10_000, "the conversations were conversations: {messages}");
}
