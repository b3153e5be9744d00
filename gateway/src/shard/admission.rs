//! Who may become a session: a pure decision on one datagram from an unknown key.

use kcp_core::{Conv, InputError, Kcp, KcpConfig, wire};

use super::stats::DropReason;

/// What the decision depends on beside the datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// The gateway drains.
    pub(super) draining: bool,
    /// The shard has more to do than it can, and serves those that are there.
    pub(super) shedding: bool,
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
        match Kcp::new(conv).check_datagram(config, datagram) {
            // It acknowledges what nobody here has sent: a client in the middle of a session that this gateway does not
            // know, after a restart or a moved address. Nothing is wrong with its datagram.
            Err(InputError::UnaBeyondSent | InputError::AckBeyondSent) => {
                return Err(DropReason::NotABirth);
            }
            checked => checked?,
        }
        wire::opening(datagram, config.rcv_wnd).ok_or(DropReason::NotABirth)?;
        if self.draining {
            return Err(DropReason::Draining);
        }
        if self.shedding {
            return Err(DropReason::Overload);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_the_middle_of_its_session_is_a_stranger_not_a_liar() {
        let admission =
            Admission { draining: false, shedding: false, sessions: 0, sessions_max: 1 };
        let decide = |cmd: u8, sn: u32, una: u32| {
            let mut segment = [7, 0, 0, 0, cmd, 0, 128, 0].to_vec();
            for field in [1, sn, una, 0] {
                segment.extend(u32::to_le_bytes(field));
            }
            let config = KcpConfig { strict: true, ..KcpConfig::default() };
            admission.decide(Conv(7), &segment, &config)
        };
        const PUSH: u8 = 81;
        const ACK: u8 = 82;
        assert_eq!(decide(PUSH, 0, 0), Ok(()));
        assert_eq!(decide(PUSH, 700, 600), Err(DropReason::NotABirth));
        assert_eq!(decide(ACK, 600, 600), Err(DropReason::NotABirth));
        assert_eq!(decide(80, 0, 0), Err(DropReason::UnknownCommand));
    }
}
