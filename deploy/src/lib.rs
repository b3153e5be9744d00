//! Holds what operators are given (rules, dashboards, manifests, pages) to what the programs do.
#![forbid(unsafe_code)]

pub mod dashboards;
pub mod exposition;
pub mod rules;
