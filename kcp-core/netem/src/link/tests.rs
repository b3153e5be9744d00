//! Each fault alone, then all of them at once against the ledger.

use super::*;
use crate::config::{Blackout, Bursts};

type Arrival = (u64, Vec<u8>);

/// Pushes `count` packets, one each `gap_us`, and takes everything out at its time.
fn run(config: &LinkConfig, seed: u64, count: u32, gap_us: u64) -> (Vec<Arrival>, Counters) {
    let mut link = Link::new(config.clone(), seed);
    let mut arrivals = Vec::new();
    for number in 0..count {
        let now_us = u64::from(number) * gap_us;
        drain_until(now_us, &mut link, &mut arrivals);
        link.push(now_us, number.to_le_bytes().to_vec());
    }
    drain_until(u64::MAX, &mut link, &mut arrivals);
    (arrivals, link.counters())
}

fn drain(link: &mut Link<Vec<u8>>) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    drain_until(u64::MAX, link, &mut arrivals);
    arrivals
}

fn drain_until(until_us: u64, link: &mut Link<Vec<u8>>, arrivals: &mut Vec<Arrival>) {
    while let Some(at) = link.next_time().filter(|&at| at <= until_us) {
        if let Some(before) = at.checked_sub(1) {
            assert_eq!(link.pop(before), None, "nothing comes before its time");
        }
        let packet = link.pop(at).expect("what was announced is there");
        arrivals.push((at, packet));
    }
}

fn numbers(arrivals: &[Arrival]) -> Vec<u32> {
    arrivals.iter().map(|(_, packet)| u32::from_le_bytes(packet[..4].try_into().unwrap())).collect()
}

fn delayed() -> LinkConfig {
    LinkConfig { delay_us: 10_000, ..LinkConfig::default() }
}

#[test]
fn a_perfect_link_hands_over_at_once_and_in_order() {
    let mut link = Link::new(LinkConfig::default(), 1);
    for number in 0..100_u8 {
        link.push(5, vec![number]);
    }
    assert_eq!(link.next_time(), Some(5));
    for number in 0..100_u8 {
        assert_eq!(link.pop(5), Some(vec![number]));
    }
    assert_eq!((link.pop(5), link.next_time(), link.held()), (None, None, 0));
}

#[test]
fn a_seed_is_a_network() {
    let config = LinkConfig {
        loss_ppm: 100_000,
        jitter_us: 5_000,
        keep_order: false,
        duplicate_ppm: 100_000,
        corrupt_ppm: 100_000,
        ..delayed()
    };
    assert_eq!(run(&config, 3, 500, 100), run(&config, 3, 500, 100));
    assert_ne!(run(&config, 3, 500, 100).0, run(&config, 4, 500, 100).0);
}

#[test]
fn loss_has_its_rate_and_a_lower_rate_loses_fewer_of_the_same() {
    let lossy = |loss_ppm| run(&LinkConfig { loss_ppm, ..delayed() }, 9, 100_000, 10);
    let (some, counters) = lossy(20_000);
    assert!((1_850..2_150).contains(&counters.lost), "{} of 100,000 at 2 %", counters.lost);
    let (more, _) = lossy(10_000);
    let kept: std::collections::BTreeSet<_> = numbers(&more).into_iter().collect();
    assert!(numbers(&some).iter().all(|number| kept.contains(number)));
    assert_eq!(lossy(1_000_000).0, []);
    assert_eq!(lossy(0).1.lost, 0);
}

#[test]
fn bursts_have_their_length() {
    let bursts = Bursts { enter_ppm: 5_000, leave_ppm: 200_000, loss_ppm: 1_000_000 };
    let (arrivals, counters) =
        run(&LinkConfig { bursts: Some(bursts), ..delayed() }, 2, 200_000, 10);
    let gaps: Vec<u32> = numbers(&arrivals)
        .windows(2)
        .map(|pair| pair[1] - pair[0] - 1)
        .filter(|&gap| gap > 0)
        .collect();
    let mean = f64::from(gaps.iter().sum::<u32>()) / gaps.len() as f64;
    assert!((4.6..5.4).contains(&mean), "bursts of {mean} packets on average, 5 asked for");
    assert!((850..1_150).contains(&gaps.len()), "{} bursts, about 1,000 asked for", gaps.len());
    assert_eq!(counters.lost_in_burst + arrivals.len() as u64, 200_000);
}

