//! A client library that we did not write, left alone: the gateway asks it whether it is there, and its application must not
//! notice; it restarts, and gets a fresh session; it vanishes, and its session goes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kcp_gateway::shard::stats::{DropReason, EndReason, Histogram, Stat};
use kcp_gateway::{Config, Gateway};
use net_io::IoChoice;

use crate::live;

/// What the application on a library is told to do. Between orders its library lives on, and a message that nobody asked for
/// is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Send one message and get it back.
    Echo,
    /// Forget the session without a word, begin another with the same conversation from the same port, and echo one message.
    Restart,
}

/// An application with its library; dropped, it vanishes without a word.
pub(crate) trait Application {
    /// Does as it is told; returns when it is done, panics when that fails.
    fn obey(&mut self, order: Order);
}

/// Plays one application's life on both drivers, side by side.
pub(crate) fn play<A: Application>(start: impl Fn(SocketAddr) -> A + Sync) {
    std::thread::scope(|scope| {
        for io in live::DRIVERS {
            let start = &start;
            scope.spawn(move || life(io, start));
        }
    });
}

fn life<A: Application>(io: IoChoice, start: impl Fn(SocketAddr) -> A) {
    let mut config = Config::default();
    config.session.keepalive_s = 1;
    let gateway = live::start(config, io);
    let mut application = start(gateway.listen_addrs()[0]);

    application.obey(Order::Echo);
    until(&gateway, "it answered, again and again", |gateway| answers(gateway) >= QUESTIONS);
    application.obey(Order::Echo);
    assert_eq!(gateway.stats().get(Stat::Births), 1, "one session, all the time");
    assert_eq!(gateway.stats().get(Stat::Sessions), 1);

    // What the old session still has under way cannot be told from the new one's: let its last acknowledgement leave.
    let before = answers(&gateway);
    until(&gateway, "nothing is under way", |gateway| answers(gateway) > before);
    application.obey(Order::Restart);
    assert_eq!(gateway.stats().get(Stat::Births), 2, "a fresh session for a fresh start");
    assert_eq!(gateway.stats().ends(EndReason::Restart), 1);
    let before = answers(&gateway);
    until(&gateway, "the fresh one answers", |gateway| answers(gateway) > before);
    application.obey(Order::Echo);

    drop(application);
    until(&gateway, "it is missed", |gateway| {
        gateway.stats().ends(EndReason::Keepalive) == 1 && gateway.stats().get(Stat::Sessions) == 0
    });
    for &reason in DropReason::ALL {
        // The first words of the fresh start, until the old session's end is certain; and what is held back meanwhile.
        if !matches!(reason, DropReason::StaleStart | DropReason::Amplification) {
            assert_eq!(gateway.stats().drops(reason), 0, "{reason:?}");
        }
    }
    assert!(gateway.failure().is_none(), "a shard died: {:?}", gateway.failure());
}

fn answers(gateway: &Gateway) -> u64 {
    let shards = gateway.stats().shards;
    shards.iter().flat_map(|shard| shard.histogram(Histogram::ChallengeRtt).counts).sum()
}

#[expect(clippy::disallowed_methods, reason = "patience is measured by the real clock")]
fn until(gateway: &Gateway, what: &str, condition: impl Fn(&Gateway) -> bool) {
    let began = Instant::now();
    while !condition(gateway) {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// More than the gateway asks before it gives a silent client up.
const QUESTIONS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
