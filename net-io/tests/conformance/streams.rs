//! Streams: what is written on one side is read on the other, and both know how it ended.

use net_io::{ConnectError, Driver, StreamAddr, StreamConfig, StreamEnd, StreamId};

use crate::wire::{Pair, Seen, Side, StreamBed, TURN_US, loopback, until};

fn config() -> StreamConfig {
    StreamConfig::default()
}

/// Small buffers in the kernel, so that they are soon full.
fn narrow() -> StreamConfig {
    StreamConfig { send_buffer: 32 << 10, recv_buffer: 32 << 10, ..config() }
}

pub(crate) fn a_stream_over_ipv4_carries_both_ways<B: StreamBed>(bed: &mut B) {
    carries_both_ways(bed, &loopback());
}

pub(crate) fn a_stream_over_ipv6_carries_both_ways<B: StreamBed>(bed: &mut B) {
    carries_both_ways(bed, &StreamAddr::Tcp("[::1]:0".parse().unwrap()));
}

pub(crate) fn a_stream_over_a_unix_socket_carries_both_ways<B: StreamBed>(bed: &mut B) {
    carries_both_ways(bed, &StreamAddr::Unix("a".into()));
}

fn carries_both_ways<B: StreamBed>(bed: &mut B, addr: &StreamAddr) {
    let (listener, addr) = bed.listen(addr);
    let (mut a, mut b) = (bed.side(config()), bed.side(config()));
    let at_a = a.driver.connect(&addr, None).unwrap();
    // Before the connection is made: it goes with it, and so do the answers.
    a.driver.stream_read(at_a);
    a.write(at_a, b"hello ");
    a.write(at_a, b"there");
    assert_eq!(a.driver.stream_counters().open, 1);
    let at_b = bed.accepted(&listener, &mut a, &mut b);
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 11);
    assert_eq!(a.take(), [Seen::Connected(at_a)]);
    assert_eq!(b.take(), [Seen::Data(at_b, b"hello there".into())]);
    for round in 0..5u8 {
        b.write(at_b, &[round; 3]);
        until(&mut a, &mut b, |a, _| a.bytes(at_a) == 3);
        assert_eq!(a.take(), [Seen::Data(at_a, vec![round; 3])]);
        a.write(at_a, &[round; 9000]);
        until(&mut a, &mut b, |_, b| b.bytes(at_b) == 9000);
        assert_eq!(b.take(), [Seen::Data(at_b, vec![round; 9000])]);
    }
    let counters = a.driver.stream_counters();
    assert_eq!((counters.connected, counters.open, counters.connecting), (1, 1, 0));
    assert_eq!((counters.rx_bytes, counters.tx_bytes), (15, 45_011));
    assert_eq!((counters.tx_blocked, counters.tx_held, counters.queued_bytes), (0, 0, 0));
    assert_eq!(b.driver.stream_counters().connected, 1);
}

pub(crate) fn either_side_finishes_first<B: StreamBed>(bed: &mut B) {
    for a_first in [true, false] {
        let Pair { a, b, at_a, at_b } = bed.pair(&config());
        let (mut first, mut second, at_first, at_second) =
            if a_first { (a, b, at_a, at_b) } else { (b, a, at_b, at_a) };
        first.write(at_first, b"the last");
        first.finish(at_first);
        // Nobody takes what comes after.
        assert_eq!(first.driver.stream_write(at_first, b"more"), 0);
        until(&mut first, &mut second, |_, second| second.seen.len() == 2);
        assert_eq!(
            second.take(),
            [Seen::Data(at_second, b"the last".into()), Seen::Fin(at_second)]
        );
        // The other direction lives on.
        second.write(at_second, b"as you wish");
        until(&mut first, &mut second, |first, _| first.bytes(at_first) == 11);
        assert_eq!(first.take(), [Seen::Data(at_first, b"as you wish".into())]);
        second.finish(at_second);
        until(&mut first, &mut second, |first, second| first.seen.len() + second.seen.len() == 2);
        assert_eq!(first.take(), [Seen::Closed(at_first, StreamEnd::Finished)]);
        assert_eq!(second.take(), [Seen::Closed(at_second, StreamEnd::Finished)]);
        for side in [&first, &second] {
            let counters = side.driver.stream_counters();
            assert_eq!((counters.ended_finished, counters.open), (1, 0));
        }
    }
}

