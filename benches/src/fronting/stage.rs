//! The programs that stand on the stage beside the load: backends that can be killed, and the gateway, each in a process of
//! its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use kcp_gateway::Gateway;
use kcp_gateway::config::{Auto, Backend as Listed, BackendUrl, Sources, UpstreamUrl};
use kcp_loadgen::host::{allow_most_files, process_time};
use kcp_loadgen::serve::{Behaviour, Dialect, Framing, Kind as Carrier, Listen, Serve, Server};
use rustix::process::{Pid, Signal, kill_process};

use crate::contender::Io;
use crate::cpu;
use crate::server::{ANY, end_with_parent, with_room};

/// How a gateway's sessions reach their backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A connection each.
    Tcp,
    /// A stream each, over a few connections.
    Yamux,
}

impl Kind {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Yamux => "yamux",
        }
    }
}

/// A process that says in its first line where it listens, and ends when its standard input does. Dropping it ends it.
#[derive(Debug)]
struct Actor {
    child: Child,
    greeting: String,
}

impl Actor {
    fn start(words: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let out = child.stdout.take();
        let mut actor = Self { child, greeting: String::new() };
        BufReader::new(out.context("a process without pipes")?).read_line(&mut actor.greeting)?;
        ensure!(!actor.greeting.is_empty(), "`{}` did not start", words.join(" "));
        actor.greeting.truncate(actor.greeting.trim_end().len());
        Ok(actor)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process without a number")?, signal)?)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A backend: every message comes back, once or as many times over as asked.
#[derive(Debug)]
pub(crate) struct Backend {
    actor: Actor,
    kind: Kind,
    pub(crate) addr: SocketAddr,
}

/// What a backend is started with.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct BackendSettings {
    /// How sessions arrive.
    #[arg(long, value_enum)]
    pub(crate) kind: Kind,
    /// Where it listens.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Sessions begin without a PROXY header.
    #[arg(long)]
    pub(crate) plain: bool,
    /// How many times over a message comes back, in one message.
    #[arg(long, default_value_t = 1)]
    pub(crate) times: u32,
    /// Buffers of its sockets, in bytes; without, the kernel's.
    #[arg(long)]
    pub(crate) socket_buffer: Option<u32>,
}

impl BackendSettings {
    /// At any port here, sessions with a PROXY header, answers as long as what they answer.
    pub(crate) const fn new(kind: Kind) -> Self {
        Self { kind, listen: ANY, plain: false, times: 1, socket_buffer: None }
    }
}

impl Backend {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// It did not; its own message went to standard error.
    pub(crate) fn start(settings: &BackendSettings) -> Result<Self> {
        let BackendSettings { kind, listen, plain, times, socket_buffer } = settings;
        let mut words = vec!["backend".into(), format!("--kind={}", kind.label())];
        words.push(format!("--listen={listen}"));
        words.push(format!("--times={times}"));
        words.extend(plain.then(|| "--plain".to_owned()));
        words.extend(socket_buffer.map(|bytes| format!("--socket-buffer={bytes}")));
        let actor = Actor::start(&words)?;
        let addr = actor.greeting.parse().context("a backend's address")?;
        Ok(Self { actor, kind: *kind, addr })
    }

    /// As gateways are told of it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.kind.label(), self.addr)
    }

    /// Stops it where it stands, or lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        self.actor.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }
}

/// The other side of [`Backend::start`]: serves until standard input closes.
///
/// # Errors
/// It cannot listen.
pub(crate) fn serve_backend(settings: &BackendSettings) -> Result<()> {
    end_with_parent()?;
    let _ = allow_most_files(); // too few shows when a connection is not accepted
    let kind = match settings.kind {
        Kind::Tcp => Carrier::Tcp,
        Kind::Yamux => Carrier::Yamux,
    };
    let server = Server::start(&Serve {
        kind,
        listen: vec![Listen::Inet(settings.listen)],
        dialect: Dialect { framing: Framing::U32Be, proxy: !settings.plain, message_max: 1 << 20 },
        behaviour: Behaviour::Swell(settings.times),
        threads: 1,
        socket_buffer: settings.socket_buffer,
        seed: 7,
        nats: String::new(),
    })?;
    let listening = server.listening();
    announce(&listening.first().context("nowhere to listen")?.to_string())?;
    let mut nothing = String::new();
    std::io::stdin().lock().read_to_string(&mut nothing)?;
    Ok(())
}

/// A gateway in a process of its own, seen through its admin server and the kernel.
#[derive(Debug)]
pub(crate) struct Front {
    actor: Actor,
    pub(crate) addr: SocketAddr,
    admin: SocketAddr,
}

/// How a gateway is set up; all else is its default.
#[derive(Clone, Debug, Args)]
pub(crate) struct FrontSettings {
    /// The backends, in turn; none = echo.
    #[arg(long = "backend")]
    pub(crate) backends: Vec<String>,
    /// Shards.
    #[arg(long)]
    pub(crate) shards: u16,
    /// Driver.
    #[arg(long, value_enum)]
    pub(crate) io: Io,
    /// Sessions it may hold.
    #[arg(long)]
    pub(crate) sessions_max: u32,
    /// Bytes of payload that a shard may hold; 0 = its default.
    #[arg(long, default_value_t = 0)]
    pub(crate) store_bytes_max: u64,
    /// Bytes that may wait between backends and sessions in a shard; 0 = its default.
    #[arg(long, default_value_t = 0)]
    pub(crate) pool_bytes_max: u64,
    /// Bytes that may wait for one client; 0 = its default.
    #[arg(long, default_value_t = 0)]
    pub(crate) queue_bytes_max: u32,
    /// Milliseconds for which a backend may stand still; 0 = its default.
    #[arg(long, default_value_t = 0)]
    pub(crate) stall_ms: u32,
    /// The address of this host to connect from; the kernel's choice without.
    #[arg(long)]
    pub(crate) source: Option<IpAddr>,
}

