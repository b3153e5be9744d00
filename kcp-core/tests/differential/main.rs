//! Lockstep with the C reference (crate `kcp-io` 0.0.7, upstream's 1.7.1): two ends talk over a bad network, each
//! end is run by both implementations, and after every call return codes, emitted bytes, `check` and the whole window,
//! queue and timer state are compared.
//!
//! A failure prints the seed and the line that repeats it. `KCP_SCRIPTS` scales the number of scripts per test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and prints its seed")]

mod hostile;
mod lockstep;

use kcp_oracle as _;
use lockstep::Lockstep;
use netem::{Bursts, Link, LinkConfig, Rng};

/// What a script is made of, beyond its seed.
#[derive(Clone, Copy, Default)]
struct Flavour {
    name: &'static str,
    /// Corrupted, truncated and forged datagrams.
    hostile: bool,
    /// Receive windows of 0 to 8, readers that pause.
    tiny_windows: bool,
    /// Clock jumps of 10 to 70 s, both ways.
    jumps: bool,
    /// Strict input on our side: must make no difference on the reference's traffic.
    strict: bool,
    /// Thousands of segments.
    bulk: bool,
}

#[test]
fn honest_traffic_over_a_bad_network() {
    run(4_000, Flavour { name: "honest_traffic_over_a_bad_network", ..Flavour::default() });
}

#[test]
fn strict_input_changes_nothing_for_honest_traffic() {
    let name = "strict_input_changes_nothing_for_honest_traffic";
    run(2_000, Flavour { name, strict: true, ..Flavour::default() });
}

#[test]
fn hostile_datagrams() {
    run(4_000, Flavour { name: "hostile_datagrams", hostile: true, ..Flavour::default() });
}

#[test]
fn tiny_and_closed_windows() {
    let name = "tiny_and_closed_windows";
    run(2_000, Flavour { name, tiny_windows: true, ..Flavour::default() });
}

#[test]
fn clock_jumps() {
    run(2_000, Flavour { name: "clock_jumps", jumps: true, ..Flavour::default() });
}

#[test]
fn everything_at_once() {
    let name = "everything_at_once";
    run(
        2_000,
        Flavour { name, hostile: true, tiny_windows: true, jumps: true, ..Flavour::default() },
    );
}

#[test]
fn bulk_through_wide_windows() {
    run(40, Flavour { name: "bulk_through_wide_windows", bulk: true, ..Flavour::default() });
}

fn run(scripts: u64, flavour: Flavour) {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    if let Some(seed) = number("KCP_SEED") {
        Script::new(seed, flavour).play();
        return;
    }
    let mut met = Met::default();
    for seed in 0..scripts * number("KCP_SCRIPTS").unwrap_or(1) {
        let printer = SeedPrinter { seed, test: flavour.name };
        let script = Script::new(seed, flavour).play();
        script.ends.iter().for_each(|end| met.add(end));
        drop(printer);
    }
    met.assert_worth_comparing(scripts, flavour);
}

/// What the scripts of a test met: scripts in which nothing happens compare nothing.
#[derive(Debug, Default)]
struct Met {
    messages: u64,
    too_long: u64,
    refused: u64,
    dead: u64,
    timeouts: u64,
    fast: u64,
    probes: u64,
    duplicates: u64,
    beyond_window: u64,
}

impl Met {
    fn add(&mut self, end: &Lockstep) {
        let stats = end.stats();
        self.messages += end.received;
        self.too_long += end.too_long;
        self.refused += end.refused;
        self.dead += u64::from(end.is_dead());
        self.timeouts += stats.resends_timeout;
        self.fast += stats.resends_fast;
        self.probes += stats.probes_sent;
        self.duplicates += stats.pushes_duplicate;
        self.beyond_window += stats.pushes_beyond_window;
    }

    fn assert_worth_comparing(&self, scripts: u64, flavour: Flavour) {
        let Self { messages, too_long, refused, dead, timeouts, fast, probes, .. } = self;
        let busy = [messages, timeouts, &self.duplicates].iter().all(|count| **count > scripts);
        let some = [too_long, dead, fast].iter().all(|count| **count > 0);
        assert!(busy && (some || flavour.bulk), "{self:?}");
        assert!(!flavour.hostile || *refused > scripts, "{self:?}");
        assert!(
            !flavour.tiny_windows || *probes.min(&self.beyond_window) > scripts / 10,
            "{self:?}"
        );
        eprintln!("{}: {self:?}", flavour.name);
    }
}

