//! The backend simulator as a yamux server: to crate `yamux` as its client, and, where that is too polite to see what is wrong,
//! frame by frame.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::poll_fn;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use kcp_core::Conv;
use kcp_gateway::upstream::proxy::Header;
use kcp_loadgen::serve::{
    Behaviour, Crash, Cut, Dialect, Ending, Framing, Garbage, Kind, Listen, Misdeed, Serve, Server,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::{Connection, Mode, Stream};

#[test]
fn sessions_share_a_connection() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve-yamux.sock");
    let _ = std::fs::remove_file(&path);
    for listen in [any(), Listen::Unix(path)] {
        let server = Server::start(&serve(listen.clone(), Behaviour::Echo)).unwrap();
        block_on(async {
            let opener = connect(&server).await;
            let mut streams = Vec::new();
            for n in 0..1000_u32 {
                let mut stream = open(&opener).await;
                say(&mut stream, &n.to_be_bytes()).await;
                streams.push(stream);
            }
            for (n, stream) in (0_u32..).zip(&mut streams) {
                assert_eq!(hear(stream).await, n.to_be_bytes());
            }
            let totals = server.totals();
            assert_eq!((totals.connections, totals.sessions_peak), (1, 1000));
            for stream in &mut streams {
                stream.close().await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            }
        });
        let totals = server.stop();
        assert_eq!((totals.proxy_headers, totals.ended, totals.messages_out), (1000, 1000, 1000));
    }
}

#[test]
fn a_session_is_cut_off_alone() {
    for ending in [Ending::Fin, Ending::Reset] {
        let server = Server::start(&serve(any(), crash(Cut::Session, ending))).unwrap();
        block_on(async {
            let opener = connect(&server).await;
            let (mut victim, mut other) = (open(&opener).await, open(&opener).await);
            for stream in [&mut victim, &mut other] {
                say(stream, b"first").await;
                assert_eq!(hear(stream).await, b"first");
            }
            say(&mut victim, b"second").await;
            assert_eq!(victim.read(&mut [0]).await.unwrap(), 0);
            // The crate tells a reset and a FIN alike, but for this.
            assert_eq!(victim.is_closed(), ending == Ending::Reset);
            let mut third = open(&opener).await;
            say(&mut third, b"first").await;
            assert_eq!(hear(&mut third).await, b"first");
        });
        assert_eq!(server.stop().crashes, 1);
    }
}

#[test]
fn a_link_is_cut_off_with_all_its_sessions() {
    for ending in [Ending::Fin, Ending::Reset] {
        let server = Server::start(&serve(any(), crash(Cut::Link, ending))).unwrap();
        // The library tells both endings alike.
        let mut raw = Raw::connect(&server);
        raw.send(0, &framed(b"second"));
        match raw.0.read_to_end(&mut Vec::new()) {
            Ok(_) => assert_eq!(ending, Ending::Fin),
            Err(error) => {
                assert_eq!((error.kind(), ending), (ErrorKind::ConnectionReset, Ending::Reset));
            }
        }
        block_on(async {
            let opener = connect(&server).await;
            let (mut victim, mut other) = (open(&opener).await, open(&opener).await);
            say(&mut victim, b"first").await;
            assert_eq!(hear(&mut victim).await, b"first");
            say(&mut victim, b"second").await;
            for stream in [&mut victim, &mut other] {
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            }
        });
        assert_eq!(server.stop().crashes, 2);
    }
}

#[test]
fn what_no_library_sends_is_sent_when_asked_for() {
    let (server, mut raw) = misbehaving(Misdeed::LinkUnknown);
    assert_eq!(raw.data(), (0x7FFF_FFFE, b"for nobody".to_vec()));
    assert_eq!(raw.data(), (1, framed(b"bad")), "and it goes on");
    assert_eq!(server.totals().misdeeds, 1);

    let (_server, mut raw) = misbehaving(Misdeed::LinkWindow);
    let mut beyond = 0;
    while beyond <= 16 << 20 {
        let (stream, body) = raw.data();
        assert_eq!(stream, 1);
        beyond += body.len();
    }

    let (_server, mut raw) = misbehaving(Misdeed::LinkNoise);
    let mut noise = [0; 64];
    raw.0.read_exact(&mut noise).unwrap();
    assert_ne!(noise[0], 0, "no version of the protocol");

    let (_server, mut raw) = misbehaving(Misdeed::LinkStall);
    let mut begun = [0; 22];
    raw.0.read_exact(&mut begun).unwrap();
    assert_eq!(begun[..12], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 3, 232]);
    raw.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(raw.0.read(&mut [0]).unwrap(), 0, "not even what the end would bring");
}

