//! What the tests of whole streams share: streams made from arbitrary bytes, a decoder's run over
//! one, and a decoder of the plainest kind to compare with.

// Each test binary takes what it needs.
#![allow(dead_code, unreachable_pub, reason = "compiled into several test binaries")]

pub mod reference;
pub mod stream;

use hubbub_websocket::{Decoder, Event, Kind, Limits, Role};

/// An event that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind, payload } => Self::Message(kind, payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => Self::Close(close.map(|c| (c.code, c.reason.to_owned()))),
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Between messages.
    Clean,
    /// Within a frame or a fragmented message.
    Within,
    /// With a close frame; the rest is not read.
    Closed,
    /// Refused, by the [`reason`](hubbub_websocket::ProtocolError::reason).
    Refused(&'static str),
}

/// What came of a stream.
pub type Outcome = (Vec<Seen>, End);

/// Runs the decoder over `bytes`, cut into reads of these lengths, which are repeated as needed.
pub fn run(role: Role, bytes: &[u8], reads: &[usize], limits: Limits) -> Outcome {
    let mut decoder = Decoder::new(role);
    let mut seen = Vec::new();
    let mut reads = reads.iter().copied().filter(|&len| len > 0).cycle();
    let mut rest = &mut bytes.to_vec()[..];
    let mut received = 0;
    while !rest.is_empty() {
        let len = reads.next().unwrap_or(usize::MAX).min(rest.len());
        let (read, later) = rest.split_at_mut(len);
        rest = later;
        received += len;
        let mut at = 0;
        loop {
            let (used, result) = decoder.decode(&mut read[at..], limits);
            at += used;
            assert!(at <= len, "more was used than was there");
            match result {
                Ok(Some(event)) => {
                    let event = Seen::from(event);
                    let closed = matches!(event, Seen::Close(_));
                    seen.push(event);
                    if closed {
                        return (seen, End::Closed);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut [], limits), (0, Err(error)));
                    assert_eq!((decoder.in_message(), decoder.heap_bytes()), (false, 0));
                    return (seen, End::Refused(error.reason()));
                }
            }
        }
        assert_eq!(at, len, "None means that all was used");
        assert_eq!(decoder.heap_bytes() > 0, decoder.in_message(), "memory without need");
        assert!(decoder.heap_bytes() <= 256 + 2 * received, "memory by what was declared");
    }
    (seen, if decoder.in_message() { End::Within } else { End::Clean })
}
