//! One behaviour per test, against bytes written by hand; whole conversations with a simulated backend are in `sim`.

mod peer;
mod sim;

use net_io::Now;

use super::super::framing::{Codec, Framing};
use super::super::pool::{BLOCK, Pool};
use super::super::{Cx, End, Event};
use super::frame::{Flags, HEADER, Header, Kind};
use super::outbox::CONTROL_RESERVE;
use super::streams::INITIAL_WINDOW;
use super::*;

/// A connection, its pool, and everything that happened to its sessions.
struct Bench {
    mux: Mux<u32>,
    pool: Pool,
    now: Now,
    /// Whether sessions have room.
    room: bool,
    messages: Vec<(u32, Vec<u8>)>,
    empty: u32,
    ends: Vec<(u32, End)>,
}

fn codec() -> Codec {
    Codec { framing: Framing::U32Be, message_max: 100_000, cut: 1000 }
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = Now(1_000_000);
        Self {
            mux: Mux::new(config, now).unwrap(),
            pool: Pool::new(4 << 20),
            now,
            room: true,
            messages: Vec::new(),
            empty: 0,
            ends: Vec::new(),
        }
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Mux<u32>, &mut Cx<'_, &mut dyn FnMut(u32, Event<'_>) -> bool>) -> T,
    ) -> T {
        let (room, messages, ends) = (self.room, &mut self.messages, &mut self.ends);
        let empty = &mut self.empty;
        let mut sink = |session, event: Event<'_>| match event {
            Event::Message(_) if !room => false,
            Event::Message(message) => {
                messages.push((session, message.to_vec()));
                true
            }
            Event::Empty(frames) => {
                *empty += frames;
                true
            }
            Event::End(end) => {
                ends.push((session, end));
                true
            }
        };
        let mut sink: &mut dyn FnMut(u32, Event<'_>) -> bool = &mut sink;
        call(&mut self.mux, &mut Cx { now: self.now, pool: &mut self.pool, sink: &mut sink })
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.with(|mux, cx| mux.on_read(cx, bytes))
    }

    fn open(&mut self, session: u32) -> StreamKey {
        self.mux.open(session, b"").unwrap()
    }

    fn open_all(&mut self, sessions: &[u32]) {
        for &session in sessions {
            self.open(session);
        }
    }

    fn push(&mut self, key: StreamKey, message: &[u8]) -> Result<(), PushError> {
        self.mux.push(&mut self.pool, key, message)
    }

    /// What the connection wrote, frame by frame.
    fn written(&mut self) -> Vec<(Header, Vec<u8>)> {
        let bytes = self.mux.pending(self.now).to_vec();
        self.mux.on_written(self.now, bytes.len(), &mut self.pool);
        let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
            let header = Header::decode(*header).unwrap();
            let body = if header.kind == Kind::Data { header.length as usize } else { 0 };
            frames.push((header, after[..body].to_vec()));
            rest = &after[body..];
        }
        assert!(rest.is_empty());
        frames
    }

    fn headers(&mut self) -> Vec<Header> {
        self.written().into_iter().map(|(header, _)| header).collect()
    }

    /// Time passes, and the connection is looked at whenever it wants to be.
    fn timeout(&mut self, ms: u32) -> Result<(), LinkError> {
        let end = self.now.add_ms(ms);
        while let Some(at) = self.mux.poll_timeout(self.now).filter(|&at| at <= end) {
            self.now = at;
            self.with(|mux, cx| mux.handle_timeout(cx))?;
        }
        self.now = end;
        Ok(())
    }

    fn ends(&mut self) -> Vec<(u32, End)> {
        std::mem::take(&mut self.ends)
    }
}

fn header(kind: Kind, flags: Flags, stream: u32, length: u32) -> Header {
    Header { kind, flags, stream, length }
}

fn data(stream: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&header(Kind::Data, flags, stream, length).encode()[..], payload].concat()
}