#[test]
fn jitter_stays_in_its_range_and_overtakes_only_when_allowed() {
    let jittery = LinkConfig { jitter_us: 8_000, ..delayed() };
    let (kept, _) = run(&jittery, 5, 2_000, 100);
    assert!(numbers(&kept).is_sorted());
    let (free, _) = run(&LinkConfig { keep_order: false, ..jittery }, 5, 2_000, 100);
    assert!(!numbers(&free).is_sorted());
    let travel: Vec<u64> = free
        .iter()
        .zip(numbers(&free))
        .map(|(arrival, number)| arrival.0 - u64::from(number) * 100)
        .collect();
    assert!(travel.iter().all(|us| (10_000..=18_000).contains(us)));
    assert!(travel.iter().any(|&us| us < 10_200) && travel.iter().any(|&us| us > 17_800));
}

#[test]
fn reordering_holds_back_the_chosen_ones() {
    let config = LinkConfig { reorder_ppm: 50_000, reorder_us: 1_000, ..delayed() };
    let (arrivals, counters) = run(&config, 6, 1_000, 100);
    let late = arrivals
        .iter()
        .zip(numbers(&arrivals))
        .filter(|(arrival, number)| arrival.0 == u64::from(*number) * 100 + 11_000)
        .count();
    assert_eq!(late as u64, counters.reordered);
    assert!((30..70).contains(&late), "{late} of 1,000 at 5 %");
    assert!(!numbers(&arrivals).is_sorted());
}

#[test]
fn duplication_brings_the_same_bytes_twice() {
    let (arrivals, counters) =
        run(&LinkConfig { duplicate_ppm: 300_000, ..delayed() }, 8, 1_000, 100);
    assert_eq!(arrivals.len() as u64, 1_000 + counters.duplicated);
    assert!((240..360).contains(&counters.duplicated));
    let twice = arrivals.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!(twice as u64, counters.duplicated);
}

#[test]
fn corruption_flips_one_bit() {
    let mut link = Link::new(LinkConfig { corrupt_ppm: 1_000_000, ..LinkConfig::default() }, 8);
    let mut positions = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        link.push(0, vec![0; 40]);
        let packet = link.pop(0).unwrap();
        assert_eq!(packet.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        positions.insert(packet.iter().position(|&byte| byte != 0).unwrap());
    }
    assert_eq!(positions.len(), 40, "every byte is reached");
    link.push(0, Vec::new());
    assert_eq!(link.pop(0), Some(Vec::new()));
    assert_eq!(link.counters().corrupted, 2_000, "an empty packet has no bit to flip");
}

#[test]
fn the_rate_spaces_packets_and_its_queue_is_bounded() {
    // 100 bytes with overhead at 8 Mbit/s: one each 100 us, and 50 of them fit the queue.
    let config = LinkConfig {
        rate_bits_per_s: 8_000_000,
        queue_bytes_max: 5_000,
        overhead_bytes: 28,
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 1);
    for _ in 0..80 {
        link.push(1_000, vec![0; 72]);
    }
    assert_eq!(link.counters().queue_full, 30);
    let times: Vec<u64> = drain(&mut link).into_iter().map(|arrival| arrival.0).collect();
    let spaced: Vec<u64> = (1..=50).map(|place| 1_000 + place * 100).collect();
    assert_eq!(times, spaced);
    // Idle time is not saved up.
    link.push(50_000, vec![0; 72]);
    link.push(50_000, vec![0; 72]);
    assert_eq!(drain(&mut link).iter().map(|a| a.0).collect::<Vec<_>>(), [50_100, 50_200]);
}

#[test]
fn a_fast_rate_does_not_round_to_no_limit() {
    // 10 Gbit/s: 128 bytes take 102.4 ns.
    let config = LinkConfig {
        rate_bits_per_s: 10_000_000_000,
        queue_bytes_max: u64::MAX,
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 1);
    for _ in 0..10_000 {
        link.push(0, vec![0; 100]);
    }
    let last = drain(&mut link).pop().unwrap().0;
    assert!((1_024..=1_031).contains(&last), "{last} us");
}

