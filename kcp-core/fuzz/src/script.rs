//! Fuzz input as a sequence of choices.

/// Reads choices off the front of the input. Past its end every choice is 0, so a cut input is a shorter script.
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        if n <= 256 { u32::from(self.byte()) % n } else { u32::from(self.u16()) % n }
    }

    /// The next `len` bytes, or what is left of them.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A number at which things happen: small, a little below 2^31 or 2^32, or any.
    pub(crate) fn start(&mut self) -> u32 {
        match self.byte() % 4 {
            0 => self.byte().into(),
            1 => (1 << 31) - u32::from(self.byte()),
            2 => u32::MAX - u32::from(self.byte()),
            _ => self.u32(),
        }
    }
}
