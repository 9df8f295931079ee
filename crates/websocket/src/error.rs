//! What a peer can do wrong on an open connection, and the close code that each fault is owed.

use thiserror::Error;

/// A violation of RFC 6455 or of the caller's [`Limits`](crate::Limits) by the peer.
///
/// Its text is one short ASCII sentence, fit to be the reason of the close frame (at most 123 bytes).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set although no extension was negotiated (section 5.2).
    #[error("reserved bits are set but no extension was negotiated")]
    ReservedBits,

    /// Opcodes 3 to 7 and 11 to 15 have no meaning (section 5.2).
    #[error("the opcode is reserved")]
    ReservedOpcode,

    /// A client sent a frame without a mask (section 5.1).
    #[error("frames from a client must be masked")]
    Unmasked,

    /// A server sent a frame with a mask (section 5.1).
    #[error("frames from a server must not be masked")]
    Masked,

    /// A close, ping or pong without FIN (section 5.4).
    #[error("control frames must not be fragmented")]
    FragmentedControl,

    /// A close, ping or pong of more than 125 bytes (section 5.5).
    #[error("control frames must not be longer than 125 bytes")]
    ControlTooLong,

    /// A continuation frame with no message to continue (section 5.4).
    #[error("a continuation frame came without a message to continue")]
    UnexpectedContinuation,

    /// A text or binary frame before the last fragment of the message under way (section 5.4).
    #[error("a new message began before the last one was finished")]
    UnfinishedMessage,

    /// A payload length that would fit a shorter encoding (section 5.2).
    #[error("the payload length is not in its shortest encoding")]
    LengthNotMinimal,

    /// A 64-bit payload length with its top bit set (section 5.2).
    #[error("the payload length has its top bit set")]
    LengthTooLarge,

    /// More bytes declared for one message than [`Limits`](crate::Limits) allow.
    #[error("the message is too big")]
    MessageTooBig,

    /// More frames in one message than [`Limits`](crate::Limits) allow.
    #[error("the message has too many fragments")]
    TooManyFragments,

    /// A text message that is not UTF-8 (section 8.1).
    #[error("the text message is not valid UTF-8")]
    InvalidUtf8,

    /// A close frame of one byte, which is half a status code (section 5.5.1).
    #[error("the close frame holds half a status code")]
    TruncatedCloseCode,

    /// A close code that must not be sent (section 7.4).
    #[error("the close code must not be used on the wire")]
    InvalidCloseCode,

    /// A close reason that is not UTF-8 (section 5.5.1).
    #[error("the close reason is not valid UTF-8")]
    InvalidCloseReason,
}

impl ProtocolError {
    /// Every one of them.
    pub const ALL: [Self; 16] = [
        Self::ReservedBits,
        Self::ReservedOpcode,
        Self::Unmasked,
        Self::Masked,
        Self::FragmentedControl,
        Self::ControlTooLong,
        Self::UnexpectedContinuation,
        Self::UnfinishedMessage,
        Self::LengthNotMinimal,
        Self::LengthTooLarge,
        Self::MessageTooBig,
        Self::TooManyFragments,
        Self::InvalidUtf8,
        Self::TruncatedCloseCode,
        Self::InvalidCloseCode,
        Self::InvalidCloseReason,
    ];

    /// The status code to close the connection with: 1002, 1007 or 1009 (section 7.4.1).
    pub const fn close_code(self) -> u16 {
        match self {
            Self::InvalidUtf8 | Self::InvalidCloseReason => 1007,
            Self::MessageTooBig | Self::TooManyFragments => 1009,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Masked
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::LengthNotMinimal
            | Self::LengthTooLarge
            | Self::TruncatedCloseCode
            | Self::InvalidCloseCode => 1002,
        }
    }

    /// A stable name for metrics and logs, such as `invalid_utf8`.
    pub const fn reason(self) -> &'static str {
        // A new one belongs into `ALL` too.
        match self {
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::Unmasked => "unmasked",
            Self::Masked => "masked",
            Self::FragmentedControl => "fragmented_control",
            Self::ControlTooLong => "control_too_long",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::UnfinishedMessage => "unfinished_message",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTooLarge => "length_too_large",
            Self::MessageTooBig => "message_too_big",
            Self::TooManyFragments => "too_many_fragments",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TruncatedCloseCode => "truncated_close_code",
            Self::InvalidCloseCode => "invalid_close_code",
            Self::InvalidCloseReason => "invalid_close_reason",
        }
    }
}
