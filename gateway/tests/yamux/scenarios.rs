//! What a session may expect of any backend. Each scenario takes a fresh connection.
//!
//! The backend reads a PROXY header and then messages; the first one is a command:
//! - `echo`: everything after it comes back.
//! - `sink N`: N bytes are read, then their FNV-1a hash comes as 16 hexadecimal digits, then a FIN.
//! - `hold N`: likewise, but nothing is read before some stream says `release`.
//! - `blast N`: N bytes come in messages of 50,000, then a FIN.
//! - `listen`: everything is read to its end, which is counted. `attend`: likewise, after a message back.
//! - `report`: the ends counted so far, as `fin=A reset=B conv=C`, C being the sum of the PROXY headers' conversations.
//! - `goaway`: the backend goes away, then says so. `bye`: the backend closes the connection.

use std::hash::Hasher;

use fnv::FnvHasher;

use super::*;

const BULK: usize = 32 << 20;

/// Many sessions, messages of all sizes, all at once: each hears what it said.
pub(crate) async fn echo(gate: &mut Gate) {
    const SESSIONS: u32 = 500;
    let message = |session: u32, n: u32| {
        let len = [1, 64, 1400, 9000, 150_000][(session + n) as usize % 5];
        bulk(
            u64::from(session) * 1000 + u64::from(n),
            if session > 20 { len.min(9000) } else { len },
        )
    };
    for session in 0..SESSIONS {
        assert_eq!(gate.open("echo").await, session);
        gate.say(session, &message(session, 0));
    }
    for n in 1..10 {
        for session in 0..SESSIONS {
            gate.say(session, &message(session, n));
        }
    }
    gate.until(|gate| gate.sessions.iter().all(|s| s.heard.len() == 10)).await;
    for session in 0..SESSIONS {
        let heard = &gate.session(session).heard;
        assert!((0..).zip(heard).all(|(n, heard)| *heard == message(session, n)), "{session}");
    }
    assert_eq!((gate.mux.streams(), gate.pool.bytes_used()), (SESSIONS as usize, 0));
}

/// A bulk transfer to a backend that reads: everything arrives, and the session had to wait for window on the way.
pub(crate) async fn upload(gate: &mut Gate) {
    let session = gate.open(&format!("sink {BULK}")).await;
    let expected = send_bulk(gate, session, BULK);
    gate.until(|gate| gate.session(session).end.is_some()).await;
    assert_eq!(gate.session(session).heard, [expected.into_bytes()]);
    assert_eq!(gate.session(session).end, Some(End::Fin));
    assert!(gate.session(session).refused > 100, "{}", gate.session(session).refused);
}

/// A bulk transfer to a backend that does not read: the stream's window is the bound, other streams are not held up, and
/// nothing is lost when it reads again.
pub(crate) async fn upload_to_a_slow_backend(gate: &mut Gate) {
    let slow = gate.open(&format!("hold {BULK}")).await;
    let expected = send_bulk(gate, slow, BULK);
    let other = gate.open("echo").await;
    for n in 0..50 {
        gate.say(other, b"are you there?");
        gate.until(|gate| gate.session(other).heard.len() == n + 1).await;
    }
    let waiting: usize = gate.session(slow).to_send.iter().map(Vec::len).sum();
    let taken = BULK - waiting;
    assert!(taken <= (256 << 10) + 150_000, "{taken} bytes were taken for a window of 256 KiB");
    let release = gate.open("release").await;
    gate.until(|gate| gate.session(slow).end.is_some()).await;
    assert_eq!(gate.session(slow).heard, [expected.into_bytes()]);
    gate.close(release);
}

/// A bulk transfer from a backend, to a session that takes nothing for a while: what is kept is bounded by the window, others
/// are not held up, and nothing is lost.
pub(crate) async fn download_to_a_slow_session(gate: &mut Gate) {
    window_of(gate, 256 << 10).await;
}

/// Likewise, with a window of `window` bytes.
pub(crate) async fn window_of(gate: &mut Gate, window: usize) {
    let slow = gate.open(&format!("blast {BULK}")).await;
    gate.count_only(slow);
    gate.hold(slow);
    let other = gate.open("echo").await;
    for n in 0..50 {
        gate.say(other, b"are you there?");
        gate.until(|gate| gate.session(other).heard.len() == n + 1).await;
    }
    gate.until(|gate| gate.pool.bytes_used() >= window).await;
    assert!(gate.pool.bytes_used() <= window + 1024, "{}", gate.pool.bytes_used());
    assert_eq!(gate.session(slow).heard_bytes, 0);
    gate.release(slow);
    gate.until(|gate| gate.session(slow).end.is_some()).await;
    assert_eq!(gate.session(slow).end, Some(End::Fin));
    let mut hash = FnvHasher::default();
    hash.write(&bulk(0, BULK));
    assert_eq!(gate.session(slow).heard_bytes, BULK as u64);
    assert_eq!(gate.session(slow).hash(), hash.finish());
    assert_eq!(gate.pool.bytes_used(), 0);
}

