//! What gets through: a committed table, so that a change in behaviour is a change in a file.

use std::fmt::Write;
use std::path::Path;

use kcp_core::{FlushPolicy, KcpConfig, Millis, Sn};
use netem::LinkConfig;

use crate::world::{End, Scenario, World};

#[test]
fn goodput_is_as_committed() {
    let table = table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/goodput.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &table).expect("the snapshot can be written");
        return;
    }
    let committed = std::fs::read_to_string(&path).expect("the snapshot can be read");
    assert!(
        committed == table,
        "goodput changed. Committed:\n{committed}\nNow:\n{table}\nIf that is meant: \
         UPDATE_SNAPSHOTS=1 cargo test -p kcp-core --test sim goodput"
    );
}

fn table() -> String {
    let mut table = String::from(HEAD);
    for (name, config) in profiles() {
        for loss_percent in [0, 1, 5, 10, 20] {
            write!(table, "{name:<14} {loss_percent:>4} %").expect("a string takes all");
            for window in [32, 128, 512] {
                let config =
                    KcpConfig { snd_wnd: window, rcv_wnd: window.max(128), ..config.clone() };
                let bytes_per_s = goodput(&config, loss_percent * 10_000);
                let (whole, tenths) = (bytes_per_s / 1_000, bytes_per_s / 100 % 10);
                write!(table, " {whole:>7}.{tenths}").expect("a string takes all");
            }
            table.push('\n');
        }
    }
    table
}

fn profiles() -> [(&'static str, KcpConfig); 4] {
    let game = KcpConfig::game();
    [
        ("game", game.clone()),
        ("game, interval", KcpConfig { flush: FlushPolicy::Interval, ..game.clone() }),
        ("game, cwnd", KcpConfig { nocwnd: false, ..game }),
        ("reference", KcpConfig::default()),
    ]
}

/// Bytes per second of one direction, as fast as the window allows, for 20 s.
fn goodput(config: &KcpConfig, loss_ppm: u32) -> u64 {
    let end = |messages| End {
        config: config.clone(),
        store_bytes: 64 << 20,
        messages,
        message_max: 4_000,
        write_pause_us: 0,
        read_pause_us: 0,
    };
    let link = LinkConfig { loss_ppm, delay_us: 25_000, jitter_us: 2_000, ..LinkConfig::default() };
    let mut world = World::new(&Scenario {
        seed: 1,
        start: Millis(0),
        first_sn: [Sn(0); 2],
        ends: [end(u32::MAX), end(0)],
        links: [link.clone(), link],
    });
    world.run_until(SECONDS * 1_000_000);
    world.under_way[0].received_bytes / SECONDS
}

const SECONDS: u64 = 20;

const HEAD: &str = "\
Goodput in kB/s of one direction over 20 s, by profile, loss in each direction, and send window.
25 ms one-way delay, up to 2 ms jitter, no rate limit, messages of up to 4,000 bytes, seed 1.

profile        loss      wnd 32   wnd 128   wnd 512
";
