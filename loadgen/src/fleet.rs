//! All sessions of one worker: what they do with a datagram, at a due time, and at the end of a turn. No sockets, no clock.

use std::sync::Arc;
use std::time::Duration;

use kcp_core::{Cx, FlushPolicy, Heard, KcpConfig, SendError, Stats, Store, Wheel, wire};
use net_io::{Destination, Driver, Now, SocketId};

use crate::agenda::{Agenda, Word};
use crate::client::{Desk, Session, State};
use crate::ledger::Ledger;
use crate::meter::Meter;
use crate::payload::{Codec, Stamp};
use crate::plan::{Plan, Share};
use crate::reading::{Reading, Take};
use crate::recut::Recut;
use crate::scenario::{Protocol, Scenario, Upstream};
use crate::schedule::{Ramp, Slot};
use crate::storm::Part;
use crate::timeline::{Due, Stage, Timeline, at_millis, millis};

/// The sessions and everything they need between two system calls.
#[derive(Debug)]
pub(crate) struct Fleet {
    plan: Arc<Plan>,
    share: Share,
    sockets: u32,
    sessions: Vec<Session>,
    speech: Speech,
    agenda: Agenda,
    ramp: Ramp,
    /// Sessions started and neither established nor dead.
    opening: u32,
    opening_max: u32,
    storm: Option<Part>,
    /// Sessions below this are bystanders.
    bystanders: u32,
    load: Option<Timeline>,
    /// Where clients are slow.
    reading: Option<Reading>,
    ledger: Ledger,
    scratch: Vec<u8>,
    pub(crate) meter: Meter,
}

/// What the protocol in use keeps per worker.
#[derive(Debug)]
enum Speech {
    Kcp(Box<KcpSpeech>),
    Raw(RawSpeech),
}

#[derive(Debug)]
struct KcpSpeech {
    config: KcpConfig,
    store: Store,
    wheel: Wheel,
    heard: Heard,
    /// Where the upstream keeps no boundaries.
    recut: Option<Recut>,
}

impl KcpSpeech {
    /// Bytes of a session's first message: one segment, so that its acknowledgement establishes the session.
    fn first_len(&self, size: usize) -> usize {
        size.min(self.config.mtu as usize - wire::HEADER_LEN)
    }
}

#[derive(Debug)]
struct RawSpeech {
    datagram: usize,
    /// What leaves at the end of the turn.
    outbox: Vec<(u32, Stamp)>,
}

impl Fleet {
    /// A fleet whose sessions begin to start at `now`.
    pub(crate) fn new(plan: Arc<Plan>, share: Share, now: Now) -> Self {
        let scenario = &plan.scenario;
        let Scenario { clients, storm, .. } = scenario;
        let count = share.of(clients.sessions);
        let total = share.of(clients.sessions + storm.as_ref().map_or(0, |storm| storm.arrive));
        let mut meter = Meter::new();
        if let Some(deadline) = scenario.traffic.deadline {
            meter.deadline_us = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        }
        if clients.bystanders > 0 || storm.is_some() {
            meter.around = Some(Box::default());
        }
        let (speech, scratch) = match &scenario.protocol {
            Protocol::Kcp(config) => {
                let bytes = scenario.engine.store_bytes / scenario.engine.threads as usize;
                let (store, wheel) = (Store::new(bytes), Wheel::new(millis(now)));
                let longest = 128 * config.mtu as usize;
                let heard = Heard::new(millis(now));
                let config = config.clone();
                let mut speech = KcpSpeech { config, store, wheel, heard, recut: None };
                let size = scenario.traffic.size;
                if scenario.traffic.upstream == Upstream::Stream {
                    speech.recut = Some(Recut::new(speech.first_len(size), size));
                }
                (Speech::Kcp(Box::new(speech)), vec![0; longest])
            }
            Protocol::Raw { datagram } => {
                (Speech::Raw(RawSpeech { datagram: *datagram, outbox: Vec::new() }), Vec::new())
            }
        };
        Self {
            share,
            sockets: share.of(clients.sockets),
            // Room without pages: memory becomes resident as the ramp fills it, and never moves.
            sessions: Vec::with_capacity(total as usize),
            speech,
            agenda: Agenda::default(),
            ramp: Ramp::new(now, count, scenario.phases.ramp),
            opening: 0,
            opening_max: share.of(clients.opening_max).max(1),
            storm: storm.as_ref().map(|storm| Part::new(storm, clients, share)),
            bystanders: share.of(clients.bystanders),
            load: None,
            reading: None,
            ledger: Ledger::default(),
            scratch,
            meter,
            plan,
        }
    }

