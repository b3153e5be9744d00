//! What went no further, and why.

use super::{Rows, panel};

pub(super) const ROWS: Rows = &[
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
                "Drops for each datagram received; answers that an unproven address did not get are not among them.",
                &[(
                    "sum by (instance) (instance_reason:kcp_gateway_drops:rate5m{instance=~\"$instance\",reason!=\"amplification\"}) / sum by (instance) (instance:kcp_gateway_datagrams_received:rate5m{instance=~\"$instance\"})",
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
                "Requests for payload memory that the bound refused, and windows closed so that it does not come to that.",
                &[
                    (
                        "sum by (instance) (rate(kcp_gateway_store_full_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} refused",
                    ),
                    (
                        "sum by (instance) (rate(kcp_gateway_windows_withheld_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "{{instance}} windows closed",
                    ),
                ],
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
