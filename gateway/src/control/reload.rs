//! Reload: read the same sources again, compare, apply all or nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value as Json;

use super::command::ShardCommand;
use super::plane::{CommandError, Plane, unix_now_s};
use crate::config::{Config, ConfigErrors, Reload, Setting, Source};

impl Reloads {
    /// Every outcome by name, with how often it came.
    pub(crate) const fn outcomes(&self) -> [(&'static str, u64); 4] {
        [
            ("applied", self.applied),
            ("refused", self.refused),
            ("broken", self.broken),
            ("failed", self.failed),
        ]
    }
}

/// What a reload reads again.
#[derive(Debug)]
pub(crate) struct Reloadable {
    pub(crate) source: Source,
    /// Optional listeners that this host could not have at start, and that a reload must not miss.
    pub(crate) absent: Vec<SocketAddr>,
}

impl Reloadable {
    fn load(&self) -> Result<Config, ReloadError> {
        if self.source.file.is_none() {
            return Err(ReloadError::NoSource);
        }
        let mut config = self.source.load().map_err(ReloadError::Broken)?;
        config.listeners.retain(|l| !(l.optional && self.absent.contains(&l.addr)));
        Ok(config)
    }
}

/// One key that a reload changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The key's path.
    pub key: String,
    /// The value in force before; null where the key did not exist.
    pub from: Json,
    /// The value after; null where the key no longer exists.
    pub to: Json,
}

/// Why a reload changed nothing. The configuration in force stays.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReloadError {
    /// There is nothing to read again.
    #[error("nothing to reload: the gateway was started without a configuration file")]
    NoSource,
    /// The configuration is wrong now.
    #[error("{0}")]
    Broken(ConfigErrors),
    /// Keys changed that are read at start only.
    #[error("needs a restart: {}", keys(.0))]
    NeedsRestart(Vec<Change>),
    /// A shard did not take the change; those before it did and will get it again with the next reload.
    #[error(transparent)]
    Command(#[from] CommandError),
}

fn keys(changes: &[Change]) -> String {
    let keys: Vec<String> =
        changes.iter().map(|c| format!("{} ({} -> {})", c.key, c.from, c.to)).collect();
    keys.join(", ")
}

impl ReloadError {
    /// The name in the metrics and the API.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoSource | Self::NeedsRestart(_) => "refused",
            Self::Broken(_) => "broken",
            Self::Command(_) => "failed",
        }
    }
}

/// What reloads came to so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reloads {
    /// Which configuration is in force: 0 as started, one more with each reload that changed something.
    pub generation: u64,
    /// When the last reload was applied, in seconds since 1970; null before the first.
    pub applied_unix_s: Option<f64>,
    /// Applied, also when nothing had changed.
    pub applied: u64,
    /// Refused, because something needs a restart or there is no file.
    pub refused: u64,
    /// Refused, because the configuration was wrong.
    pub broken: u64,
    /// Not taken by a shard.
    pub failed: u64,
    /// Why the last one changed nothing, or `None` when it was applied.
    pub last_error: Option<String>,
}

impl Plane {
    /// Reads the sources again and applies what changed.
    ///
    /// # Errors
    /// As [`ReloadError`]; the configuration in force stays.
    pub(crate) fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        // Held throughout: two reloads at once would apply in one order and be remembered in the other.
        let mut current = self.current();
        let outcome = self.reloadable.as_ref().ok_or(ReloadError::NoSource).and_then(|source| {
            let config = source.load()?;
            let changes = plan(&current.config, &config)?;
            let sizes = current.sizes.with_sessions_of(&config);
            if !changes.is_empty() {
                let policy = sizes.policy(&config);
                self.command(|| ShardCommand::Reload(Arc::clone(&policy)))?;
                if let Some(backends) = self.backends() {
                    backends.configure(&config);
                }
            }
            current.config = Arc::new(config);
            current.sizes = Arc::new(sizes);
            Ok(changes)
        });
        let reloads = &mut current.reloads;
        match &outcome {
            Ok(changes) => {
                reloads.applied += 1;
                reloads.generation += u64::from(!changes.is_empty());
                reloads.applied_unix_s = Some(unix_now_s());
                reloads.last_error = None;
                let generation = reloads.generation;
                tracing::info!(generation, changed = %keys(changes), "reloaded");
            }
            Err(error) => {
                match error {
                    ReloadError::NoSource | ReloadError::NeedsRestart(_) => reloads.refused += 1,
                    ReloadError::Broken(_) => reloads.broken += 1,
                    ReloadError::Command(_) => reloads.failed += 1,
                }
                reloads.last_error = Some(error.to_string());
                tracing::error!(%error, "reload changed nothing; the old configuration stays");
            }
        }
        outcome
    }
}

