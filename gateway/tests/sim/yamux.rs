//! Shards in front of servers that share a few links among all sessions.

use std::sync::Arc;

use kcp_gateway::control::command::{Report, ShardCommand};
use kcp_gateway::shard::Policy;
use kcp_gateway::shard::backend_stats::{BackendStat, ConnectFailure, LinkEnd, Parting};
use kcp_gateway::shard::stats::{EndReason, Stat};
use kcp_gateway::upstream::backend::{Backend, BackendId, Backends, Kind, OnLoss};
use kcp_gateway::upstream::framing::{Codec, Framing};
use kcp_gateway::upstream::route;
use kcp_gateway::upstream::yamux::Config;
use net_io::sim::{SimConfig, SimListener};
use net_io::{Driver, StreamAddr};
use netem::LinkConfig;

use crate::mux_server::{Manner, MuxServer};
use crate::shortage::{
    DEAF, besieged, honest_players_go_on, those_who_hold_most_end, those_who_wait_for_a_server_stay,
};
use crate::world::{Call, World, policy};
use crate::{config, for_seeds};

const CODEC: Codec = Codec { framing: Framing::U32Be, message_max: 100_000, cut: 1376 };
const POOL: usize = 4 << 20;

fn backends(count: u16) -> Backends {
    let backend = |id| {
        let name = format!("game-{id}");
        Backend {
            id: BackendId(id),
            kind: Kind::Yamux(Config::new(CODEC)),
            addresses: Vec::new(),
            sources: Vec::new(),
            weight: 1,
            key: route::key(&name),
            name: name.into(),
            usable: true,
            draining: false,
            proxy: true,
        }
    };
    let list = (0..count).map(backend).collect();
    Backends { wait_ms: 5_000, linger_ms: 10_000, list, ..Backends::default() }
}

/// Shards, servers, and where servers connect to for a shard to adopt.
struct Links {
    world: World,
    door: SimListener,
}

impl Links {
    fn new(
        config: &SimConfig,
        shards: usize,
        servers: u16,
        change: impl FnOnce(&mut Backends),
    ) -> Self {
        Self::with_policy(config, shards, servers, policy(), change)
    }

    fn with_policy(
        config: &SimConfig,
        shards: usize,
        servers: u16,
        policy: Policy,
        change: impl FnOnce(&mut Backends),
    ) -> Self {
        Self::with_store(config, shards, servers, policy, 16 << 20, change)
    }

    fn with_store(
        config: &SimConfig,
        shards: usize,
        servers: u16,
        policy: Policy,
        store_bytes_max: usize,
        change: impl FnOnce(&mut Backends),
    ) -> Self {
        let mut backends = backends(servers);
        change(&mut backends);
        let backends = Some((Arc::new(backends), POOL));
        let mut world = World::with(config, shards, policy, store_bytes_max, backends);
        let door = StreamAddr::Tcp("10.0.0.1:9".parse().unwrap());
        let door = world.host.listen_stream(&door).unwrap();
        for server in 0..servers {
            let addr = format!("10.0.1.{}:7000", server + 1);
            world.mux_servers.push(MuxServer::new(&world.net, &addr));
        }
        let mut links = Self { world, door };
        for server in 0..servers {
            for shard in 0..shards {
                links.link(server, shard);
            }
        }
        links
    }

    /// Connects a server with a shard, as the control plane does.
    fn link(&mut self, server: u16, shard: usize) {
        let Self { world, door } = self;
        world.mux_servers[usize::from(server)].connect(door.addr());
        let mut stream = None;
        assert!(world.run(1_000, |_| {
            stream = stream.take().or_else(|| door.accept());
            stream.is_some()
        }));
        let adopt = ShardCommand::Adopt { backend: BackendId(server), stream: stream.unwrap() };
        world.commands[shard].send(adopt).unwrap();
        world.shards[shard].driver().waker().wake();
    }
}

/// What must be true once no session is left and everything has settled.
fn assert_settled(world: &World) {
    assert_eq!((world.stat(Stat::PoolBytes), world.stat(Stat::StoreBytes)), (0, 0));
    for id in 0..3 {
        assert_eq!(world.backend(id, |b| b.get(BackendStat::Sessions)), 0, "of {id}");
        assert_eq!(world.backend(id, |b| b.get(BackendStat::Streams)), 0, "of {id}");
        let assigned = world.backend(id, |b| b.get(BackendStat::SessionsAssigned));
        let left = world.backend(id, |b| Parting::ALL.iter().map(|&p| b.partings(p)).sum());
        assert_eq!(assigned, left, "every session leaves in one way");
    }
}