pub(crate) fn both_sides_finish_at_once<B: StreamBed>(bed: &mut B) {
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&config());
    a.finish(at_a);
    b.finish(at_b);
    until(&mut a, &mut b, |a, b| a.seen.len() + b.seen.len() == 2);
    assert_eq!(a.take(), [Seen::Closed(at_a, StreamEnd::Finished)]);
    assert_eq!(b.take(), [Seen::Closed(at_b, StreamEnd::Finished)]);
}

/// More than the kernel holds, so that the FIN has to wait for many sends.
pub(crate) fn a_finish_waits_for_what_is_queued<B: StreamBed>(bed: &mut B) {
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&narrow());
    b.reads = false;
    let sent = fill(&mut a, at_a, &mut b);
    a.finish(at_a);
    b.reads = true;
    assert_eq!(b.take().len(), 1, "the one read asked for");
    let first = usize::try_from(b.driver.stream_counters().rx_bytes).unwrap();
    b.driver.stream_read(at_b);
    until(&mut a, &mut b, |_, b| b.seen.last() == Some(&Seen::Fin(at_b)));
    assert_eq!(b.take()[0], Seen::Data(at_b, pattern(first..sent)));
    b.finish(at_b);
    until(&mut a, &mut b, |a, b| !a.seen.is_empty() && !b.seen.is_empty());
    assert_eq!(a.take(), [Seen::Closed(at_a, StreamEnd::Finished)]);
}

/// Writes the pattern until nothing has moved for a while, which ends with a write of which nothing was taken; how much.
fn fill<D: Driver>(from: &mut Side<D>, id: StreamId, to: &mut Side<D>) -> usize {
    let (mut sent, mut quiet) = (0, 0);
    loop {
        from.take();
        let taken = from.driver.stream_write(id, &pattern(sent..sent + 100_000));
        sent += taken;
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        if quiet == 20 {
            return sent;
        }
        from.turn(TURN_US);
        to.turn(0);
        assert!(sent < 4 << 20, "nothing holds the writer back");
    }
}

/// Bytes that tell where they belong.
fn pattern(range: std::ops::Range<usize>) -> Vec<u8> {
    (0..=250u8).cycle().skip(range.start % 251).take(range.len()).collect()
}

pub(crate) fn nothing_is_read_that_was_not_asked_for<B: StreamBed>(bed: &mut B) {
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&config());
    b.reads = false;
    a.write(at_a, b"first");
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 5);
    // That was the read asked for at the start.
    a.write(at_a, b"second");
    a.turn(0);
    for _ in 0..20 {
        b.turn(TURN_US);
    }
    assert_eq!(b.take(), [Seen::Data(at_b, b"first".into())]);
    // Asking many times asks once.
    for _ in 0..3 {
        b.driver.stream_read(at_b);
    }
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 6);
    a.write(at_a, b"third");
    a.turn(0);
    for _ in 0..20 {
        b.turn(TURN_US);
    }
    assert_eq!(b.take(), [Seen::Data(at_b, b"second".into())]);
    assert_eq!(b.driver.stream_counters().rx_reads, 2);
    b.driver.stream_read(at_b);
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 5);
}

/// A reader that does not ask stops the writer at its bound, and the writer hears when it may go on.
pub(crate) fn who_does_not_read_holds_the_writer_back<B: StreamBed>(bed: &mut B) {
    const BOUND: u32 = 32 << 10;
    let Pair { mut a, mut b, at_a, at_b } =
        bed.pair(&StreamConfig { write_max: BOUND, ..narrow() });
    b.reads = false;
    let sent = fill(&mut a, at_a, &mut b);
    let counters = a.driver.stream_counters();
    assert!(counters.queued_bytes <= u64::from(BOUND) + 2 * 2048, "{counters:?}");
    assert!(counters.queued_bytes >= u64::from(BOUND), "{counters:?}");
    assert!(counters.tx_held > 0 && counters.tx_blocked > 0, "{counters:?}");
    // A writer that is held back sleeps.
    let limit = net_io::Now(a.driver.now().0 + 20 * TURN_US);
    let enters = a.driver.counters().enters;
    while a.driver.now() < limit {
        a.turn(20 * TURN_US);
    }
    assert!(a.driver.counters().enters - enters < 20, "it spins");

    let first = b.driver.stream_counters().rx_bytes;
    assert_eq!(b.driver.stream_counters().rx_reads, 1);
    b.reads = true;
    b.driver.stream_read(at_b);
    until(&mut a, &mut b, |_, b| b.driver.stream_counters().rx_bytes == sent as u64);
    assert!(first > 0 && first < sent as u64);
    // The kernel may have taken some more by itself: told once, whenever it was.
    assert_eq!(a.take(), [Seen::Writable(at_a)]);
    assert_eq!(a.driver.stream_counters().queued_bytes, 0);
    a.write(at_a, b"!");
    until(&mut a, &mut b, |_, b| b.driver.stream_counters().rx_bytes == sent as u64 + 1);
}

