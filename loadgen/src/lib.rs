//! Real KCP sessions by the thousand or the million, with honest latency figures.
//!
//! ```text
//!  cli --> Scenario --> run (controller) ----- orders, wake-ups ----> worker 0..W   one thread, one Driver, one Fleet each
//!                          |  ^                                          |
//!                progress <+  +------- gauges, outcomes -----------------+
//!                          v
//!                       Report --> JSON, table, exit code
//!
//!  a worker's turn:  driver.submit_and_wait --> datagrams --> Session { Kcp, Flow } --> Meter
//!                    ramp and schedule due --> messages --> Agenda --> flush --> driver.queue
//! ```
//!
//! It measures with the crates it loads: `net-io` moves the datagrams, `kcp-core` speaks the protocol.
//!
//! What makes the figures honest:
//! - **Open loop**: messages leave by a schedule, and latency counts from the time a message *should* have left. A target that
//!   stalls cannot slow the load down and so hide its stall (no coordinated omission).
//! - **Integrity**: every message says who it is and carries a checksum; loss, duplication, reordering and damage fail the run.
//! - **Its own lateness is not the target's loss**: sessions are stock clients on the wire, with one difference: a timeout that
//!   passed while this process was behind what had arrived causes a resend only once that is taken in. A stock client would
//!   send again what is already acknowledged in its socket. How far behind a worker was is in the report.
//! - **Its own limits are named**: a busy worker, a late schedule, an overflowed socket are reported as the generator's.
#![forbid(unsafe_code)]

mod agenda;
pub mod check;
pub mod cli;
mod client;
pub mod convs;
pub mod demo;
mod fleet;
pub mod host;
pub mod impair;
mod ledger;
mod live;
pub mod meter;
pub mod payload;
mod plan;
pub mod progress;
mod reading;
mod recut;
pub mod report;
mod run;
pub mod scenario;
mod schedule;
pub mod seed;
mod sequence;
pub mod serve;
pub mod sources;
mod storm;
mod timeline;
mod worker;

pub use progress::ProgressMode;
pub use report::Report;
pub use run::{RunError, run, run_with};
pub use scenario::Scenario;
pub use worker::WorkerError;

/// The commit that this was built from, `-dirty` behind it where the tree had changes; `unknown` without git.
pub const COMMIT: &str = env!("KCP_LOADGEN_COMMIT");
