//! The smallest correct loop: two peers, a clock that jumps to the next deadline, and a wire that loses every fifth
//! datagram. Run it with `cargo run -p kcp-core --example two_peers`.
#![expect(clippy::print_stdout, reason = "an example shows what happened")]

use std::collections::VecDeque;

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, SendError, Store};

fn main() -> Result<(), SendError> {
    let config = KcpConfig::game();
    let mut store = Store::new(1 << 20);
    let mut cx = Cx { config: &config, store: &mut store };
    let mut peers = [Kcp::new(Conv(7)), Kcp::new(Conv(7))];
    let mut wires = [VecDeque::new(), VecDeque::new()];
    let mut now = Millis(0);
    let mut sent_datagrams = 0_u32;
    let mut echoes = 0;

    for i in 0..10_u8 {
        peers[0].send(&mut cx, &[i; 100])?;
    }
    while echoes < 10 {
        // Input first: every datagram that has arrived. Peer 1 echoes what it gets.
        for (to, peer) in peers.iter_mut().enumerate() {
            let mut messages = Vec::new();
            while let Some(datagram) = wires[to].pop_front() {
                let datagram: Vec<u8> = datagram;
                let taken = peer.handle_datagram(&mut cx, now, &datagram, |message| {
                    messages.push(message.to_vec());
                    true
                });
                if let Err(rule) = taken {
                    println!("refused: {rule:?}");
                }
            }
            // What could not be handed over straight from a datagram: fragmented messages, and what waited for a gap.
            let mut buf = [0; 2048];
            while let Ok(len) = peer.recv(&mut cx, &mut buf) {
                messages.push(buf[..len].to_vec());
            }
            for message in messages {
                if to == 1 {
                    peer.send(&mut cx, &message)?;
                } else {
                    println!("{:4} ms: echo of message {}", now.0, message[0]);
                    echoes += 1;
                }
            }
        }
        // Then one flush per peer, drained to the end.
        for (from, peer) in peers.iter_mut().enumerate() {
            peer.flush(&mut cx, now);
            let mut buf = [0; 1400];
            while let Some(len) = peer.poll_transmit(&mut cx, now, &mut buf) {
                sent_datagrams += 1;
                if !sent_datagrams.is_multiple_of(5) {
                    wires[1 - from].push_back(buf[..len].to_vec());
                }
            }
        }
        // Then wait: the wire takes 20 ms; a deadline may come first, or be all there is.
        let arrival = wires.iter().any(|wire| !wire.is_empty()).then_some(now.add(20));
        let deadlines = peers.iter().filter_map(|peer| peer.poll_timeout(&cx, now));
        now = deadlines.chain(arrival).reduce(Millis::earliest).unwrap_or(now);
    }
    for peer in &mut peers {
        println!("{:?}, {} ms round trip", peer.resends(), peer.srtt());
        peer.reset(cx.store);
    }
    Ok(())
}
