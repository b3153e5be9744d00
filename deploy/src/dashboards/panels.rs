//! What each dashboard shows.

use super::{Dashboard, Panel};

/// Every dashboard.
pub const ALL: &[Dashboard] = &[
    Dashboard { name: "fleet", title: "KCP gateway: fleet", rows: FLEET },
    Dashboard { name: "shards", title: "KCP gateway: shards", rows: SHARDS },
    Dashboard { name: "players", title: "KCP gateway: player health", rows: PLAYERS },
    Dashboard { name: "backends", title: "KCP gateway: backends", rows: BACKENDS },
    Dashboard { name: "drops", title: "KCP gateway: drops", rows: DROPS },
];

type Rows = &'static [(&'static str, &'static [Panel])];

const FLEET: Rows = &[
    (
        "Is it well",
        &[
            panel(
                "Gateways",
                "short",
                "Gateways that answer, and those that want new players.",
                &[
                    ("count(kcp_gateway_build_info{instance=~\"$instance\"})", "up"),
                    ("sum(kcp_gateway_ready{instance=~\"$instance\"})", "ready"),
                ],
            ),
            panel(
                "Alerts",
                "short",
                "Firing now; RUNBOOK.md has a page for each.",
                &[(
                    "count by (alertname) (ALERTS{alertstate=\"firing\", alertname=~\"KcpGateway.*\"}) or vector(0)",
                    "{{alertname}}",
                )],
            ),
            panel(
                "Can players get in",
                "short",
                "The gateway as its own client: 1 where it got a session with every shard, of each listener.",
                &[(
                    "kcp_gateway_probe_success{instance=~\"$instance\"}",
                    "{{instance}} {{listener}}",
                )],
            ),
            panel(
                "How long that takes",
                "s",
                "Until the slowest shard acknowledged the gateway's own session.",
                &[(
                    "kcp_gateway_probe_duration_seconds{instance=~\"$instance\"}",
                    "{{instance}} {{listener}}",
                )],
            ),
            panel(
                "State",
                "short",
                "Start, serve, drain or stop; gateways in each.",
                &[("sum by (state) (kcp_gateway_state{instance=~\"$instance\"})", "{{state}}")],
            ),
        ],
    ),
    (
        "How much",
        &[
            panel(
                "Sessions",
                "short",
                "Live sessions of each gateway.",
                &[("instance:kcp_gateway_sessions:sum{instance=~\"$instance\"}", "{{instance}}")],
            ),
            panel(
                "Sessions used",
                "percentunit",
                "Of what the fullest shard may hold; at 100 % players are refused.",
                &[(
                    "instance:kcp_gateway_sessions_used:ratio{instance=~\"$instance\"}",
                    "{{instance}}",
                )],
            ),
            panel(
                "Starts and ends",
                "ops",
                "Sessions started and ended per second, ends by reason.",
                &[
                    (
                        "sum(rate(kcp_gateway_sessions_started_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "started",
                    ),
                    (
                        "sum by (reason) (rate(kcp_gateway_sessions_ended_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "ended: {{reason}}",
                    ),
                ],
            ),
            panel(
                "Messages",
                "ops",
                "Whole messages per second, both ways.",
                &[
                    (
                        "sum(rate(kcp_gateway_messages_received_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "from players",
                    ),
                    (
                        "sum(rate(kcp_gateway_messages_sent_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "to players",
                    ),
                ],
            ),
            panel(
                "Datagrams",
                "pps",
                "UDP datagrams per second, both ways.",
                &[
                    (
                        "sum(rate(kcp_gateway_datagrams_received_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "received",
                    ),
                    (
                        "sum(rate(kcp_gateway_datagrams_sent_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "sent",
                    ),
                ],
            ),
            panel(
                "Bytes",
                "Bps",
                "UDP payload per second, both ways.",
                &[
                    (
                        "sum(rate(kcp_gateway_received_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "received",
                    ),
                    (
                        "sum(rate(kcp_gateway_sent_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "sent",
                    ),
                ],
            ),
        ],
    ),
    (
        "At what cost",
        &[
            panel(
                "CPU per shard",
                "percentunit",
                "100 % is a core's worth of time for each shard.",
                &[(
                    "instance:kcp_gateway_cpu_per_shard:ratio_rate5m{instance=~\"$instance\"}",
                    "{{instance}}",
                )],
            ),
            panel(
                "Memory",
                "bytes",
                "Resident memory of the process.",
                &[(
                    "process_resident_memory_bytes{job=\"kcp-gateway\", instance=~\"$instance\"}",
                    "{{instance}}",
                )],
            ),
            panel(
                "Payload store",
                "percentunit",
                "Of what the fullest shard may hold; at 100 % payload is refused.",
                &[(
                    "instance:kcp_gateway_store_used:ratio{instance=~\"$instance\"}",
                    "{{instance}}",
                )],
            ),
        ],
    ),
    (
        "What runs",
        &[
            panel(
                "Versions",
                "short",
                "Gateways by version.",
                &[(
                    "count by (version, profile) (kcp_gateway_build_info{instance=~\"$instance\"})",
                    "{{version}} {{profile}}",
                )],
            ),
            panel(
                "Drivers",
                "short",
                "Gateways by driver, and why it was chosen.",
                &[(
                    "count by (driver, reason) (kcp_gateway_driver_info{instance=~\"$instance\"})",
                    "{{reason}}",
                )],
            ),
            panel(
                "Configuration",
                "short",
                "Which is in force: 0 as started, one more with each reload that changed something.",
                &[("kcp_gateway_config_generation{instance=~\"$instance\"}", "{{instance}}")],
            ),
            panel(
                "Drain",
                "percentunit",
                "Of the sessions that lived when a drain began, the part that is left.",
                &[("kcp_gateway_drain_left_ratio{instance=~\"$instance\"}", "{{instance}}")],
            ),
            panel(
                "Reloads",
                "short",
                "Reloads so far by outcome, and whether the last one was taken.",
                &[
                    (
                        "sum by (outcome) (kcp_gateway_config_reloads_total{instance=~\"$instance\"})",
                        "{{outcome}}",
                    ),
                    (
                        "min(kcp_gateway_config_last_reload_successful{instance=~\"$instance\"})",
                        "last one taken",
                    ),
                ],
            ),
        ],
    ),
];