/// Names the script when it fails.
struct SeedPrinter {
    seed: u64,
    test: &'static str,
}

impl Drop for SeedPrinter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, test } = self;
            eprintln!(
                "repeat with: KCP_SEED={seed} cargo test -p kcp-core --test differential {test}"
            );
        }
    }
}

/// A seeded sequence of calls on two ends.
struct Script {
    rng: Rng,
    flavour: Flavour,
    conv: u32,
    ends: [Lockstep; 2],
    /// `links[i]` leads to end `i`.
    links: [Link<Vec<u8>>; 2],
    /// Milliseconds since the start; the ends' clocks add their own base.
    elapsed: u32,
    clocks: [u32; 2],
    /// Readers and windows are left alone until this step.
    pause_until: u32,
}

impl Script {
    fn new(seed: u64, flavour: Flavour) -> Self {
        let mut rng = Rng::new(seed);
        let conv = rng.next_u32();
        let numbers = [near_a_wrap(&mut rng), near_a_wrap(&mut rng)];
        let clocks = [near_a_wrap(&mut rng), near_a_wrap(&mut rng)];
        let links = [0, 1].map(|_| Link::new(network(&mut rng), rng.next_u64()));
        let ends = [
            Lockstep::new(conv, numbers[0], numbers[1], flavour.strict),
            Lockstep::new(conv, numbers[1], numbers[0], flavour.strict),
        ];
        let mut script =
            Self { rng, flavour, conv, ends, links, elapsed: 0, clocks, pause_until: 0 };
        for end in 0..2 {
            script.configure(end);
        }
        script
    }

    fn play(mut self) -> Self {
        let steps = if self.flavour.bulk { 1_500 } else { 120 + self.below(120) };
        for step in 0..steps {
            let end = self.index(2);
            match self.below(100) {
                0..45 => self.tick(),
                45..65 => self.send(end),
                65..75 => self.read(end, step),
                75..92 => self.deliver(end),
                92..95 => self.flush(end),
                95..98 => self.tweak(end, step),
                _ => {
                    let from_now = self.below(200);
                    let now = self.now(end).wrapping_add(from_now).wrapping_sub(100);
                    self.ends[end].compare_check(now);
                }
            }
        }
        self
    }

    /// Time passes, then both ends take what has arrived and are updated, in either order.
    fn tick(&mut self) {
        let ms = match self.below(40) {
            0 if self.flavour.jumps => 10_000 + self.below(60_000),
            0..4 => 100 + self.below(3_000),
            4..12 => self.below(200),
            _ => self.below(25),
        };
        self.elapsed += ms;
        if self.flavour.jumps && self.below(60) == 0 {
            let end = self.index(2);
            self.clocks[end] = self.clocks[end].wrapping_sub(10_000 + self.below(60_000));
        }
        let first = self.index(2);
        for end in [first, 1 - first] {
            self.deliver(end);
            if self.below(8) > 0 {
                let now = self.now(end);
                self.ends[end].update(now);
                self.transmit(end);
                self.ends[end].compare_check(now);
                let later = now.wrapping_add(self.below(150));
                self.ends[end].compare_check(later);
            }
        }
    }

    fn deliver(&mut self, end: usize) {
        while let Some(mut datagram) = self.links[end].pop(u64::from(self.elapsed) * 1_000) {
            if self.flavour.hostile {
                datagram = hostile::tamper(&mut self.rng, &self.ends[end], self.conv, datagram);
            }
            self.ends[end].input(&datagram);
        }
    }

    fn transmit(&mut self, end: usize) {
        for datagram in std::mem::take(&mut self.ends[end].sent) {
            self.links[1 - end].push(u64::from(self.elapsed) * 1_000, datagram);
        }
    }

    fn send(&mut self, end: usize) {
        let backlog = if self.flavour.bulk { 6_000 } else { 200 };
        if self.ends[end].wait_snd() > backlog {
            return;
        }
        let mss = self.ends[end].mss();
        let len = match self.below(40) {
            0 => mss * 126 + self.index(mss * 3),
            1 => 0,
            2..8 => self.index(mss * 6),
            8..12 => mss,
            _ => self.index(mss),
        };
        let count = if self.flavour.bulk { 300 } else { 1 + self.below(3) };
        let fill = u8::try_from(self.below(256)).unwrap();
        let message: Vec<u8> = (0..len.min(60_000)).map(|i| fill ^ i.to_le_bytes()[0]).collect();
        for _ in 0..count {
            self.ends[end].send(&message);
        }
    }