fn calm(seed: u64) -> SimConfig {
    let link = LinkConfig { delay_us: 3_000, jitter_us: 500, ..LinkConfig::default() };
    SimConfig { link, ..config(seed) }
}

#[test]
fn every_message_goes_over_the_links_and_its_answer_back() {
    for_seeds(24, |seed| {
        let shards = 1 + (seed % 3) as usize;
        let Links { mut world, door } = Links::new(&config(seed), shards, 2, |_| {});
        for client in 0..4 {
            world.add_client(8, 30, [1, 64, 1000, 6000][client]);
        }
        assert!(world.run(120_000, World::all_answered), "not all answered in two minutes");
        assert_eq!(world.stat(Stat::MessagesIn), 4 * 8 * 30);
        let opened = world.mux_servers.iter().map(|server| server.opened);
        assert_eq!(opened.clone().sum::<u64>(), 32);
        assert!(opened.min() >= Some(8), "shared out");
        assert_eq!(world.backend(0, |b| b.get(BackendStat::Links)), shards as u64);
        let up = world.reports.try_iter().filter(|report| report.what == Report::LinkUp).count();
        assert_eq!(up, 2 * shards);
        // Idle for too long: the servers get a FIN on each stream, and the links stay.
        world.run(400_000, |_| false);
        let finished = world.mux_servers.iter().map(|server| server.finished).sum::<u64>();
        let links = world.mux_servers.iter().map(MuxServer::links).sum::<usize>();
        assert_eq!((finished, links), (32, 2 * shards));
        assert_settled(&world);
        drop(door);
    });
}

#[test]
fn a_stream_that_ends_ends_its_session_and_no_other() {
    for (manner, reason) in
        [(Manner::Fin, EndReason::BackendFin), (Manner::Reset, EndReason::BackendReset)]
    {
        let Links { mut world, .. } = Links::new(&calm(1), 1, 1, |_| {});
        world.add_client(4, 40, 500);
        assert!(world.run(60_000, World::all_answered));
        world.mux_servers[0].at = Some((5, manner));
        world.add_client(6, 40, 500);
        assert!(world.run(60_000, |world| world.ends(reason) == 6), "{reason:?}");
        let sessions = world.stat(Stat::Sessions);
        assert_eq!((sessions, world.backend(0, |b| b.get(BackendStat::Links))), (4, 1));
        if reason == EndReason::BackendFin {
            assert!(world.clients[1].calls.iter().all(|call| call.received == 5));
        }
    }
}

#[test]
fn a_stream_that_is_cut_off_was_meant_and_its_session_is_given_to_nobody_else() {
    let reroute = |backends: &mut Backends| backends.on_loss = OnLoss::Reroute;
    let Links { mut world, .. } = Links::new(&calm(1), 1, 2, reroute);
    world.mux_servers[0].at = Some((5, Manner::Reset));
    world.add_client(8, 40, 500);
    assert!(world.run(60_000, |world| world.ends(EndReason::BackendReset) == 4));
    let done = |world: &World| {
        world.clients[0].calls.iter().filter(|call| call.is_complete()).count() == 4
    };
    assert!(world.run(60_000, done), "the other server's are served");
    assert_eq!(world.backend(0, |b| b.get(BackendStat::SessionsRerouted)), 0);
    assert_eq!(world.backend(1, |b| b.get(BackendStat::SessionsAssigned)), 4);
}

#[test]
fn messages_that_a_lost_link_still_had_are_counted() {
    let Links { mut world, .. } = Links::new(&calm(4), 1, 1, |_| {});
    world.add_client(20, 300, 4_000);
    world.clients[0].outstanding = 300;
    world.run(100, |_| false);
    world.mux_servers[0].stuck = true;
    world.run(5_000, |_| false);
    assert_eq!(world.backend(0, |b| b.get(BackendStat::MessagesLost)), 0, "they only wait");
    world.mux_servers[0].die();
    assert!(world.run(5_000, |world| world.ends(EndReason::BackendLinkLost) == 20));
    world.run(100, |_| false);
    let taken = world.backend(0, |b| b.get(BackendStat::MessagesOut));
    let lost = world.backend(0, |b| b.get(BackendStat::MessagesLost));
    let served = world.mux_servers[0].messages;
    // The rest had left the gateway: what a connection holds, and what the server had read of a message.
    let on_the_way = taken - served - lost;
    assert!(lost > 400, "the write buffers were full of them: {lost}");
    assert!(on_the_way < 300, "{taken} taken, {served} served, {lost} lost");
}

