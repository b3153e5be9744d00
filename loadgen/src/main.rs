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
use kcp_loadgen::cli::serve::ServeArgs;
use kcp_loadgen::cli::{Cli, Command, DemoArgs, ImpairArgs, OutputArgs, RunArgs, UsageError};
use kcp_loadgen::demo::demo;
use kcp_loadgen::impair::Proxy;
use kcp_loadgen::serve::{Kind, Server};
use kcp_loadgen::{Report, host, run_with};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Demo(args) => show(&args),
        Command::Impair(args) => disturb(&args),
        Command::Serve(args) => serve(&args),
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
    wait(args.duration, || stop.load(Ordering::Relaxed) || proxy.has_failed());
    proxy.stop()?.write_table(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn serve(args: &ServeArgs) -> Result<ExitCode> {
    let config = match args.serve() {
        Ok(config) => config,
        Err(error) => return bad_usage(&error),
    };
    let json = args.json.as_deref().map(create_json).transpose()?;
    // A connection each, and as many as there may be: the limit is the host's.
    let files = host::allow_most_files();
    let stop = stop_on_signal()?;
    let server = Server::start(&config)?;
    let mut out = io::stdout().lock();
    if config.kind == Kind::Nats {
        writeln!(out, "subscribed at {}, seed {}", config.nats, config.seed)?;
    }
    for listen in server.listening() {
        writeln!(out, "listening on {listen}, seed {}, {files} open files at most", config.seed)?;
    }
    out.flush()?;
    wait(args.duration, || stop.load(Ordering::Relaxed));
    let totals = server.stop();
    totals.write_table(&mut out)?;
    if let Some(Output { path, file }) = json {
        serde_json::to_writer_pretty(file, &totals)
            .with_context(|| format!("cannot write --json {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Until `duration` is over or `done` says so.
fn wait(duration: Option<Duration>, done: impl Fn() -> bool) {
    let end = duration.map_or_else(never, after);
    let look = tick(LOOK_EVERY);
    while !done() {
        select! {
            recv(end) -> _ => break,
            recv(look) -> _ => {}
        }
    }
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
    output.json.as_deref().map(create_json).transpose()
}

fn create_json(path: &Path) -> Result<Output<'_>> {
    let file =
        File::create(path).with_context(|| format!("cannot create --json {}", path.display()))?;
    Ok(Output { path, file })
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
