//! A room's message as a NATS message: the payload verbatim, a header that says `binary` when it is, and `traceparent`
//! when it is traced. Other text goes without any header, so that most messages cost none and `nats pub` can speak in a
//! room.

use bytes::Bytes;
use hubbub_api::names::{HEADER_OPCODE, OPCODE_BINARY, OPCODE_TEXT};
use hubbub_telemetry::{Remote, SpanRef, names::TRACEPARENT};
use hubbub_websocket::Kind;
use nats::{HeaderMap, Message};

/// What the header of a traced message takes at most, with those of NATS around it.
const TRACE_BYTES: usize = 128;

/// What the header of a binary message takes on the wire.
const BINARY_BYTES: usize = "NATS/1.0\r\n".len()
    + HEADER_OPCODE.len()
    + ": ".len()
    + OPCODE_BINARY.len()
    + "\r\n\r\n".len();

/// What an untraced message takes of the largest that NATS takes: headers count.
pub(super) fn size(kind: Kind, payload: &[u8]) -> usize {
    match kind {
        Kind::Text => payload.len(),
        Kind::Binary => BINARY_BYTES + payload.len(),
    }
}

/// The headers of a message that needs some.
pub(super) fn headers(kind: Kind, span: Option<SpanRef>) -> Option<HeaderMap> {
    let mut headers = match kind {
        Kind::Binary => binary_headers(),
        Kind::Text if span.is_none() => return None,
        Kind::Text => HeaderMap::new(),
    };
    if let Some(span) = span {
        headers.insert(TRACEPARENT, span.traceparent());
    }
    Some(headers)
}

/// The span, unless its header would make a message too large that is not so without: that it is traced must harm no
/// message.
pub(super) fn affordable(span: Option<SpanRef>, bytes: usize, most: usize) -> Option<SpanRef> {
    span.filter(|_| bytes + TRACE_BYTES <= most)
}

/// The span that a message comes from, if whoever sent it keeps that; another header than a well-formed one is none.
pub(super) fn span(message: &Message) -> Option<SpanRef> {
    let header = message.headers.as_ref()?.get(TRACEPARENT)?;
    Remote::parse(header.as_str()).filter(|remote| remote.sampled).map(|remote| remote.span)
}

/// What stands before the subject for the answer where JetStream hands over what a stream holds.
const FROM_A_STREAM: &str = "$JS.ACK.";

/// The message is neither text nor binary: text that is not UTF-8, or an opcode that nobody knows. Or nobody has said it: a
/// consumer hands over what a stream holds, or NATS tells how it is.
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
    let from_a_stream = |reply: &nats::Subject| reply.starts_with(FROM_A_STREAM);
    if message.status.is_some() || message.reply.as_ref().is_some_and(from_a_stream) {
        return Err(Malformed);
    }
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
    fn what_a_consumer_hands_over_is_no_message() {
        let handed = |reply: &str| Message { reply: Some(reply.into()), ..message(None, b"{}") };
        let of_a_stream = "$JS.ACK.KV_hubbub-policies.thief.1.4.4.1795000000000000000.0";
        assert_eq!(kind(&handed(of_a_stream)), Err(Malformed));
        // Other programs may ask for an answer when they speak in a room.
        assert_eq!(kind(&handed("_INBOX.Hq4nHyv1vZsQwkV7OzzKf0")), Ok(Kind::Text));
        let heartbeat =
            Message { status: Some(nats::StatusCode::IDLE_HEARTBEAT), ..message(None, b"") };
        assert_eq!(kind(&heartbeat), Err(Malformed));
    }

    #[test]
    fn a_traced_message_says_so_and_no_other() {
        let traced = Remote::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let traced = traced.map(|remote| remote.span);
        assert_eq!(headers(Kind::Text, None), None, "text costs no header");
        for kind in [Kind::Text, Kind::Binary] {
            let mut written = message(None, b"hello");
            written.headers = headers(kind, traced);
            assert_eq!(super::kind(&written), Ok(kind));
            assert_eq!(span(&written), traced);
        }
        assert_eq!(affordable(traced, 900, 1000), None);
        assert_eq!(affordable(traced, 800, 1000), traced);
    }

    #[test]
    fn what_others_write_there_does_no_harm() {
        for value in
            ["", "nonsense", "00-0-0-0", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"]
        {
            let mut written = message(None, b"hello");
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, value);
            written.headers = Some(headers);
            assert_eq!(kind(&written), Ok(Kind::Text));
            assert_eq!(span(&written), None, "{value}");
        }
    }

    #[test]
    fn what_this_gateway_writes_it_reads() {
        let mut written = message(None, b"hello");
        written.headers = Some(binary_headers());
        assert_eq!(kind(&written), Ok(Kind::Binary));
    }
}
