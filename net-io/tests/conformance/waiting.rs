//! When a wait ends, and when it must not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use net_io::{Driver, DriverConfig, Now};

use crate::bed::{Bed, End, PATIENCE_US};

pub(crate) fn a_deadline_is_kept_and_never_early<B: Bed>(bed: &mut B) {
    let mut end = bed.end("127.0.0.1:0", &DriverConfig::default());
    end.poll();
    for us in [1, 999, 1000, 1001, 5000, 20_300] {
        let deadline = Now(end.driver.now().0 + us);
        assert_eq!(end.turn(Some(deadline)), []);
        let now = end.driver.now();
        assert!(now >= deadline, "{us} us: woke {} us early", deadline.0 - now.0);
        assert!(now.0 < deadline.0 + PATIENCE_US, "{us} us: woke {} us late", now.0 - deadline.0);
    }
}

pub(crate) fn a_past_deadline_polls<B: Bed>(bed: &mut B) {
    let mut server = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    assert_eq!(server.poll(), []);
    assert_eq!(server.turn_for(0), []);
    client.queue(b"now", server.addr);
    client.poll();
    // What has arrived comes with the first poll: a driver that only looks when it waits would miss it.
    assert_eq!(server.poll().len(), 1);
}

pub(crate) fn an_unfinished_batch_does_not_block<B: Bed>(bed: &mut B) {
    let config = DriverConfig { batch_max: 4, ..DriverConfig::default() };
    let mut server = bed.end("127.0.0.1:0", &config);
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    for number in 0..10 {
        client.queue(&[number], server.addr);
    }
    client.poll();
    let turns: Vec<Vec<u8>> = (0..3)
        .map(|_| server.turn_at_once().iter().map(|kept| kept.payload[0]).collect())
        .collect();
    assert_eq!(turns, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);

    // A caller that stops by itself is as welcome to come back.
    client.queue(b"a", server.addr);
    client.queue(b"b", server.addr);
    client.poll();
    for expected in [b"a", b"b"] {
        let limit = Now(server.driver.now().0 + PATIENCE_US);
        assert!(server.driver.submit_and_wait(Some(limit)).unwrap() < limit, "it waited");
        assert_eq!(server.driver.recv().unwrap().payload, expected);
    }
    let deadline = Now(server.driver.now().0 + 3000);
    assert_eq!(server.turn(Some(deadline)), []);
    assert!(server.driver.now() >= deadline, "nothing was left, and yet it did not wait");
}

/// Whoever takes all that came is told so by the turn that hands out the last datagram, or by the next; until then there may
/// be more, wherever it waits: in the batch, for a buffer, in the socket.
pub(crate) fn a_backlog_is_known_until_it_is_gone<B: Bed>(bed: &mut B) {
    const COUNT: usize = 300;
    for (buffers, batch_max, want) in
        [(1024, 1024, 32), (1024, 1024, 1), (16, 1024, 32), (1024, 7, 32)]
    {
        let config = DriverConfig { buffers, batch_max, want, ..DriverConfig::default() };
        let mut server = bed.end("127.0.0.1:0", &config);
        let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
        server.poll();
        assert!(!server.driver.has_backlog(), "nothing has come");
        for _ in 0..COUNT {
            client.queue(b"waits", server.addr);
        }
        client.poll();
        let mut heard = 0;
        while heard < COUNT {
            let came = server.poll().len();
            heard += came;
            assert!(came > 0, "{heard} of {COUNT}, and then none");
            assert!(
                server.driver.has_backlog() || heard == COUNT,
                "{heard} of {COUNT} are not all"
            );
            let most = server.driver.backlog_max();
            assert!(most >= COUNT - heard, "{heard} of {COUNT}, and {most} more at most");
        }
        server.poll();
        assert!(!server.driver.has_backlog(), "all have come");
        assert_eq!(server.driver.backlog_max(), 0);
        // One that the caller leaves is backlog too.
        client.queue(b"left", server.addr);
        client.queue(b"left", server.addr);
        client.poll();
        let limit = Now(server.driver.now().0 + PATIENCE_US);
        server.driver.submit_and_wait(Some(limit)).unwrap();
        assert!(server.driver.recv().is_some() && server.driver.has_backlog());
    }
}

pub(crate) fn a_wake_before_the_wait_is_not_lost<B: Bed>(bed: &mut B) {
    let mut end = bed.end("127.0.0.1:0", &DriverConfig::default());
    let waker = end.driver.waker();
    for round in 1..=3 {
        waker.wake();
        assert_eq!(end.turn_at_once(), []);
        assert_eq!(end.driver.counters().wakes, round);
    }
}

