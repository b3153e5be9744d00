//! What the fuzz targets do with their bytes. The same files replay the committed corpus in `cargo test -p kcp-core`.
#![forbid(unsafe_code)]

mod decode;
mod differential;
#[expect(dead_code, reason = "shared with the lockstep test, which calls more of it")]
#[path = "../../tests/differential/lockstep.rs"]
mod lockstep;
mod ops;
mod script;

/// The target `decode`.
pub fn decode(input: &[u8]) {
    decode::run(input);
}

/// The target `ops`.
pub fn ops(input: &[u8]) {
    ops::run(input);
}

/// The target `differential`.
pub fn differential(input: &[u8]) {
    differential::run(input);
}
