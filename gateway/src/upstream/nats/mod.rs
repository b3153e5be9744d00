//! `nats`: sessions as subjects of a messaging engine, so that any gateway reaches any backend.
//!
//! The gateway's end is one connection on a thread of its own (`control::nats`); shards reach it through the bounded queues of
//! [`bridge`], and this module has what both sides agree on.
//!
//! # Subjects
//! `G` is the gateway's id (`upstream.nats_gateway`), `S` a session of it: lower-case hexadecimal numbers with `-` between, to be
//! taken as they are. A session's subjects are never used for another. The first number is drawn when the gateway starts: sessions
//! whose first number is an earlier one than that of the last `open` have ended, also where a gateway that died could not say so.
//!
//! | subject | published by | what it says |
//! |---|---|---|
//! | `kcp.G.S.open` | gateway | a session began; the payload is a JSON object with `client`, `listener` and `conv` |
//! | `kcp.G.S.in` | gateway | a message of its client; its reply subject is `kcp.G.S.out`, so that to respond is to answer the client |
//! | `kcp.G.S.close` | gateway | it ended; the payload is the reason, a label of `kcp_gateway_sessions_ended_total` |
//! | `kcp.G.S.out` | backend | a message for its client |
//! | `kcp.G.S.out` with header `Kcp-Op: close` | backend | a request to end it, after what was published before |
//! | `kcp.G.S.out` with header `Kcp-Op: join` | backend | it joins the room named by the payload |
//! | `kcp.G.S.out` with header `Kcp-Op: leave` | backend | it leaves that room |
//! | `kcp.G.@ROOM.out` | backend | a message for every session of the gateway that is in ROOM |
//! | `kcp.all.@ROOM.out` | backend | the same at every gateway |
//!
//! A room exists while it has members; its name is 1 to 64 letters, digits, `_` and `-`.
//!
//! Of one session, `open` comes first, then its messages in order, then `close`, to whoever subscribes to them with one
//! wildcard (`kcp.*.*.*`, `kcp.G.*.*`). Backends without state subscribe in a queue group, and each message goes to one of
//! them; backends with state share the gateways out among themselves, or the sessions, by what `open` says. The gateway
//! subscribes to `kcp.G.*.out` and to `kcp.all.*.out`, however many sessions it has. What one backend publishes under the first
//! keeps its order, and a join comes before what is said to the room after it; all else between the two does not.
//!
//! A gateway needs permission to publish to `kcp.G.>` and to subscribe to the two above. Who may publish to them speaks to its
//! clients: that is for backends alone.
//!
//! # What may be lost
//! Messages are delivered at most once. While the connection is down, clients wait: their receive windows close, and nothing
//! is taken from them. Messages that had been sent and not yet confirmed by the server when the connection broke may be lost, and are
//! counted as such; so is a message that nobody subscribes to, which the server tells. Towards clients nothing waits beyond the
//! bounds: a message that a session has no room for is dropped, or ends the session (`upstream.overflow`). Each loss is counted
//! by its [`stats::Loss`].
//!
//! What a backend publishes while the gateway has no connection ends at the server, where nobody subscribes to it, and the
//! gateway cannot know. A backend that wants to know publishes with a reply subject of its own: the server answers with status
//! 503 then (no responders).

pub mod bridge;
pub mod stats;
pub mod subject;
