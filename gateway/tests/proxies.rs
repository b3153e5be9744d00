//! A gateway in front of the proxies that stand before many game servers: HAProxy and nginx, as Debian has them. Every message
//! comes back through them, and what they and the server behind them are told of clients is true.
//!
//! Needs `haproxy`, and `nginx` with its stream module; without them it fails and says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kcp_gateway::config::UpstreamUrl;
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::scenario::Load;
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Scenario, run};
use net_io::IoChoice;
use serde_json::Value;
use tempfile::TempDir;

const SESSIONS: u32 = 60;

#[test]
fn haproxy_passes_messages_on_and_knows_whose_they_are() {
    for io in live::DRIVERS {
        let server = Echo::start();
        let proxy = Proxy::start("haproxy", &HAPROXY, server.addr);
        assert_eq!(sessions_through(io, &proxy), server.clients());
    }
}

#[test]
fn nginx_passes_messages_on_and_knows_whose_they_are() {
    for io in live::DRIVERS {
        let server = Echo::start();
        let proxy = Proxy::start("nginx", &NGINX, server.addr);
        let clients = sessions_through(io, &proxy);
        assert_eq!(clients, server.clients());
        // nginx writes a line when a connection has ended: all have, the gateway is stopped.
        let logged = || {
            let log = std::fs::read_to_string(proxy.dir.path().join("clients")).unwrap();
            let named = log.lines().filter_map(|line| line.parse().ok());
            named.collect::<BTreeSet<SocketAddr>>()
        };
        while logged().len() < clients.len() {
            thread::yield_now();
        }
        assert_eq!(logged(), clients, "$proxy_protocol_addr");
    }
}

/// A load that must come back whole; the clients' addresses as the gateway saw them.
fn sessions_through(io: IoChoice, proxy: &Proxy) -> BTreeSet<SocketAddr> {
    let mut config = Config::default();
    config.upstream.url = UpstreamUrl::parse(&format!("tcp://{}", proxy.addr)).unwrap();
    config.upstream.each.check_interval_ms = 20;
    config.shards.pin = false;
    let gateway = live::start(config, io);
    while gateway.status().not_ready.is_some() {
        thread::yield_now();
    }
    let target = gateway.listen_addrs()[0];
    let sources = Sources::range("127.0.0.2".parse().unwrap(), 4);
    let mut scenario = Scenario::new(target, SESSIONS, sources);
    scenario.engine.io = io;
    scenario.traffic.load = Load::Closed { outstanding: 2 };
    scenario.traffic.size = 3000;
    scenario.phases.warmup = Duration::ZERO;
    scenario.phases.duration = Duration::from_millis(500);
    let report = run(&scenario).unwrap();
    let seed = report.run.seed;
    assert_eq!(report.failures(), Vec::<String>::new(), "seed {seed}: {:?}", report.counts);
    assert_eq!(report.counts.received, report.counts.sent, "seed {seed}");
    assert!(report.counts.received > u64::from(SESSIONS), "{:?}", report.counts);
    let clients = clients_of(&gateway);
    assert_eq!(clients.len(), SESSIONS as usize, "a socket for each");
    drop(gateway.stop());
    clients
}

fn clients_of(gateway: &Gateway) -> BTreeSet<SocketAddr> {
    let admin = gateway.admin_addr().unwrap();
    let mut connection = TcpStream::connect(admin).unwrap();
    let path = "/api/v1/sessions?limit=256";
    write!(connection, "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let list: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
    let sessions = list["sessions"].as_array().unwrap_or_else(|| panic!("no sessions in {list}"));
    sessions.iter().map(|session| session["address"].as_str().unwrap().parse().unwrap()).collect()
}

/// A game server of the simplest kind, which its proxy tells in a line of text (PROXY, version 1) whose connection it is.
struct Echo {
    addr: SocketAddr,
    clients: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let clients: Arc<Mutex<BTreeSet<SocketAddr>>> = Arc::default();
        let heard = Arc::clone(&clients);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let heard = Arc::clone(&heard);
                thread::spawn(move || serve(connection.unwrap(), &heard));
            }
        });
        Self { addr, clients }
    }

    fn clients(&self) -> BTreeSet<SocketAddr> {
        self.clients.lock().unwrap().clone()
    }
}

/// Ends with its connection, however that ends.
fn serve(connection: TcpStream, heard: &Mutex<BTreeSet<SocketAddr>>) {
    let mut writer = connection.try_clone().unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    if reader.read_line(&mut line).is_ok() && !line.is_empty() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["PROXY", "TCP4", from, _, port, _] = words[..] else { panic!("told {line:?}") };
        heard.lock().unwrap().insert(format!("{from}:{port}").parse().unwrap());
        let _ = std::io::copy(&mut reader, &mut writer);
    }
}

/// How a proxy is installed, set up and started.
struct Recipe {
    package: &'static str,
    file: &'static str,
    arguments: &'static [&'static str],
    /// With `LISTEN`, `SERVER` and `DIR` in it.
    config: &'static str,
}

const HAPROXY: Recipe = Recipe {
    package: "haproxy",
    file: "haproxy.cfg",
    arguments: &["-db", "-f", "haproxy.cfg"],
    config: "\
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind LISTEN accept-proxy
    default_backend servers
backend servers
    server one SERVER send-proxy
",
};

const NGINX: Recipe = Recipe {
    package: "nginx and libnginx-mod-stream",
    file: "nginx.conf",
    arguments: &["-p", ".", "-e", "stderr", "-c", "nginx.conf"],
    config: "\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
stream {
    log_format clients $proxy_protocol_addr:$proxy_protocol_port;
    access_log clients clients;
    set_real_ip_from 127.0.0.0/8;
    server {
        listen LISTEN proxy_protocol;
        proxy_protocol on;
        proxy_pass SERVER;
    }
}
",
};

/// A proxy's process. Dropping it ends the process.
struct Proxy {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
}

impl Proxy {
    /// Starts it in front of `server` and waits until it listens. A port that was free may be another's by then: another is
    /// tried.
    fn start(program: &str, recipe: &Recipe, server: SocketAddr) -> Self {
        for _ in 0..10 {
            let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let config = recipe
                .config
                .replace("LISTEN", &addr.to_string())
                .replace("SERVER", &server.to_string());
            std::fs::write(dir.path().join(recipe.file), config).unwrap();
            let child = spawn(program, recipe, dir.path());
            let mut proxy = Self { child, addr, dir };
            if proxy.listens() {
                return proxy;
            }
        }
        panic!("{program} does not come to listen; its own words are above");
    }

    /// Waits until it does, or has ended.
    fn listens(&mut self) -> bool {
        while self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(self.addr).is_ok() {
                return true;
            }
            thread::yield_now();
        }
        false
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, recipe: &Recipe, dir: &Path) -> Child {
    // Debian puts them where only root looks.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new("/usr/bin/env")
        .arg(format!("PATH={path}"))
        .arg(program)
        .args(recipe.arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}; install {}", recipe.package))
}
