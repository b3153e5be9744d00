//! Layers -> [`Config`], once; nothing downstream re-checks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use kcp_core::wire::HEADER_LEN;

use super::error::{ConfigError, ConfigErrors, Place, Problem};
use super::keys::{Reload, Visit, backends, visit};
use super::layers::{ARRAYS, Array, Flag, Layers};
use super::upstream::NAMED_MAX;
use super::value::Value;
use super::{Backend, BackendUrl, Carrier, Config, Listener, Upstream, UpstreamUrl};

/// Where a configuration comes from. Kept, so that a reload reads the same places again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The TOML file, if any.
    pub file: Option<PathBuf>,
    /// The environment; variables that do not begin with `KCP_GATEWAY__` are ignored.
    pub env: Vec<(String, String)>,
    /// The flags that set keys.
    pub flags: Vec<Flag>,
}

impl Source {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place and what to write instead.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let mut layers = match &self.file {
            Some(path) => Layers::of_file(path, &read(path)?, "")?,
            None => Layers::default(),
        };
        let mut errors = Vec::new();
        layers.add_env(&self.env, &mut errors);
        layers.add_flags(&self.flags);
        build(layers, errors)
    }
}

impl Config {
    /// Checks a configuration that a program built; one that [`Source::load`] returned passes.
    ///
    /// # Errors
    /// Every key whose value is not allowed.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let mut check = Check::default();
        visit(&mut self.clone(), &mut check);
        relations(self, &mut |_, problem| {
            check.0.push(ConfigError { place: Place::Unwritten, problem });
        });
        report(check.0)
    }
}

pub(super) fn build(layers: Layers, errors: Vec<ConfigError>) -> Result<Config, ConfigErrors> {
    let mut config = Config::default();
    let listeners = layers.tables("listener").len();
    if listeners > 0 {
        let unset = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        config.listeners = vec![Listener::new(unset); listeners];
    }
    config.upstream.backends = unset_backends(&layers);
    let (mut errors, places) = load(layers, errors, |load| visit(&mut config, load));
    relations(&config, &mut |key, problem| {
        let place = places.get(key).cloned().unwrap_or(Place::Unwritten);
        errors.push(ConfigError { place, problem });
    });
    report(errors).map(|()| config)
}

/// Reads a file of backends, whose settings start from those of `upstream`.
///
/// # Errors
/// As [`Source::load`].
pub fn load_backends(path: &Path, upstream: &Upstream) -> Result<Vec<Backend>, ConfigErrors> {
    let layers = Layers::of_file(path, &read(path)?, "upstream.")?;
    let mut found = unset_backends(&layers);
    let (mut errors, places) = load(layers, Vec::new(), |load| {
        backends("upstream.backend", &mut found, &upstream.each, load);
    });
    backend_relations(&found, &upstream.backends, &mut |key, problem| {
        let place = places.get(key).cloned().unwrap_or(Place::Unwritten);
        errors.push(ConfigError { place, problem });
    });
    report(errors).map(|()| found)
}

/// As many backends as the layers have, to be filled in.
fn unset_backends(layers: &Layers) -> Vec<Backend> {
    let url = BackendUrl { carrier: Carrier::Tcp, targets: Vec::new() };
    let unset = Backend { name: String::new(), url, weight: 1, settings: None };
    vec![unset; layers.tables("upstream.backend").len()]
}

/// Fills in what `visit` visits; returns what is wrong, and where what was right was written.
fn load(
    layers: Layers,
    errors: Vec<ConfigError>,
    visit: impl FnOnce(&mut Load),
) -> (Vec<ConfigError>, BTreeMap<String, Place>) {
    let mut load = Load { layers, errors, places: BTreeMap::new(), known: Vec::new() };
    visit(&mut load);
    load.missing();
    load.unknown();
    (load.errors, load.places)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigErrors> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let read = read.and_then(|n| {
        let fits = u64::try_from(n).is_ok_and(|n| n <= FILE_BYTES_MAX);
        let too_long = || io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes"));
        fits.then_some(()).ok_or_else(too_long)
    });
    read.map(|()| bytes).map_err(|e| {
        let place = Place::File { path: path.into(), line: 1, column: 1 };
        ConfigErrors::one(place, Problem::Unreadable { cause: e.to_string() })
    })
}

