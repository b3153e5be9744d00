//! Where messages go.

pub mod backoff;
pub mod echo;
pub mod framing;
pub mod health;
pub mod pool;
pub mod proxy;
pub mod route;

#[cfg(test)]
mod dice;
