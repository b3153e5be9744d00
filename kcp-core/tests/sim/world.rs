//! Two conversations, two links, one virtual clock, and what must hold after every step.

use std::collections::VecDeque;

use kcp_core::wire::Segments;
use kcp_core::{Conv, Cx, FlushPolicy, Kcp, KcpConfig, Millis, Sn, Store, Wheel};
use netem::{Link, LinkConfig, Rng};

/// Everything that decides a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// What the protocol's clock shows when the run begins.
    pub(crate) start: Millis,
    /// The first sequence number of each end.
    pub(crate) first_sn: [Sn; 2],
    pub(crate) ends: [End; 2],
    /// `links[i]` carries what end `i` sends.
    pub(crate) links: [LinkConfig; 2],
}

/// One end's settings and what its application does.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) config: KcpConfig,
    /// Bytes that its store may hold.
    pub(crate) store_bytes: usize,
    /// Messages it sends (in stream mode: pieces).
    pub(crate) messages: u32,
    /// Sizes of the messages, uniform up to this.
    pub(crate) message_max: usize,
    /// Longest pause between two bursts of messages; 0 = it writes whenever it may.
    pub(crate) write_pause_us: u64,
    /// Longest time that the application does not read, and longest that it does; 0 = it always reads.
    pub(crate) read_pause_us: u64,
}

/// A run in progress.
pub(crate) struct World {
    pub(crate) peers: [Peer; 2],
    pub(crate) links: [Link<Vec<u8>>; 2],
    /// What end `i` has sent and the other has not received.
    pub(crate) under_way: [UnderWay; 2],
    start: Millis,
    pub(crate) now_us: u64,
    wheel: Wheel,
    buf: Vec<u8>,
}

/// One end.
pub(crate) struct Peer {
    pub(crate) kcp: Kcp,
    pub(crate) store: Store,
    pub(crate) end: End,
    rng: Rng,
    messages_left: u32,
    write_at_us: u64,
    reading: bool,
    read_toggle_us: u64,
    /// Turns at the present instant for which nothing had arrived: more than a few are a spin.
    turns_now: (u64, u32),
}

/// Bytes of one direction, in order. Messages keep their lengths.
#[derive(Default)]
pub(crate) struct UnderWay {
    bytes: VecDeque<u8>,
    lens: VecDeque<usize>,
    pub(crate) received_bytes: u64,
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let [a, b] = scenario.first_sn;
        let conv = Conv(0x1122_3344);
        let peer = |at: usize, snd_nxt, rcv_nxt| {
            let end = scenario.ends[at].clone();
            Peer {
                kcp: Kcp::resume(conv, snd_nxt, rcv_nxt),
                store: Store::new(end.store_bytes),
                messages_left: end.messages,
                end,
                rng: Rng::new(scenario.seed * 2 + at as u64),
                write_at_us: 0,
                reading: true,
                read_toggle_us: 0,
                turns_now: (0, 0),
            }
        };
        let link = |at: usize| Link::new(scenario.links[at].clone(), scenario.seed * 2 + at as u64);
        let mut wheel = Wheel::new(scenario.start);
        wheel.grow(2);
        Self {
            peers: [peer(0, a, b), peer(1, b, a)],
            links: [link(0), link(1)],
            under_way: Default::default(),
            start: scenario.start,
            now_us: 0,
            wheel,
            buf: vec![0; 128 * 1_400],
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.start.add(u32::try_from(self.now_us / 1_000).expect("no run lasts for weeks"))
    }

    /// Runs until nothing is left to do, then checks that nothing is left over.
    pub(crate) fn run_to_rest(&mut self, limit_us: u64) {
        while let Some(next_us) = self.next_event() {
            assert!(next_us <= limit_us, "no rest after {limit_us} us: {}", self.describe());
            self.step(next_us);
        }
        for (at, peer) in self.peers.iter().enumerate() {
            let rest = format!("end {at} at rest: {}", self.describe());
            assert_eq!(peer.messages_left, 0, "{rest}");
            assert_eq!(self.under_way[at].bytes.len() + self.under_way[at].lens.len(), 0, "{rest}");
            assert!(peer.kcp.is_idle(), "{rest}");
            assert_eq!(peer.store.bytes_used(), 0, "{rest}");
        }
        assert_eq!(self.wheel.next_deadline(), None);
    }

