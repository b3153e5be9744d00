//! Every metric: its name, help, type and labels, and where its value comes from. Shards count plain numbers; this reads
//! what they published when somebody scrapes, at a cost that does not depend on the number of sessions.

mod backends;
mod nats;

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{
    self, Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Registry, TextEncoder};

use crate::control::plane::{DrainProgress, Plane, driver_label};
use crate::shard::stats::{DropReason, EndReason, Histogram, Observed, Stat};
use crate::supervisor::life::Lifecycle;

/// The registry of one gateway.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Registers everything there is to know about `plane` and about the process.
    ///
    /// # Errors
    /// Two collectors claim one name: a mistake in this file.
    pub(crate) fn new(plane: Arc<Plane>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(GatewayCollector { plane }))?;
        Ok(Self(registry))
    }

    /// The text exposition, as of now.
    ///
    /// # Errors
    /// A metric without samples or of a wrong type: a mistake in this file.
    pub(crate) fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.gather())
    }
}

/// A metric's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Def {
    name: &'static str,
    kind: MetricType,
    help: &'static str,
    /// A label that tells this metric's series from others of the same name.
    label: Option<(&'static str, &'static str)>,
}

const fn counter(name: &'static str, help: &'static str) -> Def {
    Def { name, kind: MetricType::COUNTER, help, label: None }
}

const fn gauge(name: &'static str, help: &'static str) -> Def {
    Def { name, kind: MetricType::GAUGE, help, label: None }
}

const fn distribution(name: &'static str, help: &'static str) -> Def {
    Def { name, kind: MetricType::HISTOGRAM, help, label: None }
}

impl Def {
    const fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { label: Some((name, value)), ..self }
    }
}

const DROPS: Def = counter(
    "kcp_gateway_drops_total",
    "Datagrams and messages from clients that went no further, each counted under one reason.",
);
const SESSIONS_ENDED: Def =
    counter("kcp_gateway_sessions_ended_total", "Sessions ended, by reason.");
const RESENT: Def = counter(
    "kcp_gateway_segments_resent_total",
    "Segments sent again, because their timeout passed or because later ones were acknowledged.",
);
const SEND_DROPS: Def = counter(
    "kcp_gateway_send_drops_total",
    "Datagrams to clients that the kernel did not take; the protocol sends their segments again.",
);
const STRAYS: Def = counter(
    "kcp_gateway_strays_total",
    "Datagrams that the kernel gave to another shard than their session's, handed over or received.",
);
const PUSHES: Def = counter(
    "kcp_gateway_segments_received_total",
    "Data segments from clients, by what became of them.",
);

