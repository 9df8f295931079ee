//! The decoder against the `tokio-websockets` library: what one accepts the other must accept, with
//! the same events, and what one refuses the other must refuse.
//!
//! They differ, and are meant to, in four points:
//! - The library looks at a header when two bytes of it are there, this decoder at each byte; a
//!   stream that ends after a wrong first byte is refused here and only short there.
//! - The library adds up a message's fragments when they have arrived, this decoder when they are
//!   announced; a stream that ends within a fragment too many is refused here and only short there.
//! - The library counts no fragments.
//! - The library (0.13.3) does not check a text whose last fragment is empty: one that ends within
//!   a character is accepted, and the next text is then judged with the left-over bytes before it.
//!   Such streams are told apart and asserted to be refused here.

#![allow(clippy::unwrap_used, reason = "only run by tests")]

mod support;

use futures_util::{SinkExt as _, StreamExt as _};
use hubbub_websocket::{Kind, Limits, Opcode, Role, frame, write_frame};
use proptest::{collection::vec, prelude::*};
use support::{End, Outcome, Seen, run, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_websockets::{ClientBuilder, Error, Message, ServerBuilder};

/// Sizes that streams meet and miss; no limit on fragments, and room for any control frame.
const LIMITS: Limits =
    Limits { max_message_bytes: 70_000, max_fragments: u32::MAX, long_texts: None };

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// How the library ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerEnd {
    Refused,
    Closed,
    /// The bytes ended first.
    Ended,
}

/// Runs the library over `bytes` as `role` receives them.
fn run_library(role: Role, bytes: &[u8]) -> (Vec<Seen>, PeerEnd) {
    block_on(async {
        // Room for all that either side writes, so that neither waits for the other.
        let (near, mut far) = duplex(16 << 20);
        let limits =
            tokio_websockets::Limits::default().max_payload_len(Some(LIMITS.max_message_bytes));
        let mut peer = match role {
            Role::Server => ServerBuilder::new().limits(limits).serve(near),
            Role::Client => ClientBuilder::new().limits(limits).take_over(near),
        };
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let mut seen = Vec::new();
        loop {
            match peer.next().await {
                None => return (seen, PeerEnd::Ended),
                // The bytes ended within a frame.
                Some(Err(Error::Io(_))) => return (seen, PeerEnd::Ended),
                Some(Err(_)) => return (seen, PeerEnd::Refused),
                Some(Ok(message)) => {
                    let event = from_library(&message);
                    seen.push(event);
                    if message.is_close() {
                        return (seen, PeerEnd::Closed);
                    }
                }
            }
        }
    })
}

fn from_library(message: &Message) -> Seen {
    let payload = message.as_payload().to_vec();
    if message.is_text() {
        Seen::Message(Kind::Text, payload)
    } else if message.is_binary() {
        Seen::Message(Kind::Binary, payload)
    } else if message.is_ping() {
        Seen::Ping(payload)
    } else if message.is_pong() {
        Seen::Pong(payload)
    } else if payload.is_empty() {
        Seen::Close(None) // the library reports the code 1005 for it
    } else {
        let (code, reason) = message.as_close().unwrap();
        Seen::Close(Some((code.into(), reason.to_owned())))
    }
}

/// Compares the two over one stream.
fn compare(role: Role, bytes: &[u8]) -> Result<Outcome, TestCaseError> {
    let (seen, end) = run(role, bytes, &[], LIMITS);
    let (library_seen, library_end) = run_library(role, bytes);
    let expected = match end {
        End::Refused(_) => PeerEnd::Refused,
        End::Closed => PeerEnd::Closed,
        End::Clean | End::Within => PeerEnd::Ended,
    };
    if library_end == PeerEnd::Ended && end == End::Refused("message_too_big") {
        // The second point of difference; that neither saw more is checked below.
    } else if library_end == PeerEnd::Ended && expected == PeerEnd::Refused {
        // The first point of difference: one more byte, and the library sees it too.
        let masked = if role == Role::Server { 0x80 } else { 0 };
        let (later_seen, later_end) = run_library(role, &[bytes, &[masked]].concat());
        prop_assert_eq!(later_end, PeerEnd::Refused, "{:?}", end);
        prop_assert_eq!(later_seen, &seen[..]);
    } else {
        prop_assert_eq!(library_end, expected, "{:?}", end);
    }
    prop_assert_eq!(library_seen, &seen[..]);
    Ok((seen, end))
}

