//! The PROXY header that a session begins with, read by crate `ppp` and then checked for what a gateway must say.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use ppp::v2::{self, Addresses, Command, ParseError, Protocol};

/// Who is on the other side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) addr: SocketAddr,
    pub(super) conv: u32,
}

/// What is wrong with a session's PROXY header.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("a session must begin with a PROXY header of version 2, not with {first:02x?}")]
    Missing { first: Vec<u8> },
    #[error("a PROXY header of {len} bytes, {LEN_MAX} are plenty")]
    TooLong { len: usize },
    #[error("a PROXY header that cannot be read: {0}")]
    Unreadable(#[from] ParseError),
    #[error("a PROXY header of command LOCAL names no client")]
    Local,
    #[error("a PROXY header must say STREAM, not {0:?}")]
    NotStream(Protocol),
    #[error("a PROXY header must name IPv4 or IPv6 addresses")]
    NoAddress,
    #[error("a PROXY header must have one field of type 0xE0 with a conv of 4 bytes")]
    NoConv,
}

/// Takes the header off the front of `inbox`; `None` while it is not all there.
pub(super) fn take(inbox: &mut BytesMut) -> Result<Option<Client>, ProxyError> {
    let known = inbox.len().min(v2::PROTOCOL_PREFIX.len());
    if inbox[..known] != v2::PROTOCOL_PREFIX[..known] {
        return Err(ProxyError::Missing { first: inbox[..known].to_vec() });
    }
    let Some(&[high, low]) = inbox.get(LENGTH_AT..FIXED_LEN).and_then(<[u8]>::as_array) else {
        return Ok(None);
    };
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > LEN_MAX {
        return Err(ProxyError::TooLong { len });
    }
    let Some(bytes) = inbox.get(..len) else { return Ok(None) };
    let client = client(&v2::Header::try_from(bytes)?)?;
    inbox.advance(len);
    Ok(Some(client))
}

fn client(header: &v2::Header<'_>) -> Result<Client, ProxyError> {
    if header.command == Command::Local {
        return Err(ProxyError::Local);
    }
    if header.protocol != Protocol::Stream {
        return Err(ProxyError::NotStream(header.protocol));
    }
    let addr = match header.addresses {
        Addresses::IPv4(it) => SocketAddr::from((it.source_address, it.source_port)),
        Addresses::IPv6(it) => SocketAddr::from((it.source_address, it.source_port)),
        Addresses::Unix(_) | Addresses::Unspecified => return Err(ProxyError::NoAddress),
    };
    let mut conv = None;
    for field in header.tlvs() {
        let field = field?;
        if field.kind == TLV_CONV {
            let value = field.value.as_ref().try_into().map(u32::from_be_bytes);
            let first = conv.replace(value.map_err(|_| ProxyError::NoConv)?);
            if first.is_some() {
                return Err(ProxyError::NoConv);
            }
        }
    }
    Ok(Client { addr, conv: conv.ok_or(ProxyError::NoConv)? })
}

/// The type that gateways carry the conv in.
const TLV_CONV: u8 = 0xE0;
/// Far more than two addresses and a few fields.
const LEN_MAX: usize = 1024;
/// Signature, version and command, family and transport, length.
const FIXED_LEN: usize = 16;
/// Where the length stands.
const LENGTH_AT: usize = 14;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const CLIENT: &str = "192.0.2.1:50000";

    /// As the specification has it: 192.0.2.1:50000 to 198.51.100.7:4000, conv 0x01020304.
    fn good() -> Vec<u8> {
        let parts = [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13".as_slice(),
            &[192, 0, 2, 1, 198, 51, 100, 7],
            &[0xC3, 0x50, 0x0F, 0xA0],
            &[0xE0, 0, 4, 1, 2, 3, 4],
        ];
        parts.concat()
    }

    fn verdict(bytes: &[u8]) -> Result<Option<Client>, ProxyError> {
        take(&mut BytesMut::from(bytes))
    }

    #[test]
    fn a_gateways_header_is_taken_and_what_follows_stays() {
        let client = Client { addr: CLIENT.parse().unwrap(), conv: 0x0102_0304 };
        let mut inbox = BytesMut::from(&[&good()[..], b"rest"].concat()[..]);
        assert_eq!(take(&mut inbox), Ok(Some(client)));
        assert_eq!(&inbox[..], b"rest");
        for len in 0..good().len() {
            assert_eq!(verdict(&good()[..len]), Ok(None), "{len} bytes");
        }
        let addrs = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets()].concat();
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x2b".as_slice();
        let v6 = [head, &addrs, &[0, 1, 0, 2], &[0xE0, 0, 4, 0, 0, 0, 9]].concat();
        let client = Client { addr: "[::1]:1".parse().unwrap(), conv: 9 };
        assert_eq!(verdict(&v6), Ok(Some(client)));
    }

    #[test]
    fn each_fault_has_its_name() {
        let with = |at: usize, value: u8| {
            let mut bytes = good();
            bytes[at] = value;
            verdict(&bytes).unwrap_err()
        };
        assert_eq!(verdict(b"hello").unwrap_err(), ProxyError::Missing { first: b"hello".into() });
        assert_eq!(with(12, 0x20), ProxyError::Local);
        assert!(matches!(with(12, 0x11), ProxyError::Unreadable(_)));
        assert_eq!(with(13, 0x12), ProxyError::NotStream(Protocol::Datagram));
        assert_eq!(with(14, 0xFF), ProxyError::TooLong { len: 16 + 0xFF13 });
        assert_eq!(with(28, 0xE1), ProxyError::NoConv);
    }
}
