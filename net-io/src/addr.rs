//! Socket addresses as the kernel writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the larger of `sockaddr_in` (16) and `sockaddr_in6` (28).
pub(crate) const NAME_MAX: usize = 28;
/// The same as socket calls take it.
pub(crate) const NAME_LEN_MAX: u32 = 28;
const NAME_V4_LEN: u32 = 16;

/// A `sockaddr_in` or `sockaddr_in6`, byte for byte.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Name {
    bytes: [u8; NAME_MAX],
    len: u32,
}

impl Name {
    /// No address at all: the socket's own peer is meant.
    pub(crate) const NONE: Self = Self { bytes: [0; NAME_MAX], len: 0 };

    /// How many of the bytes count.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }
}

impl From<SocketAddr> for Name {
    fn from(addr: SocketAddr) -> Self {
        let mut bytes = [0; NAME_MAX];
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => {
                bytes[0..2].copy_from_slice(&FAMILY_V4.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                Self { bytes, len: NAME_V4_LEN }
            }
            SocketAddr::V6(v6) => {
                bytes[0..2].copy_from_slice(&FAMILY_V6.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                Self { bytes, len: NAME_LEN_MAX }
            }
        }
    }
}

/// Reads an address the kernel wrote; `None` when the family is neither IPv4 nor IPv6 or bytes are missing.
pub(crate) fn decode(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(field(name, 2)?);
    match family {
        FAMILY_V4 => Some(SocketAddrV4::new(Ipv4Addr::from(field::<4>(name, 4)?), port).into()),
        FAMILY_V6 => {
            let ip = Ipv6Addr::from(field::<16>(name, 8)?);
            let scope = u32::from_ne_bytes(field(name, 24)?);
            // The flow label is the sender's business of one packet; as part of a peer's identity it would split sessions.
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

/// `N` bytes at `at`.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

const FAMILY_V4: u16 = 2;
const FAMILY_V6: u16 = 10;

const _: () = {
    assert!(FAMILY_V4 as i32 == libc::AF_INET && FAMILY_V6 as i32 == libc::AF_INET6);
    assert!(size_of::<libc::sockaddr_in>() == NAME_V4_LEN as usize);
    assert!(size_of::<libc::sockaddr_in6>() == NAME_MAX && NAME_MAX == NAME_LEN_MAX as usize);
    assert!(std::mem::offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(std::mem::offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_round_trip() {
        for text in
            ["127.0.0.1:1", "255.1.2.3:65535", "[::1]:4000", "[fe80::1%7]:9", "[2001:db8::ff]:0"]
        {
            let addr: SocketAddr = text.parse().unwrap();
            let name = Name::from(addr);
            assert_eq!(decode(&name.bytes[..name.len as usize]), Some(addr), "{text}");
        }
    }

    #[test]
    fn short_or_foreign_names_are_none() {
        let name = Name::from("[::1]:4000".parse::<SocketAddr>().unwrap());
        for len in 0..NAME_MAX {
            assert_eq!(decode(&name.bytes[..len]), None, "{len}");
        }
        let mut unix = name.bytes;
        unix[0..2].copy_from_slice(&1u16.to_ne_bytes());
        assert_eq!(decode(&unix), None);
    }
}
