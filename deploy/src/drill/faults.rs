//! What can go wrong with a gateway, done to one on purpose.

mod backends;

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;

use super::{Fault, Scene};
use crate::child::segment;

const fn fault(
    alert: &'static str,
    what: &'static str,
    inflict: fn(&Scene<'_>) -> anyhow::Result<()>,
) -> Fault {
    Fault { alert, what, inflict }
}

/// No fault: players who play. Nothing may fire.
pub(super) const WELL: Fault = fault("well", "200 players at a backend, 50 who are silent", well);

/// Every fault. What needs a core for itself comes alone.
pub(super) const PHASES: &[&[Fault]] = &[
    &[
        fault("KcpGatewayDown", "killed, and not started again", down),
        fault("KcpGatewayRestarting", "killed and started every two minutes", restarting),
        fault("KcpGatewayDrainStuck", "a drain that nobody ends", drain_stuck),
        fault("KcpGatewayPlayersLost", "all 200 players fall silent", players_lost),
        fault("KcpGatewaySessionsNearLimit", "95 sessions where 100 may be", near_limit),
        fault("KcpGatewayRefusesPlayers", "100 players where 50 may be", refuses_players),
        fault("KcpGatewayStoreFull", "3 MB under way through a store of 1 MB", store_full),
        fault("KcpGatewaySendDrops", "a firewall refuses a third of what is sent", send_drops),
        fault("KcpGatewayMalformed", "1,000 datagrams a second that are not KCP", malformed),
        fault("KcpGatewayStrangers", "1,000 a second of a session elsewhere", strangers),
        fault("KcpGatewayNetworkLoss", "players behind 20 % of loss, both ways", network_loss),
        fault("KcpGatewayDriverFallback", "a host without lockable memory", driver_fallback),
        fault("KcpGatewayReloadFailed", "a reload of a broken file", reload_failed),
        fault("KcpGatewayProbeFails", "a firewall refuses all that comes in", probe_fails),
        fault("KcpGatewayNoBackend", "nobody where the backend should be", backends::no_backend),
        fault("KcpGatewayNatsDown", "nobody where NATS should be", backends::no_nats),
        fault("KcpGatewayNatsLoses", "players at NATS, and no backend", backends::nats_loses),
        fault("KcpGatewayBackendDown", "nobody at one of two addresses", backends::down),
        fault("KcpGatewayBackendFlaps", "the same, believed again and again", backends::flaps),
        fault("KcpGatewayBackendConnects", "the same, believed for ever", backends::connects),
        fault("KcpGatewayBackendMemory", "4 MB for players who take nothing", backends::memory),
        fault("KcpGatewayBackendList", "a broken file of backends", backends::list),
        fault("KcpGatewayDescriptors", "45 silent connections, 64 descriptors", descriptors),
    ],
    &[fault("KcpGatewaySocketOverflow", "stopped for 0.2 s of every 0.5 s", socket_overflow)],
    &[fault("KcpGatewayOverloaded", "stopped for 0.2 s of every 0.22 s", overloaded)],
    &[fault(
        "KcpGatewayCpuSaturated",
        "4,000 messages a second, scrapes without pause",
        cpu_saturated,
    )],
    &[fault("KcpGatewayShardSkew", "all players from one address", shard_skew)],
];

fn well(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (backend, _backend) = backends::backend(scene, &[])?;
    let gateway = scene.gateway(&["session.keepalive_s=5", &backends::url(&[backend])])?;
    let _load = scene.load(gateway.listener, &["--sessions", "200", "--rate", "5"])?;
    let _silent = scene.load(gateway.listener, &["--sessions", "50", "--rate", "0"])?;
    scene.hold();
    Ok(())
}

fn down(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[])?;
    scene.pass(minutes(2));
    drop(gateway);
    scene.hold();
    Ok(())
}

fn restarting(scene: &Scene<'_>) -> anyhow::Result<()> {
    // One address for all its lives; nobody else takes it within so short a time.
    let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let admin = format!("admin.listen={admin}");
    let mut gateway = scene.gateway(&[&admin])?;
    while scene.pass(minutes(2)) {
        drop(gateway);
        gateway = scene.gateway(&[&admin])?;
    }
    Ok(())
}

