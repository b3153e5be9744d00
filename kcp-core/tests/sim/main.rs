//! Two conversations over a seeded bad network, in virtual time.
//!
//! A failure names its seed and how to run it alone. `KCP_SIM_SEEDS=A..B` runs other seeds than the fixed ones.
#![expect(clippy::expect_used, reason = "a test says what it expects")]

mod goodput;
mod world;

use std::ops::Range;

use kcp_core::{Cx, FlushPolicy, KcpConfig, Millis, Reference, Sn};
use netem::{Blackout, Bursts, LinkConfig, Rng};
use world::{End, Scenario, World};

#[test]
fn what_is_sent_arrives_in_order_and_once() {
    let (mut fast, mut timeout, mut probes) = (0, 0, 0);
    for seed in seeds(0..400) {
        let scenario = random_scenario(seed);
        let _rerun = Rerun("what_is_sent", seed, &scenario);
        let mut world = World::new(&scenario);
        world.run_to_rest(LIMIT_US);
        for peer in &world.peers {
            let stats = peer.store.stats();
            fast += stats.resends_fast;
            timeout += stats.resends_timeout;
            probes += stats.probes_sent;
        }
    }
    println!("{fast} fast resends, {timeout} resends by timeout, {probes} window probes");
    if std::env::var_os("KCP_SIM_SEEDS").is_none() {
        assert!(fast > 1_000 && timeout > 1_000 && probes > 50, "the sweep is too tame");
    }
}

#[test]
fn a_dead_link_is_noticed_and_never_spins() {
    for seed in seeds(0..60) {
        let mut scenario = random_scenario(seed);
        let dark = Blackout { from_us: 300_000, for_us: u64::MAX, every_us: 0 };
        for (end, link) in scenario.ends.iter_mut().zip(&mut scenario.links) {
            end.config.dead_link = 4;
            // A closed window would be probed, and never die.
            end.read_pause_us = 0;
            (end.messages, end.message_max) = (u32::MAX, end.message_max.max(1));
            link.blackouts = vec![dark];
        }
        let _rerun = Rerun("a_dead_link", seed, &scenario);
        let mut world = World::new(&scenario);
        world.run_until(1_200_000_000);
        for (peer, link) in world.peers.iter().zip(&world.links) {
            assert!(peer.kcp.is_dead(), "{}", world.describe());
            // Every segment backs off. With nodelay 2 its timeout grows by 15 ms each time at least, which makes 400 in
            // 20 minutes; a flush each 10 ms would make 120,000.
            let sent = link.counters().blacked_out;
            let window = u64::from(peer.end.config.snd_wnd);
            assert!(sent < 500 * window, "{sent} datagrams into the dark at a window of {window}");
        }
    }
}

#[test]
fn corruption_and_garbage_neither_panic_nor_grow() {
    for seed in seeds(0..150) {
        let mut scenario = random_scenario(seed);
        for (end, link) in scenario.ends.iter_mut().zip(&mut scenario.links) {
            end.config.strict = seed % 2 == 0;
            end.store_bytes = 200_000;
            link.corrupt_ppm = 300_000;
        }
        let _rerun = Rerun("corruption", seed, &scenario);
        hostile_run(&scenario);
    }
}

#[test]
fn reset_gives_everything_back_in_mid_flight() {
    for seed in seeds(0..60) {
        let scenario = random_scenario(seed);
        let _rerun = Rerun("reset", seed, &scenario);
        let mut world = World::new(&scenario);
        world.run_until(150_000);
        for peer in &mut world.peers {
            peer.kcp.reset(&mut peer.store);
            assert!(peer.kcp.is_idle());
            assert_eq!(peer.store.bytes_used(), 0);
        }
    }
}

