//! A store that is short: who is told of how much room.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kcp_core::wire::{Command, HEADER_LEN, Header, Segments};
use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Sn, Store};

const NOW: Millis = Millis(100_000);
const WINDOW: u16 = 256;
const STORE: usize = 1 << 20;

/// Conversations on one store.
struct Shard {
    config: KcpConfig,
    store: Store,
    /// Holds what makes the store short.
    hog: Kcp,
}

impl Shard {
    fn new() -> Self {
        let config = KcpConfig { rcv_wnd: WINDOW.into(), ..KcpConfig::game() };
        Self { config, store: Store::new(STORE), hog: Kcp::new(Conv(99)) }
    }

    /// With at least so many bytes in use.
    fn with(used: usize) -> Self {
        let mut shard = Self::new();
        while shard.store.bytes_used() < used {
            let Self { config, store, hog } = &mut shard;
            hog.send(&mut Cx { config, store }, &[0; 1_000]).unwrap();
        }
        shard
    }

    fn cx(&mut self) -> Cx<'_> {
        Cx { config: &self.config, store: &mut self.store }
    }

    /// A PUSH arrives, of a message of which `frg` fragments follow; the windows told in answer.
    fn push(&mut self, kcp: &mut Kcp, sn: u32, frg: u8) -> Vec<u16> {
        self.push_to(kcp, sn, frg, |_| false)
    }

    fn push_to(
        &mut self,
        kcp: &mut Kcp,
        sn: u32,
        frg: u8,
        deliver: impl FnMut(&[u8]) -> bool,
    ) -> Vec<u16> {
        let (conv, cmd, wnd, len) = (kcp.conv(), Command::Push, WINDOW, 1_000);
        let header = Header { conv, cmd, frg, wnd, ts: NOW, sn: Sn(sn), una: Sn(0), len };
        let mut datagram = [7; HEADER_LEN + 1_000];
        header.encode(datagram.first_chunk_mut().unwrap());
        kcp.handle_datagram(&mut self.cx(), NOW, &datagram, deliver).unwrap();
        self.flush(kcp).into_iter().map(|header| header.wnd).collect()
    }

    fn read(&mut self, kcp: &mut Kcp) -> Vec<Header> {
        kcp.recv(&mut self.cx(), &mut [0; 200_000]).unwrap();
        self.flush(kcp)
    }

    fn flush(&mut self, kcp: &mut Kcp) -> Vec<Header> {
        let mut buf = [0; 1_400];
        let mut told = Vec::new();
        kcp.flush(&mut self.cx(), NOW);
        while let Some(len) = kcp.poll_transmit(&mut self.cx(), NOW, &mut buf) {
            told.extend(Segments::new(&buf[..len]).map(|segment| segment.unwrap().0));
        }
        told
    }
}

#[test]
fn who_is_read_at_once_has_the_whole_window() {
    let mut shard = Shard::with(STORE / 8 * 6);
    let mut kcp = Kcp::new(Conv(1));
    for sn in 0..20 {
        assert_eq!(shard.push_to(&mut kcp, sn, 0, |_| true), [WINDOW]);
    }
    assert_eq!(shard.store.stats().windows_withheld, 0);
}

#[test]
fn in_a_store_that_is_not_short_a_window_is_what_is_free() {
    let mut shard = Shard::new();
    let mut kcp = Kcp::new(Conv(1));
    for sn in 0..WINDOW {
        assert_eq!(shard.push(&mut kcp, sn.into(), 0), [WINDOW - 1 - sn]);
    }
    assert_eq!(shard.store.stats().windows_withheld, 0, "the window is full");
}

