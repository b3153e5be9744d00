//! Messages handed over straight from the datagram: the same stream of messages, and the same bytes on the wire, as when
//! they are queued and read at once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};
use netem::{Link, LinkConfig, Rng};

/// How an end takes its messages.
#[derive(Clone, Copy)]
enum Taking {
    Prompt,
    Queued,
}

struct End {
    kcp: Kcp,
    store: Store,
    messages: Vec<Vec<u8>>,
}

#[test]
fn prompt_delivery_is_as_if_read_at_once() {
    let mut bypassed = 0;
    for seed in 0..300 {
        eprintln!("seed {seed}");
        let prompt = converse(seed, Taking::Prompt);
        let queued = converse(seed, Taking::Queued);
        assert_eq!(prompt.messages, queued.messages);
        assert_eq!(prompt.wire, queued.wire);
        let mut rng = Rng::new(seed);
        let (config, sent) = (config(&mut rng), messages(&mut rng));
        if config.stream {
            assert_eq!(prompt.messages[1].concat(), sent.concat());
        } else {
            assert_eq!(prompt.messages[1], sent);
        }
        assert_eq!(queued.bypassed, 0);
        bypassed += prompt.bypassed;
    }
    assert!(bypassed > 300 * 10, "{bypassed} of {} messages", 300 * 100);
}

struct Outcome {
    messages: [Vec<Vec<u8>>; 2],
    wire: Vec<Vec<u8>>,
    bypassed: usize,
}

fn config(rng: &mut Rng) -> KcpConfig {
    KcpConfig { stream: rng.below(3) == 0, mtu: 60 + rng.next_u32() % 1_000, ..KcpConfig::game() }
}

/// Not empty: an empty message is nothing in a stream.
fn messages(rng: &mut Rng) -> Vec<Vec<u8>> {
    let length = |rng: &mut Rng| 1 + usize::try_from(rng.below(400)).unwrap();
    (0..100_u8).map(|i| vec![i; length(rng)]).collect()
}

/// End 0 sends a hundred messages over a bad network, end 1 takes them.
fn converse(seed: u64, taking: Taking) -> Outcome {
    let mut rng = Rng::new(seed);
    let (config, mut to_send) = (config(&mut rng), messages(&mut rng).into_iter());
    let network = LinkConfig {
        loss_ppm: 100_000,
        delay_us: 10_000,
        jitter_us: 20_000,
        reorder_ppm: 200_000,
        reorder_us: 20_000,
        duplicate_ppm: 100_000,
        ..LinkConfig::default()
    };
    let mut links: [Link<Vec<u8>>; 2] = [0, 1].map(|_| Link::new(network.clone(), rng.next_u64()));
    let end = || End { kcp: Kcp::new(Conv(1)), store: Store::new(1 << 22), messages: Vec::new() };
    let mut ends = [end(), end()];
    let mut outcome = Outcome { messages: [Vec::new(), Vec::new()], wire: Vec::new(), bypassed: 0 };
    for round in 0..3_000_u32 {
        let now = Millis(round * 10);
        if let Some(message) = to_send.next() {
            let mut cx = Cx { config: &config, store: &mut ends[0].store };
            ends[0].kcp.send(&mut cx, &message).unwrap();
        } else if ends.iter().all(|end| end.kcp.is_idle()) {
            break;
        }
        for (index, end) in ends.iter_mut().enumerate() {
            while let Some(datagram) = links[index].pop(u64::from(round) * 10_000) {
                outcome.bypassed += take(end, &config, now, &datagram, taking);
            }
            let mut cx = Cx { config: &config, store: &mut end.store };
            let mut buf = [0; 1_400];
            end.kcp.flush(&mut cx, now);
            while let Some(len) = end.kcp.poll_transmit(&mut cx, now, &mut buf) {
                links[1 - index].push(u64::from(round) * 10_000, buf[..len].to_vec());
                outcome.wire.push(buf[..len].to_vec());
            }
        }
    }
    outcome.messages = ends.map(|end| end.messages);
    outcome
}

/// Returns how many messages came straight from the datagram.
fn take(end: &mut End, config: &KcpConfig, now: Millis, datagram: &[u8], taking: Taking) -> usize {
    let mut cx = Cx { config, store: &mut end.store };
    let before = end.messages.len();
    let messages = &mut end.messages;
    let taken = end.kcp.handle_datagram(&mut cx, now, datagram, |message| match taking {
        Taking::Prompt => {
            messages.push(message.to_vec());
            true
        }
        Taking::Queued => false,
    });
    taken.unwrap();
    let bypassed = end.messages.len() - before;
    while let Some(size) = end.kcp.peek_size() {
        let mut message = Vec::new();
        let len = end.kcp.recv_with(&mut cx, |fragment| message.extend(fragment));
        assert_eq!((len, message.len()), (Ok(size), size));
        end.messages.push(message);
    }
    bypassed
}