/// How a shard's counter or gauge is exported.
fn of_stat(stat: Stat) -> Def {
    match stat {
        Stat::Sessions => gauge("kcp_gateway_sessions", "Live sessions."),
        Stat::Tombstones => gauge(
            "kcp_gateway_tombstones",
            "Keys of ended sessions still remembered, so that late retransmits start nothing.",
        ),
        Stat::TombstonesForgotten => counter(
            "kcp_gateway_tombstones_forgotten_total",
            "Keys of ended sessions forgotten before their time, because `session.tombstones_max` were remembered.",
        ),
        Stat::StoreBytes => {
            gauge("kcp_gateway_store_bytes", "Payload in flight and waiting, in both directions.")
        }
        Stat::StoreBytesMax => gauge("kcp_gateway_store_limit_bytes", "The bound of store_bytes."),
        Stat::StoreBytesRecycled => gauge(
            "kcp_gateway_store_recycled_bytes",
            "Memory that the store keeps for reuse beyond store_bytes.",
        ),
        Stat::StoreFull => counter(
            "kcp_gateway_store_full_total",
            "Requests for payload memory that the store's bound refused.",
        ),
        Stat::Births => counter("kcp_gateway_sessions_started_total", "Sessions started."),
        Stat::Probes => counter(
            "kcp_gateway_probe_sessions_total",
            "Sessions of the gateway's own prober; they are in no other count of sessions.",
        ),
        Stat::Farewells => counter(
            "kcp_gateway_farewells_sent_total",
            "Answers to clients who came during a drain, with what `drain.farewell` says.",
        ),
        Stat::MessagesIn => {
            counter("kcp_gateway_messages_received_total", "Messages received whole from clients.")
        }
        Stat::MessageBytesIn => counter(
            "kcp_gateway_message_received_bytes_total",
            "Bytes of messages received whole from clients.",
        ),
        Stat::MessagesOut => {
            counter("kcp_gateway_messages_sent_total", "Messages queued towards clients.")
        }
        Stat::MessageBytesOut => counter(
            "kcp_gateway_message_sent_bytes_total",
            "Bytes of messages queued towards clients.",
        ),
        Stat::HandoffOut => STRAYS.with("direction", "out"),
        Stat::HandoffIn => STRAYS.with("direction", "in"),
        Stat::Turns => counter("kcp_gateway_turns_total", "Turns of the shard's loop."),
        Stat::TurnsOverBudget => counter(
            "kcp_gateway_turns_over_budget_total",
            "Turns that left work for the next one because a budget was used up.",
        ),
        Stat::Shedding => gauge(
            "kcp_gateway_shedding",
            "1 while the shard is overloaded and turns new sessions away to serve those it has.",
        ),
        Stat::BehindMs => gauge(
            "kcp_gateway_behind_seconds",
            "Time since everything that had arrived was taken in, half a second at most; timers wait for it.",
        ),
        Stat::TimersExpired => {
            counter("kcp_gateway_timers_expired_total", "Session timers expired.")
        }
        Stat::ChallengesSent => counter(
            "kcp_gateway_challenges_sent_total",
            "Silent or doubtful clients asked whether they are there.",
        ),
        Stat::ClientsStalled => {
            gauge("kcp_gateway_clients_stalled", "Clients that announce no room to receive.")
        }
        Stat::SegmentsSent => counter(
            "kcp_gateway_segments_sent_total",
            "Data segments sent to clients for the first time.",
        ),
        Stat::RtoResends => RESENT.with("cause", "timeout"),
        Stat::FastResends => RESENT.with("cause", "fast"),
        Stat::WindowProbes => counter(
            "kcp_gateway_window_probes_total",
            "Probes sent to clients that announced no room to receive.",
        ),
        Stat::PushesAccepted => PUSHES.with("outcome", "accepted"),
        Stat::PushesDuplicate => PUSHES.with("outcome", "duplicate"),
        Stat::PushesBeyondWindow => PUSHES.with("outcome", "beyond_window"),
        Stat::PushesWithoutStorage => PUSHES.with("outcome", "without_storage"),
        Stat::WindowsWithheld => counter(
            "kcp_gateway_windows_withheld_total",
            "Receive windows closed before they were full: a client's messages wait, and the store is short.",
        ),
        Stat::AcksDropped => counter(
            "kcp_gateway_acks_dropped_total",
            "Acknowledgements not queued because a session owed too many already.",
        ),
        Stat::RttSamplesDropped => counter(
            "kcp_gateway_rtt_samples_dropped_total",
            "Round-trip samples too long to be believed.",
        ),
        Stat::RxDatagrams => {
            counter("kcp_gateway_datagrams_received_total", "Datagrams received from clients.")
        }
        Stat::RxBytes => {
            counter("kcp_gateway_received_bytes_total", "UDP payload bytes received from clients.")
        }
        Stat::RxTruncated => DROPS.with("reason", "truncated"),
        Stat::RxEmpty => DROPS.with("reason", "empty_datagram"),
        Stat::RxOverflow => DROPS.with("reason", "socket_overflow"),
        Stat::RxErrors => {
            counter("kcp_gateway_receive_errors_total", "Receive operations that failed.")
        }
        Stat::RxDry => counter(
            "kcp_gateway_receive_buffers_dry_total",
            "Times the receive buffers ran dry; datagrams then wait in the socket.",
        ),
        Stat::RxRearmed => {
            counter("kcp_gateway_receive_rearmed_total", "Times a receive had to be armed again.")
        }
        Stat::TxDatagrams => {
            counter("kcp_gateway_datagrams_sent_total", "Datagrams sent to clients.")
        }
        Stat::TxBytes => {
            counter("kcp_gateway_sent_bytes_total", "UDP payload bytes sent to clients.")
        }
        Stat::TxSends => counter(
            "kcp_gateway_sends_total",
            "Send operations; fewer than datagrams where trains of them leave as one.",
        ),
        Stat::TxFull => SEND_DROPS.with("reason", "buffer_full"),
        Stat::TxErrors => SEND_DROPS.with("reason", "error"),
        Stat::Enters => {
            counter("kcp_gateway_driver_enters_total", "System calls that submitted or waited.")
        }
        Stat::Wakes => counter("kcp_gateway_driver_wakes_total", "Waits ended by another thread."),
        Stat::UndeliveredBytes => counter(
            "kcp_gateway_undelivered_bytes_total",
            "Bytes queued or in flight towards clients when their sessions ended.",
        ),
        Stat::SessionsWaiting => {
            gauge("kcp_gateway_sessions_waiting", "Sessions that wait for a backend.")
        }
        Stat::PoolBytes => gauge(
            "kcp_gateway_upstream_pool_bytes",
            "Memory of what waits between sessions and backends.",
        ),
        Stat::PoolBytesMax => {
            gauge("kcp_gateway_upstream_pool_limit_bytes", "The bound of upstream_pool_bytes.")
        }
        Stat::Streams => gauge(
            "kcp_gateway_upstream_connections",
            "Connections to backends, those being made and being closed included.",
        ),
        Stat::StreamBytesQueued => gauge(
            "kcp_gateway_upstream_queued_bytes",
            "Memory of what waits for the kernel to take it towards backends.",
        ),
        Stat::StreamReads => {
            counter("kcp_gateway_upstream_reads_total", "Reads that brought bytes of backends.")
        }
        Stat::StreamReadsDry => counter(
            "kcp_gateway_upstream_reads_dry_total",
            "Reads from backends that had to wait for a free buffer.",
        ),
        Stat::StreamSends => {
            counter("kcp_gateway_upstream_sends_total", "Send operations towards backends.")
        }
        Stat::StreamSendsBlocked => counter(
            "kcp_gateway_upstream_sends_blocked_total",
            "Sends that a backend's full connection did not take as a whole.",
        ),
        Stat::StreamWritesHeld => counter(
            "kcp_gateway_upstream_writes_held_total",
            "Writes towards backends that had to wait because of a bound of the gateway's.",
        ),
        Stat::ReportsLost => counter(
            "kcp_gateway_reports_lost_total",
            "Reports about backends that the control plane's full queue did not take.",
        ),
    }
}

