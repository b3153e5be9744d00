//! The short way of the usual datagrams and the walk of all others do the same: one conversation takes each datagram as it
//! comes, its twin takes it with a stray byte behind, which KCP ignores and no usual shape has.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};
use netem::{Link, LinkConfig, Rng};

/// One end, twice.
struct End {
    twins: [Twin; 2],
}

struct Twin {
    kcp: Kcp,
    store: Store,
    delivered: Vec<Vec<u8>>,
}

#[test]
fn a_stray_byte_changes_nothing() {
    let mut usual = 0;
    for seed in 0..200 {
        eprintln!("seed {seed}");
        usual += converse(seed);
    }
    assert!(usual > 200 * 50, "{usual} datagrams of one ack and one push");
}

/// Both ends talk over a bad network. Returns the datagrams of an ACK and a PUSH that came.
fn converse(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let config = KcpConfig {
        strict: rng.below(2) == 0,
        nocwnd: rng.below(2) == 0,
        mtu: 100 + rng.next_u32() % 1_000,
        ..KcpConfig::game()
    };
    let network = LinkConfig {
        loss_ppm: 50_000,
        delay_us: 5_000,
        jitter_us: 10_000,
        duplicate_ppm: 50_000,
        ..LinkConfig::default()
    };
    let mut links: [Link<Vec<u8>>; 2] = [0, 1].map(|_| Link::new(network.clone(), rng.next_u64()));
    let mut ends = [0, 1].map(|_| End { twins: [0, 1].map(|_| Twin::new()) });
    let mut usual = 0;
    for round in 0..300_u32 {
        let now = Millis(round * 10);
        for (index, end) in ends.iter_mut().enumerate() {
            while let Some(datagram) = links[index].pop(u64::from(round) * 10_000) {
                usual += usize::from(is_ack_and_push(&datagram));
                end.take(&config, now, &datagram, &mut rng);
            }
            if rng.below(3) > 0 && round < 250 {
                let len = usize::try_from(rng.below(150)).unwrap();
                end.send(&config, &vec![7; 1 + len]);
            }
            for datagram in end.flush(&config, now) {
                links[1 - index].push(u64::from(round) * 10_000, datagram);
            }
        }
    }
    usual
}

/// 82, then 81 behind its 24 bytes.
fn is_ack_and_push(datagram: &[u8]) -> bool {
    datagram.get(4) == Some(&82) && datagram.get(24 + 4) == Some(&81)
}

impl Twin {
    fn new() -> Self {
        Self { kcp: Kcp::new(Conv(9)), store: Store::new(1 << 20), delivered: Vec::new() }
    }
}

impl End {
    fn take(&mut self, config: &KcpConfig, now: Millis, datagram: &[u8], rng: &mut Rng) {
        let stray = [datagram, &[0x55]].concat();
        let takes = rng.below(4) > 0;
        for (twin, bytes) in self.twins.iter_mut().zip([datagram, &stray]) {
            let mut cx = Cx { config, store: &mut twin.store };
            let delivered = &mut twin.delivered;
            let deliver = |message: &[u8]| {
                if takes {
                    delivered.push(message.to_vec());
                }
                takes
            };
            twin.kcp.handle_datagram(&mut cx, now, bytes, deliver).unwrap();
            let mut buf = [0; 4_096];
            while let Ok(len) = twin.kcp.recv(&mut cx, &mut buf) {
                twin.delivered.push(buf[..len].to_vec());
            }
        }
        self.compare();
    }

    fn send(&mut self, config: &KcpConfig, message: &[u8]) {
        for twin in &mut self.twins {
            twin.kcp.send(&mut Cx { config, store: &mut twin.store }, message).unwrap();
        }
    }

    fn flush(&mut self, config: &KcpConfig, now: Millis) -> Vec<Vec<u8>> {
        let mut sent = [Vec::new(), Vec::new()];
        for (twin, sent) in self.twins.iter_mut().zip(&mut sent) {
            let mut cx = Cx { config, store: &mut twin.store };
            let mut buf = [0; 1_400];
            twin.kcp.flush(&mut cx, now);
            while let Some(len) = twin.kcp.poll_transmit(&mut cx, now, &mut buf) {
                sent.push(buf[..len].to_vec());
            }
        }
        let [one, other] = sent;
        assert_eq!(one, other);
        self.compare();
        one
    }

    /// Everything there is to know.
    fn compare(&mut self) {
        let [one, other] = &mut self.twins;
        assert_eq!(format!("{:?}", one.kcp), format!("{:?}", other.kcp));
        assert_eq!(one.store.stats(), other.store.stats());
        assert_eq!(one.store.bytes_used(), other.store.bytes_used());
        assert_eq!(one.delivered, other.delivered);
        for twin in [one, other] {
            twin.delivered.clear();
        }
    }
}
