//! The multiplexer against the Rust crate `yamux` as a backend, over TCP and over Unix sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may fail, and says what it measured"
)]

#[path = "yamux/mod.rs"]
mod driver;

use std::cell::Cell;
use std::hash::Hasher;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use driver::{Gate, Socket, bulk, config, scenarios};
use fnv::FnvHasher;
use futures::future::poll_fn;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use kcp_gateway::upstream::yamux::Config;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::{Connection, Mode, Stream};

/// Which scenario on which socket.
fn run<S: AsyncFnOnce(&mut Gate)>(unix: bool, config: Config, scenario: S) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async move {
        let backend = Rc::new(Backend::default());
        let socket = if unix {
            let (ours, theirs) = UnixStream::pair().unwrap();
            tokio::task::spawn_local(backend.serve(theirs.compat()));
            Socket::Unix(ours)
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (theirs, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(backend.serve(theirs.compat()));
            Socket::Tcp(ours)
        };
        let mut gate = Gate::new(socket, config);
        let limit = Duration::from_secs(120);
        tokio::time::timeout(limit, scenario(&mut gate)).await.expect("it takes too long");
    });
}

#[test]
fn many_sessions_hear_what_they_said() {
    run(false, config(), scenarios::echo);
    run(true, config(), scenarios::echo);
}

#[test]
fn bulk_goes_up_within_the_window() {
    run(false, config(), scenarios::upload);
    run(true, config(), scenarios::upload_to_a_slow_backend);
}

#[test]
fn bulk_comes_down_within_the_window() {
    run(false, config(), scenarios::download_to_a_slow_session);
}

#[test]
fn a_session_that_ends_is_an_end_to_the_backend() {
    run(true, config(), scenarios::ends_by_sessions);
}

#[test]
fn the_connections_end_is_every_sessions() {
    run(false, config(), scenarios::end_of_the_connection);
}

#[test]
fn pings_are_answered() {
    run(true, Config { ping_interval_ms: 50, ..config() }, scenarios::pings);
}

#[test]
fn a_backend_that_only_listens_gets_all_its_streams() {
    run(false, Config { ping_interval_ms: 50, ..config() }, scenarios::listeners);
}

#[test]
fn a_hundred_thousand_streams_on_one_connection() {
    run(true, config(), scenarios::crowd);
}

/// The backend's application; see `scenarios` for what it does.
#[derive(Default)]
struct Backend {
    released: Notify,
    was_released: Cell<bool>,
    fin: Cell<u32>,
    reset: Cell<u32>,
    convs: Cell<u64>,
    goodbye: Notify,
}

impl Backend {
    fn serve<T>(self: &Rc<Self>, socket: T) -> impl Future<Output = ()> + 'static + use<T>
    where
        T: futures::AsyncRead + futures::AsyncWrite + Unpin + 'static,
    {
        let backend = Rc::clone(self);
        let mut limits = yamux::Config::default();
        limits.set_max_connection_receive_window(None).set_max_num_streams(200_000);
        async move {
            let mut connection = Connection::new(socket, limits, Mode::Server);
            loop {
                let inbound = poll_fn(|cx| connection.poll_next_inbound(cx));
                tokio::select! {
                    stream = inbound => match stream {
                        Some(Ok(stream)) => {
                            let backend = Rc::clone(&backend);
                            tokio::task::spawn_local(async move {
                                // A failed stream is what some scenarios are about.
                                let _ = backend.stream(stream).await;
                            });
                        }
                        Some(Err(_)) | None => return,
                    },
                    () = backend.goodbye.notified() => return,
                }
            }
        }
    }

    async fn stream(&self, mut stream: Stream) -> io::Result<()> {
        let mut header = [0; 16];
        stream.read_exact(&mut header).await?;
        assert_eq!(&header[..12], b"\r\n\r\n\0\r\nQUIT\n");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
        stream.read_exact(&mut rest).await?;
        let conv = rest.last_chunk().map_or(0, |conv| u32::from_be_bytes(*conv));
        self.convs.set(self.convs.get() + u64::from(conv));
        let command = String::from_utf8(message(&mut stream).await?).unwrap();
        let (verb, n) = command.split_once(' ').unwrap_or((&command, "0"));
        let n: u64 = n.parse().unwrap();
        match verb {
            "echo" => {
                let (mut from, mut to) = stream.split();
                futures::io::copy(&mut from, &mut to).await?;
                return to.close().await;
            }
            "sink" => self.sink(&mut stream, n).await?,
            "hold" => {
                while !self.was_released.get() {
                    self.released.notified().await;
                }
                self.sink(&mut stream, n).await?;
            }
            "release" => {
                self.was_released.set(true);
                self.released.notify_waiters();
            }
            "blast" => {
                for from in (0..n).step_by(50_000) {
                    let len = usize::try_from(n - from).unwrap().min(50_000);
                    say(&mut stream, &bulk(from, len)).await?;
                }
            }
            "attend" => {
                say(&mut stream, b"here").await?;
                return self.listen(stream).await;
            }
            "listen" => return self.listen(stream).await,
            "report" => {
                let (fin, reset, conv) = (self.fin.get(), self.reset.get(), self.convs.get());
                say(&mut stream, format!("fin={fin} reset={reset} conv={conv}").as_bytes()).await?;
            }
            "bye" => self.goodbye.notify_one(),
            _ => panic!("unknown command {command}"),
        }
        stream.close().await
    }

    async fn sink(&self, stream: &mut Stream, n: u64) -> io::Result<()> {
        let (mut left, mut hash) = (n, FnvHasher::default());
        while left > 0 {
            let part = message(stream).await?;
            hash.write(&part);
            left -= part.len() as u64;
        }
        say(stream, format!("{:016x}", hash.finish()).as_bytes()).await
    }

    /// Counts how the stream ends. The crate tells a reset as an end of data like a FIN; only writing tells them apart.
    async fn listen(&self, mut stream: Stream) -> io::Result<()> {
        let mut heard = Vec::new();
        let read = stream.read_to_end(&mut heard).await;
        let counter = if read.is_ok() && !stream.is_closed() { &self.fin } else { &self.reset };
        counter.set(counter.get() + 1);
        stream.close().await
    }
}

async fn message(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let mut message = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn say(stream: &mut Stream, message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).unwrap();
    stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await
}
