//! What goes through the connection, both ways.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{
    Client, ConnectOptions, Event, Message, PublishErrorKind, StatusCode, Subscriber,
    connection::State,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use net_io::Waker;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::rooms::{JoinError, Rooms};
use super::window::{Given, Window};
use super::{NatsConfig, pause};
use crate::upstream::nats::bridge::{Bridge, Down, EngineEnd, Opening, Up};
use crate::upstream::nats::stats::{Loss, NatsStat, NatsStats};
use crate::upstream::nats::subject::{ALL, Address, Name, OP, Subjects, is_id};

/// The connection's thread.
pub(super) struct Engine {
    config: NatsConfig,
    subjects: Subjects,
    shards: RefCell<EngineEnd>,
    rooms: RefCell<Rooms>,
    stats: Arc<NatsStats>,
    bell: Arc<Notify>,
    stop: Arc<Notify>,
    window: Window,
    /// The shard whose turn is next.
    turn: Cell<usize>,
}

/// A connection that works: what was published under the gateway's subjects has come back.
struct Connection {
    client: Client,
    sessions: Subscriber,
    rooms: Subscriber,
    /// Messages taken from the subscriptions so far.
    taken: u64,
}

/// What was taken from the subscriptions at one look.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    messages: u64,
    bytes: u64,
}

impl Taken {
    const fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.length as u64;
    }
}

impl Engine {
    pub(super) fn new(
        config: NatsConfig,
        bridge: &Bridge,
        wakers: Vec<Waker>,
        stop: Arc<Notify>,
    ) -> Self {
        Self {
            subjects: Subjects::new(&config.gateway, config.run),
            window: Window::new(config.run),
            config,
            shards: RefCell::new(bridge.engine_end(wakers)),
            rooms: RefCell::default(),
            stats: Arc::clone(&bridge.stats),
            bell: Arc::clone(&bridge.bell),
            stop,
            turn: Cell::new(0),
        }
    }

    /// Until it is stopped.
    pub(super) async fn run(self) {
        loop {
            let (events, heard) = mpsc::channel(EVENTS_MAX);
            let connection = tokio::select! {
                connection = self.connect(events) => connection,
                () = self.stop.notified() => return,
            };
            let client = connection.client.clone();
            tokio::select! {
                () = self.outward(&client) => {}
                () = self.inward(connection) => {}
                () = self.watch(&client, heard) => {}
                () = self.stop.notified() => return self.end(&client).await,
            }
            self.on_disconnected(u64::MAX); // what the client had not written is gone with it
        }
    }

    /// Publishes what shards said last.
    async fn end(&self, client: &Client) {
        let last = async {
            self.publish_all(client).await;
            let _ = client.flush().await;
        };
        if self.window.connected.get() && tokio::time::timeout(LAST_WORDS, last).await.is_err() {
            tracing::warn!("nats: not everything was published before the end");
        }
    }

