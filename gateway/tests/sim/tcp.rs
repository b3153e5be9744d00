//! Shards in front of servers that each session has a connection to.

use std::sync::Arc;

use kcp_gateway::control::command::{Report, ShardCommand};
use kcp_gateway::control::question::{Answer, Ask, Filter, Order, Question, Scan};
use kcp_gateway::shard::Policy;
use kcp_gateway::shard::backend_stats::{BackendStat, ConnectFailure, Parting};
use kcp_gateway::shard::stats::{DropReason, EndReason, Stat};
use kcp_gateway::upstream::backend::{Backend, BackendId, Backends, Kind, OnLoss, OnOverflow};
use kcp_gateway::upstream::framing::{Codec, Framing};
use kcp_gateway::upstream::link::LinkConfig;
use kcp_gateway::upstream::route;
use net_io::sim::SimConfig;
use net_io::{Driver, StreamAddr};

use crate::server::{Manner, Server};
use crate::shortage::{
    DEAF, besieged, honest_players_go_on, those_who_hold_most_end, those_who_wait_for_a_server_stay,
};
use crate::world::{Call, GATEWAY, World, policy};
use crate::{config, for_seeds};

const CODEC: Codec = Codec { framing: Framing::U32Be, message_max: 100_000, cut: 1376 };
const POOL: usize = 4 << 20;

fn backend(id: u16, addr: &str) -> Backend {
    let name = format!("game-{id}");
    Backend {
        id: BackendId(id),
        kind: Kind::Tcp(LinkConfig::new(CODEC)),
        addresses: vec![StreamAddr::Tcp(addr.parse().unwrap())],
        sources: Vec::new(),
        weight: 1,
        key: route::key(&name),
        name: name.into(),
        usable: true,
        draining: false,
        proxy: true,
    }
}

fn backends(list: Vec<Backend>) -> Backends {
    Backends { wait_ms: 5_000, linger_ms: 10_000, list, ..Backends::default() }
}

const SERVERS: [&str; 3] = ["10.0.1.1:7000", "10.0.1.2:7000", "10.0.1.3:7000"];

/// Shards with one backend for each manner.
fn world(config: &SimConfig, shards: usize, manners: &[Manner]) -> World {
    world_with(config, shards, policy(), manners, |_| {})
}

fn world_with(
    config: &SimConfig,
    shards: usize,
    policy: Policy,
    manners: &[Manner],
    change: impl FnOnce(&mut Backends),
) -> World {
    let list = (0..).zip(&SERVERS[..manners.len()]).map(|(id, addr)| backend(id, addr)).collect();
    let mut backends = backends(list);
    change(&mut backends);
    let mut world = World::with_backends(config, shards, policy, (Arc::new(backends), POOL));
    for (addr, &manner) in SERVERS.iter().zip(manners) {
        world.servers.push(Server::new(&world.net, addr, manner));
    }
    world
}

/// One shard with so much for payload, and a server.
fn in_front_of_one(
    config: &SimConfig,
    policy: Policy,
    store_bytes_max: usize,
    manner: Manner,
) -> World {
    let backends = (Arc::new(backends(vec![backend(0, SERVERS[0])])), POOL);
    let mut world = World::with(config, 1, policy, store_bytes_max, Some(backends));
    world.servers.push(Server::new(&world.net, SERVERS[0], manner));
    world
}

/// What must be true once no session is left and everything has settled.
fn assert_settled(world: &World) {
    assert_eq!(world.stat(Stat::PoolBytes), 0, "nothing waits");
    assert_eq!((world.stat(Stat::Streams), world.stat(Stat::StoreBytes)), (0, 0));
    for id in 0..SERVERS.len() as u16 {
        for gauge in [BackendStat::Sessions, BackendStat::Connecting, BackendStat::Closing] {
            assert_eq!(world.backend(id, |b| b.get(gauge)), 0, "{gauge:?} of {id}");
        }
        let assigned = world.backend(id, |b| b.get(BackendStat::SessionsAssigned));
        let left = world.backend(id, |b| Parting::ALL.iter().map(|&p| b.partings(p)).sum());
        assert_eq!(assigned, left, "every session leaves in one way");
    }
}

