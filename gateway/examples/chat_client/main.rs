//! A terminal that speaks KCP through the C library, unchanged: what is typed is sent line by line, what comes is printed.
//!
//! ```text
//! cargo run -p kcp-gateway --example chat_client -- HOST:PORT NAME
//! ```
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for people, with a clock of its own"
)]

use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, ErrorKind};
use std::net::UdpSocket;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use kcp_oracle::Reference;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(name)) = (args.next(), args.next()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "write HOST:PORT and a name"));
    };
    let socket = UdpSocket::bind(if server.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.connect(&server)?;
    socket.set_read_timeout(Some(TICK))?;
    // Any number will do: there is no handshake.
    let [a, b, c, d, ..] = RandomState::new().hash_one(0_u8).to_le_bytes();
    let mut kcp = Reference::new(u32::from_le_bytes([a, b, c, d]));
    kcp.nodelay(1, 10, 2, 1);
    kcp.wndsize(256, 256);
    kcp.send(name.as_bytes());
    talk(&mut kcp, &socket, &typed())
}

/// Until the server says "bye", or nothing more is typed and everything has arrived.
fn talk(kcp: &mut Reference, socket: &UdpSocket, typed: &Receiver<String>) -> io::Result<()> {
    let began = Instant::now();
    let mut datagram = [0; 2048];
    let mut message = vec![0; 65_536];
    let (mut leaving, mut heard) = (false, false);
    loop {
        match typed.try_recv() {
            Ok(line) if line.is_empty() => {}
            Ok(line) => drop(kcp.send(line.as_bytes())),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) if leaving => {}
            Err(TryRecvError::Disconnected) => {
                leaving = true;
                kcp.send(b"/quit");
            }
        }
        let now = u32::try_from(began.elapsed().as_millis() % (1 << 32)).unwrap_or(0);
        kcp.update(now);
        send(kcp, socket)?;
        match socket.recv(&mut datagram) {
            Ok(len) => {
                heard = true;
                kcp.input(&datagram[..len]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // Nobody is there yet: the library sends again.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        if !heard && began.elapsed() > PATIENCE {
            heard = true;
            println!("{} does not answer yet: does the gateway run there?", socket.peer_addr()?);
        }
        while let Ok(len) = usize::try_from(kcp.recv(&mut message)) {
            let line = String::from_utf8_lossy(&message[..len]);
            println!("{line}");
            if line == "bye" {
                // So that the server need not send it again.
                kcp.flush();
                return send(kcp, socket);
            }
        }
    }
}

/// Sends what the library has put out.
fn send(kcp: &mut Reference, socket: &UdpSocket) -> io::Result<()> {
    for datagram in kcp.output().iter() {
        match socket.send(datagram) {
            // What an earlier one met with: nobody was there yet.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            sent => drop(sent?),
        }
    }
    kcp.output_mut().clear();
    Ok(())
}

/// The lines of standard input, read on a thread of their own.
fn typed() -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line.trim().to_owned()).is_err() {
                break;
            }
        }
    });
    lines
}

/// Silence that is worth a word.
const PATIENCE: Duration = Duration::from_secs(3);
/// As often as the library is to be updated.
const TICK: Duration = Duration::from_millis(5);
