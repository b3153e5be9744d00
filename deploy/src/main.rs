//! kcp-deploy: makes what is generated, and tries what can only be tried alive.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kcp_deploy::capacity::Capacity;
use kcp_deploy::drill::Drill;
use kcp_deploy::reloads::Reloads;
use kcp_deploy::scrapes::Scrapes;
use kcp_deploy::{dashboards, manifests, rules};

/// Makes and tries what operators are given.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the Grafana dashboards to deploy/grafana.
    Dashboards,
    /// Tell whether Kustomize and Helm made the same objects.
    Same {
        /// Kustomize's.
        kustomize: PathBuf,
        /// Helm's.
        helm: PathBuf,
    },
    /// Fire every alert by its fault, live. Needs root, iptables, Debian's prometheus and prometheus-alertmanager, and both
    /// programs built.
    Drill {
        /// Where kcp-gateway and kcp-loadgen are.
        #[arg(long, default_value = "target/release")]
        programs: PathBuf,
        /// Divide every duration of the rules by this; 1 takes an hour.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=30))]
        speed: u32,
        /// Only these alerts.
        #[arg(long, value_name = "ALERT")]
        only: Vec<String>,
        /// Draw the dashboards here, as SVG.
        #[arg(long, value_name = "DIR")]
        pictures: Option<PathBuf>,
        /// Write the outcome here.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Twenty reloads and a drain under load: fails when anything is lost. Needs both programs built.
    Reloads {
        /// Where kcp-gateway and kcp-loadgen are.
        #[arg(long, default_value = "target/release")]
        programs: PathBuf,
        /// Sessions that play.
        #[arg(long, default_value_t = 50_000)]
        sessions: u32,
        /// Messages per second of each.
        #[arg(long, default_value_t = 1)]
        rate: u32,
        /// Seconds that they play.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Measure what a scrape costs at many sessions, and what players notice. Wants a quiet machine and both programs built.
    Scrapes {
        /// Where kcp-gateway and kcp-loadgen are.
        #[arg(long, default_value = "target/release")]
        programs: PathBuf,
        /// Silent sessions.
        #[arg(long, default_value_t = 1_000_000)]
        sessions: u32,
        /// Sessions that play.
        #[arg(long, default_value_t = 1_000)]
        players: u32,
        /// Messages per second of each of them.
        #[arg(long, default_value_t = 10)]
        rate: u32,
        /// Seconds of a round.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// Rounds with a scrape every second, and as many without.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Measure CAPACITY.md's figures and write them there. Wants a quiet machine and both programs built.
    Capacity {
        /// Where kcp-gateway and kcp-loadgen are.
        #[arg(long, default_value = "target/release")]
        programs: PathBuf,
        /// Sessions at rest.
        #[arg(long, default_value_t = 100_000)]
        sessions: u32,
        /// Seconds that each load is measured.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Dashboards => write_dashboards(),
        Command::Same { kustomize, helm } => manifests::same(&kustomize, &helm),
        Command::Capacity { programs, sessions, seconds } => {
            Capacity { programs, sessions, time: Duration::from_secs(seconds) }.run()
        }
        Command::Reloads { programs, sessions, rate, seconds } => {
            Reloads { programs, sessions, rate, time: Duration::from_secs(seconds) }.run()
        }
        Command::Scrapes { programs, sessions, players, rate, seconds, rounds } => {
            let time = Duration::from_secs(seconds);
            Scrapes { programs, sessions, players, rate, time, rounds }.run()
        }
        Command::Drill { programs, speed, only, pictures, json } => {
            Drill { programs, speed, only, pictures, json }.run()
        }
    }
}

fn write_dashboards() -> anyhow::Result<()> {
    for dashboard in dashboards::ALL {
        let path = rules::home().join("grafana").join(format!("{}.json", dashboard.name));
        fs::write(&path, dashboard.to_text()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
