//! Control messages: which of our addresses a datagram was sent to, and how a train is cut.
//!
//! Written and read as bytes in the kernel's layout (`cmsghdr`: a `size_t` length that counts the header, then level and type,
//! data and the next header aligned to a `size_t`; cmsg(3)), so nothing here needs a pointer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;

use crate::addr::field;

/// Control bytes a receive needs: on a wildcard socket one `in6_pktinfo`, the larger of the two, and where trains come whole their
/// segment size.
pub(crate) const fn receive_len(wildcard: bool, trains: bool) -> usize {
    let local = if wildcard { space(IN6_PKTINFO) } else { 0 };
    let segment = if trains { space(size_of::<i32>()) } else { 0 };
    local + segment
}

/// The most that a receive needs.
pub(crate) const RECEIVE_MAX: usize = receive_len(true, true);
/// Control bytes a send can need: a source address and a segment size.
pub(crate) const SEND_MAX: usize = space(IN6_PKTINFO) + space(size_of::<u16>());

/// The control messages of one send.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; SEND_MAX],
    len: usize,
}

impl Control {
    /// No control message.
    pub(crate) const EMPTY: Self = Self { bytes: [0; SEND_MAX], len: 0 };

    /// Control messages for a send from `local` (any address when `None`), cut into `segment` bytes each.
    pub(crate) fn new(local: Option<IpAddr>, segment: Option<u16>) -> Self {
        let mut control = Self::EMPTY;
        match local {
            // in_pktinfo: interface (0 = by route), source address, and the header's destination, which sends ignore.
            Some(IpAddr::V4(ip)) => {
                let mut info = [0; IN_PKTINFO];
                info[4..8].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; IN6_PKTINFO];
                info[..16].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        control
    }

    /// How many of the bytes count.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let at = self.len;
        self.bytes[at..at + WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        self.bytes[at + WORD..at + WORD + 4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + WORD + 4..at + HEADER].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + HEADER..at + HEADER + data.len()].copy_from_slice(data);
        self.len += space(data.len());
    }
}

/// The address a received datagram was sent to, when its control bytes say so.
pub(crate) fn local(control: &[u8]) -> Option<IpAddr> {
    find(control, |level, kind, data| match (level, kind) {
        // The first address is the local one; the second, the header's destination, may be a broadcast address.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => Some(Ipv4Addr::from(field::<4>(data, 4)?).into()),
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            Some(Ipv6Addr::from(field::<16>(data, 0)?).into())
        }
        _ => None,
    })
}

/// Where the datagram ends that starts at `from` of `len` bytes received at once. The control bytes tell how a train is to be cut;
/// its last datagram may be shorter. What came alone ends with the bytes.
pub(crate) fn end_of_datagram(control: &[u8], from: usize, len: usize) -> usize {
    let segment = find(control, |level, kind, data| match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            NonZeroUsize::new(usize::try_from(i32::from_ne_bytes(field(data, 0)?)).ok()?)
        }
        _ => None,
    });
    segment.map_or(len, |segment| len.min(from.saturating_add(segment.get())))
}

/// What `take` makes of the first message that it wants: of its level, its type and its data.
fn find<T>(mut control: &[u8], take: impl Fn(i32, i32, &[u8]) -> Option<T>) -> Option<T> {
    loop {
        let len = usize::from_ne_bytes(field(control, 0)?);
        let level = i32::from_ne_bytes(field(control, WORD)?);
        let kind = i32::from_ne_bytes(field(control, WORD + 4)?);
        let data = control.get(HEADER..len)?;
        if let Some(found) = take(level, kind, data) {
            return Some(found);
        }
        control = control.get(len.next_multiple_of(WORD)..)?;
    }
}

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;
const IN_PKTINFO: usize = size_of::<libc::in_pktinfo>();
const IN6_PKTINFO: usize = size_of::<libc::in6_pktinfo>();

