//! Does what the registry says: the one task of the control thread that knows backends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use net_io::{Now, StreamAddr, StreamSocket, clock};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::Directory;
use super::member::Place;
use super::registry::{Action, Shards};
use super::resolve::{self, Names};
use crate::config::{self, Target, Upstream};
use crate::control::command::{ShardCommand, ShardReport};
use crate::control::plane::{CommandError, Plane};
use crate::shard::backend_stats::BackendStat;
use crate::shard::stats::Stat;
use crate::upstream::backend::{BackendId, Backends};

/// What the service is started with.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) directory: Arc<Directory>,
    pub(crate) reports: Receiver<ShardReport>,
    /// The list that the shards began with.
    pub(crate) published: Arc<Backends>,
}

/// What a task came to.
enum Done {
    Checked { serial: u64, result: Result<(), String> },
    Connected { serial: u64, id: BackendId, shard: usize, result: Result<StreamSocket, String> },
    Resolved { serial: u64, target: Target, result: Result<Vec<Place>, String> },
    Looked(Result<Vec<config::Backend>, String>),
}

impl Service {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self, plane: Arc<Plane>) {
        let asked = self.directory.registry().upstream().resolver.clone();
        let mut names = Names::new(&asked);
        let places = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut tasks = JoinSet::new();
        let mut reconcile_at = clock::monotonic();
        loop {
            let now = clock::monotonic();
            self.hear(now);
            let mut waits_for_shards = false;
            if reconcile_at <= now {
                reconcile_at = now.add_ms(RECONCILE_MS);
                waits_for_shards = self.directory.registry().reconcile(now, &*plane);
            }
            if waits_for_shards {
                // An idle shard sleeps, and would not publish that it has nothing any more.
                plane.shards().iter().for_each(|shard| shard.waker.wake());
            }
            let actions = self.directory.registry().poll(now);
            // Before any link is handed over: a shard must have heard of its backend.
            self.publish(&plane);
            self.directory.told.send_replace(());
            for action in actions {
                self.begin(action, &mut tasks, &mut names, &places);
            }
            let wait = self.wait(now);
            tokio::select! {
                () = self.directory.changed.notified() => {}
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(done) = done {
                        self.finish(done, &plane);
                    }
                }
                () = sleep(wait) => {}
            }
        }
    }

    /// Takes what the shards reported. The queue is bounded, and so is this loop.
    fn hear(&self, now: Now) {
        let mut registry = self.directory.registry();
        for report in self.reports.try_iter().take(REPORTS_MAX) {
            registry.on_report(now, report);
        }
    }

    /// How long nothing is due. Reports come without a wake-up, so never long.
    fn wait(&self, now: Now) -> Duration {
        let due = self.directory.registry().poll_timeout().unwrap_or(Now(u64::MAX));
        Duration::from_micros(due.0.saturating_sub(now.0)).min(REPORTS_TICK)
    }

    /// Sends the list to every shard if it is another one. A shard that has no room for it gets the next one.
    fn publish(&mut self, plane: &Plane) {
        let list = {
            let mut registry = self.directory.registry();
            registry.begin_counting(&|id| plane.numbers(id));
            registry.list()
        };
        if list == *self.published {
            return;
        }
        let list = Arc::new(list);
        match plane.command(|| ShardCommand::Backends(Arc::clone(&list))) {
            Ok(()) | Err(CommandError::Dead(_) | CommandError::State(_)) => self.published = list,
            Err(error @ CommandError::Stuck(_)) => {
                tracing::debug!(%error, "the list of backends waits");
            }
        }
    }

    fn begin(
        &self,
        action: Action,
        tasks: &mut JoinSet<Done>,
        names: &mut Names,
        places: &Arc<Semaphore>,
    ) {
        match action {
            Action::Check { serial, addr, timeout_ms } => {
                tasks.spawn(async move {
                    let result = connect(&addr, timeout_ms).await.map(drop);
                    Done::Checked { serial, result }
                });
            }
            Action::Connect { serial, id, shard, addr, timeout_ms } => {
                let places = Arc::clone(places);
                tasks.spawn(async move {
                    // Closed by nobody.
                    let _place = places.acquire_owned().await;
                    let result = connect(&addr, timeout_ms).await;
                    Done::Connected { serial, id, shard, result }
                });
            }
            Action::Resolve { serial, target } => {
                let asked = self.directory.registry().upstream().resolver.clone();
                let resolver = names.get(&asked);
                tasks.spawn(async move {
                    let result = resolve::places(resolver, &target).await;
                    Done::Resolved { serial, target, result }
                });
            }
            Action::Look { path, upstream } => {
                tasks.spawn(async move {
                    let read = spawn_blocking(move || look(&path, &upstream)).await;
                    Done::Looked(read.unwrap_or_else(|e| Err(e.to_string())))
                });
            }
        }
    }

    fn finish(&self, done: Done, plane: &Plane) {
        let now = clock::monotonic();
        let mut registry = self.directory.registry();
        match done {
            Done::Checked { serial, result } => registry.on_check(now, serial, result),
            Done::Connected { serial, id, shard, result } => {
                let listed = self.published.list.iter().any(|backend| backend.id == id);
                let result = result.and_then(|stream| {
                    if !listed || !registry.is_listed(serial) {
                        return Err("not listed any more".into());
                    }
                    let adopt = ShardCommand::Adopt { backend: id, stream };
                    plane.command_one(shard, adopt).map_err(|e| e.to_string())
                });
                registry.on_link(now, serial, shard, result);
            }
            Done::Resolved { serial, target, result } => {
                registry.on_places(now, serial, &target, result);
            }
            Done::Looked(result) => registry.on_file(now, result),
        }
    }
}

async fn connect(addr: &StreamAddr, timeout_ms: u32) -> Result<StreamSocket, String> {
    let connecting = async {
        match addr {
            StreamAddr::Tcp(addr) => tcp(*addr).await,
            StreamAddr::Unix(path) => UnixStream::connect(path).await?.into_std().map(Into::into),
        }
    };
    match timeout(Duration::from_millis(timeout_ms.into()), connecting).await {
        Ok(made) => made.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer in {timeout_ms} ms")),
    }
}

async fn tcp(addr: SocketAddr) -> std::io::Result<StreamSocket> {
    TcpStream::connect(addr).await?.into_std().map(Into::into)
}

/// Reads the file of backends. Blocks as long as the file system does.
fn look(path: &Path, upstream: &Upstream) -> Result<Vec<config::Backend>, String> {
    // Opening a pipe would wait for a writer.
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(format!("{}: not a file", path.display())),
        Ok(_) | Err(_) => {}
    }
    // One line in the log and in the API.
    config::load_backends(path, upstream).map_err(|e| e.to_string().replace('\n', "; "))
}

impl Shards for Plane {
    fn is_idle(&self, index: usize) -> bool {
        self.shards()[index].commands.is_empty()
    }

    fn turns(&self, index: usize) -> u64 {
        self.shards()[index].stats.read().get(Stat::Turns)
    }

    fn gauge(&self, index: usize, backend: BackendId, gauge: BackendStat) -> u64 {
        self.shards()[index].backend_stats.read(backend).get(gauge)
    }
}

/// How long a report may wait for the control plane.
const REPORTS_TICK: Duration = Duration::from_millis(50);
/// Reports that may wait: many failures tell nothing more than some.
pub(crate) const REPORTS_MAX: usize = 4096;
const RECONCILE_MS: u32 = 500;
/// Links and names at once in the making.
const CONNECTING_MAX: usize = 64;
