//! On `kcp`, which leaves socket and clock to its user.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use kcp::Kcp;

use crate::{CONV, MESSAGE, Outcome, done, orders};

pub(crate) fn run(socket: &UdpSocket, target: SocketAddr) -> Outcome {
    socket.connect(target)?;
    let (pass, told) = channel();
    orders(move |restart| pass.send(restart).is_ok());
    let began = Instant::now();
    let mut kcp = fresh(socket)?;
    let mut buffer = [0; 64];
    loop {
        match told.try_recv() {
            Ok(restart) => {
                if restart {
                    kcp = fresh(socket)?;
                }
                kcp.send(MESSAGE)?;
                let len = loop {
                    exchange(&mut kcp, socket, began)?;
                    if let Ok(len) = kcp.recv(&mut buffer) {
                        break len;
                    }
                };
                if &buffer[..len] != MESSAGE {
                    return Err("another message came back".into());
                }
                done()?;
            }
            Err(TryRecvError::Empty) => {
                exchange(&mut kcp, socket, began)?;
                if kcp.recv(&mut buffer).is_ok() {
                    return Err("a message that nobody asked for".into());
                }
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// Update, and take one datagram if it comes before the next update.
fn exchange(
    kcp: &mut Kcp<Output>,
    socket: &UdpSocket,
    began: Instant,
) -> Result<(), Box<dyn Error>> {
    let now = u32::try_from(began.elapsed().as_millis())?;
    kcp.update(now)?;
    let wait = Duration::from_millis(kcp.check(now).max(1).into());
    socket.set_read_timeout(Some(wait))?;
    let mut datagram = [0; 2048];
    match socket.recv(&mut datagram) {
        Ok(len) => kcp.input(&datagram[..len]).map(drop)?,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn fresh(socket: &UdpSocket) -> io::Result<Kcp<Output>> {
    let mut kcp = Kcp::new(CONV, Output(socket.try_clone()?));
    kcp.set_nodelay(true, 10, 2, true);
    kcp.set_wndsize(256, 256);
    Ok(kcp)
}

struct Output(UdpSocket);

impl Write for Output {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.send(datagram)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
