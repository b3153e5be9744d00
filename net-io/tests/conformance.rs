//! What every driver does: one list of scenarios, one run of it per driver.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/scenarios.rs"]
mod scenarios;

/// A test per driver and scenario.
macro_rules! conformance {
    ($($scenario:ident,)*) => {
        mod uring {
            $(#[test] fn $scenario() { crate::scenarios::$scenario(&mut crate::bed::UringBed::default()); })*
        }
        mod epoll {
            $(#[test] fn $scenario() { crate::scenarios::$scenario(&mut crate::bed::EpollBed::default()); })*
        }
        mod sim {
            $(#[test] fn $scenario() { crate::scenarios::$scenario(&mut crate::bed::SimBed::default()); })*
        }
    };
}

conformance! {
    echo_over_ipv4,
    echo_over_ipv6,
    a_wildcard_answers_from_the_address_used,
}
