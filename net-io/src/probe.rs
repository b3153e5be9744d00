//! Picks the driver at start; says which, and why not the other, with what to try.
//!
//! By a self-test, not by version: kernels are patched, sandboxes intercept, and what is allowed differs by process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use socket2::SockRef;

use crate::clock::monotonic;
use crate::driver::{Destination, Driver, DriverConfig, DriverKind, Now};
use crate::epoll::EpollDriver;
use crate::socket::{SocketOptions, UdpSocket};
use crate::stream::{StreamConfig, StreamSocket};
use crate::uring::UringDriver;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// io_uring when the host allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// The outcome: which driver, and why.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The driver to use.
    pub kind: DriverKind,
    /// One line for the log, the metrics and the status page.
    pub reason: String,
}

/// Why the driver asked for cannot be had; the text has the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct ProbeError {
    /// What the kernel refused.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl Probe {
    /// Tries a driver by using it: set-up, one datagram sent and received over loopback, a stream's send cut short. Takes
    /// milliseconds; where locked memory is short, a quarter of a second. Must not run on a thread that serves traffic.
    ///
    /// # Errors
    /// Only with [`IoChoice::Uring`], or where the host has no loopback UDP at all.
    pub fn run(choice: IoChoice, config: &DriverConfig) -> Result<Self, ProbeError> {
        Self::run_with(choice, || test_uring(config), || test_epoll(config))
    }

    /// [`run`](Probe::run) with other self-tests: how a program behaves on a host that refuses is a test away.
    ///
    /// # Errors
    /// As [`run`](Probe::run).
    #[doc(hidden)]
    pub fn run_with(
        choice: IoChoice,
        uring: impl FnOnce() -> io::Result<()>,
        epoll: impl FnOnce() -> io::Result<()>,
    ) -> Result<Self, ProbeError> {
        let why_epoll = match choice {
            IoChoice::Epoll => "epoll: as configured".to_owned(),
            IoChoice::Auto | IoChoice::Uring => match uring() {
                Ok(()) => {
                    let reason = "io_uring: the self-test passed".to_owned();
                    return Ok(Self { kind: DriverKind::Uring, reason });
                }
                Err(error) if choice == IoChoice::Uring => return Err(explain(&error)),
                Err(error) => format!("epoll: {}", explain(&error)),
            },
        };
        match epoll() {
            Ok(()) => Ok(Self { kind: DriverKind::Epoll, reason: why_epoll }),
            Err(error) => Err(ProbeError {
                cause: format!("no UDP over loopback, not even with epoll: {error}"),
                remedy: match error.raw_os_error() {
                    Some(libc::EMFILE) => MORE_FILES,
                    _ => "bring the loopback interface up (`ip link set lo up`)",
                }
                .to_owned(),
            }),
        }
    }
}

/// What the refusal of a ring means on this host, and what to change.
#[must_use]
pub fn explain(error: &io::Error) -> ProbeError {
    Host::read().explain(error)
}

fn test_uring(config: &DriverConfig) -> io::Result<()> {
    if let Some(streams) = &config.streams {
        let bounds = StreamConfig::default();
        let streams = StreamConfig {
            write_max: bounds.write_max,
            write_pool: bounds.write_pool,
            ..streams.clone()
        };
        let config = DriverConfig { streams: Some(streams), ..config.clone() };
        test_short_send(UringDriver::new(&config)?)?;
    }
    self_test(UringDriver::new(config)?)
}

fn test_epoll(config: &DriverConfig) -> io::Result<()> {
    self_test(EpollDriver::new(config)?)
}