/// Damaged and invented datagrams into two conversations that keep sending. Nothing can be said about what arrives; the
/// bounds must hold.
fn hostile_run(scenario: &Scenario) {
    let mut rng = Rng::new(!scenario.seed);
    let mut world = World::new(scenario);
    let mut buf = vec![0; 65_536];
    let mut now = scenario.start;
    for _ in 0..2_000 {
        now = now.add(u32::try_from(rng.below(40)).expect("small"));
        world.now_us += 20_000;
        for at in 0..2 {
            let arrived = world.links[1 - at].pop(world.now_us);
            let forged = rng.chance_ppm(200_000).then(|| forge(&mut rng));
            let peer = &mut world.peers[at];
            let config = &peer.end.config;
            let mut cx = Cx { config, store: &mut peer.store };
            for datagram in arrived.into_iter().chain(forged) {
                // An error is as good as success here.
                let _ = peer
                    .kcp
                    .handle_datagram(&mut cx, now, &datagram, |message| message.len() % 2 == 0);
            }
            if peer.kcp.wait_snd() < 300 {
                let len = usize::try_from(rng.below(3_000)).expect("small");
                let _ = peer.kcp.send(&mut cx, &vec![7; len]);
            }
            if rng.chance_ppm(700_000) {
                while peer.kcp.recv(&mut cx, &mut buf).is_ok() {}
            }
            match config.flush {
                FlushPolicy::Turn => peer.kcp.flush(&mut cx, now),
                FlushPolicy::Interval => peer.kcp.handle_timeout(&mut cx, now),
            }
            while let Some(len) = peer.kcp.poll_transmit(&mut cx, now, &mut buf) {
                assert!(len <= config.mtu as usize);
                world.links[at].push(world.now_us, buf[..len].to_vec());
            }
            let queues = peer.kcp.queue_lengths();
            let rcv_wnd = config.rcv_wnd as usize;
            assert!(queues.rcv_buf <= rcv_wnd && queues.rcv_queue <= rcv_wnd, "{queues:?}");
            let held = cx.store.bytes_used() + cx.store.bytes_recycled();
            assert!(held <= cx.store.bytes_max(), "{held} bytes in the store");
            if let Some(deadline) = peer.kcp.poll_timeout(&cx, now) {
                assert!(deadline.since(now) >= 0);
            }
        }
    }
    for peer in &mut world.peers {
        peer.kcp.reset(&mut peer.store);
        assert_eq!(peer.store.bytes_used(), 0);
    }
}

