//! The control thread: one runtime for the admin server and the backends.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use crossbeam::channel::bounded;
use net_io::DriverKind;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::admin;
use super::backends::service::Service;
use super::plane::Plane;
use super::prober;
use crate::error::StartError;
use crate::metrics::Metrics;

/// The control thread while it runs.
#[derive(Debug)]
pub(crate) struct ControlThread {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// What it does there.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    /// Where it serves HTTP, if anywhere, and how many connections at once.
    pub(crate) door: Option<(StdListener, u16)>,
    /// The backends it looks after, if there are any.
    pub(crate) service: Option<Service>,
}

impl ControlThread {
    /// Starts the thread on `core`, or wherever the scheduler likes; it answers when this returns. `None` without duties.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made; neither is left.
    pub(crate) fn start(
        plane: Arc<Plane>,
        duties: Duties,
        core: Option<usize>,
    ) -> Result<Option<Self>, StartError> {
        if duties.door.is_none() && duties.service.is_none() {
            return Ok(None);
        }
        let failed = |source| StartError::Control { source };
        let metrics = Metrics::new(Arc::clone(&plane)).map_err(io::Error::other).map_err(failed)?;
        let (say, up) = bounded(1);
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            if let Some(id) = core {
                // The core is spare, not needed: anywhere else will do.
                let _ = core_affinity::set_for_current(CoreId { id });
            }
            let kind = plane.probe.kind;
            let up = || drop(say.try_send(Ok(())));
            if let Err(error) = block_on(kind, run(plane, metrics, duties, stopped, up)) {
                tracing::error!(%error, "the control thread ended");
                let _ = say.try_send(Err(error));
            }
        };
        let name = "kcp-control".to_owned();
        let thread = thread::Builder::new().name(name.clone()).spawn(body);
        let thread = thread.map_err(|source| StartError::Thread { thread: name, source })?;
        let up = up.recv().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        up.map_err(failed)?;
        Ok(Some(Self { thread, stop }))
    }

    /// Ends it after the requests in hand.
    pub(crate) fn stop(self) {
        // An error means that it has ended already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Does its duties until `stopped`; calls `up` when they have begun.
async fn run(
    plane: Arc<Plane>,
    metrics: Metrics,
    Duties { door, service }: Duties,
    stopped: oneshot::Receiver<()>,
    up: impl FnOnce(),
) -> io::Result<()> {
    let of_backends = async {
        match service {
            Some(service) => service.run(Arc::clone(&plane)).await,
            None => std::future::pending().await,
        }
    };
    let of_operator = async {
        let listener = match door {
            Some((door, connections_max)) => Some((TcpListener::from_std(door)?, connections_max)),
            None => None,
        };
        up();
        match listener {
            Some((listener, connections_max)) => {
                let router = admin::router(Arc::clone(&plane), metrics);
                admin::serve(router, listener, connections_max, stopped).await
            }
            None => {
                // An error is as good as the word: nobody is left to say it.
                let _ = stopped.await;
                Ok(())
            }
        }
    };
    tokio::select! {
        ended = of_operator => ended,
        () = of_backends => Ok(()),
        () = prober::run(Arc::clone(&plane)) => Ok(()),
    }
}

/// Runs the control plane's tasks on a ring where the data plane has one, too, else on plain tokio.
fn block_on(kind: DriverKind, tasks: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    if kind == DriverKind::Uring {
        let mut builder = tokio_uring::builder();
        // The ring carries file work only; sockets are tokio's.
        builder.entries(RING_ENTRIES);
        match tokio_uring::Runtime::new(&builder) {
            Ok(runtime) => return runtime.block_on(tasks),
            Err(error) => tracing::warn!(%error, "no ring left for the control plane; plain tokio"),
        }
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tasks)
}

const RING_ENTRIES: u32 = 64;