fn update(stream: u32, flags: Flags, window: u32) -> [u8; HEADER] {
    header(Kind::WindowUpdate, flags, stream, window).encode()
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn flags(all: &[Flags]) -> Flags {
    Flags(all.iter().fold(0, |bits, flag| bits | flag.0))
}

#[test]
fn numbers_that_do_not_go_together_are_refused() {
    let good = Config::new(codec());
    let bad = |config| Mux::<u32>::new(config, Now(0)).err();
    assert_eq!(bad(Config { window: 262_143, ..good }), Some(ConfigError::Window));
    assert_eq!(bad(Config { window: WINDOW_MAX + 1, ..good }), Some(ConfigError::Window));
    let long = Codec { message_max: 196_608 - 3, ..codec() };
    assert_eq!(
        bad(Config { window: INITIAL_WINDOW, codec: long, ..good }),
        Some(ConfigError::MessageBeyondWindow)
    );
    assert_eq!(
        bad(Config { write_max: 103_000, ..good }),
        Some(ConfigError::MessageBeyondWriteBuffer)
    );
    assert_eq!(bad(Config { streams_max: 0, ..good }), Some(ConfigError::NoStreams));
    for message_max in [1, 100_000, 400_000, 500_000] {
        assert_eq!(bad(Config::new(Codec { message_max, ..codec() })), None, "{message_max}");
    }
}

#[test]
fn a_stream_opens_with_its_hello_and_carries_framed_messages() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.mux.open(7, b"hello").unwrap();
    bench.push(key, b"first").unwrap();
    let second = bench.open(8);
    bench.push(second, b"x").unwrap();
    let frames = bench.written();
    assert_eq!(
        frames,
        [
            (header(Kind::Data, Flags::SYN, 1, 5), b"hello".to_vec()),
            (header(Kind::Data, Flags::NONE, 1, 9), message(b"first")),
            (header(Kind::WindowUpdate, Flags::SYN, 3, 0), vec![]),
            (header(Kind::Data, Flags::NONE, 3, 5), message(b"x")),
        ]
    );
}

#[test]
fn a_larger_window_is_announced_with_the_stream() {
    let mut bench = Bench::new(Config { window: INITIAL_WINDOW + 1000, ..Config::new(codec()) });
    bench.mux.open(7, b"hello").unwrap();
    let expected =
        [header(Kind::WindowUpdate, Flags::SYN, 1, 1000), header(Kind::Data, Flags::NONE, 1, 5)];
    assert_eq!(bench.headers(), expected);
}

#[test]
fn messages_are_handed_out_from_any_frames() {
    let mut bench = Bench::new(Config::new(codec()));
    let (_a, _b) = (bench.open(7), bench.open(8));
    let first = message(&[1; 3000]);
    let wire = [
        data(1, Flags::ACK, &first[..2]),
        data(3, Flags::ACK, &[message(b"one"), message(b""), message(b"two")].concat()),
        data(1, Flags::NONE, &first[2..]),
        data(1, Flags::NONE, b""),
    ]
    .concat();
    for piece in [1, 5, 700, wire.len()] {
        for bytes in wire.chunks(piece) {
            bench.read(bytes).unwrap();
        }
        let got = std::mem::take(&mut bench.messages);
        assert_eq!(got, [(8, b"one".to_vec()), (8, b"two".to_vec()), (7, vec![1; 3000])]);
        assert_eq!(std::mem::take(&mut bench.empty), 1, "passed over and told");
        assert_eq!(bench.pool.bytes_used(), 0);
    }
}

#[test]
fn what_does_not_fit_the_window_waits_for_it() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.open(7);
    let long = vec![5; 100_000];
    bench.push(key, &long).unwrap();
    bench.push(key, &long).unwrap();
    bench.push(key, &long).unwrap(); // 37,868 bytes of it do not fit
    assert_eq!(bench.push(key, b"more"), Err(PushError::Full));
    let sent: usize = bench.written().iter().map(|(_, body)| body.len()).sum();
    assert_eq!(sent, INITIAL_WINDOW as usize);
    assert_eq!(bench.mux.poll_room(), None);
    bench.read(&update(1, Flags::ACK, 37_868 + 10)).unwrap();
    let rest = bench.written();
    assert_eq!(rest.iter().map(|(_, body)| body.len()).collect::<Vec<_>>(), [16_384, 16_384, 5100]);
    assert_eq!((bench.mux.poll_room(), bench.mux.poll_room()), (Some(7), None));
    bench.push(key, b"more").unwrap();
    assert_eq!(bench.written()[0].1, message(b"more"));
    assert_eq!(bench.push(key, b"x"), Ok(()), "two bytes of window are left for five");
    assert_eq!(bench.push(key, b"x"), Err(PushError::Full));
}