/// What a shard counts to one of the exported unit.
const fn per_unit(stat: Stat) -> f64 {
    if matches!(stat, Stat::BehindMs) { 1000.0 } else { 1.0 }
}

/// How a shard's distribution is exported.
fn of_histogram(histogram: Histogram) -> Def {
    match histogram {
        Histogram::ChallengeRtt => distribution(
            "kcp_gateway_challenge_rtt_seconds",
            "Time from a challenge to the client's answer, its own delay included.",
        ),
        Histogram::ClientRtt => distribution(
            "kcp_gateway_client_rtt_seconds",
            "Smoothed round trip of clients, each busy one counted once every eight seconds.",
        ),
        Histogram::ClientResent => distribution(
            "kcp_gateway_client_resent_ratio",
            "Of the segments sent to a client in eight seconds, the part that was sent again; each busy client counted.",
        ),
        Histogram::SessionResent => distribution(
            "kcp_gateway_session_resent_ratio",
            "Of the segments sent in an ended session's life, the part that was sent again.",
        ),
        Histogram::Stalled => distribution(
            "kcp_gateway_client_stalled_seconds",
            "Time for which a client announced no room to receive, counted when it ends.",
        ),
        Histogram::BusyTurn => distribution(
            "kcp_gateway_busy_turn_seconds",
            "Time that one turn took, sending included, of turns that did much.",
        ),
        Histogram::BusyTurnCpu => distribution(
            "kcp_gateway_busy_turn_cpu_seconds",
            "Processor time that such a turn used; what it took beyond that, somebody else had the core.",
        ),
    }
}