/// What the kernel takes at once makes room at once: nobody else has to end the wait.
pub(crate) fn a_write_cut_short_goes_on_without_a_wait<B: StreamBed>(bed: &mut B) {
    const BOUND: usize = 8 << 10;
    let bounds = StreamConfig { write_max: 8 << 10, ..config() };
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&bounds);
    for _ in 0..4 {
        assert_eq!(a.driver.stream_write(at_a, &[7; BOUND + 1]), BOUND);
        a.turn_at_once();
        assert_eq!(a.take(), [Seen::Writable(at_a)]);
    }
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 4 * BOUND);
}

/// Megabytes both ways at once, byte for byte.
pub(crate) fn large_transfers_arrive_whole<B: StreamBed>(bed: &mut B) {
    const TOTAL: usize = 6 << 20;
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&config());
    let (mut sent_a, mut sent_b) = (0, 0);
    let (mut heard_a, mut heard_b) = (0, 0);
    let mut rounds = 0;
    while heard_a < TOTAL || heard_b < TOTAL {
        for (side, id, sent) in [(&mut a, at_a, &mut sent_a), (&mut b, at_b, &mut sent_b)] {
            // Odd sizes, so that pieces and chunks meet at all offsets.
            let end = TOTAL.min(*sent + 77_777);
            *sent += side.driver.stream_write(id, &pattern(*sent..end));
            side.turn(TURN_US);
        }
        for (side, heard) in [(&mut a, &mut heard_a), (&mut b, &mut heard_b)] {
            for seen in side.take() {
                if let Seen::Data(_, bytes) = seen {
                    assert!(bytes == pattern(*heard..*heard + bytes.len()), "at {heard}");
                    *heard += bytes.len();
                }
            }
        }
        rounds += 1;
        assert!(rounds < 100_000, "{heard_a} and {heard_b} of {TOTAL}");
    }
    assert_eq!(a.driver.stream_counters().tx_bytes, TOTAL as u64);
    assert_eq!(b.driver.stream_counters().rx_bytes, TOTAL as u64);
}

pub(crate) fn many_writes_of_a_turn_leave_as_one_send<B: StreamBed>(bed: &mut B) {
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&config());
    for (count, len) in [(100, 20), (100, 300)] {
        let before = a.driver.stream_counters().tx_sends;
        let enters = a.driver.counters().enters;
        for number in 0..count {
            a.write(at_a, &vec![number; len]);
        }
        a.turn(0);
        assert_eq!(a.driver.stream_counters().tx_sends - before, 1);
        assert!(a.driver.counters().enters - enters <= 2);
        let total = usize::from(count) * len;
        until(&mut a, &mut b, |_, b| b.bytes(at_b) == total);
        let expected: Vec<u8> = (0..count).flat_map(|number| vec![number; len]).collect();
        assert_eq!(b.take(), [Seen::Data(at_b, expected)]);
    }
}

