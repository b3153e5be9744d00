//! Whole conversations: sessions, a connection cut into any pieces, and a backend that echoes messages when it pleases.

use std::collections::{BTreeMap, VecDeque};

use super::super::super::dice::Dice;
use super::peer::Peer;
use super::*;

/// What a session has said and heard.
#[derive(Default)]
struct Client {
    key: Option<StreamKey>,
    /// Messages that the connection has not taken.
    to_send: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
    has_room: bool,
    end: Option<End>,
    closed: bool,
    waits_for_room: bool,
}

struct World {
    dice: Dice,
    now: Now,
    mux: Mux<u32>,
    pool: Pool,
    clients: BTreeMap<u32, Client>,
    peer: Peer,
    /// What the backend's application has read of each stream and not echoed.
    echoes: BTreeMap<u32, VecDeque<u8>>,
    longest: usize,
}

const POOL: usize = 24 << 20;

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let longest = [60, 5000, 100_000][dice.below(3)];
        let config = Config {
            write_max: if dice.one_in(2) { 110_000 } else { 1 << 20 },
            unacked_max: 8,
            stall_ms: 1 << 30,
            linger_ms: 1 << 30,
            ping_timeout_ms: 1 << 30,
            window: if dice.one_in(2) { INITIAL_WINDOW } else { 2 * INITIAL_WINDOW },
            ..Config::new(codec())
        };
        Self {
            dice,
            now: Now(0),
            mux: Mux::new(config, Now(0)).unwrap(),
            pool: Pool::new(POOL),
            clients: BTreeMap::new(),
            peer: Peer::default(),
            echoes: BTreeMap::new(),
            longest,
        }
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Mux<u32>, &mut Cx<'_, &mut dyn FnMut(u32, Event<'_>) -> bool>) -> T,
    ) -> T {
        let clients = &mut self.clients;
        let mut sink = |session: u32, event: Event<'_>| {
            let client = clients.get_mut(&session).unwrap();
            assert!(client.end.is_none() && !client.closed, "nothing after the end");
            match event {
                Event::Message(message) if client.has_room => {
                    let expected = &client.sent[client.heard.len()];
                    assert!(message == expected, "session {session}: not what it sent");
                    client.heard.push(message.to_vec());
                    true
                }
                Event::Message(_) => false,
                Event::Empty(frames) => panic!("{frames} of a backend that sends none"),
                Event::End(end) => {
                    client.end = Some(end);
                    true
                }
            }
        };
        let mut sink: &mut dyn FnMut(u32, Event<'_>) -> bool = &mut sink;
        call(&mut self.mux, &mut Cx { now: self.now, pool: &mut self.pool, sink: &mut sink })
    }

    fn any_client(&mut self) -> Option<u32> {
        let n = self.clients.len();
        (n > 0).then(|| *self.clients.keys().nth(self.dice.below(n)).unwrap())
    }

    fn any_stream(&mut self) -> Option<u32> {
        let n = self.peer.streams.len();
        (n > 0).then(|| *self.peer.streams.keys().nth(self.dice.below(n)).unwrap())
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0 => self.open(),
            1..=4 => self.say(),
            5..=7 => self.carry_out(),
            8..=10 => self.carry_in(),
            11..=14 => self.echo(),
            15 | 16 => self.toggle_room(),
            17 if self.dice.one_in(6) => self.close(),
            18 if self.dice.one_in(6) => {
                if let Some(id) = self.any_stream() {
                    if self.dice.one_in(2) { self.peer.fin(id) } else { self.peer.reset(id) }
                }
            }
            _ => {
                self.now = self.now.add_ms(u32::try_from(self.dice.below(2000)).unwrap());
                self.with(|mux, cx| mux.handle_timeout(cx)).unwrap();
            }
        }
        while let Some(session) = self.mux.poll_room() {
            let client = self.clients.get_mut(&session).unwrap();
            assert!(client.waits_for_room, "room is told to those who asked");
            client.waits_for_room = false;
            self.push(session);
        }
        assert!(self.mux.unacked() <= 8);
        assert!(self.pool.bytes_used() <= POOL);
    }

    fn open(&mut self) {
        let session = u32::try_from(self.clients.len()).unwrap();
        match self.mux.open(session, b"PROXY") {
            Ok(key) => {
                let client = Client { key: Some(key), has_room: true, ..Client::default() };
                self.clients.insert(session, client);
            }
            Err(error) => assert!(matches!(error, OpenError::Unacked | OpenError::Full)),
        }
    }

    fn say(&mut self) {
        let Some(session) = self.any_client() else { return };
        let len = 1 + self.dice.below(self.longest);
        let message = self.dice.bytes(len.min(2000)).repeat(len.div_ceil(2000))[..len].to_vec();
        let client = self.clients.get_mut(&session).unwrap();
        if client.end.is_none() && !client.closed && client.to_send.len() < 4 {
            client.to_send.push_back(message);
            self.push(session);
        }
    }

    /// Pushes a session's messages until the connection refuses one.
    fn push(&mut self, session: u32) {
        let client = self.clients.get_mut(&session).unwrap();
        while let (Some(message), Some(key)) = (client.to_send.front(), client.key) {
            match self.mux.push(&mut self.pool, key, message) {
                Ok(()) => client.sent.extend(client.to_send.pop_front()),
                Err(PushError::Full) => {
                    client.waits_for_room = true;
                    return;
                }
                Err(PushError::Gone) => {
                    assert!(client.end.is_some() || client.closed);
                    return;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn carry_out(&mut self) {
        let pending = self.mux.pending(self.now);
        let n = self.dice.below(pending.len() + 1).min(60_000);
        self.peer.on_read(&pending[..n]);
        self.mux.on_written(self.now, n, &mut self.pool);
    }

    fn carry_in(&mut self) {
        let n = self.dice.below(self.peer.output.len() + 1).min(60_000);
        let bytes: Vec<u8> = self.peer.output.drain(..n).collect();
        self.with(|mux, cx| mux.on_read(cx, &bytes)).unwrap();
    }

    fn echo(&mut self) {
        let Some(id) = self.any_stream() else { return };
        let n = self.dice.below(50_000);
        self.echo_some(id, n);
    }

    fn echo_some(&mut self, id: u32, n: usize) {
        let first = !self.echoes.contains_key(&id);
        let echo = self.echoes.entry(id).or_default();
        if first {
            let hello = self.peer.take(id, 5);
            if hello.is_empty() {
                self.echoes.remove(&id);
                return;
            }
            assert_eq!(hello, b"PROXY");
        }
        echo.extend(self.peer.take(id, n));
        let written = self.peer.write(id, echo.make_contiguous());
        echo.drain(..written);
        if self.peer.streams[&id].fin_in
            && echo.is_empty()
            && self.peer.streams[&id].input.is_empty()
        {
            self.peer.fin(id);
        }
    }

    fn toggle_room(&mut self) {
        let Some(session) = self.any_client() else { return };
        let client = self.clients.get_mut(&session).unwrap();
        client.has_room = !client.has_room;
        if let (true, Some(key)) = (client.has_room, client.key) {
            self.with(|mux, cx| mux.resume(cx, key));
        }
    }

    fn close(&mut self) {
        let Some(session) = self.any_client() else { return };
        let client = self.clients.get_mut(&session).unwrap();
        if let (None, Some(key)) = (client.end, client.key) {
            client.closed = true;
            if self.dice.one_in(3) {
                self.mux.abort(&mut self.pool, key);
            } else {
                self.mux.close(self.now, &mut self.pool, key);
            }
        }
    }

    /// Everybody has room and works on until nothing moves.
    fn settle(&mut self) {
        let sessions: Vec<u32> = self.clients.keys().copied().collect();
        for session in sessions {
            let client = self.clients.get_mut(&session).unwrap();
            client.has_room = true;
            if let Some(key) = client.key {
                self.with(|mux, cx| mux.resume(cx, key));
            }
        }
        let mut quiet = 0;
        while quiet < 3 {
            let bytes = std::mem::take(&mut self.peer.output);
            let pending = self.mux.pending(self.now).to_vec();
            quiet = if bytes.is_empty() && pending.is_empty() { quiet + 1 } else { 0 };
            self.peer.on_read(&pending);
            self.mux.on_written(self.now, pending.len(), &mut self.pool);
            self.with(|mux, cx| mux.on_read(cx, &bytes)).unwrap();
            while let Some(session) = self.mux.poll_room() {
                self.push(session);
            }
            let streams: Vec<u32> = self.peer.streams.keys().copied().collect();
            for id in streams {
                self.echo_some(id, usize::MAX >> 1);
            }
        }
    }

    fn check_all(&self) {
        for (session, client) in &self.clients {
            let id = client.key.unwrap().id();
            let stream = self.peer.streams.get(&id).expect("it was opened");
            match client.end {
                None if !client.closed => {
                    assert!(client.to_send.is_empty(), "session {session} is stuck");
                    assert_eq!(client.heard.len(), client.sent.len(), "session {session}");
                }
                None => assert!(stream.fin_in || stream.reset_in || stream.reset_out),
                Some(End::Fin | End::FinMidMessage) => assert!(stream.fin_out),
                Some(End::Reset | End::Refused) => assert!(stream.reset_out),
                Some(other) => panic!("session {session}: {other:?}"),
            }
        }
        let open = self.clients.values().filter(|c| c.end.is_none() && !c.closed).count();
        assert_eq!(self.mux.streams(), open, "no stream outlives both ends");
        assert_eq!(self.pool.bytes_used(), 0, "nothing is kept when nothing waits");
    }
}

#[test]
fn any_conversation_keeps_every_message_and_every_bound() {
    let (mut heard, mut ends) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.settle();
        // A backend that cannot write its echo, because nobody takes it any more, is cut off after a while.
        world.now = world.now.add_ms(1 << 30);
        world.with(|mux, cx| mux.handle_timeout(cx)).unwrap();
        world.settle();
        world.check_all();
        heard += world.clients.values().map(|c| c.heard.len()).sum::<usize>();
        ends += world.clients.values().filter(|c| c.end.is_some() || c.closed).count();
    }
    assert!(heard > 5000 && ends > 500, "the conversations were conversations: {heard}, {ends}");
}

#[test]
fn damage_on_the_way_ends_in_an_error_or_in_nothing() {
    let mut errors = 0;
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.step();
        }
        let mut bytes = std::mem::take(&mut world.peer.output);
        bytes.extend(world.dice.bytes(500));
        for _ in 0..20 {
            let at = world.dice.below(bytes.len());
            bytes[at] ^= world.dice.bytes(1)[0];
        }
        world.now = world.now.add_ms(5);
        let piece = 1 + world.dice.below(3000);
        // What the sessions hear now is anything: only the connection is under test.
        let (mut sink, now) = (|_: u32, _: Event<'_>| true, world.now);
        let mut cx = Cx { now, pool: &mut world.pool, sink: &mut sink };
        let end = bytes.chunks(piece).map(|b| world.mux.on_read(&mut cx, b)).find(Result::is_err);
        errors += usize::from(end.is_some());
        world.mux.on_eof();
        assert!(world.mux.tear_down(&mut cx, &mut { usize::MAX }));
        assert_eq!((cx.pool.bytes_used(), world.mux.streams()), (0, 0));
    }
    assert!(errors > 100, "damage is noticed: {errors}");
}
