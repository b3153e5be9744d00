use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::upstream::framing::Framing;

fn file(text: &str) -> Result<Config, ConfigErrors> {
    layered(Some(text.as_bytes()), &[], &[])
}

/// Loads through a real file, as an operator would.
fn layered(
    text: Option<&[u8]>,
    env: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, ConfigErrors> {
    let dir = tempdir();
    let path = dir.0.join("gateway.toml");
    if let Some(bytes) = text {
        std::fs::write(&path, bytes).unwrap();
    }
    Source {
        file: text.map(|_| path),
        env: env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        flags: flags.iter().map(|(name, key, v)| Flag { name, key, value: (*v).into() }).collect(),
    }
    .load()
}

struct TempDir(std::path::PathBuf);

fn tempdir() -> TempDir {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name =
        format!("kcp-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    TempDir(dir)
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The only error of a file, as `line:column: text`.
fn error(text: &str) -> String {
    let errors = file(text).unwrap_err();
    assert_eq!((errors.errors.len(), errors.more), (1, 0), "{errors}");
    shown(&errors.errors[0])
}

fn shown(error: &ConfigError) -> String {
    match &error.place {
        Place::File { path, line, column } => {
            assert!(
                error.to_string().starts_with(&format!("{}:{line}:{column}: ", path.display()))
            );
            format!("{line}:{column}: {}", error.problem)
        }
        Place::Env(_) | Place::Flag(_) | Place::Unwritten => error.to_string(),
    }
}

#[test]
fn nothing_given_is_the_default() {
    let config = layered(None, &[("HOME", "/root"), ("KCP_GATEWAY_PORT", "tcp://1")], &[]).unwrap();
    assert_eq!(config.settings(), Config::default().settings());
    assert_eq!(Config::default().check(), Ok(()));
    let addrs: Vec<String> = config.listeners.iter().map(|l| l.addr.to_string()).collect();
    assert_eq!(addrs, ["0.0.0.0:4000", "[::]:4000"]);
    let optional: Vec<bool> = config.listeners.iter().map(|l| l.optional).collect();
    assert_eq!(optional, [false, true]);
    assert_eq!(config.admin.listen, Some("127.0.0.1:9600".parse().unwrap()));
    assert_eq!(file("").unwrap().settings(), config.settings());
}

/// Both profiles name each value, so that a change of the protocol core's defaults shows here.
#[test]
fn profiles_are_what_they_say() {
    let core = Kcp::of(Profile::Game).to_core();
    let game = KcpConfig {
        mtu: 1400,
        nodelay: 1,
        interval: 10,
        fastresend: 2,
        fastlimit: 5,
        nocwnd: true,
        snd_wnd: 256,
        rcv_wnd: 256,
        stream: false,
        dead_link: 20,
        reference: Reference::V2_1_1,
        flush: FlushPolicy::Turn,
        strict: true,
    };
    assert_eq!(core, game);
    let reference = KcpConfig { strict: true, ..KcpConfig::default() };
    assert_eq!(Kcp::of(Profile::Reference).to_core(), reference);
}

#[test]
fn drivers_and_sockets_start_from_their_own_defaults() {
    let io = Config::default().io;
    // A gateway trades a little latency for much CPU; the driver by itself does not.
    let driver = DriverConfig { min_wait_us: 200, ..DriverConfig::default() };
    assert_eq!(format!("{:?}", io.to_driver()), format!("{driver:?}"));
    assert_eq!(format!("{:?}", io.to_socket()), format!("{:?}", SocketOptions::default()));
}

#[test]
fn later_layers_win() {
    let text = "[session]\nmax = 1\nidle_timeout_s = 11\ntombstone_s = 21\n";
    let env = [("KCP_GATEWAY__SESSION__MAX", "2"), ("KCP_GATEWAY__SESSION__IDLE_TIMEOUT_S", "12")];
    let flags = [("--max", "session.max", "3")];
    let config = layered(Some(text.as_bytes()), &env, &flags).unwrap();
    assert_eq!(config.session.max, Auto::Exactly(3));
    assert_eq!(config.session.idle_timeout_s, 12);
    assert_eq!(config.session.tombstone_s, 21);
    assert_eq!(config.session.queue_bytes_max, 256 << 10);
}

/// Whatever a key's type, the value shown can be given back through every layer.
#[test]
fn every_key_can_be_set_by_file_and_by_environment() {
    let kcp = Kcp { mtu: 1200, steer: Steer::Address, ..Kcp::of(Profile::Reference) };
    let mut other = Config { kcp, ..Config::default() };
    other.listeners.truncate(1);
    other.session.max = Auto::Exactly(5);
    other.shards.pin = false;
    other.io.driver = IoChoice::Epoll;
    other.io.gso = false;
    other.admin.listen = None;
    other.log.format = LogFormat::Json;
    other.drain.farewell = Farewell(b"hex:no, text".into());
    other.upstream.url = UpstreamUrl::parse("tcp://a:1,[::1]:2").unwrap();
    other.upstream.resolver = Resolver::At(vec!["127.0.0.1:53".parse().unwrap()]);
    other.upstream.discovery_file = Some("/etc/backends.toml".into());
    other.upstream.each.sources = Sources(vec!["127.0.0.2".parse().unwrap()]);
    let mut text = String::new();
    let mut env = Vec::new();
    for Setting { key, value, .. } in other.settings() {
        let (section, name) = key.split_once('.').unwrap();
        let header =
            if section == "listener[0]" { "[[listener]]" } else { &format!("[{section}]") };
        if !text.contains(header) {
            text.push_str(&format!("{header}\n"));
        }
        text.push_str(&format!("{name} = {value}\n"));
        let var = key.replace("listener[0]", "listener.0").replace('.', "__").to_uppercase();
        let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        env.push((format!("KCP_GATEWAY__{var}"), plain));
    }
    assert_eq!(file(&text).unwrap().settings(), other.settings(), "{text}");
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(layered(None, &env, &[]).unwrap().settings(), other.settings());
}

#[test]
fn a_farewell_is_text_or_bytes_and_fits_a_datagram() {
    let farewell =
        |text: &str| file(&format!("[drain]\nfarewell = {text}\n")).unwrap().drain.farewell;
    assert_eq!(farewell("\"to B\"").0, b"to B");
    assert_eq!(farewell("\"hex:00fFa0\"").0, [0, 0xff, 0xa0]);
    assert_eq!(farewell("\"\"").0, b"");
    for wrong in ["\"hex:0\"", "\"hex:+1\"", "\"hex:é\"", "7", &format!("\"{}\"", "a".repeat(513))]
    {
        let error = error(&format!("[drain]\nfarewell = {wrong}\n"));
        assert!(error.contains("write a text of up to 512 bytes, or \"hex:\""), "{error}");
    }
    let error =
        error("[kcp]\nmtu = 60\n[drain]\nfarewell = \"a text that is too long, by one byte.\"\n");
    assert_eq!(
        error,
        "4:12: `drain.farewell` is 37 bytes; write at most 36 bytes, or a larger mtu"
    );
}

#[test]
fn a_listener_has_the_settings_of_kcp_and_its_own() {
    let text = r#"
        [kcp]
        mtu = 1200
        [[listener]]
        addr = "127.0.0.1:1"
        snd_wnd = 64
        [[listener]]
        addr = "127.0.0.1:2"
        profile = "reference"
        interval_ms = 50
    "#;
    let config = file(text).unwrap();
    let of = |i: usize| config.kcp_of(&config.listeners[i]).clone();
    assert_eq!(of(0), Kcp { mtu: 1200, snd_wnd: 64, ..Kcp::of(Profile::Game) });
    // A profile of its own starts over.
    assert_eq!(of(1), Kcp { interval_ms: 50, ..Kcp::of(Profile::Reference) });
}

#[test]
fn listeners_of_the_layers() {
    let text = "[[listener]]\naddr = \"127.0.0.1:1\"\n";
    let addrs =
        |config: Config| -> Vec<u16> { config.listeners.iter().map(|l| l.addr.port()).collect() };
    let env = [
        ("KCP_GATEWAY__LISTENER__1__MTU", "1000"),
        ("KCP_GATEWAY__LISTENER__2__ADDR", "127.0.0.1:3"),
        ("KCP_GATEWAY__LISTENER__1__ADDR", "127.0.0.1:2"),
        ("KCP_GATEWAY__LISTENER__0__MTU", "900"),
    ];
    let config = layered(Some(text.as_bytes()), &env, &[]).unwrap();
    let mtus: Vec<u32> = config.listeners.iter().map(|l| config.kcp_of(l).mtu).collect();
    assert_eq!(mtus, [900, 1000, 1400]);
    assert_eq!(addrs(config), [1, 2, 3]);
    let flags = [("--listen", "listener", "[::1]:7"), ("--listen", "listener", "127.0.0.1:8")];
    assert_eq!(addrs(layered(Some(text.as_bytes()), &env, &flags).unwrap()), [7, 8]);
}

#[test]
fn backends_of_the_layers() {
    let text = r#"
        [upstream]
        stall_ms = 500
        [[upstream.backend]]
        name = "eu"
        url = "tcp://10.0.0.1:7000"
        framing = "u16le"
        weight = 3
        [[upstream.backend]]
        name = "us"
        url = "yamux://game.example:7000"
    "#;
    let config = file(text).unwrap();
    let eu = &config.upstream.backends[0];
    let of = |i: usize| config.upstream.settings_of(&config.upstream.backends[i]).clone();
    let each = BackendSettings { stall_ms: 500, ..BackendSettings::default() };
    assert_eq!((eu.name.as_str(), eu.weight), ("eu", 3));
    assert_eq!(of(0), BackendSettings { framing: Framing::U16Le, ..each.clone() });
    assert_eq!(of(1), each);
    assert_eq!(config.upstream.label(), "eu tcp://10.0.0.1:7000, us yamux://game.example:7000");
    let json = config.to_json();
    assert_eq!(json["upstream"]["backend"][1]["url"], "yamux://game.example:7000");
    assert_eq!(json["upstream"]["backend"][0]["stall_ms"], 500);

    let env = [
        ("KCP_GATEWAY__UPSTREAM__BACKEND__0__WEIGHT", "5"),
        ("KCP_GATEWAY__UPSTREAM__BACKEND__2__URL", "tcp://[::1]:1"),
        ("KCP_GATEWAY__UPSTREAM__BACKEND__2__NAME", "local"),
    ];
    let config = layered(Some(text.as_bytes()), &env, &[]).unwrap();
    let shown: Vec<_> =
        config.upstream.named().iter().map(|b| (b.name.clone(), b.weight)).collect();
    assert_eq!(shown, [("eu".into(), 5), ("us".into(), 1), ("local".into(), 1)]);
    // As --listen does with listeners, the flag replaces the backends of the other layers.
    let flag = [("--upstream", "upstream.url", "tcp://127.0.0.1:9")];
    let config = layered(Some(text.as_bytes()), &env, &flag).unwrap();
    assert_eq!(config.upstream.label(), "tcp://127.0.0.1:9");
    let named = config.upstream.named();
    assert_eq!((named.len(), named[0].name.as_str()), (1, SINGLE));
}

#[test]
fn the_page_shows_a_configuration_that_works() {
    let page = include_str!("../../../README.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let config = file(block).unwrap_or_else(|errors| panic!("{errors}\n{block}"));
        assert!(config.upstream.has_backends());
        assert_eq!(config.upstream.policy, crate::upstream::route::Policy::LeastSessions);
    }
}

#[test]
fn a_file_of_backends_is_held_to_the_same_rules() {
    let dir = tempdir();
    let path = dir.0.join("backends.toml");
    let mut upstream = Upstream::default();
    upstream.each.links = 5;
    let load = |upstream: &Upstream, text: &str| {
        std::fs::write(&path, text).unwrap();
        load_backends(&path, upstream).map_err(|errors| shown(&errors.errors[0]))
    };
    let good = "[[backend]]\nname = \"a\"\nurl = \"tcp://127.0.0.1:1\"\nproxy = false\n";
    let found = load(&upstream, good).unwrap();
    let settings = BackendSettings { proxy: false, ..upstream.each.clone() };
    assert_eq!((found.len(), found[0].settings.as_ref()), (1, Some(&settings)));
    assert_eq!(load(&upstream, "").unwrap(), []);
    assert_eq!(
        load(&upstream, "[[backend]]\nname = \"a\"\n").unwrap_err(),
        format!("1:1: `upstream.backend[0].url` is missing; write {}", value::backend_url_wanted())
    );
    upstream.backends = found;
    assert_eq!(
        load(&upstream, good).unwrap_err(),
        "2:8: `upstream.backend[0].name` is \"a\"; write a name of its own, the configuration has this one"
    );
    assert_eq!(
        load(&upstream, "[session]\nmax = 3\n").unwrap_err(),
        "2:7: unknown key `upstream.session.max`"
    );
}

#[test]
fn wrong_values_say_what_to_write() {
    let cases = [
        ("[kcp]\n  mtu = 10\n", "2:9: `kcp.mtu` is 10; write 50 to 65000 bytes"),
        ("[kcp]\nnc = 1\n", "2:6: `kcp.nc` is 1; write true or false"),
        ("[kcp]\nnodelay = \"1\"\n", "2:11: `kcp.nodelay` is \"1\"; write 0 to 2 (a mode)"),
        (
            "[kcp]\nprofile = \"fast\"\n",
            "2:11: `kcp.profile` is \"fast\"; write \"game\" or \"reference\"",
        ),
        ("[shards]\ncount = -1\n", "2:9: `shards.count` is -1; write \"auto\" or 1 to 256 shards"),
        (
            "[shards]\ncount = 99999999999999999999\n",
            "2:9: `shards.count` is 99999999999999999999; write \"auto\" or 1 to 256 shards",
        ),
        (
            "[session]\nmax = 1.5\n",
            "2:7: `session.max` is a number with a fraction; write \"auto\" or 1 to 16777216 sessions",
        ),
        ("[io]\nwant = [1]\n", "2:8: `io.want` is an array; write 1 to 4096 datagrams"),
        ("[io]\nbuffers = 1000\n", "2:11: `io.buffers` is 1000; write a power of two, like 1024"),
        (
            "[upstream]\nurl = \"tcp://a\"\n",
            "2:7: `upstream.url` is \"tcp://a\"; write \"echo\", \"nats://HOST:PORT\", \"nats+tls://HOST:PORT\", \"tcp://HOST:PORT\", \"yamux://HOST:PORT\", \"yamux+unix:///PATH\", \"tcp+srv://NAME\" or \"yamux+srv://NAME\"; up to 64 places with commas between",
        ),
        (
            "[upstream]\nframing = \"u8\"\n",
            "2:11: `upstream.framing` is \"u8\"; write \"none\", \"u16be\", \"u16le\", \"u32be\" or \"u32le\"",
        ),
        (
            "[upstream]\nresolver = \"10.0.0.2\"\n",
            "2:12: `upstream.resolver` is \"10.0.0.2\"; write \"system\", or up to 8 addresses with ports, like \"10.0.0.2:53,10.0.0.3:53\"",
        ),
        (
            "[[upstream.backend]]\nname = \"a b\"\nurl = \"tcp://a:1\"\n",
            "2:8: `upstream.backend[0].name` is \"a b\"; write a name of 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
        ),
        (
            "[[upstream.backend]]\nname = \"a\"\nurl = \"tcp://a:1\"\n[[upstream.backend]]\nname = \"a\"\nurl = \"tcp://b:1\"\n",
            "5:8: `upstream.backend[1].name` is \"a\"; write a name of its own, upstream.backend[0] has this one",
        ),
        (
            "[[upstream.backend]]\nurl = \"tcp://a:1\"\n",
            "1:1: `upstream.backend[0].name` is missing; write a name of 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
        ),
        (
            "[upstream]\nurl = \"tcp://a:1\"\n[[upstream.backend]]\nname = \"a\"\nurl = \"tcp://a:1\"\n",
            "2:7: `upstream.url` is \"tcp://a:1\"; write this url or [[upstream.backend]] blocks, not both",
        ),
        (
            "[upstream]\nurl = \"nats://a:1\"\ndiscovery_file = \"/b.toml\"\n",
            "3:18: `upstream.discovery_file` is \"/b.toml\"; write off: messages go to nats://a:1",
        ),
        (
            "[upstream]\nbackend = 3\n",
            "2:11: `upstream.backend` is not an array of tables; write [[upstream.backend]] above the keys of each backend",
        ),
        (
            "[admin]\nlisten = \"localhost:9600\"\n",
            "2:10: `admin.listen` is \"localhost:9600\"; write an address and a port, like \"127.0.0.1:9600\", or \"off\"",
        ),
        (
            "[[listener]]\nmtu = 1200\n",
            "1:1: `listener[0].addr` is missing; write an address and a port, like \"0.0.0.0:4000\" or \"[::]:4000\"",
        ),
        (
            "[[listener]]\naddr = \"0.0.0.0:1\"\n[[listener]]\naddr = \"0.0.0.0:1\"\n",
            "4:8: `listener[1].addr` is 0.0.0.0:1; write an address of its own, listener[0] has this one",
        ),
        (
            "[kcp]\nmtu = 1400\n[io]\ndatagram_max = 1000\n",
            "2:7: `kcp.mtu` is 1400; write at most io.datagram_max, which is 1000",
        ),
        (
            "listener = 3\n",
            "1:12: `listener` is not an array of tables; write [[listener]] above the keys of each listener",
        ),
        (
            "[listener]\naddr = \"0.0.0.0:1\"\n",
            "2:8: `listener` is not an array of tables; write [[listener]] above the keys of each listener",
        ),
        ("io = 3\n", "1:6: `io` is 3; write a table, opened by [io]"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn unknown_keys_get_a_suggestion() {
    let cases = [
        (
            "[session]\nidle_timeout = 1\n",
            "unknown key `session.idle_timeout`; did you mean `session.idle_timeout_s`?",
        ),
        ("[sesion]\nmax = 1\n", "unknown key `sesion.max`; did you mean `session.max`?"),
        ("rcv_wnd = 1\n", "unknown key `rcv_wnd`; did you mean `kcp.rcv_wnd`?"),
        ("[io]\nsnd_wnd = 1\n", "unknown key `io.snd_wnd`; did you mean `kcp.snd_wnd`?"),
        (
            "[[listener]]\naddr = \"0.0.0.0:1\"\nmtv = 1\n",
            "unknown key `listener[0].mtv`; did you mean `listener[0].mtu`?",
        ),
        // Not `probe.address`, which has the very name in another section.
        (
            "[[listener]]\naddr = \"0.0.0.0:1\"\naddress = 1\n",
            "unknown key `listener[0].address`; did you mean `listener[0].addr`?",
        ),
        ("[weather]\nsunny = true\n", "unknown key `weather.sunny`"),
        ("\"io.driver\" = \"epoll\"\n", "unknown key `\"io.driver\"`; did you mean `io.driver`?"),
        ("[nothing]\n", "unknown key `nothing`"),
    ];
    for (text, expected) in cases {
        assert!(error(text).ends_with(expected), "{text}{}", error(text));
    }
    file("[session]\n[io]\n").unwrap();
}

#[test]
fn what_is_no_toml_is_placed() {
    assert!(error("[kcp]\nmtu = = 3\n").starts_with("2:"), "{}", error("[kcp]\nmtu = = 3\n"));
    assert!(error("[kcp]\nmtu = 1\nmtu = 2\n").starts_with("3:1: not TOML"));
    let latin1 = layered(Some(b"[kcp]\n# \xe9t\xe9\n"), &[], &[]).unwrap_err();
    assert_eq!(shown(&latin1.errors[0]), "2:3: not TOML: not UTF-8 from here on");
    // Columns are characters, not bytes.
    let columns = file("\"é\" = 1\n[kcp]\n").unwrap_err();
    assert!(shown(&columns.errors[0]).starts_with("1:7: "), "{columns}");
}

#[test]
fn unreadable_files_say_why() {
    let load = |path: &Path| {
        let source = Source { file: Some(path.into()), ..Source::default() };
        source.load().unwrap_err().to_string()
    };
    let dir = tempdir();
    let missing = dir.0.join("none.toml");
    let text = load(&missing);
    assert!(text.contains("none.toml:1:1: cannot read the file: No such file"), "{text}");
    assert!(load(&dir.0).contains("cannot read the file: Is a directory"), "{}", load(&dir.0));
    assert!(load(Path::new("/dev/zero")).contains("longer than 1048576 bytes"));
}

#[test]
fn environment_and_flags_are_named() {
    let errors = layered(
        None,
        &[
            ("KCP_GATEWAY__KCP__MTU", "big"),
            ("KCP_GATEWAY__LISTENER__1__ADDR", "0.0.0.0:1"),
            ("KCP_GATEWAY__SESION__MAX", "1"),
        ],
        &[("--shards", "shards.count", "many")],
    )
    .unwrap_err();
    let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "KCP_GATEWAY__LISTENER__1__ADDR: `listener` is addressed as `1.addr`; write KCP_GATEWAY__LISTENER__<n>__<KEY> with n from 0 to 0",
            "KCP_GATEWAY__KCP__MTU: `kcp.mtu` is \"big\"; write 50 to 65000 bytes",
            "--shards: `shards.count` is \"many\"; write \"auto\" or 1 to 256 shards",
            "KCP_GATEWAY__SESION__MAX: unknown key `sesion.max`; did you mean `session.max`?",
        ]
    );
}

#[test]
fn everything_wrong_is_reported_up_to_a_bound() {
    let text: String = (0..1000).map(|i| format!("x{i} = 1\n")).collect();
    let errors = file(&text).unwrap_err();
    assert_eq!((errors.errors.len(), errors.more), (20, 980));
    assert!(errors.to_string().ends_with("\nand 980 more"));
}

#[test]
fn a_built_configuration_is_held_to_the_same_rules() {
    let config = Config { listeners: vec![], ..Config::default() };
    let text = config.check().unwrap_err().to_string();
    assert_eq!(text, "configuration: `listener` is given 0 times; write 1 to 64 of them");
    let mut config = Config::default();
    config.io.buffers = 40_000;
    config.listeners[0].kcp = Some(Kcp { mtu: 9000, ..Kcp::of(Profile::Game) });
    let text = config.check().unwrap_err().to_string();
    assert!(text.contains("`io.buffers` is 40000; write 16 to 32768 buffers"), "{text}");
    assert!(text.contains("`listener[0].mtu` is 9000; write at most io.datagram_max"), "{text}");
}

#[test]
fn the_effective_configuration_nests() {
    let config = file("[[listener]]\naddr = \"127.0.0.1:1\"\n[session]\nmax = 9\n").unwrap();
    let json = config.to_json();
    assert_eq!(json["session"]["max"], 9);
    assert_eq!(json["listener"][0]["addr"], "127.0.0.1:1");
    assert_eq!(json["listener"][0]["mtu"], 1400);
    assert_eq!(json["shards"]["count"], "auto");
    assert_eq!(json["admin"]["listen"], "127.0.0.1:9600");
}

/// A file that is nearly good: every key once, for the mutations below.
fn specimen() -> String {
    let mut text = String::from("[[listener]]\naddr = \"127.0.0.1:1\"\n");
    let mut section = String::new();
    for Setting { key, value, .. } in Config::default().settings() {
        let Some((head, name)) = key.split_once('.').filter(|(head, _)| !head.contains('[')) else {
            continue;
        };
        if head != section {
            text.push_str(&format!("[{head}]\n"));
            section = head.into();
        }
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = super::layers::Layers::of_file(Path::new("f"), &bytes, "").map(|l| check::build(l, vec![]));
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}\"'=.,#a-z_0-9é \\n-]{0,300}") {
        let _ = super::layers::Layers::of_file(Path::new("f"), text.as_bytes(), "")
            .map(|l| check::build(l, vec![]));
    }

    /// A good file with a piece replaced loads or is refused with a place in it.
    #[test]
    fn no_mutation_panics(at in any::<prop::sample::Index>(), len in 0..20_usize, with in "[\\[\\]\"=a-z0-9. \\n-]{0,12}") {
        let specimen = specimen();
        let start = at.index(specimen.len());
        let end = (start + len).min(specimen.len());
        let text = format!("{}{with}{}", &specimen[..start], &specimen[end..]);
        let loaded = super::layers::Layers::of_file(Path::new("f"), text.as_bytes(), "")
            .and_then(|l| check::build(l, vec![]));
        let lines = text.lines().count() + 1;
        for error in loaded.err().into_iter().flat_map(|e| e.errors) {
            prop_assert!(!error.to_string().contains('\n'), "{error}");
            match error.place {
                Place::File { line, .. } => prop_assert!((1..=lines).contains(&line)),
                // A default that no longer agrees with what was written.
                Place::Unwritten => {}
                Place::Env(_) | Place::Flag(_) => prop_assert!(false, "{error}"),
            }
        }
    }
}

#[test]
fn the_specimen_is_good() {
    file(&specimen()).unwrap();
}
