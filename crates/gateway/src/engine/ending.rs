//! Why a connection ended, and what its peer is told.

use std::io;

use hubbub_websocket::ProtocolError;

use crate::token::TokenFault;

/// Every way a connection can end. The labels are a closed set, fit for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The peer closed, with this code if it gave one.
    PeerClosed(Option<u16>),
    /// The peer's side ended without a close frame.
    PeerGone,
    /// The socket failed.
    SocketFailed(io::ErrorKind),
    /// The peer broke RFC 6455, or sent a message in too many fragments.
    Protocol(ProtocolError),
    /// The message is larger than the room's `maxMessageBytes`, which these are.
    TooLargeForRoom(u32),
    /// The message is larger than the bus carries.
    TooLargeForBus(usize),
    /// More control frames than anybody needs.
    ControlFlood,
    /// A message was begun and not finished in time.
    MessageTimeout,
    /// More messages wait for the member than its room allows.
    QueueFull,
    /// A message could not be written in time.
    WriteTimeout,
    /// No pong came in time.
    PongTimeout,
    /// The member's token has expired.
    TokenExpired,
    /// The room asks for a token that the member does not have, or for another one.
    TokenRefused,
    /// The token that was to take the place of the member's is not good.
    BadToken(TokenFault),
    /// The token that was to take the place of the member's is about somebody else.
    OtherSubject,
    /// It brought a token over the connection, and the room takes none.
    NoTokens,
    /// The subject of the token that it brought over the connection has all the connections that it may have.
    SubjectFull,
    /// The member may not say anything in the room.
    MayNotWrite,
    /// A message for the gateway that it does not know.
    UnknownControl,
    /// The room no longer allows the member's origin.
    OriginRevoked,
    /// The room is gone.
    RoomGone,
    /// The room was given to another pool, whose gateways serve it now.
    OtherPool,
    /// This gateway is short of memory.
    Shed,
    /// This gateway is going down and sent the member away in good order.
    Drained,
    /// This gateway went down before the member could be sent away in good order.
    Cut,
    /// The client left before its handshake was answered.
    NeverEntered,
    /// Our fault.
    Fault,
}

