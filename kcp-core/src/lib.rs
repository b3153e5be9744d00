//! KCP as a pure state machine: the protocol of the C library `ikcp`, release 2.1.1, bit for bit, without its I/O, its
//! clock and its unbounded lists.
//!
//! A [`Kcp`] is one end of one conversation. It never reads a clock, never sends and never waits: bytes, times and
//! messages go in, datagrams, messages and deadlines come out. What all conversations of a listener have in common is a
//! [`KcpConfig`]; what they need only while data is under way lives in a [`Store`] that a thread's conversations share.
//! An idle conversation is its struct and nothing else.
//!
//! # The calling contract
//!
//! 1. **Input**: [`Kcp::handle_datagram`] for each datagram from the peer, [`Kcp::send`] for each message to it, in any
//!    number and order. Messages come back through the `deliver` argument as soon as they are whole and in order, and
//!    the rest through [`Kcp::recv`], which is called until it returns an error.
//! 2. **Flush**: after the last input of a turn, [`Kcp::flush`] once (policy [`FlushPolicy::Turn`]), or
//!    [`Kcp::handle_timeout`] when its time has come (policy [`FlushPolicy::Interval`], the reference's).
//! 3. **Drain**: [`Kcp::poll_transmit`] until it returns `None`; each call fills one datagram. Acks and data of the turn
//!    leave together. If a caller runs out of room in between, it goes on later: input is allowed meanwhile.
//! 4. **Wait**: [`Kcp::poll_timeout`] says until when, or that nothing but input can change anything. When that time
//!    comes, go to 2 with [`Kcp::handle_timeout`].
//!    A caller that may fall behind what arrives judges timeouts by [`Heard`], not by its clock.
//! 5. **End**: [`Kcp::reset`] before the conversation is dropped, so that the store gets back what it holds.
//!    KCP has no closing handshake: that a peer is gone is seen by [`Kcp::is_dead`] or by silence.
//!
//! Time is [`Millis`], 32 bits from any epoch; it wraps and is compared by [`Millis::since`] only. It may stand still
//! between calls and should not go back; a jump is survived as the reference survives it.
//!
//! ```
//! use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};
//!
//! let config = KcpConfig::game();
//! let mut store = Store::new(1 << 20);
//! let mut cx = Cx { config: &config, store: &mut store };
//! let (mut here, mut there) = (Kcp::new(Conv(1)), Kcp::new(Conv(1)));
//! let now = Millis(0);
//!
//! here.send(&mut cx, b"hello")?; // 1
//! here.flush(&mut cx, now); // 2
//! let mut datagram = [0; 1400];
//! let mut messages = Vec::new();
//! while let Some(len) = here.poll_transmit(&mut cx, now, &mut datagram) {
//!     // 3, and the other side's 1
//!     let deliver = |message: &[u8]| {
//!         messages.push(message.to_vec());
//!         true
//!     };
//!     there.handle_datagram(&mut cx, now, &datagram[..len], deliver).expect("an honest datagram");
//! }
//! assert_eq!(messages, [b"hello"]);
//! assert_eq!(here.poll_timeout(&cx, now), Some(Millis(200))); // 4: resend if no ack comes
//!
//! there.flush(&mut cx, now);
//! while let Some(len) = there.poll_transmit(&mut cx, now, &mut datagram) {
//!     here.handle_datagram(&mut cx, now, &datagram[..len], |_| false).expect("an honest datagram");
//! }
//! assert!(here.is_idle() && here.poll_timeout(&cx, now).is_none());
//! # Ok::<(), kcp_core::SendError>(())
//! ```
//!
//! # What is guaranteed
//!
//! - With `strict` off and policy `Interval`, every byte sent, every return value and every window and timer is the
//!   reference's, release 1.7.1 or 2.1.1 by [`Reference`]. Exceptions: what is undefined behaviour there,
//!   reordering by 65,536 segments and more, which is not kept, and windows told, with the WINS that tells of one, from
//!   when messages wait unread in a [short](Store::is_short) store until the peer has its whole window again.
//! - No input panics and none is believed that names what was never sent (`strict`). What a peer can make an end hold is
//!   bounded: fragments by `2 * rcv_wnd`, acks by `2 * rcv_wnd`, all bytes by the store.
//! - Removing an acknowledged segment, inserting a received one, and a flush in which nothing times out cost the same
//!   however many segments are in flight. Nothing is allocated once the store has seen the load.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod error;
pub mod heard;
pub mod kcp;
pub mod stats;
pub mod store;
pub mod units;
pub mod wheel;
pub mod wire;

mod ack;
mod block;
mod congestion;
mod datagram;
mod deadline;
mod flush;
mod grant;
mod input;
mod probe;
mod recv;
mod ring;
mod rtt;
mod segment;
mod send;

pub use config::{ConfigError, FlushPolicy, KcpConfig, Reference};
pub use error::{InputError, RecvError, SendError};
pub use heard::Heard;
pub use input::FAR_BEHIND;
pub use kcp::{Cx, Kcp, Kept, QueueLengths, Resends};
pub use segment::InFlight;
pub use stats::Stats;
pub use store::Store;
pub use units::{Conv, Millis, Sn};
pub use wheel::Wheel;