#[test]
fn a_full_write_buffer_refuses_in_turn_and_says_when_it_has_room() {
    let write_max = 3 * 100_000 + u32::try_from(CONTROL_RESERVE).unwrap();
    let mut bench = Bench::new(Config { write_max, ..Config::new(codec()) });
    let keys = [bench.open(0), bench.open(1), bench.open(2), bench.open(3)];
    let long = vec![5; 99_000];
    let pushed: Vec<_> = keys.iter().map(|&key| bench.push(key, &long)).collect();
    assert_eq!(pushed, [Ok(()), Ok(()), Ok(()), Err(PushError::Full)]);
    assert_eq!(bench.push(keys[1], &long), Err(PushError::Full));
    assert_eq!(bench.mux.poll_room(), None);
    let half = bench.mux.pending(bench.now).len() / 2;
    bench.mux.on_written(bench.now, half, &mut bench.pool);
    assert_eq!(bench.mux.poll_room(), Some(3));
    bench.push(keys[3], &long).unwrap();
    assert_eq!(bench.mux.poll_room(), None, "no room for another");
    bench.mux.on_written(bench.now, usize::MAX >> 1, &mut bench.pool);
    assert_eq!((bench.mux.poll_room(), bench.mux.poll_room()), (Some(1), None));
}

#[test]
fn a_full_pool_takes_no_part_of_a_message() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.pool = Pool::new(2 * BLOCK);
    let key = bench.open(7);
    let long = vec![5; 100_000];
    bench.push(key, &long).unwrap();
    bench.push(key, &long).unwrap();
    let before = bench.mux.pending(bench.now).len();
    assert_eq!(bench.push(key, &long), Err(PushError::PoolFull));
    assert_eq!(bench.mux.pending(bench.now).len(), before);
    bench.push(key, &long[..60_000]).unwrap();
}

#[test]
fn what_can_never_be_sent_is_refused() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.open(7);
    bench.written();
    assert_eq!(bench.push(key, b""), Err(PushError::Unsendable));
    assert_eq!(bench.push(key, &[0; 100_001]), Err(PushError::Unsendable));
    let none = bench.mux.push_with(&mut bench.pool, key, 10, |_| false);
    assert_eq!(none, Err(PushError::NotFilled));
    assert_eq!(bench.written(), []);
}

#[test]
fn a_window_opens_only_by_what_the_session_took() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.open(7);
    bench.written();
    bench.room = false;
    let frame = data(1, Flags::ACK, &message(&[1; 60_000]));
    bench.read(&frame).unwrap();
    bench.read(&data(1, Flags::NONE, &message(&[2; 60_000]))).unwrap();
    assert_eq!((bench.headers(), bench.messages.len()), (vec![], 0));
    bench.room = true;
    bench.with(|mux, cx| mux.resume(cx, key));
    assert_eq!(bench.messages.len(), 2);
    assert_eq!(bench.headers(), [header(Kind::WindowUpdate, Flags::NONE, 1, 120_008)]);
    assert_eq!(bench.pool.bytes_used(), 0);
    bench.read(&frame).unwrap();
    assert_eq!(bench.headers(), [], "a small debt waits");
    bench.read(&data(1, Flags::NONE, &message(&[2; 6000]))).unwrap();
    assert_eq!(bench.headers(), [header(Kind::WindowUpdate, Flags::NONE, 1, 66_008)]);
}

#[test]
fn more_than_the_window_ends_the_connection() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open(7);
    bench.written();
    bench.room = false;
    for _ in 0..4 {
        bench.read(&data(1, Flags::NONE, &message(&[1; 65_532]))).unwrap();
    }
    assert_eq!(bench.read(&data(1, Flags::NONE, b"")), Ok(()));
    assert_eq!(bench.read(&data(1, Flags::NONE, b"x")), Err(LinkError::WindowExceeded));
    assert_eq!(bench.headers(), [header(Kind::GoAway, Flags::NONE, 0, 1)]);
    assert_eq!(bench.read(b"anything"), Err(LinkError::WindowExceeded));
    assert!(bench.with(|mux, cx| mux.tear_down(cx, &mut 10)));
    assert_eq!(bench.ends(), [(7, End::LinkLost)]);
    assert_eq!((bench.pool.bytes_used(), bench.mux.streams()), (0, 0));
}

