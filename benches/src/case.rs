//! What is asked of every server.

use std::str::FromStr;

/// One load. All have 1,000 sessions, each with a source address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its name in tables and results: bytes of a message x messages on the way per session.
    pub(crate) name: &'static str,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Messages on the way per session.
    pub(crate) outstanding: u32,
}

/// Every case there is.
pub(crate) const CASES: [Case; 2] = [
    Case { name: "64x1", size: 64, outstanding: 1 },
    Case { name: "1024x1", size: 1024, outstanding: 1 },
];

impl Case {
    /// Sessions of a full run.
    pub(crate) const SESSIONS: u16 = 1000;

    /// What a message weighs on the wire in each direction: its segment, and the acknowledgement of the one before
    /// that travels with it. Raw echo moves datagrams of this size.
    pub(crate) const fn datagram(&self) -> usize {
        self.size + 2 * kcp_core::wire::HEADER_LEN
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || CASES.map(|case| case.name).join(", ");
        CASES
            .into_iter()
            .find(|case| case.name == name)
            .ok_or_else(|| format!("no case `{name}`; there are {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_say_what_they_are() {
        for case in CASES {
            assert_eq!(case.name.parse(), Ok(case));
            assert_eq!(case.name, format!("{}x{}", case.size, case.outstanding));
        }
        assert_eq!("64x1".parse::<Case>().map(|case| case.datagram()), Ok(112));
        assert!("65x1".parse::<Case>().unwrap_err().contains("64x1, 1024x1"));
    }
}
