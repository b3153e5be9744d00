//! Where messages go.

pub mod echo;
