//! What is exported of backends: what the control plane knows of them, and what all shards together counted for each.

use super::{Def, Families, counter, float, gauge, one_if};
use crate::config::Upstream;
use crate::control::backends::registry::Registry;
use crate::control::backends::{Numbers, Standing};
use crate::shard::backend_stats::{BackendStat, ConnectFailure, LinkEnd, Parting};
use crate::upstream::backend::BackendId;

const POLICY_INFO: Def = gauge(
    "kcp_gateway_backend_policy_info",
    "Which backend a session gets, what becomes of it when that is lost and when its client is slow; always 1.",
);
const UP: Def =
    gauge("kcp_gateway_backend_up", "1 while new sessions may be given this address of a backend.");
const STATE: Def = gauge(
    "kcp_gateway_backend_state",
    "1 for the state that an address of a backend is in, 0 for the others.",
);
const CHECKS: Def = counter(
    "kcp_gateway_backend_checks_total",
    "Checks of an address, and attempts to connect a link to it, by outcome.",
);
const EJECTIONS: Def = counter(
    "kcp_gateway_backend_ejections_total",
    "Times an address got no new sessions for a while, because those before did not get through.",
);
const RESOLUTIONS: Def = counter(
    "kcp_gateway_backend_resolutions_total",
    "Questions for the addresses of a backend's names, by outcome.",
);
const LEFT_OUT: Def = gauge(
    "kcp_gateway_backend_addresses_left_out",
    "Addresses of a backend that found no place, because too many are in use.",
);
const FILE_LOADS: Def = counter(
    "kcp_gateway_backend_file_loads_total",
    "Times the watched file of backends was read, by outcome.",
);
const WAITS: Def = counter(
    "kcp_gateway_backend_waits_total",
    "Times that one side of a session had to wait for the other.",
);
const CONNECT_FAILURES: Def = counter(
    "kcp_gateway_backend_connect_failures_total",
    "Connections of sessions that could not be made, by reason.",
);
const SESSIONS_ENDED: Def =
    counter("kcp_gateway_backend_sessions_ended_total", "Sessions that left the backend, by how.");
const LINKS_ENDED: Def = counter(
    "kcp_gateway_backend_links_ended_total",
    "Links for many sessions that ended or retired, by reason.",
);

/// How a shard's counter or gauge of a backend is exported.
const fn of_stat(stat: BackendStat) -> Def {
    match stat {
        BackendStat::Sessions => {
            gauge("kcp_gateway_backend_sessions", "Live sessions that have the backend.")
        }
        BackendStat::Connecting => {
            gauge("kcp_gateway_backend_connecting", "Connections of sessions being made.")
        }
        BackendStat::Closing => gauge(
            "kcp_gateway_backend_closing",
            "Connections whose session has ended and that the backend has not ended yet.",
        ),
        BackendStat::Links => {
            gauge("kcp_gateway_backend_links", "Connections for many sessions in use.")
        }
        BackendStat::Streams => gauge(
            "kcp_gateway_backend_streams",
            "Streams on links, those whose session has ended included.",
        ),
        BackendStat::SessionsAssigned => counter(
            "kcp_gateway_backend_sessions_assigned_total",
            "Sessions that were given the backend.",
        ),
        BackendStat::Connects => {
            counter("kcp_gateway_backend_connects_total", "Connections of sessions made.")
        }
        BackendStat::SessionsRerouted => counter(
            "kcp_gateway_backend_sessions_rerouted_total",
            "Sessions that lost the backend and look for another.",
        ),
        BackendStat::MessagesOut => {
            counter("kcp_gateway_backend_messages_sent_total", "Messages handed to the backend.")
        }
        BackendStat::MessageBytesOut => counter(
            "kcp_gateway_backend_message_sent_bytes_total",
            "Bytes of messages handed to the backend.",
        ),
        BackendStat::MessagesIn => {
            counter("kcp_gateway_backend_messages_received_total", "Messages the backend sent.")
        }
        BackendStat::MessageBytesIn => counter(
            "kcp_gateway_backend_message_received_bytes_total",
            "Bytes of messages the backend sent.",
        ),
        BackendStat::EmptyIn => counter(
            "kcp_gateway_backend_empty_frames_total",
            "Zero-length frames the backend sent, passed over.",
        ),
        BackendStat::StreamsRefused => counter(
            "kcp_gateway_backend_streams_refused_total",
            "Streams that the backend tried to open on a link, refused.",
        ),
        BackendStat::LateBytes => counter(
            "kcp_gateway_backend_late_bytes_total",
            "Bytes that the backend sent on streams that were over, refused or never opened, dropped.",
        ),
        BackendStat::WaitedForBackend => WAITS.with("for", "backend"),
        BackendStat::WaitedForClient => WAITS.with("for", "client"),
        BackendStat::MessagesLost => counter(
            "kcp_gateway_backend_messages_lost_total",
            "Messages for the backend that had not left the gateway, or may not have, when their connection ended.",
        ),
        BackendStat::BytesLost => counter(
            "kcp_gateway_backend_lost_bytes_total",
            "Bytes of the backend's messages that still waited for their client when the session ended.",
        ),
    }
}

