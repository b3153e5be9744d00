//! A backend: the accepting side of yamux, written plainly from the specification, which trusts nobody.

use std::collections::{BTreeMap, VecDeque};

use super::super::frame::{Flags, HEADER, Header, Kind};

/// One connection as the backend sees it. Panics when the gateway breaks the protocol.
#[derive(Default)]
pub(super) struct Peer {
    input: Vec<u8>,
    /// Bytes for the gateway.
    pub(super) output: Vec<u8>,
    pub(super) streams: BTreeMap<u32, PeerStream>,
    last_id: u32,
}

/// One stream as the backend sees it.
#[derive(Default)]
pub(super) struct PeerStream {
    /// What came and was not taken.
    pub(super) input: VecDeque<u8>,
    /// Bytes we may still receive, and those taken that the gateway was not told of.
    recv_window: u32,
    taken: u32,
    /// Bytes we may still send.
    pub(super) send_window: u32,
    acked: bool,
    pub(super) fin_in: bool,
    pub(super) fin_out: bool,
    pub(super) reset_in: bool,
    pub(super) reset_out: bool,
}

impl PeerStream {
    fn is_over(&self) -> bool {
        self.reset_in || self.reset_out || (self.fin_in && self.fin_out && self.input.is_empty())
    }
}

const WINDOW: u32 = 256 * 1024;

impl Peer {
    pub(super) fn on_read(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(header) = self.input.first_chunk::<HEADER>() {
            let header = Header::decode(*header).unwrap();
            let body = if header.kind == Kind::Data { header.length as usize } else { 0 };
            if self.input.len() < HEADER + body {
                return;
            }
            let frame: Vec<u8> = self.input.drain(..HEADER + body).collect();
            self.frame(header, &frame[HEADER..]);
        }
    }

    fn frame(&mut self, header: Header, body: &[u8]) {
        match header.kind {
            Kind::Data | Kind::WindowUpdate => self.stream_frame(header, body),
            Kind::Ping if header.flags.has(Flags::SYN) => {
                self.send(Header { flags: Flags::ACK, ..header }, b"");
            }
            Kind::Ping => {}
            Kind::GoAway => panic!("the gateway goes away with code {}", header.length),
        }
    }

    fn stream_frame(&mut self, header: Header, body: &[u8]) {
        if header.flags.has(Flags::SYN) {
            assert!(header.stream % 2 == 1 && header.stream > self.last_id, "ids are odd and grow");
            self.last_id = header.stream;
            let fresh =
                PeerStream { recv_window: WINDOW, send_window: WINDOW, ..Default::default() };
            self.streams.insert(header.stream, fresh);
        }
        let stream = self.streams.get_mut(&header.stream).expect("streams begin with a SYN");
        assert!(!stream.reset_in, "nothing comes after an RST");
        let carries = header.length > 0 || header.flags.has(Flags::FIN);
        assert!(
            !stream.fin_in || !carries || header.kind == Kind::WindowUpdate,
            "no data after a FIN, and one FIN"
        );
        match header.kind {
            Kind::Data => {
                let rest = stream.recv_window.checked_sub(header.length);
                stream.recv_window = rest.expect("never more than the window");
                stream.input.extend(body);
            }
            Kind::WindowUpdate => stream.send_window += header.length,
            Kind::Ping | Kind::GoAway => unreachable!(),
        }
        stream.fin_in |= header.flags.has(Flags::FIN);
        stream.reset_in |= header.flags.has(Flags::RST);
    }

    /// Takes up to `n` bytes of a stream, and gives the window back by halves as the libraries do.
    pub(super) fn take(&mut self, id: u32, n: usize) -> Vec<u8> {
        let stream = self.streams.get_mut(&id).unwrap();
        let bytes: Vec<u8> = stream.input.drain(..n.min(stream.input.len())).collect();
        stream.taken += u32::try_from(bytes.len()).unwrap();
        if stream.taken >= WINDOW / 2 && !stream.is_over() {
            let window = std::mem::take(&mut stream.taken);
            stream.recv_window += window;
            self.stream_send(Kind::WindowUpdate, Flags::NONE, id, window, b"");
        }
        bytes
    }

    /// Sends as much of `bytes` as the window allows; tells how much.
    pub(super) fn write(&mut self, id: u32, bytes: &[u8]) -> usize {
        let stream = self.streams.get_mut(&id).unwrap();
        if stream.fin_out || stream.is_over() {
            return 0;
        }
        let n = bytes.len().min(stream.send_window as usize);
        let length = u32::try_from(n).unwrap();
        stream.send_window -= length;
        if n > 0 {
            self.stream_send(Kind::Data, Flags::NONE, id, length, &bytes[..n]);
        }
        n
    }

    pub(super) fn fin(&mut self, id: u32) {
        let stream = self.streams.get_mut(&id).unwrap();
        if !stream.fin_out && !stream.is_over() {
            stream.fin_out = true;
            self.stream_send(Kind::WindowUpdate, Flags::FIN, id, 0, b"");
        }
    }

    pub(super) fn reset(&mut self, id: u32) {
        let stream = self.streams.get_mut(&id).unwrap();
        if !stream.is_over() {
            stream.reset_out = true;
            self.stream_send(Kind::WindowUpdate, Flags::RST, id, 0, b"");
        }
    }

    fn stream_send(&mut self, kind: Kind, flags: Flags, stream: u32, length: u32, body: &[u8]) {
        let ack = !std::mem::replace(&mut self.streams.get_mut(&stream).unwrap().acked, true);
        let flags = Flags(flags.0 | if ack { Flags::ACK.0 } else { 0 });
        self.send(Header { kind, flags, stream, length }, body);
    }

    fn send(&mut self, header: Header, body: &[u8]) {
        self.output.extend_from_slice(&header.encode());
        self.output.extend_from_slice(body);
    }
}