const BUILD_INFO: Def = gauge("kcp_gateway_build_info", "The running program; always 1.");
const DRIVER_INFO: Def =
    gauge("kcp_gateway_driver_info", "The driver in use and why it was chosen; always 1.");
const START_TIME: Def = gauge(
    "kcp_gateway_start_time_seconds",
    "When the gateway began to serve, in seconds since 1970.",
);
const STATE: Def = gauge(
    "kcp_gateway_state",
    "1 for the state the gateway is in: start, serve, drain or stop; 0 for the others.",
);
const READY: Def = gauge("kcp_gateway_ready", "1 when new clients should be sent here.");
const LONGEST_TURN: Def = gauge(
    "kcp_gateway_longest_turn_seconds",
    "The longest busy turn since the start: for so long a datagram may have waited.",
);
const SHARD_UP: Def = gauge("kcp_gateway_shard_up", "1 while the shard's thread lives.");
const SESSIONS_LIMIT: Def = gauge(
    "kcp_gateway_sessions_limit",
    "Sessions that a shard may hold; further clients are dropped.",
);
const SESSION_QUEUE_LIMIT: Def = gauge(
    "kcp_gateway_session_queue_limit_bytes",
    "Bytes that one session may have waiting for its client before its backend has to wait: `session.queue_bytes_max`.",
);
const RECV_BUFFER: Def = gauge(
    "kcp_gateway_socket_receive_buffer_bytes",
    "Receive buffer of each of the listener's sockets, as granted by the kernel.",
);
const SEND_BUFFER: Def = gauge(
    "kcp_gateway_socket_send_buffer_bytes",
    "Send buffer of each of the listener's sockets, as granted by the kernel.",
);
const RELOADS: Def = counter("kcp_gateway_config_reloads_total", "Reloads asked for, by outcome.");
const RELOAD_OK: Def = gauge(
    "kcp_gateway_config_last_reload_successful",
    "0 after a reload that changed nothing because it was wrong, refused or not taken; else 1.",
);

const GENERATION: Def = gauge(
    "kcp_gateway_config_generation",
    "Which configuration is in force: 0 as started, one more with each reload that changed something.",
);
const RELOADED_AT: Def = gauge(
    "kcp_gateway_config_last_reload_success_timestamp_seconds",
    "When a reload was last applied, in seconds since 1970; absent before the first.",
);
const DRAIN_TIME: Def = gauge(
    "kcp_gateway_drain_seconds",
    "For how long the gateway has been draining; 0 while it is not.",
);
const DRAIN_LEFT: Def = gauge(
    "kcp_gateway_drain_left_ratio",
    "Of the sessions that lived when the drain began, the part that is left; 0 while it does not drain.",
);
const PROBE_SUCCESS: Def = gauge(
    "kcp_gateway_probe_success",
    "1 when the gateway's own prober last got a session with every shard through the listener; absent while it rests.",
);
const PROBES: Def = counter(
    "kcp_gateway_probes_total",
    "Rounds of the gateway's own prober, a session with every shard in each, by outcome.",
);
const PROBE_DURATION: Def = gauge(
    "kcp_gateway_probe_duration_seconds",
    "Time that the slowest shard took to acknowledge in the last round that succeeded.",
);
const PROBE_LAST_SUCCESS: Def = gauge(
    "kcp_gateway_probe_last_success_timestamp_seconds",
    "When the last round succeeded, in seconds since 1970.",
);

