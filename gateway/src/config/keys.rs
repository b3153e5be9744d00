//! Every key, once: its path, what a reload does with it, its field and what it allows. Loading, checking, showing and
//! comparing configurations are visits to this list.

use super::value::{Count, Value};
use super::{Admin, Backend, BackendSettings, Config, Io, Kcp, Probe, Session, Shards, Upstream};

/// What a reload does with a changed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Applies it to the running gateway.
    Live,
    /// Refuses it: sockets, threads, memory or the log are set up once.
    Restart,
}

use Reload::{Live, Restart};

/// Something done with every key.
pub(super) trait Visit {
    /// One key.
    fn key<T: Value>(&mut self, path: &str, reload: Reload, field: &mut T, allowed: &T::Allowed);

    /// Whether this visit brings a value for `path`, so that what depends on it can be set first.
    fn brings(&self, path: &str) -> bool {
        let _ = path;
        false
    }
}

pub(super) fn visit(config: &mut Config, v: &mut impl Visit) {
    kcp("kcp.", &mut config.kcp, v);
    for (i, listener) in config.listeners.iter_mut().enumerate() {
        v.key(&format!("listener[{i}].addr"), Restart, &mut listener.addr, &());
        let settings = listener.kcp.get_or_insert_with(|| config.kcp.clone());
        kcp(&format!("listener[{i}]."), settings, v);
    }
    session(&mut config.session, v);
    shards(&mut config.shards, v);
    io(&mut config.io, v);
    upstream(&mut config.upstream, v);
    admin(&mut config.admin, v);
    let every = Count(0, 3600, "seconds, 0 for never");
    v.key("reload.watch_s", Live, &mut config.reload.watch_s, &every);
    probe(&mut config.probe, v);
    v.key("drain.timeout_s", Live, &mut config.drain.timeout_s, &Count(0, 86_400, "seconds"));
    v.key("drain.farewell", Live, &mut config.drain.farewell, &());
    v.key("log.level", Restart, &mut config.log.level, &());
    v.key("log.format", Restart, &mut config.log.format, &());
}

fn kcp(prefix: &str, kcp: &mut Kcp, v: &mut impl Visit) {
    let path = |name: &str| format!("{prefix}{name}");
    let profile = path("profile");
    let starts_over = v.brings(&profile);
    v.key(&profile, Live, &mut kcp.profile, &());
    if starts_over {
        *kcp = Kcp::of(kcp.profile);
    }
    v.key(&path("mtu"), Live, &mut kcp.mtu, &Count(50, DATAGRAM_MAX, "bytes"));
    v.key(&path("nodelay"), Live, &mut kcp.nodelay, &Count(0, 2, "(a mode)"));
    v.key(&path("interval_ms"), Live, &mut kcp.interval_ms, &Count(10, 5000, "milliseconds"));
    v.key(&path("resend"), Live, &mut kcp.resend, &Count(0, 1000, "acknowledgements, 0 for never"));
    v.key(&path("resend_max"), Live, &mut kcp.resend_max, &Count(0, 1000, "times, 0 for no limit"));
    v.key(&path("nc"), Live, &mut kcp.nc, &());
    v.key(&path("snd_wnd"), Live, &mut kcp.snd_wnd, &Count(1, 65_535, "segments"));
    v.key(&path("rcv_wnd"), Live, &mut kcp.rcv_wnd, &Count(128, 65_535, "segments"));
    v.key(&path("stream"), Live, &mut kcp.stream, &());
    v.key(&path("dead_link"), Live, &mut kcp.dead_link, &Count(2, 1000, "transmissions"));
    v.key(&path("flush"), Live, &mut kcp.flush, &());
    v.key(&path("release"), Live, &mut kcp.release, &());
    v.key(&path("steer"), Restart, &mut kcp.steer, &());
}

