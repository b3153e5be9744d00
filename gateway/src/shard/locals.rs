//! The gateway's own addresses that clients use, numbered: a session keeps two bytes instead of an address.

use std::net::IpAddr;

/// Addresses seen on wildcard listeners. Number 0 stands for "the socket's own".
#[derive(Debug, Default)]
pub(super) struct Locals {
    seen: Vec<IpAddr>,
}

/// A host has a handful; beyond this the kernel chooses the source address.
const LOCALS_MAX: usize = 1024;

impl Locals {
    /// The number of an address, given to it if it is new.
    pub(super) fn index(&mut self, local: Option<IpAddr>) -> u16 {
        let Some(addr) = local else { return 0 };
        let place = match self.seen.iter().position(|&seen| seen == addr) {
            Some(place) => place,
            None if self.seen.len() < LOCALS_MAX => {
                self.seen.push(addr);
                self.seen.len() - 1
            }
            None => return 0,
        };
        u16::try_from(place + 1).unwrap_or(0)
    }

    /// The address with this number.
    #[must_use]
    pub(super) fn get(&self, index: u16) -> Option<IpAddr> {
        self.seen.get(usize::from(index).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_bounded() {
        let mut locals = Locals::default();
        let addr = |n: u32| Some(IpAddr::from((0x7f00_0000 + n).to_be_bytes()));
        assert_eq!((locals.index(None), locals.get(0)), (0, None));
        assert_eq!(
            (locals.index(addr(1)), locals.index(addr(2)), locals.index(addr(1))),
            (1, 2, 1)
        );
        assert_eq!(locals.get(2), addr(2));
        for n in 0..5000 {
            locals.index(addr(n));
        }
        assert_eq!(locals.index(addr(4999)), 0);
    }
}