    /// The load begins now.
    pub(crate) fn begin_load(&mut self, now: Now) {
        let timeline = Timeline::new(&self.plan.scenario, self.share, now);
        if let (Some(storm), Some(around)) = (&mut self.storm, &mut self.meter.around) {
            around.storm = storm.set(timeline.window());
        }
        let until = timeline.window().end;
        self.reading = Reading::new(&self.plan.scenario, self.share, now, until);
        self.set_load(timeline);
    }

    /// No session starts and no message leaves after now; echoes are awaited no longer than `within`.
    pub(crate) fn stop(&mut self, now: Now, within: Duration) {
        self.ramp.stop();
        if let Some(storm) = &mut self.storm {
            storm.stop();
        }
        if let Some(reading) = &mut self.reading {
            reading.stop(now);
        }
        self.set_load(Timeline::stopped(self.meter.window, now, within));
    }

    fn set_load(&mut self, timeline: Timeline) {
        self.meter.window = timeline.window();
        self.load = Some(timeline);
    }

    /// Counts the sessions of which a message is missing; at the end, once.
    pub(crate) fn count_lossy(&mut self) {
        let lossy =
            |session: &&Session| session.flow.state != State::Gone && session.flow.lacks_any();
        self.meter.counts.lossy_sessions = self.sessions.iter().filter(lossy).count() as u64;
    }

    /// What the protocol did; all zero when it is raw datagrams.
    pub(crate) fn stats(&self) -> Stats {
        match &self.speech {
            Speech::Kcp(speech) => *speech.store.stats(),
            Speech::Raw(_) => Stats::default(),
        }
    }

    /// Where this worker stands.
    pub(crate) fn stage(&self, now: Now) -> Stage {
        let Meter { counts, .. } = &self.meter;
        let waiting = counts.missing() > counts.corrupted;
        self.load.as_ref().map_or(Stage::Ramp, |load| load.stage(now, waiting))
    }

    /// When the next turn must run even if no datagram comes.
    pub(crate) fn next_deadline(&self, now: Now) -> Option<Now> {
        let wheel = match &self.speech {
            Speech::Kcp(kcp) => kcp.wheel.next_deadline().map(|due| at_millis(now, due)),
            Speech::Raw(_) => None,
        };
        let starting = self.next_start().map(|slot| slot.at);
        let load = self.load.as_ref().and_then(|load| load.next_deadline(now));
        let storm = self.storm.as_ref().and_then(Part::next_deadline);
        let saying = self.agenda.is_waiting().then_some(now);
        let reading = self.reading.as_ref().and_then(|reading| reading.next_deadline(now));
        [wheel, starting, load, storm, saying, reading].into_iter().flatten().min()
    }

    /// All of a turn between two waits: what came, what is due, what must leave.
    pub(crate) fn serve<D: Driver>(&mut self, now: Now, driver: &mut D) {
        self.receive(now, driver);
        self.hear(now, driver.has_backlog());
        self.on_time(now);
        self.transmit(now, driver);
    }

    /// What came, until `now`.
    pub(crate) fn receive<D: Driver>(&mut self, now: Now, driver: &mut D) {
        while let Some(datagram) = driver.recv() {
            self.on_datagram(now, datagram.socket, datagram.payload);
        }
    }

