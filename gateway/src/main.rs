//! kcp-gateway: parse, load, run, exit code.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use kcp_gateway::cli::{Cli, Command, Settings};
use kcp_gateway::config::LogFormat;
use kcp_gateway::control::health;
use kcp_gateway::control::signals::Signals;
use kcp_gateway::control::watch::Watch;
use kcp_gateway::{Gateway, banner, doctor, log};

fn main() -> ExitCode {
    let outcome = match Cli::parse().into_command() {
        Command::Run(settings) => run(settings),
        Command::Check(settings) => check(settings),
        Command::Doctor { settings, json } => examine(settings, json),
        Command::Health(settings) => ask(settings),
    };
    outcome.unwrap_or_else(|error| {
        // Where standard error is gone there is nobody to tell.
        let _ = writeln!(io::stderr(), "kcp-gateway: {error}");
        ExitCode::FAILURE
    })
}

fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let source = settings.into_source(env::vars_os());
    let watch = source.file.clone().map(Watch::new); // first, so that no change falls between
    let config = match source.load() {
        Ok(config) => config,
        Err(errors) => return misconfigured(&errors),
    };
    let format = config.log.format;
    log::init(&config.log);
    let signals = Signals::catch()?;
    let gateway = Gateway::start_with(config, source)?;
    match format {
        LogFormat::Text => io::stderr().write_all(banner::block(&gateway.status()).as_bytes())?,
        LogFormat::Json => banner::log(&gateway.status()),
    }
    signals.serve(gateway, watch)?;
    Ok(ExitCode::SUCCESS)
}

fn check(settings: Settings) -> anyhow::Result<ExitCode> {
    let source = settings.into_source(env::vars_os());
    match source.load() {
        Ok(_) => writeln!(io::stdout(), "the configuration is good")?,
        Err(errors) => return misconfigured(&errors),
    }
    Ok(ExitCode::SUCCESS)
}

fn examine(settings: Settings, json: bool) -> anyhow::Result<ExitCode> {
    let config = match settings.into_source(env::vars_os()).load() {
        Ok(config) => config,
        Err(errors) => return misconfigured(&errors),
    };
    let findings = doctor::examine(&config);
    let text = if json { doctor::json(&findings) } else { doctor::table(&findings) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if doctor::is_fit(&findings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(settings: Settings) -> anyhow::Result<ExitCode> {
    let config = match settings.into_source(env::vars_os()).load() {
        Ok(config) => config,
        Err(errors) => return misconfigured(&errors),
    };
    let admin = config.admin.listen.context("admin.listen is off: there is nobody to ask")?;
    health::ask(admin).map_err(|error| anyhow::anyhow!("{admin}: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

fn misconfigured(errors: &kcp_gateway::config::ConfigErrors) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "{errors}")?;
    Ok(ExitCode::from(USAGE))
}

/// Bad usage or configuration; clap uses the same.
const USAGE: u8 = 2;
