//! The control plane from outside: the admin port of gateways in this process, and the program as a child process.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop where it stands"
)]

mod admin;
mod backends;
mod client;
mod dns;
mod http;
mod prober;
mod process;
mod start;
mod upkeep;
