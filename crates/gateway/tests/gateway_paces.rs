//! How much may be said: bytes a second by one member, and messages a second by a room, over all gateways. What is too much
//! waits; nothing is lost and nobody is closed.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{Client, GatewayProcess, Member, NatsServer, Received, RoomsFile, eventually};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const BY_BYTES: &str = "hubbub_gateway_throttles_total{limit=\"bytes\"}";
const BY_ROOM: &str = "hubbub_gateway_throttles_total{limit=\"room\"}";

fn room(limits: &str) -> RoomsFile {
    RoomsFile::lobby(&format!(
        "allowedOrigins: ['*'], requireOrigin: false, limits: {{messagesPerSecond: 100000, burst: 100000, \
         maxMessageBytes: 65536, {limits}}}, heartbeat: {{pongWait: 4s, pingPeriod: 1s}}"
    ))
}

#[tokio::test]
async fn a_member_over_its_bytes_is_held_back_and_loses_nothing() {
    let file = room("bytesPerSecond: 20000");
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    let mut sender = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    let reader = Member::join(gateway.listen(), LOBBY, None).await.unwrap();
    let other = Member::join(gateway.listen(), LOBBY, None).await.unwrap();
    for n in 0..10 {
        sender.send(&format!("{n}{}", "x".repeat(6_000))).await.unwrap();
    }
    // What others say does not wait behind it.
    other.send("me").await;
    reader.hears("me").await;
    eventually("all of it has come", || reader.count() == 11).await;
    let texts = reader.texts();
    let own: Vec<_> = texts.iter().filter(|text| text.len() > 2).collect();
    assert!(own.iter().enumerate().all(|(n, text)| text.starts_with(&n.to_string())), "in order");
    assert!(gateway.metric(BY_BYTES).await >= 1.0);
    assert_eq!(gateway.metric(BY_ROOM).await, 0.0);
    assert!(!reader.has_ended() && !other.has_ended());
}

#[tokio::test]
async fn a_room_over_its_rate_is_held_back_and_loses_nothing() {
    const MEMBERS: usize = 10;
    let file = room("roomMessagesPerSecond: 30");
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Member::join(gateway.listen(), LOBBY, None).await.unwrap());
    }
    for n in 0..10 {
        for (who, member) in members.iter().enumerate() {
            member.send(&format!("{who} {n}")).await;
        }
    }
    eventually("all has come to all", || members.iter().all(|member| member.count() == 100)).await;
    for member in &members {
        let texts = member.texts();
        for who in 0..MEMBERS {
            let prefix = format!("{who} ");
            let own = texts.iter().filter_map(|text| text.strip_prefix(&prefix));
            assert!(own.enumerate().all(|(n, text)| text == n.to_string()), "each in order");
        }
        assert!(!member.has_ended());
    }
    assert!(gateway.metric(BY_ROOM).await >= 10.0);
    assert_eq!(gateway.metric(BY_BYTES).await, 0.0);
}

/// Of two gateways one hears the other talk, and counts that against the room.
#[tokio::test]
async fn a_room_has_one_rate_over_all_gateways() {
    let nats = NatsServer::start().await;
    let file = room("roomMessagesPerSecond: 10");
    let flags = |id: &'static str| file.flags(&["--nats", &nats.url(), "--gateway-id", id]);
    let one = GatewayProcess::start(GATEWAY, &flags("one")).await;
    let other = GatewayProcess::start(GATEWAY, &flags("other")).await;
    for gateway in [&one, &other] {
        gateway.metric_until("hubbub_gateway_bus_connected", |connected| connected == 1.0).await;
    }
    let mut talker = Client::join(one.listen(), LOBBY, None).await.unwrap();
    let mut quiet = Client::join(other.listen(), LOBBY, None).await.unwrap();
    for n in 0..200 {
        talker.send(&format!("{n}")).await.unwrap();
    }
    // The first gateway lets through ten a second from now on, and the other has heard as many.
    for n in 0..20 {
        assert_eq!(quiet.next_message().await, Received::Text(n.to_string()));
    }
    assert_eq!(other.metric(BY_ROOM).await, 0.0, "nobody has said anything there");
    for n in 0..10 {
        quiet.send(&format!("quiet {n}")).await.unwrap();
    }
    let mut heard = 0;
    while heard < 10 {
        let Received::Text(text) = quiet.next_message().await else { panic!("a text") };
        if text.starts_with("quiet") {
            assert_eq!(text, format!("quiet {heard}"));
            heard += 1;
        }
    }
    assert!(other.metric(BY_ROOM).await >= 1.0, "the room's rate was used up elsewhere");
    assert!(one.metric(BY_ROOM).await >= 20.0);
}
