//! Opening handshakes, good and bad, against the real gateway: each gets the status, the headers and the reason that it
//! is owed, before anything is upgraded.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{
    GatewayProcess, Handshake, RoomsFile,
    http::{self, Answer},
};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const LOBBY: &str = "/rooms/demo/lobby";

async fn gateway() -> (GatewayProcess, RoomsFile) {
    let rooms = RoomsFile::new(&[("lobby", r#"{allowedOrigins: ["*"], requireOrigin: false}"#)]);
    let gateway =
        GatewayProcess::start(env!("CARGO_BIN_EXE_hubbub-gateway"), &rooms.arguments()).await;
    (gateway, rooms)
}

/// What holds for every answer; its reason when it is a problem.
fn reason(answer: &Answer, case: &str) -> Option<String> {
    assert_eq!(answer.header("sec-websocket-extensions"), None, "{case}: {answer:?}");
    if answer.header("content-type") != Some("application/problem+json") {
        return None;
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], answer.status, "{case}");
    assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{case}");
    problem["reason"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn each_handshake_gets_the_answer_that_it_is_owed() {
    let (gateway, _rooms) = gateway().await;
    let good = Handshake::new(gateway.listen(), LOBBY);
    let key = "Sec-WebSocket-Key";
    let version = "Sec-WebSocket-Version";
    let many = |count| (0..count).fold(good.clone(), |h, n| h.with(&format!("X-{n}"), "1"));
    let big = |bytes| good.clone().with("Cookie", vec![b'a'; bytes]);

    // name, request, status, reason of a problem ("" where the HTTP layer answers, or the handshake is accepted)
    let rows: Vec<(&str, Handshake, u16, &str)> = vec![
        ("good", good.clone(), 101, ""),
        ("with a query", Handshake::new(gateway.listen(), "/rooms/demo/lobby?a=b&c"), 101, ""),
        ("lower case names", good.clone().without("Upgrade").with("upgrade", "websocket"), 101, ""),
        ("Upgrade: WebSocket", good.clone().set("Upgrade", "WebSocket"), 101, ""),
        ("list in Upgrade", good.clone().set("Upgrade", "h2c, websocket"), 101, ""),
        ("list in Connection", good.clone().set("Connection", "keep-alive, UPGRADE"), 101, ""),
        ("two Connections", good.clone().with("Connection", "keep-alive"), 101, ""),
        ("an empty length", good.clone().with("Content-Length", "0"), 101, ""),
        (
            "deflate offered",
            good.clone().with(
                "Sec-WebSocket-Extensions",
                "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame",
            ),
            101,
            "",
        ),
        ("protocols offered", good.clone().with("Sec-WebSocket-Protocol", "chat, v2"), 101, ""),
        ("garbage in traceparent", good.clone().with("traceparent", "00-zz\u{fffd}-;;"), 101, ""),
        ("no key", good.clone().without(key), 400, "missing_header"),
        ("empty key", good.clone().set(key, ""), 400, "bad_key"),
        ("key of 3 bytes", good.clone().set(key, "YWJj"), 400, "bad_key"),
        ("key of 15 bytes", good.clone().set(key, "MTIzNDU2Nzg5MDEyMzQ1"), 400, "bad_key"),
        ("key of 17 bytes", good.clone().set(key, "MTIzNDU2Nzg5MDEyMzQ1Njc="), 400, "bad_key"),
        ("key not in base64", good.clone().set(key, "dGhlIHNhbXBsZSBub25j!!=="), 400, "bad_key"),
        ("key without padding", good.clone().set(key, "dGhlIHNhbXBsZSBub25jZQ"), 400, "bad_key"),
        ("two keys", good.clone().with(key, "dGhlIHNhbXBsZSBub25jZQ=="), 400, "duplicate_header"),
        (
            "two keys in one",
            good.clone().set(key, "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="),
            400,
            "bad_key",
        ),
        ("no version", good.clone().without(version), 400, "missing_header"),
        ("version 8", good.clone().set(version, "8"), 426, "unsupported_version"),
        ("version 12", good.clone().set(version, "12"), 426, "unsupported_version"),
        ("version 013", good.clone().set(version, "013"), 426, "unsupported_version"),
        ("version in words", good.clone().set(version, "thirteen"), 426, "unsupported_version"),
        ("versions 13, 8", good.clone().set(version, "13, 8"), 426, "unsupported_version"),
        ("versions 13 and 8", good.clone().with(version, "8"), 400, "duplicate_header"),
        ("no Connection", good.clone().without("Connection"), 400, "missing_header"),
        ("Connection: close", good.clone().set("Connection", "close"), 400, "missing_header"),
        (
            "Connection: upgraded",
            good.clone().set("Connection", "upgraded, notupgrade"),
            400,
            "missing_header",
        ),
        ("no Host", good.clone().without("Host"), 400, "missing_header"),
        ("two Hosts", good.clone().with("Host", "evil.example"), 400, "duplicate_header"),
        ("POST", good.clone().method("POST"), 405, "bad_method"),
        ("PUT", good.clone().method("PUT"), 405, "bad_method"),
        ("DELETE", good.clone().method("DELETE"), 405, "bad_method"),
        ("OPTIONS", good.clone().method("OPTIONS"), 405, "bad_method"),
        ("an unknown method", good.clone().method("FROBNICATE"), 405, "bad_method"),
        ("HTTP/1.0", good.clone().version("HTTP/1.0"), 400, "http_version"),
        ("HTTP/2.0", good.clone().version("HTTP/2.0"), 400, ""),
        ("HTTP/9.9", good.clone().version("HTTP/9.9"), 400, ""),
        ("a body", good.clone().with("Content-Length", "5").body(b"hello"), 400, "has_body"),
        (
            "a body in chunks",
            good.clone().with("Transfer-Encoding", "chunked").body(b"0\r\n\r\n"),
            400,
            "has_body",
        ),
        (
            "length and chunks",
            good.clone()
                .with("Content-Length", "5")
                .with("Transfer-Encoding", "chunked")
                .body(b"0\r\n\r\n"),
            400,
            "has_body",
        ),
        ("a garbled length", good.clone().with("Content-Length", "five"), 400, ""),
        (
            "two lengths",
            good.clone().with("Content-Length", "0").with("Content-Length", "9"),
            400,
            "",
        ),
        ("a space in a name", good.clone().with("Bad Name", "x"), 400, ""),
        ("NUL in a value", good.clone().with("X-Bad", "a\0b"), 400, ""),
        ("a bare CR in a value", good.clone().with("X-Bad", "a\rb"), 400, ""),
        ("59 fields more", many(59), 101, ""),
        ("60 fields more", many(60), 431, "head_too_large"),
        ("10,000 fields", many(10_000), 431, ""),
        ("8 KiB of header", big(8 * 1024), 101, ""),
        ("16 KiB of header", big(16 * 1024), 431, "head_too_large"),
        ("64 KiB of header", big(64 * 1024), 431, ""),
        ("20 MB of header", big(20_000_000), 431, ""),
    ];
    for (case, handshake, status, wanted) in &rows {
        let answer = handshake.answer().await;
        assert_eq!(answer.status, *status, "{case}: {answer:?}");
        assert_eq!(reason(&answer, case).unwrap_or_default(), *wanted, "{case}");
        match status {
            101 => {
                let accept = answer.header("sec-websocket-accept");
                assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{case}");
                assert_eq!(answer.header("sec-websocket-protocol"), None, "{case}");
            }
            405 => assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{case}"),
            426 => {
                assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{case}");
                assert_eq!(answer.header("upgrade"), Some("websocket"), "{case}");
            }
            _ => {}
        }
    }
    let count = |status| rows.iter().filter(|row| row.2 == status).count() as f64;
    let accepted = gateway.metric(r#"hubbub_gateway_handshakes_total{outcome="accepted"}"#).await;
    assert_eq!(accepted, count(101));
    let old =
        gateway.metric(r#"hubbub_gateway_handshakes_total{outcome="unsupported_version"}"#).await;
    assert_eq!(old, count(426));
    gateway.metric_until("hubbub_gateway_connections", |open| open == 0.0).await;
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}

#[tokio::test]
async fn a_host_of_garbage_is_refused_and_not_repeated() {
    let (gateway, _rooms) = gateway().await;
    let good = Handshake::new(gateway.listen(), LOBBY);
    for host in ["", "a b", "[::1", "x:99999999", "a@b", "a/b", "\"'<>"] {
        let answer = good.clone().set("Host", host).answer().await;
        assert_eq!(answer.status, 400, "{host:?}: {answer:?}");
        if !host.is_empty() {
            assert!(!format!("{answer:?}").contains(host), "{host:?} is not repeated: {answer:?}");
        }
    }
    for host in ["other.example", "127.0.0.1:9", "[::1]:9", "under_score:"] {
        let answer = good.clone().set("Host", host).answer().await;
        assert_eq!(answer.status, 101, "{host:?}: {answer:?}");
    }
    let answer = good.set("Host", b"\xff\xfe\xfd").answer().await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}

#[tokio::test]
async fn what_is_no_http_at_all_is_cut() {
    let (gateway, _rooms) = gateway().await;
    let noise: Vec<u8> = (0..64 * 1024_u32).map(|n| (n * 131 % 251) as u8).collect();
    let greetings: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS hello \r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x81\x85\x00\x00\x00\x00hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /rooms/demo/lobby\r\n\r\n",
        b"\0\0\0\0\0\0\r\n\r\n",
        &noise,
    ];
    for greeting in greetings {
        let answer = http::request(gateway.listen(), greeting).await;
        assert!([0, 400, 431].contains(&answer.status), "{greeting:?}: {answer:?}");
    }
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}

#[tokio::test]
async fn a_head_request_gets_no_body_and_the_admin_port_no_rooms() {
    let (gateway, _rooms) = gateway().await;
    let head = Handshake::new(gateway.listen(), LOBBY)
        .method("HEAD")
        .set("Connection", "upgrade, close")
        .answer()
        .await;
    assert_eq!((head.status, head.body.as_str()), (405, ""), "nobody can be upgraded by it");
    assert_eq!(head.header("allow"), Some("GET, HEAD"));
    for path in [LOBBY, "/rooms/demo/none", "/none"] {
        let of = async |method: &str| {
            let asked = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            http::request(gateway.listen(), asked.as_bytes()).await
        };
        let (get, head) = (of("GET").await, of("HEAD").await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        for field in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(field), get.header(field), "{path}: {field}");
        }
    }

    let answer = Handshake::new(gateway.admin(), LOBBY).answer().await;
    assert_eq!(answer.status, 404, "{answer:?}");
    for path in ["/metrics", "/readyz", "/livez", "/rooms", "/drain"] {
        let answer = http::get(gateway.listen(), path).await;
        assert_eq!(answer.status, 404, "{path} is not for the public: {answer:?}");
    }
    assert_eq!(http::post(gateway.listen(), "/drain").await.status, 404);
}

#[tokio::test]
async fn what_is_refused_without_being_a_handshake_is_counted_by_reason_too() {
    let (gateway, _rooms) = gateway().await;
    let counted = async |metric: &str, label: &str, reason: &str| {
        gateway.metric(&format!("hubbub_gateway_{metric}_total{{{label}=\"{reason}\"}}")).await
    };
    let page =
        "GET /nowhere HTTP/1.1\r\nHost: chat\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    for (answer, status) in [
        (http::get(gateway.listen(), "/nowhere").await, 404),
        (http::request(gateway.listen(), page.as_bytes()).await, 404),
        (http::get(gateway.listen(), "/rooms/demo/missing").await, 404),
        (http::post(gateway.listen(), LOBBY).await, 405),
        (http::get(gateway.listen(), LOBBY).await, 200),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
    }
    for (reason, times) in [("no_such_path", 2.0), ("no_such_room", 1.0), ("bad_method", 1.0)] {
        assert_eq!(counted("requests_refused", "reason", reason).await, times, "{reason}");
        assert_eq!(counted("handshakes", "outcome", reason).await, 0.0, "{reason}");
    }
    let missing = Handshake::new(gateway.listen(), "/rooms/demo/missing").answer().await;
    assert_eq!(missing.status, 404);
    assert_eq!(counted("handshakes", "outcome", "no_such_room").await, 1.0);
    assert_eq!(counted("requests_refused", "reason", "no_such_room").await, 1.0);

    let failures =
        |reason: &str| format!("hubbub_gateway_http_failures_total{{reason=\"{reason}\"}}");
    let mut silent = TcpStream::connect(gateway.listen()).await.unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let _ = http::request(gateway.listen(), b"no HTTP at all\r\n\r\n").await;
    gateway.metric_until(&failures("malformed"), |count| count == 1.0).await;
    let big = Handshake::new(gateway.listen(), LOBBY).with("Cookie", vec![b'a'; 64 * 1024]);
    assert_eq!(big.answer().await.status, 431);
    gateway.metric_until(&failures("head_too_large"), |count| count == 1.0).await;
    let mut leaves = TcpStream::connect(gateway.listen()).await.unwrap();
    leaves.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    leaves.shutdown().await.unwrap();
    gateway.metric_until(&failures("unfinished"), |count| count == 1.0).await;
    gateway.metric_until(&failures("head_timeout"), |count| count == 1.0).await;
}