#[test]
fn every_message_goes_to_a_server_and_its_answer_back() {
    for_seeds(24, |seed| {
        let shards = 1 + (seed % 3) as usize;
        let mut world = world(&config(seed), shards, &[Manner::Echo, Manner::Echo]);
        for client in 0..4 {
            world.add_client(8, 30, [1, 64, 1000, 6000][client]);
        }
        assert!(world.run(120_000, World::all_answered), "not all answered in two minutes");
        let total = 4 * 8 * 30;
        assert_eq!((world.stat(Stat::MessagesIn), world.stat(Stat::MessagesOut)), (total, total));
        let share = |world: &World, id| world.backend(id, |b| b.get(BackendStat::SessionsAssigned));
        assert_eq!(share(&world, 0) + share(&world, 1), 32);
        assert!(share(&world, 0).abs_diff(share(&world, 1)) <= 2 * shards as u64, "in turn");
        let gateway = GATEWAY.parse().unwrap();
        for server in &world.servers {
            assert_eq!(server.heard_of.len() as u32, server.accepted);
            for (from, to, conv) in &server.heard_of {
                let number = u32::from_be_bytes(
                    from.ip().to_string().parse::<std::net::Ipv4Addr>().unwrap().octets(),
                ) - 0x0a01_0000;
                assert_eq!((from.port(), *to, conv / 1000), (5000, gateway, number));
            }
        }
        assert!(world.reports.try_iter().any(|report| report.what == Report::Connected));
        // Idle for too long: the servers get a FIN, and nothing stays behind.
        world.run(400_000, |_| false);
        assert_eq!(world.ends(EndReason::Idle) + world.ends(EndReason::DeadLink), 32);
        assert_eq!(world.servers.iter().map(|server| server.finished).sum::<u32>(), 32);
        assert_settled(&world);
    });
}

#[test]
fn a_server_that_closes_ends_its_session_when_the_client_has_everything() {
    for_seeds(24, |seed| {
        let mut world = world(&config(seed), 2, &[Manner::FinAt(10)]);
        world.add_client(6, 10, 3000);
        assert!(world.run(60_000, World::all_answered), "all ten answers, the last with the FIN");
        assert!(world.run(30_000, |world| world.ends(EndReason::BackendFin) == 6));
        world.run(20_000, |_| false);
        assert_eq!((world.stat(Stat::Sessions), world.stat(Stat::Tombstones)), (0, 6));
        assert_eq!(world.servers[0].finished, 6, "closed in order by both sides");
        assert_eq!(world.backend(0, |b| b.partings(Parting::Fin)), 6);
        assert_eq!(world.stat(Stat::UndeliveredBytes), 0);
        assert_settled(&world);
    });
}

#[test]
fn a_client_that_takes_nothing_after_the_servers_fin_is_waited_for_so_long_and_no_longer() {
    let link = netem::LinkConfig { delay_us: 20_000, ..netem::LinkConfig::default() };
    let mut world = world(&SimConfig { link, ..SimConfig::default() }, 1, &[Manner::Flood(5)]);
    world.add_client(3, 1, 5000);
    world.run(50, |_| false);
    world.clients[0].muted = true;
    world.run(100, |_| false);
    world.servers[0].close_all();
    world.run(9_000, |_| false);
    assert_eq!(world.ends(EndReason::BackendFin), 0, "their clients may still come back");
    world.run(3_000, |_| false);
    assert_eq!(world.ends(EndReason::BackendFin), 3);
    assert!(world.stat(Stat::UndeliveredBytes) >= 3 * 5 * 4000 / 2, "counted as lost");
    world.run(20_000, |_| false);
    assert_settled(&world);
}