pub(crate) fn a_connection_that_nobody_listens_for_is_refused<B: StreamBed>(bed: &mut B) {
    let (listener, addr) = bed.listen(&loopback());
    drop(listener);
    let (mut a, mut b) = (bed.side(config()), bed.side(config()));
    for round in 1..=3 {
        let id = a.driver.connect(&addr, None).unwrap();
        a.driver.stream_read(id);
        a.write(id, b"anybody?");
        until(&mut a, &mut b, |a, _| !a.seen.is_empty());
        assert_eq!(a.take(), [Seen::Failed(id, ConnectError::Refused)]);
        let counters = a.driver.stream_counters();
        assert_eq!((counters.failed_refused, counters.connected), (round, 0));
        assert_eq!((counters.open, counters.connecting, counters.queued_bytes), (0, 0, 0));
    }
    let nowhere = StreamAddr::Unix("/nowhere/at/all".into());
    assert_eq!(a.driver.connect(&nowhere, None), Err(ConnectError::Refused));
}

pub(crate) fn bounds_on_streams_are_kept<B: StreamBed>(bed: &mut B) {
    let (listener, addr) = bed.listen(&loopback());
    let mut b = bed.side(config());
    let mut a = bed.side(StreamConfig { streams_max: 3, connecting_max: 2, ..config() });
    let one = a.driver.connect(&addr, None).unwrap();
    let two = a.driver.connect(&addr, None).unwrap();
    assert_eq!(a.driver.connect(&addr, None), Err(ConnectError::Connecting));
    bed.accepted(&listener, &mut a, &mut b);
    bed.accepted(&listener, &mut a, &mut b);
    until(&mut a, &mut b, |a, _| a.seen.len() == 2);
    let three = a.driver.connect(&addr, None).unwrap();
    assert_eq!(a.driver.connect(&addr, None), Err(ConnectError::Streams));
    let stream = loop {
        if let Some(stream) = bed.accept(&listener) {
            break stream;
        }
        a.turn(TURN_US);
    };
    assert_eq!(a.driver.adopt(stream), Err(ConnectError::Streams));
    assert_eq!(a.driver.stream_counters().failed_limit, 3);
    for id in [one, two, three] {
        assert!(id.slot() < 3);
        a.abort(id);
    }
    a.driver.connect(&addr, None).unwrap();
    let mut without = bed.driver(&net_io::DriverConfig::default());
    assert_eq!(without.connect(&addr, None), Err(ConnectError::Streams));
    assert_eq!(without.stream_event(), None);
}

pub(crate) fn an_abort_is_a_reset_to_the_peer<B: StreamBed>(bed: &mut B) {
    for a_aborts in [true, false] {
        let Pair { a, b, at_a, at_b } = bed.pair(&config());
        let (mut one, mut other, at_one, at_other) =
            if a_aborts { (a, b, at_a, at_b) } else { (b, a, at_b, at_a) };
        one.write(at_one, b"never sent");
        one.abort(at_one);
        until(&mut one, &mut other, |_, other| !other.seen.is_empty());
        assert_eq!(other.take(), [Seen::Closed(at_other, StreamEnd::Reset)]);
        assert_eq!(other.driver.stream_counters().ended_reset, 1);
        // Who aborts knows.
        one.turn(TURN_US);
        assert_eq!(one.take(), []);
        let counters = one.driver.stream_counters();
        assert_eq!((counters.aborted, counters.open, counters.queued_bytes), (1, 0, 0));
    }
}

/// The peer leaves while there is more for it than it can take. A read that is asked for tells; without one, a write does.
pub(crate) fn a_peer_that_leaves_in_mid_write_is_a_reset<B: StreamBed>(bed: &mut B) {
    for reads in [true, false] {
        let Pair { mut a, mut b, at_a, at_b } = bed.pair(&narrow());
        b.reads = false;
        a.reads = reads;
        if !reads {
            // Uses up the read that is asked for.
            b.write(at_b, b"x");
            until(&mut a, &mut b, |a, _| a.bytes(at_a) == 1);
        }
        fill(&mut a, at_a, &mut b);
        a.take();
        b.abort(at_b);
        let is_end = |seen: &Seen| matches!(seen, Seen::Closed(..));
        until(&mut a, &mut b, |a, _| {
            if !reads {
                a.driver.stream_write(at_a, b"x");
            }
            a.seen.iter().any(is_end)
        });
        assert_eq!(a.take().last(), Some(&Seen::Closed(at_a, StreamEnd::Reset)));
        assert_eq!(a.driver.stream_write(at_a, b"x"), 0);
        assert_eq!(a.driver.stream_counters().queued_bytes, 0);
    }
}