fn drain_stuck(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[])?;
    gateway.post("/api/v1/drain")?;
    scene.hold();
    Ok(())
}

fn players_lost(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["session.idle_timeout_s=8"])?;
    let load = scene.load(gateway.listener, &["--sessions", "200", "--rate", "5"])?;
    scene.pass(minutes(12));
    drop(load);
    scene.hold();
    Ok(())
}

fn near_limit(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["shards.count=1", "session.max=100"])?;
    let _load = scene.load(gateway.listener, &["--sessions", "95", "--rate", "1"])?;
    scene.hold();
    Ok(())
}

fn refuses_players(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["shards.count=1", "session.max=50"])?;
    let _load = scene.load(gateway.listener, &["--sessions", "100", "--rate", "1"])?;
    scene.hold();
    Ok(())
}

/// More payload on the way to players half a second off than the store may hold.
fn store_full(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["shards.count=1", "shards.store_bytes_max=1048576"])?;
    let (network, _far) = far_network(scene, gateway.listener, &["--delay", "250ms"])?;
    let load = ["--sessions", "200", "--outstanding", "16", "--size", "1000"];
    let _load = scene.load(network, &load)?;
    scene.hold();
    Ok(())
}

/// The host's own firewall refuses a third of what the gateway sends.
fn send_drops(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[])?;
    let third = "-m statistic --mode random --probability 0.33";
    let port = gateway.listener.port();
    let _rule = Firewall::insert(format!("OUTPUT -p udp --sport {port} {third} -j DROP"))?;
    let _load = scene.load(gateway.listener, &["--sessions", "50", "--rate", "10"])?;
    scene.hold();
    Ok(())
}

/// The host's own firewall lets nobody in.
fn probe_fails(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["probe.interval_s=1"])?;
    let port = gateway.listener.port();
    let _rule = Firewall::insert(format!("INPUT -p udp --dport {port} -j DROP"))?;
    scene.hold();
    Ok(())
}

fn malformed(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[])?;
    flood(scene, gateway.listener, b"this is not KCP, however long it goes on")
}

/// A segment of a session in full swing: its number and its acknowledgements are not a beginning's.
fn strangers(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[])?;
    flood(scene, gateway.listener, &segment(0x1234_5678, 700, 600, b"shot"))
}

fn network_loss(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[])?;
    let (network, _far) =
        far_network(scene, gateway.listener, &["--loss", "20%", "--delay", "20ms"])?;
    let _load = scene.load(network, &["--sessions", "50", "--rate", "10"])?;
    scene.hold();
    Ok(())
}

