//! An Alertmanager with the committed routes, on a faster clock.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::clock::faster;
use super::{Instance, free_addr, ready};
use crate::child::Process;
use crate::rules::home;

/// A running Alertmanager; ended when dropped.
#[derive(Debug)]
pub(super) struct Alertmanager {
    pub(super) addr: SocketAddr,
    _process: Process,
}

/// What became of an alert.
#[derive(Clone, Debug)]
pub(super) struct Routed {
    pub(super) receiver: String,
    /// What whoever gets it reads.
    pub(super) summary: String,
    /// Kept back, since a worse alert of the same gateway says enough.
    pub(super) inhibited: bool,
}

#[derive(Deserialize)]
struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    receivers: Vec<Receiver>,
    status: Status,
}

#[derive(Deserialize)]
struct Receiver {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    inhibited_by: Vec<String>,
}

impl Alertmanager {
    /// Starts one in `dir`. Nobody listens at its receivers' addresses: what counts is where it would send.
    pub(super) fn start(dir: &Path, speed: u32) -> anyhow::Result<Self> {
        let config = fs::read_to_string(home().join("alertmanager/alertmanager.yml"))?;
        let file = dir.join("alertmanager.yml");
        fs::write(&file, faster(&config, speed)?)?;
        let addr = free_addr()?;
        let mut command = Command::new("prometheus-alertmanager");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
        command.arg(format!("--web.listen-address={addr}"));
        // Alone it needs no address that others could reach.
        command.arg("--cluster.listen-address=");
        let process =
            Process::start(&mut command).context("install Debian's prometheus-alertmanager")?;
        ready(addr)?;
        Ok(Self { addr, _process: process })
    }

    /// What it has, by alert and instance.
    pub(super) fn alerts(&self) -> anyhow::Result<BTreeMap<Instance, Routed>> {
        let url = format!("http://{}/api/v2/alerts", self.addr);
        let text = ureq::get(url).call()?.body_mut().read_to_string()?;
        let alerts: Vec<Alert> = serde_json::from_str(&text)?;
        let routed = alerts.into_iter().map(|alert| {
            let label = |name: &str| alert.labels.get(name).cloned().unwrap_or_default();
            let routed = Routed {
                receiver: alert.receivers.iter().map(|r| &*r.name).collect::<Vec<_>>().join(", "),
                summary: alert.annotations.get("summary").cloned().unwrap_or_default(),
                inhibited: !alert.status.inhibited_by.is_empty(),
            };
            (Instance { alert: label("alertname"), gateway: label("instance") }, routed)
        });
        Ok(routed.collect())
    }
}
