//! The connection to NATS as series.

use super::{Def, Families, counter, float, gauge};
use crate::upstream::nats::stats::{Loss, NatsStat, NatsStats};

const LOST: Def = counter(
    "kcp_gateway_nats_lost_total",
    "Messages that did not get from a client to NATS, or from NATS to a client, by reason.",
);

/// How a counter or gauge is exported.
fn of(stat: NatsStat) -> Def {
    match stat {
        NatsStat::Connected => {
            gauge("kcp_gateway_nats_connected", "1 while the connection to NATS is there.")
        }
        NatsStat::Connects => {
            counter("kcp_gateway_nats_connects_total", "Connections to NATS that were made.")
        }
        NatsStat::Published => counter(
            "kcp_gateway_nats_messages_published_total",
            "Messages of clients that were published.",
        ),
        NatsStat::PublishedBytes => counter(
            "kcp_gateway_nats_message_published_bytes_total",
            "Bytes of messages of clients that were published.",
        ),
        NatsStat::Delivered => counter(
            "kcp_gateway_nats_messages_delivered_total",
            "Messages for clients that their shards took; one for a room counts for each member.",
        ),
        NatsStat::DeliveredBytes => counter(
            "kcp_gateway_nats_message_delivered_bytes_total",
            "Bytes of messages for clients that their shards took.",
        ),
        NatsStat::ReceivedPeakBytes => gauge(
            "kcp_gateway_nats_received_peak_bytes",
            "Most bytes that had come from NATS before they were looked at, since the connection was made.",
        ),
        NatsStat::Rooms => gauge("kcp_gateway_nats_rooms", "Rooms with members at this gateway."),
        NatsStat::Members => {
            gauge("kcp_gateway_nats_room_members", "Memberships of sessions in rooms.")
        }
    }
}

/// Everything that this file exports.
#[cfg(test)]
pub(super) fn all() -> Vec<Def> {
    let losses = Loss::ALL.iter().map(|reason| LOST.with("reason", reason.label()));
    NatsStat::ALL.iter().map(|stat| of(*stat)).chain(losses).collect()
}

/// Adds the series.
pub(super) fn collect(stats: &NatsStats, families: &mut Families) {
    for stat in NatsStat::ALL {
        families.add(of(*stat), &[], float(stats.get(*stat)));
    }
    for reason in Loss::ALL {
        families.add(LOST.with("reason", reason.label()), &[], float(stats.losses(*reason)));
    }
}