#[test]
fn a_session_that_waits_for_its_turn_is_counted_once() {
    let Links { mut world, .. } = Links::new(&calm(5), 1, 1, |backends| {
        backends.list[0].kind = Kind::Yamux(Config { streams_max: 4, ..Config::new(CODEC) });
    });
    world.add_client(10, 5, 64);
    assert!(world.run(8_000, |world| world.ends(EndReason::NoBackend) == 6));
    assert_eq!(world.backend(0, |b| b.failures(ConnectFailure::Limit)), 6, "of hundreds of tries");
}

#[test]
fn a_server_that_breaks_the_protocol_loses_its_link_and_nobody_else_notices() {
    for (manner, end) in
        [(Manner::Garbage, LinkEnd::Version), (Manner::Overrun, LinkEnd::WindowExceeded)]
    {
        let Links { mut world, .. } = Links::new(&calm(2), 1, 2, |_| {});
        world.add_client(20, 400, 200);
        world.run(200, |_| false);
        world.mux_servers[1].at = Some((100, manner));
        let lost = |world: &World| world.ends(EndReason::BackendLinkLost) == 10;
        assert!(world.run(60_000, lost), "{}", world.ends(EndReason::BackendLinkLost));
        assert_eq!(world.backend(1, |b| b.links(end)), 1);
        assert_eq!(world.backend(1, |b| b.partings(Parting::LinkLost)), 10);
        let report = Report::LinkLost(end);
        assert_eq!(world.reports.try_iter().filter(|r| r.what == report).count(), 1);
        let done = |world: &World| {
            world.clients[0].calls.iter().filter(|call| call.is_complete()).count() == 10
        };
        assert!(world.run(60_000, done), "the other server's are served to the end");
        assert_eq!(world.mux_servers[1].faults, [1], "it was told, before the connection closed");
        assert_eq!(world.backend(1, |b| b.get(BackendStat::Links)), 0);
        world.clients[0].muted = true;
        world.run(700_000, |_| false);
        assert_settled(&world);
    }
}

#[test]
fn streams_that_a_server_opens_are_refused_and_counted() {
    let Links { mut world, .. } = Links::new(&calm(3), 1, 1, |_| {});
    world.mux_servers[0].at = Some((5, Manner::Open));
    world.add_client(4, 40, 500);
    assert!(world.run(60_000, World::all_answered), "its sessions do not notice");
    let seen = |stat| world.backend(0, |b| b.get(stat));
    assert_eq!((seen(BackendStat::StreamsRefused), seen(BackendStat::LateBytes)), (4, 4 * 8));
    assert_eq!((seen(BackendStat::Links), seen(BackendStat::MessagesLost)), (1, 0));
}

#[test]
fn sessions_of_a_dead_server_go_on_with_another() {
    for_seeds(2, |seed| {
        let reroute = |backends: &mut Backends| backends.on_loss = OnLoss::Reroute;
        let mut links = Links::new(&calm(seed), 1, 2, reroute);
        links.world.add_client(10, 1_000_000, 8);
        links.world.clients[0].forgiving = true;
        links.world.run(2_000, |_| false);
        links.world.mux_servers[0].die();
        let rerouted = |w: &World| w.backend(0, |b| b.get(BackendStat::SessionsRerouted)) == 5;
        assert!(links.world.run(2_000, rerouted));
        let received = |world: &World| -> Vec<u32> {
            world.clients[0].calls.iter().map(|call: &Call| call.received).collect()
        };
        let before = received(&links.world);
        links.world.run(3_000, |_| false);
        assert!(before.iter().zip(received(&links.world)).all(|(&b, after)| after > b + 10));
        assert_eq!(links.world.backend(1, |b| b.get(BackendStat::Sessions)), 10);
        // It comes back, and gets new sessions.
        links.link(0, 0);
        links.world.add_client(10, 10, 8);
        links.world.run(2_000, |_| false);
        assert!(links.world.backend(0, |b| b.get(BackendStat::Sessions)) >= 5);
        assert_eq!(links.world.stat(Stat::Births), 20);
    });
}