#[test]
fn what_servers_do_wrong_ends_their_sessions_for_one_reason_and_nobody_elses() {
    let wrongs = [
        (Manner::ResetAt(5), EndReason::BackendReset, Parting::Reset),
        (Manner::GarbageAt(5), EndReason::BackendTooLong, Parting::TooLong),
        (Manner::HalfAndFinAt(5), EndReason::BackendFinMidMessage, Parting::FinMidMessage),
        (Manner::HalfAt(5), EndReason::BackendStalled, Parting::Stalled),
    ];
    for_seeds(16, |seed| {
        let (wrong, reason, parting) = wrongs[(seed % 4) as usize];
        // Without losses, so that what was sent before it all went wrong has arrived.
        let link =
            netem::LinkConfig { delay_us: 3_000, jitter_us: 500, ..netem::LinkConfig::default() };
        let config = SimConfig { link, ..config(seed) };
        let mut world = world(&config, 1, &[Manner::Echo, wrong]);
        world.add_client(12, 40, 500);
        let ended = |world: &World| world.ends(reason) == 6;
        assert!(world.run(60_000, ended), "{} of 6 ended: {reason:?}", world.ends(reason));
        let good = |world: &World| {
            world.clients[0].calls.iter().filter(|call| call.is_complete()).count() == 6
        };
        assert!(world.run(60_000, good), "the others are served to the end");
        assert_eq!(world.backend(1, |b| b.partings(parting)), 6);
        let got = |call: &&Call| !call.is_complete();
        assert!(world.clients[0].calls.iter().filter(got).all(|call| call.received == 4));
        world.clients[0].muted = true;
        world.run(700_000, |_| false);
        assert_settled(&world);
    });
}

#[test]
fn sessions_of_a_backend_that_sends_garbage_go_on_with_another() {
    for_seeds(8, |seed| {
        let change = |backends: &mut Backends| backends.on_loss = OnLoss::Reroute;
        let manners = [Manner::Echo, Manner::GarbageAt(5)];
        let link =
            netem::LinkConfig { delay_us: 3_000, jitter_us: 500, ..netem::LinkConfig::default() };
        let mut world =
            world_with(&SimConfig { link, ..config(seed) }, 1, policy(), &manners, change);
        world.add_client(12, 40, 500);
        world.clients[0].forgiving = true;
        assert!(world.run(60_000, World::all_answered), "not all went on");
        assert_eq!((world.stat(Stat::Sessions), world.stat(Stat::Births)), (12, 12), "none ended");
        let rerouted = world.backend(1, |b| b.get(BackendStat::SessionsRerouted));
        let garbled = world.backend(1, |b| b.partings(Parting::TooLong));
        assert!(rerouted >= 6 && rerouted == garbled, "{rerouted} of {garbled}");
    });
}

#[test]
fn nobody_listens() {
    for on_loss in [OnLoss::End, OnLoss::Reroute] {
        let mut world = world_with(&SimConfig::default(), 2, policy(), &[Manner::Echo], |b| {
            b.on_loss = on_loss;
        });
        world.servers[0].die();
        world.add_client(5, 10, 64);
        let reason = match on_loss {
            OnLoss::End => EndReason::BackendConnectFailed,
            OnLoss::Reroute => EndReason::NoBackend,
        };
        assert!(world.run(8_000, |world| world.ends(reason) == 5), "{}", world.ends(reason));
        let refused = world.backend(0, |b| b.failures(ConnectFailure::Refused));
        match on_loss {
            OnLoss::End => assert_eq!(refused, 5),
            OnLoss::Reroute => assert!((5 * 100..5 * 210).contains(&refused), "{refused} tries"),
        }
        let why = Report::Failed(ConnectFailure::Refused);
        assert!(world.reports.try_iter().all(|report| report.what == why));
        assert!(world.drops(DropReason::SessionEnded) >= 5, "their messages are counted");
        assert_settled(&world);
    }
}

