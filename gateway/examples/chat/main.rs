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
use std::rc::Rc;

use ppp::v2::{Addresses, Header};
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
    /// One who does not read misses what is said; nobody waits for them.
    fn tell(&self, line: &str) {
        let _ = self.lines.try_send(line.to_owned());
    }

    fn say(&self, line: &str) {
        for other in self.rooms.borrow().get(&self.room).into_iter().flat_map(BTreeMap::values) {
            let _ = other.try_send(line.to_owned());
        }
    }

    fn enter(&mut self, room: &str) {
        self.leave();
        room.clone_into(&mut self.room);
        let place = (self.id.clone(), self.lines.clone());
        self.rooms.borrow_mut().entry(room.to_owned()).or_default().extend([place]);
        self.say(&format!("* {} joined {room}", self.id.0));
    }

    fn leave(&self) {
        self.rooms.borrow_mut().get_mut(&self.room).and_then(|room| room.remove(&self.id));
        self.rooms.borrow_mut().retain(|_, players| !players.is_empty());
        self.say(&format!("* {} left", self.id.0));
    }

    fn who(&self) -> String {
        let rooms = self.rooms.borrow();
        let here = rooms.get(&self.room).into_iter().flat_map(BTreeMap::keys);
        let names: Vec<&str> = here.map(|(name, _)| name.as_str()).collect();
        format!("* in {}: {}", self.room, names.join(", "))
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
    async fn proxy(&mut self) -> io::Result<String> {
        let mut bytes = self.exactly(16).await?;
        bytes.extend(self.exactly(be16(&bytes[14..])).await?);
        let header = Header::try_from(&*bytes).map_err(io::Error::other)?;
        let client = match &header.addresses {
            Addresses::IPv4(v4) => format!("{} port {}", v4.source_address, v4.source_port),
            Addresses::IPv6(v6) => format!("{} port {}", v6.source_address, v6.source_port),
            Addresses::Unspecified | Addresses::Unix(_) => "unknown".to_owned(),
        };
        let conv = header.tlvs().flatten().find(|field| field.kind == FIELD_CONV);
        let conv = conv.and_then(|field| Some(u32::from_be_bytes(*field.value.first_chunk()?)));
        Ok(format!("{client}, conversation {}", conv.unwrap_or_default()))
    }
}

async fn serve(stream: Rc<TcpStream>, rooms: Rc<RefCell<Rooms>>, number: u64) -> io::Result<()> {
    let mut reader = Reader { stream: Rc::clone(&stream), read: Vec::new() };
    let client = reader.proxy().await?;
    let name = first(&reader.line().await?, 16, "nobody");
    println!("{name}: {client}");
    let (lines, queue) = mpsc::channel(QUEUE);
    let writer = tokio_uring::spawn(write(stream, queue));
    let mut player = Player { rooms, id: (name, number), room: String::new(), lines };
    player.tell(&format!("welcome, {}. {HELP}", player.id.0));
    player.enter("lobby");
    while let Ok(line) = reader.line().await {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("/join", room) => player.enter(&first(room, 16, "lobby")),
            ("/who", _) => player.tell(&player.who()),
            ("/quit", _) => {
                player.tell("bye");
                break;
            }
            (command, _) if command.starts_with('/') => player.tell(HELP),
            _ if line.is_empty() => {}
            _ => player.say(&first(&format!("{}: {line}", player.id.0), 16_000, "")),
        }
    }
    player.leave();
    drop(player); // nobody else sends to it
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
    let text = if text.trim().is_empty() { otherwise } else { text.trim() };
    text.chars().take(letters).collect()
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let addr = addr.parse().map_err(|_| io::Error::new(ErrorKind::InvalidInput, addr))?;
    tokio_uring::start(async {
        let listener = TcpListener::bind(addr)
            .map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))?;
        println!("chat in Rust on {}", listener.local_addr()?);
        let rooms = Rc::new(RefCell::new(Rooms::new()));
        for number in 0.. {
            let served = serve(Rc::new(listener.accept().await?.0), Rc::clone(&rooms), number);
            tokio_uring::spawn(async {
                served.await.unwrap_or_else(|error| println!("ended: {error}"));
            });
        }
        Ok(())
    })
}

const FIELD_CONV: u8 = 0xE0;
const HELP: &str = "/join ROOM, /who, /quit; anything else is said to the room";
const QUEUE: usize = 64;
