//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flag, Source};

/// A multi-core KCP gateway on io_uring.
#[derive(Clone, Debug, Parser)]
#[command(name = "kcp-gateway", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Settings,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve until a signal ends it (the default).
    Run(Settings),
    /// Check the configuration and exit: 0 when it is good, 2 when not.
    Check(Settings),
    /// Show what this host allows and what to change; exit 1 when something essential is missing.
    Doctor {
        /// Settings to hold the host against.
        #[command(flatten)]
        settings: Settings,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Ask the gateway that runs with these settings on this host whether it is well: 0 when it is, 1 when not.
    Health(Settings),
}

/// Where the configuration comes from. Every key can also be given as KCP_GATEWAY__SECTION__KEY.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// The TOML file; none is needed.
    #[arg(long, value_name = "FILE", env = "KCP_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// A UDP address for clients; repeat for more [default: 0.0.0.0:4000 and [::]:4000].
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Shards, one thread each [default: auto, one per core].
    #[arg(long, value_name = "N|auto")]
    shards: Option<String>,
    /// Where messages go: echo, tcp://HOST:PORT, tcp+srv://NAME, yamux://HOST:PORT, yamux+srv://NAME, yamux+unix:///PATH,
    /// nats://HOST:PORT or nats+tls://HOST:PORT [default: echo].
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The TCP address of metrics and control, or off [default: 127.0.0.1:9600].
    #[arg(long, value_name = "ADDR|off")]
    admin: Option<String>,
    /// How datagrams are moved [default: auto].
    #[arg(long, value_name = "auto|uring|epoll")]
    io: Option<String>,
    /// The least severe event logged: error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look [default: text].
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
}

impl Cli {
    /// What to do, `run` unless said otherwise.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

impl Settings {
    /// The configuration's layers: the file and the flags named here, and `env`.
    #[must_use]
    pub fn into_source(self, env: impl IntoIterator<Item = (OsString, OsString)>) -> Source {
        let text = |s: OsString| s.to_string_lossy().into_owned();
        let listen = self.listen.into_iter().map(|value| ("--listen", "listener", Some(value)));
        let flags = [
            ("--shards", "shards.count", self.shards),
            ("--upstream", "upstream.url", self.upstream),
            ("--admin", "admin.listen", self.admin),
            ("--io", "io.driver", self.io),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        let flag =
            |(name, key, value): (_, _, Option<String>)| Some(Flag { name, key, value: value? });
        Source {
            file: self.config,
            env: env.into_iter().map(|(name, value)| (text(name), text(value))).collect(),
            flags: listen.chain(flags).filter_map(flag).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        let args = std::iter::once(&"kcp-gateway").chain(args);
        Cli::try_parse_from(args).map(Cli::into_command)
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_the_same_flags() {
        for args in [&["--shards", "2"][..], &["run", "--shards", "2"]] {
            let Ok(Command::Run(settings)) = parse(args) else { panic!("{args:?}") };
            let flags = settings.into_source([]).flags;
            let flag = Flag { name: "--shards", key: "shards.count", value: "2".into() };
            assert_eq!(flags, [flag]);
        }
        assert!(matches!(parse(&["check", "--config", "a"]), Ok(Command::Check(_))));
        assert!(matches!(parse(&["doctor", "--json"]), Ok(Command::Doctor { json: true, .. })));
    }

    #[test]
    fn usage_errors_exit_2() {
        for args in [&["--bogus"][..], &["fly"], &["--shards"]] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn every_flag_sets_a_key_that_exists() {
        let all = [
            "--listen",
            "127.0.0.1:0",
            "--shards",
            "1",
            "--upstream",
            "echo",
            "--admin",
            "off",
            "--io",
            "epoll",
            "--log-level",
            "warn",
            "--log-format",
            "json",
        ];
        let Ok(Command::Run(settings)) = parse(&all) else { panic!("usage") };
        let config = settings.into_source([]).load().unwrap();
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.admin.listen, None);
    }
}