fn serve(listen: Listen, behaviour: Behaviour) -> Serve {
    Serve {
        kind: Kind::Yamux,
        listen: vec![listen],
        nats: String::new(),
        dialect: Dialect { framing: Framing::U16Be, proxy: true, message_max: 10_000 },
        behaviour,
        threads: 2,
        socket_buffer: None,
        seed: 3,
    }
}

fn any() -> Listen {
    Listen::Inet("127.0.0.1:0".parse().unwrap())
}

fn crash(cut: Cut, ending: Ending) -> Behaviour {
    Behaviour::Crash(Crash {
        after_messages: Some(2),
        after_time: None,
        chance_ppm: 0,
        cut,
        ending,
    })
}

fn inet(server: &Server) -> SocketAddr {
    let Listen::Inet(addr) = server.listening()[0] else { panic!("no address") };
    addr
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
}

/// Opens streams on a connection that is driven by a task of its own.
type Opener = mpsc::Sender<oneshot::Sender<Stream>>;

async fn connect(server: &Server) -> Opener {
    match server.listening().remove(0) {
        Listen::Inet(addr) => drive(TcpStream::connect(addr).await.unwrap().compat()),
        Listen::Unix(path) => drive(UnixStream::connect(path).await.unwrap().compat()),
    }
}

fn drive<S>(socket: S) -> Opener
where
    S: futures::AsyncRead + futures::AsyncWrite + Unpin + Send + 'static,
{
    let (requests, mut asked) = mpsc::channel::<oneshot::Sender<Stream>>(1);
    let mut config = yamux::Config::default();
    config.set_max_connection_receive_window(None).set_max_num_streams(10_000);
    let mut connection = Connection::new(socket, config, Mode::Client);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = poll_fn(|cx| connection.poll_next_inbound(cx)) => return,
                Some(answer) = asked.recv() => {
                    // Reading goes on meanwhile: a stream more may have to wait for an acknowledgement.
                    let stream = poll_fn(|cx| {
                        if let std::task::Poll::Ready(stream) = connection.poll_new_outbound(cx) {
                            return std::task::Poll::Ready(stream.ok());
                        }
                        connection.poll_next_inbound(cx).map(|_| None)
                    });
                    if let Some(stream) = stream.await {
                        let _ = answer.send(stream);
                    }
                }
            }
        }
    });
    requests
}

/// A session's stream, with its PROXY header sent.
async fn open(opener: &Opener) -> Stream {
    let (answer, stream) = oneshot::channel();
    opener.send(answer).await.unwrap();
    let mut stream = stream.await.unwrap();
    stream.write_all(hello().as_slice()).await.unwrap();
    stream
}

fn hello() -> Header {
    let (client, listener) = ("[2001:db8::7]:5000".parse(), "[2001:db8::1]:4000".parse());
    Header::new(client.unwrap(), listener.unwrap(), Conv(7))
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

async fn say(stream: &mut Stream, message: &[u8]) {
    stream.write_all(&framed(message)).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut Stream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await.unwrap();
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

/// A client that sees every frame.
struct Raw(std::net::TcpStream);

/// A server that has answered one message and does `misdeed` with the next, which it has been sent.
fn misbehaving(misdeed: Misdeed) -> (Server, Raw) {
    let behaviour = Behaviour::Garbage(Garbage { misdeed, after: 2 });
    let server = Server::start(&serve(any(), behaviour)).unwrap();
    let mut raw = Raw::connect(&server);
    raw.send(0, &framed(b"bad"));
    (server, raw)
}

impl Raw {
    /// One session, which has had one answer.
    fn connect(server: &Server) -> Self {
        let mut raw = Self(std::net::TcpStream::connect(inet(server)).unwrap());
        raw.0.set_read_timeout(Some(PATIENCE)).unwrap();
        raw.send(SYN, hello().as_slice());
        raw.send(0, &framed(b"good"));
        assert_eq!(raw.data(), (1, framed(b"good")));
        raw
    }

    /// A data frame of stream 1.
    fn send(&mut self, flags: u8, body: &[u8]) {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        let header = [0, 0, 0, flags, 0, 0, 0, 1, 0, 0, len[0], len[1]];
        self.0.write_all(&[&header, body].concat()).unwrap();
    }

    /// The next frame with data: its stream and body.
    fn data(&mut self) -> (u32, Vec<u8>) {
        loop {
            let mut header = [0; 12];
            self.0.read_exact(&mut header).unwrap();
            let [version, kind, _, _, s0, s1, s2, s3, l0, l1, l2, l3] = header;
            assert_eq!(version, 0);
            let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            if kind == 0 && len > 0 {
                let mut body = vec![0; len];
                self.0.read_exact(&mut body).unwrap();
                return (u32::from_be_bytes([s0, s1, s2, s3]), body);
            }
        }
    }
}

const SYN: u8 = 1;
const PATIENCE: Duration = Duration::from_secs(60);