    /// Notes whether all that had arrived was taken in. Where it was not, timeouts wait: what this process is late with is
    /// not the target's loss.
    fn hear(&mut self, now: Now, backlog: bool) {
        let Speech::Kcp(speech) = &mut self.speech else { return };
        if backlog {
            // Thousands of sockets are too many to be asked what they hold.
            speech.heard.not_all(millis(now), 0, || usize::MAX);
        } else {
            speech.heard.all(millis(now));
        }
        let behind_us = u64::from(speech.heard.behind_ms(millis(now))) * 1000;
        self.meter.on_behind(now, behind_us);
    }

    fn on_datagram(&mut self, now: Now, socket: SocketId, datagram: &[u8]) {
        let found = wire::conv(datagram)
            .and_then(|conv| self.share.local(self.plan.convs.number(conv)))
            .filter(|local| self.socket_of(*local) == socket);
        let session = found.and_then(|local| Some((local, self.sessions.get_mut(local as usize)?)));
        let (local, Session { kcp, flow }) = match session {
            Some((_, session)) if session.flow.state == State::Gone => return,
            Some(found) if found.1.flow.state != State::Dead => found,
            Some(_) | None => {
                self.meter.counts.stray_datagrams += 1;
                return;
            }
        };
        let number = self.share.number(local);
        let size = self.plan.scenario.traffic.size;
        let header = self.speech.has_header(size);
        let (codec, meter, ledger) = (&self.plan.codec, &mut self.meter, &mut self.ledger);
        let bystander = local < self.bystanders;
        let rooms = self.plan.scenario.traffic.upstream == Upstream::Rooms;
        let mut desk = Desk { codec, meter, ledger, now, header, bystander, rooms };
        match &mut self.speech {
            Speech::Raw(_) => {
                let message = datagram.get(CONV_LEN..).unwrap_or(&[]);
                flow.on_echo(message, number, size, &mut desk);
                if flow.state == State::Opening && flow.any_echo() {
                    self.establish(now, local);
                }
            }
            Speech::Kcp(speech) => {
                let KcpSpeech { config, store, recut, .. } = &mut **speech;
                let mut cx = Cx { config, store };
                let times = self.plan.scenario.traffic.times;
                let held = self.reading.as_ref().is_some_and(|reading| reading.holds(now, local));
                let mut take = |message: &[u8]| match recut {
                    None => flow.on_echo(once(message, times), number, size, &mut desk),
                    Some(recut) => recut.feed(local, message, |message| {
                        flow.on_echo(message, number, size, &mut desk);
                    }),
                };
                let taken = kcp.handle_datagram(&mut cx, millis(now), datagram, |message| {
                    if !held {
                        take(message);
                    }
                    !held
                });
                while !held && let Ok(len) = kcp.recv(&mut cx, &mut self.scratch) {
                    take(self.scratch.get(..len).unwrap_or(&[]));
                }
                if taken.is_err() {
                    desk.meter.counts.refused_datagrams += 1;
                }
                if flow.state == State::Opening && kcp.wait_snd() == 0 {
                    self.establish(now, local);
                }
                self.refill(now, local);
                self.touch(local, Word::Ack);
                return;
            }
        }
        self.refill(now, local);
    }

    /// Starts the sessions that are due, sends the messages that are due, and marks the sessions whose timers are.
    fn on_time(&mut self, now: Now) {
        for _ in 0..START_BUDGET {
            let Some(slot) = self.next_start().filter(|slot| slot.at <= now) else { break };
            match &mut self.storm {
                Some(storm) if self.ramp.peek().is_none() => storm.advance(),
                Some(_) | None => self.ramp.advance(),
            }
            self.start(now, slot.member, slot.at);
        }
        for _ in 0..VANISH_BUDGET {
            let Some(local) = self.storm.as_mut().and_then(|storm| storm.vanish(now)) else {
                break;
            };
            self.vanish(local);
        }
        self.send_due(now);
        for _ in 0..SEND_BUDGET {
            match self.reading.as_mut().and_then(|reading| reading.pop(now)) {
                Some(Take::One(local)) => self.take(now, local, 1),
                Some(Take::All(local)) => self.take(now, local, usize::MAX),
                None => break,
            }
        }
        for _ in 0..EXPIRE_BUDGET {
            let Speech::Kcp(speech) = &mut self.speech else { break };
            let Some(local) = speech.wheel.pop(speech.heard.at()) else { break };
            self.touch(local, Word::Message);
        }
    }

