//! What a client tells in confidence stays between it and the gateway.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{Client, GatewayProcess, Handshake, Received, RoomsFile, eventually, http};

const LOBBY: &str = "/rooms/demo/lobby";
const ORIGIN: Option<&str> = Some("https://app.example.com");

/// A token in the query, in every way that a request with one can end: not in logs at any level, nor on the admin port.
#[tokio::test]
async fn what_stands_in_a_query_is_told_to_nobody() {
    const MARKER: &str = "s3cr3tm4rk3r";
    let rooms = RoomsFile::new(&[("lobby", r#"{allowedOrigins: ["https://app.example.com"]}"#)]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hubbub-gateway"));
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log", "trace", "--log-format", "json"]).args(rooms.arguments());
    let gateway = GatewayProcess::start_command(command).await;

    let query = format!("?access_token={MARKER}&origin={MARKER}");
    let target = |path: &str| format!("{path}{query}");
    let good =
        Handshake::new(gateway.listen(), target(LOBBY)).with("Origin", "https://app.example.com");
    let unknown = Handshake::new(gateway.listen(), target("/rooms/demo/nowhere"));
    let requests = [
        (good.clone(), 101),
        (good.clone().set("Origin", format!("https://{MARKER}.example")), 403),
        (good.clone().without("Origin"), 403),
        (good.clone().set("Sec-WebSocket-Key", MARKER), 400),
        (good.clone().set("Sec-WebSocket-Version", MARKER), 426),
        (good.clone().with("Sec-WebSocket-Protocol", MARKER), 101),
        (good.clone().with("Authorization", format!("Bearer {MARKER}")), 101),
        (good.clone().with("Cookie", format!("session={MARKER}")), 101),
        (good.clone().with("traceparent", MARKER), 101),
        (good.clone().with(&format!("X {MARKER}"), "1"), 400),
        (good.clone().method("POST"), 405),
        (unknown, 404),
        (Handshake::new(gateway.listen(), target("/ws")), 404),
        (Handshake::new(gateway.listen(), target("/")), 404),
    ];
    for (request, status) in &requests {
        let answer = request.answer().await;
        assert_eq!(answer.status, *status, "{answer:?}");
        assert!(!format!("{answer:?}").contains(MARKER), "{answer:?}");
    }
    let plain = http::get(gateway.listen(), &target(LOBBY)).await;
    assert_eq!(plain.status, 200);
    assert!(!plain.body.contains(MARKER), "{plain:?}");

    let mut member = Client::join(gateway.listen(), &target(LOBBY), ORIGIN).await.unwrap();
    member.send(MARKER).await.unwrap();
    assert_eq!(member.next_message().await, Received::Text(MARKER.to_owned()));
    member.send_bytes(b"\x88\x92\0\0\0\0\x0f\xa0four thousand").await.unwrap();
    member.send_bytes(&[b'!'; 3]).await.unwrap();
    assert_eq!(member.close_code().await, Some(4000));

    for path in ["/metrics", "/rooms", "/readyz"] {
        let answer = http::get(gateway.admin(), path).await;
        assert!(!answer.body.contains(MARKER), "{path}: {answer:?}");
    }
    eventually("the last connection's end is logged", || {
        gateway.find("connection ended unexpectedly").is_some()
    })
    .await;
    assert!(gateway.log().len() > requests.len(), "there is a log to look at");
    let telling: Vec<String> = gateway
        .log()
        .into_iter()
        .filter(|line| line.contains(MARKER) || line.contains("access_token"))
        .collect();
    assert_eq!(telling, Vec::<String>::new());
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}
