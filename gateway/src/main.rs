//! kcp-gateway.
fn main() {}