    /// Runs until `until_us`.
    pub(crate) fn run_until(&mut self, until_us: u64) {
        while let Some(next_us) = self.next_event().filter(|&next_us| next_us <= until_us) {
            self.step(next_us);
        }
        self.now_us = until_us;
    }

    /// When the next packet arrives, timer expires, or application moves.
    fn next_event(&self) -> Option<u64> {
        let timer_us = self.wheel.next_deadline().map(|at| {
            let ahead = u64::try_from(at.since(self.now()).max(0)).unwrap_or(0);
            ((self.now_us / 1_000 + ahead) * 1_000).max(self.now_us)
        });
        let links = self.links.iter().filter_map(Link::next_time);
        let applications = (0..2).filter_map(|at| self.application_event(at));
        links.chain(timer_us).chain(applications).min().map(|at_us| at_us.max(self.now_us))
    }

    fn application_event(&self, at: usize) -> Option<u64> {
        let peer = &self.peers[at];
        let write = (peer.messages_left > 0 && peer.may_write()).then_some(peer.write_at_us);
        let expects = self.peers[1 - at].messages_left > 0 || !self.under_way[1 - at].is_empty();
        let toggle = (peer.end.read_pause_us > 0 && (expects || !peer.reading))
            .then_some(peer.read_toggle_us);
        write.into_iter().chain(toggle).min()
    }

    /// Moves the clock to `at_us` and lets everybody act on what happened by then.
    fn step(&mut self, at_us: u64) {
        self.now_us = at_us;
        let now = self.now();
        for index in 0..2 {
            // The clock went where the wheel said at most: no deadline lies behind it.
            let late = self.wheel.deadline(index).map_or(0, |deadline| now.since(deadline));
            assert!(late <= 0, "the wheel woke nobody for end {index}, {late} ms ago");
        }
        let mut expired = [false; 2];
        while let Some(index) = self.wheel.pop(now) {
            expired[index as usize] = true;
        }
        for (at, expired) in expired.into_iter().enumerate() {
            let arrived: Vec<_> =
                std::iter::from_fn(|| self.links[1 - at].pop(self.now_us)).collect();
            let acts = self.application_event(at).is_some_and(|event_us| event_us <= at_us);
            if expired || acts || !arrived.is_empty() {
                self.turn(at, expired, &arrived);
            }
            let promised = self.peers[at].deadline_quietly(now);
            assert_eq!(
                self.wheel.deadline(u32::from(at == 1)),
                promised,
                "end {at}'s deadline moved"
            );
        }
    }

    /// One turn of one end, in the order in which a shard does it.
    fn turn(&mut self, at: usize, expired: bool, arrived: &[Vec<u8>]) {
        let now = self.now();
        let peer = &mut self.peers[at];
        if arrived.is_empty() {
            peer.count_turn(self.now_us);
        }
        peer.toggle_reading(self.now_us, self.under_way[1 - at].is_empty());
        for datagram in arrived {
            peer.take_datagram(now, datagram, &mut self.under_way[1 - at]);
        }
        peer.read(now, &mut self.buf, &mut self.under_way[1 - at]);
        peer.write(now, self.now_us, &mut self.under_way[at]);
        let before = (peer.kcp.snd_nxt(), peer.window());
        let mut cx = Cx { config: &peer.end.config, store: &mut peer.store };
        match peer.end.config.flush {
            FlushPolicy::Turn => peer.kcp.flush(&mut cx, now),
            FlushPolicy::Interval if expired => peer.kcp.handle_timeout(&mut cx, now),
            FlushPolicy::Interval => {}
        }
        while let Some(len) = peer.kcp.poll_transmit(&mut cx, now, &mut self.buf) {
            assert!(len <= peer.end.config.mtu as usize, "{len} bytes exceed the mtu");
            let datagram = &self.buf[..len];
            assert!(Segments::new(datagram).all(|segment| segment.is_ok()));
            self.links[at].push(self.now_us, datagram.to_vec());
        }
        peer.check(now, before, expired);
        match peer.deadline(now) {
            Some(deadline) => self.wheel.arm(u32::from(at == 1), deadline),
            None => self.wheel.cancel(u32::from(at == 1)),
        }
        // No end ever expects what the other has not numbered.
        let ahead = self.peers[at].kcp.rcv_nxt().since(self.peers[1 - at].kcp.snd_nxt());
        assert!(ahead <= 0, "end {at} expects {ahead} segments beyond what was sent");
    }