/// A host that lets nobody lock memory has none for rings.
fn driver_fallback(scene: &Scene<'_>) -> anyhow::Result<()> {
    let mut command = Command::new("prlimit");
    command
        .args(["--memlock=0", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--"])
        .arg(scene.program("kcp-gateway"));
    let _gateway = scene.gateway_under(command, &[])?;
    scene.hold();
    Ok(())
}

fn reload_failed(scene: &Scene<'_>) -> anyhow::Result<()> {
    let file = scene.lab.dir.join("reload.toml");
    fs::write(&file, "")?;
    let mut command = Command::new(scene.program("kcp-gateway"));
    command.env("KCP_GATEWAY_CONFIG", &file);
    let gateway = scene.gateway_under(command, &[])?;
    fs::write(&file, "[session]\nidle_timeout_s = \"soon\"\n")?;
    gateway.process.signal("HUP")?;
    scene.hold();
    Ok(())
}

/// Connections to the admin port that say nothing, made again as the gateway cuts them.
fn descriptors(scene: &Scene<'_>) -> anyhow::Result<()> {
    let mut command = Command::new("prlimit");
    command.arg("--nofile=64").arg(scene.program("kcp-gateway"));
    let gateway = scene.gateway_under(command, &["shards.count=1"])?;
    let mut connections = Vec::new();
    while scene.pause(Duration::from_secs(1)) {
        connections.retain(|stream: &TcpStream| {
            stream.set_nonblocking(true).is_ok()
                && stream.peek(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
        });
        while connections.len() < 45 {
            connections.push(TcpStream::connect(gateway.admin)?);
        }
    }
    Ok(())
}

/// A gateway that reads late: stopped for a fifth of a second again and again.
fn socket_overflow(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["shards.count=1", "io.recv_buffer_bytes=65536"])?;
    let _load = scene.load(gateway.listener, &["--sessions", "200", "--rate", "50"])?;
    while scene.pause(Duration::from_millis(300)) {
        gateway.process.signal("STOP")?;
        scene.pause(Duration::from_millis(200));
        gateway.process.signal("CONT")?;
    }
    Ok(())
}

/// A gateway that gets a tenth of its core's time, under a load that wants more.
fn overloaded(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["shards.count=1"])?;
    let _load = scene.load(gateway.listener, &["--sessions", "1000", "--rate", "30"])?;
    while scene.pause(Duration::from_millis(20)) {
        gateway.process.signal("STOP")?;
        scene.pause(Duration::from_millis(200));
        gateway.process.signal("CONT")?;
    }
    Ok(())
}

/// Somebody scrapes without pause, next to players. Players alone do not do it where they share a machine with their
/// gateway: they cost more than it does.
fn cpu_saturated(scene: &Scene<'_>) -> anyhow::Result<()> {
    let gateway = scene.gateway(&["shards.count=1"])?;
    let _load = scene.load(gateway.listener, &["--sessions", "200", "--rate", "20"])?;
    let mut asks = TcpStream::connect(gateway.admin)?;
    let mut answers = asks.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(move || io::copy(&mut answers, &mut io::sink()));
        while scene.pause(Duration::ZERO) {
            asks.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        }
        Ok(asks.shutdown(Shutdown::Both)?)
    })
}

/// All players behind one address, told apart by address.
fn shard_skew(scene: &Scene<'_>) -> anyhow::Result<()> {
    // Small batches of large messages, or one shard does all this with a fifth of its core.
    let settings = ["shards.count=2", "kcp.steer=address", "io.min_wait_us=0"];
    let gateway = scene.gateway(&settings)?;
    let load = ["--sessions", "1000", "--outstanding", "8", "--sockets", "1", "--size", "1000"];
    let _load = scene.load(gateway.listener, &load)?;
    scene.hold();
    Ok(())
}

/// A rule of the host's firewall; gone when dropped.
struct Firewall(String);

impl Firewall {
    fn insert(rule: String) -> anyhow::Result<Self> {
        let rule = Self(rule);
        rule.iptables("-I")?;
        Ok(rule)
    }

    fn iptables(&self, action: &str) -> anyhow::Result<()> {
        let status = Command::new("iptables").arg(action).args(self.0.split(' ')).status()?;
        ensure!(status.success(), "iptables {action} {}", self.0);
        Ok(())
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // It says itself why not.
        let _ = self.iptables("-D");
    }
}

/// A bad network in front of `target`: where it listens, and what carries it.
fn far_network(
    scene: &Scene<'_>,
    target: SocketAddr,
    how: &[&str],
) -> anyhow::Result<(SocketAddr, crate::child::Process)> {
    // The kernel's choice is printed for people; this one is taken at once by the process that is started.
    let listen = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let mut impair = Command::new(scene.program("kcp-loadgen"));
    impair
        .args(["impair", "--listen", &listen.to_string(), "--target", &target.to_string()])
        .args(how);
    Ok((listen, crate::child::Process::start(&mut impair)?))
}

/// Sends `datagram` a thousand times a second.
fn flood(scene: &Scene<'_>, target: SocketAddr, datagram: &[u8]) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    while scene.pause(Duration::from_millis(10)) {
        for _ in 0..10 {
            socket.send_to(datagram, target)?;
        }
    }
    Ok(())
}

/// Minutes of the rules' clock.
const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}
