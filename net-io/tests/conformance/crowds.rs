//! Many streams on one driver, and streams beside datagrams.

use net_io::{Close, Driver, DriverConfig, StreamAddr, StreamConfig, StreamEnd, StreamId};

use crate::bed::End;
use crate::wire::{Pair, Seen, Side, StreamBed, TURN_US, loopback, until};

/// Makes `count` streams from `a` to `b`, the ids in the same order on both sides.
fn many<B: StreamBed>(
    bed: &mut B,
    a: &mut Side<B::Driver>,
    b: &mut Side<B::Driver>,
    count: usize,
) -> Vec<(StreamId, StreamId)> {
    many_over(bed, &loopback(), a, b, count)
}

fn many_over<B: StreamBed>(
    bed: &mut B,
    addr: &StreamAddr,
    a: &mut Side<B::Driver>,
    b: &mut Side<B::Driver>,
    count: usize,
) -> Vec<(StreamId, StreamId)> {
    let (listener, addr) = bed.listen(addr);
    let mut ids = Vec::new();
    while ids.len() < count {
        let at_a = a.driver.connect(&addr, None).unwrap();
        let at_b = bed.accepted(&listener, a, b);
        ids.push((at_a, at_b));
        if ids.len() % 100 == 0 {
            a.turn(0);
        }
    }
    until(a, b, |a, _| a.seen.len() == count);
    a.seen.clear();
    for (at_a, _) in &ids {
        a.driver.stream_read(*at_a);
    }
    ids
}

/// Few buffers, so that most readable streams have to wait for one.
pub(crate) fn thousands_of_streams_take_turns<B: StreamBed>(bed: &mut B) {
    const STREAMS: usize = 2000;
    let config = StreamConfig { read_buffers: 16, ..StreamConfig::default() };
    let (mut a, mut b) = (bed.side(config.clone()), bed.side(config));
    let ids = many(bed, &mut a, &mut b, STREAMS);
    assert_eq!(a.driver.stream_counters().open, STREAMS as u64);
    for round in 0..3u8 {
        for (number, (at_a, _)) in ids.iter().enumerate() {
            let number = u32::try_from(number).unwrap().to_le_bytes();
            a.write(*at_a, &[&[round], &number[..]].concat());
        }
        until(&mut a, &mut b, |_, b| b.seen.len() == STREAMS);
        // And back, whatever the order.
        for seen in b.take() {
            let Seen::Data(id, bytes) = seen else { panic!("{seen:?}") };
            b.write(id, &bytes);
        }
        until(&mut a, &mut b, |a, _| a.seen.len() == STREAMS);
        let mut heard = a.take();
        heard.sort_by_key(|seen| {
            let Seen::Data(id, _) = seen else { panic!("{seen:?}") };
            id.slot()
        });
        for (seen, (number, (at_a, _))) in heard.into_iter().zip(ids.iter().enumerate()) {
            let number = u32::try_from(number).unwrap().to_le_bytes();
            assert_eq!(seen, Seen::Data(*at_a, [&[round], &number[..]].concat()));
        }
    }
    for side in [&a, &b] {
        let counters = side.driver.stream_counters();
        assert_eq!(counters.rx_reads, 3 * STREAMS as u64);
        // Waiting for a buffer is not free, and must not be tried by all for each one that comes back.
        assert!(counters.rx_dry <= 2 * counters.rx_reads, "{counters:?}");
    }
    // All end at once: half from each side.
    for (number, (at_a, at_b)) in ids.iter().enumerate() {
        if number % 2 == 0 {
            a.finish(*at_a);
        } else {
            b.driver.stream_close(*at_b, Close::Abort);
        }
    }
    until(&mut a, &mut b, |a, b| {
        for seen in std::mem::take(&mut b.seen) {
            let Seen::Fin(id) = seen else {
                assert!(matches!(seen, Seen::Closed(_, StreamEnd::Finished)), "{seen:?}");
                continue;
            };
            b.finish(id);
        }
        a.seen.len() == STREAMS
    });
    let counters = a.driver.stream_counters();
    assert_eq!((counters.ended_finished, counters.ended_reset), (1000, 1000));
    assert_eq!((counters.open, counters.queued_bytes), (0, 0));
}

