//! Why a gateway did not start, or did not go on. Each message is one line: the cause, then what to do.

use std::io;
use std::net::SocketAddr;

use net_io::probe::ProbeError;
use net_io::socket::BindError;

use crate::config::ConfigErrors;

/// Why a gateway did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The driver asked for cannot be had.
    #[error("no driver: {0}")]
    Probe(#[from] ProbeError),
    /// A listener's address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Only listeners that this host does not know were configured.
    #[error(
        "no listener left: this host knows none of the address families; give one with --listen 0.0.0.0:4000"
    )]
    NoListener,
    /// Steering by conversation cannot be set up.
    #[error(
        "cannot steer {addr} by conversation: {source}; set `steer = \"address\"` for this listener, or run on a kernel from 4.5 on"
    )]
    Steer {
        /// The listener.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The admin address cannot be bound.
    #[error("cannot listen on admin address {addr}: {source}; {}", bind_remedy(.source, "--admin"))]
    Admin {
        /// The address.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The admin server could not set up its runtime.
    #[error("the admin server cannot start: {source}; {}", host_remedy(.source))]
    Control {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A shard could not set up its driver or its sockets.
    #[error("shard {shard} cannot start: {source}; {}", host_remedy(.source))]
    Shard {
        /// Which.
        shard: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread could not be made, or ended before it said whether it had started.
    #[error(
        "cannot start thread {thread}: {source}; raise the process's limit of threads (ulimit -u, TasksMax=)"
    )]
    Thread {
        /// Its name.
        thread: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("no random numbers: {0}; the getrandom system call must be allowed")]
    Random(getrandom::Error),
}

fn bind_remedy(error: &io::Error, flag: &str) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        format!(
            "another process has it (ss -lntp shows which): stop it, or choose another with {flag}"
        )
    } else if kind == io::ErrorKind::PermissionDenied {
        format!(
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a higher one with {flag}"
        )
    } else if kind == io::ErrorKind::AddrNotAvailable {
        format!("no interface has it (ip addr shows them): choose another with {flag}")
    } else {
        format!("choose another with {flag}")
    }
}

fn host_remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::OutOfMemory {
        "its ring exceeds the locked-memory limit: raise it (ulimit -l, LimitMEMLOCK=), lower io.buffers, or use --io epoll"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "the kernel or a seccomp profile refuses io_uring: allow it, or use --io epoll"
    } else if error.raw_os_error() == Some(EMFILE) {
        "raise the limit of open files (ulimit -n, LimitNOFILE=)"
    } else {
        "kcp-gateway doctor shows what this host allows"
    }
}

/// A shard that ended although nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard} ended: {cause}")]
pub struct ShardFailure {
    /// Which.
    pub shard: usize,
    /// The driver's error, or the panic's message.
    pub cause: String,
}

/// Linux's number for "too many open files", on every architecture.
const EMFILE: i32 = 24;
