//! A Prometheus with the committed rules, on a faster clock.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::clock::faster;
use super::{Instance, free_addr, ready};
use crate::child::Process;
use crate::rules::home;

/// A running Prometheus; ended when dropped.
#[derive(Debug)]
pub struct Prometheus {
    addr: SocketAddr,
    speed: u32,
    _process: Process,
}

/// One line of a graph.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Seconds since the first point of all lines of this query, and values.
    pub points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts one in `dir`, which scrapes what `dir/targets.json` names and tells `alertmanager`. Every duration of the rules
    /// is divided by `speed`.
    pub(super) fn start(dir: &Path, alertmanager: SocketAddr, speed: u32) -> anyhow::Result<Self> {
        for name in ["recording.yml", "alerts.yml"] {
            let rules = fs::read_to_string(home().join("prometheus").join(name))?;
            fs::write(dir.join(name), faster(&rules, speed)?)?;
        }
        let interval = SCRAPE.as_millis() / u128::from(speed);
        fs::write(
            dir.join("prometheus.yml"),
            format!(
                "global: {{scrape_interval: {interval}ms, scrape_timeout: {interval}ms, evaluation_interval: {interval}ms}}\n\
             rule_files: [recording.yml, alerts.yml]\n\
             scrape_configs:\n  - job_name: kcp-gateway\n    file_sd_configs:\n      - files: [targets.json]\n\
             alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: [\"{alertmanager}\"]\n"
            ),
        )?;
        // Its own choice of a port would only be in its log.
        let addr = free_addr()?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address={addr}"));
        let process = Process::start(&mut command).context("install Debian's prometheus")?;
        ready(addr)?;
        Ok(Self { addr, speed, _process: process })
    }

    /// The alerts that fire.
    pub(super) fn firing(&self) -> anyhow::Result<Vec<Instance>> {
        let answer = self.get("alerts", &[])?;
        let alerts = answer["alerts"].as_array().context("no alerts")?.iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let label = |alert: &Value, name: &str| {
            alert["labels"][name].as_str().unwrap_or_default().to_owned()
        };
        let instance = |alert: &Value| Instance {
            alert: label(alert, "alertname"),
            gateway: label(alert, "instance"),
        };
        Ok(firing.map(instance).collect())
    }

    /// What a dashboard's query shows, from the start until now.
    ///
    /// # Errors
    /// Prometheus does not answer, or finds the query wrong.
    pub fn range(&self, expr: &str) -> anyhow::Result<Vec<Line>> {
        let interval = format!("{}ms", 4 * SCRAPE.as_millis() / u128::from(self.speed));
        let expr = expr.replace("$__rate_interval", &interval).replace("$instance", ".*");
        let now = self.get("query", &[("query", "time()")])?;
        let now: f64 = now["result"][1].as_str().context("no time")?.parse()?;
        let begin = now - HISTORY.as_secs_f64();
        let span = [("start", begin.to_string()), ("end", now.to_string()), ("step", "1".into())];
        let mut query: Vec<_> = span.iter().map(|(name, value)| (*name, value.as_str())).collect();
        query.push(("query", &expr));
        let answer = self.get("query_range", &query).with_context(|| expr.clone())?;
        let lines = answer["result"].as_array().context("no result")?;
        lines.iter().map(|line| Line::of(line, begin).with_context(|| line.to_string())).collect()
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = format!("http://{}/api/v1/{path}", self.addr);
        let request =
            query.iter().fold(ureq::get(url), |request, (name, value)| request.query(name, value));
        let answer = request
            .config()
            .http_status_as_error(false)
            .build()
            .call()?
            .body_mut()
            .read_to_string()?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        if answer["status"] != "success" {
            bail!("{}", answer["error"]);
        }
        Ok(answer["data"].take())
    }
}

impl Line {
    fn of(line: &Value, begin: f64) -> Option<Self> {
        let labels = line["metric"].as_object()?.iter();
        let labels = labels
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let point =
            |point: &Value| Some((point[0].as_f64()? - begin, point[1].as_str()?.parse().ok()?));
        let points = line["values"].as_array()?.iter().map(point).collect::<Option<_>>()?;
        Some(Self { labels: labels.collect(), points })
    }
}

/// As in `prometheus.yml`.
const SCRAPE: Duration = Duration::from_secs(15);
/// How far back graphs go.
const HISTORY: Duration = Duration::from_secs(600);
