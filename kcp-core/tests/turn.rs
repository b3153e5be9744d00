//! Policy `Turn`: when a conversation wants to be woken, and that a caller who follows it neither spins nor sleeps on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kcp_core::wire::{Command, HEADER_LEN, Header, Segments};
use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Sn, Store};
use netem::{Link, LinkConfig, Rng};

struct End {
    kcp: Kcp,
    config: KcpConfig,
    store: Store,
    now: Millis,
}

impl End {
    fn new(config: KcpConfig, now: Millis) -> Self {
        Self { kcp: Kcp::new(Conv(7)), config, store: Store::new(1 << 22), now }
    }

    fn cx<R>(&mut self, call: impl FnOnce(&mut Kcp, &mut Cx<'_>) -> R) -> R {
        call(&mut self.kcp, &mut Cx { config: &self.config, store: &mut self.store })
    }

    fn send(&mut self, message: &[u8]) {
        self.cx(|kcp, cx| kcp.send(cx, message).unwrap());
    }

    fn input(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let now = self.now;
        let mut messages = Vec::new();
        self.cx(|kcp, cx| {
            let taken = kcp.handle_datagram(cx, now, datagram, |message| {
                messages.push(message.to_vec());
                true
            });
            taken.unwrap();
            let mut buf = [0; 4_096];
            while let Ok(len) = kcp.recv(cx, &mut buf) {
                messages.push(buf[..len].to_vec());
            }
        });
        messages
    }

    fn control(&mut self, cmd: Command, sn: u32, una: u32, wnd: u16) {
        let (conv, ts) = (Conv(7), self.now);
        let header = Header { conv, cmd, frg: 0, wnd, ts, sn: Sn(sn), una: Sn(una), len: 0 };
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        self.input(&bytes);
    }

    fn flush(&mut self) -> Vec<Vec<u8>> {
        let now = self.now;
        let mut buf = [0; 1_400];
        let sent = self.cx(|kcp, cx| {
            kcp.flush(cx, now);
            std::iter::from_fn(|| {
                kcp.poll_transmit(cx, now, &mut buf).map(|len| buf[..len].to_vec())
            })
            .collect()
        });
        let deadline = self.deadline();
        assert!(
            deadline.is_none_or(|at| at.since(now) > 0),
            "{deadline:?} is not after {now:?}: this would spin"
        );
        sent
    }

    fn deadline(&mut self) -> Option<Millis> {
        let now = self.now;
        self.cx(|kcp, cx| kcp.poll_timeout(cx, now))
    }

    /// Goes to the next deadline and flushes; how long that took in ms, and the commands sent.
    fn wake(&mut self) -> (i32, Vec<Command>) {
        let at = self.deadline().unwrap();
        let waited = at.since(self.now);
        self.now = at;
        let sent = self.flush();
        let headers = sent.iter().flat_map(|datagram| Segments::new(datagram));
        (waited, headers.map(|segment| segment.unwrap().0.cmd).collect())
    }
}

/// Near the wrap of the clock.
const START: Millis = Millis(u32::MAX - 40);

#[test]
fn an_idle_conversation_has_no_deadline_and_no_storage() {
    let mut end = End::new(KcpConfig::game(), START);
    assert_eq!(end.deadline(), None);
    end.send(b"hello");
    assert_eq!(end.deadline(), Some(START), "a flush is owed");
    assert_eq!(end.flush().len(), 1);
    end.control(Command::Ack, 0, 1, 256);
    assert_eq!(end.deadline(), None);
    assert!(end.kcp.is_idle());
    assert_eq!(end.store.bytes_used(), 0);
}

#[test]
fn what_is_owed_is_due_at_once() {
    let mut end = End::new(KcpConfig::game(), START);
    end.control(Command::Wask, 0, 0, 256);
    assert_eq!(end.deadline(), Some(START));
    assert_eq!(end.flush().len(), 1);
    assert_eq!(end.deadline(), None);
}

#[test]
fn a_caller_that_is_behind_sends_news_and_nothing_again() {
    let mut end = End::new(KcpConfig::game(), START);
    end.send(b"one");
    end.flush();
    let due = end.deadline().unwrap();
    let (heard, late) = (due.add(u32::MAX), due.add(50));
    end.now = late;
    end.control(Command::Wask, 0, 0, 256);
    end.send(b"two");
    let mut buf = [0; 1_400];
    let mut transmit = |end: &mut End, heard| {
        let len = end.cx(|kcp, cx| {
            kcp.flush(cx, late);
            let len = kcp.poll_transmit_heard(cx, late, heard, &mut buf);
            assert_eq!(kcp.poll_transmit_heard(cx, late, heard, &mut buf[..0]), None);
            len.unwrap_or(0)
        });
        let segments = Segments::new(&buf[..len]).map(|segment| segment.unwrap().0);
        segments.map(|header| (header.cmd, header.sn)).collect::<Vec<_>>()
    };
    let news = [(Command::Wins, Sn(0)), (Command::Push, Sn(1))];
    assert_eq!(transmit(&mut end, heard), news);
    assert_eq!(end.deadline(), Some(late), "the timeout is still to be looked at");
    assert_eq!(transmit(&mut end, due), [(Command::Push, Sn(0))], "heard until then: it was lost");
    end.control(Command::Ack, 0, 2, 256);
    assert!(end.kcp.is_idle());
}

#[test]
fn in_flight_data_wakes_at_its_timeout_which_backs_off() {
    let mut end = End::new(KcpConfig::game(), START);
    end.send(b"hello");
    end.flush();
    let waits: Vec<_> = (0..5).map(|_| end.wake()).collect();
    let backed_off = [200, 300, 450, 675, 1_012].map(|ms| (ms, vec![Command::Push]));
    assert_eq!(waits, backed_off);
}

#[test]
fn data_behind_a_closed_window_wakes_for_its_probes_only() {
    let mut end = End::new(KcpConfig::game(), START);
    end.control(Command::Wins, 0, 0, 0);
    assert_eq!(end.deadline(), None, "nothing to send, nothing to ask");
    end.send(b"hello");
    assert_eq!(end.flush().len(), 0);
    let waits: Vec<_> = (0..4).map(|_| end.wake()).collect();
    assert_eq!(waits, [5_000, 7_500, 11_250, 16_875].map(|ms| (ms, vec![Command::Wask])));
    end.control(Command::Wins, 0, 0, 10);
    assert_eq!(end.flush().len(), 1, "the window opened");
}

#[test]
fn a_congestion_window_of_zero_costs_one_interval() {
    let mut end = End::new(KcpConfig { nocwnd: false, ..KcpConfig::game() }, START);
    end.send(b"hello");
    assert_eq!(end.flush().len(), 0, "the first flush only opens the window");
    assert_eq!(end.wake(), (10, vec![Command::Push]));
}

#[test]
fn data_behind_a_full_window_waits_for_acks_or_timeouts() {
    let mut end = End::new(KcpConfig { snd_wnd: 1, ..KcpConfig::game() }, START);
    end.send(b"one");
    end.send(b"two");
    end.flush();
    assert_eq!(end.deadline(), Some(START.add(200)));
    end.control(Command::Ack, 0, 1, 256);
    assert_eq!(end.deadline(), Some(START.add(10)), "for a caller who forgot the flush");
    assert_eq!(end.flush().len(), 1);
}

#[test]
fn a_flush_survives_being_interrupted_by_input() {
    let mut end = End::new(KcpConfig { mtu: 100, ..KcpConfig::game() }, START);
    (0..10).for_each(|_| end.send(&[1; 60]));
    let now = end.now;
    let mut buf = [0; 100];
    end.cx(|kcp, cx| kcp.flush(cx, now));
    for _ in 0..4 {
        assert_eq!(end.cx(|kcp, cx| kcp.poll_transmit(cx, now, &mut buf)), Some(84));
    }
    end.control(Command::Ack, 3, 2, 256);
    let rest =
        end.cx(|kcp, cx| std::iter::from_fn(|| kcp.poll_transmit(cx, now, &mut buf)).count());
    assert_eq!(rest, 6);
    assert_eq!(
        end.kcp.in_flight().map(|segment| segment.sn.0).collect::<Vec<_>>(),
        [2, 4, 5, 6, 7, 8, 9]
    );
    assert!(end.kcp.in_flight().all(|segment| segment.xmit == 1));
}

#[test]
fn a_buffer_that_is_too_small_ends_the_flush_and_loses_nothing() {
    let mut end = End::new(KcpConfig::game(), START);
    end.send(&[1; 20]);
    end.send(&[2; 200]);
    let now = end.now;
    let mut small = [0; 100];
    end.cx(|kcp, cx| kcp.flush(cx, now));
    assert_eq!(end.cx(|kcp, cx| kcp.poll_transmit(cx, now, &mut small)), Some(44));
    assert_eq!(end.cx(|kcp, cx| kcp.poll_transmit(cx, now, &mut small)), None);
    assert_eq!(end.deadline(), Some(now.add(10)));
    end.now = now.add(10);
    assert_eq!(end.flush().iter().map(Vec::len).collect::<Vec<_>>(), [224]);
}

#[test]
fn a_larger_segment_than_the_mtu_goes_out_alone() {
    let mut end = End::new(KcpConfig::game(), START);
    end.send(&[1; 20]);
    end.send(&[2; 200]);
    end.send(&[3; 20]);
    end.config.mtu = 100;
    assert_eq!(end.kcp.transmit_len(&end.config), 224);
    assert_eq!(end.flush().iter().map(Vec::len).collect::<Vec<_>>(), [44, 224, 44]);
}

/// Two ends that are woken only by datagrams and their own deadlines.
#[test]
fn deadlines_alone_carry_a_conversation_over_a_bad_network() {
    for seed in 0..200 {
        eprintln!("seed {seed}");
        let mut rng = Rng::new(seed);
        let network = LinkConfig {
            loss_ppm: 200_000,
            delay_us: 20_000,
            jitter_us: 10_000,
            reorder_ppm: 100_000,
            reorder_us: 30_000,
            duplicate_ppm: 50_000,
            ..LinkConfig::default()
        };
        let config = KcpConfig {
            nocwnd: rng.below(2) == 0,
            nodelay: rng.next_u32() % 3,
            ..KcpConfig::game()
        };
        let mut ends = [End::new(config.clone(), START), End::new(config, START)];
        let mut links = [0, 1].map(|_| Link::new(network.clone(), rng.next_u64()));
        let mut received = Vec::new();
        let mut wakes = 0;
        for i in 0..50_u8 {
            ends[0].send(&vec![i; 1 + i as usize * 60]);
        }
        transmit(&mut ends, &mut links, 0);
        while ends.iter().any(|end| !end.kcp.is_idle()) {
            wakes += 1;
            assert!(wakes < 5_000, "spinning, or not getting on");
            let elapsed = u64::from(ends[0].now.0.wrapping_sub(START.0)) * 1_000;
            let waits = ends.iter_mut().flat_map(|end| end.deadline().map(|at| at.since(end.now)));
            let arrivals = links.iter().flat_map(Link::next_time);
            let arrivals = arrivals
                .map(|at| i32::try_from(at.saturating_sub(elapsed).div_ceil(1_000)).unwrap());
            let wait = waits.chain(arrivals).min().unwrap().cast_unsigned();
            for end in &mut ends {
                end.now = end.now.add(wait);
            }
            for to in 0..2 {
                while let Some(datagram) = links[to].pop(elapsed + u64::from(wait) * 1_000) {
                    received.extend(ends[to].input(&datagram));
                }
            }
            transmit(&mut ends, &mut links, elapsed + u64::from(wait) * 1_000);
        }
        let expected: Vec<_> = (0..50_u8).map(|i| vec![i; 1 + i as usize * 60]).collect();
        assert_eq!(received, expected, "seed {seed}");
    }
}

fn transmit(ends: &mut [End; 2], links: &mut [Link<Vec<u8>>; 2], at_us: u64) {
    for (from, end) in ends.iter_mut().enumerate() {
        for datagram in end.flush() {
            links[1 - from].push(at_us, datagram);
        }
    }
}
