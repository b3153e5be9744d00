//! The gateway and a busy loop of equal weight on one core, and what the gateway's metrics say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kcp_gateway::Gateway;

use crate::contender::Io;
use crate::server::{ANY, settle, shipped};

/// Both processes. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Contest {
    children: Vec<Child>,
    /// Where the gateway listens.
    pub(crate) addr: SocketAddr,
    admin: SocketAddr,
}

/// What the gateway counted since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Data segments it sent, those sent again included.
    pub(crate) sent: f64,
    /// Those sent again.
    pub(crate) resent: f64,
    /// Data segments of clients that had come before.
    pub(crate) duplicates: f64,
    /// Datagrams that its full socket did not take.
    pub(crate) overflow: f64,
    /// New sessions turned away because of overload.
    pub(crate) shed: f64,
    /// Sessions ended, for whatever reason.
    pub(crate) ended: f64,
}

impl Contest {
    /// Starts the gateway on `core`, and the busy loop too unless it shall be `alone`.
    ///
    /// # Errors
    /// One of them does not start; its own message went to standard error.
    pub(crate) fn start(io: Io, core: usize, alone: bool) -> Result<Self> {
        let core = core.to_string();
        let (gateway, line) = start(&["overload-gateway", io.label(), &core])?;
        let mut children = vec![gateway];
        if !alone {
            children.push(start(&["overload-loop", &core])?.0);
        }
        let mut addrs = line.split_whitespace().map(str::parse);
        let (Some(Ok(addr)), Some(Ok(admin))) = (addrs.next(), addrs.next()) else {
            bail!("the gateway said {line:?}");
        };
        Ok(Self { children, addr, admin })
    }

    /// What the gateway's metrics say now.
    ///
    /// # Errors
    /// The admin server does not answer.
    pub(crate) fn counted(&self) -> Result<Counted> {
        let mut stream = TcpStream::connect(self.admin)?;
        // Its thread shares the core too.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("the gateway's metrics do not come")?;
        let resent = total(&text, "kcp_gateway_segments_resent_total", "");
        Ok(Counted {
            sent: total(&text, "kcp_gateway_segments_sent_total", "") + resent,
            resent,
            duplicates: total(&text, "kcp_gateway_segments_received_total", "duplicate"),
            overflow: total(&text, "kcp_gateway_drops_total", "socket_overflow"),
            shed: total(&text, "kcp_gateway_drops_total", "\"overload\""),
            ended: total(&text, "kcp_gateway_sessions_ended_total", ""),
        })
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself; then there is nothing left to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The sum of a metric's series that have `label` among their labels.
fn total(text: &str, name: &str, label: &str) -> f64 {
    let series = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let ours = series.filter(|(labels, _)| labels.starts_with('{') && labels.contains(label));
    ours.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

/// Starts this program again and returns the line it says when it is ready.
fn start(words: &[&str]) -> Result<(Child, String)> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process")?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("a process without standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    if line.is_empty() {
        child.wait()?;
        bail!("{words:?} did not start");
    }
    Ok((child, line))
}

/// The gateway's side: the product as it is shipped, with one shard.
///
/// # Errors
/// It cannot start, or a shard died.
pub(crate) fn gateway(io: Io, core: usize) -> Result<()> {
    settle(&[core])?;
    let mut config = shipped(io, 1);
    config.admin.listen = Some(ANY);
    let gateway = Gateway::start(config)?;
    let addr = gateway.listen_addrs().first().context("the gateway has no listener")?;
    let admin = gateway.admin_addr().context("the gateway has no admin server")?;
    tell(&format!("{addr} {admin}"))?;
    Err(gateway.failures().recv()?.into())
}

/// The busy loop's side.
///
/// # Errors
/// It cannot have the core.
pub(crate) fn busy_loop(core: usize) -> Result<()> {
    settle(&[core])?;
    tell("busy")?;
    loop {
        std::hint::spin_loop();
    }
}

fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_series_asked_for() {
        let text = "# HELP a_total x\na_total{r=\"x\",shard=\"0\"} 2\na_total{r=\"y\",shard=\"0\"} 4\n\
                    a_total{r=\"x\",shard=\"1\"} 1\na_total_other{r=\"x\"} 8\n";
        assert!((total(text, "a_total", "") - 7.0).abs() < 1e-9);
        assert!((total(text, "a_total", "\"x\"") - 3.0).abs() < 1e-9);
    }
}