/// A datagram of the right conversation with anything in it, or of nothing in particular.
fn forge(rng: &mut Rng) -> Vec<u8> {
    let len = usize::try_from(rng.below(120)).expect("small");
    let mut datagram: Vec<u8> = (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
    if let Some(head) = datagram.first_chunk_mut::<24>() {
        head[..4].copy_from_slice(&0x1122_3344_u32.to_le_bytes());
        head[4] = 81 + head[4] % 4;
        if rng.chance_ppm(700_000) {
            head[20..24].copy_from_slice(&u32::try_from(len - 24).expect("small").to_le_bytes());
            // Near the numbers in use, so that some of it is believed.
            head[14..16].copy_from_slice(&[0, 0]);
            head[18..20].copy_from_slice(&[0, 0]);
        }
    }
    datagram
}

/// A scenario in which everything sent must arrive.
fn random_scenario(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let stream = rng.chance_ppm(400_000);
    let mtu = *pick(&mut rng, &[50, 51, 100, 576, 1_400]);
    let first_sn = [random_start(&mut rng), random_start(&mut rng)].map(Sn);
    Scenario {
        seed,
        start: Millis(random_start(&mut rng)),
        first_sn,
        ends: [random_end(&mut rng, stream, mtu), random_end(&mut rng, stream, mtu)],
        links: [random_link(&mut rng), random_link(&mut rng)],
    }
}

/// Zero, anywhere, or so that it wraps early in the run.
fn random_start(rng: &mut Rng) -> u32 {
    match rng.below(3) {
        0 => 0,
        1 => rng.next_u32(),
        _ => u32::MAX - rng.next_u32() % 3_000,
    }
}

fn random_end(rng: &mut Rng, stream: bool, mtu: u32) -> End {
    let config = KcpConfig {
        mtu,
        nodelay: *pick(rng, &[0, 1, 2]),
        interval: *pick(rng, &[10, 20, 40, 100]),
        fastresend: *pick(rng, &[0, 1, 2, 3]),
        fastlimit: *pick(rng, &[0, 2, 5]),
        nocwnd: rng.chance_ppm(500_000),
        snd_wnd: *pick(rng, &[1, 2, 4, 32, 128, 256]),
        rcv_wnd: *pick(rng, &[128, 129, 256, 1_024]),
        stream,
        // Sending goes on after it, so it may strike in a long blackout without harm.
        dead_link: 20,
        reference: *pick(rng, &[Reference::V1_7_1, Reference::V2_1_1]),
        flush: *pick(rng, &[FlushPolicy::Turn, FlushPolicy::Interval]),
        strict: rng.chance_ppm(700_000),
    };
    let mss = config.mss() as usize;
    let message_max = *pick(rng, &[0, 1, 20, mss, mss + 1, 5 * mss, 127 * mss]);
    let segments = 1 + message_max / mss / 2;
    let most = u32::try_from(400 / segments).expect("at most 400");
    End {
        config,
        store_bytes: 8 << 20,
        messages: 1 + rng.next_u32() % most,
        message_max,
        write_pause_us: *pick(rng, &[0, 1_000, 50_000, 2_000_000]),
        read_pause_us: *pick(rng, &[0, 0, 100_000, 20_000_000, 60_000_000]),
    }
}

fn random_link(rng: &mut Rng) -> LinkConfig {
    let bursts = Bursts { enter_ppm: 10_000, leave_ppm: 250_000, loss_ppm: 800_000 };
    let blackout =
        Blackout { from_us: rng.below(2_000_000), for_us: rng.below(5_000_000), every_us: 0 };
    LinkConfig {
        loss_ppm: *pick(rng, &[0, 0, 10_000, 50_000, 200_000]),
        bursts: rng.chance_ppm(300_000).then_some(bursts),
        delay_us: *pick(rng, &[0, 500, 20_000, 150_000]),
        jitter_us: *pick(rng, &[0, 0, 5_000, 60_000]),
        keep_order: rng.chance_ppm(300_000),
        reorder_ppm: *pick(rng, &[0, 0, 50_000]),
        reorder_us: 30_000,
        duplicate_ppm: *pick(rng, &[0, 0, 20_000, 500_000]),
        rate_bits_per_s: *pick(rng, &[0, 0, 0, 256_000, 10_000_000]),
        // A queue far smaller than a window lets a few segments of each burst through, and without a congestion window all
        // others back off together, each time twice as long: that ends, but after days.
        queue_bytes_max: *pick(rng, &[100_000, 400_000]),
        blackouts: if rng.chance_ppm(300_000) { vec![blackout] } else { Vec::new() },
        ..LinkConfig::default()
    }
}

fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    let at = usize::try_from(rng.below(choices.len() as u64)).expect("below a length");
    &choices[at]
}

/// The seeds to run: `fixed`, or what `KCP_SIM_SEEDS` says.
fn seeds(fixed: Range<u64>) -> Range<u64> {
    let Ok(wanted) = std::env::var("KCP_SIM_SEEDS") else { return fixed };
    let (from, to) = wanted.split_once("..").expect("KCP_SIM_SEEDS is A..B");
    from.parse().expect("A is a number")..to.parse().expect("B is a number")
}

/// Says how to run a failed seed alone.
struct Rerun<'a>(&'static str, u64, &'a Scenario);

impl Drop for Rerun<'_> {
    fn drop(&mut self) {
        let Self(test, seed, scenario) = self;
        if std::thread::panicking() {
            eprintln!("{scenario:#?}");
            let next = *seed + 1;
            eprintln!(
                "rerun: KCP_SIM_SEEDS={seed}..{next} cargo test -p kcp-core --test sim {test}"
            );
        }
    }
}

/// A day of virtual time: backed-off timeouts can take hours.
const LIMIT_US: u64 = 86_400_000_000;
