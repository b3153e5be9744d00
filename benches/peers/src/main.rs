//! Servers and protocol cores of other projects, each used as its documentation would have it: started by `kcp-benches`,
//! which pins this process and gives it its socket as standard input.

#![forbid(unsafe_code)]

mod pairs;
mod servers;
#[path = "../../src/trips.rs"]
mod trips;

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["tokio_kcp"] => servers::tokio_kcp(),
        ["kcp-tokio"] => servers::kcp_tokio(),
        ["trips", core, size, trips, batches] => round_trips(core, size, trips, batches),
        _ => {
            Err("usage: kcp-peers tokio_kcp | kcp-tokio | trips kcp|kcp2 SIZE TRIPS BATCHES".into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kcp-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the nanoseconds of one round trip.
fn round_trips(core: &str, size: &str, trips: &str, batches: &str) -> Result<(), Box<dyn Error>> {
    let (size, trips, batches) = (size.parse()?, trips.parse()?, batches.parse()?);
    let nanoseconds = match core {
        "kcp" => trips::fastest(pairs::kcp(), size, trips, batches),
        "kcp2" => trips::fastest(pairs::kcp2(), size, trips, batches),
        other => return Err(format!("no core `{other}`").into()),
    };
    println!("{nanoseconds}");
    Ok(())
}
