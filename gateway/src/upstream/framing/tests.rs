use proptest::prelude::*;

use super::super::dice::Dice;
use super::super::pool::BLOCK;
use super::*;

const PREFIXED: [Framing; 4] = [Framing::U16Be, Framing::U16Le, Framing::U32Be, Framing::U32Le];

fn codec(framing: Framing, message_max: u32) -> Codec {
    Codec { framing, message_max, cut: 100 }
}

fn frame(codec: &Codec, message: &[u8]) -> Vec<u8> {
    [codec.prefix(message.len()).unwrap().as_slice(), message].concat()
}

/// Everything that comes of feeding `chunks`, each call with room for all.
fn decode(codec: &Codec, chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Result<Progress, DecodeError>) {
    let mut pool = Pool::new(64 * BLOCK);
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    let mut last = Ok(Progress::default());
    for chunk in chunks {
        last = decoder.feed(codec, &mut pool, chunk, |m| {
            messages.push(m.to_vec());
            true
        });
        if last.is_err() {
            break;
        }
    }
    (messages, last)
}

#[test]
fn a_prefix_is_what_its_name_says() {
    let prefix = |framing| codec(framing, 1 << 20).prefix(0x0102).unwrap().as_slice().to_vec();
    assert!(prefix(Framing::None).is_empty());
    assert_eq!(prefix(Framing::U16Be), [1, 2]);
    assert_eq!(prefix(Framing::U16Le), [2, 1]);
    assert_eq!(prefix(Framing::U32Be), [0, 0, 1, 2]);
    assert_eq!(prefix(Framing::U32Le), [2, 1, 0, 0]);
    for (name, framing) in Framing::ALL {
        assert_eq!(Framing::from_name(name), Some(framing));
    }
    assert_eq!(Framing::from_name("u16"), None);
}

#[test]
fn what_cannot_be_told_is_refused() {
    assert_eq!(codec(Framing::U16Be, 1 << 20).prefix(65_535).map(|p| p.bytes[0]), Ok(255));
    assert_eq!(codec(Framing::U16Be, 1 << 20).prefix(65_536), Err(EncodeError::TooLong));
    assert_eq!(codec(Framing::U32Be, 1000).prefix(1001), Err(EncodeError::TooLong));
    assert_eq!(codec(Framing::None, 1000).prefix(1001), Err(EncodeError::TooLong));
    assert_eq!(codec(Framing::U32Be, 1000).prefix(usize::MAX), Err(EncodeError::TooLong));
    assert_eq!(codec(Framing::None, 1000).prefix(0), Err(EncodeError::Empty));
}

#[test]
fn an_oversize_announcement_ends_the_stream_before_its_bytes_come() {
    for framing in PREFIXED {
        let short = codec(framing, 5);
        let long = frame(&codec(framing, 1000), &[7; 6]);
        let mut bytes = frame(&short, b"fine");
        bytes.extend(&long[..framing.prefix_len()]);
        let (messages, end) = decode(&short, &[&bytes]);
        assert_eq!(messages, [b"fine"]);
        assert_eq!(end, Err(DecodeError::TooLong { len: 6 }));
    }
}

#[test]
fn empty_frames_are_passed_over_and_counted() {
    let codec = codec(Framing::U16Le, 100);
    let bytes = [&[0, 0, 0, 0][..], &frame(&codec, b"a"), &[0, 0, 0]].concat();
    let (messages, end) = decode(&codec, &[&bytes]);
    assert_eq!(messages, [b"a"]);
    assert_eq!(end, Ok(Progress { messages: 1, empty: 3, waiting: Waiting::Rest }));
}

#[test]
fn bytes_without_framing_are_cut() {
    let codec = codec(Framing::None, 10_000);
    let (messages, end) = decode(&codec, &[&[1; 250], &[], &[2; 100]]);
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50, 100]);
    assert_eq!(end, Ok(Progress { messages: 1, empty: 0, waiting: Waiting::Idle }));
}

