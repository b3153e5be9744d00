//! What the shards do, side by side.

use super::{Rows, panel};

pub(super) const ROWS: Rows = &[
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
                "Behind",
                "s",
                "Time since all that had arrived was taken in, half a second at most; beyond 0.04 for long, players are turned away.",
                &[(
                    "max by (instance, shard) (kcp_gateway_behind_seconds{instance=~\"$instance\"})",
                    "{{instance}} {{shard}}",
                )],
            ),
            panel(
                "Turned away",
                "ops",
                "First datagrams of new players that an overloaded shard dropped.",
                &[(
                    "sum by (instance) (rate(kcp_gateway_drops_total{reason=\"overload\", instance=~\"$instance\"}[$__rate_interval]))",
                    "{{instance}}",
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
