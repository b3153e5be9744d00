//! The smallest client there is: one segment at a time, written by hand.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A client with one conversation.
pub(crate) struct Client {
    socket: UdpSocket,
    conv: u32,
}

impl Client {
    pub(crate) fn new(gateway: SocketAddr, conv: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(gateway).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, conv }
    }

    /// Where it sends from, as the gateway sees it.
    pub(crate) fn address(&self) -> String {
        self.socket.local_addr().unwrap().to_string()
    }

    /// Sends a first message.
    pub(crate) fn knock(&self) {
        let message = b"hello";
        let mut datagram = Vec::new();
        datagram.extend(self.conv.to_le_bytes());
        datagram.extend([81, 0]); // PUSH, last fragment
        datagram.extend(128_u16.to_le_bytes()); // window
        datagram.extend([0; 12]); // ts, sn, una
        datagram.extend(5_u32.to_le_bytes());
        datagram.extend(message);
        self.socket.send(&datagram).unwrap();
    }

    /// Sends a first message and returns when its echo has come.
    pub(crate) fn establish(&self) {
        self.knock();
        let mut datagram = [0; 1500];
        loop {
            let len = self.socket.recv(&mut datagram).expect("an echo");
            if datagram[..len].ends_with(b"hello") {
                return;
            }
        }
    }

    /// Sends message `sn` and returns the message that ends with the same words, as it came back.
    pub(crate) fn exchange(&self, sn: u32, words: &str) -> String {
        let mut datagram = Vec::new();
        datagram.extend(self.conv.to_le_bytes());
        datagram.extend([81, 0]);
        datagram.extend(128_u16.to_le_bytes());
        datagram.extend(0_u32.to_le_bytes());
        datagram.extend(sn.to_le_bytes());
        // As many answers as there were messages: the gateway sees that they arrive.
        datagram.extend(sn.to_le_bytes());
        datagram.extend(u32::try_from(words.len()).unwrap().to_le_bytes());
        datagram.extend(words.as_bytes());
        self.socket.send(&datagram).unwrap();
        let mut datagram = [0; 1500];
        loop {
            let len = self.socket.recv(&mut datagram).expect("an answer");
            let mut rest = &datagram[..len];
            while let Some((header, after)) = rest.split_at_checked(24) {
                let len = u32::from_le_bytes(header[20..].try_into().unwrap()) as usize;
                let (payload, next) = after.split_at(len);
                let text = String::from_utf8_lossy(payload);
                if header[4] == 81 && text.ends_with(words) {
                    return text.into_owned();
                }
                rest = next;
            }
        }
    }
}