#[test]
fn what_no_honest_backend_sends_ends_the_connection() {
    let cases: [(&[u8], LinkError); 8] = [
        (&[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], LinkError::Version),
        (&[0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], LinkError::Kind),
        (&data(0, Flags::NONE, b""), LinkError::StreamZero),
        (&update(3, Flags::NONE, 1), LinkError::UnknownStream),
        (&update(1, Flags::SYN, 0), LinkError::Syn),
        (&update(1, Flags::NONE, u32::MAX), LinkError::WindowOverflow),
        (&header(Kind::GoAway, Flags::NONE, 0, 2).encode(), LinkError::GoAway { code: 2 }),
        (
            &[&data(1, Flags::NONE, b"")[..], &update(5, Flags::ACK, 0)].concat(),
            LinkError::UnknownStream,
        ),
    ];
    for (bytes, error) in cases {
        for piece in [1, bytes.len()] {
            let mut bench = Bench::new(Config::new(codec()));
            bench.open(7);
            let end = bytes.chunks(piece).map(|b| bench.read(b)).find(Result::is_err);
            assert_eq!(end, Some(Err(error)));
        }
    }
}

#[test]
fn data_after_the_end_of_data_ends_the_connection() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open(7);
    bench.room = false;
    bench.read(&data(1, Flags::FIN, &message(b"the last one"))).unwrap();
    bench.read(&update(1, Flags::FIN, 0)).unwrap(); // said twice is no harm
    assert_eq!(bench.read(&data(1, Flags::NONE, b"x")), Err(LinkError::DataAfterFin));
}

#[test]
fn the_backend_closes_after_its_last_message() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.open(7);
    bench.written();
    bench.room = false;
    bench.read(&data(1, flags(&[Flags::ACK, Flags::FIN]), &message(b"bye"))).unwrap();
    assert_eq!(bench.ends(), [], "not before it is delivered");
    bench.push(key, b"still heard").unwrap();
    bench.room = true;
    bench.with(|mux, cx| mux.resume(cx, key));
    assert_eq!(bench.messages, [(7, b"bye".to_vec())]);
    assert_eq!(bench.ends(), [(7, End::Fin)]);
    let frames = bench.headers();
    assert_eq!(frames[0], header(Kind::Data, Flags::NONE, 1, 15));
    assert_eq!(frames[1], header(Kind::WindowUpdate, Flags::FIN, 1, 0));
    assert_eq!((frames.len(), bench.mux.streams()), (2, 0));
    assert_eq!(bench.push(key, b"late"), Err(PushError::Gone));
    bench.read(&update(1, Flags::NONE, 100)).unwrap(); // it was on its way
}

#[test]
fn a_backend_that_closes_inside_a_message_is_told_apart() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open(7);
    bench.read(&data(1, Flags::NONE, &message(b"whole, and")[..10])).unwrap();
    bench.read(&update(1, Flags::FIN, 0)).unwrap();
    assert_eq!((bench.ends(), bench.messages.len()), (vec![(7, End::FinMidMessage)], 0));
    assert_eq!(bench.pool.bytes_used(), 0);
}

#[test]
fn a_reset_is_an_end_now_and_a_refusal_when_it_comes_first() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.room = false;
    bench.open_all(&[7, 8, 9]);
    bench.read(&data(1, Flags::ACK, &message(b"never seen"))).unwrap();
    bench.read(&update(1, Flags::RST, 0)).unwrap();
    bench.read(&update(3, Flags::RST, 0)).unwrap();
    bench.read(&data(5, flags(&[Flags::ACK, Flags::RST]), b"dropped")).unwrap();
    assert_eq!(bench.ends(), [(7, End::Reset), (8, End::Refused), (9, End::Reset)]);
    assert_eq!((bench.messages.len(), bench.pool.bytes_used(), bench.mux.streams()), (0, 0, 0));
    assert_eq!(bench.mux.counters().late_bytes, 7);
}