/// Bytes one control message of `data` bytes takes, padding included.
const fn space(data: usize) -> usize {
    HEADER + data.next_multiple_of(WORD)
}

const _: () = {
    assert!(size_of::<libc::cmsghdr>() == HEADER);
    assert!(std::mem::offset_of!(libc::cmsghdr, cmsg_level) == WORD);
    assert!(std::mem::offset_of!(libc::cmsghdr, cmsg_type) == WORD + 4);
    assert!(std::mem::offset_of!(libc::in_pktinfo, ipi_spec_dst) == 4);
    assert!(std::mem::offset_of!(libc::in6_pktinfo, ipi6_addr) == 0);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for ip in ["127.0.0.2", "10.255.0.1", "::1", "2001:db8::7"] {
            let ip: IpAddr = ip.parse().unwrap();
            for segment in [None, Some(1200)] {
                let control = Control::new(Some(ip), segment);
                assert_eq!(local(&control.bytes[..control.len]), Some(ip));
            }
        }
        let control = Control::new(None, Some(1200));
        assert_eq!(control.len, space(2));
        assert_eq!(local(&control.bytes[..control.len]), None);
    }

    /// The control bytes of a train, as the kernel orders them.
    fn train(segment: i32) -> Control {
        let mut control = Control::EMPTY;
        control.push(libc::SOL_UDP, libc::UDP_GRO, &segment.to_ne_bytes());
        let info = [0u8, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0];
        control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        control
    }

    #[test]
    fn a_train_is_cut_to_its_last_byte() {
        for (segment, len, ends) in [
            (100, 1000, (1..=10).map(|n| n * 100).collect::<Vec<_>>()),
            (100, 1040, (1..=10).map(|n| n * 100).chain([1040]).collect()),
            (1, 3, vec![1, 2, 3]),
            (100, 100, vec![100]),
            (100, 40, vec![40]),
            (65_507, 65_507, vec![65_507]),
            // What no kernel says.
            (0, 40, vec![40]),
            (-1, 40, vec![40]),
            (i32::MAX, 40, vec![40]),
        ] {
            let control = train(segment);
            let control = &control.bytes[..control.len];
            let mut cuts = Vec::new();
            while cuts.last() != Some(&len) {
                let from = cuts.last().copied().unwrap_or(0);
                cuts.push(end_of_datagram(control, from, len));
            }
            assert_eq!(cuts, ends, "{len} bytes in {segment}");
            assert_eq!(local(control), Some("192.0.2.1".parse().unwrap()));
        }
    }

    #[test]
    fn what_came_alone_ends_with_the_bytes() {
        // A send's size is not a receive's.
        let sent = Control::new(Some("::1".parse().unwrap()), Some(7));
        for control in [&[][..], &sent.bytes[..sent.len], &train(7).bytes[..HEADER + 3]] {
            assert_eq!(end_of_datagram(control, 0, 40), 40);
            assert_eq!(end_of_datagram(control, 0, 0), 0);
        }
    }

    #[test]
    fn an_unknown_message_is_passed_over() {
        let mut control = Control::EMPTY;
        control.push(libc::SOL_SOCKET, 77, &[1, 2, 3]);
        let info = [0u8, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0];
        control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        assert_eq!(local(&control.bytes[..control.len]), Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn lengths_that_lie_end_the_search() {
        let control = Control::new(Some("::1".parse().unwrap()), Some(9));
        for len in 0..space(IN6_PKTINFO) - 4 {
            assert_eq!(local(&control.bytes[..len]), None, "{len}");
        }
        for lie in [0, 1, HEADER - 1, usize::MAX, usize::MAX - 7] {
            let mut bytes = control.bytes;
            bytes[..WORD].copy_from_slice(&lie.to_ne_bytes());
            bytes[WORD..WORD + 4].copy_from_slice(&9i32.to_ne_bytes());
            assert_eq!(local(&bytes), None, "{lie}");
        }
    }
}