#[test]
fn a_server_that_goes_away_keeps_its_sessions_and_gets_no_new_ones() {
    let mut links = Links::new(&calm(3), 1, 1, |_| {});
    links.world.mux_servers[0].at = Some((1, Manner::GoAway));
    links.world.add_client(1, 2_000, 8);
    links.world.run(200, |_| false);
    links.world.mux_servers[0].at = None;
    let retired = Report::LinkRetired(LinkEnd::GoAway);
    assert_eq!(links.world.reports.try_iter().last().map(|r| r.what), Some(retired));
    links.world.add_client(3, 10, 8);
    links.world.run(500, |_| false);
    assert_eq!(links.world.stat(Stat::SessionsWaiting), 3);
    links.link(0, 0);
    assert!(
        links.world.run(60_000, World::all_answered),
        "the old on the old link, the new on the new"
    );
    links.world.run(400_000, |_| false);
    assert_eq!(links.world.mux_servers[0].links(), 1, "the old link ended with its last session");
    assert_settled(&links.world);
}

#[test]
fn a_server_that_is_listed_no_longer_keeps_its_link_until_its_last_session_ends() {
    let mut links = Links::new(&calm(6), 1, 3, |backends| backends.list[2].weight = 0);
    links.world.add_client(10, 500, 8);
    links.world.run(200, |_| false);
    let tell = |world: &World, count| {
        let listed = Arc::new(backends(count));
        world.command(|| ShardCommand::Backends(Arc::clone(&listed)));
    };
    let linked = |world: &World, id: u16| {
        let link = world.backend(id, |b| b.get(BackendStat::Links));
        (world.mux_servers[usize::from(id)].links(), link)
    };
    tell(&links.world, 1);
    assert!(links.world.run(1_000, |w| linked(w, 2) == (0, 0)), "it had no sessions");
    assert_eq!((linked(&links.world, 0), linked(&links.world, 1)), ((1, 1), (1, 1)));
    let retired = Report::LinkRetired(LinkEnd::Unlisted);
    assert_eq!(links.world.reports.try_iter().filter(|r| r.what == retired).count(), 1);

    // It comes back: its link goes on as if nothing had been.
    tell(&links.world, 2);
    links.world.add_client(4, 10, 8);
    links.world.run(500, |_| false);
    assert_eq!(links.world.backend(1, |b| b.get(BackendStat::SessionsAssigned)), 7);
    assert!(links.world.run(60_000, World::all_answered), "nobody noticed");

    tell(&links.world, 1);
    links.world.run(400_000, |_| false);
    assert_eq!((linked(&links.world, 0), linked(&links.world, 1)), ((1, 1), (0, 0)));
    let farewells = |server: usize| links.world.mux_servers[server].farewells;
    assert_eq!([0, 1, 2].map(farewells), [0, 1, 1], "each was left with a word");
    assert_settled(&links.world);
}

#[test]
fn a_server_without_window_stops_its_clients_and_loses_nothing() {
    for_seeds(4, |seed| {
        let Links { mut world, .. } = Links::new(&calm(seed), 1, 2, |_| {});
        world.mux_servers[0].deaf = true;
        world.add_client(4, 600, 4_000);
        world.clients[0].outstanding = 600;
        let served = |world: &World| {
            world.clients[0].calls.iter().filter(|call| call.is_complete()).count() == 2
        };
        assert!(world.run(600_000, served), "the other server's are not held up");
        world.run(5_000, |_| false);
        let kept = world.stat(Stat::StoreBytes) + world.stat(Stat::PoolBytes);
        assert!(kept < 2 * 256 * 1400 * 4 + POOL as u64, "{kept} bytes");
        assert!(world.backend(0, |b| b.get(BackendStat::WaitedForBackend)) > 0);
        world.mux_servers[0].listen_up();
        assert!(world.run(600_000, World::all_answered), "and then everything arrives");
        assert_eq!(world.losses(), 0);
    });
}

