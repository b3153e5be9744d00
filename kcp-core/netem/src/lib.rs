//! A seeded bad network, sans-IO: packets and times go in, packets and times come out.
//!
//! A [`Link`] is one direction between two ends. It loses packets alone or in bursts, delays, reorders, duplicates,
//! corrupts, limits the rate behind a bounded queue, and goes dark at set times. It never reads a clock and never does
//! I/O: a simulation drives it with virtual time, a proxy with the real one. The same seed, settings and pushes give the
//! same packets at the same times, on every platform.
//!
//! ```
//! use netem::{Link, LinkConfig};
//!
//! let config = LinkConfig { loss_ppm: 10_000, delay_us: 20_000, ..LinkConfig::default() };
//! let mut link = Link::new(config, 42);
//! link.push(0, b"hello".to_vec());
//! assert_eq!(link.pop(0), None);
//! assert_eq!(link.next_time(), Some(20_000));
//! assert_eq!(link.pop(20_000), Some(b"hello".to_vec()));
//! ```
#![forbid(unsafe_code)]

mod config;
mod link;
mod rng;

pub use config::{Blackout, Bursts, LinkConfig};
pub use link::{Counters, Link};
pub use rng::Rng;
