//! The fire drill: a live Prometheus and Alertmanager with the committed rules and routes watch live gateways, each with one
//! fault. Every alert must fire for the gateway that has its fault and reach its receiver, and none may fire for the
//! gateway that is well.

mod alertmanager;
mod clock;
mod faults;
mod outcome;
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use crossbeam::channel::{Receiver, RecvTimeoutError, after, bounded};
use serde_json::json;

use crate::child::{Gateway, Process};
use crate::{dashboards, plot, rules};
use alertmanager::Alertmanager;
use outcome::{Fired, Outcome, Shown};
pub use prometheus::{Line, Prometheus};

/// How a drill is run.
#[derive(Debug)]
pub struct Drill {
    /// Where `kcp-gateway` and `kcp-loadgen` are.
    pub programs: PathBuf,
    /// How many times faster than written the rules' clock runs.
    pub speed: u32,
    /// The alerts to fire; none means all.
    pub only: Vec<String>,
    /// Where pictures of the dashboards go.
    pub pictures: Option<PathBuf>,
    /// Where the outcome goes as JSON.
    pub json: Option<PathBuf>,
}

impl Drill {
    /// Runs it; prints what fires, and a table at the end. Takes some minutes, and never more than an hour of the rules'
    /// clock a phase.
    ///
    /// # Errors
    /// An alert that did not fire, did not reach its receiver, or fired for the gateway that is well; a query that
    /// Prometheus cannot answer or that shows nothing.
    pub fn run(&self) -> anyhow::Result<()> {
        let alerts: Vec<_> =
            rules::all()?.into_iter().filter(|rule| rule.alert.is_some()).collect();
        let severities = alerts.iter().map(|rule| {
            let severity = rule.labels.get("severity").cloned().unwrap_or_default();
            (rule.alert.clone().unwrap_or_default(), severity)
        });
        let severities: BTreeMap<String, String> = severities.collect();
        let phases = self.phases(&severities)?;
        let dir = tempfile::tempdir()?;
        let lab = Lab { drill: self, dir: dir.path(), targets: Mutex::default() };
        lab.watch([])?;
        let alertmanager = Alertmanager::start(lab.dir, self.speed)?;
        let prometheus = Prometheus::start(lab.dir, alertmanager.addr, self.speed)?;
        let watch = Watch { prometheus: &prometheus, alertmanager: &alertmanager, severities };
        let mut outcome = Outcome::new(self.speed);
        lab.during(&[&faults::WELL], || {
            for faults in &phases {
                lab.during(faults, || lab.wait(faults, &watch, &mut outcome))?;
                lab.forget(faults)?;
            }
            // A part of the faults fills a part of the graphs.
            if self.only.is_empty() {
                outcome.shown = lab.look(&prometheus)?;
            }
            lab.draw(&prometheus)
        })?;
        write!(io::stdout(), "\n{outcome}")?;
        if let Some(file) = &self.json {
            fs::write(file, format!("{:#}\n", outcome.to_json()))?;
        }
        Ok(())
    }

    /// The faults of each phase; every alert must have one.
    fn phases(
        &self,
        alerts: &BTreeMap<String, String>,
    ) -> anyhow::Result<Vec<Vec<&'static Fault>>> {
        let wanted =
            |alert: &str| self.only.is_empty() || self.only.iter().any(|only| only == alert);
        if let Some(unknown) = self.only.iter().find(|only| !alerts.contains_key(*only)) {
            bail!("no alert {unknown}");
        }
        let phases = faults::PHASES
            .iter()
            .map(|phase| phase.iter().filter(|fault| wanted(fault.alert)).collect::<Vec<_>>());
        let phases: Vec<_> = phases.filter(|phase| !phase.is_empty()).collect();
        let faulted: BTreeSet<_> = phases.iter().flatten().map(|fault| fault.alert).collect();
        let missing: Vec<_> =
            alerts.keys().filter(|a| wanted(a) && !faulted.contains(a.as_str())).collect();
        ensure!(missing.is_empty(), "no fault for {missing:?}");
        Ok(phases)
    }
}

/// What the faults of a drill share.
struct Lab<'a> {
    drill: &'a Drill,
    dir: &'a Path,
    /// Addresses that Prometheus scrapes, by the name it gives them.
    targets: Mutex<BTreeMap<&'static str, SocketAddr>>,
}

