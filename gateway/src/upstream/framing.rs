//! Messages in a byte stream: the length prefixes that game servers use, and the incremental way back.

use super::pool::{Pool, PoolFull, Queue};

/// How a message is told from the next one on a backend's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Framing {
    /// Not at all: bytes go as they are, and what comes back is cut to one segment each.
    None,
    /// Two bytes of length, the highest first.
    U16Be,
    /// Two bytes of length, the lowest first.
    U16Le,
    /// Four bytes of length, the highest first.
    #[default]
    U32Be,
    /// Four bytes of length, the lowest first.
    U32Le,
}

impl Framing {
    /// Every framing, with the name it has in a configuration.
    pub const ALL: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("u16be", Self::U16Be),
        ("u16le", Self::U16Le),
        ("u32be", Self::U32Be),
        ("u32le", Self::U32Le),
    ];

    /// The framing called `name` in a configuration.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, framing)| framing)
    }

    /// Bytes of prefix before each message.
    #[must_use]
    pub const fn prefix_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::U16Be | Self::U16Le => 2,
            Self::U32Be | Self::U32Le => 4,
        }
    }

    /// The longest message that the prefix can tell.
    #[must_use]
    pub const fn length_max(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::U16Be | Self::U16Le => u16::MAX as usize,
            Self::U32Be | Self::U32Le => u32::MAX as usize,
        }
    }

    const fn length(self, prefix: [u8; PREFIX_MAX]) -> u32 {
        let [a, b, ..] = prefix;
        match self {
            Self::None => 0,
            Self::U16Be => u16::from_be_bytes([a, b]) as u32,
            Self::U16Le => u16::from_le_bytes([a, b]) as u32,
            Self::U32Be => u32::from_be_bytes(prefix),
            Self::U32Le => u32::from_le_bytes(prefix),
        }
    }
}

/// What the sessions of one backend agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// The framing.
    pub framing: Framing,
    /// The longest message in bytes, either way.
    pub message_max: u32,
    /// Where bytes without framing are cut: the payload of one segment, so that a piece never waits for a second
    /// datagram. At least 1.
    pub cut: u32,
}

/// A message cannot be framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// Longer than the prefix can tell, or than the backend's sessions allow.
    TooLong,
    /// Empty: a length of zero means nothing on the wire, and without a prefix there is nothing to send.
    Empty,
}

/// What the backend sent cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A prefix announced more than the sessions of this backend allow.
    TooLong {
        /// The length announced, in bytes.
        len: u32,
    },
    /// The pool had no room for what must wait.
    PoolFull,
}

impl From<PoolFull> for DecodeError {
    fn from(_: PoolFull) -> Self {
        Self::PoolFull
    }
}

impl Codec {
    /// The prefix of a message of `len` bytes. The message itself is sent as it is.
    ///
    /// # Errors
    /// For a message that cannot be told on this stream; see [`EncodeError`].
    pub fn prefix(&self, len: usize) -> Result<Prefix, EncodeError> {
        if len == 0 {
            return Err(EncodeError::Empty);
        }
        if len > self.framing.length_max() {
            return Err(EncodeError::TooLong);
        }
        let Some(wide) = u32::try_from(len).ok().filter(|&len| len <= self.message_max) else {
            return Err(EncodeError::TooLong);
        };
        let [a, b, c, d] = wide.to_be_bytes();
        let bytes = match self.framing {
            Framing::None => [0; PREFIX_MAX],
            Framing::U16Be => [c, d, 0, 0],
            Framing::U16Le => [d, c, 0, 0],
            Framing::U32Be => [a, b, c, d],
            Framing::U32Le => [d, c, b, a],
        };
        Ok(Prefix { bytes, framing: self.framing })
    }

    /// What stands at the front of `available` bytes that begin with `first`.
    fn head(&self, first: [u8; PREFIX_MAX], available: usize) -> Result<Head, DecodeError> {
        if self.framing == Framing::None {
            let len = available.min(self.cut as usize);
            return Ok(if len == 0 {
                Head::Part { missing: 1 }
            } else {
                Head::Whole { skip: 0, len }
            });
        }
        let skip = self.framing.prefix_len();
        if available < skip {
            return Ok(Head::Part { missing: skip - available });
        }
        let len = self.framing.length(first);
        if len > self.message_max {
            return Err(DecodeError::TooLong { len });
        }
        let len = len as usize;
        Ok(match (skip + len).checked_sub(available) {
            None | Some(0) => Head::Whole { skip, len },
            Some(missing) => Head::Part { missing },
        })
    }
}

