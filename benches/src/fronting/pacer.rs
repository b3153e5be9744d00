//! Clients of a TCP proxy: many connections that say 64 bytes at a steady pace and expect them back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail, ensure};
use net_io::{Driver, DriverConfig, EpollDriver, Now, StreamConfig, StreamEvent, StreamId};

/// Connections on a thread of their own, all of them made. Dropping it leaves them to the end of the process; see
/// [`Pacer::stop`].
#[derive(Debug)]
pub(super) struct Pacer {
    echoed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Pacer {
    /// Connects `connections` times and lets all together say `per_s` messages a second.
    ///
    /// # Errors
    /// A connection could not be made.
    pub(super) fn start(to: SocketAddr, connections: u32, per_s: u64) -> Result<Self> {
        let (echoed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&echoed), Arc::clone(&stop));
        let (made, all_made) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let config =
                DriverConfig { streams: Some(StreamConfig::default()), ..DriverConfig::default() };
            let mut driver = EpollDriver::new(&config)?;
            let ids = connect(&mut driver, to, connections)?;
            // Nobody listens any more when the start was given up.
            let _ = made.send(());
            talk(driver, &ids, per_s, &count, &stopped)
        });
        let pacer = Self { echoed, stop, thread };
        if all_made.recv().is_err() {
            pacer.stop()?;
            bail!("the clients ended before they began");
        }
        Ok(pacer)
    }

    /// Messages that came back.
    pub(super) fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed) / MESSAGE as u64
    }

    /// Stops speaking, and waits for what is on its way.
    ///
    /// # Errors
    /// Not everything came back, or a connection was lost.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the clients' thread panicked"))?
    }
}

fn connect(driver: &mut EpollDriver, to: SocketAddr, connections: u32) -> Result<Vec<StreamId>> {
    let (mut ids, mut made) = (Vec::new(), 0);
    while made < connections {
        if let Some(event) = driver.stream_event() {
            ensure!(matches!(event, StreamEvent::Connected(_)), "a connection was lost: {event:?}");
            made += 1;
        } else if ids.len() < connections as usize && ids.len() < made as usize + 64 {
            let id = driver.connect(&to.into(), None).context("cannot connect")?;
            driver.stream_read(id);
            ids.push(id);
        } else {
            driver.submit_and_wait(None)?;
        }
    }
    Ok(ids)
}

/// Message `n` is due `n / per_s` seconds after the first, and goes over connection `n`, in turn.
fn talk(
    mut driver: EpollDriver,
    ids: &[StreamId],
    per_s: u64,
    echoed: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let began = driver.submit_and_wait(Some(Now(0)))?;
    let mut message = [7; MESSAGE];
    message[..4].copy_from_slice(&u32::try_from(MESSAGE - 4)?.to_be_bytes());
    let (mut sent, mut last) = (0, None);
    loop {
        let now = driver.now();
        if !stop.load(Ordering::Relaxed) {
            let due = (now.0 - began.0) * per_s / 1_000_000;
            for n in sent..due {
                let id = ids[usize::try_from(n % ids.len() as u64)?];
                let taken = driver.stream_write(id, &message);
                ensure!(taken == MESSAGE, "a connection takes nothing");
            }
            sent = sent.max(due);
        } else if echoed.load(Ordering::Relaxed) == sent * MESSAGE as u64 {
            return Ok(());
        } else {
            let until = *last.get_or_insert(now.add_ms(5000));
            ensure!(now < until, "messages did not come back");
        }
        driver.submit_and_wait(Some(Now(now.0 + 1000)))?;
        while let Some(event) = driver.stream_event() {
            let StreamEvent::Data(id, bytes) = event else {
                return Err(anyhow!("a connection was lost: {event:?}"));
            };
            echoed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            driver.stream_read(id);
        }
    }
}

/// Bytes of a message, with the four of its length that a gateway would put before it.
const MESSAGE: usize = 68;
