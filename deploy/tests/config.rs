//! The packaged configuration file shows every key with its default, and says nothing that the gateway would not take.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use kcp_gateway::config::{Config, Source};

#[test]
fn the_packaged_configuration_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/config.toml");
    assert_eq!(load(&path).to_json(), Config::default().to_json());

    let bare = fs::read_to_string(&path).unwrap();
    // A `#` directly before a key or a section hides it; before a space it opens a comment.
    let hides = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
    let shown = bare.lines().map(|line| if hides(line) { &line[1..] } else { line });
    let shown = shown.collect::<Vec<_>>().join("\n");
    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("all.toml");
    fs::write(&all, &shown).unwrap();
    assert_eq!(load(&all).to_json(), Config::default().to_json());

    let written: toml::Table = shown.parse().unwrap();
    for (section, keys) in Config::default().to_json().as_object().unwrap() {
        // An array: a listener has an address, and may have the keys of [kcp], which are shown there.
        let names: Vec<_> = match keys.as_object() {
            Some(keys) => keys.keys().map(String::as_str).collect(),
            None => vec!["addr"],
        };
        let there = &written[section];
        let there = there.get(0).unwrap_or(there);
        for name in names {
            assert!(there.get(name).is_some(), "config.toml does not show {section}.{name}");
        }
    }
}

fn load(path: &Path) -> Config {
    Source { file: Some(path.into()), ..Source::default() }.load().unwrap()
}
