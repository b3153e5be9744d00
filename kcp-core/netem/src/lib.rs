//! A seeded bad network, sans-IO.
#![forbid(unsafe_code)]