#[test]
fn a_whole_message_is_not_copied() {
    let codec = codec(Framing::U32Be, 1000);
    let bytes = [frame(&codec, &[1; 600]), frame(&codec, &[2; 600])].concat();
    let (mut pool, mut decoder) = (Pool::new(64 * BLOCK), Decoder::new());
    let mut places = Vec::new();
    decoder
        .feed(&codec, &mut pool, &bytes, |m| {
            places.push(m.as_ptr());
            true
        })
        .unwrap();
    assert_eq!(places, [bytes[4..].as_ptr(), bytes[608..].as_ptr()]);
    assert_eq!(pool.bytes_used(), 0);
}

#[test]
fn a_full_pool_is_an_error_and_not_a_loss() {
    let codec = codec(Framing::U32Be, 10_000);
    let (mut pool, mut decoder) = (Pool::new(2 * BLOCK), Decoder::new());
    let bytes = frame(&codec, &[1; 5000]);
    assert!(decoder.feed(&codec, &mut pool, &bytes[..2000], |_| true).is_ok());
    let end = decoder.feed(&codec, &mut pool, &bytes[2000..3000], |_| true);
    assert_eq!(end, Err(DecodeError::PoolFull));
    decoder.clear(&mut pool);
    assert_eq!(pool.bytes_used(), 0);
}

/// Messages in, frames in chunks of any size, an owner that often has no room: the same messages out.
#[test]
fn messages_survive_any_chunking_and_any_refusals() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let codec = codec(PREFIXED[dice.below(4)], 40_000);
        let (mut pool, mut decoder) = (Pool::new(400 * BLOCK), Decoder::new());
        let mut wire = Vec::new();
        let sent: Vec<Vec<u8>> = (0..40)
            .map(|_| {
                let longest = if dice.one_in(5) { 40_000 } else { 100 };
                let len = 1 + dice.below(longest);
                dice.bytes(len)
            })
            .collect();
        let mut empty = 0;
        for message in &sent {
            if dice.one_in(10) {
                wire.resize(wire.len() + codec.framing.prefix_len(), 0);
                empty += 1;
            }
            wire.extend(frame(&codec, message));
        }
        let (mut got, mut passed, mut rest) = (Vec::new(), 0, &wire[..]);
        while !rest.is_empty() || decoder.kept() > 0 {
            let longest = if dice.one_in(2) { 7 } else { 9000 };
            let n = dice.below(longest).min(rest.len());
            let (now, later) = rest.split_at(n);
            rest = later;
            let mut room = dice.below(4);
            let progress = decoder
                .feed(&codec, &mut pool, now, |m| {
                    let taken = room > 0;
                    if taken {
                        room -= 1;
                        got.push(m.to_vec());
                    }
                    taken
                })
                .unwrap();
            passed += progress.empty;
            assert_eq!(progress.waiting == Waiting::Idle, decoder.kept() == 0);
            assert!(decoder.kept() < wire.len());
        }
        assert!(got == sent, "not the messages that were sent");
        assert_eq!((passed, pool.bytes_used()), (empty, 0));
    }
}

proptest! {
    /// Any bytes end in messages within the bound, in a typed error, or in waiting; the chunking never shows.
    #[test]
    fn garbage_is_decoded_the_same_in_any_chunks(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..3000),
        framing in prop::sample::select(Framing::ALL.map(|(_, f)| f).to_vec()),
        cut in 1usize..200,
    ) {
        let codec = codec(framing, 700);
        let (whole, whole_end) = decode(&codec, &[&bytes]);
        let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
        let (chunked, chunked_end) = decode(&codec, &pieces);
        prop_assert!(whole.iter().all(|m| !m.is_empty() && m.len() <= 700));
        if framing == Framing::None {
            prop_assert_eq!(whole.concat(), chunked.concat());
        } else {
            prop_assert_eq!(whole, chunked);
            prop_assert_eq!(whole_end.err(), chunked_end.err());
        }
    }
}