/// Who watches.
struct Watch<'a> {
    prometheus: &'a Prometheus,
    alertmanager: &'a Alertmanager,
    /// Of every alert.
    severities: BTreeMap<String, String>,
}

/// An alert of one gateway, which has the name of its fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Instance {
    alert: String,
    gateway: String,
}

/// One fault: the alert it fires, and what does it until `over`.
struct Fault {
    alert: &'static str,
    what: &'static str,
    inflict: fn(&Scene<'_>) -> anyhow::Result<()>,
}

/// Where one fault happens.
struct Scene<'a> {
    lab: &'a Lab<'a>,
    alert: &'static str,
    over: Receiver<()>,
}

impl Lab<'_> {
    /// Inflicts faults side by side while `body` runs.
    fn during(
        &self,
        faults: &[&Fault],
        body: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (end, over) = bounded::<()>(0);
        thread::scope(|scope| {
            let inflict = |fault: &&Fault| {
                let scene = Scene { lab: self, alert: fault.alert, over: over.clone() };
                let inflict = fault.inflict;
                scope.spawn(move || inflict(&scene).context(scene.alert))
            };
            let scenes: Vec<_> = faults.iter().map(inflict).collect();
            let outcome = body();
            drop(end);
            let outcomes = scenes.into_iter().map(|scene| {
                scene.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a fault panicked")))
            });
            // A fault that could not be inflicted explains an alert that did not fire.
            outcomes.collect::<anyhow::Result<()>>().and(outcome)
        })
    }

    /// Waits until each fault has fired its alert and Alertmanager has it.
    fn wait(
        &self,
        faults: &[&Fault],
        watch: &Watch<'_>,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let mut wanted: BTreeMap<_, _> = faults.iter().map(|fault| (fault.alert, fault)).collect();
        let mut waited = Duration::ZERO;
        while !wanted.is_empty() {
            let (firing, routed) = (watch.prometheus.firing()?, watch.alertmanager.alerts()?);
            if let Some(wrong) = firing.iter().find(|alert| alert.gateway == faults::WELL.alert) {
                bail!("{} fires for a gateway that is well", wrong.alert);
            }
            for instance in firing {
                let Some(routed) = routed.get(&instance) else { continue };
                if instance.alert != instance.gateway {
                    // Prometheus takes a while to forget gateways of a phase that is over.
                    if faults.iter().any(|fault| fault.alert == instance.gateway) {
                        outcome.also(&instance, routed.inhibited);
                    }
                } else if let Some(fault) = wanted.remove(instance.alert.as_str()) {
                    let severity = watch.severities[&instance.alert].clone();
                    ensure!(
                        routed.receiver == format!("{severity}s"),
                        "{} went to {}",
                        instance.alert,
                        routed.receiver
                    );
                    let fired = Fired {
                        fault: fault.what,
                        severity,
                        after: waited,
                        routed: routed.clone(),
                    };
                    writeln!(io::stdout(), "{:>4} s  {}", waited.as_secs(), fired.routed.summary)?;
                    outcome.fired.insert(instance.alert, fired);
                }
            }
            if waited > self.time(PATIENCE) {
                bail!("did not fire: {:?}", wanted.keys());
            }
            let _ = after(LOOK).recv();
            waited += LOOK;
        }
        outcome.watched += waited;
        Ok(())
    }

    /// Asks everything that the dashboards ask.
    fn look(&self, prometheus: &Prometheus) -> anyhow::Result<Shown> {
        let mut shown = Shown::default();
        for dashboard in dashboards::ALL {
            for query in dashboard.queries() {
                let lines = prometheus.range(query.expr)?;
                let mut values = lines.iter().flat_map(|line| &line.points).map(|point| point.1);
                let values: Vec<_> = values.by_ref().filter(|value| value.is_finite()).collect();
                let empty = NEVER_HERE.iter().find(|(metric, _)| query.expr.contains(metric));
                shown.queries += 1;
                match empty {
                    Some((_, why)) => shown.empty.push((query, why)),
                    None if values.is_empty() => {
                        bail!("{} shows nothing: {}", query.place, query.expr)
                    }
                    None if values.iter().all(|value| *value == 0.0) => shown.flat.push(query),
                    None => {}
                }
            }
        }
        Ok(shown)
    }

    /// Draws the dashboards, if that is wanted.
    fn draw(&self, prometheus: &Prometheus) -> anyhow::Result<()> {
        let Some(dir) = &self.drill.pictures else { return Ok(()) };
        fs::create_dir_all(dir)?;
        for dashboard in dashboards::ALL {
            let file = dir.join(format!("{}.svg", dashboard.name));
            plot::dashboard(dashboard, &file, |expr| prometheus.range(expr))?;
        }
        Ok(())
    }

    /// Tells Prometheus of gateways.
    fn watch(
        &self,
        add: impl IntoIterator<Item = (&'static str, SocketAddr)>,
    ) -> anyhow::Result<()> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.extend(add);
        self.publish(&targets)
    }

    /// Lets Prometheus forget the gateways of faults that are over: they are gone, and not down.
    fn forget(&self, faults: &[&Fault]) -> anyhow::Result<()> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|name, _| faults.iter().all(|fault| fault.alert != *name));
        self.publish(&targets)
    }

    fn publish(&self, targets: &BTreeMap<&'static str, SocketAddr>) -> anyhow::Result<()> {
        let groups: Vec<_> = targets
            .iter()
            .map(|(name, addr)| json!({ "targets": [addr.to_string()], "labels": { "instance": name } }))
            .collect();
        // Prometheus watches the file; a rename shows it whole.
        let (new, file) = (self.dir.join("targets.new"), self.dir.join("targets.json"));
        fs::write(&new, serde_json::to_vec(&groups)?)?;
        Ok(fs::rename(new, file)?)
    }

    /// A time of the rules' clock.
    fn time(&self, written: Duration) -> Duration {
        written / self.drill.speed
    }
}

