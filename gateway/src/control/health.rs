//! Asks a running gateway whether it is well, for supervisors that can only start a program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::banner::reachable;

/// Asks the gateway whose admin port is `admin` and that runs on this host.
///
/// # Errors
/// It does not answer in time, or says that it is not well; the message is its answer.
pub fn ask(admin: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&reachable(admin), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    // Only our own server is ever asked: the status line is all there is to understand.
    if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// Below the time that container engines allow by default.
const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 4096;
