//! Shard threads: pinned, each building its own driver, started together, their ends reported.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded};
use net_io::steer::Steering;
use net_io::{
    Driver, DriverConfig, DriverKind, EpollDriver, StreamSocket, UdpSocket, UringDriver, Waker,
};

use super::life::Life;
use crate::control::command::ShardCommand;
use crate::error::{ShardFailure, StartError};
use crate::shard::stats::SharedStats;
use crate::shard::{Handoff, Policy, Setup, Shard, Upstream};

/// What one shard thread is started with.
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) core: Option<usize>,
    pub(super) kind: DriverKind,
    pub(super) driver: DriverConfig,
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) steering: Vec<Option<Steering>>,
    pub(super) policy: Arc<Policy>,
    pub(super) store_bytes_max: usize,
    pub(super) seed: u64,
    pub(super) secret: [u64; 2],
    pub(super) commands: Receiver<ShardCommand>,
    pub(super) stats: SharedStats,
    pub(super) handoff: Handoff,
    pub(super) upstream: Upstream,
}

/// Shard threads with their drivers built and their sockets still silent.
pub(super) struct Built {
    threads: Vec<JoinHandle<()>>,
    go: Vec<Sender<Vec<Waker>>>,
    progress: Receiver<Progress>,
    /// How to wake each shard.
    pub(super) wakers: Vec<Waker>,
}

/// What a shard thread says of itself while it starts.
enum Progress {
    Built(usize, Waker),
    Serving,
    Failed(usize, io::Error),
}

/// Starts a thread per part and waits until each has its driver.
///
/// # Errors
/// The first thread that failed; all of them have ended then.
pub(super) fn build(parts: Vec<Part>, life: &Arc<Life>) -> Result<Built, StartError> {
    let (say, progress) = bounded(parts.len() * 2);
    let mut built = Built { threads: Vec::new(), go: Vec::new(), progress, wakers: Vec::new() };
    for part in parts {
        let (go, wait) = bounded(1);
        let (index, name) = (part.index, format!("kcp-shard-{}", part.index));
        let (say, life) = (say.clone(), Arc::clone(life));
        let body = move || watch(index, &life, &say, || run_any(part, &say, &wait));
        match thread::Builder::new().name(name.clone()).spawn(body) {
            Ok(thread) => built.threads.push(thread),
            Err(source) => {
                built.abandon();
                return Err(StartError::Thread { thread: name, source });
            }
        }
        built.go.push(go);
    }
    drop(say);
    match built.collect_wakers() {
        Ok(wakers) => built.wakers = wakers,
        Err(error) => {
            built.abandon();
            return Err(error);
        }
    }
    Ok(built)
}

impl Built {
    /// Lets every shard add its sockets and turn; returns the threads when all of them do.
    ///
    /// # Errors
    /// The first shard that failed; the others still run and must be stopped by command.
    pub(super) fn serve(self) -> (Vec<JoinHandle<()>>, Result<(), StartError>) {
        for go in &self.go {
            // A thread that is gone has said so, or will be missed below.
            let _ = go.send(self.wakers.clone());
        }
        let outcome = self.threads.iter().try_for_each(|_| match self.progress.recv() {
            Ok(Progress::Serving | Progress::Built(..)) => Ok(()),
            Ok(Progress::Failed(shard, source)) => Err(StartError::Shard { shard, source }),
            Err(_) => Err(silent_death()),
        });
        (self.threads, outcome)
    }

    fn collect_wakers(&self) -> Result<Vec<Waker>, StartError> {
        let mut wakers = vec![None; self.threads.len()];
        for _ in 0..wakers.len() {
            match self.progress.recv() {
                Ok(Progress::Built(index, waker)) => wakers[index] = Some(waker),
                Ok(Progress::Failed(shard, source)) => {
                    return Err(StartError::Shard { shard, source });
                }
                Ok(Progress::Serving) | Err(_) => return Err(silent_death()),
            }
        }
        wakers.into_iter().collect::<Option<Vec<_>>>().ok_or_else(silent_death)
    }