/// More than a socket holds in one send: the ring hears only of those that were cut short, and would take silence for success.
fn test_short_send<D: Driver<Stream = StreamSocket>>(mut driver: D) -> io::Result<()> {
    let (ours, _theirs) = UnixStream::pair()?;
    SockRef::from(&ours).set_send_buffer_size(1)?;
    let stream = driver.adopt(ours.into()).map_err(io::Error::other)?;
    let written = driver.stream_write(stream, &[0; LONG_SEND]) as u64;
    driver.submit_and_wait(Some(Now(0)))?;
    let counters = driver.stream_counters();
    if counters.tx_blocked == 1 && counters.tx_bytes < written {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel does not tell of a send cut short"))
}

/// One datagram to itself, over whichever loopback address there is.
fn self_test<D: Driver<Socket = UdpSocket>>(mut driver: D) -> io::Result<()> {
    let options = SocketOptions { recv_buffer: 64 << 10, send_buffer: 64 << 10 };
    let bind = |addr: &str| {
        let addr: SocketAddr = addr.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        UdpSocket::bind(addr, &options).map_err(|error| error.source)
    };
    let socket = bind("127.0.0.1:0").or_else(|_| bind("[::1]:0"))?;
    let peer = socket.local_addr()?;
    let socket = driver.add_socket(socket)?;
    driver.slot(PING.len()).copy_from_slice(PING);
    driver.queue(PING.len(), &Destination { socket, peer, local: None });
    let deadline = Now(monotonic().0 + PING_US);
    while driver.submit_and_wait(Some(deadline))? < deadline {
        while let Some(datagram) = driver.recv() {
            if datagram.peer == peer && datagram.payload == PING {
                return Ok(());
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "a datagram to itself did not arrive"))
}

/// What bears on io_uring here.
#[derive(Clone, Debug, Default)]
struct Host {
    /// The sysctl kernel.io_uring_disabled; absent before Linux 6.6.
    disabled: Option<String>,
    /// The limit on locked memory, as /proc has it.
    memlock: Option<String>,
    release: Option<String>,
}

impl Host {
    fn read() -> Self {
        let line =
            |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned());
        let limits = line("/proc/self/limits");
        let memlock = limits.as_deref().and_then(|limits| {
            let row = limits.lines().find_map(|row| row.strip_prefix("Max locked memory"))?;
            row.split_whitespace().next().map(str::to_owned)
        });
        Self {
            disabled: line("/proc/sys/kernel/io_uring_disabled"),
            memlock,
            release: line("/proc/sys/kernel/osrelease"),
        }
    }

    fn explain(&self, error: &io::Error) -> ProbeError {
        let release = self.release.as_deref().unwrap_or("of unknown version");
        let (cause, remedy) = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => match self.disabled.as_deref() {
                Some("2") => (
                    "io_uring is switched off on this host (kernel.io_uring_disabled = 2)".to_owned(),
                    "set it to 0 with `sysctl -w kernel.io_uring_disabled=0`, or choose epoll",
                ),
                Some("1") => (
                    "io_uring is for privileged processes only (kernel.io_uring_disabled = 1)".to_owned(),
                    "put this user's group into the sysctl kernel.io_uring_group, grant CAP_SYS_ADMIN, or choose epoll",
                ),
                _ => (
                    "a seccomp or security policy forbids io_uring, as the defaults of Docker and containerd do".to_owned(),
                    "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, or choose epoll",
                ),
            },
            Some(libc::ENOSYS) => (
                format!("the kernel ({release}) or the sandbox has no io_uring"),
                "run on Linux 6.1 or later outside of sandboxes such as gVisor, or choose epoll",
            ),
            Some(libc::ENOMEM) => (
                format!(
                    "the ring does not fit the limit on locked memory ({} bytes, shared by all processes of this user)",
                    self.memlock.as_deref().unwrap_or("unknown")
                ),
                "set LimitMEMLOCK=infinity (`ulimit -l unlimited`), grant CAP_IPC_LOCK, use fewer shards or buffers, or choose epoll",
            ),
            Some(libc::EINVAL | libc::EOPNOTSUPP) => (
                format!("this kernel ({release}) is too old for the io_uring features used"),
                "run on Linux 6.1 or later, or choose epoll",
            ),
            Some(libc::EMFILE) => (format!("no file descriptor for the ring: {error}"), MORE_FILES),
            _ => (format!("io_uring does not work here: {error}"), "choose epoll"),
        };
        ProbeError { cause, remedy: remedy.to_owned() }
    }
}

