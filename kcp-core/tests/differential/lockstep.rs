//! One end of a conversation, run twice: by this crate and by the C. Every call goes to both and everything visible
//! is compared afterwards.

use kcp_core::{
    Conv, Cx, FlushPolicy, InFlight, InputError, Kcp, KcpConfig, Millis, RecvError, Reference,
    SendError, Sn, Stats, Store, wire,
};

/// Both implementations of one end.
pub(crate) struct Lockstep {
    ours: Kcp,
    config: KcpConfig,
    store: Store,
    theirs: kcp_oracle::Reference,
    /// The reference's `current`: the time of the last update.
    current: Millis,
    buf: Vec<u8>,
    /// Datagrams sent by the last call.
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) received: u64,
    pub(crate) too_long: u64,
    pub(crate) refused: u64,
}

impl Lockstep {
    pub(crate) fn new(conv: u32, snd_nxt: u32, rcv_nxt: u32, strict: bool) -> Self {
        let config = KcpConfig {
            reference: Reference::V1_7_1,
            flush: FlushPolicy::Interval,
            strict,
            ..KcpConfig::default()
        };
        let mut theirs = kcp_oracle::Reference::new(conv);
        theirs.set_sequence(snd_nxt, rcv_nxt);
        Self {
            ours: Kcp::resume(Conv(conv), Sn(snd_nxt), Sn(rcv_nxt)),
            config,
            store: Store::new(usize::MAX / 2),
            theirs,
            current: Millis(0),
            buf: vec![0; 70_000],
            sent: Vec::new(),
            received: 0,
            too_long: 0,
            refused: 0,
        }
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.store.stats()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.ours.is_dead()
    }

    pub(crate) fn mss(&self) -> usize {
        self.config.mss() as usize
    }

    pub(crate) fn snd_nxt(&self) -> u32 {
        self.ours.snd_nxt().0
    }

    pub(crate) fn current(&self) -> u32 {
        self.current.0
    }

    pub(crate) fn rcv_nxt(&self) -> u32 {
        self.ours.rcv_nxt().0
    }

    pub(crate) fn wait_snd(&self) -> usize {
        self.ours.wait_snd()
    }

    pub(crate) fn update(&mut self, now: u32) {
        self.current = Millis(now);
        self.theirs.update(now);
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        self.ours.handle_timeout(&mut cx, self.current);
        self.drain();
        self.compare("update");
    }

    pub(crate) fn flush(&mut self) {
        self.theirs.flush();
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        self.ours.flush(&mut cx, self.current);
        self.drain();
        self.compare("flush");
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        let theirs = self.theirs.send(message);
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        let ours = match self.ours.send(&mut cx, message) {
            Ok(taken) => i32::try_from(taken).unwrap(),
            Err(SendError::TooLong) => -2,
            Err(SendError::StoreFull) => panic!("the store has no bound here"),
        };
        assert_eq!(ours, theirs, "send of {}", message.len());
        self.too_long += u64::from(ours == -2);
        self.compare("send");
    }

    /// Skips what overflows a signed integer in the C: round-trip samples of 2^28 ms and more (`7 * srtt + rtt`).
    pub(crate) fn input(&mut self, datagram: &[u8]) {
        let overflows = wire::Segments::new(datagram)
            .map_while(Result::ok)
            .any(|(header, _)| self.current.since(header.ts) > 200_000_000);
        if overflows {
            return;
        }
        let theirs = self.theirs.input(datagram);
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        let taken = self.ours.handle_datagram(&mut cx, self.current, datagram, |_| false);
        let ours = match taken {
            Ok(()) => 0,
            Err(InputError::TooShort | InputError::WrongConv) => -1,
            Err(InputError::BadLength) => -2,
            Err(InputError::UnknownCommand) => -3,
            Err(rule) => panic!("{rule:?} on traffic of the reference"),
        };
        assert_eq!(ours, theirs, "input of {datagram:02x?}");
        self.refused += u64::from(ours < 0);
        self.compare("input");
    }

