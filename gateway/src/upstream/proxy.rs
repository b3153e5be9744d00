//! The PROXY protocol, version 2: what a backend hears first of a session, and the one place where the client's address is.
//!
//! Specification: <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use kcp_core::Conv;

/// The type of the field that carries the conversation: four bytes, the highest first. The first of the types that the
/// specification leaves to applications.
pub const TLV_CONV: u8 = 0xE0;

/// The longest header in bytes: fixed part, two IPv6 addresses with ports, and the conversation.
pub const HEADER_MAX: usize = FIXED + 2 * (16 + 2) + TLV_LEN;

/// One session's header, ready to be sent.
///
/// The transport that it names is STREAM, although the client speaks UDP: HAProxy and nginx ignore the addresses of a
/// header that says DGRAM when it arrives on a TCP connection, and to the backend the session is a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl Header {
    /// The header of `client`'s session `conv`, which came in at `listener`. When only one of the two addresses is IPv4, it
    /// is written as the IPv6 address that stands for it: a header has one family.
    #[must_use]
    pub fn new(client: SocketAddr, listener: SocketAddr, conv: Conv) -> Self {
        let mut header = Self { bytes: [0; HEADER_MAX], len: 0 };
        header.append(&SIGNATURE);
        header.append(&[VERSION_2_PROXY]);
        if let (IpAddr::V4(from), IpAddr::V4(to)) = (client.ip(), listener.ip()) {
            header.append(&[STREAM_V4]);
            header.append(&lengths::V4.to_be_bytes());
            header.append(&from.octets());
            header.append(&to.octets());
        } else {
            header.append(&[STREAM_V6]);
            header.append(&lengths::V6.to_be_bytes());
            header.append(&v6(client.ip()).octets());
            header.append(&v6(listener.ip()).octets());
        }
        header.append(&client.port().to_be_bytes());
        header.append(&listener.port().to_be_bytes());
        header.append(&[TLV_CONV]);
        header.append(&4u16.to_be_bytes());
        header.append(&conv.0.to_be_bytes());
        header
    }

    /// The bytes to send before anything else.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn append(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Twelve bytes that no line of text begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const STREAM_V4: u8 = 0x11;
const STREAM_V6: u8 = 0x21;

/// Signature, version and command, family and transport, length.
const FIXED: usize = 12 + 1 + 1 + 2;
/// Type, length, conversation.
const TLV_LEN: usize = 1 + 2 + 4;

/// What the length field says: everything after it.
mod lengths {
    pub(super) const V4: u16 = 2 * (4 + 2) + 7;
    pub(super) const V6: u16 = 2 * (16 + 2) + 7;
}

const _: () = assert!(lengths::V6 as usize + FIXED == HEADER_MAX);

#[cfg(test)]
mod tests {
    use ppp::v2;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ipv4_header_byte_by_byte() {
        let header = Header::new(
            "192.0.2.1:50000".parse().unwrap(),
            "198.51.100.7:4000".parse().unwrap(),
            Conv(0x0102_0304),
        );
        let expected = [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13".as_slice(),
            &[192, 0, 2, 1, 198, 51, 100, 7],
            &[0xC3, 0x50, 0x0F, 0xA0],
            &[0xE0, 0, 4, 1, 2, 3, 4],
        ];
        assert_eq!(header.as_slice(), expected.concat());
    }

    #[test]
    fn the_longest_header_fits() {
        let header =
            Header::new("[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap(), Conv(u32::MAX));
        assert_eq!(header.as_slice().len(), HEADER_MAX);
    }

    #[test]
    fn one_header_has_one_family() {
        let header = Header::new(
            "192.0.2.1:1".parse().unwrap(),
            "[2001:db8::1]:2".parse().unwrap(),
            Conv(7),
        );
        let read = v2::Header::try_from(header.as_slice()).unwrap();
        assert_eq!(
            read.addresses,
            v2::Addresses::from((
                "[::ffff:192.0.2.1]:1".parse::<SocketAddr>().unwrap(),
                "[2001:db8::1]:2".parse().unwrap()
            ))
        );
    }

    proptest! {
        /// The crate `ppp` reads what was meant, and its own writer writes the same bytes.
        #[test]
        fn another_implementation_agrees(
            v6 in any::<bool>(),
            from in any::<(u128, u16)>(),
            to in any::<(u128, u16)>(),
            conv in any::<u32>(),
        ) {
            let address = |(bits, port): (u128, u16)| {
                let [a, b, c, d, ..] = bits.to_be_bytes();
                let ip = if v6 { IpAddr::from(bits.to_be_bytes()) } else { IpAddr::from([a, b, c, d]) };
                SocketAddr::new(ip, port)
            };
            let (client, listener) = (address(from), address(to));
            let header = Header::new(client, listener, Conv(conv));
            let read = v2::Header::try_from(header.as_slice()).unwrap();
            prop_assert_eq!(read.len(), header.as_slice().len());
            prop_assert_eq!(read.command, v2::Command::Proxy);
            prop_assert_eq!(read.protocol, v2::Protocol::Stream);
            prop_assert_eq!(&read.addresses, &v2::Addresses::from((client, listener)));
            let fields: Vec<_> = read.tlvs().map(Result::unwrap).collect();
            prop_assert_eq!(fields.len(), 1);
            prop_assert_eq!(fields[0].kind, TLV_CONV);
            prop_assert_eq!(&fields[0].value[..], &conv.to_be_bytes());

            let built = v2::Builder::with_addresses(
                v2::Version::Two | v2::Command::Proxy,
                v2::Protocol::Stream,
                (client, listener),
            )
            .write_tlv(TLV_CONV, &conv.to_be_bytes())
            .unwrap()
            .build()
            .unwrap();
            prop_assert_eq!(header.as_slice(), built);
        }
    }
}