#[test]
fn a_session_that_ends_sends_the_rest_and_a_fin_and_hears_nothing_more() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.open(7);
    for _ in 0..3 {
        bench.push(key, &[5; 100_000]).unwrap();
    }
    bench.mux.close(bench.now, &mut bench.pool, key);
    bench.written();
    bench.read(&data(1, Flags::ACK, &message(b"too late"))).unwrap();
    bench.read(&update(1, Flags::NONE, 100_000)).unwrap();
    let frames = bench.headers();
    assert_eq!(frames.iter().map(|h| h.length).sum::<u32>(), 37_868, "the rest of the message");
    assert_eq!(frames.last(), Some(&header(Kind::WindowUpdate, Flags::FIN, 1, 0)));
    bench.read(&data(1, Flags::FIN, b"and more")).unwrap();
    assert_eq!((bench.messages.len(), bench.ends(), bench.mux.streams()), (0, vec![], 0));
    assert_eq!(bench.mux.counters().late_bytes, 20);
}

#[test]
fn a_stream_that_the_backend_never_ends_is_cut_off() {
    let mut bench = Bench::new(Config::new(codec()));
    let (key, other) = (bench.open(7), bench.open(8));
    bench.mux.close(bench.now, &mut bench.pool, key);
    bench.written();
    assert_eq!(bench.timeout(29_999), Ok(()));
    assert_eq!(bench.headers(), []);
    assert_eq!(bench.mux.poll_timeout(bench.now), Some(bench.now.add_ms(1)));
    assert_eq!(bench.timeout(1), Ok(()));
    assert!(bench.headers().contains(&header(Kind::WindowUpdate, Flags::RST, 1, 0)));
    assert_eq!((bench.ends(), bench.mux.streams()), (vec![], 1));
    bench.mux.abort(&mut bench.pool, other);
    assert_eq!(bench.headers(), [header(Kind::WindowUpdate, Flags::RST, 3, 0)]);
}

#[test]
fn a_message_that_does_not_go_on_ends_its_session_alone() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open_all(&[7, 8]);
    bench.written();
    bench.read(&data(1, Flags::ACK, &message(b"begun")[..6])).unwrap();
    assert_eq!(bench.timeout(9999), Ok(()));
    bench.read(&data(1, Flags::NONE, b"e")).unwrap(); // progress
    assert_eq!(bench.timeout(9999), Ok(()));
    assert_eq!(bench.ends(), []);
    assert_eq!(bench.timeout(1), Ok(()));
    assert_eq!(bench.ends(), [(7, End::Stalled)]);
    assert_eq!(bench.headers(), [header(Kind::WindowUpdate, Flags::RST, 1, 0)]);
    assert_eq!((bench.pool.bytes_used(), bench.mux.streams()), (0, 1));
}

#[test]
fn an_oversize_message_ends_its_session_alone() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open_all(&[7, 8]);
    bench.written();
    let oversize = 100_001u32.to_be_bytes();
    bench.read(&data(1, Flags::ACK, &[&oversize[..], b"and some of it"].concat())).unwrap();
    bench.read(&data(3, Flags::ACK, &message(b"fine"))).unwrap();
    assert_eq!((bench.ends(), bench.messages.len()), (vec![(7, End::TooLong)], 1));
    assert_eq!(bench.headers(), [header(Kind::WindowUpdate, Flags::RST, 1, 0)]);
    bench.read(&data(1, Flags::NONE, b"the rest of it")).unwrap();
    assert_eq!(bench.mux.counters().late_bytes, 14);
}

