//! Any bytes as a datagram: into the decoder, and into conversations in several states.

use kcp_core::wire::{self, HEADER_LEN, Segments};
use kcp_core::{Conv, Cx, FlushPolicy, Kcp, KcpConfig, Millis, QueueLengths, Sn, Store};

use crate::script::Script;

/// The first byte chooses the state, the rest is the datagram.
pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let choices = script.byte();
    let datagram = script.bytes(usize::MAX);
    decode(datagram);
    // The conversation is the datagram's, or everything would end at the first comparison.
    let Some(conv) = wire::conv(datagram) else { return };
    let strict = take(conv, true, choices, datagram);
    let lax = take(conv, false, choices, datagram);
    assert!(lax || !strict, "strict input took what the reference refuses");
}

/// The walk ends, stays inside the datagram, and what it yields encodes to the same bytes.
fn decode(datagram: &[u8]) {
    let mut at = 0;
    for segment in Segments::new(datagram) {
        let Ok((header, payload)) = segment else { return };
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        assert_eq!(datagram[at..at + HEADER_LEN], bytes);
        at += HEADER_LEN;
        assert_eq!(payload.len(), header.len as usize);
        assert_eq!(datagram[at..at + payload.len()], *payload);
        at += payload.len();
    }
    assert!(datagram.len() - at < HEADER_LEN, "a whole header was left over");
}

/// Hands the datagram over twice, then lets the conversation act on it. Returns whether it was taken the first time.
fn take(conv: Conv, strict: bool, choices: u8, datagram: &[u8]) -> bool {
    let flag = |bit: u8| choices >> bit & 1 == 1;
    let config = KcpConfig {
        mtu: if flag(0) { 60 } else { 1_400 },
        stream: flag(1),
        flush: if flag(2) { FlushPolicy::Turn } else { FlushPolicy::Interval },
        nodelay: u32::from(flag(3)),
        fastresend: u32::from(flag(3)) * 2,
        nocwnd: flag(4),
        strict,
        ..KcpConfig::default()
    };
    let mut store = Store::new(if flag(5) { 4 << 10 } else { 1 << 20 });
    let mut cx = Cx { config: &config, store: &mut store };
    let now = Millis(5_000);
    let mut kcp = Kcp::resume(conv, Sn(0), Sn(0));
    let mut buf = [0; 1_400];
    if flag(6) {
        // In mid-conversation: 20 segments in flight or queued.
        for _ in 0..20 {
            let _ = kcp.send(&mut cx, b"in flight");
        }
        for earlier in [20, 10] {
            act(&mut kcp, &mut cx, Millis(now.0 - earlier * 100), &mut buf);
        }
    }
    let before = look(&kcp);
    let taken = kcp.handle_datagram(&mut cx, now, datagram, |message| message.len() % 2 == 0);
    assert!(!strict || taken.is_ok() || look(&kcp) == before, "a refused datagram left a trace");
    let _ = kcp.handle_datagram(&mut cx, now, datagram, |_| flag(7));
    for later in 0..3 {
        act(&mut kcp, &mut cx, now.add(later * 300), &mut buf);
    }
    while kcp.recv_with(&mut cx, |_| {}).is_ok() {}
    act(&mut kcp, &mut cx, now.add(1_000), &mut buf);
    kcp.reset(&mut store);
    assert!(kcp.is_idle() && store.bytes_used() == 0, "{} bytes were kept", store.bytes_used());
    taken.is_ok()
}

fn act(kcp: &mut Kcp, cx: &mut Cx<'_>, now: Millis, buf: &mut [u8]) {
    kcp.handle_timeout(cx, now);
    let mut datagrams = 0;
    while let Some(len) = kcp.poll_transmit(cx, now, buf) {
        assert!(len <= cx.config.mtu as usize);
        assert!(Segments::new(&buf[..len]).all(|segment| segment.is_ok()));
        datagrams += 1;
        assert!(datagrams < 10_000, "a flush without end");
    }
    let queues = kcp.queue_lengths();
    let rcv_wnd = cx.config.rcv_wnd as usize;
    assert!(queues.rcv_buf <= rcv_wnd && queues.rcv_queue <= rcv_wnd, "{queues:?}");
    assert!(cx.store.bytes_used() + cx.store.bytes_recycled() <= cx.store.bytes_max());
    if let Some(deadline) = kcp.poll_timeout(cx, now) {
        assert!(deadline.since(now) > 0, "due again at once");
    }
}

/// Everything that a refused datagram must not touch.
fn look(kcp: &Kcp) -> ([u32; 11], QueueLengths, bool) {
    let numbers = [
        kcp.snd_una().0,
        kcp.snd_nxt().0,
        kcp.rcv_nxt().0,
        kcp.rmt_wnd(),
        kcp.srtt(),
        kcp.rttval(),
        kcp.rto(),
        kcp.cwnd(),
        kcp.ssthresh(),
        kcp.incr(),
        kcp.probe().2.into(),
    ];
    (numbers, kcp.queue_lengths(), kcp.is_dead())
}