/// A write that meets the reset must not swallow what came before it.
pub(crate) fn the_last_words_of_a_peer_are_heard<B: StreamBed>(bed: &mut B) {
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&config());
    b.reads = false;
    a.write(at_a, b"x");
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 1);
    // The peer leaves with something unread: its kernel resets the connection after the words.
    a.write(at_a, b"ignored");
    a.turn(0);
    b.driver.stream_write(at_b, b"good bye");
    b.turn(0);
    drop(b);
    a.write(at_a, b"one");
    let mut b = bed.side(config());
    until(&mut a, &mut b, |a, _| a.seen.len() == 2);
    let seen = a.take();
    assert_eq!(seen[0], Seen::Data(at_a, b"good bye".into()));
    assert!(matches!(seen[1], Seen::Closed(id, StreamEnd::Reset) if id == at_a), "{seen:?}");
}

pub(crate) fn a_handle_that_is_not_valid_finds_nobody<B: StreamBed>(bed: &mut B) {
    let (listener, addr) = bed.listen(&loopback());
    let (mut a, mut b) = (bed.side(config()), bed.side(config()));
    let old = a.driver.connect(&addr, None).unwrap();
    bed.accepted(&listener, &mut a, &mut b);
    until(&mut a, &mut b, |a, _| a.seen.len() == 1);
    a.driver.stream_read(old);
    a.turn(0);
    a.abort(old);
    a.take();
    let new = a.driver.connect(&addr, None).unwrap();
    assert_eq!(new.slot(), old.slot());
    assert_ne!(new, old);
    let at_b = bed.accepted(&listener, &mut a, &mut b);
    a.driver.stream_read(old);
    assert_eq!(a.driver.stream_write(old, b"lost"), 0);
    a.finish(old);
    a.abort(old);
    until(&mut a, &mut b, |a, _| a.seen == [Seen::Connected(new)]);
    b.write(at_b, b"not asked for");
    b.turn(0);
    for _ in 0..20 {
        a.turn(TURN_US);
    }
    assert_eq!(a.take(), [Seen::Connected(new)]);
    a.write(new, b"here");
    b.take();
    until(&mut a, &mut b, |_, b| b.bytes(at_b) == 4);
    assert_eq!(b.take(), [Seen::Data(at_b, b"here".into())]);
    assert_eq!(a.driver.stream_counters().aborted, 1);
}

/// Aborted at every stage of its making, a connection leaves nothing behind and is not heard of again.
pub(crate) fn a_connection_can_be_aborted_before_it_is_made<B: StreamBed>(bed: &mut B) {
    let (listener, addr) = bed.listen(&loopback());
    let mut a = bed.side(config());
    for turns in 0..4 {
        for _ in 0..10 {
            let id = a.driver.connect(&addr, None).unwrap();
            a.driver.stream_read(id);
            a.write(id, b"hello");
            for turn in 0..turns {
                // An event that was not looked at yet is taken back.
                let deadline = net_io::Now(a.driver.now().0 + u64::from(turn > 0) * 50);
                a.driver.submit_and_wait(Some(deadline)).unwrap();
            }
            a.abort(id);
        }
        a.turn(TURN_US);
        assert_eq!(a.take(), []);
        let counters = a.driver.stream_counters();
        assert_eq!((counters.open, counters.connecting, counters.queued_bytes), (0, 0, 0));
        assert_eq!(counters.aborted, 10 * (turns + 1));
    }
    drop(listener);
}

/// Events that were not looked at do not let a turn wait, and are still there.
pub(crate) fn events_left_over_do_not_block<B: StreamBed>(bed: &mut B) {
    let Pair { mut a, mut b, at_a, at_b } = bed.pair(&config());
    a.write(at_a, b"now");
    a.turn(0);
    let limit = net_io::Now(b.driver.now().0 + crate::bed::PATIENCE_US);
    for _ in 0..3 {
        assert!(b.driver.submit_and_wait(Some(limit)).unwrap() < limit, "it waited");
    }
    b.turn_at_once();
    assert_eq!(b.take(), [Seen::Data(at_b, b"now".into())]);
    // And without any, it waits.
    let deadline = net_io::Now(b.driver.now().0 + 3000);
    assert!(b.driver.submit_and_wait(Some(deadline)).unwrap() >= deadline);
}