    pub(crate) fn recv(&mut self, room: usize) -> bool {
        let mut theirs_buf = vec![0; room];
        let theirs = self.theirs.recv(&mut theirs_buf);
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        let ours = recv_code(self.ours.recv(&mut cx, &mut self.buf[..room]));
        assert_eq!(ours, theirs, "recv into {room}");
        if let Ok(len) = usize::try_from(ours) {
            assert_eq!(self.buf[..len], theirs_buf[..len], "recv");
            self.received += 1;
        }
        self.compare("recv");
        ours >= 0
    }

    pub(crate) fn peek(&mut self, room: usize) {
        let mut theirs_buf = vec![0; room.max(1)];
        let theirs = self.theirs.peek(&mut theirs_buf);
        let cx = Cx { config: &self.config, store: &mut self.store };
        let ours = recv_code(self.ours.peek(&cx, &mut self.buf[..room.max(1)]));
        assert_eq!(ours, theirs, "peek into {room}");
        if let Ok(len) = usize::try_from(ours) {
            assert_eq!(self.buf[..len], theirs_buf[..len], "peek");
        }
        self.compare("peek");
    }

    /// Skips an mtu so small that the C would write past its output buffer.
    pub(crate) fn set_mtu(&mut self, mtu: u32) {
        let longest = self.ours.transmit_len(&KcpConfig { mtu: 50, ..self.config.clone() });
        if longest > (mtu as usize + wire::HEADER_LEN) * 3 {
            return;
        }
        assert_eq!(self.theirs.set_mtu(i32::try_from(mtu).unwrap()), 0);
        self.config.mtu = mtu;
        self.compare("set_mtu");
    }

    pub(crate) fn nodelay(&mut self, nodelay: u32, interval: u32, resend: u32, nocwnd: bool) {
        let int = |value: u32| i32::try_from(value).unwrap();
        self.theirs.nodelay(int(nodelay), int(interval), int(resend), i32::from(nocwnd));
        self.config.nodelay = nodelay;
        self.config.interval = interval.clamp(10, 5_000);
        self.config.fastresend = resend;
        self.config.nocwnd = nocwnd;
        self.compare("nodelay");
    }

    pub(crate) fn wndsize(&mut self, snd: u32, rcv: u32) {
        self.theirs.wndsize(i32::try_from(snd).unwrap(), i32::try_from(rcv).unwrap());
        self.config.snd_wnd = snd;
        self.config.rcv_wnd = rcv.max(128);
        self.compare("wndsize");
    }

    pub(crate) fn poke_rcv_wnd(&mut self, rcv: u32) {
        self.theirs.set_rcv_wnd(rcv);
        self.config.rcv_wnd = rcv;
        self.compare("rcv_wnd");
    }

    pub(crate) fn poke_stream(&mut self, stream: bool) {
        self.theirs.set_stream(stream);
        self.config.stream = stream;
    }

    pub(crate) fn poke_fastlimit(&mut self, fastlimit: u32) {
        self.theirs.set_fastlimit(i32::try_from(fastlimit).unwrap());
        self.config.fastlimit = fastlimit;
    }

    pub(crate) fn poke_dead_link(&mut self, dead_link: u32) {
        self.theirs.set_dead_link(dead_link);
        self.config.dead_link = dead_link;
    }

    pub(crate) fn compare_check(&self, now: u32) {
        let theirs = self.theirs.check(now);
        let mut store = Store::new(0);
        let cx = Cx { config: &self.config, store: &mut store };
        assert_eq!(self.ours.check(&cx, Millis(now)).0, theirs, "check({now})");
    }

