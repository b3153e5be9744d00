//! The wire layer: what is encoded decodes to the same, and any bytes at all give segments or an error.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kcp_core::wire::{self, Command, HEADER_LEN, Header, Segments};
use kcp_core::{Conv, InputError, Millis, Sn};
use proptest::collection::vec;
use proptest::prelude::*;

fn header() -> impl Strategy<Value = Header> {
    let commands = [Command::Push, Command::Ack, Command::Wask, Command::Wins];
    let words = any::<[u32; 5]>();
    (proptest::sample::select(commands.to_vec()), any::<u8>(), any::<u16>(), words).prop_map(
        |(cmd, frg, wnd, [conv, ts, sn, una, len])| Header {
            conv: Conv(conv),
            cmd,
            frg,
            wnd,
            ts: Millis(ts),
            sn: Sn(sn),
            una: Sn(una),
            len,
        },
    )
}

fn segment() -> impl Strategy<Value = (Header, Vec<u8>)> {
    (header(), vec(any::<u8>(), 0..200)).prop_map(|(mut header, payload)| {
        header.len = u32::try_from(payload.len()).unwrap();
        (header, payload)
    })
}

fn datagram(segments: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, payload) in segments {
        let mut head = [0; HEADER_LEN];
        header.encode(&mut head);
        bytes.extend(head);
        bytes.extend(payload);
    }
    bytes
}

#[test]
fn the_layout_is_the_published_one() {
    let bytes: Vec<u8> = [
        &[0x44, 0x33, 0x22, 0x11, 0x51, 0x02, 0x80, 0x00, 0xe8, 0x03, 0, 0][..],
        &[7, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0],
        b"hello",
    ]
    .concat();
    let header = Header {
        conv: Conv(0x1122_3344),
        cmd: Command::Push,
        frg: 2,
        wnd: 128,
        ts: Millis(1000),
        sn: Sn(7),
        una: Sn(9),
        len: 5,
    };
    assert_eq!(Segments::new(&bytes).collect::<Vec<_>>(), [Ok((header, &b"hello"[..]))]);
    assert_eq!(datagram(&[(header, b"hello".to_vec())]), bytes);
    assert_eq!(wire::conv(&bytes), Some(Conv(0x1122_3344)));
    assert_eq!(wire::conv(&bytes[..3]), None);
}

#[test]
fn a_conversation_opens_with_a_whole_push_of_the_first_window() {
    let open = Header {
        conv: Conv(1),
        cmd: Command::Push,
        frg: 0,
        wnd: 32,
        ts: Millis(9),
        sn: Sn(127),
        una: Sn(0),
        len: 3,
    };
    let opening = |header: Header| wire::opening(&datagram(&[(header, b"abc".to_vec())]), 128);
    assert_eq!(opening(open), Some(open));
    assert_eq!(opening(Header { cmd: Command::Ack, ..open }), None);
    assert_eq!(opening(Header { sn: Sn(128), ..open }), None);
    assert_eq!(opening(Header { sn: Sn(u32::MAX), ..open }), None);
    assert_eq!(opening(Header { una: Sn(1), ..open }), None);
    assert_eq!(opening(Header { frg: 128, ..open }), None);
    assert_eq!(opening(Header { len: 4, ..open }), None, "not whole");
    assert_eq!(wire::opening(&[0; 23], 128), None);
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(segments in vec(segment(), 1..8), tail in vec(any::<u8>(), 0..24)) {
        let mut bytes = datagram(&segments);
        bytes.extend(&tail);
        let decoded: Result<Vec<_>, _> = Segments::new(&bytes).collect();
        let expected: Vec<_> = segments.iter().map(|(header, payload)| (*header, &payload[..])).collect();
        prop_assert_eq!(decoded, Ok(expected));
    }

    #[test]
    fn any_bytes_give_segments_or_one_error(bytes in vec(any::<u8>(), 0..2_000)) {
        check(&bytes)?;
    }

    #[test]
    fn so_do_broken_datagrams(segments in vec(segment(), 1..4), at in any::<prop::sample::Index>(), value: u8, cut: u8) {
        let mut bytes = datagram(&segments);
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(bytes.len() - (cut as usize).min(bytes.len()));
        check(&bytes)?;
    }

    #[test]
    fn a_length_of_half_the_space_is_bad_whatever_follows(mut header in header(), high in 1_u32 << 31..) {
        header.len = high;
        let bytes = datagram(&[(header, vec![0; 64])]);
        prop_assert_eq!(Segments::new(&bytes).next(), Some(Err(InputError::BadLength)));
    }
}

/// The segments account for the bytes up to an error or to less than a header's length, and an error ends the walk.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut segments = Segments::new(bytes);
    let mut again = Vec::new();
    while let Some(item) = segments.next() {
        let Ok((header, payload)) = item else {
            prop_assert!(bytes.len() - again.len() >= HEADER_LEN);
            prop_assert_eq!(segments.next(), None);
            return Ok(());
        };
        prop_assert_eq!(payload.len(), header.len as usize);
        again.extend(datagram(&[(header, payload.to_vec())]));
        prop_assert_eq!(&again[..], &bytes[..again.len()]);
    }
    prop_assert!(bytes.len() - again.len() < HEADER_LEN);
    Ok(())
}
