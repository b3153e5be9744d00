//! Strict input: a datagram that breaks a rule changes nothing, and nothing a peer sends grows without bound.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kcp_core::wire::{Command, HEADER_LEN, Header};
use kcp_core::{Conv, Cx, FAR_BEHIND, InputError, Kcp, KcpConfig, Kept, Millis, Sn, Store};
use netem::Rng;
use proptest::prelude::*;

/// A conversation in mid-life: numbers 0 and 1 acknowledged, 2 and 3 in flight, 4 to 8 waiting for the window of 2; three
/// messages received and one that is ahead of a gap.
struct Victim {
    kcp: Kcp,
    config: KcpConfig,
    store: Store,
}

const CONV: Conv = Conv(7);
const NOW: Millis = Millis(100_000);

impl Victim {
    fn new() -> Self {
        let config = KcpConfig { snd_wnd: 2, rcv_wnd: 128, ..KcpConfig::game() };
        let mut victim = Self { kcp: Kcp::new(CONV), config, store: Store::new(1 << 20) };
        for _ in 0..9 {
            victim.cx(|kcp, cx| kcp.send(cx, b"message").unwrap());
        }
        victim.flush();
        victim.input(&[ack(0, 2)]).unwrap();
        victim.flush();
        victim.input(&[push(0), push(1), push(2), push(4)]).unwrap();
        victim
    }

