//! Listening, and what carries a session of `tcp`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Runtime;

use super::behaviour::{Behaviour, Crash, Cut, Ending};
use super::counts::Counts;
use super::session::{self, Host, Transport};
use super::{Kind, Listen, yamux};

/// An address that is listened on.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) local: Listen,
    listener: Option<Listener>,
    /// A socket's file is its owner's to remove.
    file: Option<PathBuf>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Listens; connections wait in the backlog until [`Bound::accept_on`]. Within a runtime.
    pub(super) fn bind(listen: &Listen, buffer: Option<u32>) -> io::Result<Self> {
        match listen {
            Listen::Inet(addr) => {
                let socket =
                    if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                socket.set_reuseaddr(true)?;
                if let Some(buffer) = buffer {
                    // Before listening: connections inherit it, and the window is announced with the first segment.
                    socket.set_recv_buffer_size(buffer)?;
                    socket.set_send_buffer_size(buffer)?;
                }
                socket.bind(*addr)?;
                let listener = socket.listen(BACKLOG)?;
                let local = Listen::Inet(listener.local_addr()?);
                Ok(Self { local, listener: Some(Listener::Tcp(listener)), file: None })
            }
            Listen::Unix(path) => {
                let listener = UnixListener::bind(path)?;
                let (local, file) = (listen.clone(), Some(path.clone()));
                Ok(Self { local, listener: Some(Listener::Unix(listener)), file })
            }
        }
    }

    /// Accepts connections until the runtime ends.
    pub(super) fn accept_on(&mut self, runtime: &Runtime, host: &Arc<Host>, kind: Kind) {
        let host = Arc::clone(host);
        match self.listener.take() {
            Some(Listener::Tcp(listener)) => drop(runtime.spawn(accept_tcp(listener, host, kind))),
            Some(Listener::Unix(listener)) => {
                drop(runtime.spawn(accept_unix(listener, host, kind)))
            }
            None => {}
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Somebody else may have removed it; nothing is lost then.
            let _ = std::fs::remove_file(file);
        }
    }
}

async fn accept_tcp(listener: TcpListener, host: Arc<Host>, kind: Kind) {
    loop {
        let Some(socket) = taken(&host, listener.accept().await).await else { continue };
        // Answers are small and wanted at once. A connection that is gone already says so when it is read.
        let _ = socket.set_nodelay(true);
        match kind {
            Kind::Tcp | Kind::Nats => spawn(&host, |host| session::run(host, socket, None)),
            Kind::Yamux => {
                if resets_links(host.serve.behaviour) {
                    let _ = socket.set_zero_linger();
                }
                spawn(&host, |host| yamux::run(host, socket));
            }
        }
    }
}

async fn accept_unix(listener: UnixListener, host: Arc<Host>, kind: Kind) {
    loop {
        let Some(socket) = taken(&host, listener.accept().await).await else { continue };
        match kind {
            Kind::Tcp | Kind::Nats => spawn(&host, |host| session::run(host, socket, None)),
            Kind::Yamux => spawn(&host, |host| yamux::run(host, socket)),
        }
    }
}

/// The connection, counted; or, when the kernel has none to give, nothing after a moment, so as not to spin.
async fn taken<S, A>(host: &Host, accepted: io::Result<(S, A)>) -> Option<S> {
    match accepted {
        Ok((socket, _)) => {
            Counts::add(&host.counts.connections, 1);
            Some(socket)
        }
        Err(error) => {
            // A client that went away before it was accepted is no fault of this process.
            if error.kind() != io::ErrorKind::ConnectionAborted {
                Counts::add(&host.counts.accept_errors, 1);
                tokio::time::sleep(RETRY_AFTER).await;
            }
            None
        }
    }
}

/// Serves a connection, counted as open meanwhile.
fn spawn<F: Future<Output = ()> + Send + 'static>(
    host: &Arc<Host>,
    serve: impl FnOnce(Arc<Host>) -> F,
) {
    host.counts.connections_open.fetch_add(1, Ordering::Relaxed);
    let (served, host) = (serve(Arc::clone(host)), Arc::clone(host));
    tokio::spawn(async move {
        served.await;
        host.counts.connections_open.fetch_sub(1, Ordering::Relaxed);
    });
}

fn resets_links(behaviour: Behaviour) -> bool {
    matches!(behaviour, Behaviour::Crash(Crash { cut: Cut::Link, ending: Ending::Reset, .. }))
}

impl Transport for TcpStream {
    fn reset(self) {
        // Where there is nothing left to reset, closing is all there is.
        let _ = self.set_zero_linger();
    }
}

impl Transport for UnixStream {
    /// A Unix socket has no RST: its other side sees the end.
    fn reset(self) {}
}

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;
const RETRY_AFTER: Duration = Duration::from_millis(10);
