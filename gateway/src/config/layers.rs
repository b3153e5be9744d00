//! File, environment and flags before anybody asks what the values mean: key path -> raw value and where it was written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Place, Problem};

/// One flag of the command line that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag as typed, for messages.
    pub name: &'static str,
    /// The key it sets; `listener` adds one listener and the first one replaces those of the other layers, and
    /// `upstream.url` replaces their backends.
    pub key: &'static str,
    /// The value as typed.
    pub value: String,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// A TOML integer; `None` when it is beyond 128 bits.
    Integer(Option<i128>),
    /// A TOML string.
    Text(String),
    /// A TOML boolean.
    Bool(bool),
    /// From the environment or a flag, where everything is text.
    Untyped(String),
    /// A TOML type that no key takes.
    Other(&'static str),
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) place: Place,
}

/// All layers, laid over each other.
#[derive(Debug, Default)]
pub(super) struct Layers {
    entries: BTreeMap<String, Entry>,
    /// Where each table of each array begins.
    arrays: BTreeMap<&'static str, Vec<Place>>,
}

/// A key that is an array of tables, how a file and the environment name it, and what every table of it must say.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) key: &'static str,
    env: &'static str,
    pub(super) required: &'static [&'static str],
}

/// Every such key of a configuration.
pub(super) const ARRAYS: [Array; 2] = [
    Array { key: "listener", env: "LISTENER__", required: &["addr"] },
    Array { key: "upstream.backend", env: "UPSTREAM__BACKEND__", required: &["name", "url"] },
];

impl Layers {
    /// The bottom layer: a file's bytes. Its keys are those of the section `prefix`, which ends with a point or is empty.
    pub(super) fn of_file(path: &Path, bytes: &[u8], prefix: &str) -> Result<Self, ConfigErrors> {
        let text = Text::new(path, bytes)?;
        let table = DeTable::parse(text.text).map_err(|e| {
            let place = text.place(e.span().unwrap_or(0..0));
            // A parser's message may have several lines; an error here is one.
            let cause = e.message().replace('\n', ", ");
            ConfigErrors::one(place, Problem::Syntax { cause })
        })?;
        let mut layers = Self::default();
        layers.add_table(&text, prefix, table.get_ref());
        Ok(layers)
    }

    /// Lays `KCP_GATEWAY__*` over what is there. Other variables are not ours and are left alone.
    pub(super) fn add_env(&mut self, vars: &[(String, String)], errors: &mut Vec<ConfigError>) {
        let mut vars: Vec<_> = vars
            .iter()
            .filter_map(|(name, value)| Some((name, name.strip_prefix(ENV_PREFIX)?, value)))
            .collect();
        // A table's index must follow the last one's, in whatever order the system lists the variables.
        vars.sort_by_key(|(name, rest, _)| (table_index(rest), *name));
        for (name, rest, value) in vars {
            let place = Place::Env(name.clone());
            match self.env_key(rest, &place) {
                Ok(key) => {
                    let raw = Raw::Untyped(value.clone());
                    self.entries.insert(key, Entry { raw, place });
                }
                Err(problem) => errors.push(ConfigError { place, problem }),
            }
        }
    }

    /// `SECTION__KEY` or `LISTENER__0__KEY` as a key path.
    fn env_key(&mut self, rest: &str, place: &Place) -> Result<String, Problem> {
        let upper = rest.to_ascii_uppercase();
        let array = ARRAYS.iter().find_map(|array| Some((array, upper.strip_prefix(array.env)?)));
        let Some((Array { key, env, .. }, within)) = array else {
            return Ok(rest.to_ascii_lowercase().replace("__", "."));
        };
        let tables = self.arrays.entry(key).or_default();
        let within = within.to_ascii_lowercase().replace("__", ".");
        let indexed = within.split_once('.').and_then(|(index, name)| {
            let index = index.parse::<usize>().ok()?;
            (index <= tables.len()).then_some((index, name))
        });
        let Some((index, name)) = indexed else {
            return Err(Problem::Value {
                key: (*key).into(),
                found: format!("addressed as `{within}`"),
                wanted: format!("{ENV_PREFIX}{env}<n>__<KEY> with n from 0 to {}", tables.len()),
            });
        };
        if index == tables.len() {
            tables.push(place.clone());
        }
        Ok(format!("{key}[{index}].{name}"))
    }

    /// Lays the flags over what is there.
    pub(super) fn add_flags(&mut self, flags: &[Flag]) {
        if flags.iter().any(|flag| flag.key == "listener") {
            self.forget("listener");
        }
        if flags.iter().any(|flag| flag.key == "upstream.url") {
            self.forget("upstream.backend");
        }
        for flag in flags {
            let place = Place::Flag(flag.name);
            let key = if flag.key == "listener" {
                let listeners = self.arrays.entry("listener").or_default();
                listeners.push(place.clone());
                format!("listener[{}].addr", listeners.len() - 1)
            } else {
                flag.key.into()
            };
            self.entries.insert(key, Entry { raw: Raw::Untyped(flag.value.clone()), place });
        }
    }

