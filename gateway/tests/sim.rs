//! The production shards on a simulated network: many clients, bad links, hostile bytes, virtual time.
//!
//! A failure prints its seed; `SIM_SEED=<seed> cargo test -p kcp-gateway --test sim <name>` runs that one alone.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code")]

#[path = "sim/bulk.rs"]
mod bulk;
#[path = "sim/mux_server.rs"]
mod mux_server;
#[path = "sim/server.rs"]
mod server;
#[path = "sim/shortage.rs"]
mod shortage;
#[path = "sim/starved.rs"]
mod starved;
#[path = "sim/tcp.rs"]
mod tcp;
#[path = "sim/world.rs"]
mod world;
#[path = "sim/yamux.rs"]
mod yamux;

use kcp_core::wire::{Command, HEADER_LEN, Header};
use kcp_core::{Conv, KcpConfig, Millis, Sn};
use kcp_gateway::control::command::ShardCommand;
use kcp_gateway::control::question::{Answer, Ask, Filter, Order, Question, Scan};
use kcp_gateway::shard::Policy;
use kcp_gateway::shard::stats::{DropReason, EndReason, Histogram, Stat};
use net_io::sim::SimConfig;
use netem::{Bursts, LinkConfig, Rng};
use world::{World, policy, starts};

/// Runs `scenario` for each seed and names the seed that fails.
fn for_seeds(count: u64, scenario: impl Fn(u64)) {
    if let Some(seed) = std::env::var("SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        return scenario(seed);
    }
    for seed in 0..count {
        let failed = FailedSeed(seed);
        scenario(seed);
        std::mem::forget(failed);
    }
}

struct FailedSeed(u64);

impl Drop for FailedSeed {
    fn drop(&mut self) {
        eprintln!("failed with seed {0}: SIM_SEED={0} reruns it alone", self.0);
    }
}

fn bad_link(seed: u64) -> LinkConfig {
    let base = LinkConfig { delay_us: 5_000, jitter_us: 4_000, ..LinkConfig::default() };
    match seed % 4 {
        0 => LinkConfig::default(),
        1 => LinkConfig { loss_ppm: 50_000, duplicate_ppm: 20_000, ..base },
        2 => LinkConfig {
            bursts: Some(Bursts { enter_ppm: 5_000, leave_ppm: 200_000, loss_ppm: 900_000 }),
            ..base
        },
        _ => LinkConfig { reorder_ppm: 100_000, reorder_us: 20_000, loss_ppm: 10_000, ..base },
    }
}

fn config(seed: u64) -> SimConfig {
    SimConfig {
        seed,
        start: starts()[(seed / 4 % 3) as usize],
        link: bad_link(seed),
        ..SimConfig::default()
    }
}

#[test]
fn every_message_comes_back_once_and_in_order() {
    for_seeds(48, |seed| {
        let shards = 1 + (seed % 3) as usize;
        let mut world = World::new(&config(seed), shards, policy());
        for client in 0..4 {
            world.add_client(8, 30, [1, 64, 1000, 6000][client]);
        }
        assert!(world.run(120_000, World::all_answered), "not all answered in two minutes");
        assert_eq!(world.stat(Stat::MessagesIn), 4 * 8 * 30);
        assert_eq!(world.stat(Stat::MessagesOut), 4 * 8 * 30);
        assert_eq!(world.stat(Stat::Births), 4 * 8);
    });
}

/// What is received must never take the room that its answers need, or nothing moves again.
#[test]
fn a_full_store_slows_players_down_and_stops_nobody() {
    for_seeds(4, |seed| {
        let mut world = World::with_store(&config(seed), 1, policy(), 256 << 10);
        // Four messages of each on the way: more than store and echo hold together.
        for _ in 0..22 {
            world.add_client(50, 8, 1300);
        }
        assert!(world.run(300_000, World::all_answered), "not all answered in five minutes");
        assert!(world.stats[0].read().get(Stat::StoreFull) > 100, "the store was never full");
        let (turns, datagrams) = (world.stat(Stat::Turns), world.stat(Stat::RxDatagrams));
        assert!(turns < 4 * datagrams, "{turns} turns for {datagrams} datagrams");
    });
}

