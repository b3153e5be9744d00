//! What the allocator keeps: of its own process, so that no other test's memory is in the way.
#![cfg(target_env = "gnu")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;

/// Memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn large_pieces_go_back_though_small_ones_stay() {
    const LARGE: usize = 700 << 10;
    const PIECES: usize = 64;
    net_io::heap::return_large_pieces();
    drop(vec![1_u8; LARGE]); // from here on the allocator would keep such pieces
    let mut pieces = Vec::new();
    for _ in 0..PIECES {
        // A small one behind each keeps the heap from shrinking at its end.
        pieces.push((vec![1_u8; LARGE], vec![1_u8; 1000]));
    }
    let full = resident();
    let small: Vec<_> = pieces.into_iter().map(|(_, small)| small).collect();
    let left = resident();
    let large = PIECES * LARGE / 1024;
    assert!(full - left > large * 9 / 10, "{left} KiB of {full} are left, {large} were freed");
    assert!(small.iter().all(|piece| piece[999] == 1));
}
