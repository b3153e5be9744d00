//! Who may become a session: a pure decision on one datagram from an unknown key.

use kcp_core::{Conv, InputError, Kcp, KcpConfig, wire};

use super::stats::DropReason;

/// What the decision depends on beside the datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// The gateway drains.
    pub(super) draining: bool,
    /// Live sessions.
    pub(super) sessions: u32,
    /// Sessions allowed.
    pub(super) sessions_max: u32,
}

impl Admission {
    /// Decides on the first datagram of a would-be session. KCP has no handshake: a session begins with a whole valid first
    /// segment, and nothing else in the datagram may be unsound.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn decide(
        self,
        conv: Conv,
        datagram: &[u8],
        config: &KcpConfig,
    ) -> Result<(), DropReason> {
        Kcp::new(conv).check_datagram(config, datagram)?;
        wire::opening(datagram, config.rcv_wnd).ok_or(DropReason::NotABirth)?;
        if self.draining {
            return Err(DropReason::Draining);
        }
        if self.sessions >= self.sessions_max {
            return Err(DropReason::SessionCap);
        }
        Ok(())
    }
}

impl From<InputError> for DropReason {
    fn from(error: InputError) -> Self {
        match error {
            InputError::TooShort => Self::Short,
            InputError::WrongConv => Self::WrongConv,
            InputError::BadLength => Self::BadLength,
            InputError::UnknownCommand => Self::UnknownCommand,
            InputError::UnaBeyondSent => Self::UnaBeyondSent,
            InputError::AckBeyondSent => Self::AckBeyondSent,
            InputError::FragmentBeyondWindow => Self::FragmentBeyondWindow,
            InputError::PayloadOnControl => Self::PayloadOnControl,
        }
    }
}