#[test]
fn pings_go_both_ways() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.read(&header(Kind::Ping, Flags::SYN, 0, 77).encode()).unwrap();
    assert_eq!(bench.headers(), [header(Kind::Ping, Flags::ACK, 0, 77)]);
    assert_eq!(bench.mux.poll_timeout(bench.now), Some(bench.now.add_ms(30_000)));
    assert_eq!(bench.timeout(30_000), Ok(()));
    assert_eq!(bench.headers(), [header(Kind::Ping, Flags::SYN, 0, 0)]);
    bench.now = Now(bench.now.0 + 1234);
    bench.read(&header(Kind::Ping, Flags::ACK, 0, 5).encode()).unwrap();
    bench.read(&header(Kind::Ping, Flags::ACK, 0, 0).encode()).unwrap();
    assert_eq!((bench.mux.rtt_us(), bench.mux.counters().stray_pongs), (Some(1234), 1));
    assert_eq!(bench.timeout(30_000), Ok(()));
    assert_eq!(bench.headers(), [header(Kind::Ping, Flags::SYN, 0, 1)]);
    assert_eq!(bench.timeout(9_999), Ok(()));
    assert_eq!(bench.timeout(1), Err(LinkError::PingTimeout));
    assert_eq!(bench.headers(), [], "no protocol error");
}

#[test]
fn a_flood_that_asks_for_answers_is_bounded() {
    let write_max = 100_016 + u32::try_from(CONTROL_RESERVE).unwrap();
    let mut bench = Bench::new(Config { write_max, ..Config::new(codec()) });
    let ping = header(Kind::Ping, Flags::SYN, 0, 1).encode();
    let end = (0..1_000_000).map(|_| bench.read(&ping)).position(|r| r.is_err()).unwrap();
    let held = bench.mux.pending(bench.now).len();
    assert!(
        end * HEADER <= write_max as usize + 17 * HEADER && held <= write_max as usize + HEADER
    );
    assert_eq!(bench.mux.fail(LinkError::Eof), LinkError::ControlFlood, "the first reason stays");

    let mut bench = Bench::new(Config::new(codec()));
    let flood: Vec<u8> = (0..40).flat_map(|_| ping).collect();
    bench.read(&flood).unwrap();
    assert_eq!(bench.headers().len(), 40, "a burst that is read is none");
}

#[test]
fn streams_that_the_backend_opens_are_refused() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.read(&data(2, Flags::SYN, b"hello")).unwrap();
    bench.read(&update(4, Flags::SYN, 0)).unwrap();
    bench.read(&data(2, Flags::FIN, b"anybody?")).unwrap();
    let refusals = [2, 4].map(|id| header(Kind::WindowUpdate, Flags::RST, id, 0));
    assert_eq!(bench.headers(), refusals);
    // What was under way when it was refused, and what comes on one that the backend never opened, is dropped.
    bench.read(&data(6, Flags::NONE, b"who?")).unwrap();
    assert_eq!(bench.headers(), []);
    let counters = *bench.mux.counters();
    assert_eq!((counters.refused, counters.late_bytes, bench.mux.streams()), (2, 17, 0));
}

#[test]
fn going_away_leaves_open_streams_alone() {
    for by_us in [true, false] {
        let mut bench = Bench::new(Config::new(codec()));
        let key = bench.open(7);
        bench.written();
        if by_us {
            bench.mux.go_away();
            bench.mux.go_away();
            assert_eq!(bench.headers(), [header(Kind::GoAway, Flags::NONE, 0, 0)]);
        } else {
            bench.read(&header(Kind::GoAway, Flags::NONE, 0, 0).encode()).unwrap();
        }
        assert_eq!(bench.mux.open(8, b""), Err(OpenError::GoneAway));
        bench.push(key, b"on and on").unwrap();
        bench.read(&data(1, Flags::ACK, &message(b"and on"))).unwrap();
        assert_eq!(bench.messages.len(), 1);
    }
}

#[test]
fn streams_open_as_fast_as_the_backend_accepts_them() {
    let mut bench = Bench::new(Config { unacked_max: 2, ..Config::new(codec()) });
    let (a, _b) = (bench.open(1), bench.open(2));
    assert_eq!(bench.mux.open(3, b""), Err(OpenError::Unacked));
    bench.read(&update(1, Flags::ACK, 0)).unwrap();
    bench.read(&update(1, Flags::ACK, 0)).unwrap(); // says it twice
    let c = bench.open(3);
    assert_eq!(bench.mux.can_open(0), Err(OpenError::Unacked));
    bench.read(&update(3, Flags::RST, 0)).unwrap();
    assert_eq!(bench.mux.can_open(0), Ok(()));
    bench.mux.abort(&mut bench.pool, a);
    bench.mux.abort(&mut bench.pool, c);
    assert_eq!((bench.mux.unacked(), bench.mux.streams()), (0, 0));
    bench.open_all(&[4, 5]);
    bench.timeout(30_000).unwrap();
    bench.read(&header(Kind::Ping, Flags::ACK, 0, 0).encode()).unwrap();
    assert_eq!(bench.mux.unacked(), 0, "a backend that only listens has seen them");
}