#[test]
fn strays_are_served_by_their_owner() {
    for_seeds(8, |seed| {
        let mut world = World::new(&SimConfig { stray_ppm: 300_000, ..config(seed) }, 3, policy());
        world.add_client(16, 20, 64);
        assert!(world.run(120_000, World::all_answered));
        world.run(1_000, |_| false); // what is under way arrives
        let (out, came) = (world.stat(Stat::HandoffOut), world.stat(Stat::HandoffIn));
        assert!(out > 10, "only {out} strays");
        assert_eq!(out, came);
        assert_eq!(world.stat(Stat::Births), 16, "a stray never makes a second session");
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(&config(seed), 2, policy());
        world.add_client(8, 20, 500);
        assert!(world.run(120_000, World::all_answered));
        let stats = [Stat::RxDatagrams, Stat::TxDatagrams, Stat::RtoResends, Stat::Turns];
        (world.net.now(), stats.map(|stat| world.stat(stat)))
    };
    assert_eq!(run(2), run(2));
    assert_ne!(run(2), run(3), "and another seed another run");
}

#[test]
fn an_idle_gateway_has_nothing_to_do_until_the_timeout_ends_its_sessions() {
    for_seeds(12, |seed| {
        let policy = Policy { idle_timeout_ms: 60_000, tombstone_ms: 5_000, ..policy() };
        let mut world = World::new(&config(seed), 2, policy);
        world.add_client(10, 3, 64);
        assert!(world.run(60_000, World::all_answered));
        world.run(10_000, |_| false); // acknowledgements settle
        let turns = world.stat(Stat::Turns);
        world.run(40_000, |_| false);
        assert_eq!(world.stat(Stat::Turns), turns, "an idle session costs no turn");
        assert_eq!(world.stat(Stat::StoreBytes), 0, "and holds no storage");
        world.run(25_000, |_| false);
        assert_eq!((world.ends(EndReason::Idle), world.stat(Stat::Sessions)), (10, 0));
        world.run(10_000, |_| false);
        assert_eq!(world.stat(Stat::Tombstones), 0, "the tombstones are gone as well");
        assert_eq!(world.net.next_event(), None, "nothing will ever happen again");
    });
}

#[test]
fn a_client_that_vanishes_is_a_dead_link() {
    for_seeds(6, |seed| {
        let link = LinkConfig { delay_us: 2_000, ..LinkConfig::default() };
        let mut world = World::new(&SimConfig { seed, link, ..SimConfig::default() }, 1, policy());
        world.add_client(5, 1_000_000, 64);
        world.run(1_000, |_| false);
        world.clients[0].muted = true;
        let gone = |world: &World| world.ends(EndReason::DeadLink) == 5;
        assert!(world.run(300_000, gone), "{} of 5 ended", world.ends(EndReason::DeadLink));
        assert_eq!(world.stat(Stat::StoreBytes), 0);
        assert_eq!(world.stat(Stat::Tombstones), 5);
    });
}

#[test]
fn an_ended_session_is_not_born_again_of_a_late_retransmit() {
    let mut world = World::new(&SimConfig::default(), 1, policy());
    world.ghost.send(&push(7, 0, 0, b"hello"));
    assert!(world.run(1_000, |world| world.stat(Stat::Sessions) == 1));
    assert!(world.run(400_000, |world| world.stat(Stat::Sessions) == 0));
    world.ghost.send(&push(7, 0, 0, b"hello"));
    world.run(100, |_| false);
    assert_eq!(world.drops(DropReason::Tombstone), 1);
    assert_eq!((world.stat(Stat::Births), world.stat(Stat::Sessions)), (1, 0));
    world.run(40_000, |_| false);
    world.ghost.send(&push(7, 0, 0, b"hello"));
    world.run(100, |_| false);
    assert_eq!(world.stat(Stat::Births), 2, "forgotten after its time");
}

#[test]
fn the_session_cap_holds() {
    let policy = Policy { sessions_max: 5, ..policy() };
    let mut world = World::new(&SimConfig::default(), 1, policy);
    world.add_client(9, 1, 64);
    assert!(!world.run(5_000, World::all_answered));
    let answered = world.clients[0].calls.iter().filter(|call| call.is_complete()).count();
    assert_eq!((answered, world.stat(Stat::Sessions)), (5, 5));
    assert!(world.drops(DropReason::SessionCap) >= 4);
}

#[test]
fn draining_refuses_births_and_serves_the_living() {
    let mut world = World::new(&config(1), 2, policy());
    world.add_client(6, 500, 64);
    world.run(1_000, |_| false);
    world.command(|| ShardCommand::Drain);
    world.run(10, |_| false);
    world.add_client(4, 1, 64);
    let first = |world: &World| world.clients[0].calls.iter().all(world::Call::is_complete);
    assert!(world.run(60_000, first), "the living are served to the end");
    assert!(world.drops(DropReason::Draining) > 0);
    assert_eq!(world.stat(Stat::Births), 6);
    world.command(|| ShardCommand::Undrain);
    assert!(world.run(60_000, World::all_answered), "and after undrain everybody is");
}

#[test]
fn who_comes_during_a_drain_is_told_where_to_go_until_it_has_heard() {
    let policy = Policy { farewell: b"go to gateway 2".to_vec(), ..policy() };
    let mut world = World::new(&SimConfig::default(), 1, policy);
    world.command(|| ShardCommand::Drain);
    world.run(10, |_| false);
    let told = |world: &mut World, datagram: &[u8]| {
        let before = world.ghost.received.len();
        world.ghost.send(datagram);
        world.run(10, |_| false);
        world.ghost.received.split_off(before)
    };
    let word = segment(Header { wnd: 0, ..header(7, 0, 0) }, b"go to gateway 2");
    for _ in 0..2 {
        let answers = told(&mut world, &push(7, 0, 0, b"hello"));
        assert_eq!(answers.len(), 1, "told again so long as nothing says that it was heard");
        let mut answer = answers[0].clone();
        answer[8..12].copy_from_slice(&word[8..12]); // its clock is ours
        assert_eq!(answer, word);
        assert!(answer.len() <= 3 * push(7, 0, 0, b"hello").len());
    }
    let ack = segment(Header { cmd: Command::Ack, ..header(7, 0, 1) }, b"");
    for heard in [ack, push(7, 0, 1, b"hello"), push(7, 300, 0, b"late"), b"noise".to_vec()] {
        assert!(told(&mut world, &heard).is_empty());
    }
    assert_eq!((world.drops(DropReason::Draining), world.stat(Stat::Farewells)), (2, 2));
    assert_eq!((world.stat(Stat::Births), world.stat(Stat::Sessions)), (0, 0));
    world.command(|| ShardCommand::Undrain);
    world.run(10, |_| false);
    let answers = told(&mut world, &push(8, 0, 0, b"hello"));
    assert!(!answers.is_empty() && !answers[0].ends_with(b"go to gateway 2"));
    assert_eq!(world.stat(Stat::Births), 1);
}

#[test]
fn a_farewell_never_makes_more_than_three_bytes_of_one() {
    let policy = Policy { farewell: vec![1; 100], ..policy() };
    let mut world = World::new(&SimConfig::default(), 1, policy);
    world.command(|| ShardCommand::Drain);
    world.run(10, |_| false);
    for (size, told) in [(1, 0), (17, 0), (18, 1), (1000, 1)] {
        let before = world.stat(Stat::Farewells);
        world.ghost.send(&push(size, 0, 0, &vec![1; size as usize]));
        world.run(10, |_| false);
        assert_eq!(world.stat(Stat::Farewells) - before, told, "{size} bytes");
    }
}

#[test]
fn a_shorter_patience_holds_for_those_that_are_there() {
    for (keepalive_ms, sessions) in [(0, 50), (60_000, 50), (0, 5_000)] {
        let long = Policy { keepalive_ms, ..policy() };
        let mut world = World::new(&SimConfig::default(), 1, long.clone());
        for conv in 0..sessions {
            world.ghost.send(&push(conv, 0, 0, b"hello"));
            world.run(1, |_| false);
        }
        for conv in 0..sessions {
            let ack = Header { cmd: Command::Ack, ..header(conv, 0, 1) };
            world.ghost.send(&segment(ack, b""));
            world.run(1, |_| false);
        }
        assert_eq!(world.stat(Stat::Sessions), u64::from(sessions));
        let short = std::sync::Arc::new(Policy { idle_timeout_ms: 20_000, ..long });
        world.command(|| ShardCommand::Reload(short.clone()));
        world.run(20_100, |_| false);
        assert_eq!((world.stat(Stat::Sessions), world.ends(EndReason::Idle)), (0, sessions.into()));
    }
}

#[test]
fn how_clients_are_doing_is_told() {
    let link = LinkConfig { delay_us: 30_000, loss_ppm: 100_000, ..LinkConfig::default() };
    let mut world = World::new(&SimConfig { link, ..SimConfig::default() }, 2, policy());
    world.add_client(10, 1_000_000, 64);
    world.run(40_000, |_| false);
    let (count, rtt_us, _) = world.observed(Histogram::ClientRtt);
    assert!((4 * 10..=5 * 10).contains(&count), "{count}: each busy client once in eight seconds");
    // 60 ms on the way; a segment sent again counts from its first transmission at times.
    assert!((60_000..120_000).contains(&(rtt_us / count)), "{} us", rtt_us / count);
    let (count, resent, _) = world.observed(Histogram::ClientResent);
    assert!((4 * 10..=5 * 10).contains(&count));
    assert!((50_000..400_000).contains(&(resent / count)), "{} ppm", resent / count);
    assert_eq!(world.observed(Histogram::SessionResent).0, 0, "none has ended");

    world.clients[0].muted = true;
    assert!(world.run(400_000, |world| world.stat(Stat::Sessions) == 0));
    let (count, resent, _) = world.observed(Histogram::SessionResent);
    assert!(count == 10 && resent > 0);
}

#[test]
fn clients_without_room_are_timed() {
    let mut world = World::new(&SimConfig::default(), 1, policy());
    let mut closed = header(7, 0, 0);
    closed.wnd = 0;
    world.ghost.send(&segment(closed, b"hello"));
    world.run(50, |_| false);
    assert_eq!(world.stat(Stat::ClientsStalled), 1);
    world.run(3_000, |_| false);
    world.ghost.send(&push(7, 1, 0, b"room again"));
    world.run(50, |_| false);
    let (count, us, _) = world.observed(Histogram::Stalled);
    assert_eq!((world.stat(Stat::ClientsStalled), count), (0, 1));
    assert!((3_000_000..3_200_000).contains(&us), "{us} us");
    // One that ends without room has waited until its end.
    (closed.sn, closed.conv) = (Sn(0), Conv(8));
    world.ghost.send(&segment(closed, b"hello"));
    assert!(world.run(400_000, |world| world.stat(Stat::Sessions) == 0));
    assert_eq!((world.stat(Stat::ClientsStalled), world.observed(Histogram::Stalled).0), (0, 2));
}

#[test]
fn questions_about_sessions_are_answered_one_a_turn_and_disturb_nobody() {
    let mut world = World::new(&config(1), 1, policy());
    for _ in 0..2 {
        world.add_client(80, 30, 64);
    }
    world.run(200, |_| false);
    let (reply, mut answers) = tokio::sync::mpsc::channel(64);
    let (mut asked, mut answered, mut turns) = (0, 0, 0);
    let done = world.run(120_000, |world| {
        // Always a handful before it, all behind one wake.
        if asked == answered && !world.all_answered() {
            for _ in 0..5 {
                let scan = Scan {
                    from: 0,
                    limit: 10,
                    filter: Filter::default(),
                    order: Order::Rtt,
                    after: None,
                    before: None,
                };
                world.command(|| {
                    let question = Question::Scan(scan.clone());
                    ShardCommand::Sessions(Ask { question, reply: reply.clone() })
                });
            }
            (asked, turns) = (asked + 5, world.stat(Stat::Turns));
        }
        let mut came = 0;
        while let Ok(answer) = answers.try_recv() {
            assert!(matches!(answer, Answer::Page(page) if page.visited <= 2048));
            came += 1;
        }
        answered += came;
        let passed = world.stat(Stat::Turns) - turns;
        assert!(came as u64 <= passed, "{came} answers in {passed} turns");
        world.all_answered() && asked == answered
    });
    assert!(done && answered > 20, "{answered} of {asked}");
    assert_eq!(world.stat(Stat::MessagesOut), 2 * 80 * 30);
}

#[test]
fn an_unproven_address_gets_at_most_three_bytes_for_one() {
    for size in [1, 24, 100, 1000] {
        let mut world = World::new(&SimConfig::default(), 1, policy());
        let datagram = push(7, 0, 0, &vec![1; size]);
        world.ghost.send(&datagram);
        assert!(world.run(400_000, |world| world.stat(Stat::Tombstones) == 1));
        let bytes: usize = world.ghost.received.iter().map(Vec::len).sum();
        assert!(bytes <= 3 * datagram.len(), "{bytes} bytes for {}", datagram.len());
        assert!(bytes > 0 && world.drops(DropReason::Amplification) > 0);
    }
}

#[test]
fn a_client_whose_acknowledgements_were_lost_proves_itself_by_an_answer() {
    let mut world = World::new(&SimConfig::default(), 1, policy());
    let hello = push(7, 0, 0, &[1; 500]);
    world.ghost.send(&hello);
    assert!(world.run(10_000, |world| world.stat(Stat::ChallengesSent) == 1));
    world.run(50, |_| false);
    let question =
        Header::decode(world.ghost.received.last().unwrap().first_chunk().unwrap()).unwrap();
    assert!(question.len == 0 && question.sn.since(Sn(0)) < -(1 << 28), "{question:?}");
    let before = world.ghost.received.len();
    world.ghost.send(&segment(Header { cmd: Command::Ack, una: Sn(0), ..question }, b""));
    assert!(world.run(10_000, |world| world.ghost.received.len() > before + 3), "it goes on");
    assert_eq!(world.ghost.received[before].len(), hello.len(), "the echo, again");
}

#[test]
fn a_client_that_closes_its_window_costs_a_bounded_amount_of_memory() {
    let policy = Policy { session_bytes_max: 64 * 1024, ..policy() };
    let mut world = World::new(&SimConfig::default(), 1, policy);
    // What may wait towards it, what may wait from it, and a third for the buffers' rounding.
    let bound = (64 * 1024 + KcpConfig::game().receive_bytes_max(1500)) as u64 * 4 / 3;
    let mut header = header(7, 0, 0);
    header.wnd = 0; // takes nothing, sends for ever
    for sn in 0..5_000 {
        header.sn = Sn(sn);
        world.ghost.send(&segment(header, &[sn as u8; 1000]));
        world.run(1, |_| false);
        assert!(world.stat(Stat::StoreBytes) < bound, "{} bytes", world.stat(Stat::StoreBytes));
    }
    assert!(world.stat(Stat::PushesBeyondWindow) > 0, "its own window closed");
    assert_eq!(world.ends(EndReason::Idle), 0);
}

#[test]
fn a_silent_client_is_asked_and_answers_without_its_application_noticing() {
    for_seeds(12, |seed| {
        let policy = Policy { keepalive_ms: 30_000, idle_timeout_ms: 90_000, ..policy() };
        // So little loss that three questions in a row do not get lost, but single ones do.
        let link = LinkConfig { loss_ppm: 10_000, delay_us: 20_000, ..LinkConfig::default() };
        let mut world = World::new(&SimConfig { link, ..config(seed) }, 2, policy);
        world.add_client(20, 3, 64);
        assert!(world.run(60_000, World::all_answered));
        world.run(600_000, |_| false);
        assert_eq!(world.stat(Stat::Sessions), 20, "they answered, so they stay");
        let asked = world.stat(Stat::ChallengesSent);
        assert!((20 * 14..20 * 24).contains(&asked), "{asked} challenges in ten minutes");
        for call in &world.clients[0].calls {
            assert!(call.is_complete() && call.kcp.peek_size().is_none(), "nothing was delivered");
        }
        world.clients[0].muted = true;
        assert!(world.run(120_000, |world| world.ends(EndReason::Keepalive) == 20));
    });
}

#[test]
fn challenges_are_spread_over_time() {
    let policy = Policy { keepalive_ms: 40_000, ..policy() };
    let mut world = World::new(&SimConfig::default(), 1, policy);
    world.add_client(1000, 1, 8);
    assert!(world.run(1_000, World::all_answered));
    world.run(39_000, |_| false);
    let mut before = 0;
    for _ in 0..11 {
        world.run(1_000, |_| false);
        let asked = world.stat(Stat::ChallengesSent);
        assert!(asked - before <= 130, "{} in one second", asked - before);
        before = asked;
    }
    world.run(64, |_| false); // those due within so long of each other are asked together
    assert_eq!(world.stat(Stat::ChallengesSent), 1000);
}

#[test]
fn a_client_that_restarts_on_the_same_port_and_conv_gets_a_fresh_session() {
    for_seeds(24, |seed| {
        let mut world = World::new(&config(seed), 1, policy());
        world.add_client(5, 10, 64);
        assert!(world.run(60_000, World::all_answered));
        // What the old life still has under way would acknowledge the new one's messages; nothing can tell them apart.
        world.run(10_000, |_| false);
        world.clients[0].restart();
        assert!(world.run(60_000, World::all_answered), "every message of the new life came back");
        assert_eq!((world.ends(EndReason::Restart), world.stat(Stat::Births)), (5, 10));
        assert!(world.drops(DropReason::StaleStart) >= 5);
    });
}

#[test]
fn a_client_that_restarts_in_the_middle_is_left_in_peace_until_it_answered() {
    for_seeds(24, |seed| {
        let link = LinkConfig { delay_us: 20_000, ..LinkConfig::default() };
        let mut world = World::new(&SimConfig { link, seed, ..SimConfig::default() }, 1, policy());
        world.add_client(5, 10, 64);
        // Its acknowledgements of the last echoes do not leave any more, so the old session will send those again.
        assert!(world.run(60_000, |world| world.stat(Stat::MessagesOut) == 50));
        world.clients[0].muted = true;
        world.run(21, |_| false);
        world.clients[0].muted = false;
        world.clients[0].restart();
        assert!(world.run(60_000, World::all_answered), "every message of the new life came back");
        assert_eq!((world.ends(EndReason::Restart), world.stat(Stat::Births)), (5, 10));
    });
}

#[test]
fn a_forged_restart_does_not_end_a_session() {
    let mut world = World::new(&SimConfig::default(), 1, policy());
    world.ghost.send(&push(7, 0, 0, b"hello"));
    world.run(50, |_| false);
    world.ghost.send(&push(7, 1, 1, b"its client received the echo"));
    world.run(50, |_| false);
    let session = |world: &World| (world.stat(Stat::Sessions), world.ends(EndReason::Restart));
    // Somebody else, who sees nothing, sends in its name: a fresh start, and a guess at the answer.
    for guess in 0..200 {
        world.ghost.send(&push(7, 0, 0, b"hello"));
        let mut ack = header(7, 0_u32.wrapping_sub((1 << 29) + guess * 7_919), 0);
        (ack.cmd, ack.ts) = (Command::Ack, Millis(guess));
        world.ghost.send(&segment(ack, b""));
        world.run(50, |_| false);
    }
    assert_eq!(session(&world), (1, 0));
    let questions = world.stat(Stat::ChallengesSent);
    assert!((1..=6).contains(&questions), "{questions} questions in ten seconds");
}

#[test]
fn hostile_bytes_end_in_exactly_one_reason_each_and_never_in_a_session() {
    for_seeds(20, |seed| {
        let mut world = World::new(&SimConfig { seed, ..SimConfig::default() }, 2, policy());
        let mut rng = Rng::new(seed);
        let mut sent = 0;
        for _ in 0..2_000 {
            let mut datagram = match rng.below(4) {
                0 => (0..rng.below(80)).map(|_| rng.next_u32() as u8).collect(),
                1 => push(rng.next_u32(), 300 + rng.next_u32() % 1000, 0, b"beyond the window"),
                2 => push(rng.next_u32(), 0, 1 + rng.next_u32() % 9, b"acknowledges the unsent"),
                _ => {
                    let mut torn = push(rng.next_u32(), 0, 0, b"torn");
                    torn.truncate(HEADER_LEN + 3);
                    torn
                }
            };
            if datagram.is_empty() {
                datagram.push(0);
            }
            world.ghost.send(&datagram);
            sent += 1;
            world.run(1, |_| false);
        }
        assert_eq!(world.all_drops(), sent);
        assert_eq!(world.stat(Stat::Births), 0);
        assert!(world.ghost.received.is_empty(), "nobody is answered");
    });
}

#[test]
fn forgeries_do_not_disturb_a_session() {
    for_seeds(10, |seed| {
        let mut world = World::new(&SimConfig { seed, ..SimConfig::default() }, 1, policy());
        world.add_client(1, 200, 64);
        let mut rng = Rng::new(seed);
        // From another address with the very conv of the session: a session of its own, or nothing.
        for _ in 0..100 {
            let mut header = header(0, rng.next_u32(), rng.next_u32());
            header.cmd =
                [Command::Push, Command::Ack, Command::Wask, Command::Wins][rng.below(4) as usize];
            header.wnd = 0;
            world.ghost.send(&segment(header, b""));
            world.run(3, |_| false);
        }
        assert!(world.run(60_000, World::all_answered));
    });
}

fn header(conv: u32, sn: u32, una: u32) -> Header {
    Header {
        conv: Conv(conv),
        cmd: Command::Push,
        frg: 0,
        wnd: 128,
        ts: Millis(1),
        sn: Sn(sn),
        una: Sn(una),
        len: 0,
    }
}

fn segment(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [0; HEADER_LEN];
    Header { len: payload.len() as u32, ..header }.encode(&mut bytes);
    [&bytes, payload].concat()
}

fn push(conv: u32, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    segment(header(conv, sn, una), payload)
}