#[test]
fn a_server_that_reads_nothing_for_long_keeps_its_link_as_long_as_it_speaks() {
    for_seeds(4, |seed| {
        let Links { mut world, .. } = Links::new(&calm(seed), 1, 1, |_| {});
        world.add_client(20, 300, 4_000);
        world.clients[0].outstanding = 300;
        world.run(100, |_| false);
        let stalled = |world: &World| world.backend(0, |b| b.links(LinkEnd::StalledWrite));
        for _ in 0..3 {
            world.mux_servers[0].stuck = true;
            for _ in 0..8 {
                world.run(5_000, |_| false);
                world.mux_servers[0].ask();
            }
            world.mux_servers[0].go_on();
            world.run(10, |_| false);
        }
        assert_eq!((stalled(&world), world.losses()), (0, 0));
        assert!(world.run(600_000, World::all_answered), "and then everything arrives");
        assert_eq!(world.losses(), 0);
        // One that neither reads nor speaks is given up.
        world.mux_servers[0].stuck = true;
        world.add_client(20, 300, 4_000);
        world.clients[1].outstanding = 300;
        assert!(world.run(45_000, |world| stalled(world) == 1));
        let ended = |world: &World| world.ends(EndReason::BackendLinkLost) >= 20;
        assert!(world.run(1_000, ended), "with all that were on it");
    });
}

#[test]
fn a_client_that_takes_nothing_closes_its_streams_window_alone() {
    let policy = Policy { session_bytes_max: 64 << 10, ..policy() };
    let Links { mut world, .. } = Links::with_policy(&calm(1), 1, 1, policy, |_| {});
    world.add_client(2, 100, 20_000);
    world.clients[0].outstanding = 100;
    world.clients[0].reading = false;
    world.add_client(2, 100, 1000);
    world.run(10_000, |_| false);
    let done =
        |client: usize, world: &World| world.clients[client].calls.iter().all(Call::is_complete);
    assert!(done(1, &world) && !done(0, &world), "others on the link go on");
    assert!(world.stat(Stat::PoolBytes) <= 2 * ((256 << 10) + 2048));
    assert!(world.backend(0, |b| b.get(BackendStat::WaitedForClient)) >= 2);
    world.clients[0].reading = true;
    assert!(world.run(600_000, World::all_answered), "and then everything arrives");
    assert_eq!(world.losses(), 0);
}

#[test]
fn those_who_hold_most_end_when_memory_runs_short() {
    let policy = Policy { session_bytes_max: 64 << 10, ..policy() };
    let Links { mut world, .. } = Links::with_policy(&calm(1), 1, 1, policy, |_| {});
    those_who_hold_most_end(&mut world, POOL);
}

#[test]
fn those_who_wait_for_a_slow_server_stay() {
    const STORE: usize = 2 << 20;
    for_seeds(4, |seed| {
        let Links { mut world, .. } = Links::with_store(&calm(seed), 1, 1, policy(), STORE, |_| {});
        those_who_wait_for_a_server_stay(&mut world, STORE, |world, still| {
            if still {
                world.mux_servers[0].stuck = true;
            } else {
                world.mux_servers[0].go_on();
            }
        });
    });
}

/// Players who go on speaking to a server that stands still have their windows closed before the memory is full: nothing they send
/// is refused, hardly anything is sent again, and when the server goes on they hear of it at once.
#[test]
fn players_wait_for_a_slow_server() {
    const STORE: usize = 2 << 20;
    const PLAYERS: u32 = 400;
    for_seeds(4, |seed| {
        let Links { mut world, .. } = Links::with_store(&calm(seed), 1, 1, policy(), STORE, |_| {});
        world.add_client(PLAYERS, 1, 1_200);
        world.clients[0].outstanding = u32::MAX;
        assert!(world.run(5_000, World::all_answered));
        let before = world.stat(Stat::RxDatagrams);
        world.mux_servers[0].stuck = true;
        let mut most = 0;
        for _ in 0..36 {
            world.clients[0].say_more();
            world.run(250, |_| false);
            most = most.max(world.stat(Stat::StoreBytes) as usize);
        }
        // All that they said is more than four times as much.
        assert!(most > STORE / 2 && most < STORE / 4 * 3, "{most} bytes");
        world.mux_servers[0].go_on();
        assert!(world.run(2_000, World::all_answered), "they hear of it at once");
        let datagrams = world.stat(Stat::RxDatagrams) - before;
        assert!(datagrams < u64::from(PLAYERS) * 36 * 3 / 2, "{datagrams} datagrams");
        assert_eq!((world.stat(Stat::StoreFull), world.losses()), (0, 0));
    });
}

#[test]
fn a_crowd_that_takes_nothing_stops_nobody() {
    for_seeds(4, |seed| {
        let config = besieged(seed);
        let Links { mut world, .. } =
            Links::with_store(&config, 1, 1, policy(), DEAF.store, |_| {});
        honest_players_go_on(&mut world, seed, DEAF);
    });
}