fn text_ends_within_a_character_before_an_empty_fragment(role: Role) -> Vec<u8> {
    let key = (role == Role::Server).then_some([1, 2, 3, 4]);
    let mut bytes = Vec::new();
    write_frame(&mut bytes, false, Opcode::Text, key, b"\xC3");
    write_frame(&mut bytes, true, Opcode::Continuation, key, b"");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn the_same_events_and_the_same_refusals(script in vec(any::<u8>(), 0..300), server: bool) {
        let role = if server { Role::Server } else { Role::Client };
        let bytes = stream::build(role, &script);
        if let (_, End::Refused("invalid_utf8")) = run(role, &bytes, &[], LIMITS) {
            // Perhaps the last point; where the library refuses too, they must agree.
            let (seen, _) = run(role, &bytes, &[], LIMITS);
            let (library_seen, library_end) = run_library(role, &bytes);
            if library_end == PeerEnd::Refused && library_seen.len() == seen.len() {
                prop_assert_eq!(library_seen, seen);
            } else {
                let late = library_seen.get(seen.len());
                prop_assert!(
                    matches!(late, Some(Seen::Message(Kind::Text, text)) if std::str::from_utf8(text).is_err()),
                    "the library refused late, but for another reason: {:?}", late
                );
            }
        } else {
            compare(role, &bytes)?;
        }
    }

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..40), server: bool) {
        compare(if server { Role::Server } else { Role::Client }, &bytes)?;
    }
}

#[test]
fn a_text_that_ends_within_a_character_is_refused_here() {
    for role in [Role::Server, Role::Client] {
        let bytes = text_ends_within_a_character_before_an_empty_fragment(role);
        assert_eq!(run(role, &bytes, &[], LIMITS), (vec![], End::Refused("invalid_utf8")));
        let (library_seen, _) = run_library(role, &bytes);
        assert_eq!(
            library_seen,
            [Seen::Message(Kind::Text, b"\xC3".to_vec())],
            "the library checks it now: take the exception out of this file"
        );
    }
}

#[test]
fn every_close_code_is_judged_alike() {
    for code in 0..=u16::MAX {
        let bytes = frame(Opcode::Close, &code.to_be_bytes());
        compare(Role::Client, &bytes).unwrap();
    }
}

#[test]
fn each_reads_what_the_other_writes() {
    let payloads = [0, 1, 125, 126, 65_535, 65_536].map(|len| vec![b'x'; len]);
    for role in [Role::Server, Role::Client] {
        block_on(async {
            let (near, mut far) = duplex(1 << 20);
            let mut peer = match role {
                Role::Server => ClientBuilder::new().take_over(near),
                Role::Client => ServerBuilder::new().serve(near),
            };
            for payload in &payloads {
                peer.send(Message::binary(payload.clone())).await.unwrap();
                peer.send(Message::ping(payload[..payload.len().min(125)].to_vec())).await.unwrap();
            }
            peer.send(Message::text("é")).await.unwrap();
            peer.send(Message::close(None, "")).await.unwrap();
            drop(peer);
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.unwrap();
            let mut expected: Vec<Seen> = Vec::new();
            for payload in &payloads {
                expected.push(Seen::Message(Kind::Binary, payload.clone()));
                expected.push(Seen::Ping(payload[..payload.len().min(125)].to_vec()));
            }
            expected.push(Seen::Message(Kind::Text, "é".into()));
            expected.push(Seen::Close(None));
            assert_eq!(run(role, &bytes, &[1000], LIMITS), (expected, End::Closed));
        });
    }
}
