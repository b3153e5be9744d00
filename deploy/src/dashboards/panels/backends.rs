//! The backends, and what goes to them and comes from them.

use super::{Rows, panel};

pub(super) const ROWS: Rows = &[
    (
        "Who is there",
        &[
            panel(
                "Addresses",
                "short",
                "Addresses of backends in each state; only those that are up get new sessions.",
                &[(
                    "sum by (state) (kcp_gateway_backend_state{instance=~\"$instance\"})",
                    "{{state}}",
                )],
            ),
            panel(
                "Which gets new sessions",
                "short",
                "1 for each address that does.",
                &[(
                    "min by (backend, address) (kcp_gateway_backend_up{instance=~\"$instance\"})",
                    "{{backend}} {{address}}",
                )],
            ),
            panel(
                "Sessions",
                "short",
                "Live sessions of each address.",
                &[(
                    "sum by (backend, address) (kcp_gateway_backend_sessions{instance=~\"$instance\"})",
                    "{{backend}} {{address}}",
                )],
            ),
        ],
    ),
    (
        "Who fails",
        &[
            panel(
                "Ejections and checks",
                "ops",
                "Addresses put aside because sessions did not get through, and checks that failed.",
                &[
                    (
                        "sum by (backend, address) (rate(kcp_gateway_backend_ejections_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{backend}} {{address}} ejected",
                    ),
                    (
                        "sum by (backend, address) (rate(kcp_gateway_backend_checks_total{outcome=\"failed\", instance=~\"$instance\"}[$__rate_interval]))",
                        "{{backend}} {{address}} check failed",
                    ),
                ],
            ),
            panel(
                "Connections made",
                "ops",
                "Connections of sessions that were made, and those that were not, by reason.",
                &[
                    (
                        "sum(rate(kcp_gateway_backend_connects_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "made",
                    ),
                    (
                        "sum by (reason) (rate(kcp_gateway_backend_connect_failures_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{reason}}",
                    ),
                ],
            ),
            panel(
                "Names and lists",
                "ops",
                "Questions for addresses, and looks at the list of backends, that failed; and addresses left out.",
                &[
                    (
                        "sum by (backend) (rate(kcp_gateway_backend_resolutions_total{outcome=\"failed\", instance=~\"$instance\"}[$__rate_interval]))",
                        "{{backend}} has no addresses",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_backend_file_loads_total{outcome=\"refused\", instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} list refused",
                    ),
                    (
                        "sum by (backend) (kcp_gateway_backend_addresses_left_out{instance=~\"$instance\"})",
                        "{{backend}} left out",
                    ),
                ],
            ),
            panel(
                "Given and lost",
                "ops",
                "Sessions that were given an address, and those that lost it and look for another.",
                &[
                    (
                        "sum(rate(kcp_gateway_backend_sessions_assigned_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "given",
                    ),
                    (
                        "sum(rate(kcp_gateway_backend_sessions_rerouted_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "lost, and look for another",
                    ),
                ],
            ),
            panel(
                "Sessions that backends ended",
                "ops",
                "Ends by backends, for want of one, or for want of memory towards one.",
                &[(
                    "sum by (reason) (rate(kcp_gateway_sessions_ended_total{reason=~\"backend_fin|backend_fin_mid_message|backend_reset|backend_refused|backend_connect_failed|backend_connect_timeout|backend_stalled|backend_too_long|backend_link_lost|no_backend|slow_client|pool_full|shed\", instance=~\"$instance\"}[$__rate_interval]))",
                    "{{reason}}",
                )],
            ),
            panel(
                "Links",
                "short",
                "Connections that many sessions share, and streams on them.",
                &[
                    (
                        "sum by (backend) (kcp_gateway_backend_links{instance=~\"$instance\"})",
                        "{{backend}} links",
                    ),
                    (
                        "sum by (backend) (kcp_gateway_backend_streams{instance=~\"$instance\"})",
                        "{{backend}} streams",
                    ),
                ],
            ),
        ],
    ),
    (
        "Messages",
        &[
            panel(
                "To backends",
                "ops",
                "Messages handed to each address.",
                &[(
                    "sum by (backend, address) (rate(kcp_gateway_backend_messages_sent_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{backend}} {{address}}",
                )],
            ),
            panel(
                "From backends",
                "ops",
                "Messages that each address sent.",
                &[(
                    "sum by (backend, address) (rate(kcp_gateway_backend_messages_received_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{backend}} {{address}}",
                )],
            ),
            panel(
                "Bytes",
                "Bps",
                "Payload of messages, both ways.",
                &[
                    (
                        "sum(rate(kcp_gateway_backend_message_sent_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "to backends",
                    ),
                    (
                        "sum(rate(kcp_gateway_backend_message_received_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "from backends",
                    ),
                ],
            ),
            panel(
                "Lost on the way",
                "ops",
                "Messages that never reached their backend because the session ended.",
                &[(
                    "sum by (backend, address) (rate(kcp_gateway_backend_messages_lost_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{backend}} {{address}}",
                )],
            ),
            panel(
                "Never delivered",
                "Bps",
                "Bytes on the way to players when their sessions ended.",
                &[
                    (
                        "sum by (instance) (rate(kcp_gateway_undelivered_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    (
                        "sum by (backend) (rate(kcp_gateway_backend_lost_bytes_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{backend}}, not yet on the way",
                    ),
                ],
            ),
        ],
    ),
    (
        "NATS",
        &[
            panel(
                "Connection",
                "short",
                "1 while there is one.",
                &[(
                    "min by (instance) (kcp_gateway_nats_connected{instance=~\"$instance\"})",
                    "{{instance}}",
                )],
            ),
            panel(
                "Messages",
                "ops",
                "Messages of players that were published, and messages for players that came.",
                &[
                    (
                        "sum by (instance) (rate(kcp_gateway_nats_messages_published_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} published",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_nats_messages_delivered_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} came",
                    ),
                ],
            ),
            panel(
                "Messages lost",
                "ops",
                "Between the gateway and its backends at NATS, by reason.",
                &[(
                    "sum by (reason) (rate(kcp_gateway_nats_lost_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{reason}}",
                )],
            ),
        ],
    ),
    (
        "Waiting",
        &[
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
                "Waiting for the kernel",
                "bytes",
                "What the kernel has not taken yet: backends that read slowly.",
                &[(
                    "sum by (instance) (kcp_gateway_upstream_queued_bytes{instance=~\"$instance\"})",
                    "{{instance}}",
                )],
            ),
            panel(
                "Who waits for whom",
                "ops",
                "Times that a session had to wait for its backend, or a backend for a player.",
                &[(
                    "sum by (backend, for) (rate(kcp_gateway_backend_waits_total{instance=~\"$instance\"}[$__rate_interval]))",
                    "{{backend}}: for the {{for}}",
                )],
            ),
            panel(
                "Reads and sends",
                "ops",
                "Operations of the connections to backends.",
                &[
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_reads_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} reads",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_upstream_sends_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} sends",
                    ),
                ],
            ),
            panel(
                "Held up",
                "ops",
                "Sends that a connection did not take whole, writes held by a bound of ours, reads without a buffer.",
                &[
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
        ],
    ),
];