    /// A slow client's application takes up to `most` of the messages that wait.
    fn take(&mut self, now: Now, local: u32, most: usize) {
        let number = self.share.number(local);
        let Scenario { traffic, .. } = &self.plan.scenario;
        let (size, times, rooms) =
            (traffic.size, traffic.times, traffic.upstream == Upstream::Rooms);
        let header = self.speech.has_header(size);
        let Some(Session { kcp, flow }) = self.sessions.get_mut(local as usize) else { return };
        let Speech::Kcp(speech) = &mut self.speech else { return };
        let (codec, meter, ledger) = (&self.plan.codec, &mut self.meter, &mut self.ledger);
        let mut desk = Desk { codec, meter, ledger, now, header, bystander: false, rooms };
        let KcpSpeech { config, store, recut, .. } = &mut **speech;
        for _ in 0..most {
            let Ok(len) = kcp.recv(&mut Cx { config, store }, &mut self.scratch) else { break };
            let message = self.scratch.get(..len).unwrap_or(&[]);
            match recut {
                None => flow.on_echo(once(message, times), number, size, &mut desk),
                Some(recut) => recut.feed(local, message, |message| {
                    flow.on_echo(message, number, size, &mut desk);
                }),
            }
        }
        self.refill(now, local);
        self.touch(local, Word::Ack); // its window may have opened
    }

    /// Writes what the touched sessions have to say in this turn into the driver.
    fn transmit<D: Driver>(&mut self, now: Now, driver: &mut D) {
        self.transmit_raw(driver);
        let messages = self.agenda.take_messages();
        for &local in &messages {
            self.flush(now, local, driver);
        }
        self.agenda.give_back(messages);
        for _ in 0..self.agenda.acks_due() {
            if !self.transmit_ack(now, driver) {
                break;
            }
        }
    }

    /// As [`Fleet::transmit`], and nobody is left for another turn.
    pub(crate) fn transmit_all<D: Driver>(&mut self, now: Now, driver: &mut D) {
        self.transmit(now, driver);
        while self.transmit_ack(now, driver) {}
    }

    /// Whether there was one.
    fn transmit_ack<D: Driver>(&mut self, now: Now, driver: &mut D) -> bool {
        let Some(local) = self.agenda.pop_ack() else { return false };
        let session = self.sessions.get_mut(local as usize);
        if session.is_some_and(|session| session.flow.place.leave()) {
            self.flush(now, local, driver);
        }
        true
    }

    fn transmit_raw<D: Driver>(&mut self, driver: &mut D) {
        let Speech::Raw(raw) = &mut self.speech else { return };
        let len = raw.datagram;
        let mut outbox = std::mem::take(&mut raw.outbox);
        for (local, stamp) in outbox.drain(..) {
            let conv = self.plan.convs.conv(stamp.session);
            let (head, message) = driver.slot(len)[..len].split_at_mut(CONV_LEN);
            head.copy_from_slice(&conv.0.to_le_bytes());
            self.plan.codec.write(message, &stamp);
            driver.queue(len, &self.destination(local));
        }
        if let Speech::Raw(raw) = &mut self.speech {
            raw.outbox = outbox;
        }
    }

