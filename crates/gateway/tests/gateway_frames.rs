//! Frames that break the protocol or a room's limit, against the real gateway: each sender gets the close code that it
//! is owed, before the connection ends, and nobody else notices.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::time::Duration;

use futures_util::future::join_all;
use hubbub_testkit::{Client, GatewayProcess, Received, RoomsFile, eventually};
use hubbub_websocket::Opcode;

const LOBBY: &str = "/rooms/demo/lobby";
const ORIGIN: Option<&str> = Some("https://app.example.com");

/// The room's `maxMessageBytes`.
const LIMIT: usize = 64 * 1024;

/// Fragments that a message of that room may have.
const FRAGMENTS: usize = 1024;

async fn gateway() -> (GatewayProcess, RoomsFile) {
    let spec = r#"{allowedOrigins: ["*"], limits: {maxMessageBytes: 65536, messagesPerSecond: 100000, burst: 100000}}"#;
    let rooms = RoomsFile::new(&[("lobby", spec)]);
    let gateway =
        GatewayProcess::start(env!("CARGO_BIN_EXE_hubbub-gateway"), &rooms.arguments()).await;
    (gateway, rooms)
}

async fn join(gateway: &GatewayProcess) -> Client {
    Client::join(gateway.listen(), LOBBY, ORIGIN).await.expect("an open room")
}

/// A frame with any first byte; its mask is of zeros, which leaves the payload as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match payload.len() {
        length @ 0..=125 => vec![first, 0x80 | length as u8],
        length => [&[first, 0x80 | 126], (length as u16).to_be_bytes().as_slice()].concat(),
    };
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The start of a frame that declares this length in eight bytes, and one byte of its payload.
fn declared(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0x80 | 127], length.to_be_bytes().as_slice(), &[0, 0, 0, 0, b'x']].concat()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(0x88, &[code.to_be_bytes().as_slice(), reason].concat())
}

fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

