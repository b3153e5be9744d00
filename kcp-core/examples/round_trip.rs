//! One message and its echo between two peers in memory, by this crate or by the C reference, as often as asked.
//!
//! Meant for counting instructions, which a busy machine does not blur:
//!
//! ```text
//! cargo build --release -p kcp-core --example round_trip
//! valgrind --tool=callgrind target/release/examples/round_trip ours 64 1000
//! ```
//!
//! Two runs with different counts, divided by their difference, leave the start-up out. Without valgrind the wall time per
//! round trip is printed. Both peers are set to nodelay 1, interval 10, resend 2, no congestion window; the clock advances one
//! interval per round, so that each peer flushes once; the acknowledgement leaves with the echo.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::expect_used, reason = "a benchmark that goes wrong must stop")]

use std::hint::black_box;
use std::time::Instant;

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};
use kcp_oracle::Reference;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: round_trip ours|c BYTES COUNT");
    let (which, size, count) = (next()?, next()?.parse()?, next()?.parse()?);
    let message = vec![7; size];
    let start = Instant::now();
    match which.as_str() {
        "ours" => ours(&message, count),
        "c" => reference(&message, count),
        _ => return Err("the first argument is ours or c".into()),
    }
    println!(
        "{which} {size} B: {:.0} ns per round trip",
        start.elapsed().as_nanos() as f64 / f64::from(count)
    );
    Ok(())
}

fn ours(message: &[u8], count: u32) {
    // The settings and the buffers' size are not to be known when this is compiled.
    let config = black_box(KcpConfig::game());
    let mut store = Store::new(1 << 20);
    let mut cx = Cx { config: &config, store: &mut store };
    let (mut client, mut server) = (Kcp::new(Conv(1)), Kcp::new(Conv(1)));
    let mtu = black_box(1_400);
    let (mut wire, mut echo) = (vec![0; mtu], vec![0; mtu]);
    for round in 0..count {
        let now = Millis(round * 10);
        let mut echo_len = None;
        client.send(&mut cx, message).expect("the store has room");
        client.flush(&mut cx, now);
        while let Some(len) = client.poll_transmit(&mut cx, now, &mut wire) {
            let taken = server.handle_datagram(&mut cx, now, &wire[..len], |message| {
                echo[..message.len()].copy_from_slice(message);
                echo_len = Some(message.len());
                true
            });
            taken.expect("an honest datagram");
        }
        server.send(&mut cx, &echo[..echo_len.expect("delivered")]).expect("the store has room");
        server.flush(&mut cx, now);
        let mut done = false;
        while let Some(len) = server.poll_transmit(&mut cx, now, &mut wire) {
            let taken = client.handle_datagram(&mut cx, now, &wire[..len], |message| {
                black_box(message);
                done = true;
                true
            });
            taken.expect("an honest datagram");
        }
        assert!(done);
    }
}

fn reference(message: &[u8], count: u32) {
    let (mut client, mut server) = (Reference::new(1), Reference::new(1));
    for end in [&mut client, &mut server] {
        end.nodelay(1, 10, 2, 1);
        end.wndsize(256, 256);
    }
    let mut buf = [0; 1400];
    for round in 0..count {
        let now = round * 10;
        client.send(message);
        client.update(now);
        for datagram in client.output().iter() {
            assert_eq!(server.input(datagram), 0);
        }
        client.output_mut().clear();
        let len = usize::try_from(server.recv(&mut buf)).expect("delivered");
        server.send(&buf[..len]);
        server.update(now);
        for datagram in server.output().iter() {
            assert_eq!(client.input(datagram), 0);
        }
        server.output_mut().clear();
        assert_eq!(black_box(client.recv(&mut buf)), i32::try_from(len).expect("a small message"));
    }
}