const SHARDS: Rows = &[
    (
        "Balance",
        &[
            panel(
                "Sessions",
                "short",
                "Live sessions of each shard. Uneven: see steer.",
                &[("kcp_gateway_sessions{instance=~\"$instance\"}", "{{instance}} {{shard}}")],
            ),
            panel(
                "Datagrams received",
                "pps",
                "Per shard.",
                &[(
                    "rate(kcp_gateway_datagrams_received_total{instance=~\"$instance\"}[$__rate_interval])",
                    "{{instance}} {{shard}}",
                )],
            ),
            panel(
                "Skew",
                "short",
                "The busiest shard's datagrams against the average shard's; 1 is even.",
                &[(
                    "instance:kcp_gateway_shard_skew:ratio_rate5m{instance=~\"$instance\"}",
                    "{{instance}}",
                )],
            ),
            panel(
                "Strays",
                "pps",
                "Datagrams that the kernel gave to another shard than their session's.",
                &[(
                    "sum by (instance, direction) (rate(kcp_gateway_strays_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}} {{direction}}",
                )],
            ),
            panel(
                "Payload store",
                "bytes",
                "Payload in flight and waiting.",
                &[("kcp_gateway_store_bytes{instance=~\"$instance\"}", "{{instance}} {{shard}}")],
            ),
            panel(
                "Tombstones",
                "short",
                "Keys of ended sessions still remembered.",
                &[("kcp_gateway_tombstones{instance=~\"$instance\"}", "{{instance}} {{shard}}")],
            ),
        ],
    ),
    (
        "The loop",
        &[
            panel(
                "Turns",
                "ops",
                "Turns of each shard's loop per second.",
                &[(
                    "rate(kcp_gateway_turns_total{instance=~\"$instance\"}[$__rate_interval])",
                    "{{instance}} {{shard}}",
                )],
            ),
            panel(
                "Turns over budget",
                "percentunit",
                "Turns that left work for the next one. Lasting: the shard is full.",
                &[(
                    "rate(kcp_gateway_turns_over_budget_total{instance=~\"$instance\"}[$__rate_interval]) / rate(kcp_gateway_turns_total{instance=~\"$instance\"}[$__rate_interval])",
                    "{{instance}} {{shard}}",
                )],
            ),
            panel(
                "Time of a busy turn",
                "s",
                "Half and 99 % of the turns that did much took less, and the longest since the start. So long a datagram may wait.",
                &[
                    (
                        "histogram_quantile(0.5, sum by (instance, le) (rate(kcp_gateway_busy_turn_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "{{instance}} p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (instance, le) (rate(kcp_gateway_busy_turn_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "{{instance}} p99",
                    ),
                    (
                        "max by (instance) (kcp_gateway_longest_turn_seconds{instance=~\"$instance\"})",
                        "{{instance}} longest",
                    ),
                ],
            ),
            panel(
                "Datagrams per turn",
                "short",
                "Received per turn: how much a wake-up brings.",
                &[(
                    "rate(kcp_gateway_datagrams_received_total{instance=~\"$instance\"}[$__rate_interval]) / rate(kcp_gateway_turns_total{instance=~\"$instance\"}[$__rate_interval])",
                    "{{instance}} {{shard}}",
                )],
            ),
            panel(
                "Datagrams per send",
                "short",
                "More than 1 where trains of datagrams leave as one.",
                &[(
                    "rate(kcp_gateway_datagrams_sent_total{instance=~\"$instance\"}[$__rate_interval]) / rate(kcp_gateway_sends_total{instance=~\"$instance\"}[$__rate_interval])",
                    "{{instance}} {{shard}}",
                )],
            ),
            panel(
                "System calls",
                "ops",
                "Calls that submitted or waited, and waits that another thread ended.",
                &[
                    (
                        "sum by (instance) (rate(kcp_gateway_driver_enters_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} enters",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_driver_wakes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} wakes",
                    ),
                ],
            ),
            panel(
                "Timers",
                "ops",
                "Session timers expired per second.",
                &[(
                    "rate(kcp_gateway_timers_expired_total{instance=~\"$instance\"}[$__rate_interval])",
                    "{{instance}} {{shard}}",
                )],
            ),
        ],
    ),
];

const PLAYERS: Rows = &[
    (
        "The players' network",
        &[
            panel(
                "Segments sent again",
                "percentunit",
                "Of all segments sent, the part that had been sent before: lost, late or overtaken on the way.",
                &[(
                    "instance:kcp_gateway_segments_resent:ratio_rate5m{instance=~\"$instance\"}",
                    "{{instance}}",
                )],
            ),
            panel(
                "Why sent again",
                "ops",
                "Timeouts cost a player a pause; fast ones hardly show.",
                &[(
                    "sum by (cause) (rate(kcp_gateway_segments_resent_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{cause}}",
                )],
            ),
            panel(
                "Round trip",
                "s",
                "Smoothed round trip of players who play, each counted every eight seconds.",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(kcp_gateway_client_rtt_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "half of them below",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(kcp_gateway_client_rtt_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "99 % below",
                    ),
                ],
            ),
            panel(
                "Repeats of a player",
                "percentunit",
                "Of what was sent to a player within eight seconds, the part sent again; over a whole session when it ends.",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(kcp_gateway_client_resent_ratio_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "half of them below",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(kcp_gateway_client_resent_ratio_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "99 % below",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(kcp_gateway_session_resent_ratio_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "99 % of sessions below",
                    ),
                ],
            ),
            panel(
                "Round trip of silent players",
                "s",
                "Time from asking a silent player to the answer of its library, which takes an interval of its own.",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(kcp_gateway_challenge_rtt_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(kcp_gateway_challenge_rtt_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "p99",
                    ),
                ],
            ),
            panel(
                "What players sent",
                "ops",
                "Data segments received: duplicates tell of acknowledgements lost on the way out.",
                &[(
                    "sum by (outcome) (rate(kcp_gateway_segments_received_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{outcome}}",
                )],
            ),
        ],
    ),
    (
        "The players' games",
        &[
            panel(
                "Time without room",
                "s",
                "How long players announced no room to receive, counted when it ends: their game did not read.",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(kcp_gateway_client_stalled_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "half of them below",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(kcp_gateway_client_stalled_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                        "99 % below",
                    ),
                ],
            ),
            panel(
                "Window probes",
                "ops",
                "Probes to players that announced no room: their game does not read.",
                &[(
                    "sum by (instance) (rate(kcp_gateway_window_probes_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
            panel(
                "Ends",
                "ops",
                "Sessions ended per second. KCP has no good-bye: a player who leaves ends as idle or dead_link.",
                &[(
                    "sum by (reason) (rate(kcp_gateway_sessions_ended_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{reason}}",
                )],
            ),
            panel(
                "Not believed",
                "ops",
                "Acknowledgements and round-trip samples beyond what a session may have.",
                &[
                    (
                        "sum(rate(kcp_gateway_acks_dropped_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "acks dropped",
                    ),
                    (
                        "sum(rate(kcp_gateway_rtt_samples_dropped_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "samples dropped",
                    ),
                ],
            ),
        ],
    ),
];

const BACKENDS: Rows = &[
    (
        "Messages",
        &[
            panel(
                "To backends",
                "ops",
                "Messages received whole from players.",
                &[(
                    "sum by (instance) (rate(kcp_gateway_messages_received_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
            panel(
                "From backends",
                "ops",
                "Messages queued towards players.",
                &[(
                    "sum by (instance) (rate(kcp_gateway_messages_sent_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
            panel(
                "Bytes",
                "Bps",
                "Payload of messages, both ways.",
                &[
                    (
                        "sum(rate(kcp_gateway_message_received_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "to backends",
                    ),
                    (
                        "sum(rate(kcp_gateway_message_sent_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "from backends",
                    ),
                ],
            ),
        ],
    ),
    (
        "Backends",
        &[
            panel(
                "Connections",
                "short",
                "Connections to backends, and sessions that wait for one.",
                &[
                    (
                        "sum by (instance) (kcp_gateway_upstream_connections{instance=~\"$instance\"})",
                        "{{instance}} connections",
                    ),
                    (
                        "sum by (instance) (kcp_gateway_sessions_waiting{instance=~\"$instance\"})",
                        "{{instance}} waiting",
                    ),
                ],
            ),
            panel(
                "Memory between players and backends",
                "percentunit",
                "Of its bound, in the fullest shard; at 100 % the slowest sessions end.",
                &[(
                    "max by (instance) (kcp_gateway_upstream_pool_bytes{instance=~\"$instance\"} / kcp_gateway_upstream_pool_limit_bytes{instance=~\"$instance\"})",
                    "{{instance}}",
                )],
            ),
            panel(
                "Waiting for backends",
                "bytes",
                "What the kernel has not taken yet: backends that read slowly.",
                &[(
                    "sum by (instance) (kcp_gateway_upstream_queued_bytes{instance=~\"$instance\"})",
                    "{{instance}}",
                )],
            ),
            panel(
                "Reads and sends",
                "ops",
                "Operations of the connections to backends, and those that had to wait.",
                &[
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_reads_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} reads",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_sends_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} sends",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_sends_blocked_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} sends blocked",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_writes_held_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} writes held",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_reads_dry_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} reads without a buffer",
                    ),
                ],
            ),
            panel(
                "Sessions that backends ended",
                "ops",
                "Ends by backends, for want of one, or for want of memory towards one.",
                &[(
                    "sum by (reason) (rate(kcp_gateway_sessions_ended_total{instance=~\"$instance\", reason=~\"backend_fin|backend_fin_mid_message|backend_reset|backend_refused|backend_connect_failed|backend_connect_timeout|backend_stalled|backend_too_long|backend_link_lost|no_backend|slow_client|pool_full|shed\"}[$__rate_interval]))",
                    "{{reason}}",
                )],
            ),
            panel(
                "Never delivered",
                "Bps",
                "Bytes on the way to players when their sessions ended.",
                &[(
                    "sum by (instance) (rate(kcp_gateway_undelivered_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
        ],
    ),
];

const DROPS: Rows = &[
    (
        "From players",
        &[
            panel(
                "Drops",
                "ops",
                "Datagrams and messages that went no further; each under one reason.",
                &[(
                    "sum by (reason) (rate(kcp_gateway_drops_total{instance=~\"$instance\"}[$__rate_interval])) > 0 or sum(rate(kcp_gateway_drops_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{reason}}",
                )],
            ),
            panel(
                "Share of datagrams",
                "percentunit",
                "Drops for each datagram received.",
                &[(
                    "sum by (instance) (instance_reason:kcp_gateway_drops:rate5m{instance=~\"$instance\"}) / sum by (instance) (instance:kcp_gateway_datagrams_received:rate5m{instance=~\"$instance\"})",
                    "{{instance}}",
                )],
            ),
            panel(
                "Before it was read",
                "ops",
                "Lost in full sockets; times the buffers ran dry; receives that failed.",
                &[
                    (
                        "sum(rate(kcp_gateway_drops_total{reason=\"socket_overflow\", instance=~\"$instance\"}[$__rate_interval]))",
                        "socket overflow",
                    ),
                    (
                        "sum(rate(kcp_gateway_receive_buffers_dry_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "buffers dry",
                    ),
                    (
                        "sum(rate(kcp_gateway_receive_errors_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "errors",
                    ),
                    (
                        "sum(rate(kcp_gateway_receive_rearmed_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "rearmed",
                    ),
                ],
            ),
        ],
    ),
    (
        "To players",
        &[
            panel(
                "Send drops",
                "ops",
                "Datagrams that the kernel did not take; their segments are sent again.",
                &[(
                    "sum by (instance, reason) (rate(kcp_gateway_send_drops_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}} {{reason}}",
                )],
            ),
            panel(
                "Store refusals",
                "ops",
                "Requests for payload memory that the bound refused.",
                &[(
                    "sum by (instance) (rate(kcp_gateway_store_full_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
            panel(
                "Socket buffers",
                "bytes",
                "Granted by the kernel to each socket of a listener.",
                &[
                    (
                        "kcp_gateway_socket_receive_buffer_bytes{instance=~\"$instance\"}",
                        "{{instance}} {{listener}} receive",
                    ),
                    (
                        "kcp_gateway_socket_send_buffer_bytes{instance=~\"$instance\"}",
                        "{{instance}} {{listener}} send",
                    ),
                ],
            ),
        ],
    ),
];

const fn panel(
    title: &'static str,
    unit: &'static str,
    help: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, unit, help, queries }
}
