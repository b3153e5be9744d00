//! The servers that are compared. Each runs in a process of its own on a core of its own: this program, started
//! again with `serve`, which prints the address it listens on and leaves when its standard input closes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway};
use net_io::{DriverConfig, EpollDriver, IoChoice, UringDriver};

use crate::cpu;
use crate::raw;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Server {
    /// The gateway with one shard and its `echo` upstream.
    Gateway,
    /// Plain datagrams, echoed: no protocol.
    RawUdp,
}

/// Through which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Io {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl Server {
    /// The name in tables and results.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::RawUdp => "raw-udp",
        }
    }
}

impl Io {
    /// The name in tables and results.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }

    /// The same for the libraries, without falling back.
    pub(crate) const fn choice(self) -> IoChoice {
        match self {
            Self::Uring => IoChoice::Uring,
            Self::Epoll => IoChoice::Epoll,
        }
    }
}

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
    pub(crate) fn start(server: Server, io: Io, core: usize) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["serve", server.label(), "--io", io.label(), "--core", &core.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a server process")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server has no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(Ok(addr)) = line.trim().strip_prefix(LISTENING).map(str::parse) else {
            child.kill()?;
            child.wait()?;
            bail!("{} on {} did not start", server.label(), io.label());
        };
        Ok(Self { child, addr })
    }

    /// CPU time it has used.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu::of_process(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side of [`Running::start`]: serves until standard input closes.
///
/// # Errors
/// The server could not start or broke.
pub(crate) fn serve(server: Server, io: Io, core: usize) -> Result<()> {
    // Threads inherit this, the shard's and the control plane's alike.
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        bail!("cannot pin to core {core}: allowed are {:?}", core_affinity::get_core_ids());
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    match server {
        Server::RawUdp => {
            let (socket, addr) = raw::bind()?;
            let config = DriverConfig::default();
            match io {
                Io::Uring => {
                    let driver = UringDriver::new(&config)?;
                    announce(addr)?;
                    raw::echo(driver, socket)?;
                }
                Io::Epoll => {
                    let driver = EpollDriver::new(&config)?;
                    announce(addr)?;
                    raw::echo(driver, socket)?;
                }
            }
        }
        Server::Gateway => gateway(io)?,
    }
    Ok(())
}

/// The product as it is shipped, with one shard and no admin server.
fn gateway(io: Io) -> Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config { listeners: vec![Listener::new(any)], ..Config::default() };
    config.shards.count = Auto::Exactly(1);
    config.io.driver = io.choice();
    config.admin.listen = None;
    let gateway = Gateway::start(config)?;
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

const LISTENING: &str = "listening ";