impl Ending {
    /// One of each kind; what goes with it means nothing.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let others = [
            Self::PeerClosed(None),
            Self::PeerGone,
            Self::SocketFailed(io::ErrorKind::Other),
            Self::TooLargeForRoom(0),
            Self::TooLargeForBus(0),
            Self::ControlFlood,
            Self::MessageTimeout,
            Self::QueueFull,
            Self::WriteTimeout,
            Self::PongTimeout,
            Self::TokenExpired,
            Self::TokenRefused,
            Self::BadToken(TokenFault::Malformed),
            Self::OtherSubject,
            Self::NoTokens,
            Self::SubjectFull,
            Self::MayNotWrite,
            Self::UnknownControl,
            Self::OriginRevoked,
            Self::RoomGone,
            Self::OtherPool,
            Self::Shed,
            Self::Drained,
            Self::Cut,
            Self::NeverEntered,
            Self::Fault,
        ];
        ProtocolError::ALL.into_iter().map(Self::Protocol).chain(others)
    }

    /// The ending of a connection whose socket failed so: a peer that went away shows as a reset, too.
    pub(super) fn of_socket(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::PeerGone,
            kind => Self::SocketFailed(kind),
        }
    }

    /// The ending of a connection whose bytes make no sense, or too big a message in a room that takes so many bytes.
    pub(super) fn of_bytes(error: ProtocolError, max_message_bytes: u32) -> Self {
        match error {
            ProtocolError::MessageTooBig => Self::TooLargeForRoom(max_message_bytes),
            error => Self::Protocol(error),
        }
    }

    /// A stable name, for logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        // A new one belongs into `all` too.
        match self {
            Self::PeerClosed(_) => "peer_closed",
            Self::PeerGone => "peer_gone",
            Self::SocketFailed(_) => "socket_failed",
            Self::Protocol(error) => error.reason(),
            Self::TooLargeForRoom(_) => ProtocolError::MessageTooBig.reason(),
            Self::TooLargeForBus(_) => "too_large_for_bus",
            Self::ControlFlood => "control_flood",
            Self::MessageTimeout => "message_timeout",
            Self::QueueFull => "queue_full",
            Self::WriteTimeout => "write_timeout",
            Self::PongTimeout => "pong_timeout",
            Self::TokenExpired => "token_expired",
            Self::TokenRefused => "token_refused",
            Self::BadToken(_) => "bad_token",
            Self::OtherSubject => "other_subject",
            Self::NoTokens => "no_tokens",
            Self::SubjectFull => "subject_full",
            Self::MayNotWrite => "may_not_write",
            Self::UnknownControl => "unknown_control",
            Self::OriginRevoked => "origin_revoked",
            Self::RoomGone => "room_gone",
            Self::OtherPool => "other_pool",
            Self::Shed => "memory",
            Self::Drained => "drained",
            Self::Cut => "cut",
            Self::NeverEntered => "never_entered",
            Self::Fault => "fault",
        }
    }

    /// The close code for the peer; `None` when nothing can or need be said.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        match self {
            Self::PeerClosed(code) => code,
            Self::Protocol(error) => Some(error.close_code()),
            Self::TooLargeForRoom(_) | Self::TooLargeForBus(_) => Some(1009),
            Self::ControlFlood
            | Self::MessageTimeout
            | Self::NoTokens
            | Self::MayNotWrite
            | Self::UnknownControl => Some(1008),
            Self::TokenExpired | Self::TokenRefused | Self::BadToken(_) | Self::OtherSubject => {
                Some(4401)
            }
            Self::QueueFull | Self::PongTimeout | Self::SubjectFull | Self::Shed => Some(1013),
            Self::OriginRevoked => Some(4403),
            Self::RoomGone => Some(4404),
            Self::Drained | Self::OtherPool => Some(1012),
            Self::Fault => Some(1011),
            Self::PeerGone
            | Self::SocketFailed(_)
            | Self::WriteTimeout
            | Self::Cut
            | Self::NeverEntered => None,
        }
    }

    /// The sentence that goes with the code, for a person.
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::PeerClosed(_) => String::new(),
            Self::PeerGone => "the connection ended without a close frame".to_owned(),
            Self::SocketFailed(kind) => format!("the socket failed: {kind}"),
            Self::Protocol(error) => error.to_string(),
            Self::TooLargeForRoom(limit) => {
                format!("the message is larger than the {limit} bytes that the room takes")
            }
            Self::TooLargeForBus(limit) => {
                format!("the message is larger than the {limit} bytes that the bus carries")
            }
            Self::ControlFlood => {
                "too many control frames: at most 10 a second, 50 at once".to_owned()
            }
            Self::MessageTimeout => "a message must be finished within 10 s".to_owned(),
            Self::QueueFull => "too slow: too many messages wait for this member".to_owned(),
            Self::WriteTimeout => "too slow: a message could not be written in time".to_owned(),
            Self::PongTimeout => "no pong came in time".to_owned(),
            Self::TokenExpired => "the token has expired; come back with a new one".to_owned(),
            Self::TokenRefused => {
                "the room no longer accepts this connection's token; come back with another".to_owned()
            }
            Self::BadToken(fault) => fault.to_string(),
            Self::OtherSubject => {
                "the new token is about somebody else; come back with it instead".to_owned()
            }
            Self::NoTokens => "this room takes no tokens: come back without one".to_owned(),
            Self::SubjectFull => {
                "the subject of this token has all the connections that --connections-per-subject allows; end one of them"
                    .to_owned()
            }
            Self::MayNotWrite => "this connection may not write in the room".to_owned(),
            Self::UnknownControl => {
                "a message that begins with the character U+0001 is for the gateway, which does not know this one"
                    .to_owned()
            }
            Self::OriginRevoked => "the room no longer allows this origin".to_owned(),
            Self::RoomGone => "the room is gone".to_owned(),
            Self::OtherPool => {
                "another gateway serves this room now; come back after a short wait".to_owned()
            }
            Self::Shed => {
                "this gateway is short of memory; come back after a short wait".to_owned()
            }
            Self::Drained => "this gateway is restarting; come back after a short wait".to_owned(),
            Self::Cut => "the drain's deadline passed".to_owned(),
            Self::NeverEntered => "the client left before its handshake was answered".to_owned(),
            Self::Fault => "an internal error".to_owned(),
        }
    }

    /// Whether somebody should look at it: neither a farewell nor what an operator asked for.
    #[must_use]
    pub fn is_unexpected(self) -> bool {
        !matches!(
            self,
            Self::PeerClosed(None | Some(1000 | 1001 | 1005))
                | Self::TokenExpired
                | Self::TokenRefused
                | Self::OriginRevoked
                | Self::RoomGone
                | Self::OtherPool
                | Self::Drained
                | Self::NeverEntered
        )
    }

    /// Whether the peer closed first, rather than this gateway.
    #[must_use]
    pub fn by_peer(self) -> bool {
        matches!(
            self,
            Self::PeerClosed(_) | Self::PeerGone | Self::SocketFailed(_) | Self::NeverEntered
        )
    }

    /// Whether this gateway failed the member.
    #[must_use]
    pub fn is_our_fault(self) -> bool {
        matches!(self, Self::Fault | Self::Cut)
    }

    /// What still waits for the member is worth nothing to it, or is what must be given up.
    pub(super) fn discards_queue(self) -> bool {
        matches!(self, Self::QueueFull | Self::Shed | Self::Fault)
    }

    /// Whether what the peer had sent before it learned of the close still reaches the room.
    pub(super) fn accepts_messages(self) -> bool {
        matches!(self, Self::Drained | Self::OtherPool)
    }

    /// Whether the peer's bytes still make sense, so that its close frame can be awaited.
    pub(super) fn can_read_on(self) -> bool {
        !matches!(self, Self::Protocol(_) | Self::TooLargeForRoom(_) | Self::Shed | Self::Fault)
    }
}
