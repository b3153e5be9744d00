//! What can go wrong between a gateway and its backends.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::super::Scene;
use crate::child::{Process, segment};

/// Nobody listens where the only backend should be.
pub(super) fn no_backend(scene: &Scene<'_>) -> anyhow::Result<()> {
    let _gateway = scene.gateway(&[&url(&[nobody()?])])?;
    scene.hold();
    Ok(())
}

/// Nobody listens where NATS should be.
pub(super) fn no_nats(scene: &Scene<'_>) -> anyhow::Result<()> {
    let _gateway = scene.gateway(&[&format!("upstream.url=nats://{}", nobody()?)])?;
    scene.hold();
    Ok(())
}

/// NATS is there, and nobody subscribes to what players say.
pub(super) fn nats_loses(scene: &Scene<'_>) -> anyhow::Result<()> {
    let at = nobody()?;
    let mut server = Command::new("nats-server");
    server.args(["-a", &at.ip().to_string(), "-p", &at.port().to_string()]);
    let _server = Process::start(&mut server)?;
    let gateway = scene.gateway(&[&format!("upstream.url=nats://{at}")])?;
    let _load = scene.load(gateway.listener, &["--sessions", "50", "--rate", "5"])?;
    scene.hold();
    Ok(())
}

/// One of two.
pub(super) fn down(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (backend, _backend) = backend(scene, &[])?;
    let gateway = scene.gateway(&[&url(&[backend, nobody()?])])?;
    let _load = scene.load(gateway.listener, &["--sessions", "50", "--rate", "5"])?;
    scene.hold();
    Ok(())
}

/// Believed again as soon as it may be, and never there.
pub(super) fn flaps(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (backend, _backend) = backend(scene, &[])?;
    let url = url(&[backend, nobody()?]);
    let settings = [&*url, "upstream.check=off", "upstream.eject_max_ms=1000"];
    newcomers(scene, &settings)
}

/// Believed for ever, and never there.
pub(super) fn connects(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (backend, _backend) = backend(scene, &[])?;
    let url = url(&[backend, nobody()?]);
    newcomers(scene, &[&*url, "upstream.check=off", "upstream.eject_after=0"])
}

/// Players who ask for much and announce no room for it.
pub(super) fn memory(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (backend, _backend) = backend(scene, &[])?;
    let gateway = scene.gateway(&[
        &*url(&[backend]),
        "shards.count=1",
        "upstream.pool_bytes_max=1048576",
        "session.queue_bytes_max=4096",
    ])?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for conv in 0..200 {
        for sn in 0..20 {
            let mut datagram = segment(conv, sn, 0, &[0; 1000]);
            datagram[WND].fill(0);
            socket.send_to(&datagram, gateway.listener)?;
        }
        scene.pause(Duration::from_millis(10));
    }
    scene.hold();
    Ok(())
}

/// Where a segment says how much room its sender has.
const WND: std::ops::Range<usize> = 6..8;

/// A file of backends that was good once.
pub(super) fn list(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (backend, _backend) = backend(scene, &[])?;
    let file = scene.lab.dir.join("backends.toml");
    fs::write(&file, format!("[[backend]]\nname = \"game\"\nurl = \"tcp://{backend}\"\n"))?;
    let settings = format!("upstream.discovery_file={}", file.display());
    let _gateway = scene.gateway(&[&settings, "upstream.discovery_interval_ms=250"])?;
    fs::write(&file, "[[backend]]\nname = \"game\"\nurl = \"tcp://\"\n")?;
    scene.hold();
    Ok(())
}

/// A backend that echoes, and where it is.
pub(super) fn backend(scene: &Scene<'_>, how: &[&str]) -> anyhow::Result<(SocketAddr, Process)> {
    let listen = nobody()?;
    let mut serve = Command::new(scene.program("kcp-loadgen"));
    serve.args(["serve", "--kind", "tcp", "--listen", &listen.to_string()]).args(how);
    Ok((listen, Process::start(&mut serve)?))
}

/// The setting that names backends.
pub(super) fn url(backends: &[SocketAddr]) -> String {
    let places: Vec<_> = backends.iter().map(SocketAddr::to_string).collect();
    format!("upstream.url=tcp://{}", places.join(","))
}

/// An address where nobody listens, for as long as nobody takes it.
fn nobody() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// New players all the time, who say one thing and leave.
fn newcomers(scene: &Scene<'_>, settings: &[&str]) -> anyhow::Result<()> {
    let gateway = scene.gateway(&[settings, &["session.idle_timeout_s=5"]].concat())?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut conv = 0;
    while scene.pause(Duration::from_millis(25)) {
        conv += 1;
        socket.send_to(&segment(conv, 0, 0, b"hello"), gateway.listener)?;
    }
    Ok(())
}
