//! The origin table, as real handshakes: who comes in, who does not, and what a refused page is told.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{GatewayProcess, Handshake, RoomsFile};
use serde_json::Value;

const ROOMS: [(&str, &str); 4] = [
    ("exact", r#"{allowedOrigins: ["https://app.example.com"]}"#),
    ("wild", r#"{allowedOrigins: ["https://*.example.com"]}"#),
    ("lenient", r#"{allowedOrigins: ["https://app.example.com"], requireOrigin: false}"#),
    ("nowhere", r#"{allowedOrigins: ["null"]}"#),
];

const NOT_ALLOWED: &str = "origin_not_allowed";
const MALFORMED: &str = "origin_malformed";

/// Room, origin, and the reason of the refusal; `""` for who is let in.
const TABLE: [(&str, &str, &str); 47] = [
    ("exact", "https://app.example.com", ""),
    ("exact", "https://APP.Example.COM", ""),
    ("exact", "HTTPS://app.example.com", ""),
    ("exact", "https://app.example.com:443", ""),
    ("exact", "http://app.example.com", NOT_ALLOWED),
    ("exact", "http://app.example.com:443", NOT_ALLOWED),
    ("exact", "https://app.example.com:8443", NOT_ALLOWED),
    ("exact", "https://app.example.com:80", NOT_ALLOWED),
    ("exact", "https://example.com", NOT_ALLOWED),
    ("exact", "https://app.example.com.evil.com", NOT_ALLOWED),
    ("exact", "https://evil-app.example.com", NOT_ALLOWED),
    ("exact", "https://evilapp.example.com", NOT_ALLOWED),
    ("exact", "https://sub.app.example.com", NOT_ALLOWED),
    ("exact", "https://app.example.com@evil.com", MALFORMED),
    ("exact", "https://app.example.com:443@evil.com", MALFORMED),
    ("exact", "https://evil.com#@app.example.com", MALFORMED),
    ("exact", "https://app.example.comevil", NOT_ALLOWED),
    ("exact", "null", NOT_ALLOWED),
    ("exact", "NULL", MALFORMED),
    ("exact", "", MALFORMED),
    ("exact", "https://app.example.com.", MALFORMED),
    ("exact", "https://app.example.com/", MALFORMED),
    ("exact", "https://app.example.com/chat", MALFORMED),
    ("exact", "https://app.example.com\\evil.com", MALFORMED),
    ("exact", "https://app.example.com?x", MALFORMED),
    ("exact", "https:app.example.com", MALFORMED),
    ("exact", "//app.example.com", MALFORMED),
    ("exact", "app.example.com", MALFORMED),
    ("exact", "https://", MALFORMED),
    ("exact", "https://app.example.com:", MALFORMED),
    ("exact", "https://app.example.com:0443", MALFORMED),
    ("exact", "https://app.example.com:65536", MALFORMED),
    ("exact", "file://", MALFORMED),
    ("exact", "data:text/html,x", MALFORMED),
    ("exact", "wss://app.example.com", MALFORMED),
    // The first letter is Cyrillic; below, the same in punycode.
    ("exact", "https://\u{430}pp.example.com", MALFORMED),
    ("exact", "https://xn--pp-6kc.example.com", NOT_ALLOWED),
    ("exact", "https://app.example.com,https://evil.com", MALFORMED),
    ("exact", "https://app.example.com https://evil.com", MALFORMED),
    ("exact", "\u{a0}https://app.example.com", MALFORMED),
    ("wild", "https://a.example.com", ""),
    ("wild", "https://a.b.c.example.com", ""),
    ("wild", "https://example.com", NOT_ALLOWED),
    ("wild", "https://x.example.com.evil.com", NOT_ALLOWED),
    ("wild", "https://evilexample.com", NOT_ALLOWED),
    ("wild", "http://a.example.com", NOT_ALLOWED),
    ("nowhere", "null", ""),
];

async fn gateway() -> (GatewayProcess, RoomsFile) {
    let rooms = RoomsFile::new(&ROOMS);
    let gateway =
        GatewayProcess::start(env!("CARGO_BIN_EXE_hubbub-gateway"), &rooms.arguments()).await;
    (gateway, rooms)
}

fn to(gateway: &GatewayProcess, room: &str) -> Handshake {
    Handshake::new(gateway.listen(), format!("/rooms/demo/{room}"))
}

async fn refused(gateway: &GatewayProcess, reason: &str) -> f64 {
    let metric = format!("hubbub_gateway_handshakes_total{{outcome=\"{reason}\"}}");
    gateway.metric(&metric).await
}

/// Makes the handshake and checks that it is refused for this reason, counted once, and that nothing is given away.
async fn is_refused(gateway: &GatewayProcess, handshake: &Handshake, reason: &str, case: &str) {
    let before = refused(gateway, reason).await;
    let answer = handshake.answer().await;
    assert_eq!(answer.status, 403, "{case}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{case}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["reason"], reason, "{case}");
    let told = format!("{answer:?}");
    assert!(!told.contains("example.com"), "{case}: neither the list nor the origin: {told}");
    assert!(!told.contains("evil"), "{case}: {told}");
    assert_eq!(answer.header("sec-websocket-accept"), None, "{case}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{case}");
    assert_eq!(refused(gateway, reason).await, before + 1.0, "{case} is counted");
}

#[tokio::test]
async fn each_origin_of_the_table() {
    let (gateway, _rooms) = gateway().await;
    for (room, origin, reason) in TABLE {
        let case = format!("{origin:?} in {room}");
        let handshake = to(&gateway, room).with("Origin", origin);
        if reason.is_empty() {
            let answer = handshake.answer().await;
            assert_eq!(answer.status, 101, "{case}: {answer:?}");
        } else {
            is_refused(&gateway, &handshake, reason, &case).await;
        }
    }
    let let_in = TABLE.iter().filter(|row| row.2.is_empty()).count() as f64;
    assert_eq!(refused(&gateway, "accepted").await, let_in);
}

#[tokio::test]
async fn no_origin_two_origins_and_a_huge_one() {
    let (gateway, _rooms) = gateway().await;
    let good = "https://app.example.com";
    is_refused(&gateway, &to(&gateway, "exact"), "origin_missing", "none").await;
    assert_eq!(to(&gateway, "lenient").answer().await.status, 101);
    let wrong = to(&gateway, "lenient").with("Origin", "https://evil.com");
    is_refused(&gateway, &wrong, NOT_ALLOWED, "an origin is looked at where none is required")
        .await;

    for (first, second) in [(good, "https://evil.com"), ("https://evil.com", good), (good, good)] {
        let two = to(&gateway, "exact").with("Origin", first).with("origin", second);
        is_refused(&gateway, &two, "origin_repeated", "two").await;
    }
    let long = format!("https://{}.example.com", "a".repeat(8 * 1024));
    let huge = to(&gateway, "wild").with("Origin", &long);
    is_refused(&gateway, &huge, MALFORMED, "8 KiB").await;
    for byte in [0x80_u8, 0xc3, 0xff] {
        let garbage =
            to(&gateway, "exact").with("Origin", [b"https://app".as_slice(), &[byte]].concat());
        is_refused(&gateway, &garbage, MALFORMED, "not UTF-8").await;
    }
    // White space around a header's value is no part of it (RFC 9110, 5.5): HTTP takes it off.
    let spaced = to(&gateway, "exact").with("Origin", format!("  {good}\t "));
    assert_eq!(spaced.answer().await.status, 101);
    // Sec-WebSocket-Origin is of a draft that nobody speaks; it is no origin.
    let draft = to(&gateway, "exact").with("Sec-WebSocket-Origin", good);
    is_refused(&gateway, &draft, "origin_missing", "of a draft").await;
    let referred = to(&gateway, "exact").with("Referer", format!("{good}/"));
    is_refused(&gateway, &referred, "origin_missing", "a referer").await;
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}
