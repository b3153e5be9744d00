//! The C library, unchanged, asked by the gateway whether it is there.
#![expect(clippy::expect_used, reason = "a step that cannot be taken fails the test")]

mod live;
mod presence;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kcp_oracle::Reference;
use presence::{Application, Order};

#[test]
fn the_c_library_is_asked() {
    presence::play(Threaded::start);
}

/// The library on a thread of its own, which keeps it going.
struct Threaded {
    orders: Option<Sender<Order>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Threaded {
    fn start(target: SocketAddr) -> Self {
        let (orders, taken) = channel();
        let (finished, done) = channel();
        let thread = thread::spawn(move || Client::new(target).run(&taken, &finished));
        Self { orders: Some(orders), done, thread: Some(thread) }
    }
}

impl Application for Threaded {
    fn obey(&mut self, order: Order) {
        self.orders.as_ref().expect("it runs").send(order).expect("it runs");
        let Ok(()) = self.done.recv() else { panic!("{order:?} went wrong") };
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it was started").expect("the client found nothing wrong");
        }
    }
}

struct Client {
    kcp: Reference,
    socket: UdpSocket,
    began: Instant,
}

impl Client {
    fn new(target: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a port");
        socket.connect(target).expect("loopback has a route");
        Self { kcp: fresh(), socket, began: now() }
    }

    fn run(mut self, orders: &Receiver<Order>, done: &Sender<()>) {
        let mut buffer = [0; 64];
        loop {
            match orders.try_recv() {
                Ok(order) => {
                    if order == Order::Restart {
                        self.kcp = fresh();
                    }
                    self.echo();
                    done.send(()).expect("the test waits");
                }
                Err(TryRecvError::Empty) => {
                    self.exchange();
                    assert!(self.kcp.recv(&mut buffer) < 0, "a message that nobody asked for");
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn echo(&mut self) {
        let mut buffer = [0; 64];
        let asked = now();
        assert_eq!(self.kcp.send(MESSAGE), 5);
        loop {
            assert!(asked.elapsed() < Duration::from_secs(30), "no echo");
            self.exchange();
            if let Ok(len) = usize::try_from(self.kcp.recv(&mut buffer)) {
                return assert_eq!(&buffer[..len], MESSAGE);
            }
        }
    }

    /// As an application's loop: update, send, and take one datagram if it comes before the next update.
    fn exchange(&mut self) {
        let now = u32::try_from(self.began.elapsed().as_millis()).expect("a test is short");
        self.kcp.update(now);
        for datagram in self.kcp.output().iter() {
            self.socket.send(datagram).expect("loopback takes it");
        }
        self.kcp.output_mut().clear();
        let wait = self.kcp.check(now).wrapping_sub(now).max(1);
        let wait = Duration::from_millis(wait.into());
        self.socket.set_read_timeout(Some(wait)).expect("a timeout can be set");
        let mut datagram = [0; 2048];
        match self.socket.recv(&mut datagram) {
            Ok(len) => assert_eq!(self.kcp.input(&datagram[..len]), 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("recv: {error}"),
        }
    }
}

fn fresh() -> Reference {
    let mut kcp = Reference::new(0x0A_5CED);
    kcp.nodelay(1, 10, 2, 1);
    kcp.wndsize(256, 256);
    kcp
}

#[expect(clippy::disallowed_methods, reason = "the C library runs by the real clock here")]
fn now() -> Instant {
    Instant::now()
}

const MESSAGE: &[u8] = b"hello";