#[test]
fn sessions_wait_for_a_backend_that_is_not_there_yet() {
    let mut world = world_with(&SimConfig::default(), 2, policy(), &[Manner::Echo], |backends| {
        backends.list[0].usable = false;
    });
    world.add_client(20, 10, 64);
    world.run(2_000, |_| false);
    assert_eq!((world.stat(Stat::SessionsWaiting), world.stat(Stat::MessagesIn)), (20, 0));
    let up = Arc::new(backends(vec![backend(0, SERVERS[0])]));
    world.command(|| ShardCommand::Backends(Arc::clone(&up)));
    assert!(world.run(2_000, World::all_answered));
    assert_eq!(world.stat(Stat::SessionsWaiting), 0);
    // And not for ever.
    let none = Arc::new(backends(Vec::new()));
    world.command(|| ShardCommand::Backends(Arc::clone(&none)));
    world.add_client(3, 1, 64);
    assert!(world.run(6_000, |world| world.ends(EndReason::NoBackend) == 3));
    assert_eq!(world.stat(Stat::Sessions), 20, "those that have one keep it");
}

/// Where connections take long, a turn makes and ends few of them, and the next ones go on.
#[test]
fn a_crowd_gets_its_connections_in_turns_and_loses_them_in_turns() {
    const CROWD: u64 = 300;
    let policy = Policy { idle_timeout_ms: 20_000, keepalive_ms: 0, ..policy() };
    let change = |backends: &mut Backends| backends.list[0].usable = false;
    let mut world = world_with(&SimConfig::default(), 1, policy, &[Manner::Echo], change);
    world.add_client(CROWD as u32, 1, 64);
    assert!(world.run(2_000, |world| world.stat(Stat::SessionsWaiting) == CROWD));
    let up = Arc::new(backends(vec![backend(0, SERVERS[0])]));
    world.command(|| ShardCommand::Backends(Arc::clone(&up)));
    // Each look at the clock takes as long as the step may.
    world.net.set_look_us(400);
    let begun = |world: &World| world.backend(0, |b| b.get(BackendStat::SessionsAssigned));
    let told = |world: &World| world.backend(0, |b| b.partings(Parting::Client));
    let most_in_a_turn = |world: &mut World, done: &dyn Fn(&World) -> u64| {
        let (mut most, mut turns) = (0, 0);
        while done(world) < CROWD {
            let before = done(world);
            world.shards[0].turn().unwrap();
            most = most.max(done(world) - before);
            turns += 1;
            assert!(turns < 2 * CROWD, "{} after {turns} turns", done(world));
        }
        most
    };
    assert_eq!(most_in_a_turn(&mut world, &begun), 8, "two looks, four connections before each");
    assert!(world.run(10_000, World::all_answered));
    world.net.set_look_us(0);
    world.run(19_000, |_| false);
    assert_eq!((world.stat(Stat::Sessions), told(&world)), (CROWD, 0));
    // All are silent for too long, in one instant.
    world.net.elapse(5_000_000);
    world.net.set_look_us(400);
    assert_eq!(most_in_a_turn(&mut world, &told), 8);
    world.net.set_look_us(0);
    world.run(60_000, |world| world.stat(Stat::Streams) == 0);
    assert_settled(&world);
}

#[test]
fn a_backend_that_drains_gets_no_new_sessions_and_serves_those_it_has() {
    let mut world = world(&config(5), 2, &[Manner::Echo, Manner::Echo]);
    world.add_client(10, 300, 64);
    world.run(500, |_| false);
    let before = world.backend(0, |b| b.get(BackendStat::SessionsAssigned));
    assert!(before >= 4);
    let mut list = vec![backend(0, SERVERS[0]), backend(1, SERVERS[1])];
    list[0].draining = true;
    let draining = Arc::new(backends(list));
    world.command(|| ShardCommand::Backends(Arc::clone(&draining)));
    world.run(10, |_| false);
    world.add_client(10, 10, 64);
    assert!(world.run(60_000, World::all_answered), "the old ones and the new ones");
    assert_eq!(world.backend(0, |b| b.get(BackendStat::SessionsAssigned)), before);
    assert_eq!(world.stat(Stat::Births), 20);
}

