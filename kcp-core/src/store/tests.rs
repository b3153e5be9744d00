//! Size classes, recycling and the byte bound.

use super::fragment::{CLASSES, class_bytes, class_of};
use super::*;

#[test]
fn every_length_has_the_smallest_class_that_holds_it() {
    for len in 1..=65_536 {
        let class = class_of(len);
        assert!(class < CLASSES, "{len}");
        assert!(class_bytes(class) >= len, "{len} in {}", class_bytes(class));
        assert!(class == 0 || class_bytes(class - 1) < len, "{len} wastes class {class}");
    }
    assert!(class_of(65_537) >= CLASSES && class_of(0) >= CLASSES);
}

#[test]
fn a_buffer_given_back_is_the_next_one_taken() {
    let mut store = Store::new(1 << 20);
    let fragment = store.keep(&[7; 100], 0).unwrap();
    let address = fragment.as_slice().as_ptr();
    assert_eq!(store.bytes_used(), 128);
    store.give_back(fragment);
    assert_eq!((store.bytes_used(), store.bytes_recycled()), (0, 128));
    let fragment = store.keep(&[8; 120], 0).unwrap();
    assert_eq!(fragment.as_slice(), &[8; 120]);
    assert_eq!(fragment.as_slice().as_ptr(), address);
    assert_eq!((store.bytes_used(), store.bytes_recycled()), (128, 0));
}

#[test]
fn the_bound_counts_recycled_memory_and_evicts_it_first() {
    let mut store = Store::new(4096);
    let large = store.keep(&[1; 3000], 0).unwrap();
    assert!(store.keep(&[1; 2000], 0).is_none(), "3072 + 2048 exceeds the bound");
    assert_eq!(store.stats().store_full, 1);
    store.give_back(large);
    let other = store.keep(&[1; 2000], 0).expect("the recycled buffer makes room");
    assert_eq!((store.bytes_used(), store.bytes_recycled()), (2048, 0));
    store.give_back(other);
}

#[test]
fn trim_stops_at_what_it_is_told_to_keep() {
    let mut store = Store::new(1 << 20);
    let fragments: Vec<_> = (0..10).map(|_| store.keep(&[0; 64], 0).unwrap()).collect();
    for fragment in fragments {
        store.give_back(fragment);
    }
    store.trim(256);
    assert_eq!(store.bytes_recycled(), 256);
    store.trim(0);
    assert_eq!((store.bytes_used(), store.bytes_recycled()), (0, 0));
}

#[test]
fn a_fragment_grows_in_place_and_then_moves() {
    let mut store = Store::new(1 << 20);
    let mut fragment = store.keep(&[1; 60], 0).unwrap();
    assert!(fragment.extend(&[2; 4], &mut store));
    assert_eq!(store.bytes_used(), 64);
    assert!(fragment.extend(&[3; 1], &mut store));
    assert_eq!((store.bytes_used(), store.bytes_recycled()), (96, 64));
    assert_eq!(&fragment.as_slice()[59..], &[1, 2, 2, 2, 2, 3]);
}

#[test]
fn beyond_the_largest_class_a_buffer_is_freed_after_use() {
    let mut store = Store::new(1 << 20);
    let fragment = store.keep(&[0; 70_000], 0).unwrap();
    assert_eq!(store.bytes_used(), 70_000);
    store.give_back(fragment);
    assert_eq!((store.bytes_used(), store.bytes_recycled()), (0, 0));
}
