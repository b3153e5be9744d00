//! The rules' clock: what is written in minutes passes in seconds.

use std::time::Duration;

use regex::{Captures, Regex};

/// Divides every duration of a rule file or a configuration.
pub(super) fn faster(text: &str, speed: u32) -> anyhow::Result<String> {
    let duration = Regex::new(r"\b(?<n>[0-9]+)(?<unit>[smh])\b")?;
    let divide = |found: &Captures<'_>| {
        let unit = match &found["unit"] {
            "s" => 1,
            "m" => 60,
            _ => 3600,
        };
        let written =
            found["n"].parse().map_or(Duration::ZERO, |n: u64| Duration::from_secs(n * unit));
        format!("{}ms", (written / speed).as_millis())
    };
    Ok(duration.replace_all(text, divide).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_are_divided() {
        let rule = "expr: a:rate5m offset 10m > rate(b[5m])\nfor: 30m\nsummary: 5 minutes";
        let fast =
            "expr: a:rate5m offset 30000ms > rate(b[15000ms])\nfor: 90000ms\nsummary: 5 minutes";
        assert_eq!(faster(rule, 20).unwrap(), fast);
    }
}