    fn forget(&mut self, array: &str) {
        self.arrays.remove(array);
        let of_array =
            |key: &str| key.strip_prefix(array).is_some_and(|rest| rest.starts_with('['));
        self.entries.retain(|key, _| !of_array(key));
    }

    /// Where each table of `array` begins, in order.
    pub(super) fn tables(&self, array: &str) -> &[Place] {
        self.arrays.get(array).map_or(&[], Vec::as_slice)
    }

    /// Whether some layer sets `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Removes and returns what was written for `key`.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        self.entries.remove(key)
    }

    /// What nobody took.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    fn add_table(&mut self, text: &Text<'_>, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", bare(name.get_ref()));
            self.add_value(text, key, name.span(), value);
        }
    }

    fn add_value(
        &mut self,
        text: &Text<'_>,
        key: String,
        name: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let raw = match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => {
                return self.add_table(text, &format!("{key}."), table);
            }
            DeValue::Array(items) if !items.is_empty() && items.iter().all(is_table) => {
                for (i, item) in items.iter().enumerate() {
                    if let Some(Array { key, .. }) = ARRAYS.iter().find(|array| array.key == key) {
                        self.arrays.entry(key).or_default().push(text.place(item.span()));
                    }
                    self.add_value(text, format!("{key}[{i}]"), item.span(), item);
                }
                return;
            }
            DeValue::Integer(i) => Raw::Integer(i128::from_str_radix(i.as_str(), i.radix()).ok()),
            DeValue::String(s) => Raw::Text(s.clone().into_owned()),
            DeValue::Boolean(b) => Raw::Bool(*b),
            DeValue::Float(_) => Raw::Other("a number with a fraction"),
            DeValue::Datetime(_) => Raw::Other("a date or time"),
            DeValue::Array(_) => Raw::Other("an array"),
            DeValue::Table(_) => Raw::Other(EMPTY_TABLE),
        };
        // An unknown key is underlined at its name, a bad value at the value: remember the value's place, and the
        // name's where the value is a table that says nothing.
        let span = if raw == Raw::Other(EMPTY_TABLE) { name } else { value.span() };
        self.entries.insert(key, Entry { raw, place: text.place(span) });
    }
}

impl Raw {
    /// The text, where a text was written.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Text(s) | Self::Untyped(s) => Some(s),
            Self::Integer(_) | Self::Bool(_) | Self::Other(_) => None,
        }
    }

    /// As it was written, for messages.
    pub(super) fn found(&self) -> Cow<'_, str> {
        match self {
            Self::Integer(Some(n)) => n.to_string().into(),
            Self::Integer(None) => "an integer of more than 128 bits".into(),
            Self::Text(s) | Self::Untyped(s) => format!("{:?}", clip(s)).into(),
            Self::Bool(b) => b.to_string().into(),
            Self::Other(kind) => (*kind).into(),
        }
    }
}

fn table_index(rest: &str) -> Option<usize> {
    let within = ARRAYS.iter().find_map(|array| rest.strip_prefix(array.env))?;
    within.split("__").next()?.parse().ok()
}

/// A key part as one would write it; quoted when it is not bare, so that `"a.b"` is not `a.b`.
fn bare(name: &str) -> Cow<'_, str> {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.into()
    } else {
        format!("{:?}", clip(name)).into()
    }
}

fn clip(s: &str) -> Cow<'_, str> {
    match s.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &s[..end]).into(),
        None => s.into(),
    }
}

fn is_table(item: &Spanned<DeValue<'_>>) -> bool {
    matches!(item.get_ref(), DeValue::Table(_))
}

/// A file's text and where its lines begin.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self, ConfigErrors> {
        let (text, bad_at) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(e) => {
                let good = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
                (good, Some(e.valid_up_to()))
            }
        };
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let text = Self { path, text, line_starts: std::iter::once(0).chain(ends).collect() };
        match bad_at {
            None => Ok(text),
            Some(at) => {
                let problem = Problem::Syntax { cause: "not UTF-8 from here on".into() };
                Err(ConfigErrors::one(text.place(at..at), problem))
            }
        }
    }

    fn place(&self, span: Range<usize>) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..span.start).unwrap_or_default();
        Place::File { path: self.path.into(), line, column: before.chars().count() + 1 }
    }
}

/// What every variable of the configuration begins with.
pub(super) const ENV_PREFIX: &str = "KCP_GATEWAY__";
const EMPTY_TABLE: &str = "an empty table";
const SHOWN_MAX: usize = 80;