    pub(crate) fn describe(&self) -> String {
        let end = |at: usize| {
            let peer = &self.peers[at];
            format!(
                "end {at}: {} messages to send, {} bytes under way, in flight {}, {:?}, rto {}, rmt_wnd {}, cwnd {}, \
                 dead {}, {} bytes in store, next {:?}",
                peer.messages_left,
                self.under_way[at].bytes.len(),
                peer.kcp.snd_nxt().since(peer.kcp.snd_una()),
                peer.kcp.queue_lengths(),
                peer.kcp.rto(),
                peer.kcp.rmt_wnd(),
                peer.kcp.cwnd(),
                peer.kcp.is_dead(),
                peer.store.bytes_used(),
                peer.deadline_quietly(self.now()),
            )
        };
        format!("at {} us; {}; {}", self.now_us, end(0), end(1))
    }
}

impl Peer {
    fn count_turn(&mut self, now_us: u64) {
        self.turns_now = match self.turns_now {
            (at, turns) if at == now_us => (at, turns + 1),
            _ => (now_us, 1),
        };
        assert!(self.turns_now.1 <= TURNS_PER_INSTANT_MAX, "spins at {now_us} us");
    }

    fn toggle_reading(&mut self, now_us: u64, nothing_expected: bool) {
        if self.end.read_pause_us > 0 && now_us >= self.read_toggle_us {
            self.reading = !self.reading || nothing_expected;
            self.read_toggle_us = now_us + 1 + self.rng.below(self.end.read_pause_us);
        }
    }

    fn take_datagram(&mut self, now: Millis, datagram: &[u8], from: &mut UnderWay) {
        let stream = self.end.config.stream;
        let mut cx = Cx { config: &self.end.config, store: &mut self.store };
        let (rng, reading) = (&mut self.rng, self.reading);
        let taken = self.kcp.handle_datagram(&mut cx, now, datagram, |message| {
            // Half of what could be taken straight away is refused, to be read later.
            let takes = reading && rng.chance_ppm(500_000);
            if takes {
                from.receive(message, stream);
            }
            takes
        });
        assert_eq!(taken, Ok(()), "an honest datagram was refused");
    }

    fn read(&mut self, _now: Millis, buf: &mut [u8], from: &mut UnderWay) {
        let mut cx = Cx { config: &self.end.config, store: &mut self.store };
        while self.reading
            && let Ok(len) = self.kcp.recv(&mut cx, buf)
        {
            from.receive(&buf[..len], cx.config.stream);
        }
    }

    /// The application's own bound on what it queues.
    fn may_write(&self) -> bool {
        self.kcp.wait_snd() < 2 * self.end.config.snd_wnd as usize
    }

