//! HAProxy, as an operator would put it in front of a server.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use super::pause;

/// HAProxy with one thread. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct HaProxy {
    pub(super) child: Child,
    config: PathBuf,
    pub(super) addr: SocketAddr,
}

impl HaProxy {
    /// Starts it in front of `server`. A port that was free may be another's by then: another is tried.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(program: &Path, server: SocketAddr, most: u32) -> Result<Self> {
        let config = std::env::temp_dir().join(format!("kcp-benches-{}.cfg", std::process::id()));
        for _ in 0..10 {
            let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let text = CONFIG
                .replace("LISTEN", &addr.to_string())
                .replace("SERVER", &server.to_string())
                .replace("MOST", &most.to_string());
            std::fs::write(&config, text)?;
            let child = Command::new(program)
                .arg("-db")
                .arg("-f")
                .arg(&config)
                .stdin(Stdio::null())
                .spawn()?;
            let mut proxy = Self { child, config: config.clone(), addr };
            while proxy.child.try_wait()?.is_none() {
                if TcpStream::connect(addr).is_ok() {
                    return Ok(proxy);
                }
                pause(Duration::from_millis(5));
            }
        }
        bail!("HAProxy does not come to listen; its own words are above")
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// Where it is, if it is installed.
pub(super) fn haproxy() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.map(|dir| dir.join("haproxy")).find(|file| file.is_file())
}

const CONFIG: &str = "\
global
    nbthread 1
    maxconn MOST
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen front
    bind LISTEN
    server one SERVER
";
