//! What is asked of every server.

use std::str::FromStr;
use std::time::Duration;

use kcp_core::KcpConfig;
use kcp_core::wire::HEADER_LEN;
use kcp_loadgen::scenario::Load;

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its name in tables and results.
    pub(crate) name: &'static str,
    /// Sessions of a full run.
    pub(crate) sessions: u16,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// When messages leave.
    pub(crate) pace: Pace,
    /// Who has which address.
    pub(crate) addresses: Addresses,
}

/// When messages leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When an echo comes, keeping this many on the way per session: what can the server do?
    Outstanding(u32),
    /// This many a second of all sessions together, whatever comes back: what does it cost below saturation?
    PerSecond(u32),
}

/// Who has which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// Every session one of its own, as players at home.
    Own,
    /// All sessions a few, as players behind one operator's address translation.
    Shared,
}

/// Every case there is.
pub(crate) const CASES: [Case; 12] = [
    window("64x1", 64, 1, Addresses::Own),
    window("64x8", 64, 8, Addresses::Own),
    window("1024x1", 1024, 1, Addresses::Own),
    window("1024x8", 1024, 8, Addresses::Own),
    window("64x1/shared", 64, 1, Addresses::Shared),
    window("64x8/shared", 64, 8, Addresses::Shared),
    window("1024x1/shared", 1024, 1, Addresses::Shared),
    window("1024x8/shared", 1024, 8, Addresses::Shared),
    bulk("bulk1", 1, 128),
    bulk("bulk100", 100, 16),
    paced("paced20k", 20_000),
    paced("paced100k", 100_000),
];

const fn window(name: &'static str, size: usize, on_the_way: u32, addresses: Addresses) -> Case {
    Case { name, sessions: SESSIONS, size, pace: Pace::Outstanding(on_the_way), addresses }
}

/// Messages that fill a datagram each: a byte stream is cut into just these, so that a server of streams takes part. Never
/// more on the way than the window of 256 holds, nor than a receive buffer.
const fn bulk(name: &'static str, sessions: u16, on_the_way: u32) -> Case {
    let (size, pace) = (MTU - HEADER_LEN, Pace::Outstanding(on_the_way));
    Case { name, sessions, size, pace, addresses: Addresses::Own }
}

const fn paced(name: &'static str, per_second: u32) -> Case {
    let (pace, addresses) = (Pace::PerSecond(per_second), Addresses::Own);
    Case { name, sessions: SESSIONS, size: 64, pace, addresses }
}

impl Case {
    /// The sessions of this case in a run that has at most `limit`.
    pub(crate) fn sessions(&self, limit: u16) -> u16 {
        self.sessions.min(limit)
    }

    /// Sockets, and as many addresses, that `sessions` sessions use.
    pub(crate) fn sockets(&self, sessions: u16) -> u16 {
        match self.addresses {
            Addresses::Own => sessions,
            Addresses::Shared => sessions.min(SHARED_ADDRESSES),
        }
    }

    /// The load of each of `sessions` sessions. With fewer than the full number a paced load is smaller, not denser.
    pub(crate) fn load(&self) -> Load {
        match self.pace {
            Pace::Outstanding(outstanding) => Load::Closed { outstanding },
            Pace::PerSecond(rate) => {
                Load::Open { period: Duration::from_secs(1) * u32::from(self.sessions) / rate }
            }
        }
    }

    /// Messages a second that `sessions` sessions are to send, where that is given.
    pub(crate) fn offered(&self, sessions: u16) -> Option<f64> {
        match self.pace {
            Pace::Outstanding(_) => None,
            Pace::PerSecond(rate) => {
                Some(f64::from(rate) * f64::from(sessions) / f64::from(self.sessions))
            }
        }
    }

    /// What a message weighs on the wire in each direction: its segment, and the acknowledgement of the one before
    /// that travels with it where it fits. Raw echo moves datagrams of this size.
    pub(crate) fn datagram(&self) -> usize {
        (self.size + 2 * HEADER_LEN).min(MTU)
    }

    /// The settings of every client and every server, where it can be set: nodelay 1, interval 10 ms, resend 2, nc 1,
    /// windows of 256, mtu 1400.
    pub(crate) fn protocol() -> KcpConfig {
        KcpConfig::game()
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

const SESSIONS: u16 = 1000;
const SHARED_ADDRESSES: u16 = 8;
const MTU: usize = 1400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_say_what_they_are() {
        for case in CASES {
            assert_eq!(case.name.parse(), Ok(case));
            if let (Pace::Outstanding(n), false) = (case.pace, case.name.starts_with("bulk")) {
                let what = case.name.trim_end_matches("/shared");
                assert_eq!(what, format!("{}x{n}", case.size));
                assert_eq!(case.name.ends_with("/shared"), case.addresses == Addresses::Shared);
            }
        }
        assert!("65x1".parse::<Case>().unwrap_err().contains("64x1, 64x8"));
    }

    #[test]
    fn raw_datagrams_are_as_long_as_those_of_the_protocol() {
        let datagram = |name: &str| name.parse::<Case>().unwrap().datagram();
        assert_eq!((datagram("64x1"), datagram("1024x8"), datagram("bulk1")), (112, 1072, 1400));
        assert_eq!(Case::protocol().mtu as usize, MTU);
    }

    #[test]
    fn a_paced_load_is_what_its_name_says() {
        let case: Case = "paced20k".parse().unwrap();
        assert_eq!(case.load(), Load::Open { period: Duration::from_millis(50) });
        assert_eq!((case.offered(1000), case.offered(10)), (Some(20_000.0), Some(200.0)));
    }
}