    fn cx<R>(&mut self, call: impl FnOnce(&mut Kcp, &mut Cx<'_>) -> R) -> R {
        call(&mut self.kcp, &mut Cx { config: &self.config, store: &mut self.store })
    }

    fn input(&mut self, segments: &[(Header, &[u8])]) -> Result<(), InputError> {
        self.input_bytes(&datagram(segments))
    }

    fn input_bytes(&mut self, bytes: &[u8]) -> Result<(), InputError> {
        self.cx(|kcp, cx| kcp.handle_datagram(cx, NOW, bytes, |_| false))
    }

    /// Returns the datagrams.
    fn flush(&mut self) -> usize {
        let mut buf = [0; 1_400];
        self.cx(|kcp, cx| {
            kcp.flush(cx, NOW);
            std::iter::from_fn(|| kcp.poll_transmit(cx, NOW, &mut buf)).count()
        })
    }

    /// Everything there is to know.
    fn state(&self) -> String {
        format!("{:?} {:?}", self.kcp, self.store)
    }
}

fn push(sn: u32) -> (Header, &'static [u8]) {
    (header(Command::Push, sn, 2), b"hello")
}

fn ack(sn: u32, una: u32) -> (Header, &'static [u8]) {
    (header(Command::Ack, sn, una), b"")
}

fn header(cmd: Command, sn: u32, una: u32) -> Header {
    Header { conv: CONV, cmd, frg: 0, wnd: 128, ts: NOW, sn: Sn(sn), una: Sn(una), len: 0 }
}

fn datagram(segments: &[(Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, payload) in segments {
        let mut head = [0; HEADER_LEN];
        let len = u32::try_from(payload.len()).unwrap();
        Header { len, ..*header }.encode(&mut head);
        bytes.extend(head);
        bytes.extend(*payload);
    }
    bytes
}

#[test]
fn a_broken_rule_anywhere_in_the_datagram_changes_nothing() {
    let broken: [(Header, &[u8], InputError); 8] = [
        (Header { conv: Conv(8), ..push(3).0 }, b"", InputError::WrongConv),
        (header(Command::Wins, 0, 5), b"", InputError::UnaBeyondSent),
        (header(Command::Push, 3, 5), b"", InputError::UnaBeyondSent),
        (header(Command::Wins, 0, 4 + (1 << 30)), b"", InputError::UnaBeyondSent),
        (ack(4, 2).0, b"", InputError::AckBeyondSent),
        (Header { frg: 128, ..push(3).0 }, b"", InputError::FragmentBeyondWindow),
        (ack(2, 2).0, b"x", InputError::PayloadOnControl),
        (Header { frg: 1, ..header(Command::Wask, 0, 2) }, b"", InputError::PayloadOnControl),
    ];
    let mut victim = Victim::new();
    let before = victim.state();
    for (header, payload, rule) in broken {
        for segments in [vec![(header, payload)], vec![push(3), ack(2, 3), (header, payload)]] {
            assert_eq!(victim.input(&segments), Err(rule), "{header:?}");
            assert_eq!(victim.state(), before, "{header:?}");
        }
    }
    let mut truncated = datagram(&[push(3), push(5)]);
    truncated.pop();
    assert_eq!(victim.input_bytes(&truncated), Err(InputError::BadLength));
    let mut unknown = datagram(&[push(3), push(5)]);
    unknown[29 + 4] = 80;
    assert_eq!(victim.input_bytes(&unknown), Err(InputError::UnknownCommand));
    assert_eq!(victim.input_bytes(&unknown[..23]), Err(InputError::TooShort));
    assert_eq!(victim.state(), before);
}

#[test]
fn what_is_only_old_is_processed() {
    let mut victim = Victim::new();
    victim.input(&[ack(0, 0), ack(1, 1), push(0), (header(Command::Wask, 0, 1), b"")]).unwrap();
    assert_eq!(victim.kcp.snd_una(), Sn(2), "an old una moves nothing back");
    assert_eq!(victim.kcp.queue_lengths().acks, 5, "an old push is acknowledged again");
}

#[test]
fn the_edge_of_what_was_sent_is_fine() {
    let mut victim = Victim::new();
    assert_eq!(victim.kcp.snd_nxt(), Sn(4));
    victim.input(&[ack(3, 2)]).unwrap();
    assert_eq!(victim.kcp.queue_lengths().snd_buf, 1);
    victim.input(&[(header(Command::Wins, 0, 4), b"")]).unwrap();
    assert_eq!(victim.kcp.queue_lengths().snd_buf, 0);
}

#[test]
fn what_has_not_left_yet_cannot_be_acknowledged() {
    let mut victim = Victim::new();
    victim.config = KcpConfig { mtu: 60, snd_wnd: 128, ..victim.config };
    let before = victim.kcp.snd_nxt();
    victim.cx(|kcp, cx| {
        let mut buf = [0; 60];
        kcp.flush(cx, NOW);
        while kcp.snd_nxt() == before {
            kcp.poll_transmit(cx, NOW, &mut buf).unwrap();
        }
    });
    let next = before.add(1);
    assert_eq!(victim.kcp.snd_nxt(), next, "one message fills a datagram");
    assert_eq!(victim.input(&[ack(next.0, 2)]), Err(InputError::AckBeyondSent));
    let queued = victim.kcp.queue_lengths().snd_queue;
    assert_eq!(victim.flush(), queued, "each leaves once");
    victim.input(&[ack(next.0, 2)]).unwrap();
}

#[test]
fn round_trip_samples_above_a_minute_are_not_believed() {
    let mut victim = Victim::new();
    let rto = victim.kcp.rto();
    let (header, _) = ack(2, 2);
    let late = Header { ts: Millis(NOW.0 - 60_001), ..header };
    victim.input(&[(late, b"")]).unwrap();
    assert_eq!(victim.kcp.rto(), rto);
    assert_eq!(victim.kcp.snd_una(), Sn(3), "the ack itself counts");
    let ahead = Header { ts: Millis(NOW.0 + 5), ..ack(3, 2).0 };
    victim.input(&[(ahead, b"")]).unwrap();
    assert_eq!((victim.kcp.rto(), victim.store.stats().rtt_samples_dropped), (rto, 2));
}

#[test]
fn an_ack_of_what_was_never_sent_lately_is_ignored_whole() {
    let mut victim = Victim::new();
    let before = victim.state();
    let far = Header { wnd: 0, una: Sn(3), ..ack(2_u32.wrapping_sub(FAR_BEHIND), 3).0 };
    victim.input(&[(far, b"")]).unwrap();
    assert_eq!(victim.state(), before);
    let near = Header { sn: far.sn.add(1), ..far };
    victim.input(&[(near, b"")]).unwrap();
    assert_eq!((victim.kcp.rmt_wnd(), victim.kcp.snd_una()), (0, Sn(3)));
}

#[test]
fn acks_owed_are_bounded() {
    let mut victim = Victim::new();
    for _ in 0..1_000 {
        victim.input(&[push(0), push(1)]).unwrap();
    }
    assert_eq!(victim.kcp.queue_lengths().acks, 256, "twice the receive window");
    assert_eq!(victim.store.stats().acks_dropped, 2_000 + 4 - 256);
    assert!(victim.flush() < 6);
}

#[test]
fn a_full_store_drops_pushes_unacknowledged_and_recovers() {
    let mut victim = Victim::new();
    victim.flush();
    let room = victim.store.bytes_used() + 4_096;
    let mut small = Victim { store: Store::new(room), ..Victim::new() };
    small.kcp = Kcp::new(CONV);
    let payload = [7; 1_000];
    for sn in 0..20 {
        small.input(&[(header(Command::Push, sn, 0), &payload)]).unwrap();
    }
    let taken = small.kcp.queue_lengths();
    assert!(taken.rcv_queue > 0 && taken.rcv_queue < 20, "{taken:?}");
    assert_eq!(taken.acks, taken.rcv_queue, "what was dropped is not acknowledged");
    assert_eq!(small.store.stats().pushes_without_storage, 20 - taken.acks as u64);
    assert!(small.store.bytes_used() <= room);
    let mut buf = [0; 1_000];
    while small.cx(|kcp, cx| kcp.recv(cx, &mut buf)).is_ok() {}
    let next = u32::try_from(taken.rcv_queue).unwrap();
    small.input(&[(header(Command::Push, next, 0), &payload)]).unwrap();
    assert_eq!(small.cx(|kcp, cx| kcp.recv(cx, &mut buf)), Ok(1_000));
}

#[test]
fn what_comes_early_leaves_room_for_what_it_waits_for() {
    let config = KcpConfig::game();
    let mut store = Store::new(256 << 10);
    let mut convs: Vec<Kcp> = (0..64).map(|_| Kcp::new(CONV)).collect();
    let payload = [7; 1_000];
    let input = |kcp: &mut Kcp, store: &mut Store, sn| {
        let bytes = datagram(&[(header(Command::Push, sn, 0), &payload[..])]);
        kcp.handle_datagram(&mut Cx { config: &config, store }, NOW, &bytes, |_| false).unwrap();
    };
    for sn in 1..20 {
        convs.iter_mut().for_each(|kcp| input(kcp, &mut store, sn));
    }
    assert!(store.stats().pushes_without_storage > 0, "the store is full of what came early");
    for kcp in &mut convs {
        let early = kcp.queue_lengths().rcv_buf;
        input(kcp, &mut store, 0);
        let mut cx = Cx { config: &config, store: &mut store };
        let read = std::iter::from_fn(|| kcp.recv(&mut cx, &mut [0; 1_000]).ok()).count();
        assert_eq!(read, early + 1, "all that waited for it");
    }
}

/// What 100 bytes take of a store.
const BUFFER: usize = 128;

#[test]
fn what_a_peer_does_not_finish_is_told_with_its_age() {
    let (config, mut store) = (KcpConfig::game(), Store::new(256 << 10));
    let mut kcp = Kcp::new(CONV);
    let input = |kcp: &mut Kcp, store: &mut Store, after_ms, sn, frg| {
        let mut header = header(Command::Push, sn, 0);
        header.frg = frg;
        let bytes = datagram(&[(header, &[7; 100][..])]);
        let cx = &mut Cx { config: &config, store };
        kcp.handle_datagram(cx, NOW.add(after_ms), &bytes, |_| false).unwrap();
    };
    let later = NOW.add(100);
    assert_eq!(kcp.kept(later), None);
    input(&mut kcp, &mut store, 5, 2, 2);
    let queues = store.bytes_used() - BUFFER;
    let told = |unfinished, in_turn, early| {
        let (segments, unacknowledged, sent) = (in_turn + early, None, 0);
        let (in_turn, early) = (in_turn * BUFFER, early * BUFFER);
        Some(Kept { unfinished, unacknowledged, segments, queues, sent, in_turn, early })
    };
    assert_eq!(kcp.kept(later), told(Some(NOW.add(5)), 0, 1));
    input(&mut kcp, &mut store, 10, 0, 1);
    assert_eq!(kcp.kept(later), told(Some(NOW.add(5)), 1, 1));
    input(&mut kcp, &mut store, 15, 1, 0);
    assert_eq!(kcp.kept(later), told(None, 3, 0), "the first can be read");
    let mut cx = Cx { config: &config, store: &mut store };
    assert_eq!(kcp.recv(&mut cx, &mut [0; 200]), Ok(200));
    let now = kcp.kept(later);
    assert_eq!(now, told(Some(later), 1, 0), "the next counts from when it is looked at");
    assert_eq!(kcp.kept(later.add(50)), now);
    input(&mut kcp, &mut store, 200, 3, 1);
    assert_eq!(kcp.kept(later.add(150)), told(Some(later), 2, 0));
    assert_eq!(store.bytes_used(), queues + 2 * BUFFER, "all of it");
}

#[test]
fn what_a_peer_does_not_acknowledge_is_told_with_its_age() {
    let (config, mut store) = (KcpConfig::game(), Store::new(256 << 10));
    let mut kcp = Kcp::new(CONV);
    let send = |kcp: &mut Kcp, store: &mut Store, count| {
        let cx = &mut Cx { config: &config, store };
        (0..count).for_each(|_| assert_eq!(kcp.send(cx, &[7; 100]), Ok(100)));
        kcp.flush(cx, NOW);
        let mut buf = [0; 1_400];
        while kcp.poll_transmit(cx, NOW, &mut buf).is_some() {}
    };
    let acknowledge = |kcp: &mut Kcp, store: &mut Store, una| {
        let bytes = datagram(&[(header(Command::Wins, 0, una), &[])]);
        let cx = &mut Cx { config: &config, store };
        kcp.handle_datagram(cx, NOW, &bytes, |_| false).unwrap();
    };
    let at = |ms| NOW.add(ms);
    let told = |kcp: &mut Kcp, ms| {
        let kept = kcp.kept(at(ms))?;
        Some((kept.unacknowledged?, kept.segments, kept.sent / BUFFER))
    };
    send(&mut kcp, &mut store, 3);
    assert_eq!(told(&mut kcp, 10), Some((at(10), 3, 3)));
    send(&mut kcp, &mut store, 1);
    acknowledge(&mut kcp, &mut store, 2);
    assert_eq!(told(&mut kcp, 20), Some((at(10), 2, 2)), "one is left of those at the first look");
    acknowledge(&mut kcp, &mut store, 3);
    assert_eq!(told(&mut kcp, 30), Some((at(30), 1, 1)), "they are gone");
    let kept = kcp.kept(at(30)).unwrap();
    assert_eq!(kept.queues + kept.sent, store.bytes_used(), "all of it");
    acknowledge(&mut kcp, &mut store, 4);
    assert_eq!(kcp.kept(at(40)), None);
    send(&mut kcp, &mut store, 2);
    assert_eq!(told(&mut kcp, 50), Some((at(50), 2, 2)), "nothing of before counts");
    kcp.reset(&mut store);
    let mut other = Kcp::new(CONV);
    send(&mut other, &mut store, 9);
    assert_eq!(told(&mut other, 60), Some((at(60), 9, 9)), "nor another's, in a block used again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Mostly plausible datagrams near the victim's numbers: refused ones change nothing, taken ones stay in bounds.
    #[test]
    fn refused_is_unchanged_and_taken_is_bounded(seed: u64) {
        let mut rng = Rng::new(seed);
        let mut victim = Victim::new();
        for _ in 0..20 {
            let bytes = random_datagram(&mut rng);
            let before = victim.state();
            let checked = victim.kcp.check_datagram(&victim.config, &bytes);
            prop_assert_eq!(victim.input_bytes(&bytes), checked);
            if checked.is_err() {
                prop_assert_eq!(victim.state(), before);
            }
            let queues = victim.kcp.queue_lengths();
            prop_assert!(queues.acks <= 256 && queues.rcv_buf <= 128 && queues.rcv_queue <= 128);
            if rng.below(4) == 0 {
                victim.flush();
            }
        }
        victim.cx(|kcp, cx| kcp.reset(cx.store));
        prop_assert_eq!(victim.store.bytes_used(), 0);
    }
}

fn random_datagram(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=rng.below(3) {
        let mut small = |n| u32::try_from(rng.below(n)).unwrap();
        let commands = [Command::Push, Command::Ack, Command::Wask, Command::Wins];
        let cmd = commands[small(4) as usize];
        let payload = vec![1; if cmd == Command::Push { small(30) as usize } else { 0 }];
        let header = Header {
            wnd: u16::try_from(small(300)).unwrap(),
            frg: if small(4) == 0 { u8::try_from(small(140)).unwrap() } else { 0 },
            ts: Millis(NOW.0.wrapping_sub(small(100_000))),
            ..header(cmd, small(8).wrapping_sub(2), small(7).wrapping_sub(1))
        };
        let header = if small(10) > 0 && cmd != Command::Push {
            Header { frg: 0, ..header }
        } else {
            header
        };
        bytes.extend(datagram(&[(header, &payload)]));
    }
    if rng.below(10) == 0 {
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
        bytes[at] ^= 1 << rng.below(8);
    }
    bytes
}
