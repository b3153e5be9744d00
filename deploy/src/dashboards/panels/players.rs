//! How players are doing.

use super::{Rows, panel};

pub(super) const ROWS: Rows = &[
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