    fn flush<D: Driver>(&mut self, now: Now, local: u32, driver: &mut D) {
        let to = self.destination(local);
        let Speech::Kcp(speech) = &mut self.speech else { return };
        let KcpSpeech { config, store, wheel, heard, .. } = &mut **speech;
        let Some(Session { kcp, flow }) = self.sessions.get_mut(local as usize) else { return };
        let mut cx = Cx { config, store };
        let (ms, heard) = (millis(now), heard.at());
        flow.place.clear();
        if flow.state == State::Gone {
            return;
        }
        match config.flush {
            FlushPolicy::Turn => kcp.flush(&mut cx, ms),
            FlushPolicy::Interval => {
                kcp.handle_timeout(&mut cx, ms);
                if heard != ms {
                    kcp.flush(&mut cx, ms); // the timers wait, acknowledgements must not
                }
            }
        }
        let mtu = config.mtu as usize;
        while let Some(len) = kcp.poll_transmit_heard(&mut cx, ms, heard, driver.slot(mtu)) {
            driver.queue(len, &to);
        }
        if kcp.is_dead() {
            if flow.state == State::Opening {
                self.opening -= 1;
            }
            flow.state = State::Dead;
            self.meter.counts.dead_sessions += 1;
            kcp.reset(store);
            wheel.cancel(local);
            return;
        }
        match kcp.poll_timeout(&cx, ms) {
            Some(deadline) => wheel.arm(local, deadline),
            None => wheel.cancel(local),
        }
    }

    /// The next start, unless too many sessions are opening: an answer must come first. Newcomers are numbered after all
    /// sessions of the ramp, and so come after them.
    fn next_start(&self) -> Option<Slot> {
        let arrival = || self.storm.as_ref().and_then(Part::next_arrival);
        self.ramp.peek().or_else(arrival).filter(|_| self.opening < self.opening_max)
    }

    /// The client is gone, with all it had on the way.
    fn vanish(&mut self, local: u32) {
        let Some(Session { kcp, flow }) = self.sessions.get_mut(local as usize) else { return };
        if flow.state == State::Opening {
            self.opening -= 1;
        }
        flow.state = State::Gone;
        self.meter.counts.vanished += 1;
        self.meter.counts.abandoned += u64::from(flow.on_the_way());
        if let Speech::Kcp(speech) = &mut self.speech {
            kcp.reset(&mut speech.store);
            speech.wheel.cancel(local);
        }
    }

    fn start(&mut self, now: Now, local: u32, due: Now) {
        let number = self.share.number(local);
        self.sessions.push(Session::new(self.plan.convs.conv(number)));
        self.opening += 1;
        let size = self.plan.scenario.traffic.size;
        let len = match &mut self.speech {
            Speech::Kcp(speech) => {
                speech.wheel.grow(self.sessions.len());
                speech.first_len(size)
            }
            Speech::Raw(_) => size,
        };
        self.send(now, local, due, len);
    }

    fn establish(&mut self, now: Now, local: u32) {
        let Some(Session { flow, .. }) = self.sessions.get_mut(local as usize) else { return };
        flow.state = State::Ready;
        self.opening -= 1;
        let Meter { counts, connect, around, .. } = &mut self.meter;
        let newcomer = self.storm.as_ref().and_then(|storm| storm.due(local));
        match (newcomer, around) {
            (Some(due), Some(around)) => {
                counts.newcomers += 1;
                around.connect.saturating_record(now.0.saturating_sub(due.0));
            }
            _ => {
                counts.established += 1;
                connect.saturating_record(now.0.saturating_sub(self.ramp.due(local).0));
            }
        }
    }

    fn send_due(&mut self, now: Now) {
        for _ in 0..SEND_BUDGET {
            let Some(load) = &mut self.load else { return };
            match load.pop(now, &mut self.meter.counts.missed_sends) {
                Some(Due::Prime(local)) => self.refill(now, local),
                Some(Due::Slot(slot)) => self.send_slot(now, slot.member, slot.at),
                None => return,
            }
        }
    }

    fn send_slot(&mut self, now: Now, local: u32, due: Now) {
        let Scenario { traffic, .. } = &self.plan.scenario;
        let (size, backlog_max) = (traffic.size, traffic.backlog_max);
        let Some(Session { kcp, flow }) = self.sessions.get(local as usize) else { return };
        if flow.state != State::Ready {
            return;
        }
        // A raw session's protocol is never spoken, so it has no backlog.
        if kcp.wait_snd() >= backlog_max {
            self.meter.counts.throttled_sends += 1;
        } else {
            self.send(now, local, due, size);
        }
    }

