//! The payload of close frames: a status code and a reason for a person (sections 5.5.1 and 7.4).

use bytes::Bytes;

use crate::{
    ProtocolError,
    frame::{Opcode, frame, write_frame},
    header::MAX_CONTROL_BYTES,
};

/// The longest reason a close frame can carry, in bytes: a control frame less its status code.
pub const MAX_CLOSE_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

/// Why the peer closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// The status code, one that [`is_valid_close_code`] allows.
    pub code: u16,

    /// The reason, of at most [`MAX_CLOSE_REASON_BYTES`]; often empty.
    pub reason: &'a str,
}

impl<'a> Close<'a> {
    /// Reads the payload of a close frame; an empty one gives no code.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return if payload.is_empty() {
                Ok(None)
            } else {
                Err(ProtocolError::TruncatedCloseCode)
            };
        };
        let code = u16::from_be_bytes(*code);
        if !is_valid_close_code(code) {
            return Err(ProtocolError::InvalidCloseCode);
        }
        match std::str::from_utf8(reason) {
            Ok(reason) => Ok(Some(Self { code, reason })),
            Err(_) => Err(ProtocolError::InvalidCloseReason),
        }
    }
}

/// Whether `code` may stand in a close frame.
///
/// These are 1000 to 1003 and 1007 to 1011 of section 7.4.1, 1012 to 1014 of IANA's registry of
/// close codes, and 3000 to 4999 for libraries and applications. 1005, 1006 and 1015 only
/// describe a connection to its own side, 1004 is undefined, all else is reserved.
pub const fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// An unmasked close frame, as a server sends it.
///
/// `code` must be one that [`is_valid_close_code`] allows. A reason longer than
/// [`MAX_CLOSE_REASON_BYTES`] is cut at the boundary of a character.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let (payload, len) = payload(code, reason);
    frame(Opcode::Close, &payload[..len])
}

/// Appends a close frame to `out`, with `mask` as a client must send it; else as [`close_frame`].
pub fn write_close(out: &mut Vec<u8>, mask: Option<[u8; 4]>, code: u16, reason: &str) {
    let (payload, len) = payload(code, reason);
    write_frame(out, true, Opcode::Close, mask, &payload[..len]);
}

fn payload(code: u16, reason: &str) -> ([u8; MAX_CONTROL_BYTES], usize) {
    let mut end = reason.len().min(MAX_CLOSE_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = [0; MAX_CONTROL_BYTES];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + end].copy_from_slice(&reason.as_bytes()[..end]);
    (payload, 2 + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_rfc_and_the_registry() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014] {
            assert!(is_valid_close_code(code), "{code}");
        }
        for code in [3000, 3999, 4000, 4403, 4999] {
            assert!(is_valid_close_code(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!is_valid_close_code(code), "{code}");
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(Close::parse(b""), Ok(None));
        assert_eq!(Close::parse(b"\x03"), Err(ProtocolError::TruncatedCloseCode));
        assert_eq!(Close::parse(b"\x03\xe8"), Ok(Some(Close { code: 1000, reason: "" })));
        assert_eq!(Close::parse(b"\x03\xe9bye"), Ok(Some(Close { code: 1001, reason: "bye" })));
        assert_eq!(Close::parse(b"\x03\xed"), Err(ProtocolError::InvalidCloseCode));
        assert_eq!(Close::parse(b"\x03\xe8\xff"), Err(ProtocolError::InvalidCloseReason));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close_frame(1013, &"é".repeat(100));
        assert_eq!(frame[..4], [0x88, 124, 0x03, 0xf5], "122 of 123 bytes: no half character");
        assert_eq!(std::str::from_utf8(&frame[4..]), Ok("é".repeat(61).as_str()));
        assert_eq!(close_frame(1000, &"x".repeat(500)).len(), 2 + 125);
        assert_eq!(close_frame(1000, "")[..], [0x88, 2, 0x03, 0xe8]);

        let mut masked = Vec::new();
        write_close(&mut masked, Some([0; 4]), 1000, "ok");
        assert_eq!(masked, b"\x88\x84\0\0\0\0\x03\xe8ok");
    }
}