#[test]
fn blackouts_come_once_or_again_and_again() {
    let once = Blackout { from_us: 1_000, for_us: 500, every_us: 0 };
    let repeated = Blackout { from_us: 3_000, for_us: 100, every_us: 1_000 };
    let config = LinkConfig { blackouts: vec![once, repeated], ..LinkConfig::default() };
    let mut link = Link::new(config, 1);
    for at in [0, 999, 1_000, 1_499, 1_500, 2_000, 2_999, 3_000, 3_099, 3_100, 4_050, 9_099, 9_100]
    {
        link.push(at, vec![]);
    }
    let passed: Vec<u64> = drain(&mut link).into_iter().map(|arrival| arrival.0).collect();
    assert_eq!(passed, [0, 999, 1_500, 2_000, 2_999, 3_100, 9_100]);
    assert_eq!(link.counters().blacked_out, 6);
}

#[test]
fn long_packets_vanish() {
    let mut link = Link::new(LinkConfig { payload_max: 10, ..LinkConfig::default() }, 1);
    link.push(0, vec![0; 11]);
    link.push(0, vec![0; 10]);
    assert_eq!(drain(&mut link).len(), 1);
    assert_eq!(link.counters().too_long, 1);
}

#[test]
fn memory_is_bounded() {
    let config = LinkConfig { held_max: 10, duplicate_ppm: 1_000_000, ..delayed() };
    let mut link = Link::new(config, 1);
    for _ in 0..20 {
        link.push(0, vec![]);
        assert!(link.held() <= 10);
    }
    assert_eq!((link.held(), link.counters().held_full, link.counters().duplicated), (10, 15, 5));
}

#[test]
fn a_time_that_goes_back_counts_as_the_latest() {
    let mut link = Link::new(delayed(), 1);
    link.push(500, vec![1]);
    link.push(100, vec![2]);
    assert_eq!(drain(&mut link), [(10_500, vec![1]), (10_500, vec![2])]);
}

#[test]
fn settings_change_under_way() {
    let mut link = Link::new(delayed(), 1);
    link.push(0, vec![1]);
    link.set_config(LinkConfig { delay_us: 1_000, keep_order: false, ..LinkConfig::default() });
    link.push(0, vec![2]);
    assert_eq!(drain(&mut link), [(1_000, vec![2]), (10_000, vec![1])]);
}

#[test]
fn the_ledger_balances_whatever_the_settings() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let config = random_config(&mut rng);
        let mut link = Link::new(config, seed);
        let mut now_us = 0;
        for _ in 0..400 {
            now_us += rng.below(2_000);
            let len = usize::try_from(rng.below(200)).unwrap();
            link.push(now_us, vec![0; len]);
            if rng.below(3) == 0 {
                while link.pop(now_us).is_some() {}
            }
            let c = link.counters();
            let dropped =
                c.lost + c.lost_in_burst + c.blacked_out + c.too_long + c.queue_full + c.held_full;
            assert_eq!(
                c.pushed + c.duplicated,
                c.delivered + dropped + link.held() as u64,
                "seed {seed}: {c:?}"
            );
        }
        drain(&mut link);
    }
}

fn random_config(rng: &mut Rng) -> LinkConfig {
    let mut ppm = || if rng.chance_ppm(500_000) { rng.next_u32() % 400_000 } else { 0 };
    let bursts = Bursts { enter_ppm: ppm(), leave_ppm: ppm(), loss_ppm: ppm() };
    LinkConfig {
        loss_ppm: ppm(),
        reorder_ppm: ppm(),
        duplicate_ppm: ppm(),
        corrupt_ppm: ppm(),
        bursts: Some(bursts),
        delay_us: rng.below(50_000),
        jitter_us: rng.below(50_000),
        keep_order: rng.chance_ppm(500_000),
        reorder_us: rng.below(20_000),
        rate_bits_per_s: rng.below(2) * (1 + rng.below(10_000_000)),
        queue_bytes_max: rng.below(10_000),
        overhead_bytes: 28,
        payload_max: 150,
        blackouts: vec![Blackout { from_us: rng.below(100_000), for_us: 20_000, every_us: 90_000 }],
        held_max: 1 + usize::try_from(rng.below(100)).unwrap(),
    }
}
