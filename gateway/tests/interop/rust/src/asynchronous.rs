//! On `kcp-tokio`, which brings tasks of its own for each session. Each session has a runtime to itself: dropping that ends
//! the tasks before they can say anything more.

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use kcp_tokio::config::NodeDelayConfig;
use kcp_tokio::{KcpConfig, KcpStream, UdpTransport};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{CONV, MESSAGE, Outcome, done, orders};

type Stream = KcpStream<UdpTransport>;

pub(crate) fn run(socket: &UdpSocket, target: SocketAddr) -> Outcome {
    socket.set_nonblocking(true)?;
    let (pass, mut told) = unbounded_channel();
    orders(move |restart| pass.send(restart).is_ok());
    let (mut runtime, mut stream) = fresh(socket, target)?;
    while let Some(restart) = runtime.block_on(idle(&mut stream, &mut told))? {
        if restart {
            drop(runtime);
            drop(stream);
            (runtime, stream) = fresh(socket, target)?;
        }
        runtime.block_on(echo(&mut stream))?;
        done()?;
    }
    Ok(())
}

/// The next order.
async fn idle(
    stream: &mut Stream,
    told: &mut UnboundedReceiver<bool>,
) -> Result<Option<bool>, Box<dyn Error>> {
    tokio::select! {
        order = told.recv() => Ok(order),
        message = stream.recv() => Err(format!("nobody asked for {message:?}").into()),
    }
}

async fn echo(stream: &mut Stream) -> Outcome {
    stream.send(MESSAGE).await?;
    match stream.recv().await? {
        Some(echo) if echo == MESSAGE => Ok(()),
        other => Err(format!("instead of the echo: {other:?}").into()),
    }
}

fn fresh(socket: &UdpSocket, target: SocketAddr) -> Result<(Runtime, Stream), Box<dyn Error>> {
    let nodelay =
        NodeDelayConfig { nodelay: true, interval: 10, resend: 2, no_congestion_control: true };
    // Its own keepalive would hide whether ours is answered.
    let config = KcpConfig::new().nodelay_config(nodelay).window_size(256, 256).keep_alive(None);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let socket = socket.try_clone()?;
    let stream = runtime.block_on(async {
        let transport = Arc::new(UdpTransport::new(tokio::net::UdpSocket::from_std(socket)?));
        Ok::<_, Box<dyn Error>>(KcpStream::new_with_conv(transport, target, CONV, config).await?)
    })?;
    Ok((runtime, stream))
}
