//! The scoreboard: the gateway beside the limit and beside others, and the protocol alone. How to read it: README.md.
#![forbid(unsafe_code)]

mod case;
mod compare;
mod cpu;
mod micro;
mod peers;
mod raw;
mod scoreboard;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "kcp-benches", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The gateway beside raw UDP echo, each on a core of its own, in interleaved rounds.
    Compare(compare::Plan),
    /// The protocol alone, in time and in instructions, beside the C library.
    Micro {
        /// One iteration: shows that it runs, measures nothing.
        #[arg(long)]
        smoke: bool,
    },
    /// Runs round trips and says nothing: what `micro` counts the instructions of.
    #[command(hide = true)]
    Trips { implementation: micro::Implementation, size: usize, count: u32 },
    /// A server of `compare` in a process of its own.
    #[command(hide = true)]
    Serve {
        server: server::Server,
        #[arg(long)]
        io: server::Io,
        #[arg(long)]
        core: usize,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare(plan) => compare::run(plan),
        Command::Micro { smoke } => {
            micro::run(if smoke { micro::Effort::SMOKE } else { micro::Effort::FULL })
        }
        Command::Trips { implementation, size, count } => {
            micro::trips(implementation, size, count);
            Ok(())
        }
        Command::Serve { server, io, core } => server::serve(server, io, core),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kcp-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}
