//! The source addresses of a run: `127.0.0.2-127.0.0.17`, `10.0.0.0/28`, `127.0.0.2+16`, `fd00::1`, joined by commas.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that sockets are bound to in turn. Never empty, one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<IpAddr>);

/// Why a list of source addresses was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourcesError {
    /// A piece is none of the known forms.
    #[error(
        "`{0}` is not a source address; write ADDR, FIRST-LAST, FIRST+COUNT or ADDR/PREFIX, e.g. 127.0.0.2-127.0.0.17"
    )]
    Unknown(String),
    /// First and last differ in family, or last lies before first.
    #[error("`{0}`: the last address must be of the first one's family and not before it")]
    BadRange(String),
    /// A prefix longer than the family's addresses.
    #[error("`{text}`: a prefix length is at most {max}")]
    BadPrefix {
        /// The piece.
        text: String,
        /// 32 or 128.
        max: u8,
    },
    /// Too many addresses.
    #[error(
        "more than {LIMIT} source addresses; a socket needs one each, and a driver holds at most {LIMIT} sockets"
    )]
    TooMany,
    /// IPv4 and IPv6 in one list.
    #[error("IPv4 and IPv6 source addresses in one list; the target is of one family only")]
    Mixed,
}

impl Sources {
    /// Exactly one address.
    #[must_use]
    pub fn single(addr: IpAddr) -> Self {
        Self(vec![addr])
    }

    /// `count` addresses from `first` on; at least one.
    #[must_use]
    pub fn range(first: IpAddr, count: u16) -> Self {
        Self((0..u128::from(count.max(1))).map(|n| offset(first, n)).collect())
    }

    /// The addresses, first to last.
    #[must_use]
    pub fn addrs(&self) -> &[IpAddr] {
        &self.0
    }

    /// The address of socket `index`: the list in turn.
    #[must_use]
    pub fn of_socket(&self, index: usize) -> IpAddr {
        let position = index.checked_rem(self.0.len()).unwrap_or(0);
        self.0.get(position).copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl FromStr for Sources {
    type Err = SourcesError;

    fn from_str(text: &str) -> Result<Self, SourcesError> {
        let mut addrs = Vec::new();
        for piece in text.split(',').map(str::trim) {
            let (first, count) = parse_piece(piece)?;
            if addrs.len() as u128 + count > LIMIT as u128 {
                return Err(SourcesError::TooMany);
            }
            addrs.extend((0..count).map(|n| offset(first, n)));
        }
        if addrs.iter().any(|addr| addr.is_ipv4() != addrs[0].is_ipv4()) {
            return Err(SourcesError::Mixed);
        }
        Ok(Self(addrs))
    }
}

/// The first address of a piece and how many follow from it, itself included.
fn parse_piece(piece: &str) -> Result<(IpAddr, u128), SourcesError> {
    let unknown = || SourcesError::Unknown(piece.to_owned());
    let addr = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| unknown());
    if let Some((first, last)) = piece.split_once('-') {
        let (first, last) = (addr(first)?, addr(last)?);
        let bad = SourcesError::BadRange(piece.to_owned());
        if first.is_ipv4() != last.is_ipv4() {
            return Err(bad);
        }
        let steps = number(last).checked_sub(number(first)).ok_or(bad)?;
        return Ok((first, steps.saturating_add(1)));
    }
    if let Some((first, count)) = piece.split_once('+') {
        let count = count.trim().parse::<u128>().map_err(|_| unknown())?;
        let first = addr(first)?;
        let last = number(first).checked_add(count.saturating_sub(1));
        let fits = last.is_some_and(|last| first.is_ipv6() || last <= u128::from(u32::MAX));
        return if count == 0 || !fits { Err(unknown()) } else { Ok((first, count)) };
    }
    if let Some((base, prefix)) = piece.split_once('/') {
        let base = addr(base)?;
        let prefix = prefix.trim().parse::<u8>().map_err(|_| unknown())?;
        return block(piece, base, prefix);
    }
    Ok((addr(piece)?, 1))
}

/// A CIDR block. Of an IPv4 block of four and more, the first (network) and the last (broadcast) are left out.
fn block(piece: &str, base: IpAddr, prefix: u8) -> Result<(IpAddr, u128), SourcesError> {
    let max: u8 = if base.is_ipv4() { 32 } else { 128 };
    let host_bits =
        max.checked_sub(prefix).ok_or(SourcesError::BadPrefix { text: piece.to_owned(), max })?;
    let count = 1_u128.checked_shl(u32::from(host_bits)).unwrap_or(u128::MAX);
    let first = number(base) & !(count.wrapping_sub(1));
    if base.is_ipv4() && host_bits >= 2 {
        Ok((addr_of(first + 1, true), count - 2))
    } else {
        Ok((addr_of(first, base.is_ipv4()), count))
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn addr_of(number: u128, v4: bool) -> IpAddr {
    match (v4, u32::try_from(number)) {
        (true, Ok(bits)) => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

fn offset(first: IpAddr, n: u128) -> IpAddr {
    addr_of(number(first).wrapping_add(n), first.is_ipv4())
}

const LIMIT: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.parse::<Sources>().unwrap().addrs().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form() {
        assert_eq!(list("127.0.0.2-127.0.0.4"), ["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        assert_eq!(list("127.0.0.255+2"), ["127.0.0.255", "127.0.1.0"]);
        assert_eq!(list("10.0.0.5/30"), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(list("fd00::/127, ::1"), ["fd00::", "fd00::1", "::1"]);
        let long: Sources = "127.0.0.0/16".parse().unwrap();
        assert_eq!(long.addrs().len(), 65_534);
        assert_eq!(long.of_socket(65_534), long.of_socket(0));
    }

    #[test]
    fn refusals_name_the_piece() {
        for (text, part) in [
            ("", "``"),
            ("127.0.0.2-", "`127.0.0.2-`"),
            ("127.0.0.9-127.0.0.1", "not before"),
            ("::1-127.0.0.1", "family"),
            ("127.0.0.1/33", "at most 32"),
            ("255.255.255.255+2", "`255.255.255.255+2`"),
            ("127.0.0.1+0", "`127.0.0.1+0`"),
            ("10.0.0.0/8", "65535"),
            ("::/0", "65535"),
            ("127.0.0.1,::1", "one family"),
        ] {
            let error = text.parse::<Sources>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
