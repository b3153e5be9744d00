use kcp_core::FlushPolicy;
use net_io::IoChoice;
use netem::LinkConfig;

use super::*;
use crate::convs::ConvChoice;
use crate::impair::Impair;
use crate::scenario::{Load, Protocol, Scenario, Storm, profile_game};

fn scenario(flags: &str) -> Result<Scenario, String> {
    let line = format!("kcp-loadgen run --target 127.0.0.1:4000 {flags}");
    let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
    let Command::Run(args) = cli.command else { panic!("not run") };
    args.scenario().map_err(|error| error.to_string())
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn the_default_is_a_closed_loop_from_the_hosts_own_address() {
    let made = scenario("--sessions 1000").unwrap();
    assert_eq!(made.traffic.load, Load::Closed { outstanding: 1 });
    assert_eq!(made.clients.sources, Sources::single("127.0.0.1".parse().unwrap()));
    assert_eq!((made.clients.sockets, made.phases.ramp), (64, Duration::from_millis(100)));
    assert!(!made.engine.driver.gso && made.engine.driver.gro);
    let Protocol::Kcp(config) = made.protocol else { panic!("not KCP") };
    assert_eq!(config, profile_game());
}

#[test]
fn flags_reach_the_scenario() {
    let made = scenario(
        "--sessions 20 --rate 2.5 --size 100 --duration 3s --warmup 0s --ramp 2s --hold 1m --drain 7ms --sockets 4 \
         --sources 127.0.0.2+3 --conv-base 7 --seed 5 --threads 2 --io epoll --store-bytes 1000 --min-wait-us 9 \
         --profile reference --nodelay 2 --interval 20 --resend 3 --nc 1 --window 64,512 --mtu 600 --flush turn \
         --check p99<1s --check lost=0 --storm 7@500ms --storm-after 1s --bystanders 5 --bystander-rate 10",
    )
    .unwrap();
    assert_eq!(made.traffic.load, Load::Open { period: Duration::from_millis(400) });
    assert_eq!(made.phases.ramp, Duration::from_secs(2));
    assert_eq!(made.phases.hold, Duration::from_secs(60));
    assert_eq!(made.phases.drain, Duration::from_millis(7));
    assert_eq!((made.clients.sockets, made.clients.sources.addrs().len()), (4, 3));
    assert_eq!((made.clients.convs, made.seed), (ConvChoice::Base(7), 5));
    assert_eq!((made.engine.threads, made.engine.io), (2, IoChoice::Epoll));
    assert_eq!((made.engine.store_bytes, made.engine.driver.min_wait_us), (1000, 9));
    assert_eq!(made.checks.len(), 2);
    let (within, after) = (Duration::from_millis(500), Duration::from_secs(1));
    assert_eq!(made.storm, Some(Storm { vanish: 7, arrive: 7, within, after }));
    assert_eq!(made.clients.bystanders, 5);
    let period = Duration::from_millis(100);
    assert_eq!(made.traffic.bystanders, Some(Load::Open { period }));
    let Protocol::Kcp(config) = made.protocol else { panic!("not KCP") };
    assert_eq!((config.nodelay, config.interval, config.fastresend), (2, 20, 3));
    assert_eq!((config.nocwnd, config.mtu), (true, 600));
    assert_eq!((config.snd_wnd, config.rcv_wnd, config.flush), (64, 512, FlushPolicy::Turn));
}

#[test]
fn raw_has_the_size_that_kcp_would_have() {
    let datagram = |flags: &str| match scenario(flags).unwrap().protocol {
        Protocol::Raw { datagram } => datagram,
        Protocol::Kcp(_) => panic!("not raw"),
    };
    assert_eq!(datagram("--raw"), 112);
    assert_eq!(datagram("--raw --size 1024"), 1072);
    assert_eq!(datagram("--raw=88"), 88);
}

#[test]
fn an_avalanche_spares_only_the_bystanders() {
    let made = scenario("--sessions 1000 --bystanders 10 --avalanche --duration 30s").unwrap();
    let (within, after) = (Duration::ZERO, Duration::from_secs(15));
    assert_eq!(made.storm, Some(Storm { vanish: 990, arrive: 0, within, after }));
    assert_eq!(made.traffic.bystanders, None);
}

#[test]
fn idle_is_rate_zero() {
    assert_eq!(scenario("--rate 0").unwrap().traffic.load, Load::Idle);
}

#[test]
fn cores_and_ranges() {
    assert_eq!("1".parse::<Cores>().unwrap(), Cores(vec![1]));
    assert_eq!("2,4-6".parse::<Cores>().unwrap(), Cores(vec![2, 4, 5, 6]));
}

#[test]
fn refusals_name_the_flag_the_value_and_the_fix() {
    for (flags, parts) in [
        ("--rate -1", ["'-1'", "unexpected"]),
        ("--rate=-1", ["--rate", "0 = idle"]),
        ("--rate 1 --outstanding 2", ["--rate", "--outstanding"]),
        ("--ramp fast", ["fast", "20000/s"]),
        ("--storm 5", ["'5'", "100000@2s"]),
        ("--storm 5@2s --avalanche", ["--storm", "--avalanche"]),
        ("--storm 200@2s", ["--storm 200", "100 sessions"]),
        ("--storm 5@20s", ["--storm-after 5s", "--duration 10s"]),
        ("--bystanders 101", ["--bystanders 101", "--sessions 100"]),
        ("--ramp 0/s", ["0/s", "20000/s"]),
        ("--pin 3-1", ["3-1", "4-7"]),
        ("--pin 60000", ["--pin 60000", "nproc"]),
        ("--window 5", ["--window", "256,256"]),
        ("--window 5,5", ["--window 5,5", "128 to 65,535"]),
        ("--size 0", ["--size 0", "1 to"]),
        ("--mtu 49", ["--mtu 49", "50 to 1500"]),
        ("--sockets 101", ["--sockets 101", "one per session (100)"]),
        ("--check p99", ["--check", "p99<50ms"]),
        ("--sources ::1", ["--sources ::1", "family of the target"]),
        ("--duration 5", ["--duration", "5"]),
        ("--conv-base 1 --conv-random", ["--conv-base", "--conv-random"]),
    ] {
        let error = scenario(flags).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{flags}: {error}");
    }
    let bad = Cli::try_parse_from(["kcp-loadgen", "run", "--target", "127.0.0.1"]).unwrap();
    let Command::Run(args) = bad.command else { panic!("not run") };
    let error = args.scenario().unwrap_err().to_string();
    assert!(error.contains("--target 127.0.0.1") && error.contains("HOST:PORT"), "{error}");
}

fn impair(flags: &str) -> Result<Impair, String> {
    let line = format!("kcp-loadgen impair --target 127.0.0.1:4000 {flags}");
    let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
    let Command::Impair(args) = cli.command else { panic!("not impair") };
    args.impair().map_err(|error| error.to_string())
}

#[test]
fn impair_reaches_the_link() {
    let made = impair(
        "--listen 127.0.0.1:0 --loss 5% --delay 40ms --jitter 10ms --reorder 2% --duplicate 1% --corrupt 0.01% --rate 10mbit \
         --seed 3 --clients 9",
    )
    .unwrap();
    let wanted = LinkConfig {
        loss_ppm: 50_000,
        delay_us: 40_000,
        jitter_us: 10_000,
        reorder_ppm: 20_000,
        reorder_us: 10_000,
        duplicate_ppm: 10_000,
        corrupt_ppm: 100,
        rate_bits_per_s: 10_000_000,
        ..LinkConfig::default()
    };
    assert_eq!(made.link, wanted);
    assert_eq!((made.seed, made.clients_max), (3, 9));
    for (flags, part) in [
        ("--listen 127.0.0.1:0 --loss 5", "0.1%"),
        ("--listen 127.0.0.1:0 --loss 101%", "101%"),
        ("--listen 127.0.0.1:0 --rate 10", "10mbit"),
        ("--listen 127.0.0.1:0 --rate 0kbit", "0kbit"),
        ("--listen 4000", "--listen 4000"),
    ] {
        let error = impair(flags).unwrap_err();
        assert!(error.contains(part), "{flags}: {error}");
    }
}

#[test]
fn the_demo_has_ten_thousand_sessions() {
    let cli = Cli::try_parse_from(["kcp-loadgen", "demo"]).unwrap();
    let Command::Demo(args) = cli.command else { panic!("not demo") };
    let demo = args.demo();
    assert_eq!(demo.sessions, 10_000);
    assert_eq!(demo.load, Load::Open { period: Duration::from_millis(500) });
}

fn serve(flags: &str) -> Result<crate::serve::Serve, String> {
    let line = format!("kcp-loadgen serve {flags}");
    let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
    let Command::Serve(args) = cli.command else { panic!("not serve") };
    args.serve().map_err(|error| error.to_string())
}

#[test]
fn flags_reach_the_backend() {
    use crate::serve::{Behaviour, Cut, Ending, Framing, Kind, Listen, Misdeed};
    let plain = serve("").unwrap();
    assert_eq!((plain.kind, plain.behaviour), (Kind::Tcp, Behaviour::Echo));
    assert_eq!(plain.listen, [Listen::Inet("127.0.0.1:7000".parse().unwrap())]);
    assert!(plain.dialect.proxy && plain.dialect.framing == Framing::U32Be);
    let crash = serve(
        "--kind yamux --behaviour crash --listen [::1]:0 --listen unix:/a --framing u16le --proxy none --seed 3 \
         --after 5 --after-time 2s --chance 0.5% --cut link --ending reset --threads 3 --socket-buffer 4096",
    )
    .unwrap();
    assert_eq!((crash.kind, crash.threads, crash.seed), (Kind::Yamux, 3, 3));
    assert_eq!(crash.listen[1], Listen::Unix("/a".into()));
    assert_eq!((crash.dialect.proxy, crash.dialect.framing), (false, Framing::U16Le));
    let Behaviour::Crash(it) = crash.behaviour else { panic!("{:?}", crash.behaviour) };
    assert_eq!((it.after_messages, it.chance_ppm), (Some(5), 5_000));
    assert_eq!((it.cut, it.ending), (Cut::Link, Ending::Reset));
    let swell = serve("--behaviour swell --times 86").unwrap();
    assert_eq!(swell.behaviour, Behaviour::Swell(86));
    let garbage = serve("--kind yamux --behaviour garbage --garbage link-stall").unwrap();
    let Behaviour::Garbage(it) = garbage.behaviour else { panic!("{:?}", garbage.behaviour) };
    assert_eq!((it.misdeed, it.after), (Misdeed::LinkStall, 1));
}

#[test]
fn flags_that_make_no_backend_are_named() {
    for (flags, part) in [
        ("--listen nowhere", "--listen nowhere"),
        ("--listen unix:", "write a path"),
        ("--behaviour crash", "--after"),
        ("--behaviour garbage --garbage link-noise", "--kind yamux"),
        ("--behaviour garbage --framing none", "without framing"),
        ("--kind nats --behaviour slow", "--behaviour slow"),
        ("--kind nats --behaviour garbage", "noise"),
        ("--kind nats --behaviour crash --after 1 --cut link", "--cut link"),
        ("--kind nats --behaviour swell", "--behaviour swell"),
        ("--behaviour swell --framing u16be --times 2", "--times"),
        ("--room-size 0", "--room-size"),
        ("--bytes-per-s 0", "--bytes-per-s"),
    ] {
        let error = serve(flags).unwrap_err();
        assert!(error.contains(part), "{flags}: {error}");
    }
}
