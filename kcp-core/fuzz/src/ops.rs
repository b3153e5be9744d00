//! Two conversations and a sequence of operations on them and on the datagrams between them.

use std::collections::VecDeque;

use kcp_core::{Conv, Cx, FlushPolicy, Kcp, KcpConfig, Millis, Sn, Store};

use crate::script::Script;

/// The first bytes choose settings and starting numbers, the rest are operations. While the script has not tampered with a
/// datagram, everything that was sent must arrive, and both ends must come to rest once the network is kind.
pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let mut world = World::new(&mut script);
    while !script.is_over() {
        world.operate(&mut script);
    }
    if world.honest {
        world.come_to_rest();
    }
    for end in &mut world.ends {
        end.kcp.reset(&mut end.store);
        assert_eq!(end.store.bytes_used(), 0, "reset kept something");
    }
}

struct World {
    ends: [End; 2],
    /// `wires[i]` leads to end `i`.
    wires: [VecDeque<Vec<u8>>; 2],
    now: Millis,
    honest: bool,
    buf: Vec<u8>,
}

struct End {
    kcp: Kcp,
    config: KcpConfig,
    store: Store,
    /// What it has sent and the other has not received; in stream mode the boundaries mean nothing.
    under_way: VecDeque<Vec<u8>>,
    sent: u32,
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let stream = script.flag();
        let numbers = [Sn(script.start()), Sn(script.start())];
        let end = |at: usize, script: &mut Script<'_>| End {
            kcp: Kcp::resume(CONV, numbers[at], numbers[1 - at]),
            config: settings(script, stream),
            store: Store::new(STORE_BYTES),
            under_way: VecDeque::new(),
            sent: 0,
        };
        Self {
            ends: [end(0, script), end(1, script)],
            wires: Default::default(),
            now: Millis(script.start()),
            honest: true,
            buf: vec![0; 128 * 1_400],
        }
    }

    fn operate(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let at = usize::from(choice >> 7);
        match choice & 0x7f {
            0..8 => self.now = self.now.add(script.below(250)),
            8 => self.now = self.now.add(u32::from(script.u16()) * 10),
            9..32 => self.send(at, script),
            32..40 => self.receive(at, script.byte()),
            40..56 => self.flush(at),
            56..72 => self.timeout(at),
            72..100 => self.deliver(at, script.flag()),
            100..104 => drop(self.wires[at].pop_front()),
            104..108 => {
                let copy = self.wires[at].front().cloned();
                self.put(at, copy);
            }
            108..112 => {
                if let Some(overtaken) = self.wires[at].pop_front() {
                    self.wires[at].push_back(overtaken);
                }
            }
            112..116 => self.corrupt(at, script),
            116..120 => {
                let len = usize::from(script.byte());
                let mut forged = CONV.0.to_le_bytes().to_vec();
                forged.extend(script.bytes(len));
                self.honest = false;
                self.put(at, Some(forged));
            }
            120..124 => {
                let mtu = 50 + script.below(1_351);
                let config = &mut self.ends[at].config;
                // Smaller than what is queued would make an oversized datagram, as in the reference.
                config.mtu = config.mtu.max(mtu);
            }
            _ => {
                let stream = self.ends[at].config.stream;
                let mtu = self.ends[at].config.mtu;
                self.ends[at].config = KcpConfig { mtu, ..settings(script, stream) };
            }
        }
        for end in &mut self.ends {
            end.check(self.now);
        }
    }

    fn send(&mut self, at: usize, script: &mut Script<'_>) {
        let end = &mut self.ends[at];
        if end.kcp.wait_snd() > 300 {
            return;
        }
        let len = if script.flag() { script.below(3_000) } else { script.below(40) };
        let fill = end.sent.to_le_bytes();
        let message: Vec<u8> = fill.into_iter().cycle().take(len as usize).collect();
        let mut cx = Cx { config: &end.config, store: &mut end.store };
        if let Ok(taken) = end.kcp.send(&mut cx, &message) {
            assert!(taken == message.len() || end.config.stream);
            end.under_way.push_back(message[..taken].to_vec());
            end.sent += 1;
        }
    }

    fn receive(&mut self, at: usize, most: u8) {
        let (end, other) = both(&mut self.ends, at);
        let mut cx = Cx { config: &end.config, store: &mut end.store };
        for _ in 0..most {
            let peeked = end.kcp.peek_size();
            let Ok(len) = end.kcp.recv(&mut cx, &mut self.buf) else { break };
            assert_eq!(peeked, Some(len));
            if self.honest {
                other.expect(&self.buf[..len], end.config.stream);
            }
        }
    }

    fn deliver(&mut self, at: usize, take: bool) {
        let Some(datagram) = self.wires[at].pop_front() else { return };
        let honest = self.honest;
        let (end, other) = both(&mut self.ends, at);
        let stream = end.config.stream;
        let mut cx = Cx { config: &end.config, store: &mut end.store };
        let taken = end.kcp.handle_datagram(&mut cx, self.now, &datagram, |message| {
            if take && honest {
                other.expect(message, stream);
            }
            take
        });
        assert!(taken.is_ok() || !honest, "{taken:?} on an honest datagram");
    }

    fn flush(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let mut cx = Cx { config: &end.config, store: &mut end.store };
        end.kcp.flush(&mut cx, self.now);
        self.transmit(at);
    }

    fn timeout(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let mut cx = Cx { config: &end.config, store: &mut end.store };
        end.kcp.handle_timeout(&mut cx, self.now);
        self.transmit(at);
    }

    fn transmit(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let mut cx = Cx { config: &end.config, store: &mut end.store };
        let mut sent = Vec::new();
        while let Some(len) = end.kcp.poll_transmit(&mut cx, self.now, &mut self.buf) {
            assert!(len <= end.config.mtu as usize, "{len} bytes exceed the mtu");
            sent.push(self.buf[..len].to_vec());
            assert!(sent.len() < 10_000, "a flush without end");
        }
        if let Some(deadline) = end.kcp.poll_timeout(&cx, self.now) {
            let due = deadline.since(self.now);
            assert!(due > 0 || end.config.flush == FlushPolicy::Interval, "due again at once");
        }
        for datagram in sent {
            self.put(1 - at, Some(datagram));
        }
    }

    /// A full wire loses what comes.
    fn put(&mut self, at: usize, datagram: Option<Vec<u8>>) {
        if self.wires[at].len() < WIRE_MAX {
            self.wires[at].extend(datagram);
        }
    }

    fn corrupt(&mut self, at: usize, script: &mut Script<'_>) {
        let (place, bits) = (usize::from(script.u16()), script.byte());
        if let Some(datagram) = self.wires[at].front_mut()
            && let Some(len) = std::num::NonZeroUsize::new(datagram.len())
        {
            datagram[place % len] ^= bits;
            self.honest &= bits == 0;
        }
    }

    /// A kind network: whatever is sent arrives, readers read, and time goes to the next deadline.
    fn come_to_rest(&mut self) {
        for _ in 0..REST_STEPS_MAX {
            for at in 0..2 {
                while !self.wires[at].is_empty() {
                    self.deliver(at, false);
                    self.receive(at, u8::MAX);
                }
                self.receive(at, u8::MAX);
                match self.ends[at].config.flush {
                    FlushPolicy::Turn => self.flush(at),
                    FlushPolicy::Interval => self.timeout(at),
                }
                self.ends[at].check(self.now);
            }
            if self.wires.iter().any(|wire| !wire.is_empty()) {
                continue;
            }
            let now = self.now;
            let deadlines = self.ends.iter_mut().filter_map(|end| end.deadline(now));
            let Some(next) = deadlines.reduce(Millis::earliest) else {
                for end in &self.ends {
                    let left: usize = end.under_way.iter().map(Vec::len).sum();
                    let whole = end.under_way.is_empty() || end.config.stream;
                    assert!(whole && left == 0, "{left} bytes never arrived");
                    assert!(end.kcp.is_idle() && end.store.bytes_used() == 0);
                }
                return;
            };
            self.now = next;
        }
        panic!("no rest: {:?}", self.ends.each_ref().map(|end| end.kcp.queue_lengths()));
    }
}

