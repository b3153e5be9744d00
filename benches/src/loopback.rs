//! The drivers alone: datagrams over loopback between two drivers of one thread.

use std::io;

use anyhow::Result;
use net_io::{Destination, Driver, DriverConfig, EpollDriver, UdpSocket, UringDriver};

use crate::cpu;
use crate::micro::Effort;
use crate::raw;

/// Measures both and prints a table.
///
/// # Errors
/// A driver is refused by the host or breaks.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(effort: Effort) -> Result<()> {
    println!("A datagram over loopback, sent and received by one thread, ns\n");
    println!(
        "{:<8} {:>6} {:>9} {:>9} {:>9}",
        "driver", "bytes", "1 a turn", "32 a turn", "a train"
    );
    for size in [64, 1400] {
        let single = DriverConfig { gso: false, ..DriverConfig::default() };
        let trains = DriverConfig::default();
        let uring =
            |config: &DriverConfig| Ok((UringDriver::new(config)?, UringDriver::new(config)?));
        let epoll =
            |config: &DriverConfig| Ok((EpollDriver::new(config)?, EpollDriver::new(config)?));
        row("uring", size, effort, [uring(&single), uring(&single), uring(&trains)])?;
        row("epoll", size, effort, [epoll(&single), epoll(&single), epoll(&trains)])?;
    }
    Ok(())
}

type Drivers<D> = io::Result<(D, D)>;

#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
fn row<D: Driver<Socket = UdpSocket>>(
    name: &str,
    size: usize,
    effort: Effort,
    [one, many, trains]: [Drivers<D>; 3],
) -> Result<()> {
    let one = fastest(one?, size, 1, effort)?;
    let many = fastest(many?, size, BATCH, effort)?;
    let trains = fastest(trains?, size, BATCH, effort)?;
    println!("{name:<8} {size:>6} {one:>9.0} {many:>9.0} {trains:>9.0}");
    Ok(())
}

/// Nanoseconds of one datagram in the fastest batch, `at_once` of them sent in a turn.
fn fastest<D: Driver<Socket = UdpSocket>>(
    (mut sender, mut receiver): (D, D),
    size: usize,
    at_once: u32,
    effort: Effort,
) -> Result<f64> {
    let (socket, peer) = raw::bind()?;
    receiver.add_socket(socket)?;
    let socket = sender.add_socket(raw::bind()?.0)?;
    let to = Destination { socket, peer, local: None };
    let turns = effort.repeats.div_ceil(LIGHTER).div_ceil(at_once);
    let mut fastest = f64::INFINITY;
    for _ in 0..effort.batches {
        let began = cpu::now();
        for _ in 0..turns {
            turn(&mut sender, &mut receiver, size, at_once, &to)?;
        }
        let datagrams = f64::from(turns) * f64::from(at_once);
        fastest = fastest.min(began.elapsed().as_secs_f64() * 1e9 / datagrams);
    }
    Ok(fastest)
}

fn turn<D: Driver<Socket = UdpSocket>>(
    sender: &mut D,
    receiver: &mut D,
    size: usize,
    at_once: u32,
    to: &Destination,
) -> io::Result<()> {
    for n in 0..at_once {
        driver_slot(sender, size, n);
        sender.queue(size, to);
    }
    // In the past: it sends and looks, and does not wait.
    sender.submit_and_wait(Some(sender.now()))?;
    let mut received = 0;
    while received < at_once {
        receiver.submit_and_wait(None)?;
        while let Some(datagram) = receiver.recv() {
            assert_eq!(datagram.payload.len(), size, "datagrams arrive whole");
            received += 1;
        }
    }
    Ok(())
}

fn driver_slot<D: Driver>(driver: &mut D, size: usize, n: u32) {
    let slot = &mut driver.slot(size)[..size];
    slot[..4].copy_from_slice(&n.to_le_bytes());
}

/// Datagrams of one turn: as many as epoll takes with one call, and a train as long as it may be.
const BATCH: u32 = 32;
/// A datagram takes that much longer than a round trip in memory.
const LIGHTER: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_around() {
        let config = DriverConfig::default();
        let drivers = (EpollDriver::new(&config).unwrap(), EpollDriver::new(&config).unwrap());
        let ns = fastest(drivers, 64, 32, Effort::SMOKE).unwrap();
        assert!(ns > 0.0 && ns.is_finite());
    }
}
