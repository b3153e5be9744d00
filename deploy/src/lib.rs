//! Holds what operators are given (rules, dashboards, manifests, pages) to what the programs do.
#![forbid(unsafe_code)]

pub mod capacity;
mod child;
pub mod dashboards;
pub mod drill;
pub mod exposition;
mod machine;
pub mod manifests;
mod plot;
pub mod reloads;
pub mod rules;
pub mod scrapes;
