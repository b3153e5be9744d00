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
                "For each segment sent; the share lost, late or overtaken on the way.",
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

const BACKENDS: Rows = &[(
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
)];

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