const MORE_FILES: &str = "raise the limit of open files (`ulimit -n`, LimitNOFILE=)";
/// Far beyond the smallest send buffer that a socket can have.
const LONG_SEND: usize = 128 << 10;
const PING: &[u8] = b"are you there?";
/// How long the self-test's datagram may take, in microseconds: loopback takes tens, a starved machine more.
const PING_US: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(errno: i32) -> impl FnOnce() -> io::Result<()> {
        move || Err(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn every_refusal_has_a_cause_and_a_remedy_in_one_line() {
        let host = |disabled: &str| Host {
            disabled: Some(disabled.to_owned()),
            memlock: Some("65536".to_owned()),
            release: Some("5.15.0".to_owned()),
        };
        for (disabled, errno, cause, remedy) in [
            ("2", libc::EPERM, "io_uring_disabled = 2", "io_uring_disabled=0"),
            ("1", libc::EPERM, "io_uring_disabled = 1", "io_uring_group"),
            ("0", libc::EPERM, "seccomp", "io_uring_setup"),
            ("0", libc::EACCES, "security policy", "io_uring_setup"),
            ("0", libc::ENOSYS, "5.15.0", "gVisor"),
            ("0", libc::ENOMEM, "65536 bytes", "LimitMEMLOCK"),
            ("0", libc::EINVAL, "5.15.0", "6.1"),
            ("0", libc::EMFILE, "os error 24", "LimitNOFILE"),
            ("0", libc::ENFILE, "os error 23", "epoll"),
        ] {
            let error = host(disabled).explain(&io::Error::from_raw_os_error(errno));
            assert!(error.cause.contains(cause), "{errno}: {error}");
            assert!(error.remedy.contains(remedy), "{errno}: {error}");
            assert!(!error.to_string().contains('\n'));
        }
        // Before 6.6 there is no such sysctl: only a policy can refuse.
        let error = Host::default().explain(&io::Error::from_raw_os_error(libc::EPERM));
        assert!(error.cause.contains("seccomp"), "{error}");
    }

    #[test]
    fn uring_or_nothing_fails_and_auto_falls_back_with_the_reason() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EINVAL] {
            let error = Probe::run_with(IoChoice::Uring, refuse(errno), || unreachable!());
            let error = error.unwrap_err();
            assert_eq!(error, explain(&io::Error::from_raw_os_error(errno)));
            let probe = Probe::run_with(IoChoice::Auto, refuse(errno), || Ok(())).unwrap();
            assert_eq!(probe.kind, DriverKind::Epoll);
            assert_eq!(probe.reason, format!("epoll: {error}"));
        }
    }

    #[test]
    fn epoll_by_choice_does_not_try_a_ring() {
        let probe = Probe::run_with(IoChoice::Epoll, || unreachable!(), || Ok(())).unwrap();
        assert_eq!(
            (probe.kind, probe.reason.as_str()),
            (DriverKind::Epoll, "epoll: as configured")
        );
    }

    #[test]
    fn a_host_without_loopback_fails_whatever_was_asked() {
        for choice in [IoChoice::Auto, IoChoice::Epoll] {
            let error = Probe::run_with(choice, refuse(libc::EPERM), refuse(libc::EADDRNOTAVAIL));
            assert!(error.unwrap_err().cause.contains("loopback"));
        }
    }

    #[test]
    fn this_host_is_read() {
        let host = Host::read();
        assert!(
            host.memlock.is_some_and(|limit| limit == "unlimited" || limit.parse::<u64>().is_ok())
        );
        assert!(host.release.is_some_and(|release| !release.is_empty()));
    }

    #[test]
    fn epoll_passes_its_self_test() {
        test_epoll(&DriverConfig::default()).unwrap();
    }

    /// A host without io_uring fails this test: a green run means both drivers were tested.
    #[test]
    fn io_uring_passes_its_self_test() {
        test_uring(&DriverConfig::default()).unwrap();
        let streams = Some(StreamConfig { write_max: 1, ..StreamConfig::default() });
        test_uring(&DriverConfig { streams, ..DriverConfig::default() }).unwrap();
    }

    /// A driver that takes everything at once looks like a kernel that does not tell.
    #[test]
    fn a_send_that_is_not_cut_short_fails_the_self_test() {
        let streams = Some(StreamConfig { write_max: 1, ..StreamConfig::default() });
        let driver = UringDriver::new(&DriverConfig { streams, ..DriverConfig::default() });
        let error = test_short_send(driver.unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
