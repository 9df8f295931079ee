//! Frames to send.

use bytes::Bytes;

use crate::{header::MAX_HEADER_BYTES, mask};

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Bytes of any value.
    Binary,
}

/// What a frame is (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation,
    /// A text message or its first fragment.
    Text,
    /// A binary message or its first fragment.
    Binary,
    /// The begin or the answer of the closing handshake.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer to a ping, or an unasked sign of life.
    Pong,
}

impl Opcode {
    /// The four bits on the wire.
    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// The opcode of a frame's first byte, or `None` for one of the reserved ones.
    pub(crate) const fn from_bits(first: u8) -> Option<Self> {
        Some(match first & 0x0F {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a close, ping or pong, which may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// The bytes that a frame's header takes before `payload_len` bytes: 2 to 14.
pub const fn header_len(payload_len: usize, masked: bool) -> usize {
    let length = match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    if masked { length + 4 } else { length }
}

/// A whole unmasked frame (FIN set), as a server sends it.
///
/// One buffer of exactly the frame's size; clones share it, so every member of a room can be sent
/// the same bytes. A control frame's payload must not exceed
/// [`MAX_CONTROL_BYTES`](crate::MAX_CONTROL_BYTES); the peer refuses a longer one.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(header_len(payload.len(), false) + payload.len());
    write_frame(&mut out, true, opcode, None, payload);
    out.into()
}

/// Appends one frame to `out`: with `fin` false a fragment, with `mask` as a client must send it.
///
/// A key must be unpredictable for whoever chooses the payload (section 10.3); a load generator
/// that speaks to its own server need not care.
pub fn write_frame(
    out: &mut Vec<u8>,
    fin: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload: &[u8],
) {
    let mut header = [0; MAX_HEADER_BYTES];
    let header_len = header_len(payload.len(), mask.is_some());
    header[0] = if fin { 0x80 } else { 0 } | opcode.bits();
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..=125 => header[1] = mask_bit | len as u8,
        len @ 126..=0xFFFF => {
            header[1] = mask_bit | 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            header[1] = mask_bit | 127;
            header[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        header[header_len - 4..header_len].copy_from_slice(&key);
    }
    out.reserve(header_len + payload.len());
    out.extend_from_slice(&header[..header_len]);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        mask::apply(&mut out[start..], key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(frame(Opcode::Text, b"Hello")[..], *b"\x81\x05Hello");
        assert_eq!(frame(Opcode::Ping, b"Hello")[..], *b"\x89\x05Hello");

        let mut masked = Vec::new();
        write_frame(&mut masked, true, Opcode::Text, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello");
        assert_eq!(masked, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");

        let mut fragments = Vec::new();
        write_frame(&mut fragments, false, Opcode::Text, None, b"Hel");
        write_frame(&mut fragments, true, Opcode::Continuation, None, b"lo");
        assert_eq!(fragments, b"\x01\x03Hel\x80\x02lo");

        assert_eq!(frame(Opcode::Binary, &[7; 256])[..4], *b"\x82\x7e\x01\x00");
        assert_eq!(frame(Opcode::Binary, &[7; 65536])[..10], *b"\x82\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn lengths_take_their_shortest_encoding() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (0xFFFF, 4), (0x1_0000, 10)] {
            assert_eq!(header_len(len, false), header);
            assert_eq!(header_len(len, true), header + 4);
            let frame = frame(Opcode::Binary, &vec![0; len]);
            assert_eq!(frame.len(), header + len);
        }
    }
}