#[test]
fn every_reason_not_to_open() {
    let mut bench = Bench::new(Config { streams_max: 1, ..Config::new(codec()) });
    let key = bench.open(1);
    assert_eq!(bench.mux.open(2, b""), Err(OpenError::Streams));
    bench.mux.abort(&mut bench.pool, key);
    let full = vec![0; 2 << 20];
    assert_eq!(bench.mux.open(2, &full), Err(OpenError::Full));
    bench.mux.skip_ids_to_last();
    let last = bench.open(2);
    assert_eq!(last.id(), u32::MAX - 2);
    bench.mux.abort(&mut bench.pool, last);
    assert_eq!(bench.mux.open(3, b""), Err(OpenError::Exhausted));
    bench.mux.fail(LinkError::Reset);
    assert_eq!(bench.mux.open(3, b""), Err(OpenError::Dead));
}

#[test]
fn a_connection_that_stands_still_is_noticed() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open(7);
    bench.written();
    bench.timeout(25_000).unwrap();
    bench.read(&data(1, Flags::NONE, b"xxxx")[..5]).unwrap();
    assert_eq!(bench.mux.poll_timeout(bench.now), Some(Now(bench.now.0 + 5_000_000)), "the ping");
    bench.timeout(9_999).unwrap();
    assert_eq!(bench.timeout(1), Err(LinkError::StalledRead));
    assert_eq!(bench.mux.poll_timeout(bench.now), None);

    let mut bench = Bench::new(Config { ping_timeout_ms: 60_000, ..Config::new(codec()) });
    let key = bench.open(7);
    bench.timeout(29_000).unwrap(); // nothing was offered to the kernel yet
    assert!(!bench.mux.pending(bench.now).is_empty());
    bench.timeout(9_000).unwrap();
    bench.mux.on_written(bench.now, 1, &mut bench.pool);
    bench.push(key, b"more").unwrap();
    bench.timeout(9_999).unwrap();
    bench.mux.on_written(bench.now, 0, &mut bench.pool);
    assert_eq!(bench.timeout(1), Err(LinkError::StalledWrite));
}

#[test]
fn a_backend_that_is_behind_with_reading_is_waited_for_as_long_as_it_moves() {
    let mut bench = Bench::new(Config::new(codec()));
    let key = bench.open(7);
    let open = bench.headers();
    assert_eq!(open.len(), 1);
    while bench.push(key, &[7; 1000]).is_ok() {}
    // The kernel takes nothing for minutes, and the backend speaks now and then: of this stream, in half a frame, or in whole ones.
    let begun = data(1, Flags::ACK, &message(b"begun")[..6]);
    assert!(!bench.mux.pending(bench.now).is_empty());
    for piece in [&begun[..3], &begun[3..15], &begun[15..]] {
        assert_eq!(bench.timeout(9_000), Ok(()));
        bench.read(piece).unwrap();
    }
    assert_eq!(bench.timeout(9_000), Ok(()), "a ping is waited for meanwhile, behind all that");
    bench.read(&update(1, Flags::NONE, 1)).unwrap();
    // It says nothing more, but what was refused is taken, a little at a time.
    for _ in 0..10 {
        assert_eq!(bench.timeout(9_000), Ok(()));
        bench.mux.on_written(bench.now, 100, &mut bench.pool);
    }
    assert_eq!(
        bench.ends(),
        [],
        "nor is the rest of its message, whose window it may not have read of"
    );
    bench.mux.on_written(bench.now, 0, &mut bench.pool);
    assert_eq!(bench.timeout(9_999), Ok(()));
    assert_eq!(bench.timeout(1), Err(LinkError::StalledWrite));
}

