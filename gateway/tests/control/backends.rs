//! Backends as the operator sees them: found, watched, drained, listed. Real sockets on loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use kcp_gateway::config::{Backend, BackendUrl, Config, Resolver, Source, UpstreamUrl};
use kcp_gateway::upstream::backend::BACKENDS_MAX;
use kcp_gateway::upstream::framing::Framing;
use kcp_gateway::{Gateway, Lifecycle};
use net_io::IoChoice;
use serde_json::{Value, json};

use crate::client::Client;
use crate::dns::{Dns, address, service};
use crate::http::{get, post, sample, total};

/// A gateway on loopback ports with one shard, an upstream of `url` and everything asked quickly.
fn config(url: &str) -> Config {
    let mut config = crate::admin::config(IoChoice::Auto);
    config.upstream.url = UpstreamUrl::parse(url).unwrap();
    hasten(&mut config);
    config
}

fn hasten(config: &mut Config) {
    let upstream = &mut config.upstream;
    upstream.resolve_interval_ms = 100;
    upstream.discovery_interval_ms = 50;
    upstream.each.check_interval_ms = 20;
    upstream.each.check_interval_max_ms = 50;
    upstream.each.check_fall = 1;
}

fn start(config: Config) -> (Gateway, SocketAddr) {
    let gateway = Gateway::start(config).unwrap();
    let admin = gateway.admin_addr().unwrap();
    (gateway, admin)
}

/// Asks until `condition` holds of the answer. Ends with the test's own time limit if it never does.
fn until(admin: SocketAddr, condition: impl Fn(&Value) -> bool) -> Value {
    loop {
        let view = get(admin, "/api/v1/backends").json();
        if condition(&view) {
            return view;
        }
    }
}

fn ready(admin: SocketAddr, wanted: bool) -> String {
    loop {
        let response = get(admin, "/readyz");
        if (response.status == 200) == wanted {
            return response.body;
        }
    }
}

/// A TCP backend that takes connections and says nothing, until it is dropped.
struct Silent {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Silent {
    fn at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let (addr, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        // Taken, so that checks never find a full backlog.
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                drop(listener.accept().unwrap());
            }
        });
        Self { addr, stop, thread: Some(thread) }
    }

    fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port where nobody listens. Somebody else may take it before it is used again; none of these tests' own do, because
/// the kernel hands out others first.
fn nobody() -> SocketAddr {
    Silent::new().addr()
}

#[test]
fn a_gateway_starts_without_its_backend_and_is_ready_when_it_comes() {
    let addr = nobody();
    let (gateway, admin) = start(config(&format!("tcp://{addr}")));
    assert_eq!(gateway.status().state, Lifecycle::Serve.label());
    until(admin, |view| !view["backends"][0]["addresses"][0]["last_check"].is_null());
    let why = get(admin, "/readyz");
    assert_eq!((why.status, get(admin, "/healthz").status), (503, 200));
    let error = "no backend takes sessions: upstream: down, Connection refused (os error 111)";
    assert_eq!(why.json()["error"], error);
    assert_eq!(get(admin, "/api/v1/status").json()["not_ready"], error);

    let backend = Silent::at(addr);
    ready(admin, true);
    let view = get(admin, "/api/v1/backends").json();
    assert_eq!(view["not_ready"], Value::Null);
    let up = &view["backends"][0];
    assert_eq!((&up["name"], &up["state"]), (&json!("upstream"), &json!("up")));
    assert_eq!(up["addresses"][0]["address"], addr.to_string());
    assert!(up["addresses"][0]["checks_failed"].as_u64().unwrap() > 0, "{up}");

    let metrics = get(admin, "/metrics").body;
    let series = format!("kcp_gateway_backend_up{{backend=\"upstream\",address=\"{addr}\"}}");
    assert_eq!((sample(&metrics, &series), sample(&metrics, "kcp_gateway_ready")), (1.0, 1.0));
    assert!(total(&metrics, "kcp_gateway_backend_checks_total") >= 2.0);
    let policies = "{policy=\"round-robin\",on_loss=\"end\",overflow=\"pause\"}";
    let policies = format!("kcp_gateway_backend_policy_info{policies}");
    assert_eq!(sample(&metrics, &policies), 1.0);

    drop(backend);
    ready(admin, false);
    assert_eq!(sample(&get(admin, "/metrics").body, &series), 0.0);
}