/// Adds all there is to say; `numbers` are what the shards counted.
pub(super) fn collect(
    upstream: &Upstream,
    registry: &Registry,
    numbers: &impl Fn(BackendId) -> Numbers,
    families: &mut Families,
) {
    let policies = upstream.policies();
    let policies = policies.each_ref().map(|(key, word)| (*key, word.as_str().unwrap_or("")));
    families.add(POLICY_INFO, &policies, 1.0);
    for seen in registry.addresses(numbers) {
        let labels = [("backend", seen.backend), ("address", seen.address.as_str())];
        families.add(UP, &labels, one_if(seen.standing == Standing::Up));
        for state in Standing::ALL {
            let def = STATE.with("state", state.label());
            families.add(def, &labels, one_if(state == seen.standing));
        }
        families.add(CHECKS.with("outcome", "passed"), &labels, float(seen.passed));
        families.add(CHECKS.with("outcome", "failed"), &labels, float(seen.failed));
        families.add(EJECTIONS, &labels, float(seen.ejections));
        for stat in BackendStat::ALL {
            families.add(of_stat(*stat), &labels, float(seen.numbers.get(*stat)));
        }
        for reason in ConnectFailure::ALL {
            let def = CONNECT_FAILURES.with("reason", reason.label());
            families.add(def, &labels, float(seen.numbers.failures(*reason)));
        }
        for how in Parting::ALL {
            let def = SESSIONS_ENDED.with("reason", how.label());
            families.add(def, &labels, float(seen.numbers.partings(*how)));
        }
        for reason in LinkEnd::ALL {
            let def = LINKS_ENDED.with("reason", reason.label());
            families.add(def, &labels, float(seen.numbers.links(*reason)));
        }
    }
    for (backend, succeeded, failed, left_out) in registry.resolutions() {
        let labels = [("backend", backend)];
        families.add(RESOLUTIONS.with("outcome", "answered"), &labels, float(succeeded));
        families.add(RESOLUTIONS.with("outcome", "failed"), &labels, float(failed));
        families.add(LEFT_OUT, &labels, float(left_out));
    }
    let (loads, failures) = registry.file_loads();
    families.add(FILE_LOADS.with("outcome", "taken"), &[], float(loads));
    families.add(FILE_LOADS.with("outcome", "refused"), &[], float(failures));
}

/// Every definition, for the tests that hold names to the conventions.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = Def> {
    let globals = [
        POLICY_INFO,
        UP,
        STATE,
        CHECKS,
        EJECTIONS,
        RESOLUTIONS,
        LEFT_OUT,
        FILE_LOADS,
        CONNECT_FAILURES,
        SESSIONS_ENDED,
        LINKS_ENDED,
    ];
    BackendStat::ALL.iter().map(|stat| of_stat(*stat)).chain(globals)
}
