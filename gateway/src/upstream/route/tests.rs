use super::super::dice::Dice;
use super::*;

fn backends(weights: &[u16]) -> Vec<Candidate> {
    let name = |i: usize| key(&format!("backend-{i}"));
    let candidate = |(i, &weight)| Candidate { usable: true, weight, sessions: 0, key: name(i) };
    weights.iter().enumerate().map(candidate).collect()
}

/// How often each of `backends` is chosen for conversations 0 to `n`, its sessions counted up with each.
fn spread(router: &mut Router, backends: &mut [Candidate], n: u32) -> Vec<u32> {
    let before: Vec<u32> = backends.iter().map(|b| b.sessions).collect();
    for conv in 0..n {
        let chosen = router.choose(backends, Conv(conv)).unwrap();
        backends[chosen].sessions += 1;
    }
    backends.iter().zip(before).map(|(b, before)| b.sessions - before).collect()
}

const POLICIES: [Policy; 3] = [Policy::RoundRobin, Policy::LeastSessions, Policy::Rendezvous];

#[test]
fn round_robin_is_exact_and_evenly_mixed() {
    let mut router = Router::new(Policy::RoundRobin, 0);
    let three = backends(&[5, 1, 1]);
    let row: Vec<_> = (0..7).map(|c| router.choose(&three, Conv(c)).unwrap()).collect();
    assert_eq!(row, [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(spread(&mut router, &mut backends(&[5, 1, 1]), 7000), [5000, 1000, 1000]);
}

#[test]
fn least_sessions_fills_the_emptiest_for_its_weight() {
    let mut router = Router::new(Policy::LeastSessions, 0);
    let mut three = backends(&[1, 1, 2]);
    three[0].sessions = 100;
    spread(&mut router, &mut three, 300);
    assert_eq!(three.iter().map(|b| b.sessions).collect::<Vec<_>>(), [100, 100, 200]);
}

#[test]
fn rendezvous_spreads_by_weight() {
    let mut router = Router::new(Policy::Rendezvous, 0);
    let shares = spread(&mut router, &mut backends(&[1, 2, 5]), 80_000);
    for (share, expected) in shares.iter().zip([10_000u32, 20_000, 50_000]) {
        assert!(share.abs_diff(expected) < expected / 20, "{shares:?}");
    }
}

#[test]
fn rendezvous_moves_only_what_a_lost_backend_had() {
    let mut router = Router::new(Policy::Rendezvous, 0);
    let mut five = backends(&[1, 3, 1, 2, 1]);
    let before: Vec<_> = (0..10_000).map(|c| router.choose(&five, Conv(c)).unwrap()).collect();
    five[3].usable = false;
    let mut moved_to = [0; 5];
    for (conv, &had) in (0..).zip(&before) {
        let has = router.choose(&five, Conv(conv)).unwrap();
        assert!(has == had || had == 3, "conversation {conv} moved from {had} to {has}");
        moved_to[has] += u32::from(has != had);
    }
    assert!(moved_to.iter().enumerate().all(|(i, &n)| (n > 0) == (i != 3)), "{moved_to:?}");
    five[3].usable = true;
    let again: Vec<_> = (0..10_000).map(|c| router.choose(&five, Conv(c)).unwrap()).collect();
    assert_eq!(again, before, "and they come back with it");
}

/// Two gateways, or two releases, must agree: this row is part of the contract. It was computed outside of this program,
/// with floating-point logarithms.
#[test]
fn rendezvous_is_the_same_everywhere() {
    let four = backends(&[1, 1, 2, 3]);
    let mut router = Router::new(Policy::Rendezvous, 0);
    let row: Vec<_> = (1000..1024).map(|c| router.choose(&four, Conv(c)).unwrap()).collect();
    assert_eq!(key("backend-0"), 0x0648_0807_D2AC_B482);
    let expected = [3, 3, 3, 0, 2, 2, 2, 2, 0, 3, 3, 1, 2, 3, 1, 3, 3, 2, 2, 2, 3, 1, 2, 3];
    assert_eq!(row, expected);
}

#[test]
fn the_logarithm_is_one() {
    assert_eq!(minus_log2(1 << 63), 1 << 32);
    assert_eq!(minus_log2(1 << 62), 2 << 32);
    assert_eq!(minus_log2(1), 64 << 32);
    assert!(minus_log2(u64::MAX) <= 1);
    let mut dice = Dice::new(1);
    for _ in 0..1000 {
        let x = 1 + dice.below(usize::MAX) as u64;
        let expected = (64.0 - (x as f64).log2()) * 4_294_967_296.0;
        let got = minus_log2(x) as f64;
        assert!((got - expected).abs() < 4.0, "{x}: {got} for {expected}");
    }
}

#[test]
fn nobody_unusable_or_weightless_is_chosen() {
    for policy in POLICIES {
        let mut router = Router::new(policy, 3);
        assert_eq!(router.choose(&[], Conv(1)), None);
        let mut some = backends(&[1, 0, 4, 1]);
        some[2].usable = false;
        let shares = spread(&mut router, &mut some, 2000);
        assert!(shares[1] == 0 && shares[2] == 0 && shares[0] > 0 && shares[3] > 0, "{shares:?}");
        for backend in &mut some {
            backend.usable = false;
        }
        assert_eq!(router.choose(&some, Conv(1)), None);
    }
}

#[test]
fn a_backend_that_comes_back_gets_its_share_and_no_burst() {
    let mut router = Router::new(Policy::RoundRobin, 0);
    let mut two = backends(&[1, 1]);
    two[1].usable = false;
    assert_eq!(spread(&mut router, &mut two, 100), [100, 0]);
    two[1].usable = true;
    assert_eq!(spread(&mut router, &mut two, 10), [5, 5]);
}

#[test]
fn a_flapping_backend_does_not_starve_the_others() {
    let mut router = Router::new(Policy::RoundRobin, 0);
    let mut four = backends(&[1; 4]);
    let mut shares = [0; 4];
    for conv in 0..4000 {
        four[0].usable = conv % 2 == 0;
        shares[router.choose(&four, Conv(conv)).unwrap()] += 1;
    }
    assert!(shares[1..].iter().all(|&n| n > 400), "{shares:?}");
    four[0].usable = true;
    assert_eq!(spread(&mut router, &mut four, 4000), [1000; 4]);
}

#[test]
fn shards_begin_at_different_backends() {
    for policy in [Policy::RoundRobin, Policy::LeastSessions] {
        let four = backends(&[1; 4]);
        let first = |seed| Router::new(policy, seed).choose(&four, Conv(9)).unwrap();
        let mut firsts: Vec<_> = (0..4).map(first).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2, 3], "{policy:?}");
    }
}

/// Backends change under a router's feet: every answer is an eligible one, and equal routers give equal answers.
#[test]
fn any_change_of_backends_leaves_it_right_and_deterministic() {
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        for policy in POLICIES {
            let (mut a, mut b) = (Router::new(policy, 5), Router::new(policy, 5));
            let mut list = backends(&[1; 6]);
            for _ in 0..500 {
                match dice.below(6) {
                    0 => list.truncate(1 + dice.below(6)),
                    1 => list = backends(&[3, 1, 4, 1, 5, 9]),
                    _ => {
                        let i = dice.below(list.len());
                        list[i].usable = dice.below(3) > 0;
                        list[i].weight = u16::try_from(dice.below(4)).unwrap();
                        list[i].sessions = u32::try_from(dice.below(1000)).unwrap();
                    }
                }
                let conv = Conv(u32::try_from(dice.below(1 << 20)).unwrap());
                let chosen = a.choose(&list, conv);
                assert_eq!(chosen, b.choose(&list, conv));
                match chosen {
                    Some(i) => assert!(list[i].is_eligible()),
                    None => assert!(!list.iter().any(Candidate::is_eligible)),
                }
            }
        }
    }
}