    /// Connects and subscribes; tries until it works.
    async fn connect(&self, events: mpsc::Sender<Event>) -> Connection {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_connect(events.clone()).await {
                Ok(connection) => {
                    self.window.on_new_client(written(&connection.client));
                    self.on_connected();
                    return connection;
                }
                Err(error) => {
                    let (servers, error) = (self.config.servers.join(","), one_line(&error));
                    tracing::warn!(%servers, attempt, "nats: cannot connect: {error}");
                    self.stats.on_trouble(format!("{servers}: {error}"));
                    tokio::time::sleep(pause(attempt)).await;
                }
            }
        }
    }

    async fn try_connect(
        &self,
        events: mpsc::Sender<Event>,
    ) -> Result<Connection, Box<dyn std::error::Error>> {
        let mut options = ConnectOptions::new();
        if let Some(path) = &self.config.credentials {
            options = ConnectOptions::with_credentials_file(path).await?;
        }
        let client = options
            .name(format!("kcp-gateway {}", self.config.gateway))
            .ping_interval(PING_EVERY)
            .client_capacity(COMMANDS_MAX)
            .subscription_capacity(RECEIVED_MAX)
            .max_reconnects(None)
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                // What there is no room for is found out by `watch` all the same, a little later.
                let _ = events.try_send(event);
                std::future::ready(())
            })
            .connect(&self.config.servers)
            .await?;
        let mut sessions = client.subscribe(self.subjects.wildcard()).await?;
        match tokio::time::timeout(PROOF_WITHIN, self.prove(&client, &mut sessions)).await {
            Ok(proof) => {
                // Not before somebody looks at them: what is said to rooms would wait all the time.
                let (taken, rooms) = (proof?, client.subscribe(ALL).await?);
                Ok(Connection { client, sessions, rooms, taken })
            }
            Err(_) => Err(format!(
                "what is published does not come back: is the gateway allowed to publish to {own} and to subscribe to {own}?",
                own = self.subjects.wildcard()
            )
            .into()),
        }
    }

    /// A server refuses what its permissions forbid without saying so to whom it concerns: what comes back was allowed. Returns how
    /// many messages were taken.
    async fn prove(
        &self,
        client: &Client,
        sessions: &mut Subscriber,
    ) -> Result<u64, Box<dyn std::error::Error>> {
        client.publish(self.subjects.mark(), Bytes::new()).await?;
        client.flush().await?;
        let mut taken = 0;
        while let Some(message) = sessions.next().await {
            taken += 1;
            if self.subjects.address(&message.subject) == Some(Address::Mark) {
                return Ok(taken);
            }
            // There are no sessions yet that it could be for.
            self.stats.lose(Loss::NoSession, 1);
        }
        Err("the connection ended".into())
    }

    fn on_connected(&self) {
        self.window.on_connected();
        self.stats.add(NatsStat::Connects, 1);
        self.stats.set(NatsStat::Connected, 1);
        self.bell.notify_one();
        tracing::info!(gateway = self.config.gateway, "nats: connected");
    }

    fn on_disconnected(&self, written: u64) {
        let lost = self.window.on_disconnected(written);
        self.stats.lose(Loss::Unconfirmed, lost);
        self.stats.on_trouble("connection lost, connecting again".to_owned());
        self.stats.set(NatsStat::Connected, 0);
        tracing::warn!(unconfirmed = lost, "nats: connection lost, connecting again");
    }

    /// Follows the connection's life. The client drops events when it has many to tell, but it counts connections: one more than
    /// is known was made after an end that nobody heard of.
    async fn watch(&self, client: &Client, mut events: mpsc::Receiver<Event>) {
        let connects = || client.statistics().connects.load(Ordering::Relaxed);
        let (mut known, mut told) = (connects(), String::new());
        loop {
            let event = tokio::time::timeout(LOOK_EVERY, events.recv()).await;
            if connects() != known {
                known = connects();
                if self.window.connected.get() {
                    self.on_disconnected(written(client));
                }
                self.on_connected();
            }
            match event {
                Ok(Some(Event::Disconnected)) if self.is_down(client) => {
                    self.on_disconnected(written(client));
                }
                // A refusal is told for each message: once is enough.
                Ok(Some(event @ (Event::ServerError(_) | Event::ClientError(_)))) => {
                    let text = one_line(&event);
                    if text != told {
                        tracing::warn!("nats: {text}");
                        told = text;
                    }
                }
                Ok(Some(event)) => tracing::debug!("nats: {}", one_line(&event)),
                Ok(None) => return, // the client is gone
                Err(_) => {
                    if self.is_down(client) {
                        self.on_disconnected(written(client));
                    }
                }
            }
        }
    }

    /// The connection is lost, and that is news.
    fn is_down(&self, client: &Client) -> bool {
        self.window.connected.get() && client.connection_state() != State::Connected
    }

    /// Publishes what sessions say, and asks now and then how far the server has come.
    async fn outward(&self, client: &Client) {
        let mut next_mark = Instant::now();
        loop {
            let moved = self.publish_all(client).await;
            if self.window.wants_mark() && Instant::now() >= next_mark {
                let mark = self.window.mark();
                // A closed client has ended; `run` ends as well.
                let _ = client.publish(self.subjects.mark(), mark).await;
                next_mark = Instant::now() + MARK_EVERY;
            }
            if !moved {
                tokio::select! {
                    () = self.bell.notified() => {}
                    () = sleep_until(next_mark), if self.window.wants_mark() => {}
                }
            }
        }
    }

    /// One round over the shards, as far as the window allows; whether anything was published.
    async fn publish_all(&self, client: &Client) -> bool {
        let shards = self.shards.borrow().shards();
        let mut moved = false;
        for _ in 0..shards {
            let shard = self.turn.get();
            for _ in 0..ROUND {
                if !self.window.is_open() {
                    return moved; // the same shard goes on when there is room again
                }
                let up = self.shards.borrow().pop(shard);
                let Some(up) = up else { break };
                self.publish(client, shard, up).await;
                moved = true;
            }
            self.shards.borrow().feed(shard);
            self.turn.set((shard + 1) % shards);
        }
        moved
    }

    async fn publish(&self, client: &Client, shard: usize, up: Up) {
        let name = |id| Name { shard: u16::try_from(shard).unwrap_or(u16::MAX), id };
        let (mut reply, mut given) = (None, Given::News);
        let (subject, payload) = match up {
            Up::Open(id, opening) => {
                self.rooms.borrow_mut().open(name(id));
                (self.subjects.of(name(id), "open"), describe(&opening))
            }
            Up::Message(id, buffer) => {
                let payload = Bytes::copy_from_slice(&buffer);
                self.shards.borrow().recycle(shard, buffer);
                self.stats.add(NatsStat::Published, 1);
                self.stats.add(NatsStat::PublishedBytes, payload.len() as u64);
                (reply, given) = (Some(self.subjects.of(name(id), "out")), Given::Message);
                (self.subjects.of(name(id), "in"), payload)
            }
            Up::Close(id, reason) => {
                self.rooms.borrow_mut().close(name(id));
                self.show_rooms();
                (self.subjects.of(name(id), "close"), Bytes::from_static(reason.label().as_bytes()))
            }
        };
        // Before it is sent: what waits for room in the client when the connection breaks goes with the next one.
        self.window.on_publish(given);
        let published = match reply {
            Some(reply) => client.publish_with_reply(subject, reply, payload).await,
            None => client.publish(subject, payload).await,
        };
        if let Err(error) = published {
            self.window.on_refused();
            let too_long = error.kind() == PublishErrorKind::MaxPayloadExceeded;
            let reason = if too_long { Loss::TooLongForServer } else { Loss::Unconfirmed };
            self.stats.lose(reason, u64::from(given == Given::Message));
        }
    }

    /// Hands out what backends say, until the client gives up.
    async fn inward(&self, connection: Connection) {
        let Connection { client, mut sessions, mut rooms, mut taken } = connection;
        let (mut overrun, mut most) = (0, 0);
        loop {
            let (message, of_room) = tokio::select! {
                message = sessions.next() => (message, false),
                message = rooms.next() => (message, true),
            };
            let Some(message) = message else { return };
            let mut now = Taken::default();
            if of_room {
                // What sessions were told before stands in their own queue, and a join must come first.
                self.take_all(&mut sessions, &mut now);
            }
            self.take(&message, &mut now);
            self.take_all(&mut sessions, &mut now);
            self.take_all(&mut rooms, &mut now);
            self.shards.borrow_mut().wake();
            taken += now.messages;
            if now.bytes > most {
                most = now.bytes;
                self.stats.set(NatsStat::ReceivedPeakBytes, most);
            }
            // The client drops what its queues have no room for. They are empty now, and it runs on this thread: what it has read
            // and nobody took is lost.
            let read = client.statistics().in_messages.load(Ordering::Relaxed);
            let lost = read.saturating_sub(taken).saturating_sub(overrun);
            if lost > 0 {
                self.stats.lose(Loss::Overrun, lost);
                overrun += lost;
                self.window.on_overrun();
                self.bell.notify_one();
            }
        }
    }

    /// Takes what is there.
    fn take_all(&self, messages: &mut Subscriber, taken: &mut Taken) {
        while let Some(message) = at_once(messages) {
            self.take(&message, taken);
            if taken.messages.is_multiple_of(ROUND) {
                self.shards.borrow_mut().wake(); // they begin while this goes on
            }
        }
    }

    fn take(&self, message: &Message, taken: &mut Taken) {
        taken.add(message);
        // The server's own answer to a message that nobody subscribes to.
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return self.stats.lose(Loss::NoBackend, 1);
        }
        match self.subjects.address(&message.subject) {
            Some(Address::Mark) => {
                self.window.on_mark(&message.payload);
                self.bell.notify_one();
            }
            Some(Address::Room { room, everywhere }) if request(message).is_none() => {
                self.tell_room(room, everywhere, &message.payload);
            }
            Some(Address::Session(name)) => match request(message) {
                None => self.deliver(name, &message.payload),
                Some(Some(request)) => self.obey(name, request),
                Some(None) => self.stats.lose(Loss::BadRequest, 1),
            },
            Some(Address::Former) => self.stats.lose(Loss::NoSession, 1),
            Some(Address::Room { .. }) | None => self.stats.lose(Loss::BadRequest, 1),
        }
    }

    fn tell_room(&self, room: &str, everywhere: bool, payload: &Bytes) {
        let rooms = self.rooms.borrow();
        let mut is_heard = everywhere; // nobody here may be somebody elsewhere
        for (shard, members) in rooms.members(room) {
            is_heard = true;
            self.push(shard, Down::Room(members.to_vec(), payload.clone()), payload, members.len());
        }
        if !is_heard {
            self.stats.lose(Loss::NoMember, 1);
        }
    }

    fn deliver(&self, name: Name, payload: &Bytes) {
        if self.rooms.borrow().has(name) {
            self.push(name.shard.into(), Down::Message(name.id, payload.clone()), payload, 1);
        } else {
            self.stats.lose(Loss::NoSession, 1);
        }
    }

    /// Hands a message to a shard, for so many of its sessions.
    fn push(&self, shard: usize, down: Down, payload: &Bytes, receivers: usize) {
        let receivers = receivers as u64;
        if payload.is_empty() {
            return self.stats.lose(Loss::Empty, receivers);
        }
        if self.shards.borrow_mut().push(shard, down) {
            self.stats.add(NatsStat::Delivered, receivers);
            self.stats.add(NatsStat::DeliveredBytes, receivers * payload.len() as u64);
        } else {
            self.stats.lose(Loss::ShardFull, receivers);
        }
    }

    fn obey(&self, name: Name, request: Request<'_>) {
        let mut rooms = self.rooms.borrow_mut();
        if !rooms.has(name) {
            return self.stats.lose(Loss::NoSession, 1);
        }
        match request {
            Request::Close => {
                let down = Down::Close(name.id);
                if !self.shards.borrow_mut().push(usize::from(name.shard), down) {
                    self.stats.lose(Loss::ShardFull, 1);
                }
            }
            Request::Join(room) => match rooms.join(name, room) {
                Ok(()) => {}
                Err(JoinError::NoSession) => self.stats.lose(Loss::NoSession, 1),
                Err(JoinError::Limit) => self.stats.lose(Loss::RoomLimit, 1),
            },
            Request::Leave(room) => rooms.leave(name, room),
        }
        drop(rooms);
        self.show_rooms();
    }

    fn show_rooms(&self) {
        let (rooms, members) = self.rooms.borrow().counts();
        self.stats.set(NatsStat::Rooms, rooms as u64);
        self.stats.set(NatsStat::Members, members as u64);
    }
}