impl Scene<'_> {
    /// Starts this scene's gateway and lets Prometheus watch it under the alert's name.
    fn gateway(&self, settings: &[&str]) -> anyhow::Result<Gateway> {
        self.gateway_under(Command::new(self.program("kcp-gateway")), settings)
    }

    /// As [`Scene::gateway`], but started through `command`. Settings are `section.key=value`.
    fn gateway_under(&self, mut command: Command, settings: &[&str]) -> anyhow::Result<Gateway> {
        for setting in settings {
            let (key, value) = setting.split_once('=').context("section.key=value")?;
            command.env(format!("KCP_GATEWAY__{}", key.replace('.', "__").to_uppercase()), value);
        }
        let gateway = Gateway::start(&mut command)?;
        self.lab.watch([(self.alert, gateway.admin)])?;
        Ok(gateway)
    }

    /// Starts a load that lasts until it is dropped.
    fn load(&self, target: SocketAddr, args: &[&str]) -> anyhow::Result<Process> {
        let mut load = Command::new(self.program("kcp-loadgen"));
        load.args(["run", "--duration", "1d", "--establish-timeout", "1d", "--progress", "off"]);
        load.args(["--target", &target.to_string()]).args(args);
        Process::start(&mut load)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.lab.drill.programs.join(name)
    }

    /// Waits for a time of the rules' clock; false when the drill is over.
    fn pass(&self, written: Duration) -> bool {
        self.pause(self.lab.time(written))
    }

    /// Waits; false when the drill is over.
    fn pause(&self, time: Duration) -> bool {
        self.over.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }

    /// Waits until the drill is over.
    fn hold(&self) {
        // Nobody ever sends: it ends when the sender goes.
        let _ = self.over.recv();
    }
}

/// An address of the kernel's choice, which whoever is told it takes at once.
fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits until Prometheus or Alertmanager at `addr` is ready.
fn ready(addr: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..START_LOOKS {
        if ureq::get(format!("http://{addr}/-/ready")).call().is_ok() {
            return Ok(());
        }
        let _ = after(Duration::from_millis(100)).recv();
    }
    bail!("nothing gets ready at {addr}")
}

/// Metrics that no fault here brings about, and why.
const NEVER_HERE: [(&str, &str); 1] = [(
    "kcp_gateway_client_stalled_seconds",
    "the load generator always reads, so no player is ever without room",
)];
/// How often the alerts are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The longest `for`, the longest range, and time to start.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Looks at a starting program, a tenth of a second apart.
const START_LOOKS: u32 = 300;
