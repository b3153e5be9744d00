use super::super::dice::Dice;
use super::*;

const START: Now = Now(5_000_000);

fn checked() -> HealthConfig {
    let check =
        CheckConfig { interval_ms: 1000, interval_max_ms: 8000, rise: 2, ..Default::default() };
    HealthConfig { check: Some(check), ..Default::default() }
}

fn unchecked() -> HealthConfig {
    HealthConfig { check: None, eject_after: 3, eject_base_ms: 1000, eject_max_ms: 4000 }
}

/// Runs to the next check and concludes it; tells how long its pause was, in milliseconds.
fn check(health: &mut Health, now: &mut Now, passed: bool) -> u64 {
    let before = *now;
    let due = health.poll_timeout().unwrap();
    *now = due.max(*now);
    assert_eq!(health.handle_timeout(*now), Some(Action::Check));
    assert_eq!(health.handle_timeout(*now), None);
    health.on_check(*now, passed);
    (now.0 - before.0) / 1000
}

#[test]
fn a_checked_backend_rises_and_falls_by_rows() {
    let mut now = START;
    let mut health = Health::new(now, checked(), 1);
    assert_eq!(health.state(), State::Down, "nothing is known of it yet");
    for (passed, state) in [
        (true, State::Down),
        (false, State::Down),
        (true, State::Down),
        (true, State::Up), // two in a row
        (false, State::Up),
        (false, State::Up),
        (true, State::Up),
        (false, State::Up),
        (false, State::Up),
        (false, State::Down), // three in a row
    ] {
        check(&mut health, &mut now, passed);
        assert_eq!(health.state(), state, "at {now:?}");
    }
}

#[test]
fn the_first_check_is_due_at_once_and_an_unanswered_one_fails() {
    let mut health = Health::new(START, checked(), 1);
    assert_eq!(health.poll_timeout(), Some(START));
    assert_eq!(health.handle_timeout(START), Some(Action::Check));
    let deadline = health.poll_timeout().unwrap();
    assert_eq!(deadline, START.add_ms(1000));
    assert_eq!(health.handle_timeout(Now(deadline.0 - 1)), None);
    assert_eq!(health.handle_timeout(deadline), Some(Action::AbandonCheck));
    health.on_check(deadline, true); // it comes late, and is no answer to the next one
    let next = health.poll_timeout().unwrap();
    assert!(next > deadline);
    assert_eq!(health.handle_timeout(next), Some(Action::Check));
    health.on_check(next, true);
    assert_eq!(health.state(), State::Down, "one of two");
}

#[test]
fn a_backend_that_stays_down_is_asked_ever_less_often() {
    let mut now = START;
    let mut health = Health::new(now, checked(), 9);
    check(&mut health, &mut now, false);
    for step in [1000, 2000, 4000, 8000, 8000] {
        let pause = check(&mut health, &mut now, false);
        assert!(pause >= step / 2 && pause <= step, "{pause} of {step}");
    }
    check(&mut health, &mut now, true);
    let pause = check(&mut health, &mut now, true);
    assert!(pause <= 1000, "it answers again: {pause}");
    assert_eq!(health.state(), State::Up);
}

#[test]
fn without_checks_a_backend_is_up_until_sessions_fail() {
    let mut health = Health::new(START, unchecked(), 1);
    assert_eq!((health.state(), health.poll_timeout()), (State::Up, None));
    health.on_failure(START);
    health.on_failure(START);
    health.on_success(); // not in a row
    health.on_failure(START);
    health.on_failure(START);
    assert_eq!(health.state(), State::Up);
    health.on_failure(START);
    assert!(matches!(health.state(), State::Ejected { .. }));
}

#[test]
fn an_ejection_ends_in_a_trial_and_lasts_longer_each_time() {
    let mut now = START;
    let mut health = Health::new(now, unchecked(), 3);
    health.on_failure(now);
    health.on_failure(now);
    for step in [1000, 2000, 4000, 4000] {
        health.on_failure(now);
        let State::Ejected { until } = health.state() else { panic!("one failure is enough") };
        let term = (until.0 - now.0) / 1000;
        assert!(term >= step / 2 && term <= step, "{term} of {step}");
        health.on_failure(now); // a straggler from before
        assert_eq!(health.state(), State::Ejected { until });
        health.on_success(); // likewise
        assert_eq!(health.poll_timeout(), Some(until));
        assert_eq!(health.handle_timeout(Now(until.0 - 1)), None);
        assert_eq!(health.state(), State::Ejected { until });
        now = until;
        assert_eq!(health.handle_timeout(now), None);
        assert_eq!(health.state(), State::Up);
    }
    health.on_success();
    health.on_failure(now);
    assert_eq!(health.state(), State::Up, "the trial is passed: three failures again");
}

#[test]
fn ejection_can_be_off() {
    let mut health = Health::new(START, HealthConfig { eject_after: 0, ..unchecked() }, 1);
    for _ in 0..1000 {
        health.on_failure(START);
    }
    assert_eq!(health.state(), State::Up);
}

#[test]
fn draining_hides_what_goes_on_but_does_not_stop_it() {
    let mut now = START;
    let mut health = Health::new(now, checked(), 1);
    health.drain();
    for _ in 0..2 {
        check(&mut health, &mut now, true);
        assert_eq!(health.state(), State::Draining);
    }
    health.undrain();
    assert_eq!(health.state(), State::Up);
}

#[test]
fn ejected_and_down_are_told_apart() {
    let mut now = START;
    let mut health = Health::new(now, HealthConfig { eject_after: 1, ..checked() }, 1);
    check(&mut health, &mut now, true);
    check(&mut health, &mut now, true);
    health.on_failure(now);
    assert!(matches!(health.state(), State::Ejected { .. }), "its port answers, sessions fail");
    for _ in 0..3 {
        while health.handle_timeout(now).is_none() {
            now = health.poll_timeout().unwrap();
        }
        health.on_check(now, false);
    }
    assert_eq!(health.state(), State::Down);
}

/// Any inputs: time only asked for ahead, at most one check under way, and a backend that works ends up.
#[test]
fn any_history_ends_up_when_all_is_well_again() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let config = if dice.one_in(2) { checked() } else { unchecked() };
        let mut now = START;
        let mut health = Health::new(now, config, seed);
        let mut under_way = false;
        let step = |health: &mut Health, now: Now, under_way: &mut bool| {
            while let Some(action) = health.handle_timeout(now) {
                assert_eq!(*under_way, action == Action::AbandonCheck);
                *under_way = action == Action::Check;
            }
            assert!(health.poll_timeout().is_none_or(|at| at > now));
        };
        for _ in 0..500 {
            now = Now(now.0 + dice.below(3_000_000) as u64);
            match dice.below(6) {
                0 => health.on_failure(now),
                1 => health.on_success(),
                2 => health.drain(),
                3 => health.undrain(),
                _ => {
                    health.on_check(now, dice.one_in(2));
                    under_way = false;
                }
            }
            step(&mut health, now, &mut under_way);
        }
        health.undrain();
        for _ in 0..20 {
            now = health.poll_timeout().unwrap_or(now).max(now);
            step(&mut health, now, &mut under_way);
            if std::mem::take(&mut under_way) {
                health.on_check(now, true);
            }
            health.on_success();
        }
        assert_eq!(health.state(), State::Up);
    }
}