fn report(mut errors: Vec<ConfigError>) -> Result<(), ConfigErrors> {
    if errors.is_empty() {
        return Ok(());
    }
    let more = errors.len().saturating_sub(ConfigErrors::KEPT);
    errors.truncate(ConfigErrors::KEPT);
    Err(ConfigErrors { errors, more })
}

/// The visit that fills a configuration from the layers.
struct Load {
    layers: Layers,
    errors: Vec<ConfigError>,
    /// Where the keys that were set were written.
    places: BTreeMap<String, Place>,
    known: Vec<String>,
}

impl Visit for Load {
    fn key<T: Value>(&mut self, path: &str, _: Reload, field: &mut T, allowed: &T::Allowed) {
        self.known.push(path.into());
        let Some(entry) = self.layers.take(path) else { return };
        match T::read(&entry.raw).filter(|value| value.within(allowed)) {
            Some(value) => *field = value,
            None => self.errors.push(ConfigError {
                place: entry.place.clone(),
                problem: Problem::Value {
                    key: path.into(),
                    found: entry.raw.found().into(),
                    wanted: T::wanted(allowed),
                },
            }),
        }
        self.places.insert(path.into(), entry.place);
    }

    fn brings(&self, path: &str) -> bool {
        self.layers.has(path)
    }
}

impl Load {
    /// A table without what it must say.
    fn missing(&mut self) {
        for array in &ARRAYS {
            for (i, place) in self.layers.tables(array.key).iter().enumerate() {
                for name in array.required {
                    let key = format!("{}[{i}].{name}", array.key);
                    if !self.places.contains_key(&key) {
                        let wanted = match *name {
                            "addr" => SocketAddr::wanted(&()),
                            "url" => BackendUrl::wanted(&()),
                            _ => String::wanted(&()),
                        };
                        let problem = Problem::Missing { key, wanted };
                        self.errors.push(ConfigError { place: place.clone(), problem });
                    }
                }
            }
        }
    }

    /// What was written and means nothing.
    fn unknown(&mut self) {
        for (key, entry) in self.layers.left() {
            let opens = |known: &String| {
                known.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']))
            };
            let is_section = self.known.iter().any(opens);
            // A section that is there and says nothing is no mistake.
            if is_section && entry.raw.found() == "an empty table" {
                continue;
            }
            let within = |array: &&Array| {
                key.strip_prefix(array.key).is_some_and(|r| r.is_empty() || r.starts_with('.'))
            };
            let problem = if let Some(Array { key, .. }) = ARRAYS.iter().find(within) {
                let found = "not an array of tables".into();
                let one = key.rsplit('.').next().unwrap_or(key);
                let wanted = format!("[[{key}]] above the keys of each {one}");
                Problem::Value { key: (*key).into(), found, wanted }
            } else if is_section {
                let wanted = format!("a table, opened by [{key}]");
                Problem::Value { key: key.into(), found: entry.raw.found().into(), wanted }
            } else {
                // Only what will be shown needs a suggestion; a hostile file could ask for millions.
                let show = self.errors.len() < ConfigErrors::KEPT;
                let suggestion = show.then(|| self.nearest(key)).flatten();
                Problem::Unknown { key: key.into(), suggestion }
            };
            self.errors.push(ConfigError { place: entry.place.clone(), problem });
        }
    }

    /// The known key that was probably meant: near as a whole, the right name in the wrong section, or one of its own section
    /// that begins the same.
    fn nearest(&self, key: &str) -> Option<String> {
        fn split(path: &str) -> (&str, &str) {
            path.rsplit_once('.').unwrap_or(("", path))
        }
        let (section, name) = split(key);
        let distance = |known: &String| {
            let (known_section, known_name) = split(known);
            let short = name.len().min(known_name.len());
            let begins = name.starts_with(known_name) || known_name.starts_with(name);
            if section == known_section && begins && short >= 3 {
                return 0;
            }
            let whole = strsim::damerau_levenshtein(key, known);
            whole.min(strsim::damerau_levenshtein(name, known_name) + 1)
        };
        let (near, known) = self.known.iter().map(|known| (distance(known), known)).min()?;
        (near <= 1 + name.len() / 4).then(|| known.clone())
    }
}

/// The visit that only looks.
#[derive(Default)]
struct Check(Vec<ConfigError>);