    /// Ends threads that were not told to go.
    pub(super) fn abandon(self) {
        drop(self.go);
        for thread in self.threads {
            // It reported its own end.
            let _ = thread.join();
        }
    }
}

/// Runs a shard and makes its end known, whatever ends it.
fn watch(index: usize, life: &Life, say: &Sender<Progress>, run: impl FnOnce() -> io::Result<()>) {
    let cause = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("panic: {}", panic_message(panic.as_ref())),
    };
    tracing::error!(shard = index, %cause, "shard ended");
    // Whichever of the two is listened to: the start, or the life after it.
    let _ = say.try_send(Progress::Failed(index, io::Error::other(cause.clone())));
    life.fail(ShardFailure { shard: index, cause });
}

fn silent_death() -> StartError {
    let source = io::Error::other("it ended without a word");
    StartError::Thread { thread: "kcp-shard".into(), source }
}

fn run_any(part: Part, say: &Sender<Progress>, go: &Receiver<Vec<Waker>>) -> io::Result<()> {
    pin(part.index, part.core);
    match part.kind {
        DriverKind::Uring => run(UringDriver::new(&part.driver), part, say, go),
        DriverKind::Epoll => run(EpollDriver::new(&part.driver), part, say, go),
        DriverKind::Sim => Err(io::Error::other("the simulated driver has no sockets")),
    }
}

fn run<D: Driver<Socket = UdpSocket, Stream = StreamSocket>>(
    driver: io::Result<D>,
    part: Part,
    say: &Sender<Progress>,
    go: &Receiver<Vec<Waker>>,
) -> io::Result<()> {
    let Part { index, mut handoff, .. } = part;
    let driver = match driver {
        Ok(driver) => driver,
        Err(error) => return failed(index, error, say),
    };
    let _ = say.send(Progress::Built(index, driver.waker()));
    // Nobody sends when the start failed elsewhere: this thread just ends.
    let Ok(wakers) = go.recv() else { return Ok(()) };
    handoff.set_wakers(wakers);
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let setup = Setup {
        index,
        driver,
        sockets: part.sockets,
        steering: part.steering,
        policy: part.policy,
        store_bytes_max: part.store_bytes_max,
        seed: part.seed,
        secret: part.secret,
        commands: part.commands,
        stats: part.stats,
        handoff,
        upstream: part.upstream,
    };
    let mut shard = match Shard::new(setup) {
        Ok(shard) => shard,
        Err(error) => return failed(part.index, error, say),
    };
    let _ = say.send(Progress::Serving);
    shard.run()
}

/// Reports a failed start with the kernel's own error, whose number decides the remedy.
fn failed(index: usize, error: io::Error, say: &Sender<Progress>) -> io::Result<()> {
    let _ = say.send(Progress::Failed(index, error));
    Ok(())
}

fn pin(shard: usize, core: Option<usize>) {
    let Some(core) = core else { return };
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!(shard, core, "cannot pin the shard to its core; it runs on any");
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_but_the_asked_one_is_a_failure() {
        type End = fn() -> io::Result<()>;
        let ends: [(End, Option<&str>); 4] = [
            (|| Ok(()), None),
            (|| Err(io::Error::other("the ring is gone")), Some("the ring is gone")),
            (|| panic!("a plain panic"), Some("panic: a plain panic")),
            (|| panic!("panic {}", 7), Some("panic: panic 7")),
        ];
        for (end, cause) in ends {
            let life = Life::new();
            let (say, progress) = bounded(2);
            watch(3, &life, &say, end);
            let failure = life.failures().try_recv().ok();
            let expected = cause.map(|cause| ShardFailure { shard: 3, cause: cause.into() });
            assert_eq!(failure, expected);
            assert_eq!(life.is_dead(3), cause.is_some());
            assert_eq!(
                life.not_ready(),
                Some(failure.map_or("starting".into(), |f| f.to_string()))
            );
            let told = matches!(progress.try_recv(), Ok(Progress::Failed(3, _)));
            assert_eq!(told, cause.is_some());
        }
    }
}