/// Reads a plane at scrape time.
struct GatewayCollector {
    plane: Arc<Plane>,
}

impl Collector for GatewayCollector {
    /// None: names are unique by construction, as they all come from this file.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        self.shards(&mut families);
        self.process(&mut families);
        self.listeners(&mut families);
        self.reloads(&mut families);
        self.probes(&mut families);
        if let Some(directory) = self.plane.backends() {
            let config = Arc::clone(&self.plane.current().config);
            let numbers = |id| self.plane.numbers(id);
            let registry = directory.registry();
            backends::collect(&config.upstream, &registry, &numbers, &mut families);
        }
        if let Some(stats) = self.plane.nats() {
            nats::collect(stats, &mut families);
        }
        families.into_vec()
    }
}

impl GatewayCollector {
    fn shards(&self, families: &mut Families) {
        let limit = self.plane.current().sizes.sessions_per_shard;
        for (index, link) in self.plane.shards().iter().enumerate() {
            let stats = link.stats.read();
            let shard = index.to_string();
            let shard = [("shard", shard.as_str())];
            for stat in Stat::ALL {
                families.add(of_stat(*stat), &shard, float(stats.get(*stat)) / per_unit(*stat));
            }
            for reason in DropReason::ALL {
                let def = DROPS.with("reason", reason.label());
                families.add(def, &shard, float(stats.drops(*reason)));
            }
            for reason in EndReason::ALL {
                let def = SESSIONS_ENDED.with("reason", reason.label());
                families.add(def, &shard, float(stats.ends(*reason)));
            }
            for histogram in Histogram::ALL {
                let observed = stats.histogram(*histogram);
                families.add_histogram(of_histogram(*histogram), &shard, &observed);
            }
            let longest_us = stats.histogram(Histogram::BusyTurn).max;
            families.add(LONGEST_TURN, &shard, float(longest_us) / 1e6);
            families.add(SESSIONS_LIMIT, &shard, f64::from(limit));
            families.add(SHARD_UP, &shard, one_if(!self.plane.life.is_dead(index)));
        }
    }

    fn process(&self, families: &mut Families) {
        let plane = &self.plane;
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let build = [("version", env!("CARGO_PKG_VERSION")), ("profile", profile)];
        families.add(BUILD_INFO, &build, 1.0);
        let driver =
            [("driver", driver_label(plane.probe.kind)), ("reason", plane.probe.reason.as_str())];
        families.add(DRIVER_INFO, &driver, 1.0);
        families.add(START_TIME, &[], plane.started.unix_s);
        let queue_bytes_max = plane.current().config.session.queue_bytes_max;
        families.add(SESSION_QUEUE_LIMIT, &[], f64::from(queue_bytes_max));
        let now = plane.life.lifecycle();
        for state in Lifecycle::ALL {
            families.add(STATE.with("state", state.label()), &[], one_if(state == now));
        }
        families.add(READY, &[], one_if(plane.not_ready().is_none()));
    }

    fn listeners(&self, families: &mut Families) {
        for listener in &self.plane.listeners {
            let addr = listener.addr.to_string();
            let addr = [("listener", addr.as_str())];
            families.add(RECV_BUFFER, &addr, float(listener.recv_buffer_bytes as u64));
            families.add(SEND_BUFFER, &addr, float(listener.send_buffer_bytes as u64));
        }
    }

    fn reloads(&self, families: &mut Families) {
        let reloads = self.plane.current().reloads.clone();
        for (outcome, count) in reloads.outcomes() {
            families.add(RELOADS.with("outcome", outcome), &[], float(count));
        }
        families.add(RELOAD_OK, &[], one_if(reloads.last_error.is_none()));
        families.add(GENERATION, &[], float(reloads.generation));
        if let Some(at) = reloads.applied_unix_s {
            families.add(RELOADED_AT, &[], at);
        }
        let drain = self.plane.drain_progress();
        families.add(DRAIN_TIME, &[], drain.map_or(0.0, |drain| float(drain.for_s)));
        let left =
            |drain: DrainProgress| float(drain.sessions_left) / float(drain.sessions_before.max(1));
        families.add(DRAIN_LEFT, &[], drain.map_or(0.0, left));
    }
}

