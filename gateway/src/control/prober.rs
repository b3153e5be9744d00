//! The gateway as its own client: at an interval it begins a session with every shard through every listener, over the loopback
//! and the same sockets that players use, so that "all green and nobody can connect" cannot last.
//!
//! A probe is the first fragment of a message whose second never comes, so it goes through steering, admission, session, protocol
//! and sending, and no message of it ever reaches an upstream: backends have checks of their own. A shard knows the prober by its
//! address, which nobody else can have, counts its sessions apart from the players', and forgets them as soon as it has answered.
//! Otherwise a probe is treated as any client is: a gateway that is full refuses it, and that is a failure.

mod round;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kcp_core::Conv;
use net_io::clock;
use net_io::steer::Steering;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::plane::{BoundListener, Plane, unix_now_s};
use super::question::Question;
use super::sessions::ask;
use crate::config::Probe;
use crate::session::{Key, Peer};
use crate::supervisor::life::Lifecycle;
use round::Round;

/// What probes came to, by listener. Empty until the first.
#[derive(Debug, Default)]
pub(crate) struct Probes(Mutex<Vec<ProbeResult>>);

/// What the probes of one listener came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeResult {
    /// The listener's address.
    pub listener: SocketAddr,
    /// Rounds in which every shard answered.
    pub succeeded: u64,
    /// Rounds in which one did not.
    pub failed: u64,
    /// How long the slowest shard took in the last round that succeeded, in microseconds.
    pub latency_us: Option<u64>,
    /// When that was, in seconds since 1970.
    pub last_success_unix_s: Option<f64>,
    /// Why the last round failed; `None` when it succeeded.
    pub error: Option<String>,
}

impl Probes {
    fn results(&self) -> MutexGuard<'_, Vec<ProbeResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> Vec<ProbeResult> {
        self.results().clone()
    }

    /// Records a round: the slowest answer in microseconds, or why there was none.
    fn record(&self, listener: SocketAddr, outcome: Result<u64, String>) {
        let mut results = self.results();
        let place = results.iter().position(|result| result.listener == listener);
        let place = place.unwrap_or_else(|| {
            results.push(ProbeResult::new(listener));
            results.len() - 1
        });
        let result = &mut results[place];
        match outcome {
            Ok(latency_us) => {
                if result.error.take().is_some() {
                    tracing::info!(%listener, latency_us, "the probe succeeds again");
                }
                result.succeeded += 1;
                result.latency_us = Some(latency_us);
                result.last_success_unix_s = Some(unix_now_s());
            }
            Err(error) => {
                if result.error.as_ref() != Some(&error) {
                    tracing::warn!(%listener, %error, "the probe fails: players may not get in");
                }
                result.failed += 1;
                result.error = Some(error);
            }
        }
    }
}

impl ProbeResult {
    const fn new(listener: SocketAddr) -> Self {
        Self {
            listener,
            succeeded: 0,
            failed: 0,
            latency_us: None,
            last_success_unix_s: None,
            error: None,
        }
    }

    /// One line for a person.
    pub(crate) fn line(&self) -> String {
        match (&self.error, self.latency_us) {
            (Some(error), _) => format!("probe of {} fails: {error}", self.listener),
            (None, Some(us)) => format!("probe of {}: answered in {us} us", self.listener),
            (None, None) => format!("probe of {}: not yet", self.listener),
        }
    }
}

/// Probes until the process ends. Rests while the gateway starts, drains or stops, and while the interval is 0.
pub(crate) async fn run(plane: Arc<Plane>) {
    let mut doors: Vec<Door> = plane.listeners.iter().map(Door::new).collect();
    let mut address = None;
    loop {
        let probe = plane.current().config.probe.clone();
        if address != probe.address {
            address = probe.address;
            doors.iter_mut().for_each(|door| door.socket = None);
        }
        if probe.interval_s == 0 || plane.life.lifecycle() != Lifecycle::Serve {
            sleep(LOOK_AGAIN).await;
            continue;
        }
        if let Err(error) = open(&plane, &mut doors, &probe).await {
            tracing::debug!(%error, "the shards do not know the prober yet");
            sleep(LOOK_AGAIN).await;
            continue;
        }
        for door in &mut doors {
            let outcome = door.probe(&plane, &probe).await;
            if plane.life.lifecycle() == Lifecycle::Serve {
                plane.probes.record(door.listener, outcome);
            }
        }
        sleep(Duration::from_secs(probe.interval_s.into())).await;
    }
}

/// Opens the doors that are closed and tells the shards who knocks.
async fn open(plane: &Plane, doors: &mut [Door], probe: &Probe) -> Result<(), String> {
    let mut changed = false;
    for door in doors.iter_mut().filter(|door| door.socket.is_none()) {
        // A door that cannot be opened fails its probe, with the reason.
        changed |= door.open(probe).await.is_ok();
    }
    if !changed {
        return Ok(());
    }
    let from = |door: &Door| Some(Peer::from(door.socket.as_ref()?.local_addr().ok()?));
    let probers: Vec<Peer> = doors.iter().filter_map(from).collect();
    for shard in 0..plane.shards().len() {
        let question = Question::Probers(probers.clone());
        if let Err(error) = ask(plane, shard, question).await {
            doors.iter_mut().for_each(|door| door.socket = None);
            return Err(error.to_string());
        }
    }
    Ok(())
}

/// The prober's way to one listener.
struct Door {
    listener: SocketAddr,
    steering: Option<Steering>,
    socket: Option<UdpSocket>,
}

impl Door {
    fn new(listener: &BoundListener) -> Self {
        Self { listener: listener.addr, steering: listener.steering, socket: None }
    }

    async fn open(&mut self, probe: &Probe) -> io::Result<()> {
        let target = target(self.listener, probe.address);
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(target).await?;
        self.socket = Some(socket);
        Ok(())
    }

