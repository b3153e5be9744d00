//! What a gateway exports, and whether what is asked of Prometheus can be answered from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Label values seen for each label of each metric.
#[derive(Clone, Debug, Default)]
pub struct Exposition(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exposition {
    /// Reads a text exposition.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(sample) = TOKEN.captures(line) else { continue };
            let labels = all.0.entry(sample["name"].to_owned()).or_default();
            for [label, _, value] in matchers(&sample) {
                labels.entry(label.to_owned()).or_default().insert(value.to_owned());
            }
        }
        all
    }

    /// Adds metrics that do not come from the gateway: recorded ones and Prometheus's own. Their labels are not checked.
    pub fn add(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.0.entry(name).or_default();
        }
    }

    /// Everything in a PromQL expression that no series here can ever match, and every word that is not PromQL's.
    #[must_use]
    pub fn missing_from(&self, expr: &str) -> Vec<String> {
        let mut missing = Vec::new();
        for token in TOKEN.captures_iter(expr) {
            let Some(name) = token.name("name").map(|name| name.as_str()) else { continue };
            let Some(labels) = self.0.get(name) else {
                if !WORDS.contains(&name) {
                    missing.push(format!("metric {name}"));
                }
                continue;
            };
            let from_elsewhere = labels.is_empty() && !name.starts_with("kcp_gateway_");
            for [label, op, value] in matchers(&token) {
                if from_elsewhere || OF_THE_TARGET.contains(&label) {
                    continue;
                }
                let Some(values) = labels.get(label) else {
                    missing.push(format!("label {label} of {name}"));
                    continue;
                };
                let mut named = value.split(|c| c == '|' && op.ends_with('~'));
                if !OPEN.contains(&(name, label)) {
                    let unknown = named.find(|value| !values.contains(*value));
                    missing.extend(unknown.map(|value| format!("{name} with {label}=\"{value}\"")));
                }
            }
        }
        missing
    }
}

/// The matchers of a selector, each as label, operator and value.
fn matchers<'a>(selector: &Captures<'a>) -> impl Iterator<Item = [&'a str; 3]> {
    let braces = selector.name("matchers").map_or("", |braces| braces.as_str());
    MATCHER.captures_iter(braces).map(|matcher| matcher.extract().1)
}

/// A range, a number, a string, a list of labels, or a name with its matchers. Ours have no braces in label values.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    let token = r#"\[[^\]]*\]|[0-9][\w.]*|"[^"]*"|\b(by|without|on)\s*\([^)]*\)|(?<name>[a-zA-Z_:][\w:]*)(?<matchers>\{[^}]*\})?"#;
    Regex::new(token).unwrap_or_else(|error| unreachable!("{error}"))
});
static MATCHER: LazyLock<Regex> = LazyLock::new(|| {
    let matcher = r#"(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)""#;
    Regex::new(matcher).unwrap_or_else(|error| unreachable!("{error}"))
});
/// Labels that Prometheus adds.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];
/// Labels whose values depend on the host.
const OPEN: [(&str, &str); 2] =
    [("kcp_gateway_driver_info", "driver"), ("kcp_gateway_driver_info", "reason")];
/// The functions and operators in use.
const WORDS: [&str; 16] = [
    "absent",
    "and",
    "avg",
    "changes",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "max_over_time",
    "min",
    "offset",
    "or",
    "rate",
    "sum",
    "unless",
    "vector",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_match_is_named() {
        let text = "# HELP a_total x\na_total{shard=\"0\",reason=\"full\"} 1\na_total{shard=\"0\",reason=\"old\"} 1\nb 0\n";
        let mut exposition = Exposition::parse(text);
        exposition.add(["instance:a:rate5m".into()]);
        let missing = |expr: &str| exposition.missing_from(expr);
        for fine in [
            "sum by (z) (rate(a_total{reason=~\"full|old\", instance=~\"$i\"}[$__rate_interval])) / b offset 10m",
            "instance:a:rate5m{reason=\"any\"} > 0.2e3 unless on (job) b{job=\"x\"}",
        ] {
            assert_eq!(missing(fine), [""; 0], "{fine}");
        }
        assert_eq!(missing("max_over_time(c[5m]) > b"), ["metric c"]);
        assert_eq!(missing("summ(b)"), ["metric summ"]);
        assert_eq!(missing("a_total{shard=\"0\", z=\"1\"}"), ["label z of a_total"]);
        assert_eq!(missing("a_total{reason=~\"full|new\"}"), ["a_total with reason=\"new\""]);
        assert_eq!(missing("a_total{reason!=\"new\"}"), ["a_total with reason=\"new\""]);
    }
}