fn faults() -> Vec<(String, Vec<u8>, u16)> {
    let mut rows: Vec<(String, Vec<u8>, u16)> = Vec::new();
    let mut row = |name: &str, bytes: Vec<u8>, code| rows.push((name.to_owned(), bytes, code));
    row("unmasked text", b"\x81\x01x".to_vec(), 1002);
    row("unmasked ping", b"\x89\x00".to_vec(), 1002);
    row("unmasked close", b"\x88\x02\x03\xe8".to_vec(), 1002);
    for (bit, name) in [(0x40, "RSV1"), (0x20, "RSV2"), (0x10, "RSV3"), (0x70, "all RSV")] {
        row(name, masked(0x81 | bit, b"x"), 1002);
        row(&format!("{name} on a ping"), masked(0x89 | bit, b""), 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        row(&format!("opcode {opcode}"), masked(0x80 | opcode, b"x"), 1002);
    }
    for (opcode, name) in [(8, "close"), (9, "ping"), (10, "pong")] {
        row(&format!("{name} of 126 bytes"), masked(0x80 | opcode, &[b'a'; 126]), 1002);
        row(&format!("{name} of 2^62 bytes"), declared(0x80 | opcode, 1 << 62), 1002);
        row(&format!("{name} in fragments"), masked(opcode, b"ab"), 1002);
    }
    row("close of one byte", masked(0x88, b"\x03"), 1002);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, u16::MAX] {
        row(&format!("close code {code}"), close(code, b""), 1002);
    }
    row("close reason not UTF-8", close(1000, b"\xc3\x28"), 1007);
    for (name, text) in [
        ("a lone continuation byte", b"a\x80".as_slice()),
        ("overlong slash", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond U+10FFFF", b"\xf4\x90\x80\x80"),
        ("0xff", b"ok\xff"),
        ("half a character", b"half \xe2\x82"),
    ] {
        row(&format!("text of {name}"), masked(0x81, text), 1007);
        let (start, end) = text.split_at(1);
        let split = joined(&[masked(0x01, start), masked(0x00, b""), masked(0x80, end)]);
        row(&format!("text of {name}, in fragments"), split, 1007);
    }
    let early = joined(&[masked(0x01, b"bad \xff"), masked(0x00, b"goes on")]);
    row("bad text, before its message ends", early, 1007);
    row("continuation of nothing", masked(0x80, b"x"), 1002);
    row(
        "continuation after a whole message",
        joined(&[masked(0x81, b"m"), masked(0x80, b"x")]),
        1002,
    );
    for first in [0x01, 0x02, 0x81, 0x82] {
        let two = joined(&[masked(0x01, b"a"), masked(first, b"b")]);
        row(&format!("a message within a message ({first:#x})"), two, 1002);
    }
    row("5 bytes in two bytes of length", b"\x81\xfe\x00\x05\0\0\0\0hello".to_vec(), 1002);
    row("200 bytes in eight bytes of length", declared(0x82, 200), 1002);
    for (name, length) in [("2^63", 1 << 63), ("2^64-1", u64::MAX)] {
        row(&format!("{name} bytes"), declared(0x82, length), 1002);
    }
    for (name, length) in [("2^62", 1 << 62), ("2^63-1", u64::MAX >> 1), ("2^32", 1 << 32)] {
        row(&format!("{name} bytes"), declared(0x82, length), 1009);
        let later = joined(&[masked(0x02, b"x"), declared(0x80, length)]);
        row(&format!("{name} bytes in the second fragment"), later, 1009);
    }
    row("one byte too many, not one of them sent", declared(0x81, LIMIT as u64 + 1), 1009);
    let parts =
        joined(&[masked(0x02, &[0; 60_000]), masked(0x00, &[0; 5_536]), masked(0x80, b"x")]);
    row("one byte too many over three fragments", parts, 1009);
    rows
}

#[tokio::test]
async fn each_fault_gets_its_close_code_and_harms_nobody_else() {
    let (gateway, _rooms) = gateway().await;
    let mut witness = join(&gateway).await;
    let faults = faults();
    for (name, bytes, code) in &faults {
        let mut client = join(&gateway).await;
        client.send_bytes(bytes).await.expect("an open socket");
        let mut closed = None;
        while closed.is_none() {
            match client.next_message().await {
                Received::Close(close) => closed = Some(close),
                Received::End => panic!("{name}: ended without a close frame"),
                // What was whole before the fault reached the room, the sender included.
                Received::Text(text) => assert_eq!(text, "m", "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        let (told, reason) = closed.flatten().expect("a code and a reason");
        assert_eq!(told, *code, "{name}: {reason}");
        assert!(!reason.is_empty() && reason.is_ascii(), "{name}: {reason:?}");
        assert_eq!(client.next().await, Received::End, "{name}");
    }
    witness.send("still here").await.unwrap();
    assert_eq!(witness.next_message().await, Received::Text("m".to_owned()));
    assert_eq!(witness.next_message().await, Received::Text("still here".to_owned()));
    gateway.metric_until("hubbub_gateway_connections", |open| open == 1.0).await;
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
    // A line is on its way for a moment after its end was counted.
    let told = || gateway.find_all("connection ended unexpectedly").len();
    eventually("each is logged", || told() >= faults.len()).await;
    assert_eq!(told(), faults.len(), "each is logged once");
}

#[tokio::test]
async fn what_is_within_the_rules_passes() {
    let (gateway, _rooms) = gateway().await;
    let mut client = join(&gateway).await;
    let largest = vec![7; LIMIT];
    client.send_frame(true, Opcode::Binary, &largest).await.unwrap();
    assert_eq!(client.next_message().await, Received::Binary(largest));
    // As many fragments as are allowed, a ping between any two of the first few.
    client.send_frame(false, Opcode::Text, b"a").await.unwrap();
    for n in 2..=FRAGMENTS {
        if n < 20 {
            client.send_frame(true, Opcode::Ping, b"between").await.unwrap();
        }
        client.send_frame(n == FRAGMENTS, Opcode::Continuation, b"a").await.unwrap();
    }
    assert_eq!(client.next_message().await, Received::Text("a".repeat(FRAGMENTS)));
    for code in [1000, 1001, 1003, 1007, 1008, 1011, 1012, 1014, 3000, 4999] {
        let mut client = join(&gateway).await;
        client.send_close(code).await.unwrap();
        assert_eq!(client.close_code().await, Some(code));
        assert_eq!(client.next().await, Received::End);
    }
}

#[tokio::test]
async fn endless_fragments_end() {
    let (gateway, _rooms) = gateway().await;
    let mut witness = join(&gateway).await;
    let mut before = u64::MAX;
    for (round, fragment) in [0, 1, 1024, 0, 1, 1024].into_iter().enumerate() {
        if round == 3 {
            before = gateway.resident_bytes(); // the first time round, what all connections share is set up
        }
        let fragment = vec![b'a'; fragment];
        let mut client = join(&gateway).await;
        client.send_frame(false, Opcode::Text, &fragment).await.unwrap();
        for _ in 0..4 * FRAGMENTS {
            if client.send_frame(false, Opcode::Continuation, &fragment).await.is_err() {
                break; // it was cut already
            }
        }
        assert_eq!(client.close_code().await, Some(1009), "fragments of {}", fragment.len());
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 2 * 1024 * 1024, "{grown} bytes more");
    witness.send("still here").await.unwrap();
    assert_eq!(witness.next_message().await, Received::Text("still here".to_owned()));
}

/// Slower than any count catches: only the time for one message ends this.
#[tokio::test]
async fn a_message_that_trickles_on_for_ever_is_cut() {
    let (gateway, _rooms) = gateway().await;
    let mut trickles = Vec::new();
    for opening in
        [masked(0x01, b""), masked(0x02, b"a"), masked(0x82, &[0; 200])[..100].to_vec(), vec![0x81]]
    {
        let mut client = join(&gateway).await;
        client.send_bytes(&opening).await.unwrap();
        let fragments = opening[0] & 0x80 == 0;
        let half_header = opening.len() == 1;
        trickles.push(async move {
            loop {
                let pause = Duration::from_millis(200);
                match tokio::time::timeout(pause, client.receive()).await {
                    Ok(Received::Close(close)) => return close.map(|(code, _)| code),
                    Ok(Received::End) => return None,
                    Ok(_) => {}
                    Err(_) if half_header => {}
                    Err(_) if fragments => {
                        let _ = client.send_frame(false, Opcode::Continuation, b"").await;
                    }
                    Err(_) => drop(client.send_bytes(b"x").await),
                }
            }
        });
    }
    // All four at once: each takes the whole of its time.
    assert_eq!(join_all(trickles).await, [Some(1008); 4]);
}

#[tokio::test]
async fn lengths_that_are_only_declared_cost_nothing() {
    let (gateway, _rooms) = gateway().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(join(&gateway).await);
    }
    let before = gateway.resident_bytes();
    for client in &mut clients {
        client.send_bytes(&declared(0x82, LIMIT as u64)).await.unwrap();
    }
    // Once each has been read, a ping within the frame would be payload; so another member asks instead.
    let mut witness = join(&gateway).await;
    witness.send("asked").await.unwrap();
    assert_eq!(witness.next_message().await, Received::Text("asked".to_owned()));
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 1024 * 1024, "{grown} bytes more for 50 messages of 64 KiB that never come");

    let before = gateway.resident_bytes();
    for length in [LIMIT as u64 + 1, 1 << 62, 1 << 40].into_iter().cycle().take(150) {
        let mut client = join(&gateway).await;
        client.send_bytes(&declared(0x82, length)).await.unwrap();
        assert_eq!(client.close_code().await, Some(1009));
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 1024 * 1024, "{grown} bytes more after 150 huge lengths");
}
