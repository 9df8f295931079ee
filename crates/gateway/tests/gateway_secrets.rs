//! What a client tells in confidence stays between it and the gateway.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{
    Client, GatewayProcess, Handshake, Jaeger, Received, RoomsFile, TokenIssuer, chat_room,
    eventually, http,
};
use serde_json::json;

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

/// Tokens by every way that they come, good and bad, and renewed: neither in answers, logs at any level, metrics, nor traces.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_told_to_nobody_whatever_becomes_of_it() {
    const ISSUER: &str = "https://id.example.com/";
    const SERVICE: &str = "hubbub-gateway";
    let (issuer, stranger) = (TokenIssuer::new(ISSUER, "one"), TokenIssuer::new(ISSUER, "one"));
    let spec = format!(
        "allowedOrigins: ['https://app.example.com'], auth: {{jwt: {{issuer: '{ISSUER}', audiences: [chat], \
         jwks: {{inline: '{}'}}, queryParameter: access_token}}}}",
        issuer.jwks()
    );
    let rooms = RoomsFile::of_text(&chat_room("lobby", &spec));
    let jaeger = Jaeger::start().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hubbub-gateway"));
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log", "trace", "--log-format", "json"]).args(rooms.arguments());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.grpc());
    command.env("OTEL_TRACES_SAMPLER_ARG", "1").env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let gateway = GatewayProcess::start_command(command).await;

    let good = issuer.token("chat");
    let tokens = [
        (good.clone(), 101),
        (issuer.token_with("chat", &json!({"exp": 1})), 401),
        (issuer.token("mail"), 401),
        (issuer.token_with("chat", &json!({"hubbub": {}})), 403),
        (stranger.token("chat"), 401),
        (issuer.sign_headed(&json!({"alg": "none"}), &issuer.claims("chat")), 401),
    ];
    let renewed = issuer.token_with("chat", &json!({"iat": 7}));
    // The head of a token is the same in all of them, and no secret.
    let secrets = |token: &str| token.split('.').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let mut hidden = secrets(&renewed);
    let to = |target: &str| {
        Handshake::new(gateway.listen(), target).with("Origin", "https://app.example.com")
    };
    for (token, status) in &tokens {
        hidden.extend(secrets(token));
        let protocols = format!("hubbub.v1, hubbub.bearer.{token}");
        for handshake in [
            to(LOBBY).with("Authorization", format!("Bearer {token}")),
            to(LOBBY).with("Sec-WebSocket-Protocol", protocols),
            to(&format!("{LOBBY}?access_token={token}")),
            to(&format!("{LOBBY}?access_token={token}")).without("Upgrade").without("Connection"),
        ] {
            let answer = handshake.answer().await;
            assert!([*status, 200].contains(&answer.status), "{answer:?}");
            let told = format!("{answer:?}");
            assert!(!hidden.iter().any(|secret| told.contains(secret)), "{told}");
        }
    }
    let headers = [("Sec-WebSocket-Protocol", format!("hubbub.v1, hubbub.bearer.{good}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut member =
        Client::join_with(gateway.listen(), LOBBY, ORIGIN, &headers).await.expect("a good token");
    member.send(&format!("\u{1}token {renewed}")).await.unwrap();
    member.send("heard").await.unwrap();
    assert_eq!(member.next_message().await, Received::Text("heard".to_owned()));
    member.send(&format!("\u{1}token {}", stranger.token("chat"))).await.unwrap();
    assert_eq!(member.close_code().await, Some(4401));
    eventually("its end is logged", || gateway.find("connection ended unexpectedly").is_some())
        .await;

    // Three accepted handshakes, the member's and what it said, and some of the refused ones.
    let spans = jaeger.until(SERVICE, &[], |spans| spans.len() >= 5).await;
    let mut told = vec![format!("{spans:?}")];
    for path in ["/metrics", "/rooms", "/readyz"] {
        told.push(http::get(gateway.admin(), path).await.body);
    }
    let log = gateway.log();
    assert!(log.len() > tokens.len(), "there is a log to look at");
    told.extend(log);
    let telling: Vec<_> =
        told.iter().filter(|text| hidden.iter().any(|secret| text.contains(secret))).collect();
    assert_eq!(telling, [""; 0]);
}