#[test]
fn without_an_admin_port_backends_are_watched_all_the_same() {
    let backend = Silent::new();
    let mut config = config(&format!("tcp://{}", backend.addr()));
    config.admin.listen = None;
    let gateway = Gateway::start(config).unwrap();
    while gateway.status().not_ready.is_some() {
        thread::yield_now();
    }
}

#[test]
fn a_name_is_asked_again_and_its_addresses_come_and_go() {
    // One port on two addresses: both backends of one name.
    let first = Silent::new();
    let port = first.addr().port();
    let second = Silent::at(([127, 0, 0, 2], port).into());
    let dns = Dns::start(vec![("game.test.", address("127.0.0.1"))]);
    let mut config = config(&format!("tcp://game.test:{port}"));
    config.upstream.resolver = Resolver::At(vec![dns.addr]);
    let (_gateway, admin) = start(config);
    ready(admin, true);
    let names = |view: &Value| -> Vec<String> {
        let addresses = view["backends"][0]["addresses"].as_array().unwrap();
        let up = addresses.iter().filter(|a| a["state"] == "up");
        up.map(|a| a["name"].as_str().unwrap().to_owned()).collect()
    };
    let name = |ip: &str| format!("upstream@{ip}:{port}");
    until(admin, |view| names(view) == [name("127.0.0.1")]);

    dns.tell(vec![("game.test.", address("127.0.0.2")), ("game.test.", address("127.0.0.1"))]);
    until(admin, |view| names(view) == [name("127.0.0.1"), name("127.0.0.2")]);
    dns.tell(vec![("game.test.", address("127.0.0.2"))]);
    until(admin, |view| names(view) == [name("127.0.0.2")]);
    // Nobody has a session there: it is forgotten.
    until(admin, |view| view["leaving"] == json!([]));

    // A name that is gone leaves what is known.
    dns.tell(vec![]);
    let view = until(admin, |view| view["backends"][0]["lookups"][0]["failed"] != 0);
    assert_eq!(names(&view), [name("127.0.0.2")]);
    let lookup = &view["backends"][0]["lookups"][0];
    assert_eq!(lookup["target"], format!("game.test:{port}"));
    assert!(lookup["error"].as_str().unwrap().contains("game.test"), "{lookup}");
    let metrics = get(admin, "/metrics").body;
    let failed = "kcp_gateway_backend_resolutions_total{backend=\"upstream\",outcome=\"failed\"}";
    assert!(sample(&metrics, failed) > 0.0);
    drop(second);
}

#[test]
fn an_unresolved_name_is_named_and_asked_for_until_it_is_there() {
    let backend = Silent::new();
    let dns = Dns::start(vec![]);
    let mut config = config(&format!("tcp://game.test:{}", backend.addr().port()));
    config.upstream.resolver = Resolver::At(vec![dns.addr]);
    let (_gateway, admin) = start(config);
    until(admin, |view| view["backends"][0]["lookups"][0]["failed"] != 0);
    let why = get(admin, "/readyz").json()["error"].as_str().unwrap().to_owned();
    assert!(why.starts_with("no backend takes sessions: upstream: game.test"), "{why}");
    dns.tell(vec![("game.test.", address("127.0.0.1"))]);
    ready(admin, true);
}

