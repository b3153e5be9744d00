//! kcp-deploy: makes what is generated.
#![forbid(unsafe_code)]

use std::fs;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kcp_deploy::{dashboards, rules};

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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Dashboards => write_dashboards(),
    }
}

fn write_dashboards() -> anyhow::Result<()> {
    for dashboard in dashboards::ALL {
        let path = rules::home().join("grafana").join(format!("{}.json", dashboard.name));
        fs::write(&path, dashboard.to_text()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
