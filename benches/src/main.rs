//! kcp-benches.
fn main() {}