    fn write(&mut self, _now: Millis, now_us: u64, to: &mut UnderWay) {
        if now_us < self.write_at_us {
            return;
        }
        let always = self.end.write_pause_us == 0;
        for _ in 0..if always { u64::MAX } else { 1 + self.rng.below(8) } {
            if self.messages_left == 0 || !self.may_write() {
                return;
            }
            let len = usize::try_from(self.rng.below(self.end.message_max as u64 + 1)).unwrap_or(0);
            let message: Vec<u8> = (0..len).map(|_| self.rng.next_u64().to_le_bytes()[0]).collect();
            let mut cx = Cx { config: &self.end.config, store: &mut self.store };
            let Ok(queued) = self.kcp.send(&mut cx, &message) else { return };
            assert!(queued == len || cx.config.stream, "{queued} of {len} bytes of a message");
            self.messages_left -= 1;
            to.send(&message[..queued], self.end.config.stream);
        }
        self.write_at_us = now_us + 1 + self.rng.below(self.end.write_pause_us);
    }

    /// What the protocol may have in flight.
    fn window(&self) -> i64 {
        let config = &self.end.config;
        let cwnd = if config.nocwnd { u32::MAX } else { self.kcp.cwnd() };
        config.snd_wnd.min(self.kcp.rmt_wnd()).min(cwnd).into()
    }

    fn in_flight(&self) -> i64 {
        self.kcp.snd_nxt().since(self.kcp.snd_una()).into()
    }

    fn check(&self, now: Millis, (snd_nxt, window): (Sn, i64), expired: bool) {
        let config = &self.end.config;
        let in_flight = self.in_flight();
        assert!((0..=i64::from(config.snd_wnd)).contains(&in_flight), "{in_flight} in flight");
        if self.kcp.snd_nxt() != snd_nxt {
            assert!(in_flight <= window, "{in_flight} in flight at a window of {window}");
        }
        let queues = self.kcp.queue_lengths();
        let rcv_wnd = config.rcv_wnd as usize;
        assert!(queues.rcv_buf <= rcv_wnd && queues.rcv_queue <= rcv_wnd, "{queues:?}");
        assert!(queues.snd_buf <= config.snd_wnd as usize, "{queues:?}");
        assert!(!config.strict || queues.acks <= 4 * rcv_wnd, "{queues:?}");
        let held = self.store.bytes_used() + self.store.bytes_recycled();
        assert!(held <= self.store.bytes_max(), "{held} bytes in the store");
        if let Some(deadline) = self.deadline_quietly(now) {
            let ahead = deadline.since(now);
            assert!(ahead >= 0, "the next deadline is {} ms in the past", -ahead);
            let flushed = expired || config.flush == FlushPolicy::Turn;
            assert!(ahead > 0 || !flushed, "due again at once after a flush");
        }
        if self.kcp.is_idle() {
            assert_eq!(self.deadline_quietly(now), None, "an idle conversation has no deadline");
            assert_eq!(self.store.bytes_used(), 0, "an idle conversation holds no storage");
        }
    }

    fn deadline(&mut self, now: Millis) -> Option<Millis> {
        self.kcp.poll_timeout(&Cx { config: &self.end.config, store: &mut self.store }, now)
    }

    /// As `deadline`, for those who only look.
    fn deadline_quietly(&self, now: Millis) -> Option<Millis> {
        let mut nothing = Store::new(0);
        self.kcp.poll_timeout(&Cx { config: &self.end.config, store: &mut nothing }, now)
    }
}

impl UnderWay {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.lens.is_empty()
    }

    fn send(&mut self, message: &[u8], stream: bool) {
        self.bytes.extend(message);
        if !stream {
            self.lens.push_back(message.len());
        }
    }

    /// What arrives is what was sent next, no more and no less.
    fn receive(&mut self, message: &[u8], stream: bool) {
        if !stream {
            assert_eq!(self.lens.pop_front(), Some(message.len()), "not the next message");
        }
        assert!(message.len() <= self.bytes.len(), "more was received than sent");
        assert!(self.bytes.drain(..message.len()).eq(message.iter().copied()), "other bytes");
        self.received_bytes += message.len() as u64;
    }
}

/// A timer, a reader and a writer may each have one.
const TURNS_PER_INSTANT_MAX: u32 = 3;