/// Sessions that end by themselves: the backend reads all they said and then a FIN, or an RST. It has read their PROXY headers.
pub(crate) async fn ends_by_sessions(gate: &mut Gate) {
    for session in 0..40 {
        gate.open("attend").await;
        gate.say(session, &bulk(0, 5000));
    }
    // An RST takes from the backend what it has not read, its command included.
    gate.until(|gate| gate.sessions.iter().all(|s| s.heard.len() == 1)).await;
    for session in 0..40 {
        if session < 30 { gate.close(session) } else { gate.abort(session) }
    }
    gate.until(|gate| gate.mux.streams() == 0).await;
    let mut asked = 40;
    loop {
        let session = gate.open("report").await;
        gate.until(|gate| gate.session(session).end.is_some()).await;
        asked += 1;
        let report = String::from_utf8(gate.session(session).heard[0].clone()).unwrap();
        // The FINs are counted when the backend's application has read them, which it may do after it read this question.
        let convs: u32 = (0..asked).sum();
        if report == format!("fin=30 reset=10 conv={convs}") {
            return;
        }
        assert!(asked < 5000, "not in the end: {report}");
    }
}

/// The backend closes the connection: every session hears of it.
pub(crate) async fn end_of_the_connection(gate: &mut Gate) {
    for _ in 0..20 {
        gate.open("listen").await;
    }
    gate.open("bye").await;
    let error = gate.until_the_end().await;
    assert!(
        matches!(error, LinkError::Eof | LinkError::Reset | LinkError::GoAway { .. }),
        "{error:?}"
    );
    // The stream that said so may have been ended by itself before.
    assert!(gate.sessions[..20].iter().all(|s| s.end == Some(End::LinkLost)));
    assert!(gate.sessions[20].end.is_some());
    assert_eq!((gate.mux.streams(), gate.pool.bytes_used()), (0, 0));
}

/// Pings are answered, with a round trip to show for it.
pub(crate) async fn pings(gate: &mut Gate) {
    gate.until(|gate| gate.mux.rtt_us().is_some()).await;
    let session = gate.open("echo").await;
    gate.say(session, b"and streams go on");
    gate.until(|gate| gate.session(session).heard.len() == 1).await;
}

/// More streams to an application that only listens than may wait to be accepted: libraries that accept a stream with the
/// first byte of its answer never accept these, and an answered ping has to do.
pub(crate) async fn listeners(gate: &mut Gate) {
    for session in 0..700 {
        gate.open("listen").await;
        gate.say(session, b"no answer is expected");
    }
    gate.until(|gate| gate.mux.unacked() == 0).await;
    assert!(gate.sessions.iter().all(|s| s.end.is_none() && s.has_said_all()));
}

/// A backend that goes away: streams that are open run on, new ones are not opened.
pub(crate) async fn going_away(gate: &mut Gate) {
    let before = gate.open("echo").await;
    let messenger = gate.open("goaway").await;
    gate.until(|gate| gate.session(messenger).heard.len() == 1).await;
    gate.until(|gate| gate.mux.can_open(0) == Err(OpenError::GoneAway)).await;
    gate.say(before, b"still there");
    gate.until(|gate| gate.session(before).heard.len() == 1).await;
    gate.close(before);
    gate.until(|gate| gate.mux.streams() == 1).await;
}

/// A backend that accepts fewer streams at a time than we open: those it refuses end so, the others work.
pub(crate) async fn refusals(gate: &mut Gate) {
    let refused = |gate: &Gate| gate.sessions.iter().filter(|s| s.end.is_some()).count();
    while refused(gate) == 0 {
        for _ in 0..1000 {
            gate.open("echo").await;
        }
        let all = |gate: &Gate| gate.mux.unacked() == 0;
        gate.until(all).await;
    }
    let ends = gate.sessions.iter().filter_map(|s| s.end);
    assert!(ends.clone().all(|end| end == End::Refused), "{:?}", ends.collect::<Vec<_>>());
    let accepted = (0..).zip(&gate.sessions).find(|(_, s)| s.end.is_none()).map(|(i, _)| i);
    let accepted = accepted.expect("not all are refused");
    gate.say(accepted, b"lucky");
    gate.until(|gate| gate.session(accepted).heard.len() == 1).await;
    assert_eq!(gate.mux.streams() + refused(gate), gate.sessions.len());
}

/// A hundred thousand streams at once on one connection, each with a message there and back; then they all end.
pub(crate) async fn crowd(gate: &mut Gate) {
    const STREAMS: u32 = 100_000;
    let began = Instant::now();
    for session in 0..STREAMS {
        gate.open("echo").await;
        gate.say(session, &bulk(u64::from(session), 64));
    }
    gate.until(|gate| gate.sessions.iter().rev().all(|s| s.heard.len() == 1)).await;
    let opened = began.elapsed();
    assert_eq!((gate.mux.streams(), gate.mux.counters().opened), (100_000, 100_000));
    for session in 0..STREAMS {
        assert_eq!(gate.session(session).heard[0], bulk(u64::from(session), 64), "{session}");
        assert_eq!(gate.session(session).end, None);
        gate.close(session);
    }
    gate.until(|gate| gate.mux.streams() == 0).await;
    println!(
        "100,000 streams: opened and echoed in {opened:?}, ended in {:?}",
        began.elapsed() - opened
    );
}

/// Queues bulk data on a session; its hash as the backend tells it.
fn send_bulk(gate: &mut Gate, session: u32, len: usize) -> String {
    let mut hash = FnvHasher::default();
    for from in (0..len).step_by(140_000) {
        let part = bulk(from as u64, (len - from).min(140_000));
        hash.write(&part);
        gate.say(session, &part);
    }
    assert!(!gate.session(session).has_said_all(), "more than a window");
    format!("{:016x}", hash.finish())
}