    /// Closed loop: as many messages as are missing to the number that shall be on the way.
    fn refill(&mut self, now: Now, local: u32) {
        let wanted = self.load.as_ref().map_or(0, |load| load.outstanding(now, local));
        let Some(Session { flow, .. }) = self.sessions.get(local as usize) else { return };
        if flow.state != State::Ready {
            return;
        }
        let size = self.plan.scenario.traffic.size;
        for _ in flow.on_the_way()..wanted {
            self.send(now, local, now, size);
        }
    }

    fn send(&mut self, now: Now, local: u32, intended: Now, len: usize) {
        let number = self.share.number(local);
        let Some(Session { kcp, flow }) = self.sessions.get_mut(local as usize) else { return };
        let stamp = flow.stamp(number, intended, now);
        let header = self.speech.has_header(self.plan.scenario.traffic.size);
        let (codec, meter, ledger) = (&self.plan.codec, &mut self.meter, &mut self.ledger);
        let bystander = local < self.bystanders;
        let rooms = self.plan.scenario.traffic.upstream == Upstream::Rooms;
        let mut desk = Desk { codec, meter, ledger, now, header, bystander, rooms };
        match &mut self.speech {
            Speech::Raw(raw) => {
                flow.on_sent(&stamp, &mut desk);
                raw.outbox.push((local, stamp));
            }
            Speech::Kcp(speech) => {
                let KcpSpeech { config, store, .. } = &mut **speech;
                let message = self.scratch.get_mut(..len).unwrap_or_default();
                codec.write(message, &stamp);
                match kcp.send(&mut Cx { config, store }, message) {
                    Ok(_) => flow.on_sent(&stamp, &mut desk),
                    // Longer than allowed cannot be: the scenario was checked. Both are this process's own bounds.
                    Err(SendError::StoreFull | SendError::TooLong) => {
                        desk.meter.counts.store_full += 1;
                    }
                }
                self.touch(local, Word::Message);
            }
        }
    }

    /// Session `local` has something to say. A session that waits for acknowledgements may be free to send on: that is no less
    /// urgent than a message.
    fn touch(&mut self, local: u32, word: Word) {
        let Some(Session { kcp, flow }) = self.sessions.get_mut(local as usize) else { return };
        if !matches!(flow.state, State::Dead | State::Gone) {
            let word = if kcp.wait_snd() > 0 { Word::Message } else { word };
            self.agenda.note(local, &mut flow.place, word);
        }
    }

    /// Socket `n` of this worker is its driver's socket `n`.
    fn socket_of(&self, local: u32) -> SocketId {
        SocketId(u16::try_from(local % self.sockets.max(1)).unwrap_or(u16::MAX))
    }

    fn destination(&self, local: u32) -> Destination {
        let peer = self.plan.scenario.target;
        Destination { socket: self.socket_of(local), peer, local: None }
    }
}

impl Speech {
    /// Raw datagrams always have room for a header.
    const fn has_header(&self, size: usize) -> bool {
        matches!(self, Self::Raw(_)) || Codec::has_header(size)
    }
}

/// The message whose answer is the same `times` over; nothing, which is no message, when it is not.
fn once(answer: &[u8], times: u32) -> &[u8] {
    let times = times as usize;
    let (first, rest) = answer.split_at(answer.len() / times);
    let same = first.len() * times == answer.len()
        && (rest.is_empty() || rest.chunks_exact(first.len()).all(|part| part == first));
    if same { first } else { &[] }
}

/// Sessions started in one turn: a ramp that has fallen behind does not starve the sessions that run.
const START_BUDGET: usize = 256;
/// Messages sent by the schedule in one turn, for the same reason.
const SEND_BUDGET: usize = 1024;
/// Sessions that vanish in one turn: a storm must not show as this process's own stall.
const VANISH_BUDGET: usize = 1024;
/// Timers taken in one turn.
const EXPIRE_BUDGET: usize = 4096;
const CONV_LEN: usize = 4;

#[cfg(test)]
mod tests;