/// What changes from `old` to `new`, if a running gateway can follow.
fn plan(old: &Config, new: &Config) -> Result<Vec<Change>, ReloadError> {
    // Shards are built with what backends need, or without.
    let is_rebuilt = old.upstream.has_backends() != new.upstream.has_backends()
        || old.upstream.nats() != new.upstream.nats();
    let has_nats = new.upstream.nats().is_some();
    let (old, new) = (old.settings(), new.settings());
    let value = |settings: &[Setting], key: &str| {
        settings.iter().find(|s| s.key == key).map_or(Json::Null, |s| s.value.clone())
    };
    let mut live = Vec::new();
    let mut restart = Vec::new();
    let gone = old.iter().filter(|setting| !new.iter().any(|s| s.key == setting.key));
    for setting in new.iter().chain(gone) {
        let change = Change {
            key: setting.key.clone(),
            from: value(&old, &setting.key),
            to: value(&new, &setting.key),
        };
        if change.from == change.to {
            continue;
        }
        // A listener that comes or goes does so with all of its keys, of which `addr` and `steer` need the restart.
        match setting.reload {
            Reload::Live if is_rebuilt && names_a_backend(&setting.key) => restart.push(change),
            Reload::Live if has_nats && is_built_into_nats(&setting.key) => restart.push(change),
            Reload::Live => live.push(change),
            Reload::Restart => restart.push(change),
        }
    }
    if restart.is_empty() { Ok(live) } else { Err(ReloadError::NeedsRestart(restart)) }
}

/// Whether a key decides that there are backends.
fn names_a_backend(key: &str) -> bool {
    let of_backend = key.starts_with("upstream.backend[") && key.ends_with(".url");
    of_backend || ["upstream.url", "upstream.discovery_file"].contains(&key)
}

/// Whether shards are built with a key's value where their messages go to NATS.
fn is_built_into_nats(key: &str) -> bool {
    ["upstream.overflow", "upstream.deliver_ms"].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auto, Backend, BackendUrl, Kcp, Listener, Profile};

    #[test]
    fn what_a_running_gateway_can_follow_is_planned() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(plan(&old, &new), Ok(vec![]));
        new.session.max = Auto::Exactly(7);
        new.kcp = Kcp::of(Profile::Reference);
        let changes = plan(&old, &new).unwrap();
        let keys: Vec<&str> = changes.iter().map(|c| c.key.as_str()).collect();
        assert!(keys.contains(&"session.max") && keys.contains(&"kcp.interval_ms"), "{keys:?}");
        // Listeners without settings of their own follow.
        assert!(keys.contains(&"listener[1].interval_ms"), "{keys:?}");
    }

    #[test]
    fn one_key_that_needs_a_restart_refuses_the_whole() {
        let old = Config::default();
        let mut new = old.clone();
        new.session.max = Auto::Exactly(7);
        new.io.buffers = 512;
        let Err(ReloadError::NeedsRestart(changes)) = plan(&old, &new) else { panic!("planned") };
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].key, "io.buffers");
        assert_eq!((&changes[0].from, &changes[0].to), (&Json::from(1024), &Json::from(512)));
    }

    #[test]
    fn backends_come_and_go_but_not_the_first_or_the_last() {
        let with = |urls: &[&str]| {
            let backends = urls.iter().enumerate().map(|(i, url)| Backend {
                name: format!("b{i}"),
                url: BackendUrl::parse(url).unwrap(),
                weight: 1,
                settings: None,
            });
            let mut config = Config::default();
            config.upstream.backends = backends.collect();
            config
        };
        let (none, one, two) = (with(&[]), with(&["tcp://a:1"]), with(&["tcp://a:1", "tcp://b:1"]));
        let keys = |changes: Vec<Change>| changes.into_iter().map(|c| c.key).collect::<Vec<_>>();
        assert!(keys(plan(&one, &two).unwrap()).contains(&"upstream.backend[1].url".into()));
        assert!(plan(&two, &one).is_ok());
        for (from, to) in [(&none, &one), (&two, &none)] {
            let Err(ReloadError::NeedsRestart(changes)) = plan(from, to) else { panic!("planned") };
            assert!(keys(changes).contains(&"upstream.backend[0].url".into()));
        }
    }

    #[test]
    fn a_listener_that_comes_or_goes_needs_a_restart() {
        let old = Config::default();
        let mut new = old.clone();
        new.listeners.push(Listener::new("127.0.0.1:1".parse().unwrap()));
        assert!(matches!(plan(&old, &new), Err(ReloadError::NeedsRestart(_))));
        assert!(matches!(plan(&new, &old), Err(ReloadError::NeedsRestart(_))));
    }
}