/// Streams that are stuck share what all streams may queue, and leave room for one that is not.
pub(crate) fn streams_that_are_stuck_leave_room_for_others<B: StreamBed>(bed: &mut B) {
    const STUCK: usize = 40;
    const POOL: usize = 256 << 10;
    let config = StreamConfig { write_pool: POOL, send_buffer: 4096, ..StreamConfig::default() };
    let (mut a, mut b) = (bed.side(config.clone()), bed.side(config));
    // A Unix socket takes what it takes at once; TCP would take some more whenever one of its timers goes off.
    let unix = StreamAddr::Unix("stuck".into());
    let ids = many_over(bed, &unix, &mut a, &mut b, STUCK + 1);
    let (free, stuck) = ids.split_first().unwrap();
    b.reads = false;
    let mut quiet = 0;
    while quiet < 10 {
        a.take();
        let wrote: usize =
            stuck.iter().map(|(id, _)| a.driver.stream_write(*id, &[7; 100_000])).sum();
        quiet = if wrote == 0 { quiet + 1 } else { 0 };
        a.turn(TURN_US);
        b.turn(0);
    }
    let counters = a.driver.stream_counters();
    assert!(counters.queued_bytes <= POOL as u64, "{counters:?}");
    assert!(counters.queued_bytes >= POOL as u64 / 2, "{counters:?}");
    b.take();
    // Whoever reads still gets what is sent.
    b.reads = true;
    b.driver.stream_read(free.1);
    for round in 1..=10 {
        a.write(free.0, &[9; 2000]);
        until(&mut a, &mut b, |_, b| b.bytes(free.1) == 2000 * round);
    }
    b.take();
    // When the stuck ones are read they go on, each to its last byte.
    let before = a.driver.stream_counters().tx_bytes;
    for (_, id) in stuck {
        b.driver.stream_read(*id);
    }
    until(&mut a, &mut b, |a, _| a.driver.stream_counters().queued_bytes == 0);
    assert!(a.driver.stream_counters().tx_bytes > before);
    // The memory of what was queued can go back, and can be had again.
    assert!(a.driver.stream_counters().recycled_bytes >= POOL as u64 / 2);
    a.driver.stream_trim(0);
    assert_eq!(a.driver.stream_counters().recycled_bytes, 0);
    a.write(free.0, &[9; 2000]);
    until(&mut a, &mut b, |_, b| b.bytes(free.1) == 2000);
    let writable = a.take().iter().filter(|seen| matches!(seen, Seen::Writable(_))).count();
    assert_eq!(writable, STUCK, "each that was cut short hears of it once");
}

pub(crate) fn datagrams_flow_beside_busy_streams<B: StreamBed>(bed: &mut B) {
    const DATAGRAMS: usize = 500;
    let (mut a, mut b) = (bed.side(StreamConfig::default()), bed.side(StreamConfig::default()));
    let (at_a, at_b) = many(bed, &mut a, &mut b, 1)[0];
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    let (socket, addr) =
        bed.bind("127.0.0.1:0".parse().unwrap(), &net_io::SocketOptions::default());
    let id = b.driver.add_socket(socket).unwrap();
    let mut heard = 0;
    let mut turns = 0;
    while heard < DATAGRAMS {
        if turns < DATAGRAMS {
            client.queue(&[1; 100], addr);
            client.poll();
        }
        a.driver.stream_write(at_a, &[5; 50_000]);
        b.driver.stream_write(at_b, &[5; 50_000]);
        a.turn(0);
        b.driver.submit_and_wait(Some(net_io::Now(0))).unwrap();
        while let Some(datagram) = b.driver.recv() {
            assert_eq!((datagram.socket, datagram.payload), (id, &[1; 100][..]));
            heard += 1;
        }
        while b.take_event() {}
        turns += 1;
        assert!(turns < 10 * DATAGRAMS, "{heard} of {DATAGRAMS} came");
    }
    assert!(a.driver.stream_counters().rx_bytes > 1 << 20);
    assert!(b.driver.stream_counters().rx_bytes > 1 << 20);
    assert_eq!(b.driver.counters().rx_errors, 0);
    drop(End { driver: b.driver, id, addr });
}

/// Everything a stream can have under way when its driver goes: reads, connections, sends that wait for room.
pub(crate) fn a_driver_that_goes_with_everything_under_way<B: StreamBed>(bed: &mut B) {
    let (listener, addr) = bed.listen(&loopback());
    for _ in 0..3 {
        let Pair { mut a, mut b, at_a, at_b } = bed.pair(&StreamConfig::default());
        let ids = many(bed, &mut a, &mut b, 200);
        b.reads = false;
        for _ in 0..200 {
            a.driver.stream_write(at_a, &[1; 100_000]);
            a.turn(0);
        }
        for (_, id) in &ids[..50] {
            b.write(*id, b"unread");
        }
        b.turn(0);
        a.driver.submit_and_wait(Some(net_io::Now(0))).unwrap();
        for _ in 0..20 {
            let id = a.driver.connect(&addr, None).unwrap();
            a.write(id, b"queued");
        }
        for (id, _) in &ids[50..100] {
            a.abort(*id);
        }
        drop(a);
        // Its peers hear of it.
        b.reads = true;
        b.driver.stream_read(at_b);
        for (_, id) in &ids {
            b.driver.stream_read(*id);
        }
        let mut other = bed.side(StreamConfig::default());
        until(&mut b, &mut other, |b, _| {
            let ends = |seen: &&Seen| matches!(seen, Seen::Closed(..) | Seen::Fin(_));
            b.seen.iter().filter(ends).count() == ids.len() + 1
        });
    }
    drop(listener);
}
