//! Random deeds on many streams at once, with hardly any room: what is read is what was written, and every end is told.
//! `SEED=<number>` repeats a run.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use net_io::{Close, Driver, Now, StreamConfig, StreamEnd, StreamId};

use crate::bed::PATIENCE_US;
use crate::wire::{Seen, Side, StreamBed, TURN_US, loopback, until};

/// One end of a stream as it must be.
#[derive(Debug)]
struct End {
    id: StreamId,
    /// Decides its bytes.
    mark: usize,
    sent: usize,
    heard: usize,
    /// A read is asked for.
    asked: bool,
    reads: bool,
    finished: bool,
    fin: bool,
    over: Option<Over>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Aborted,
    Told(StreamEnd),
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the end with this mark says at an offset.
fn bytes(mark: usize, from: usize, len: usize) -> Vec<u8> {
    (0..=250u8).cycle().skip((mark * 37 + from) % 251).take(len).collect()
}

pub(crate) fn whatever_is_done_the_bytes_arrive<B: StreamBed>(bed: &mut B) {
    let seed = std::env::var("SEED").map_or_else(
        |_| RandomState::new().build_hasher().finish() | 1,
        |seed| seed.parse().unwrap(),
    );
    println!("SEED={seed}");
    let mut dice = Dice(seed);
    let config = StreamConfig {
        read_buffers: 4,
        read_buffer_len: 1000,
        write_max: 16 << 10,
        write_pool: 64 << 10,
        send_buffer: 8 << 10,
        recv_buffer: 8 << 10,
        ..StreamConfig::default()
    };
    for _ in 0..4 {
        let mut sides = [bed.side(config.clone()), bed.side(config.clone())];
        let mut ends = connect(bed, &mut sides, 12);
        for _ in 0..600 {
            let pair = dice.below(ends.len());
            let at = dice.below(2);
            act(&mut dice, &mut sides[at], &mut ends[pair][at]);
            if dice.one_in(3) {
                turn(&mut sides, &mut ends, 0);
            }
        }
        // Everybody who is still there ends in peace.
        for pair in &mut ends {
            for (side, end) in sides.iter_mut().zip(pair) {
                end.reads = true;
                end.finished = true;
                ask(side, end);
                side.driver.stream_close(end.id, Close::Finish);
            }
        }
        let limit = Now(sides[0].driver.now().0 + PATIENCE_US);
        while ends.iter().flatten().any(|end| end.over.is_none()) {
            assert!(sides[0].driver.now() < limit, "some did not end: {ends:?}");
            turn(&mut sides, &mut ends, TURN_US);
        }
        for pair in &ends {
            check(pair);
        }
        for side in &sides {
            let counters = side.driver.stream_counters();
            assert_eq!((counters.open, counters.connecting, counters.queued_bytes), (0, 0, 0));
        }
    }
}

fn connect<B: StreamBed>(
    bed: &mut B,
    sides: &mut [Side<B::Driver>; 2],
    count: usize,
) -> Vec<[End; 2]> {
    let [a, b] = sides;
    (a.reads, b.reads) = (false, false);
    let (listener, addr) = bed.listen(&loopback());
    let mut ends = Vec::new();
    for number in 0..count {
        let at_a = a.driver.connect(&addr, None).unwrap();
        let at_b = bed.accepted(&listener, a, b);
        let end = |id, mark| End {
            id,
            mark,
            sent: 0,
            heard: 0,
            asked: false,
            reads: false,
            finished: false,
            fin: false,
            over: None,
        };
        ends.push([end(at_a, 2 * number), end(at_b, 2 * number + 1)]);
    }
    until(a, b, |a, _| a.seen.len() == count);
    a.take();
    ends
}

/// Does something with one end.
fn act<D: Driver>(dice: &mut Dice, side: &mut Side<D>, end: &mut End) {
    match dice.below(60) {
        0 => {
            side.driver.stream_close(end.id, Close::Abort);
            end.over.get_or_insert(Over::Aborted);
        }
        1 => {
            side.driver.stream_close(end.id, Close::Finish);
            end.finished = true;
        }
        2..=9 => end.reads = !end.reads,
        _ => {
            let wanted = dice.below(5000);
            let taken = side.driver.stream_write(end.id, &bytes(end.mark, end.sent, wanted));
            assert!(taken <= wanted);
            assert!(taken == 0 || !(end.finished || end.over.is_some()), "{end:?} took {taken}");
            end.sent += taken;
        }
    }
    ask(side, end);
}

fn ask<D: Driver>(side: &mut Side<D>, end: &mut End) {
    if end.reads && end.over.is_none() {
        side.driver.stream_read(end.id);
        end.asked = true;
    }
}

/// A turn of both, and what they tell held against what may be.
fn turn<D: Driver>(sides: &mut [Side<D>; 2], ends: &mut [[End; 2]], us: u64) {
    for (at, side) in sides.iter_mut().enumerate() {
        side.turn(us);
        for seen in side.take() {
            let id = match &seen {
                Seen::Connected(id)
                | Seen::Failed(id, _)
                | Seen::Data(id, _)
                | Seen::Writable(id)
                | Seen::Fin(id)
                | Seen::Closed(id, _) => *id,
            };
            let pair = ends.iter_mut().find(|pair| pair[at].id == id).unwrap();
            let peer = pair[1 - at].mark;
            let end = &mut pair[at];
            assert_eq!(end.over, None, "{seen:?} after the end");
            match seen {
                Seen::Data(_, heard) => {
                    assert!(end.asked && !end.fin, "{end:?}");
                    end.asked = false;
                    assert_eq!(heard, bytes(peer, end.heard, heard.len()), "{end:?}");
                    end.heard += heard.len();
                }
                Seen::Fin(_) => {
                    assert!(end.asked && !end.fin, "{end:?}");
                    end.fin = true;
                }
                Seen::Closed(_, how) => end.over = Some(Over::Told(how)),
                Seen::Connected(_) | Seen::Writable(_) => {}
                Seen::Failed(..) => panic!("{seen:?}"),
            }
            ask(side, end);
        }
    }
}

/// Both ends of a stream that is over.
fn check(pair: &[End; 2]) {
    let [a, b] = pair;
    assert!(a.heard <= b.sent && b.heard <= a.sent, "{pair:?}");
    if a.over != Some(Over::Aborted) && b.over != Some(Over::Aborted) {
        let finished = Some(Over::Told(StreamEnd::Finished));
        assert_eq!((a.over, b.over), (finished, finished), "{pair:?}");
        assert_eq!((a.heard, b.heard), (b.sent, a.sent), "{pair:?}");
    }
}
