//! A backend to test gateways with: it speaks `tcp`, `yamux` or `nats`, and behaves well or badly, as asked.
//!
//! ```text
//!  listener --> tcp:   a connection is a session  --+
//!           --> yamux: a connection is a link,      +--> PROXY header --> messages --> behaviour --> answers
//!                      a stream of it is a session --+
//!
//!  NATS --> subjects of sessions --> description --> messages --> behaviour --> answers
//! ```
//!
//! It runs on tokio and on other people's yamux, so that a gateway is never tested against its own reading of a protocol. One
//! session is one task and, while nothing is on the way, a few hundred bytes: 100,000 fit.

mod behaviour;
mod counts;
mod messages;
mod nats;
mod proxy;
mod rooms;
mod session;
mod socket;
mod tamper;
mod yamux;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use self::behaviour::{Behaviour, Crash, Cut, Ending, Garbage, Misdeed, Rooms, Side, Slow};
pub use self::counts::Totals;
pub use self::messages::Framing;
use self::session::Host;
use self::socket::Bound;

/// What the backend is and does, as checked data.
#[derive(Clone, Debug)]
pub struct Serve {
    /// How sessions arrive.
    pub kind: Kind,
    /// Where it listens; of no account for [`Kind::Nats`].
    pub listen: Vec<Listen>,
    /// The server of [`Kind::Nats`].
    pub nats: String,
    /// What gateway and backend agreed on.
    pub dialect: Dialect,
    /// What it does with messages.
    pub behaviour: Behaviour,
    /// Threads.
    pub threads: usize,
    /// Bytes of each connection's kernel buffers, each way; `None` leaves it to the kernel.
    pub socket_buffer: Option<u32>,
    /// Decides everything that is random.
    pub seed: u64,
}

/// How sessions arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection each.
    Tcp,
    /// A stream each, of few connections that speak yamux.
    Yamux,
    /// By their subjects, from a NATS server.
    Nats,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP; port 0 takes a free one.
    Inet(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

/// What gateway and backend agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// How messages are told apart.
    pub framing: Framing,
    /// Each session begins with a PROXY header of version 2, which is checked.
    pub proxy: bool,
    /// The longest message taken, in bytes.
    pub message_max: usize,
}

/// The backend could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its threads or their poller were refused.
    #[error("cannot start {threads} threads: {cause}")]
    Runtime {
        /// How many were asked for.
        threads: usize,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// It cannot listen there.
    #[error("--listen {listen}: {cause}{}", hint(.cause))]
    Listen {
        /// Where.
        listen: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The NATS server is not there, or refuses.
    #[error("--nats {url}: {cause}")]
    Nats {
        /// Where.
        url: String,
        /// Why.
        cause: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::AddrInUse {
        "; another process listens there, or one has left its Unix socket's file behind: remove it"
    } else if source.kind() == io::ErrorKind::AddrNotAvailable {
        "; this host has no such address"
    } else {
        ""
    }
}

/// A backend that runs.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    host: Arc<Host>,
    bound: Vec<Bound>,
}

impl Server {
    /// Starts it: when this returns, every address accepts connections.
    ///
    /// # Errors
    /// An address that cannot be listened on, or no threads; nothing is left behind.
    pub fn start(serve: &Serve) -> Result<Self, ServeError> {
        let threads = serve.threads;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .map_err(|cause| ServeError::Runtime { threads, cause })?;
        let host = Arc::new(Host::new(serve));
        if serve.kind == Kind::Nats {
            let failed = |cause| ServeError::Nats { url: serve.nats.clone(), cause };
            let (client, sessions) =
                runtime.block_on(nats::connect(&serve.nats)).map_err(failed)?;
            runtime.spawn(nats::run(Arc::clone(&host), client, sessions));
            return Ok(Self { runtime, host, bound: Vec::new() });
        }
        let mut bound = Vec::new();
        {
            let _context = runtime.enter();
            for listen in &serve.listen {
                let one = Bound::bind(listen, serve.socket_buffer)
                    .map_err(|cause| ServeError::Listen { listen: listen.to_string(), cause })?;
                bound.push(one);
            }
        }
        for one in &mut bound {
            one.accept_on(&runtime, &host, serve.kind);
        }
        Ok(Self { runtime, host, bound })
    }

    /// Where it listens, in the order asked for, with the ports it got; nowhere for [`Kind::Nats`].
    #[must_use]
    pub fn listening(&self) -> Vec<Listen> {
        self.bound.iter().map(|one| one.local.clone()).collect()
    }

    /// What happened so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.host.counts.totals()
    }

    /// Ends all sessions, and says what happened.
    #[must_use]
    pub fn stop(self) -> Totals {
        let Self { runtime, host, bound } = self;
        let totals = host.counts.totals();
        runtime.shutdown_timeout(STOP_AT_MOST);
        drop(bound);
        totals
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A hundred thousand tasks are dropped in far less.
const STOP_AT_MOST: Duration = Duration::from_secs(10);
