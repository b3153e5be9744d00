//! A configuration as a list of keys and values, for the status page and for comparing two.

use serde_json::{Map, Value as Json};

use super::Config;
use super::keys::{Reload, Visit, visit};
use super::value::Value;

/// One key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    /// The key's path.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: Json,
    /// What a reload does with a change.
    pub(crate) reload: Reload,
}

impl Config {
    /// Every key with its value, in the manual's order.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut show = Show(Vec::new());
        visit(&mut self.clone(), &mut show);
        show.0
    }

    /// The effective configuration: sections as objects, listeners and backends as arrays.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut root = Json::Object(Map::new());
        for Setting { key, value, .. } in self.settings() {
            let mut place = &mut root;
            for part in key.split('.') {
                let (name, index) = match part.split_once('[') {
                    Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
                    None => (part, None),
                };
                place = &mut place[name];
                if let Some(index) = index {
                    place = element(place, index);
                }
            }
            *place = value;
        }
        root
    }
}

/// The element `index` of an array that is long enough or one too short.
fn element(array: &mut Json, index: usize) -> &mut Json {
    if array.is_null() {
        *array = Json::Array(Vec::new());
    }
    if let Json::Array(elements) = array
        && elements.len() <= index
    {
        elements.resize(index + 1, Json::Object(Map::new()));
    }
    &mut array[index]
}

struct Show(Vec<Setting>);

impl Visit for Show {
    fn key<T: Value>(&mut self, path: &str, reload: Reload, field: &mut T, _: &T::Allowed) {
        self.0.push(Setting { key: path.into(), value: field.show(), reload });
    }
}