/// The next message, if it is there; outside of the runtime's budget, which would say that there is none.
fn at_once(messages: &mut Subscriber) -> Option<Message> {
    tokio::task::unconstrained(messages.next()).now_or_never().flatten()
}

/// What a server said must not look like another line of the log.
fn one_line(said: &impl ToString) -> String {
    said.to_string().replace(char::is_control, " ")
}

/// What the client has given to the connection of all that was published, marks included.
fn written(client: &Client) -> u64 {
    client.statistics().out_messages.load(Ordering::Relaxed)
}

/// What a backend asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request<'a> {
    Close,
    Join(&'a str),
    Leave(&'a str),
}

/// The request that a message is; the outer `None` when it is none, the inner when it is none that we know.
fn request(message: &Message) -> Option<Option<Request<'_>>> {
    let op = message.headers.as_ref()?.get(OP)?;
    let room = || std::str::from_utf8(&message.payload).ok().filter(|room| is_id(room));
    Some(match op.as_str() {
        "close" => Some(Request::Close),
        "join" => room().map(Request::Join),
        "leave" => room().map(Request::Leave),
        _ => None,
    })
}

/// The payload of `open`.
fn describe(opening: &Opening) -> Bytes {
    let Opening { client, listener, conv } = opening;
    let json = serde_json::json!({ "client": client, "listener": listener, "conv": conv.0 });
    json.to_string().into()
}