fn session(session: &mut Session, v: &mut impl Visit) {
    v.key("session.max", Live, &mut session.max, &Count(1, 1 << 24, "sessions"));
    let seconds = Count(1, 86_400, "seconds");
    v.key("session.idle_timeout_s", Live, &mut session.idle_timeout_s, &seconds);
    let asked = Count(0, 86_400, "seconds, 0 for never");
    v.key("session.keepalive_s", Live, &mut session.keepalive_s, &asked);
    v.key("session.tombstone_s", Live, &mut session.tombstone_s, &Count(0, 600, "seconds"));
    let keys = Count(0, 1 << 20, "keys");
    v.key("session.tombstones_max", Live, &mut session.tombstones_max, &keys);
    let bytes = Count(4096, 64 << 20, "bytes");
    v.key("session.queue_bytes_max", Live, &mut session.queue_bytes_max, &bytes);
}

fn shards(shards: &mut Shards, v: &mut impl Visit) {
    v.key("shards.count", Restart, &mut shards.count, &Count(1, 256, "shards"));
    v.key("shards.pin", Restart, &mut shards.pin, &());
    let bytes = Count(1 << 20, 1 << 40, "bytes");
    v.key("shards.store_bytes_max", Restart, &mut shards.store_bytes_max, &bytes);
    v.key("shards.handoff", Restart, &mut shards.handoff, &Count(16, 65_536, "datagrams"));
}

fn io(io: &mut Io, v: &mut impl Visit) {
    v.key("io.driver", Restart, &mut io.driver, &());
    v.key("io.buffers", Restart, &mut io.buffers, &Count(16, 32_768, "buffers"));
    v.key("io.datagram_max", Restart, &mut io.datagram_max, &Count(576, DATAGRAM_MAX, "bytes"));
    v.key("io.batch_max", Restart, &mut io.batch_max, &Count(1, 32_768, "datagrams"));
    let arena = Count(64 << 10, 64 << 20, "bytes");
    v.key("io.send_arena_bytes", Restart, &mut io.send_arena_bytes, &arena);
    v.key("io.min_wait_us", Restart, &mut io.min_wait_us, &Count(0, 10_000, "microseconds"));
    v.key("io.want", Restart, &mut io.want, &Count(1, 4096, "datagrams"));
    v.key("io.gso", Restart, &mut io.gso, &());
    let buffer = Count(64 << 10, 1 << 30, "bytes");
    v.key("io.recv_buffer_bytes", Restart, &mut io.recv_buffer_bytes, &buffer);
    v.key("io.send_buffer_bytes", Restart, &mut io.send_buffer_bytes, &buffer);
}

fn probe(probe: &mut Probe, v: &mut impl Visit) {
    let interval = Count(0, 3600, "seconds, 0 for never");
    v.key("probe.interval_s", Live, &mut probe.interval_s, &interval);
    v.key("probe.timeout_ms", Live, &mut probe.timeout_ms, &Count(100, 60_000, "milliseconds"));
    v.key("probe.address", Live, &mut probe.address, &());
}

fn upstream(upstream: &mut Upstream, v: &mut impl Visit) {
    // Live, but not between echo and backends: see `reload::plan`.
    v.key("upstream.url", Live, &mut upstream.url, &());
    backend_settings("upstream.", &mut upstream.each, v);
    v.key("upstream.policy", Live, &mut upstream.policy, &());
    v.key("upstream.on_loss", Live, &mut upstream.on_loss, &());
    v.key("upstream.overflow", Live, &mut upstream.overflow, &());
    let wait = Count(0, 600_000, "milliseconds");
    v.key("upstream.wait_ms", Live, &mut upstream.wait_ms, &wait);
    v.key("upstream.deliver_ms", Live, &mut upstream.deliver_ms, &wait);
    let bytes = Count(1 << 20, 1 << 36, "bytes");
    v.key("upstream.pool_bytes_max", Restart, &mut upstream.pool_bytes_max, &bytes);
    let connections = Count(1, 65_536, "connections");
    v.key("upstream.connecting_max", Restart, &mut upstream.connecting_max, &connections);
    let bytes = Count(0, 16 << 20, "bytes");
    v.key("upstream.tcp_buffer_bytes", Restart, &mut upstream.tcp_buffer_bytes, &bytes);
    v.key("upstream.resolver", Live, &mut upstream.resolver, &());
    let pause = Count(100, 86_400_000, "milliseconds");
    v.key("upstream.resolve_interval_ms", Live, &mut upstream.resolve_interval_ms, &pause);
    v.key("upstream.discovery_file", Live, &mut upstream.discovery_file, &());
    let pause = Count(50, 3_600_000, "milliseconds");
    v.key("upstream.discovery_interval_ms", Live, &mut upstream.discovery_interval_ms, &pause);
    v.key("upstream.nats_gateway", Restart, &mut upstream.nats_gateway, &());
    v.key("upstream.nats_credentials", Restart, &mut upstream.nats_credentials, &());
    let Upstream { backends: all, each, .. } = upstream;
    backends("upstream.backend", all, each, v);
}