#[test]
fn sessions_of_a_dead_backend_go_on_with_another() {
    for_seeds(12, |seed| {
        let change = |backends: &mut Backends| backends.on_loss = OnLoss::Reroute;
        let manners = [Manner::Echo, Manner::Echo];
        let link =
            netem::LinkConfig { delay_us: 3_000, jitter_us: 500, ..netem::LinkConfig::default() };
        let config = SimConfig { link, ..config(seed) };
        let mut world = world_with(&config, 1, policy(), &manners, change);
        world.add_client(10, 1_000_000, 8);
        world.run(2_000, |_| false);
        world.clients[0].forgiving = true;
        world.servers[0].die();
        let lost = |world: &World| world.backend(0, |b| b.get(BackendStat::SessionsRerouted)) >= 5;
        assert!(world.run(2_000, lost));
        let before: Vec<u32> = world.clients[0].calls.iter().map(|call| call.received).collect();
        world.run(3_000, |_| false);
        let after = world.clients[0].calls.iter().map(|call| call.received);
        assert!(before.into_iter().zip(after).all(|(before, after)| after > before + 10));
        assert_eq!((world.stat(Stat::Sessions), world.stat(Stat::Births)), (10, 10));
        assert_eq!(world.backend(1, |b| b.get(BackendStat::Sessions)), 10);
    });
}

#[test]
fn a_server_that_takes_nothing_stops_its_clients_and_loses_nothing() {
    for_seeds(8, |seed| {
        let mut world = world(&config(seed), 1, &[Manner::Echo, Manner::Echo]);
        world.servers[0].deaf = true;
        world.add_client(4, 3_000, 4_000);
        world.clients[0].outstanding = 3_000;
        let served = |world: &World| {
            world.clients[0].calls.iter().filter(|call| call.is_complete()).count() == 2
        };
        assert!(world.run(600_000, served), "the other server's are not held up");
        world.run(5_000, |_| false);
        let bound = 2 * KEPT_MAX + POOL as u64;
        let kept = world.stat(Stat::StoreBytes) + world.stat(Stat::PoolBytes);
        assert!(kept < bound, "{kept} bytes of {bound}");
        assert!(world.backend(0, |b| b.get(BackendStat::WaitedForBackend)) > 0);
        world.servers[0].listen_up();
        assert!(world.run(600_000, World::all_answered), "and then everything arrives");
        assert_eq!(world.losses(), 0);
    });
}

/// What a session's receive window and the rounding of its buffers may take.
const KEPT_MAX: u64 = 256 * 1400 * 4;

#[test]
fn a_client_that_takes_nothing_stops_its_server_and_loses_nothing() {
    for on_overflow in [OnOverflow::Pause, OnOverflow::Disconnect] {
        let policy = Policy { session_bytes_max: 64 << 10, ..policy() };
        let manners = [Manner::Echo];
        let mut world = world_with(&SimConfig::default(), 1, policy, &manners, |backends| {
            backends.on_overflow = on_overflow;
        });
        world.add_client(3, 300, 20_000);
        world.clients[0].outstanding = 300;
        world.clients[0].reading = false;
        let mut most = 0;
        for _ in 0..200 {
            world.run(50, |_| false);
            most = most.max(world.stat(Stat::StoreBytes) + world.stat(Stat::PoolBytes));
        }
        assert!(most < 3 * (KEPT_MAX + (128 << 10) + 2 * 20_000), "{most} bytes");
        let waited = world.backend(0, |b| b.get(BackendStat::WaitedForClient));
        if on_overflow == OnOverflow::Disconnect {
            assert_eq!((waited, world.ends(EndReason::SlowClient)), (3, 3));
            assert_eq!(world.backend(0, |b| b.partings(Parting::Client)), 3);
            continue;
        }
        assert!((3..50).contains(&waited), "{waited} times");
        assert_eq!(world.ends(EndReason::SlowClient), 0);
        world.clients[0].reading = true;
        assert!(world.run(600_000, World::all_answered), "and then everything arrives");
        assert_eq!(world.losses(), 0);
    }
}

