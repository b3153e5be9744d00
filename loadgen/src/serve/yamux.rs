//! A connection that carries many sessions, by crate `yamux`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

use super::session::{self, Host, Transport};
use super::tamper::{Link, Tamper};

/// Runs one connection to its end, and with it its sessions.
pub(super) async fn run<S>(host: Arc<Host>, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let link = Arc::new(Link::default());
    let socket = Tamper::new(socket, Arc::clone(&link), host.serve.seed);
    // As somebody does who wants more streams than the crate's 512: a receive window of 256 KiB each is no memory until data
    // fills it, and the gateway's sessions are bounded on their side.
    let mut config = Config::default();
    config.set_max_connection_receive_window(None).set_max_num_streams(STREAMS_MAX);
    let mut connection = Connection::new(socket.compat(), config, Mode::Server);
    loop {
        tokio::select! {
            stream = poll_fn(|cx| connection.poll_next_inbound(cx)) => match stream {
                Some(Ok(stream)) => {
                    let stream = Stream(stream.compat());
                    tokio::spawn(session::run(Arc::clone(&host), stream, Some(Arc::clone(&link))));
                }
                // Its sessions find out by themselves.
                Some(Err(_)) | None => return,
            },
            () = link.is_cut() => return,
        }
    }
}

/// A session's stream.
struct Stream(Compat<yamux::Stream>);

impl Transport for Stream {
    /// Dropping a stream that is open sends an RST; its sessions write nothing that may still wait.
    fn reset(self) {}
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = out.filled().len();
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, out))?;
        // The crate tells a reset as an end of data like a FIN; that nothing can be written tells them apart.
        if out.filled().len() == before && self.0.get_ref().is_closed() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A million sessions over ten connections.
const STREAMS_MAX: usize = 1_000_000;