    fn read(&mut self, end: usize, step: u32) {
        if step < self.pause_until {
            return;
        }
        match self.below(6) {
            0 => {
                let room = self.index(100);
                self.ends[end].recv(room);
            }
            1 => {
                let room = if self.below(2) == 0 { 70_000 } else { self.index(2_000) };
                self.ends[end].peek(room);
            }
            2 => {
                self.ends[end].recv(70_000);
            }
            _ => while self.ends[end].recv(70_000) {},
        }
    }

    fn flush(&mut self, end: usize) {
        self.ends[end].flush();
        self.transmit(end);
    }

    /// Changes a setting in mid-conversation.
    fn tweak(&mut self, end: usize, step: u32) {
        match self.below(4) {
            0 => self.mtu(end),
            1 => self.mode(end),
            2 => self.windows(end),
            _ => self.pause_until = step + self.below(60),
        }
    }

    fn configure(&mut self, end: usize) {
        if self.below(4) > 0 {
            self.mtu(end);
        }
        if self.below(4) > 0 {
            self.mode(end);
        }
        if self.below(4) > 0 || self.flavour.bulk {
            self.windows(end);
        }
    }

    fn mtu(&mut self, end: usize) {
        let mtu = match self.below(4) {
            0 => 50 + self.below(60),
            1 => 1_400,
            _ => 50 + self.below(1_450),
        };
        self.ends[end].set_mtu(mtu);
    }

    fn mode(&mut self, end: usize) {
        let [nodelay, interval, resend, fastlimit] = [3, 60, 4, 7].map(|n| self.below(n));
        let [nocwnd, stream] = [0, 1].map(|_| self.below(2) == 0);
        let dead_link = if self.below(4) == 0 { 1 + self.below(6) } else { 20 };
        self.ends[end].nodelay(nodelay, interval, resend, nocwnd);
        self.ends[end].poke_fastlimit(fastlimit);
        self.ends[end].poke_dead_link(dead_link);
        self.ends[end].poke_stream(stream);
    }

    fn windows(&mut self, end: usize) {
        let widest = match self.flavour {
            Flavour { bulk: true, .. } => 4_000,
            // Strict input owes at most `2 * rcv_wnd` acks: an honest peer's window and its repetitions stay below.
            Flavour { strict: true, .. } => 32,
            _ => 256,
        };
        let [snd, rcv] = [0, 1].map(|_| 1 + self.below(widest));
        self.ends[end].wndsize(snd, rcv);
        if self.flavour.tiny_windows {
            let rcv = self.below(9);
            self.ends[end].poke_rcv_wnd(rcv);
        }
    }

    fn now(&self, end: usize) -> u32 {
        self.clocks[end].wrapping_add(self.elapsed)
    }

    fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.rng.below(u64::from(n))).unwrap()
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.rng.below(n as u64)).unwrap()
    }
}

/// A start value: small, or a little below 2^31 or 2^32, or anywhere.
fn near_a_wrap(rng: &mut Rng) -> u32 {
    let back = u32::try_from(rng.below(3_000)).unwrap();
    match rng.below(4) {
        0 => back,
        1 => (1_u32 << 31).wrapping_sub(back),
        2 => 0_u32.wrapping_sub(back),
        _ => rng.next_u32(),
    }
}

fn network(rng: &mut Rng) -> LinkConfig {
    let mut ppm = |most: u64| u32::try_from(rng.below(most)).unwrap();
    let bursts =
        Bursts { enter_ppm: ppm(60_000), leave_ppm: 100_000 + ppm(400_000), loss_ppm: 900_000 };
    LinkConfig {
        loss_ppm: ppm(300_000),
        bursts: (ppm(3) == 0).then_some(bursts),
        duplicate_ppm: ppm(150_000),
        reorder_ppm: ppm(300_000),
        delay_us: u64::from(ppm(60_000)),
        jitter_us: u64::from(ppm(40_000)),
        ..LinkConfig::default()
    }
}