/// A client may have four times as much waiting for it as there is memory for.
#[test]
fn what_servers_say_waits_there_as_memory_runs_short_and_nobody_ends_for_it() {
    const STORE: usize = 1 << 20;
    let policy = Policy { session_bytes_max: 4 << 20, ..policy() };
    let mut world = in_front_of_one(&SimConfig::default(), policy, STORE, Manner::Flood(400));
    world.add_client(16, 4, 5_000);
    world.clients[0].reading = false;
    world.clients[0].forgiving = true;
    let mut most = 0;
    for _ in 0..200 {
        world.run(50, |_| false);
        most = most.max(world.stat(Stat::StoreBytes) as usize);
    }
    assert!(most > STORE / 2 && most < STORE / 4 * 3, "{most} bytes");
    let waits = world.backend(0, |b| b.get(BackendStat::WaitedForClient));
    assert!(waits >= 16, "{waits} waits of 16 sessions");
    // Each window that is told of is a try.
    let heard = world.stat(Stat::RxDatagrams);
    world.run(60_000, |_| false);
    assert!(world.stat(Stat::RxDatagrams) > heard + 2 * 16, "their windows are asked for");
    assert_eq!(world.backend(0, |b| b.get(BackendStat::WaitedForClient)), waits, "counted once");
    assert_eq!((world.stat(Stat::StoreFull), world.stat(Stat::Sessions)), (0, 16));
    world.clients[0].reading = true;
    let all = |world: &World| world.backend(0, |b| b.get(BackendStat::MessagesIn)) == 16 * 4 * 400;
    assert!(world.run(60_000, all), "and then everything goes on");
    assert_eq!(world.stat(Stat::Sessions), 16);
}

#[test]
fn those_who_hold_most_end_when_memory_runs_short() {
    const SMALL: usize = 256 << 10;
    let policy = Policy { session_bytes_max: 32 << 10, ..policy() };
    let backends = Arc::new(backends(vec![backend(0, SERVERS[0])]));
    let mut world =
        World::with_backends(&SimConfig::default(), 1, policy, (Arc::clone(&backends), SMALL));
    world.servers.push(Server::new(&world.net, SERVERS[0], Manner::Echo));
    those_who_hold_most_end(&mut world, SMALL);
}

/// What a server that stood still made the gateway keep goes back to the allocator, though nothing happens any more.
#[test]
fn memory_of_a_peak_goes_back() {
    let mut world = world(&SimConfig::default(), 1, &[Manner::Echo]);
    world.servers[0].deaf = true;
    world.add_client(40, 300, 2_000);
    world.clients[0].outstanding = 300;
    world.run(20_000, |_| false);
    let driver = |world: &World| world.shards[0].driver().stream_counters();
    assert!(driver(&world).queued_bytes > 5 << 20, "{:?}", driver(&world));
    world.servers[0].listen_up();
    assert!(world.run(60_000, World::all_answered));
    let kept = driver(&world).recycled_bytes;
    assert!(kept > 5 << 20, "what was needed a moment ago is kept: {kept} bytes");
    world.run(30_000, |_| false);
    assert!(driver(&world).recycled_bytes <= 4 << 20, "{:?}", driver(&world));
    let turns = world.stat(Stat::Turns);
    world.run(30_000, |_| false);
    assert!(world.stat(Stat::Turns) - turns < 100, "and then it is quiet");
}

/// Many who hold little, all of whom would have to end at once: a turn ends a few, and nobody ends for want of memory meanwhile.
#[test]
fn a_crowd_that_holds_little_each_ends_in_turns() {
    const CROWD: u32 = 1000;
    const SMALL: usize = 768 << 10;
    let policy = Policy { session_bytes_max: 100, ..policy() };
    let backends = Arc::new(backends(vec![backend(0, SERVERS[0])]));
    let mut world = World::with_backends(&SimConfig::default(), 1, policy, (backends, SMALL));
    world.servers.push(Server::new(&world.net, SERVERS[0], Manner::Echo));
    world.servers[0].deaf = true;
    world.add_client(CROWD, 3, 300);
    assert!(world.run(2_000, |world| world.stat(Stat::MessagesIn) == 3 * u64::from(CROWD)));
    // Of the answers, each session has room for the first alone, and its client takes none.
    world.clients[0].muted = true;
    world.servers[0].listen_up();
    let (mut most, mut used) = (0, 0);
    for _ in 0..1_000 {
        let before = world.ends(EndReason::Shed);
        world.shards[0].turn().unwrap();
        most = most.max(world.ends(EndReason::Shed) - before);
        used = used.max(world.stat(Stat::PoolBytes));
        if world.servers[0].is_due() {
            world.servers[0].turn();
        }
        world.net.elapse(100);
    }
    let shed = world.ends(EndReason::Shed);
    assert!((70..400).contains(&shed) && (1..=64).contains(&most), "{shed} ended, {most} at once");
    assert!(used > SMALL as u64 / 10 * 8, "{used} bytes at the end of a turn");
    assert_eq!(world.ends(EndReason::PoolFull), 0);
    assert!(world.stat(Stat::PoolBytes) <= SMALL as u64 / 10 * 9);
}