/// The bytes before one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; PREFIX_MAX],
    framing: Framing,
}

impl Prefix {
    /// The prefix; empty without framing.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.framing.prefix_len()]
    }
}

/// What stands at the front of a stream.
enum Head {
    /// A message of `len` bytes after `skip` bytes of prefix.
    Whole { skip: usize, len: usize },
    /// At least `missing` more bytes decide.
    Part { missing: usize },
}

/// Why a [`Decoder`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Waiting {
    /// It stands between two messages and keeps nothing.
    #[default]
    Idle,
    /// It keeps the beginning of a message whose rest has not come.
    Rest,
    /// It keeps whole messages that its owner had no room for.
    Room,
}

/// What one call of a [`Decoder`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Messages handed out.
    pub messages: u32,
    /// Zero-length frames passed over.
    pub empty: u32,
    /// Why it stopped.
    pub waiting: Waiting,
}

/// Finds the messages in one stream. Eight bytes, and no block of the pool while it keeps nothing.
#[derive(Debug, Default)]
pub struct Decoder {
    kept: Queue,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { kept: Queue::new() }
    }

    /// Bytes kept: taken from the stream and not yet handed out.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Takes all of `input` and hands out each whole message, in order, until `take` answers `false`: then that message and
    /// everything after it is kept for the next call. An empty `input` offers again what was kept.
    ///
    /// A message that lies whole in `input` is handed out where it stands, without being copied.
    ///
    /// # Errors
    /// When the stream cannot go on. What was handed out before is valid; the decoder is to be cleared.
    pub fn feed(
        &mut self,
        codec: &Codec,
        pool: &mut Pool,
        input: &[u8],
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<Progress, DecodeError> {
        let mut progress = Progress::default();
        let Some(input) = self.feed_kept(codec, pool, input, &mut take, &mut progress)? else {
            return Ok(progress);
        };
        let mut rest = input;
        loop {
            match codec.head(first_of(rest), rest.len())? {
                Head::Part { .. } => break,
                Head::Whole { skip, len } => {
                    if !offer(&rest[skip..skip + len], &mut take, &mut progress) {
                        progress.waiting = Waiting::Room;
                        break;
                    }
                    rest = &rest[skip + len..];
                }
            }
        }
        if !rest.is_empty() {
            self.kept.push(pool, rest)?;
            if progress.waiting == Waiting::Idle {
                progress.waiting = Waiting::Rest;
            }
        }
        Ok(progress)
    }

    /// Drops what is kept.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.kept.clear(pool);
    }

    /// Hands out what is kept, completing its last message from `input`; `Some` is the rest of `input`, to be read where it
    /// stands, `None` that there is nothing more to do.
    fn feed_kept<'a>(
        &mut self,
        codec: &Codec,
        pool: &mut Pool,
        mut input: &'a [u8],
        take: &mut impl FnMut(&[u8]) -> bool,
        progress: &mut Progress,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        while !self.kept.is_empty() {
            let mut first = [0; PREFIX_MAX];
            self.kept.peek(pool, &mut first);
            match codec.head(first, self.kept.len())? {
                Head::Part { missing } => {
                    if input.is_empty() {
                        progress.waiting = Waiting::Rest;
                        return Ok(None);
                    }
                    let (now, later) = input.split_at(missing.min(input.len()));
                    self.kept.push(pool, now)?;
                    input = later;
                }
                Head::Whole { skip, len } => {
                    let message = pool.run(&self.kept, skip, len).unwrap_or_default();
                    if !offer(message, take, progress) {
                        self.kept.push(pool, input)?;
                        progress.waiting = Waiting::Room;
                        return Ok(None);
                    }
                    self.kept.consume(pool, skip + len);
                }
            }
        }
        Ok(Some(input))
    }
}

/// Offers a message; an empty one is counted and counts as taken.
fn offer(message: &[u8], take: &mut impl FnMut(&[u8]) -> bool, progress: &mut Progress) -> bool {
    if message.is_empty() {
        progress.empty += 1;
        return true;
    }
    let taken = take(message);
    progress.messages += u32::from(taken);
    taken
}

/// The first bytes of `bytes`, zeros where there are none.
fn first_of(bytes: &[u8]) -> [u8; PREFIX_MAX] {
    if let Some(first) = bytes.first_chunk() {
        return *first;
    }
    let mut first = [0; PREFIX_MAX];
    first[..bytes.len()].copy_from_slice(bytes);
    first
}

/// The longest prefix in bytes.
const PREFIX_MAX: usize = 4;

#[cfg(test)]
mod tests;
