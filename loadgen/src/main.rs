//! `kcp-loadgen`: parse, do, exit.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use crossbeam::channel::{after, never, select, tick};
use kcp_loadgen::cli::{Cli, Command, DemoArgs, ImpairArgs, OutputArgs, RunArgs, UsageError};
use kcp_loadgen::demo::demo;
use kcp_loadgen::impair::Proxy;
use kcp_loadgen::{Report, run_with};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Demo(args) => show(&args),
        Command::Impair(args) => disturb(&args),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::from(RUNTIME_FAILURE)
    })
}

fn run(args: &RunArgs) -> Result<ExitCode> {
    let scenario = match args.scenario() {
        Ok(scenario) => scenario,
        Err(error) => return bad_usage(&error),
    };
    let json = open_json(&args.output)?;
    let stop = stop_on_signal()?;
    let report = run_with(&scenario, args.output.progress.mode(), &stop)?;
    finish(&report, json)
}

fn show(args: &DemoArgs) -> Result<ExitCode> {
    let json = open_json(&args.output)?;
    let stop = stop_on_signal()?;
    let report = demo(&args.demo(), args.output.progress.mode(), &stop, &mut io::stdout().lock())?;
    finish(&report, json)
}

fn disturb(args: &ImpairArgs) -> Result<ExitCode> {
    let config = match args.impair() {
        Ok(config) => config,
        Err(error) => return bad_usage(&error),
    };
    let stop = stop_on_signal()?;
    let proxy = Proxy::start(&config)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "listening on {}, target {}, seed {}",
        proxy.listen_addr(),
        config.target,
        config.seed
    )?;
    out.flush()?;
    let end = args.duration.map_or_else(never, after);
    let look = tick(LOOK_EVERY);
    while !stop.load(Ordering::Relaxed) && !proxy.has_failed() {
        select! {
            recv(end) -> _ => break,
            recv(look) -> _ => {}
        }
    }
    proxy.stop()?.write_table(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn bad_usage(error: &UsageError) -> Result<ExitCode> {
    writeln!(io::stderr(), "error: {error}")?;
    Ok(ExitCode::from(BAD_USAGE))
}

/// Prints and writes the results.
fn finish(report: &Report, json: Option<Output<'_>>) -> Result<ExitCode> {
    report.write_table(&mut io::stdout().lock()).context("cannot write to standard output")?;
    if let Some(Output { path, file }) = json {
        let mut out = BufWriter::new(file);
        report
            .write_json(&mut out)
            .and_then(|()| out.flush())
            .with_context(|| format!("cannot write --json {}", path.display()))?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

struct Output<'a> {
    path: &'a Path,
    file: File,
}

/// Before the run: an hour's figures must not end in a directory that does not exist.
fn open_json(output: &OutputArgs) -> Result<Option<Output<'_>>> {
    let Some(path) = output.json.as_deref() else { return Ok(None) };
    let file =
        File::create(path).with_context(|| format!("cannot create --json {}", path.display()))?;
    Ok(Some(Output { path, file }))
}

/// The first signal ends the run with a report, the second ends the process.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let second = Arc::clone(&stop);
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(RUNTIME_FAILURE),
            second,
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
        .context("cannot handle signals")?;
    }
    Ok(stop)
}

const RUNTIME_FAILURE: u8 = 1;
const BAD_USAGE: u8 = 2;
const LOOK_EVERY: Duration = Duration::from_millis(50);