/// An array of backends, whose keys begin with `prefix` and an index.
pub(super) fn backends(
    prefix: &str,
    backends: &mut [Backend],
    each: &BackendSettings,
    v: &mut impl Visit,
) {
    for (i, backend) in backends.iter_mut().enumerate() {
        v.key(&format!("{prefix}[{i}].name"), Live, &mut backend.name, &());
        v.key(&format!("{prefix}[{i}].url"), Live, &mut backend.url, &());
        let share = Count(0, 1000, "(a share)");
        v.key(&format!("{prefix}[{i}].weight"), Live, &mut backend.weight, &share);
        let settings = backend.settings.get_or_insert_with(|| each.clone());
        backend_settings(&format!("{prefix}[{i}]."), settings, v);
    }
}

fn backend_settings(prefix: &str, settings: &mut BackendSettings, v: &mut impl Visit) {
    let path = |name: &str| format!("{prefix}{name}");
    let longest = Count(10, 3_600_000, "milliseconds");
    let minute = Count(10, 60_000, "milliseconds");
    let checks = Count(1, 100, "checks");
    let s = settings;
    v.key(&path("framing"), Live, &mut s.framing, &());
    v.key(&path("proxy"), Live, &mut s.proxy, &());
    v.key(&path("links"), Live, &mut s.links, &Count(1, 16, "connections"));
    v.key(&path("connect_ms"), Live, &mut s.connect_ms, &minute);
    v.key(&path("stall_ms"), Live, &mut s.stall_ms, &Count(100, 600_000, "milliseconds"));
    v.key(&path("linger_ms"), Live, &mut s.linger_ms, &Count(0, 600_000, "milliseconds"));
    v.key(&path("sources"), Live, &mut s.sources, &());
    v.key(&path("unacked_max"), Live, &mut s.unacked_max, &Count(1, 1 << 20, "sessions"));
    v.key(&path("check"), Live, &mut s.check, &());
    v.key(&path("check_interval_ms"), Live, &mut s.check_interval_ms, &longest);
    v.key(&path("check_interval_max_ms"), Live, &mut s.check_interval_max_ms, &longest);
    v.key(&path("check_timeout_ms"), Live, &mut s.check_timeout_ms, &minute);
    v.key(&path("check_rise"), Live, &mut s.check_rise, &checks);
    v.key(&path("check_fall"), Live, &mut s.check_fall, &checks);
    v.key(
        &path("eject_after"),
        Live,
        &mut s.eject_after,
        &Count(0, 1000, "connections, 0 for never"),
    );
    v.key(&path("eject_base_ms"), Live, &mut s.eject_base_ms, &longest);
    v.key(&path("eject_max_ms"), Live, &mut s.eject_max_ms, &longest);
}

fn admin(admin: &mut Admin, v: &mut impl Visit) {
    v.key("admin.listen", Restart, &mut admin.listen, &());
    let connections = Count(1, 4096, "connections");
    v.key("admin.connections_max", Restart, &mut admin.connections_max, &connections);
}

const DATAGRAM_MAX: u64 = 65_000;
