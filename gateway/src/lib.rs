//! kcp-gateway.
#![forbid(unsafe_code)]
