//! One error type per operation, each variant named for the rule that was broken.

/// Why [`Kcp::handle_datagram`](crate::Kcp::handle_datagram) refused (the rest of) a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// Fewer than 24 bytes. Reference: −1.
    TooShort,
    /// A segment names another conversation. Reference: −1.
    WrongConv,
    /// A segment announces more payload than the datagram holds, or 2^31 and more. Reference: −2.
    BadLength,
    /// A segment's command is none of PUSH, ACK, WASK, WINS. Reference: −3.
    UnknownCommand,
    /// Strict input: `una` acknowledges what was never sent (beyond `snd_nxt`).
    UnaBeyondSent,
    /// Strict input: an ACK names an `sn` that was never sent (at or beyond `snd_nxt`).
    AckBeyondSent,
    /// Strict input: a fragment count that no receive window could ever complete.
    FragmentBeyondWindow,
    /// Strict input: a payload on a segment that carries none, or fragment number on a non-PUSH.
    PayloadOnControl,
}

/// Why [`Kcp::send`](crate::Kcp::send) took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // as wide as a length, so that `Result<usize, SendError>` is returned in two registers
pub enum SendError {
    /// The message would need 128 fragments or more. Reference: −2.
    TooLong,
    /// The [`Store`](crate::Store)'s byte bound is reached.
    StoreFull,
}

/// Why [`Kcp::recv`](crate::Kcp::recv) returned no message. Nothing was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The receive queue is empty. Reference: −1.
    Empty,
    /// The head message still lacks fragments. Reference: −2.
    Incomplete,
    /// The buffer is smaller than the message. Reference: −3.
    BufferTooSmall {
        /// The message's size in bytes.
        needed: usize,
    },
}