#[test]
fn a_pause_of_our_own_is_not_the_backends() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.open_all(&[7, 8]);
    bench.written();
    let pause = |bench: &mut Bench| {
        bench.now = bench.now.add_ms(3_600_000);
        bench.with(|mux, cx| mux.handle_timeout(cx))
    };
    bench.read(&data(1, Flags::ACK, &message(b"begun")[..6])).unwrap();
    bench.read(&data(3, Flags::ACK, &message(b"begun"))[..15]).unwrap();
    assert_eq!(pause(&mut bench), Ok(()), "inside a frame, and with a ping to send");
    bench.read(&data(3, Flags::ACK, &message(b"begun"))[15..]).unwrap();
    bench.read(&data(1, Flags::NONE, &message(b"begun")[6..])).unwrap();
    assert_eq!(pause(&mut bench), Ok(()), "with a ping to be answered");
    bench.read(&header(Kind::Ping, Flags::ACK, 0, 0).encode()).unwrap();
    assert_eq!((bench.ends(), bench.messages.len()), (vec![], 2));
    assert_eq!(bench.timeout(29_999), Ok(()));
}

#[test]
fn the_end_of_the_connection_is_the_end_of_every_session_in_steps() {
    let mut bench = Bench::new(Config::new(codec()));
    let keys: Vec<_> = (0..10).map(|session| bench.open(session)).collect();
    bench.mux.close(bench.now, &mut bench.pool, keys[3]);
    assert_eq!(bench.mux.on_eof(), LinkError::Eof);
    bench.mux.close(bench.now, &mut bench.pool, keys[4]);
    bench.mux.abort(&mut bench.pool, keys[5]);
    assert_eq!(bench.push(keys[6], b"x"), Err(PushError::Gone));
    let mut left = 7;
    assert!(!bench.with(|mux, cx| mux.tear_down(cx, &mut left)));
    assert_eq!(left, 0);
    left = 7;
    assert!(bench.with(|mux, cx| mux.tear_down(cx, &mut left)));
    assert_eq!(left, 4, "of ten");
    let told: Vec<_> = bench.ends().into_iter().map(|(session, _)| session).collect();
    assert_eq!(told, [0, 1, 2, 6, 7, 8, 9], "those that still had a session");
    assert_eq!(bench.mux.streams(), 0);

    let mut bench = Bench::new(Config::new(codec()));
    bench.read(&[0]).unwrap();
    assert_eq!(bench.mux.on_eof(), LinkError::EofMidFrame);
}

#[test]
fn memory_is_taken_back_from_those_that_hold_it() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.room = false;
    for session in 0..4 {
        bench.open(session);
    }
    for (stream, len) in [(1, 3000), (3, 90_000), (5, 70_000), (7, 20)] {
        bench.read(&data(stream, Flags::ACK, &message(&vec![1; len]))).unwrap();
    }
    let kept: Vec<_> = (0..bench.mux.slots() + 1).map(|slot| bench.mux.backlog(slot)).collect();
    assert_eq!(kept, [3004, 90_004, 70_004, 24, 0]);
    bench.with(|mux, cx| mux.shed(cx, 1));
    assert_eq!(bench.ends(), [(1, End::Shed)]);
    assert_eq!(bench.mux.backlog(1), 0);
    bench.with(|mux, cx| [0, 2, 3, 4].into_iter().for_each(|slot| mux.shed(cx, slot)));
    assert_eq!(bench.ends(), [0, 2, 3].map(|session| (session, End::Shed)));
    assert_eq!(bench.pool.bytes_used(), 0);
}

#[test]
fn when_the_pool_is_full_the_stream_that_needs_more_ends() {
    let mut bench = Bench::new(Config::new(codec()));
    bench.pool = Pool::new(8 * BLOCK);
    bench.room = false;
    bench.open_all(&[7, 8]);
    bench.written();
    bench.read(&data(1, Flags::ACK, &message(&[1; 8000]))).unwrap();
    bench.read(&data(3, Flags::ACK, &message(&[1; 200]))).unwrap();
    assert_eq!(bench.ends(), [(8, End::PoolFull)]);
    assert_eq!(bench.headers(), [header(Kind::WindowUpdate, Flags::RST, 3, 0)]);
}