impl Visit for Check {
    fn key<T: Value>(&mut self, path: &str, _: Reload, field: &mut T, allowed: &T::Allowed) {
        if !field.within(allowed) {
            let (found, wanted) = (field.show().to_string(), T::wanted(allowed));
            let problem = Problem::Value { key: path.into(), found, wanted };
            self.0.push(ConfigError { place: Place::Unwritten, problem });
        }
    }
}

/// What must hold between keys. Calls `bad` with the key to change.
fn relations(config: &Config, bad: &mut impl FnMut(&str, Problem)) {
    let mut value = |key: &str, found: String, wanted: String| {
        bad(key, Problem::Value { key: key.into(), found, wanted });
    };
    if !config.io.buffers.is_power_of_two() {
        let near = config.io.buffers.checked_next_power_of_two().unwrap_or(1 << 15);
        let wanted = format!("a power of two, like {near}");
        value("io.buffers", config.io.buffers.to_string(), wanted);
    }
    let count = config.listeners.len();
    if count == 0 || count > LISTENERS_MAX {
        value("listener", format!("given {count} times"), format!("1 to {LISTENERS_MAX} of them"));
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        let twin = config.listeners[..i].iter().position(|other| other.addr == listener.addr);
        if let Some(twin) = twin.filter(|_| listener.addr.port() != 0) {
            let wanted = format!("an address of its own, listener[{twin}] has this one");
            value(&format!("listener[{i}].addr"), listener.addr.to_string(), wanted);
        }
    }
    let of_listeners = config.listeners.iter().enumerate().filter_map(|(i, listener)| {
        let kcp = listener.kcp.as_ref()?;
        (kcp.mtu != config.kcp.mtu).then(|| (format!("listener[{i}].mtu"), kcp.mtu))
    });
    let mtus = std::iter::once(("kcp.mtu".to_owned(), config.kcp.mtu)).chain(of_listeners);
    for (key, mtu) in mtus.filter(|(_, mtu)| *mtu > u32::from(config.io.datagram_max)) {
        let limit = config.io.datagram_max;
        value(&key, mtu.to_string(), format!("at most io.datagram_max, which is {limit}"));
    }
    let mtus = config.listeners.iter().map(|listener| config.kcp_of(listener).mtu);
    let room = (mtus.min().unwrap_or(config.kcp.mtu) as usize).saturating_sub(HEADER_LEN);
    if config.drain.farewell.0.len() > room {
        let found = format!("{} bytes", config.drain.farewell.0.len());
        value("drain.farewell", found, format!("at most {room} bytes, or a larger mtu"));
    }
    if let (url @ (UpstreamUrl::Backend(_) | UpstreamUrl::Nats(_)), false) =
        (&config.upstream.url, config.upstream.backends.is_empty())
    {
        let wanted = "this url or [[upstream.backend]] blocks, not both";
        value("upstream.url", format!("\"{url}\""), wanted.into());
    }
    if let (url @ UpstreamUrl::Nats(_), Some(path)) =
        (&config.upstream.url, &config.upstream.discovery_file)
    {
        let wanted = format!("off: messages go to {url}");
        value("upstream.discovery_file", format!("\"{}\"", path.display()), wanted);
    }
    backend_relations(&config.upstream.backends, &[], bad);
}

/// What must hold between backends, and between them and `others` that there are already.
fn backend_relations(
    backends: &[Backend],
    others: &[Backend],
    bad: &mut impl FnMut(&str, Problem),
) {
    let mut value = |key: &str, found: String, wanted: String| {
        bad(key, Problem::Value { key: key.into(), found, wanted });
    };
    if backends.len() + others.len() > NAMED_MAX {
        let found = format!("given {} times", backends.len() + others.len());
        value("upstream.backend", found, format!("at most {NAMED_MAX} of them"));
    }
    for (i, backend) in backends.iter().enumerate() {
        let key = format!("upstream.backend[{i}].name");
        let is_twin = |other: &Backend| other.name == backend.name;
        let twin = backends[..i].iter().position(is_twin);
        let owner = match twin {
            // A name that is missing has been reported as such.
            _ if backend.name.is_empty() => None,
            Some(twin) => Some(format!("upstream.backend[{twin}]")),
            None => others.iter().any(is_twin).then(|| "the configuration".to_owned()),
        };
        if let Some(owner) = owner {
            let wanted = format!("a name of its own, {owner} has this one");
            value(&key, format!("\"{}\"", backend.name), wanted);
        }
    }
}

const FILE_BYTES_MAX: u64 = 1 << 20;
const LISTENERS_MAX: usize = 64;
