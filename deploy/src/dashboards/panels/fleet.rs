//! All gateways at a glance.

use super::{Rows, panel};

pub(super) const ROWS: Rows = &[
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
