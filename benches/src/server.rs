//! A contender as a process of its own on a core of its own.
//!
//! Ours are this program, started again with `serve`. The others are programs of their own, started by this one with
//! `become`, so that they are pinned before they run; their socket is their standard input, bound and sized by us as our
//! own are. All print the address they listen on when they are ready, and the kernel ends them when this program ends.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::host::process_time;
use net_io::{DriverConfig, EpollDriver, SocketOptions, UringDriver};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::contender::{Contender, Io, Server};
use crate::ikcp;
use crate::outsider::Outsiders;
use crate::raw;

/// A server process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Running {
    /// Starts a server on `core` and waits until it listens.
    ///
    /// # Errors
    /// It did not come to listen; its own message went to standard error.
    pub(crate) fn start(contender: Contender, outsiders: &Outsiders, core: usize) -> Result<Self> {
        let mut command =
            Command::new(std::env::current_exe().context("cannot find this program")?);
        match (contender.io, outsiders.program(contender.server)) {
            (Some(io), _) => {
                let server = contender.server.label();
                command.args(["serve", server, io.label(), &core.to_string()]);
                command.stdin(Stdio::null());
            }
            (None, Some(program)) => {
                command.args(["become", &core.to_string()]).args(program.words());
                command.stdin(OwnedFd::from(UdpSocket::from(raw::bind()?.0)));
            }
            (None, None) => bail!("{} was not built", contender.server.label()),
        }
        let mut child =
            command.stdout(Stdio::piped()).spawn().context("cannot start a server process")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server has no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(Ok(addr)) = line.trim().strip_prefix(LISTENING).map(str::parse) else {
            child.kill()?;
            child.wait()?;
            bail!("{} did not start", contender.server.label());
        };
        Ok(Self { child, addr })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time it has used.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process_time(self.child.id()).context("the server is gone")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side of [`Running::start`] for servers that are part of this program.
///
/// # Errors
/// The server could not start or broke.
pub(crate) fn serve(server: Server, io: Io, core: usize) -> Result<()> {
    settle(&[core])?;
    let config = DriverConfig::default();
    match (server, io) {
        (Server::Gateway, _) => gateway(io),
        (Server::RawUdp, Io::Uring) => {
            let (driver, (socket, addr)) = (UringDriver::new(&config)?, raw::bind()?);
            announce(addr)?;
            Ok(raw::echo(driver, socket)?)
        }
        (Server::RawUdp, Io::Epoll) => {
            let (driver, (socket, addr)) = (EpollDriver::new(&config)?, raw::bind()?);
            announce(addr)?;
            Ok(raw::echo(driver, socket)?)
        }
        (Server::CIkcp, Io::Epoll) => {
            let (driver, (socket, addr)) = (EpollDriver::new(&config)?, raw::bind()?);
            announce(addr)?;
            Ok(ikcp::echo(driver, socket)?)
        }
        (Server::CIkcp | Server::TokioKcp | Server::KcpTokio | Server::KcpGo, _) => {
            bail!("{} does not run on {}", server.label(), io.label())
        }
    }
}

/// The other side of [`Running::start`] for programs of their own: this process turns into that one.
///
/// # Errors
/// It cannot be run.
pub(crate) fn turn_into(core: usize, words: &[PathBuf]) -> Result<()> {
    settle(&[core])?;
    let (program, arguments) = words.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// Keeps this process to some cores, and ends it when its parent ends. What it starts or turns into inherits both.
///
/// # Errors
/// None of the cores is allowed, or the parent is gone.
pub(crate) fn settle(cores: &[usize]) -> Result<()> {
    end_with_parent()?;
    keep_to(cores)
}

/// Runs `start` on one core; the processes and threads it starts stay there.
///
/// # Errors
/// The core is not allowed, or what `start` says.
pub(crate) fn on_core<T>(core: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None).context("cannot tell the cores of this thread")?;
    keep_to(&[core])?;
    let started = start();
    sched_setaffinity(None, &before).context("cannot go back to the cores of before")?;
    started
}

fn keep_to(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).with_context(|| {
        format!("cannot keep to the cores {cores:?}; `taskset -cp $$` shows those there are")
    })
}

/// Ends this process when its parent ends.
///
/// # Errors
/// It is gone already.
pub(crate) fn end_with_parent() -> Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure!(getppid() == parent, "the parent is gone");
    Ok(())
}

/// The product as it is shipped, at a free port of loopback and without an admin server.
pub(crate) fn shipped(io: Io, shards: u16) -> Config {
    let mut config = Config { listeners: vec![Listener::new(ANY)], ..Config::default() };
    config.shards.count = Auto::Exactly(shards);
    config.io.driver = io.choice();
    config.admin.listen = None;
    config
}

/// The same with the socket of every server.
///
/// # Errors
/// None, as that is no larger than what can be configured.
pub(crate) fn with_room(io: Io, shards: u16) -> Result<Config> {
    let mut config = shipped(io, shards);
    config.io.recv_buffer_bytes = u32::try_from(SOCKET.recv_buffer)?;
    config.io.send_buffer_bytes = u32::try_from(SOCKET.send_buffer)?;
    Ok(config)
}

/// The contender: one shard.
fn gateway(io: Io) -> Result<()> {
    let gateway = Gateway::start(with_room(io, 1)?)?;
    announce(*gateway.listen_addrs().first().context("the gateway has no listener")?)?;
    let failure = gateway.failures().recv()?;
    Err(failure.into())
}

/// Tells the parent; it reads through a pipe, so the line must leave at once.
fn announce(addr: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{LISTENING}{addr}")?;
    Ok(out.flush()?)
}

/// The socket of every server. Room for all that any case has on the way at once, 8,000 datagrams of 1 KiB, which the
/// kernel counts as 2,304 bytes each: who has less loses datagrams, and the raw echo's row with them.
pub(crate) const SOCKET: SocketOptions =
    SocketOptions { recv_buffer: 16 << 20, send_buffer: 4 << 20 };

/// A free port of loopback.
pub(crate) const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const LISTENING: &str = "listening ";