    /// One round: a session with every shard. Returns how long the slowest took, in microseconds.
    async fn probe(&mut self, plane: &Plane, probe: &Probe) -> Result<u64, String> {
        let Some(socket) = &self.socket else {
            return Err(format!("no way to {}", target(self.listener, probe.address)));
        };
        let shards = u32::try_from(plane.shards().len()).unwrap_or(u32::MAX);
        let convs = convs(self.steering, shards)?;
        let mut round = Round::new(&convs, clock::monotonic());
        let within = Duration::from_millis(probe.timeout_ms.into());
        let ended = timeout(within, converse(&mut round, socket)).await;
        if let Ok(peer) = socket.local_addr() {
            release(plane, Peer::from(peer), &convs).await;
        }
        let error = match ended {
            Ok(Ok(())) => return Ok(round.slowest_us()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                let silent = convs.iter().zip(round.answered()).filter(|(_, came)| !came);
                let silent: Vec<String> = silent
                    .map(|((_, shard), _)| shard.map_or("any".into(), |n: u32| n.to_string()))
                    .collect();
                format!("no answer of shard {} within {within:?}", silent.join(", "))
            }
        };
        self.socket = None; // the next round tries from another port
        Err(error)
    }
}

/// Where a listener is reached from this host.
fn target(listener: SocketAddr, address: Option<IpAddr>) -> SocketAddr {
    let loopback: IpAddr = match listener {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let chosen = address.filter(|address| address.is_ipv4() == listener.is_ipv4());
    match listener.ip().is_unspecified() {
        true => SocketAddr::new(chosen.unwrap_or(loopback), listener.port()),
        false => listener,
    }
}

/// A conversation for every shard; one for all where the kernel decides by address.
fn convs(steering: Option<Steering>, shards: u32) -> Result<Vec<(Conv, Option<u32>)>, String> {
    let random = || getrandom::u32().map_err(|error| error.to_string());
    let Some(steering) = steering else { return Ok(vec![(Conv(random()?), None)]) };
    let start = random()?;
    let conv_of = |shard| {
        let mut tries = (0..TRIES_PER_SHARD * shards).map(|n| start.wrapping_add(n));
        let conv = tries.find(|&conv| steering.shard(conv) == shard);
        conv.map(|conv| (Conv(conv), Some(shard)))
    };
    // A hash that never yields some shard in a thousand tries would be no hash.
    Ok((0..shards).filter_map(conv_of).collect())
}

/// Sends and receives until every conversation is answered.
async fn converse(round: &mut Round, socket: &UdpSocket) -> io::Result<()> {
    let mut datagram = [0; DATAGRAM_MAX];
    loop {
        while let Some(out) = round.transmit(clock::monotonic()) {
            socket.send(out).await?;
        }
        if round.is_over() {
            return Ok(());
        }
        let wait = Duration::from_millis(round.wait_ms(clock::monotonic()).into());
        // Nothing in time means that something is to be sent again.
        if let Ok(received) = timeout(wait, socket.recv(&mut datagram)).await {
            let len = received?;
            round.on_datagram(clock::monotonic(), &datagram[..len]);
        }
    }
}

/// Lets the shards forget the sessions of a round.
async fn release(plane: &Plane, peer: Peer, convs: &[(Conv, Option<u32>)]) {
    for &(conv, owner) in convs {
        let shards = plane.shards().len();
        let owners = owner.map_or(0..shards, |shard| shard as usize..shard as usize + 1);
        for shard in owners {
            // One that does not answer forgets it by itself, when it is idle for too long.
            let _ = ask(plane, shard, Question::Forget(Key { peer, conv })).await;
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(250);
const TRIES_PER_SHARD: u32 = 1000;
const DATAGRAM_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_over_loopback_unless_told_otherwise() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let own: IpAddr = "192.0.2.7".parse().unwrap();
        for (listener, address, expected) in [
            ("0.0.0.0:4000", None, "127.0.0.1:4000"),
            ("[::]:4000", None, "[::1]:4000"),
            ("192.0.2.1:4000", Some(own), "192.0.2.1:4000"),
            ("0.0.0.0:4000", Some(own), "192.0.2.7:4000"),
            ("[::]:4000", Some(own), "[::1]:4000"),
        ] {
            assert_eq!(target(addr(listener), address), addr(expected), "{listener} {address:?}");
        }
    }

    #[test]
    fn every_shard_gets_a_conversation() {
        for shards in [1, 2, 7, 256] {
            let steering = Steering::new(0x1234_5677, shards);
            let convs = convs(Some(steering), shards).unwrap();
            assert_eq!(convs.len(), shards as usize);
            for (n, (conv, shard)) in (0..).zip(convs) {
                assert_eq!((shard, steering.shard(conv.0)), (Some(n), n));
            }
        }
        assert_eq!(convs(None, 7).unwrap().len(), 1);
    }

    #[test]
    fn results_are_kept_by_listener() {
        let probes = Probes::default();
        let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        probes.record(a, Ok(400));
        probes.record(b, Err("no answer".into()));
        probes.record(a, Err("no answer".into()));
        let results = probes.read();
        assert_eq!((results[0].succeeded, results[0].failed), (1, 1));
        assert_eq!(results[0].latency_us, Some(400), "of the last that succeeded");
        assert!(results[0].last_success_unix_s.is_some_and(|at| at > 1e9));
        assert_eq!((results[1].succeeded, results[1].last_success_unix_s), (0, None));
        assert_eq!(results[1].line(), "probe of 127.0.0.1:2 fails: no answer");
        probes.record(b, Ok(7));
        assert_eq!(probes.read()[1].line(), "probe of 127.0.0.1:2: answered in 7 us");
    }
}
