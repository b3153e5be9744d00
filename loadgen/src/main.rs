//! kcp-loadgen.
fn main() {}