#[test]
fn who_waits_gets_a_share_and_is_told_of_room_when_he_is_read() {
    let mut shard = Shard::with(STORE / 2 + 1);
    let mut kcp = Kcp::new(Conv(1));
    let mut last = WINDOW;
    let mut sn = 0;
    // The hog and he: each may have half of what is left up to five eighths.
    while last > 0 {
        let [told] = shard.push(&mut kcp, sn, 0)[..] else { panic!("one acknowledgement") };
        let free = STORE / 8 * 5 - shard.store.bytes_used();
        assert_eq!(usize::from(told), free / 2 / 1400);
        assert!(told <= last, "{told} after {last}");
        (last, sn) = (told, sn + 1);
    }
    assert_eq!(shard.store.stats().windows_withheld, 1);
    assert_eq!(shard.push(&mut kcp, sn, 0), [0], "what was under way is taken");
    assert_eq!(shard.store.stats().windows_withheld, 1, "told once");
    // He is told when there is as much room as what still waits.
    let (mut left, mut words) = (sn + 1, Vec::new());
    while words.is_empty() {
        words = shard.read(&mut kcp);
        left -= 1;
    }
    let [word] = words[..] else { panic!("{words:?}") };
    assert_eq!(word.cmd, Command::Wins);
    assert!(u32::from(word.wnd) >= left.max(1) && word.wnd < WINDOW / 2, "{word:?} with {left}");
    // From then on by what is left, although he is read at once, until that is more than his window.
    for _ in 0..left {
        shard.read(&mut kcp);
    }
    shard.store.trim(0);
    let [told] = shard.push(&mut kcp, sn + 1, 0)[..] else { panic!("one acknowledgement") };
    assert!(told > 0 && told < WINDOW / 2, "{told}");
    shard.read(&mut kcp);
    let Shard { hog, store, .. } = &mut shard;
    hog.reset(store);
    assert_eq!(shard.push(&mut kcp, sn + 2, 0), [WINDOW - 1]);
}

#[test]
fn the_rest_of_a_message_has_its_room() {
    let mut shard = Shard::with(STORE / 8 * 5);
    let mut kcp = Kcp::new(Conv(1));
    assert_eq!(shard.push(&mut kcp, 0, 0), [0], "nothing is left");
    let [word] = shard.read(&mut kcp)[..] else { panic!("a word") };
    assert_eq!((word.cmd, word.wnd), (Command::Wins, 2), "a few, to begin with");
    for frg in (0..40).rev() {
        let told = shard.push(&mut kcp, 40 - u32::from(frg), frg);
        let lacking = if frg == 0 { 0 } else { frg.max(2) };
        assert_eq!(told, [lacking.into()], "and what the message lacks");
    }
    let [word] = shard.read(&mut kcp)[..] else { panic!("a word") };
    assert_eq!((word.cmd, word.wnd), (Command::Wins, 2));
}

#[test]
fn a_message_that_came_in_part_is_asked_for_when_what_stood_before_it_is_read() {
    let mut shard = Shard::with(STORE / 8 * 5);
    let mut kcp = Kcp::new(Conv(1));
    assert_eq!(shard.push(&mut kcp, 0, 0), [0]);
    // Most of a second message was under way.
    for frg in (10..40).rev() {
        assert_eq!(shard.push(&mut kcp, 40 - u32::from(frg), frg), [0]);
    }
    let [word] = shard.read(&mut kcp)[..] else { panic!("a word") };
    assert_eq!((word.cmd, word.wnd), (Command::Wins, 10), "its rest");
}

#[test]
fn a_window_grows_again_when_there_is_plenty_however_many_share_it() {
    let mut shard = Shard::with(STORE / 8 * 5);
    let mut kcp = Kcp::new(Conv(1));
    assert_eq!(shard.push(&mut kcp, 0, 0), [0]);
    shard.read(&mut kcp);
    let Shard { config, hog, store } = &mut shard;
    hog.reset(store);
    let mut others: Vec<Kcp> = (0..400).map(|n| Kcp::new(Conv(100 + n))).collect();
    for other in &mut others {
        other.send(&mut Cx { config, store }, b"under way").unwrap();
    }
    let mut told = Vec::new();
    for sn in 1..10 {
        told.extend(shard.push_to(&mut kcp, sn, 0, |_| true));
    }
    assert_eq!(told, [2, 4, 8, 16, 32, 64, 128, 256, 256]);
}