impl GatewayCollector {
    /// Only while probes are made: one that nobody makes neither succeeds nor fails.
    fn probes(&self, families: &mut Families) {
        if !self.plane.is_probed() {
            return;
        }
        for probe in self.plane.probes.read() {
            let listener = probe.listener.to_string();
            let labels = [("listener", listener.as_str())];
            families.add(PROBE_SUCCESS, &labels, one_if(probe.error.is_none()));
            families.add(PROBES.with("outcome", "succeeded"), &labels, float(probe.succeeded));
            families.add(PROBES.with("outcome", "failed"), &labels, float(probe.failed));
            if let Some(us) = probe.latency_us {
                families.add(PROBE_DURATION, &labels, float(us) / 1e6);
            }
            if let Some(at) = probe.last_success_unix_s {
                families.add(PROBE_LAST_SUCCESS, &labels, at);
            }
        }
    }
}

/// Families in the making, by name.
#[derive(Default)]
struct Families(BTreeMap<&'static str, MetricFamily>);

impl Families {
    fn add(&mut self, def: Def, labels: &[(&str, &str)], value: f64) {
        self.push(def, labels, |metric| {
            if def.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        });
    }

    fn add_histogram(&mut self, def: Def, labels: &[(&str, &str)], observed: &Observed<'_>) {
        self.push(def, labels, |metric| {
            let mut histogram = proto::Histogram::default();
            let mut below = 0;
            let buckets = observed.bounds.iter().zip(observed.counts).map(|(bound, count)| {
                below += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(f64::from(*bound) / 1e6);
                bucket.set_cumulative_count(below);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(observed.counts.iter().sum());
            histogram.set_sample_sum(float(observed.sum) / 1e6);
            metric.set_histogram(histogram);
        });
    }

    fn push(&mut self, def: Def, labels: &[(&str, &str)], value: impl FnOnce(&mut Metric)) {
        let family = self.0.entry(def.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(def.name.into());
            family.set_help(def.help.into());
            family.set_field_type(def.kind);
            family
        });
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value((*value).into());
            pair
        };
        let mut metric = Metric::default();
        metric.set_label(labels.iter().chain(def.label.as_ref()).map(pair).collect());
        value(&mut metric);
        family.mut_metric().push(metric);
    }

    fn into_vec(self) -> Vec<MetricFamily> {
        self.0.into_values().collect()
    }
}

/// Prometheus counts in floating point; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "the exposition format has no integers")]
const fn float(n: u64) -> f64 {
    n as f64
}

fn one_if(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Name and fixed label of everything that a shard exports.
    fn series() -> Vec<(Def, Option<(&'static str, &'static str)>)> {
        let stats = Stat::ALL.iter().map(|s| of_stat(*s));
        let drops = DropReason::ALL.iter().map(|r| DROPS.with("reason", r.label()));
        let ends = EndReason::ALL.iter().map(|r| SESSIONS_ENDED.with("reason", r.label()));
        let histograms = Histogram::ALL.iter().map(|h| of_histogram(*h));
        stats.chain(drops).chain(ends).chain(histograms).map(|def| (def, def.label)).collect()
    }

    fn globals() -> [Def; 20] {
        [
            BUILD_INFO,
            DRIVER_INFO,
            START_TIME,
            STATE,
            READY,
            LONGEST_TURN,
            SHARD_UP,
            SESSIONS_LIMIT,
            RECV_BUFFER,
            SEND_BUFFER,
            RELOADS,
            RELOAD_OK,
            GENERATION,
            RELOADED_AT,
            DRAIN_TIME,
            DRAIN_LEFT,
            PROBE_SUCCESS,
            PROBES,
            PROBE_DURATION,
            PROBE_LAST_SUCCESS,
        ]
    }

    #[test]
    fn every_stat_drop_and_end_is_exported_once() {
        let series = series();
        let distinct: BTreeSet<_> = series.iter().map(|(def, label)| (def.name, label)).collect();
        assert_eq!(distinct.len(), series.len());
        let all = Stat::COUNT + DropReason::COUNT + EndReason::COUNT + Histogram::COUNT;
        assert_eq!(series.len(), all);
    }

    #[test]
    fn series_of_one_name_agree_and_none_lacks_its_label() {
        let mut by_name = BTreeMap::<_, Vec<Def>>::new();
        for def in series()
            .into_iter()
            .map(|(def, _)| def)
            .chain(globals())
            .chain(backends::all())
            .chain(nats::all())
        {
            by_name.entry(def.name).or_default().push(def);
        }
        for (name, defs) in by_name {
            let first = defs[0];
            for def in &defs {
                assert_eq!((def.kind, def.help), (first.kind, first.help), "{name}");
                let label = |d: &Def| d.label.map(|(name, _)| name);
                assert_eq!(label(def), label(&first), "{name}");
                assert!(defs.len() == 1 || def.label.is_some(), "{name} twice without a label");
            }
        }
    }

    /// The operator's page is a table of everything that is exported, with the same words.
    #[test]
    fn the_page_says_the_same() {
        let page = include_str!("../../deploy/METRICS.md");
        for def in series().into_iter().map(|(def, _)| def).chain(globals()) {
            let kind = format!("{:?}", def.kind).to_lowercase();
            let row = page.lines().find(|row| row.starts_with(&format!("| `{}` | ", def.name)));
            let row = row.unwrap_or_else(|| panic!("no row for {}", def.name));
            let columns: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!((columns[1], columns[3]), (kind.as_str(), def.help), "{}", def.name);
            if let Some((label, _)) = def.label {
                assert!(columns[2].contains(&format!("`{label}`")), "{row}");
            }
        }
    }

    /// The rules of `promtool check metrics` that names and help texts can break.
    #[test]
    fn names_follow_the_conventions() {
        for def in series()
            .into_iter()
            .map(|(def, _)| def)
            .chain(globals())
            .chain(backends::all())
            .chain(nats::all())
        {
            let name = def.name;
            assert!(name.starts_with("kcp_gateway_"), "{name}");
            let plain =
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(plain, "{name}");
            let is_counter = def.kind == MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            for reserved in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            for part in name.split('_') {
                let bad =
                    ["ms", "us", "ns", "s", "kb", "kib", "mb", "counter", "gauge", "milliseconds"];
                assert!(!bad.contains(&part), "{name}: {part}");
            }
            assert!(def.help.ends_with('.') && def.help.len() > 10, "{name}: {}", def.help);
        }
    }

    #[test]
    fn a_family_renders_as_text() {
        let mut families = Families::default();
        families.add(DROPS.with("reason", "short"), &[("shard", "0")], 3.0);
        families.add(DROPS.with("reason", "tombstone"), &[("shard", "0")], 0.0);
        families.add(READY, &[], 1.0);
        let text = TextEncoder::new().encode_to_string(&families.into_vec()).unwrap();
        let expected = format!(
            "# HELP kcp_gateway_drops_total {}\n# TYPE kcp_gateway_drops_total counter\n\
             kcp_gateway_drops_total{{shard=\"0\",reason=\"short\"}} 3\n\
             kcp_gateway_drops_total{{shard=\"0\",reason=\"tombstone\"}} 0\n\
             # HELP kcp_gateway_ready {}\n# TYPE kcp_gateway_ready gauge\nkcp_gateway_ready 1\n",
            DROPS.help, READY.help
        );
        assert_eq!(text, expected);
    }
}
