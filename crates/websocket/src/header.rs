//! A frame's header, section 5.2: what it says, and all that can be refused before the payload.

use crate::{
    ProtocolError,
    decoder::{Limits, Role},
    frame::{Kind, Opcode},
};

/// The longest frame header: two bytes, a 64-bit length and a mask.
pub const MAX_HEADER_BYTES: usize = 14;

/// The longest payload of a close, ping or pong (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// What is known of the fragmented message that a frame may belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageSoFar {
    /// Text or binary.
    pub(crate) kind: Kind,

    /// Frames received.
    pub(crate) fragments: u32,

    /// Payload bytes received.
    pub(crate) bytes: usize,
}

/// An accepted header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload_len: usize,

    /// How the message must begin, because with this frame it is longer than others may be.
    pub(crate) prefix: Option<&'static str>,

    /// Bytes of the header itself.
    pub(crate) len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, or gives `None` when it is not whole yet.
    ///
    /// Each field is judged as soon as it is whole, in the order of the bytes: how the stream was cut
    /// into reads never changes which fault is found.
    #[inline]
    pub(crate) fn parse(
        bytes: &[u8],
        role: Role,
        message: Option<MessageSoFar>,
        limits: Limits,
    ) -> Result<Option<Self>, ProtocolError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first).ok_or(ProtocolError::ReservedOpcode)?;
        let fin = first & 0x80 != 0;
        match (opcode, message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                if !fin {
                    return Err(ProtocolError::FragmentedControl);
                }
            }
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Continuation, Some(message)) => {
                if message.fragments >= limits.max_fragments {
                    return Err(ProtocolError::TooManyFragments);
                }
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(ProtocolError::UnfinishedMessage);
            }
            (Opcode::Text | Opcode::Binary, None) => {}
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match role {
            Role::Server if !masked => return Err(ProtocolError::Unmasked),
            Role::Client if masked => return Err(ProtocolError::Masked),
            Role::Server | Role::Client => {}
        }
        let short_len = second & 0x7F;
        if opcode.is_control() && usize::from(short_len) > MAX_CONTROL_BYTES {
            return Err(ProtocolError::ControlTooLong);
        }
        if opcode == Opcode::Close && short_len == 1 {
            return Err(ProtocolError::TruncatedCloseCode);
        }

        let rest = &bytes[2..];
        let (declared, rest) = match short_len {
            126 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                let len = u16::from_be_bytes(*len);
                if len < 126 {
                    return Err(ProtocolError::LengthNotMinimal);
                }
                (u64::from(len), rest)
            }
            127 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                let len = u64::from_be_bytes(*len);
                if len >> 63 != 0 {
                    return Err(ProtocolError::LengthTooLarge);
                }
                if len <= 0xFFFF {
                    return Err(ProtocolError::LengthNotMinimal);
                }
                (len, rest)
            }
            len => (u64::from(len), rest),
        };

        let (payload_len, prefix) = if opcode.is_control() {
            (usize::from(short_len), None)
        } else {
            let so_far = message.map_or(0, |message| message.bytes);
            let len = usize::try_from(declared).map_err(|_| ProtocolError::MessageTooBig)?;
            let total = so_far.checked_add(len).ok_or(ProtocolError::MessageTooBig)?;
            if total <= limits.max_message_bytes {
                (len, None)
            } else {
                let is_text = opcode == Opcode::Text
                    || message.is_some_and(|message| message.kind == Kind::Text);
                let longer = limits
                    .long_texts
                    .filter(|longer| is_text && total <= longer.max_bytes)
                    .ok_or(ProtocolError::MessageTooBig)?;
                (len, Some(longer.prefix))
            }
        };

        let (mask, rest) = if masked {
            let Some((key, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (Some(*key), rest)
        } else {
            (None, rest)
        };
        let len = bytes.len() - rest.len();
        Ok(Some(Self { fin, opcode, mask, payload_len, prefix, len }))
    }
}