    /// Pulls the flush dry and compares its datagrams with those of the C.
    fn drain(&mut self) {
        self.sent.clear();
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        while let Some(len) = self.ours.poll_transmit(&mut cx, self.current, &mut self.buf) {
            self.sent.push(self.buf[..len].to_vec());
        }
        let theirs = self.theirs.output_mut();
        if !self.sent.iter().map(Vec::as_slice).eq(theirs.iter()) {
            let theirs: Vec<_> = theirs.iter().collect();
            panic!("datagrams differ\nours:   {:02x?}\ntheirs: {theirs:02x?}", self.sent);
        }
        theirs.clear();
    }

    fn compare(&self, call: &str) {
        let (ours, theirs) = (&self.ours, self.theirs.state());
        let queues = ours.queue_lengths();
        let (ts_probe, probe_wait, probe) = ours.probe();
        let updated = theirs.updated != 0;
        let pairs = [
            ("snd_una", ours.snd_una().0, theirs.snd_una),
            ("snd_nxt", ours.snd_nxt().0, theirs.snd_nxt),
            ("rcv_nxt", ours.rcv_nxt().0, theirs.rcv_nxt),
            ("rmt_wnd", ours.rmt_wnd(), theirs.rmt_wnd),
            ("cwnd", ours.cwnd(), theirs.cwnd),
            ("ssthresh", ours.ssthresh(), theirs.ssthresh),
            ("incr", ours.incr(), theirs.incr),
            ("rx_srtt", ours.srtt(), theirs.rx_srtt.cast_unsigned()),
            ("rx_rttval", ours.rttval(), theirs.rx_rttval.cast_unsigned()),
            ("rx_rto", ours.rto(), theirs.rx_rto.cast_unsigned()),
            ("ts_probe", ts_probe.0, theirs.ts_probe),
            ("probe_wait", probe_wait, theirs.probe_wait),
            ("probe", u32::from(probe), theirs.probe),
            ("xmit", ours.resends().timeout, theirs.xmit),
            ("state", if ours.is_dead() { u32::MAX } else { 0 }, theirs.state),
            (
                "ts_flush",
                if updated { ours.ts_flush().0 } else { theirs.ts_flush },
                theirs.ts_flush,
            ),
            ("nsnd_que", count(queues.snd_queue), theirs.nsnd_que),
            ("nsnd_buf", count(queues.snd_buf), theirs.nsnd_buf),
            ("nrcv_buf", count(queues.rcv_buf), theirs.nrcv_buf),
            ("nrcv_que", count(queues.rcv_queue), theirs.nrcv_que),
            ("ackcount", count(queues.acks), theirs.ackcount),
            ("waitsnd", count(ours.wait_snd()), self.theirs.wait_snd().cast_unsigned()),
        ];
        for (field, ours, theirs) in pairs {
            assert_eq!(ours, theirs, "{field} after {call}");
        }
        let peek = ours.peek_size().map_or(-1, |size| i32::try_from(size).unwrap());
        assert_eq!(peek, self.theirs.peek_size(), "peeksize after {call}");
        if !ours.in_flight().map(known).eq(self.theirs.in_flight()) {
            let ours: Vec<_> = ours.in_flight().map(known).collect();
            let theirs: Vec<_> = self.theirs.in_flight().collect();
            panic!("in flight differs after {call}\nours:   {ours:?}\ntheirs: {theirs:?}");
        }
    }
}

fn recv_code(result: Result<usize, RecvError>) -> i32 {
    match result {
        Ok(len) => i32::try_from(len).unwrap(),
        Err(RecvError::Empty) => -1,
        Err(RecvError::Incomplete) => -2,
        Err(RecvError::BufferTooSmall { .. }) => -3,
    }
}

/// Our segment in the C's terms.
fn known(segment: InFlight) -> kcp_oracle::Segment {
    kcp_oracle::Segment {
        sn: segment.sn.0,
        frg: u32::from(segment.frg),
        len: count(segment.len),
        ts: segment.ts.0,
        resendts: segment.resendts.0,
        rto: segment.rto,
        fastack: segment.fastack,
        xmit: segment.xmit,
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap()
}
