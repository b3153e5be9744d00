//! The rule files, as far as checks look into them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One recording or alerting rule.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// The recorded metric.
    pub record: Option<String>,
    /// The alert.
    pub alert: Option<String>,
    /// PromQL.
    pub expr: String,
    /// An alert's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// This package's directory, where everything that operators get lies.
#[must_use]
pub fn home() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Every rule of `prometheus/`, in order.
///
/// # Errors
/// A file is missing or not a rule file.
pub fn all() -> anyhow::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for name in ["recording.yml", "alerts.yml"] {
        rules.extend(of(&home().join("prometheus").join(name))?);
    }
    Ok(rules)
}

fn of(path: &Path) -> anyhow::Result<Vec<Rule>> {
    let file: File = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    Ok(file.groups.into_iter().flat_map(|group| group.rules).collect())
}