#[test]
fn srv_records_bring_ports_weights_and_priorities() {
    let (near, far) = (Silent::new(), Silent::new());
    let dns = Dns::start(vec![
        ("_kcp._tcp.game.test.", service(10, 5, near.addr().port(), "near.test.")),
        ("_kcp._tcp.game.test.", service(20, 0, far.addr().port(), "far.test.")),
        ("near.test.", address("127.0.0.1")),
        ("far.test.", address("127.0.0.1")),
        ("far.test.", address("::1")),
    ]);
    let mut config = config("tcp+srv://_kcp._tcp.game.test");
    config.upstream.resolver = Resolver::At(vec![dns.addr]);
    let (_gateway, admin) = start(config);
    let state = |view: &Value, addr: SocketAddr| {
        let all = view["backends"][0]["addresses"].as_array().unwrap();
        let found = all.iter().find(|a| a["address"] == addr.to_string());
        found.map(|a| (a["state"].as_str().unwrap().to_owned(), a["weight"].clone()))
    };
    until(admin, |view| {
        state(view, near.addr()) == Some(("up".into(), json!(5)))
            && state(view, far.addr()) == Some(("standby".into(), json!(1)))
    });
    let v6 = SocketAddr::new("::1".parse().unwrap(), far.addr().port());
    assert!(state(&get(admin, "/api/v1/backends").json(), v6).is_some());
    // The better one is gone: the other serves.
    let gone = near.addr();
    drop(near);
    until(admin, |view| {
        state(view, gone).unwrap().0 == "down" && state(view, far.addr()).unwrap().0 == "up"
    });
    ready(admin, true);
}