/// Messages of one shard before the next one's turn, and towards shards before they are woken.
const ROUND: u64 = 256;
/// Messages that the client's own queue takes.
pub(super) const COMMANDS_MAX: usize = 1024;
/// Messages of a subscription that were received and not yet taken. Of bytes there are no more than the client reads before it lets
/// this thread go on: tokio allows it 128 reads, and what one brings fits its buffer, of 64 KiB or as long as the message under way.
const RECEIVED_MAX: usize = 8192;
/// Events of the connection that nobody has looked at yet.
const EVENTS_MAX: usize = 64;
/// How often the connection is looked at when it says nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the server is asked how far it has come, at most.
const MARK_EVERY: Duration = Duration::from_millis(1);
/// For the first message to come back.
const PROOF_WITHIN: Duration = Duration::from_secs(5);
/// How soon a connection that died without a word is found out, about three times over.
const PING_EVERY: Duration = Duration::from_secs(5);
/// For what sessions said last.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_is_told_of_as_json() {
        let opening = Opening {
            client: "[::1]:5".parse().unwrap(),
            listener: "127.0.0.1:4000".parse().unwrap(),
            conv: kcp_core::Conv(7),
        };
        let json: serde_json::Value = serde_json::from_slice(&describe(&opening)).unwrap();
        assert_eq!(json["client"], "[::1]:5");
        assert_eq!(json["listener"], "127.0.0.1:4000");
        assert_eq!(json["conv"], 7);
    }

    #[test]
    fn what_a_server_says_is_one_line() {
        assert_eq!(one_line(&"no\r\nERROR \x1b[31mfake"), "no  ERROR  [31mfake");
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(pause(1), Duration::from_millis(50));
        assert!(pause(3) > pause(2));
        assert_eq!((pause(20), pause(usize::MAX)), (super::super::RETRY_MAX, pause(20)));
    }
}
