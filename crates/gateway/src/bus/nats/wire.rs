//! A room's message as a NATS message: the payload verbatim, and a header that says `binary` when it is. Text goes
//! without any header, so that most messages cost none and `nats pub` can speak in a room.

use bytes::Bytes;
use hubbub_api::names::{HEADER_OPCODE, OPCODE_BINARY, OPCODE_TEXT};
use hubbub_websocket::Kind;
use nats::{HeaderMap, Message};

/// The message is neither text nor binary: text that is not UTF-8, or an opcode that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The headers of a binary message.
pub(super) fn binary_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_OPCODE, OPCODE_BINARY);
    headers
}

/// What kind of message this is. Text is always UTF-8, whoever sent it, because a browser ends a connection that
/// sends it other text.
pub(super) fn kind(message: &Message) -> Result<Kind, Malformed> {
    let opcode = message.headers.as_ref().and_then(|headers| headers.get(HEADER_OPCODE));
    let is_text = |payload: &Bytes| simdutf8::basic::from_utf8(payload).is_ok();
    match opcode.map(nats::HeaderValue::as_str) {
        Some(OPCODE_BINARY) => Ok(Kind::Binary),
        Some(OPCODE_TEXT) if is_text(&message.payload) => Ok(Kind::Text),
        Some(_) => Err(Malformed),
        None if is_text(&message.payload) => Ok(Kind::Text),
        None => Ok(Kind::Binary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(opcode: Option<&str>, payload: &'static [u8]) -> Message {
        let headers = opcode.map(|opcode| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER_OPCODE, opcode);
            headers
        });
        Message {
            subject: "hubbub.room.demo.lobby".into(),
            reply: None,
            payload: Bytes::from_static(payload),
            headers,
            status: None,
            description: None,
            length: payload.len(),
        }
    }

    #[test]
    fn text_is_utf_8_whoever_sent_it() {
        for (opcode, payload, want) in [
            (None, &b"hello"[..], Ok(Kind::Text)),
            (None, &b""[..], Ok(Kind::Text)),
            (None, &b"\xff"[..], Ok(Kind::Binary)),
            (Some("text"), &b"hello"[..], Ok(Kind::Text)),
            (Some("text"), &b"\xff"[..], Err(Malformed)),
            (Some("binary"), &b"hello"[..], Ok(Kind::Binary)),
            (Some("binary"), &b"\xff"[..], Ok(Kind::Binary)),
            (Some("ping"), &b"hello"[..], Err(Malformed)),
        ] {
            assert_eq!(kind(&message(opcode, payload)), want, "{opcode:?} {payload:?}");
        }
    }

    #[test]
    fn what_this_gateway_writes_it_reads() {
        let mut written = message(None, b"hello");
        written.headers = Some(binary_headers());
        assert_eq!(kind(&written), Ok(Kind::Binary));
    }
}
