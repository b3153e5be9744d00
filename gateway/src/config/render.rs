//! A configuration as a list of keys and values, for the status page and for comparing two.

use std::collections::BTreeMap;

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

    /// The effective configuration: sections as objects, listeners as an array.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut sections = BTreeMap::<String, Map<String, Json>>::new();
        let mut listeners = vec![Map::new(); self.listeners.len()];
        for Setting { key, value, .. } in self.settings() {
            let Some((section, name)) = key.split_once('.') else { continue };
            let index = section.strip_prefix("listener[").and_then(|rest| rest.strip_suffix(']'));
            let index = index.and_then(|index| index.parse::<usize>().ok());
            let object = match index.and_then(|index| listeners.get_mut(index)) {
                Some(listener) => listener,
                None => sections.entry(section.to_owned()).or_default(),
            };
            object.insert(name.into(), value);
        }
        let mut root: Map<_, _> = sections.into_iter().map(|(k, v)| (k, v.into())).collect();
        root.insert("listener".into(), listeners.into_iter().map(Json::Object).collect());
        root.into()
    }
}

struct Show(Vec<Setting>);

impl Visit for Show {
    fn key<T: Value>(&mut self, path: &str, reload: Reload, field: &mut T, _: &T::Allowed) {
        self.0.push(Setting { key: path.into(), value: field.show(), reload });
    }
}