/// A file that is removed with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        Self(dir.join(format!("{name}-{}.toml", std::process::id())))
    }

    /// As a careful writer does it: whole or not at all.
    fn write(&self, text: &str) {
        let part = self.0.with_extension("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(&part, &self.0).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_watched_file_brings_backends_and_takes_them() {
    let (a, b) = (Silent::new(), Silent::new());
    let file = File::new("backends");
    let mut config = config("echo");
    config.upstream.discovery_file = Some(file.0.clone());
    let (_gateway, admin) = start(config);
    let missing = until(admin, |view| !view["file"]["error"].is_null());
    assert!(missing["not_ready"].as_str().unwrap().contains("No such file"), "{missing}");

    let entry = |name: &str, addr: SocketAddr| {
        format!("[[backend]]\nname = \"{name}\"\nurl = \"tcp://{addr}\"\n")
    };
    let states = |view: &Value| -> Vec<(String, String)> {
        let all = view["backends"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.map(|b| (text(&b["name"]), text(&b["state"]))).collect()
    };
    let up = |name: &str| (name.to_owned(), "up".to_owned());
    file.write(&entry("a", a.addr()));
    until(admin, |view| states(view) == [up("a")]);
    ready(admin, true);
    file.write(&[entry("a", a.addr()), entry("b", b.addr())].concat());
    until(admin, |view| states(view) == [up("a"), up("b")]);

    // A wrong file changes nothing, and says where.
    file.write("[[backend]]\nname = \"c\"\nurl = \"tcp://nowhere\"\n");
    let view = until(admin, |view| !view["file"]["error"].is_null());
    assert_eq!(states(&view), [up("a"), up("b")]);
    let error = view["file"]["error"].as_str().unwrap();
    assert!(error.contains(".toml:3:7: `upstream.backend[0].url`"), "{error}");
    file.write(&entry("b", b.addr()));
    let view = until(admin, |view| states(view) == [up("b")]);
    assert_eq!((&view["file"]["backends"], &view["file"]["error"]), (&json!(1), &Value::Null));
}

#[test]
fn more_yamux_backends_come_and_go_than_there_may_be_at_once() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = backend.local_addr().unwrap();
    // Kept, as by a server that lives on when it is listed no longer, until the gateway ends them.
    let _reader = thread::spawn(move || {
        for mut stream in backend.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    let file = File::new("many");
    let mut config = config("echo");
    config.upstream.discovery_file = Some(file.0.clone());
    let (_gateway, admin) = start(config);
    for n in 0..=BACKENDS_MAX {
        file.write(&format!("[[backend]]\nname = \"b{n}\"\nurl = \"yamux://{addr}\"\n"));
        let name = json!(format!("b{n}"));
        until(admin, |view| {
            let b = &view["backends"][0];
            (&b["name"], &b["state"]) == (&name, &json!("up"))
        });
    }
    until(admin, |view| view["leaving"] == json!([]));
}

#[test]
fn the_operator_drains_one_backend() {
    let (a, b) = (Silent::new(), Silent::new());
    let file = File::new("drain");
    let text = format!(
        "[[listener]]\naddr = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[shards]\ncount = 1\npin = false\n\
         [[upstream.backend]]\nname = \"a\"\nurl = \"tcp://{}\"\n[[upstream.backend]]\nname = \"b\"\nurl = \"tcp://{}\"\n",
        a.addr(),
        b.addr()
    );
    file.write(&text);
    let source = Source { file: Some(file.0.clone()), ..Source::default() };
    let gateway = Gateway::start_with(source.load().unwrap(), source).unwrap();
    let admin = gateway.admin_addr().unwrap();
    until(admin, |view| states(view) == ["up", "up"]);
    assert_eq!(post(admin, "/api/v1/backends/a/drain").status, 200);
    assert_eq!(states(&get(admin, "/api/v1/backends").json()), ["draining", "up"]);
    assert_eq!(get(admin, "/readyz").status, 200);
    assert_eq!(post(admin, "/api/v1/backends/c/drain").status, 404);

    // A reload that leaves it leaves it drained; one that brings another brings it.
    let c = Silent::new();
    file.write(&format!(
        "{text}[[upstream.backend]]\nname = \"c\"\nurl = \"tcp://{}\"\n",
        c.addr()
    ));
    let changed = post(admin, "/api/v1/reload");
    assert_eq!(changed.status, 200, "{changed:?}");
    until(admin, |view| states(view) == ["draining", "up", "up"]);
    for name in ["b", "c"] {
        post(admin, &format!("/api/v1/backends/{name}/drain"));
    }
    let why = ready(admin, false);
    assert!(why.contains("a: draining, the operator empties it"), "{why}");
    assert_eq!(post(admin, "/api/v1/backends/a/undrain").status, 200);
    ready(admin, true);

    file.write(text.split("[[upstream.backend]]").next().unwrap());
    let refused = post(admin, "/api/v1/reload");
    assert_eq!(refused.status, 409, "{refused:?}");
}

#[test]
fn every_shard_gets_its_links_over_tcp_and_unix_sockets() {
    let unix = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("links-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&unix);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix_listener = UnixListener::bind(&unix).unwrap();
    for url in [
        format!("yamux://{}", tcp.local_addr().unwrap()),
        format!("yamux+unix://{}", unix.display()),
    ] {
        let mut config = config(&url);
        config.upstream.each.links = 3;
        let (gateway, admin) = start(config);
        assert_eq!(gateway.status().shards, 2);
        // Each of two shards gets three, and no more are made while those live.
        let links: Vec<Box<dyn Send>> = (0..6)
            .map(|_| -> Box<dyn Send> {
                if url.contains("unix") {
                    Box::new(unix_listener.accept().unwrap().0)
                } else {
                    Box::new(tcp.accept().unwrap().0)
                }
            })
            .collect();
        ready(admin, true);
        until(admin, |view| {
            view["backends"][0]["addresses"][0]["checks_passed"].as_u64() >= Some(6)
        });
        assert_eq!(links.len(), 6);
    }
    std::fs::remove_file(&unix).unwrap();
}

/// A TCP backend that sends everything back with its name before it, until it is killed.
struct Parrot {
    addr: SocketAddr,
    dead: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Parrot {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (dead, connections) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (died, kept): (_, Arc<Mutex<Vec<TcpStream>>>) =
            (Arc::clone(&dead), Arc::clone(&connections));
        let thread = thread::spawn(move || {
            while !died.load(Ordering::Acquire) {
                let (mut stream, _) = listener.accept().unwrap();
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(move || {
                    let mut bytes = [0; 1500];
                    while let Ok(len @ 1..) = stream.read(&mut bytes) {
                        let answer = [name.as_bytes(), b":", &bytes[..len]].concat();
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addr, dead, connections, thread }
    }

    /// As a process that dies: nobody listens any more, and every connection is gone.
    fn kill(self) {
        self.dead.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
        self.thread.join().unwrap();
        for connection in self.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Two parrots behind one gateway, and who answered each of some clients.
fn parrots(driver: IoChoice) -> (Gateway, SocketAddr, [Parrot; 2], Vec<(Client, String)>) {
    let both = [Parrot::start("a"), Parrot::start("b")];
    let mut config = crate::admin::config(driver);
    hasten(&mut config);
    let backend = |name: &str, parrot: &Parrot| Backend {
        name: name.into(),
        url: BackendUrl::parse(&format!("tcp://{}", parrot.addr)).unwrap(),
        weight: 1,
        settings: None,
    };
    config.upstream.backends = vec![backend("a", &both[0]), backend("b", &both[1])];
    config.upstream.each.framing = Framing::None;
    config.upstream.each.proxy = false;
    let (gateway, admin) = start(config);
    until(admin, |view| states(view) == ["up", "up"]);
    let clients = (1..=32).map(|conv| {
        let client = Client::new(gateway.listen_addrs()[0], conv);
        let answer = client.exchange(0, "hello");
        (client, answer)
    });
    let clients: Vec<_> = clients.collect();
    let of = |name: &str| clients.iter().filter(|(_, answer)| answer.starts_with(name)).count();
    assert!(of("a:") > 0 && of("b:") > 0 && of("a:") + of("b:") == 32);
    (gateway, admin, both, clients)
}

fn states(view: &Value) -> Vec<String> {
    let all = view["backends"].as_array().unwrap().iter();
    all.map(|b| b["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backend_that_dies_takes_its_own_sessions_alone() {
    for driver in [IoChoice::Uring, IoChoice::Epoll] {
        let (gateway, admin, [a, b], clients) = parrots(driver);
        let of_b: Vec<_> = clients.iter().filter(|(_, who)| who.starts_with("b:")).collect();
        a.kill();
        let view = until(admin, |view| {
            states(view) == ["down", "up"] && view["backends"][0]["sessions"] == 0
        });
        assert_eq!(view["backends"][1]["sessions"], of_b.len());
        for (client, _) in &of_b {
            assert_eq!(client.exchange(1, "still there?"), "b:still there?");
        }
        // Who comes now is the other's.
        for conv in 100..110 {
            let client = Client::new(gateway.listen_addrs()[0], conv);
            assert_eq!(client.exchange(0, "hello"), "b:hello");
        }
        let parted = &get(admin, "/api/v1/backends").json()["backends"][0]["addresses"][0];
        let parted = parted["sessions_ended"].as_object().unwrap().values();
        let parted: u64 = parted.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(parted, (clients.len() - of_b.len()) as u64);
        b.kill();
    }
}

#[test]
fn a_drained_backend_keeps_its_sessions_and_gets_no_new_ones() {
    let (gateway, admin, _both, clients) = parrots(IoChoice::Auto);
    assert_eq!(post(admin, "/api/v1/backends/a/drain").status, 200);
    assert_eq!(states(&get(admin, "/api/v1/backends").json()), ["draining", "up"]);
    for (client, who) in &clients {
        assert_eq!(client.exchange(1, "again"), format!("{}:again", &who[..1]));
    }
    // The answer to the order came when the shards had been told.
    for conv in 100..110 {
        let client = Client::new(gateway.listen_addrs()[0], conv);
        assert_eq!(client.exchange(0, "hello"), "b:hello");
    }
}

#[test]
fn an_echo_gateway_says_that_it_has_no_backends() {
    let (_gateway, admin) = start(crate::admin::config(IoChoice::Auto));
    for response in [get(admin, "/api/v1/backends"), post(admin, "/api/v1/backends/a/drain")] {
        assert_eq!(response.status, 404);
        assert!(response.json()["error"].as_str().unwrap().contains("echo"), "{response:?}");
    }
}

/// A server that never answers is given up in time and its name said.
#[test]
fn a_silent_dns_server_is_no_hang() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = config("tcp://game.test:7000");
    config.upstream.resolver = Resolver::At(vec![silent.local_addr().unwrap()]);
    let (gateway, admin) = start(config);
    assert_eq!(get(admin, "/readyz").status, 503);
    assert_eq!(get(admin, "/healthz").status, 200);
    // A stop does not wait for it.
    let _ = gateway.stop();
}
