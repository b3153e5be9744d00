//! Echo servers as the crates' own examples have them: a task for each session, on a runtime of one thread. The settings
//! that all servers have: nodelay 1, interval 10 ms, resend 2, nc 1, windows of 256, mtu 1400, messages.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

type Outcome = Result<(), Box<dyn Error>>;

/// Crate `tokio_kcp`. Every message is flushed when it is written: left to its interval, an echo would wait up to 10 ms.
/// Acknowledgements are not flushed for themselves, so they travel with the echo.
pub(crate) fn tokio_kcp() -> Outcome {
    use tokio_kcp::{KcpConfig, KcpListener, KcpNoDelayConfig};

    let config = KcpConfig {
        mtu: 1400,
        nodelay: KcpNoDelayConfig { nodelay: true, interval: 10, resend: 2, nc: true },
        wnd_size: (256, 256),
        flush_write: true,
        flush_acks_input: false,
        stream: false,
        ..KcpConfig::default()
    };
    runtime()?.block_on(async {
        let (socket, addr) = socket()?;
        let mut listener = KcpListener::from_socket(config, socket).await?;
        announce(addr)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut message = vec![0; MESSAGE_MAX];
                while let Ok(len @ 1..) = stream.recv(&mut message).await {
                    if stream.send(&message[..len]).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

/// Crate `kcp-tokio`, which flushes what was written and what was received by itself.
pub(crate) fn kcp_tokio() -> Outcome {
    use kcp_tokio::config::NodeDelayConfig;
    use kcp_tokio::{KcpConfig, KcpListener, UdpTransport};

    let nodelay =
        NodeDelayConfig { nodelay: true, interval: 10, resend: 2, no_congestion_control: true };
    // Its queue of clients not accepted yet is the only default that 1,000 clients at once would overflow.
    let config = KcpConfig { max_pending_connections: 1024, ..KcpConfig::new() }
        .nodelay_config(nodelay)
        .window_size(256, 256)
        .mtu(1400)
        .stream_mode(false);
    runtime()?.block_on(async {
        let (socket, addr) = socket()?;
        let transport = Arc::new(UdpTransport::new(socket));
        let mut listener = KcpListener::with_transport(transport, config).await?;
        announce(addr)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut message = vec![0; MESSAGE_MAX];
                while let Ok(len @ 1..) = stream.read(&mut message).await {
                    if stream.write_all(&message[..len]).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Standard input, bound and sized as the sockets of all other servers are.
fn socket() -> std::io::Result<(UdpSocket, SocketAddr)> {
    let socket = std::net::UdpSocket::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let addr = socket.local_addr()?;
    Ok((UdpSocket::from_std(socket)?, addr))
}

/// Tells the parent; it reads through a pipe, so the line must leave at once.
fn announce(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "listening {addr}")?;
    out.flush()
}

/// More than any case sends.
const MESSAGE_MAX: usize = 2048;