pub(crate) fn many_wakes_count_as_one<B: Bed>(bed: &mut B) {
    let mut end = bed.end("127.0.0.1:0", &DriverConfig::default());
    let waker = end.driver.waker();
    for _ in 0..5 {
        waker.clone().wake();
    }
    end.turn_at_once();
    assert_eq!(end.driver.counters().wakes, 1);
    let deadline = Now(end.driver.now().0 + 2000);
    end.turn(Some(deadline));
    assert!(end.driver.now() >= deadline, "one of the wakes was left over");
    assert_eq!(end.driver.counters().wakes, 1);
}

/// A thousand rounds, so that wakes come before, while and after the driver goes to sleep. A lost one would hang; a lost
/// message would show that the wake was taken before what it announced.
pub(crate) fn wakes_from_another_thread_end_the_wait<B: Bed>(bed: &mut B) {
    const ROUNDS: u32 = 1000;
    let mut end = bed.end("127.0.0.1:0", &DriverConfig::default());
    let waker = end.driver.waker();
    let (ask, asked) = mpsc::channel::<u32>();
    let (tell, told) = mpsc::channel::<u32>();
    let other = thread::spawn(move || {
        for number in asked {
            tell.send(number).unwrap();
            waker.wake();
        }
    });
    let deadline = Now(end.driver.now().0 + 6 * PATIENCE_US);
    for number in 0..ROUNDS {
        ask.send(number).unwrap();
        assert_eq!(wait_for(&mut end, &told, deadline), number);
    }
    drop(ask);
    other.join().unwrap();
    assert!(end.driver.counters().wakes >= 1);
}

fn wait_for<D: Driver>(end: &mut End<D>, told: &mpsc::Receiver<u32>, deadline: Now) -> u32 {
    loop {
        end.driver.submit_and_wait(Some(deadline)).unwrap();
        if let Ok(number) = told.try_recv() {
            return number;
        }
        assert!(end.driver.now() < deadline, "a wake was lost");
    }
}

/// Wakes that come while the last one is being taken: one lost then would silence all that follow.
pub(crate) fn a_storm_of_wakes_loses_none<B: Bed>(bed: &mut B) {
    const TURNS: u64 = 5000;
    let mut end = bed.end("127.0.0.1:0", &DriverConfig::default());
    let waker = end.driver.waker();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let other = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            waker.wake();
        }
    });
    for turn in 1..=TURNS {
        assert_eq!(end.turn_at_once(), []);
        assert_eq!(end.driver.counters().wakes, turn);
    }
    stop.store(true, Ordering::Relaxed);
    other.join().unwrap();
}

/// Waiting for ever is waiting for something.
pub(crate) fn a_wait_without_deadline_ends_with_a_datagram<B: Bed>(bed: &mut B) {
    let mut server = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    client.queue(b"now", server.addr);
    client.poll();
    assert_eq!(server.turn(None).len(), 1);
}

/// Waiting costs one system call, however long, and a driver with nothing to do makes no others.
pub(crate) fn an_idle_driver_sleeps<B: Bed>(bed: &mut B) {
    for min_wait_us in [0, 500] {
        let config = DriverConfig { min_wait_us, ..DriverConfig::default() };
        let mut end = bed.end("127.0.0.1:0", &config);
        end.poll();
        let before = end.driver.counters();
        end.turn_for(50_000);
        let after = end.driver.counters();
        assert_eq!(after.enters - before.enters, 1, "system calls of an idle wait");
    }
}

/// The first datagram is not answered at once where the operator asked for batches.
pub(crate) fn gathering_takes_its_time<B: Bed>(bed: &mut B) {
    const GATHER_US: u32 = 20_000;
    let config = DriverConfig { min_wait_us: GATHER_US, ..DriverConfig::default() };
    let mut server = bed.end("127.0.0.1:0", &config);
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    server.poll();
    for _ in 0..3 {
        client.queue(b"x", server.addr);
    }
    client.poll();
    let before = server.driver.now();
    assert_eq!(server.turn_at_once().len(), 3);
    assert!(server.driver.now().0 >= before.0 + u64::from(GATHER_US));

    // Without a deadline as well: fewer than wanted are enough once the time is over.
    client.queue(b"x", server.addr);
    client.poll();
    assert_eq!(server.turn(None).len(), 1);
}

pub(crate) fn gathering_ends_with_the_deadline<B: Bed>(bed: &mut B) {
    let config = DriverConfig { min_wait_us: 4_000_000_000, ..DriverConfig::default() };
    let mut end = bed.end("127.0.0.1:0", &config);
    end.poll();
    let deadline = Now(end.driver.now().0 + 5000);
    end.turn(Some(deadline));
    assert!(end.driver.now() >= deadline);
    assert!(end.driver.now().0 < deadline.0 + PATIENCE_US);
}