impl FrontSettings {
    fn words(&self) -> Vec<String> {
        let Self { backends, shards, io, sessions_max, .. } = self;
        let Self { store_bytes_max, pool_bytes_max, queue_bytes_max, stall_ms, source, .. } = self;
        let mut words = vec!["front".to_owned()];
        words.extend(backends.iter().map(|url| format!("--backend={url}")));
        words.push(format!("--shards={shards}"));
        words.push(format!("--io={}", io.label()));
        words.push(format!("--sessions-max={sessions_max}"));
        words.push(format!("--store-bytes-max={store_bytes_max}"));
        words.push(format!("--pool-bytes-max={pool_bytes_max}"));
        words.push(format!("--queue-bytes-max={queue_bytes_max}"));
        words.push(format!("--stall-ms={stall_ms}"));
        words.extend(source.map(|source| format!("--source={source}")));
        words
    }
}

impl Front {
    /// Starts a gateway and waits until its backends are up.
    ///
    /// # Errors
    /// They are not in ten seconds, or it did not start; its own message went to standard error.
    pub(crate) fn start(settings: &FrontSettings) -> Result<Self> {
        let actor = Actor::start(&settings.words())?;
        let (addr, admin) = actor.greeting.split_once(' ').context("two addresses")?;
        let (addr, admin) = (addr.parse()?, admin.parse()?);
        let front = Self { actor, addr, admin };
        let began = cpu::now();
        while !settings.backends.is_empty()
            && front.look()?.sum("kcp_gateway_backend_up", "") < settings.backends.len() as f64
        {
            ensure!(began.elapsed() < Duration::from_secs(10), "a backend does not come up");
        }
        Ok(front)
    }

    /// What it exports now.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn look(&self) -> Result<Exported> {
        let mut connection = TcpStream::connect(self.admin).context("the gateway is gone")?;
        let admin = self.admin;
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let lines = answer.lines().filter(|line| line.starts_with("kcp_gateway_"));
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Ok(Exported(lines.filter_map(value).collect()))
    }

    /// CPU time of all its threads.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process_time(self.actor.child.id()).context("the gateway is gone")
    }

    /// Memory it has, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn resident(&self) -> Result<u64> {
        cpu::resident(self.actor.child.id())
    }

    /// Files it has open.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.actor.child.id()))?.count())
    }
}

/// What a gateway exported at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exported(BTreeMap<String, f64>);

impl Exported {
    /// Adds what another gateway exported.
    pub(crate) fn add(&mut self, other: Self) {
        for (series, value) in other.0 {
            *self.0.entry(series).or_default() += value;
        }
    }

    /// The sum of all series of a metric whose labels contain `part`.
    pub(crate) fn sum(&self, metric: &str, part: &str) -> f64 {
        self.0
            .range(metric.to_owned()..)
            .take_while(|(series, _)| series.starts_with(metric))
            .filter(|(series, _)| matches!(series.as_bytes().get(metric.len()), None | Some(b'{')))
            .filter(|(series, _)| series.contains(part))
            .map(|(_, value)| value)
            .sum()
    }
}

/// The other side of [`Front::start`]: serves until standard input closes.
///
/// # Errors
/// The gateway could not start, or a shard died.
pub(crate) fn serve_front(settings: &FrontSettings) -> Result<()> {
    end_with_parent()?;
    let mut config = with_room(settings.io, settings.shards)?;
    config.shards.pin = false;
    config.session.max = Auto::Exactly(settings.sessions_max);
    config.admin.listen = Some(ANY);
    config.upstream.each.check_interval_ms = 200;
    if settings.store_bytes_max > 0 {
        config.shards.store_bytes_max = Auto::Exactly(settings.store_bytes_max);
    }
    if settings.pool_bytes_max > 0 {
        config.upstream.pool_bytes_max = settings.pool_bytes_max;
    }
    if settings.queue_bytes_max > 0 {
        config.session.queue_bytes_max = settings.queue_bytes_max;
    }
    if settings.stall_ms > 0 {
        config.upstream.each.stall_ms = settings.stall_ms;
    }
    config.upstream.each.sources = Sources(settings.source.into_iter().collect());
    config.upstream.url = UpstreamUrl::Echo;
    for (number, url) in settings.backends.iter().enumerate() {
        let url = BackendUrl::parse(url).with_context(|| format!("`{url}` is no backend"))?;
        let name = format!("game-{number}");
        config.upstream.backends.push(Listed { name, url, weight: 1, settings: None });
    }
    let gateway = Gateway::start(config)?;
    let admin = gateway.admin_addr().context("no admin server")?;
    announce(&format!("{} {admin}", gateway.listen_addrs().first().context("no listener")?))?;
    let mut nothing = String::new();
    std::io::stdin().lock().read_to_string(&mut nothing)?;
    gateway.failure().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Tells the parent; it reads through a pipe, so the line must leave at once.
fn announce(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