#[test]
fn those_who_wait_for_a_slow_server_stay() {
    const STORE: usize = 2 << 20;
    for_seeds(4, |seed| {
        let link =
            netem::LinkConfig { delay_us: 3_000, jitter_us: 500, ..netem::LinkConfig::default() };
        let config = SimConfig { link, ..config(seed) };
        let mut world = in_front_of_one(&config, policy(), STORE, Manner::Echo);
        those_who_wait_for_a_server_stay(&mut world, STORE, |world, still| {
            if still {
                world.servers[0].deaf = true;
            } else {
                world.servers[0].listen_up();
            }
        });
    });
}

#[test]
fn a_crowd_that_takes_nothing_stops_nobody() {
    for_seeds(4, |seed| {
        let mut world = in_front_of_one(&besieged(seed), policy(), DEAF.store, Manner::Echo);
        honest_players_go_on(&mut world, seed, DEAF);
    });
}

#[test]
fn messages_that_a_lost_connection_still_had_are_counted() {
    let mut world = world(&SimConfig::default(), 1, &[Manner::Echo]);
    world.servers[0].deaf = true;
    world.add_client(4, 600, 4_000);
    world.clients[0].outstanding = 600;
    world.run(10_000, |_| false);
    assert_eq!(world.backend(0, |b| b.get(BackendStat::MessagesLost)), 0, "they only wait");
    world.servers[0].die();
    assert!(world.run(5_000, |world| world.ends(EndReason::BackendReset) == 4));
    let taken = world.backend(0, |b| b.get(BackendStat::MessagesOut));
    let lost = world.backend(0, |b| b.get(BackendStat::MessagesLost));
    assert!(lost >= 4 * 50 && lost <= taken, "{lost} of {taken}");
    let gone = taken - lost;
    world.clients[0].muted = true;
    world.run(700_000, |_| false);
    assert_eq!(world.backend(0, |b| b.get(BackendStat::MessagesLost)), taken - gone, "once");
    assert_settled(&world);
}

#[test]
fn an_operator_finds_the_sessions_of_a_backend() {
    let mut world = world(&SimConfig::default(), 1, &[Manner::Echo; 2]);
    world.add_client(10, 1_000_000, 64);
    world.run(1_000, |_| false);
    let (reply, mut answers) = tokio::sync::mpsc::channel(4);
    for (name, count) in [("game-0", 5), ("game-1", 5), ("echo", 0)] {
        world.command(|| {
            let filter = Filter { backend: Some(name.into()), ..Filter::default() };
            let (after, before, order) = (None, None, Order::Slot);
            let scan = Scan { from: 0, limit: 20, filter, order, after, before };
            ShardCommand::Sessions(Ask { question: Question::Scan(scan), reply: reply.clone() })
        });
        let mut found = None;
        assert!(world.run(1_000, |_| {
            found = answers.try_recv().ok();
            found.is_some()
        }));
        let Some(Answer::Page(page)) = found else { panic!("no page of {name}") };
        assert_eq!(page.sessions.len(), count, "{name}");
        assert!(page.sessions.iter().all(|(_, s)| s.backend.as_deref() == Some(name)));
    }
}
