//! The scoreboard: the gateway beside the limit and beside others, and the protocol alone. How to read it: README.md.
#![forbid(unsafe_code)]

mod case;
mod compare;
mod contender;
mod cores;
mod cpu;
mod fronting;
mod ikcp;
mod load;
mod loopback;
mod machine;
mod micro;
mod outsider;
mod overload;
mod pairs;
mod picture;
mod raw;
mod scale;
mod scoreboard;
mod server;
mod shards;
mod structures;
mod table;
mod trips;
mod watched;

use std::path::PathBuf;
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
    /// The gateway beside other servers and beside the limit, on a core of their own, in interleaved rounds.
    Compare(compare::Plan),
    /// Two shards beside one at the same rate for each: do they slow each other down?
    Shards(shards::Plan),
    /// What sessions cost, by the thousand and by the ten million.
    Scale(scale::Plan),
    /// Twice as much as the gateway can do on a core that it has to share.
    Overload(overload::Plan),
    /// The gateway in front of backends: a crowd, a backend killed, CPU per message, memory while a backend hardly moves.
    Fronting(Box<fronting::Plan>),
    /// The parts alone: the protocol, in time and in instructions, beside other implementations; timers, table, drivers.
    Micro {
        /// One iteration: shows that it runs, measures nothing.
        #[arg(long)]
        smoke: bool,
        /// This part only
        #[arg(long, value_enum)]
        part: Option<micro::Part>,
    },
    /// Runs round trips and prints the time of one: what `micro` counts the instructions of.
    #[command(hide = true)]
    Trips { implementation: cores::Implementation, size: usize, trips: u32, batches: u32 },
    /// A server of `compare` in a process of its own.
    #[command(hide = true)]
    Serve { server: contender::Server, io: contender::Io, core: usize },
    /// A gateway in a process of its own that tells what it counted.
    #[command(hide = true)]
    Watched(watched::Settings),
    /// A backend in a process of its own.
    #[command(hide = true)]
    Backend(fronting::stage::BackendSettings),
    /// A gateway with backends in a process of its own.
    #[command(hide = true)]
    Front(fronting::stage::FrontSettings),
    /// The load generator in a process of its own.
    #[command(hide = true)]
    Load(Box<kcp_loadgen::cli::RunArgs>),
    /// The gateway of `overload`.
    #[command(hide = true)]
    OverloadGateway { io: contender::Io, core: usize },
    /// What shares its core.
    #[command(hide = true)]
    OverloadLoop { core: usize },
    /// Turns into another program on a core of its own.
    #[command(hide = true)]
    Become {
        core: usize,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare(plan) => compare::run(plan),
        Command::Shards(plan) => shards::run(plan),
        Command::Scale(plan) => scale::run(plan),
        Command::Fronting(plan) => fronting::run(*plan),
        Command::Backend(settings) => fronting::stage::serve_backend(&settings),
        Command::Front(settings) => fronting::stage::serve_front(&settings),
        Command::Watched(settings) => watched::serve(&settings),
        Command::Load(args) => load::run(&args),
        Command::Overload(plan) => overload::run(plan),
        Command::OverloadGateway { io, core } => overload::contest::gateway(io, core),
        Command::OverloadLoop { core } => overload::contest::busy_loop(core),
        Command::Micro { smoke, part } => {
            micro::run(if smoke { micro::Effort::SMOKE } else { micro::Effort::FULL }, part)
        }
        Command::Trips { implementation, size, trips, batches } => {
            cores::print_trips(implementation, size, trips, batches)
        }
        Command::Serve { server, io, core } => server::serve(server, io, core),
        Command::Become { core, words } => server::turn_into(core, &words),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kcp-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}