impl End {
    /// What the other end received is what this one sent next.
    fn expect(&mut self, received: &[u8], stream: bool) {
        if !stream {
            assert_eq!(self.under_way.pop_front().as_deref(), Some(received));
            return;
        }
        let mut rest = received;
        while !rest.is_empty() {
            let Some(sent) = self.under_way.front_mut() else { panic!("more than was sent") };
            let len = sent.len().min(rest.len());
            assert_eq!(sent[..len], rest[..len]);
            rest = &rest[len..];
            sent.drain(..len);
            if sent.is_empty() {
                self.under_way.pop_front();
            }
        }
    }

    fn check(&mut self, now: Millis) {
        let queues = self.kcp.queue_lengths();
        // Windows may have been larger when the segments came.
        let widest = *WINDOWS.iter().max().unwrap_or(&0) as usize;
        assert!(queues.rcv_buf <= widest && queues.rcv_queue <= widest, "{queues:?}");
        assert!(queues.snd_buf <= widest, "{queues:?}");
        let in_flight = self.kcp.snd_nxt().since(self.kcp.snd_una());
        assert!((0..=256).contains(&in_flight), "{in_flight} in flight");
        assert!(self.store.bytes_used() + self.store.bytes_recycled() <= STORE_BYTES);
        if let Some(deadline) = self.deadline(now) {
            assert!(deadline.since(now) >= 0, "a deadline in the past");
        }
        if self.kcp.is_idle() {
            assert_eq!((self.deadline(now), self.store.bytes_used()), (None, 0));
        }
    }

    fn deadline(&mut self, now: Millis) -> Option<Millis> {
        self.kcp.poll_timeout(&Cx { config: &self.config, store: &mut self.store }, now)
    }
}

fn both(ends: &mut [End; 2], at: usize) -> (&mut End, &mut End) {
    let [a, b] = ends;
    if at == 0 { (a, b) } else { (b, a) }
}

fn settings(script: &mut Script<'_>, stream: bool) -> KcpConfig {
    let mut window = || WINDOWS[script.below(5) as usize];
    let (snd_wnd, rcv_wnd) = (window(), window().max(128));
    KcpConfig {
        mtu: 50 + script.below(1_351),
        nodelay: script.below(3),
        interval: 10 + script.below(100),
        fastresend: script.below(4),
        fastlimit: script.below(6),
        nocwnd: script.flag(),
        snd_wnd,
        rcv_wnd,
        stream,
        flush: if script.flag() { FlushPolicy::Turn } else { FlushPolicy::Interval },
        strict: script.flag(),
        ..KcpConfig::default()
    }
}

const CONV: Conv = Conv(0x5EED_C0DE);
const WINDOWS: [u32; 5] = [1, 2, 32, 128, 256];
const STORE_BYTES: usize = 16 << 20;
const WIRE_MAX: usize = 256;
const REST_STEPS_MAX: u32 = 200_000;
