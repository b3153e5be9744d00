//! Where the log goes and what of it.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{Log, LogFormat, LogLevel};

/// Sends the process's events to standard error. Does nothing when a program that uses this library has set up its own.
pub fn init(log: &Log) {
    let layer = match log.format {
        LogFormat::Text => fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
            .with_target(false)
            .boxed(),
    };
    let _ = registry().with(layer.with_filter(filter(log.level))).try_init();
}

/// Libraries speak at `warn`, unless everything is asked for.
fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let theirs = if level == LogLevel::Trace { ours } else { ours.min(LevelFilter::WARN) };
    Targets::new().with_default(theirs).with_target("kcp_gateway", ours).with_target("net_io", ours)
}
