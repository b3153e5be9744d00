//! Newtypes for the protocol's 32-bit quantities. Wrapping comparison lives here and nowhere else.

/// A conversation id: the first field of every segment, the same at both ends. Opaque; any value is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Conv(pub u32);

/// A segment's sequence number. A ring of 2^32; two of them compare by [`Sn::since`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Sn(pub u32);

impl Sn {
    /// The signed distance from `earlier` to `self`: positive when `self` lies ahead.
    ///
    /// Meaningful while the two are less than 2^31 apart. Reference: `_itimediff`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// The sequence number `n` places further on, wrapping.
    #[must_use]
    pub const fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

/// A point in time in milliseconds, from an arbitrary epoch. Wraps every 49.7 days.
///
/// Two of them compare by [`Millis::since`] only: `<` on a wrapping clock is a bug that shows once in
/// seven weeks, so the type has no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Millis(pub u32);

impl Millis {
    /// The signed distance in milliseconds from `earlier` to `self`: positive when `self` is later.
    ///
    /// Meaningful while the two are less than 24.8 days apart. Reference: `_itimediff`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// The instant `ms` milliseconds later, wrapping.
    #[must_use]
    pub const fn add(self, ms: u32) -> Self {
        Self(self.0.wrapping_add(ms))
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn earliest(self, other: Self) -> Self {
        if other.since(self) < 0 { other } else { self }
    }
}
