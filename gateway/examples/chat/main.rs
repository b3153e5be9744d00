//! A chat backend in Rust: rooms over `tcp`, two bytes of length before each message, PROXY v2 first. One thread, on io_uring.
//!
//! ```text
//! cargo run -p kcp-gateway --example chat [HOST:PORT]
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it tells who comes")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_uring::net::{TcpListener, TcpStream};

/// Rooms, and in each the players by name and by the order in which they came.
type Rooms = BTreeMap<String, BTreeMap<(String, u64), Sender<String>>>;

/// One session: the gateway's connection for one KCP client.
struct Player {
    rooms: Rc<RefCell<Rooms>>,
    id: (String, u64),
    room: String,
    lines: Sender<String>,
}

impl Player {
    /// One who does not read misses what the others say; nobody waits for them.
    fn tell(&self, line: String) {
        let _ = self.lines.try_send(line);
    }

    fn say(&self, line: &str) {
        for other in self.rooms.borrow().get(&self.room).into_iter().flat_map(BTreeMap::values) {
            let _ = other.try_send(line.to_owned());
        }
    }

    fn enter(&mut self, room: &str) {
        self.leave();
        self.room = room.to_owned();
        let place = (self.id.clone(), self.lines.clone());
        self.rooms.borrow_mut().entry(room.to_owned()).or_default().extend([place]);
        self.say(&format!("* {} joined {room}", self.id.0));
    }

    fn leave(&self) {
        let mut rooms = self.rooms.borrow_mut();
        if let Some(room) = rooms.get_mut(&self.room) {
            room.remove(&self.id);
        }
        rooms.retain(|_, players| !players.is_empty());
        drop(rooms);
        self.say(&format!("* {} left", self.id.0));
    }

    /// `false` when it wants to go.
    fn obey(&mut self, line: &str) -> bool {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("/join", room) => self.enter(&first(room, 16, "lobby")),
            ("/who", _) => {
                let rooms = self.rooms.borrow();
                let here = rooms.get(&self.room).into_iter().flat_map(BTreeMap::keys);
                let names: Vec<&str> = here.map(|(name, _)| name.as_str()).collect();
                self.tell(format!("* in {}: {}", self.room, names.join(", ")));
            }
            ("/quit", _) => {
                self.tell("bye".to_owned());
                return false;
            }
            (command, _) if command.starts_with('/') => self.tell(HELP.to_owned()),
            _ if line.is_empty() => {}
            _ => self.say(&first(&format!("{}: {line}", self.id.0), 16_000, "")),
        }
        true
    }
}

/// Bytes of a connection, as many as are asked for.
struct Reader {
    stream: Rc<TcpStream>,
    read: Vec<u8>,
}

impl Reader {
    async fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < len {
            let (n, buffer) = self.stream.read(Vec::with_capacity(4096)).await;
            if n? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.read.extend(buffer);
        }
        let rest = self.read.split_off(len);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    /// One message.
    async fn line(&mut self) -> io::Result<String> {
        let len = be16(&self.exactly(2).await?);
        Ok(String::from_utf8_lossy(&self.exactly(len).await?).trim().to_owned())
    }

    /// The PROXY header: who the client is, and the number of its conversation.
    async fn proxy(&mut self) -> io::Result<(SocketAddr, Option<u32>)> {
        let none = || io::Error::new(ErrorKind::InvalidData, "no PROXY header");
        let head = self.exactly(16).await?;
        if !head.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21") {
            return Err(none());
        }
        let body = self.exactly(be16(&head[14..])).await?;
        let (ip, size) = match (head[13] >> 4, body.first_chunk::<4>(), body.first_chunk::<16>()) {
            (1, Some(v4), _) => (IpAddr::from(*v4), 4),
            (2, _, Some(v6)) => (IpAddr::from(*v6), 16),
            _ => return Err(none()),
        };
        let port = body.get(2 * size..).and_then(|rest| rest.first_chunk()).ok_or_else(none)?;
        let mut fields = body.get(2 * size + 4..).ok_or_else(none)?;
        let mut conv = None;
        while let [kind, high, low, rest @ ..] = fields {
            let len = be16(&[*high, *low]);
            let (value, later) = rest.split_at_checked(len).ok_or_else(none)?;
            if *kind == FIELD_CONV {
                conv = value.try_into().ok().map(u32::from_be_bytes);
            }
            fields = later;
        }
        Ok((SocketAddr::new(ip, u16::from_be_bytes(*port)), conv))
    }
}

async fn serve(stream: Rc<TcpStream>, rooms: Rc<RefCell<Rooms>>, number: u64) -> io::Result<()> {
    let mut reader = Reader { stream: Rc::clone(&stream), read: Vec::new() };
    let (client, conv) = reader.proxy().await?;
    let name = first(&reader.line().await?, 16, "nobody");
    println!("{name}: {client}, conversation {}", conv.unwrap_or_default());
    let (lines, queue) = mpsc::channel(QUEUE);
    let writer = tokio_uring::spawn(write(stream, queue));
    let mut player = Player { rooms, id: (name, number), room: String::new(), lines };
    player.tell(format!("welcome, {}. {HELP}", player.id.0));
    player.enter("lobby");
    while let Ok(line) = reader.line().await {
        if !player.obey(&line) {
            break;
        }
    }
    player.leave();
    drop(player);
    writer.await.unwrap_or(Ok(()))
}

/// Writes what a player is told until nobody tells it anything any more, and ends the connection.
async fn write(stream: Rc<TcpStream>, mut queue: Receiver<String>) -> io::Result<()> {
    while let Some(line) = queue.recv().await {
        let len = u16::try_from(line.len()).unwrap_or(u16::MAX);
        let message = [&len.to_be_bytes()[..], &line.as_bytes()[..len.into()]].concat();
        stream.write_all(message).await.0?;
    }
    stream.shutdown(std::net::Shutdown::Both)
}

fn be16(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |len| u16::from_be_bytes(*len).into())
}

fn first(text: &str, letters: usize, otherwise: &str) -> String {
    let text = text.trim();
    if text.is_empty() { otherwise.to_owned() } else { text.chars().take(letters).collect() }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let addr = addr.parse().map_err(|_| io::Error::new(ErrorKind::InvalidInput, addr))?;
    tokio_uring::start(async {
        let listener = TcpListener::bind(addr)?;
        println!("chat in Rust on {}", listener.local_addr()?);
        let rooms = Rc::new(RefCell::new(Rooms::new()));
        for number in 0.. {
            let (stream, _) = listener.accept().await?;
            let served = serve(Rc::new(stream), Rc::clone(&rooms), number);
            tokio_uring::spawn(async {
                if let Err(error) = served.await {
                    println!("ended: {error}");
                }
            });
        }
        Ok(())
    })
}

const FIELD_CONV: u8 = 0xE0;
const HELP: &str = "/join ROOM, /who, /quit; anything else is said to the room";
const QUEUE: usize = 64;
