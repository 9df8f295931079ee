//! Who is taken out of a room by the real program: peers that are silent, that do not read, or that vanish. Each of
//! them is logged once, with its cause, and nobody else notices.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::time::Duration;

use hubbub_testkit::{
    Client, GatewayProcess, Member, OPEN, Received, RoomsFile, eventually, within,
};
use hubbub_websocket::Opcode;
use serde_json::Value;
use tokio::net::TcpSocket;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const THROTTLES: &str = "hubbub_gateway_throttles_total{limit=\"messages\"}";
const UNEXPECTED: &str = "connection ended unexpectedly";

async fn gateway(heartbeat: &str) -> (RoomsFile, GatewayProcess) {
    let file = RoomsFile::lobby(&format!("{OPEN}, heartbeat: {{{heartbeat}}}"));
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    (file, gateway)
}

async fn join(gateway: &GatewayProcess) -> Client {
    Client::join(gateway.listen(), LOBBY, None).await.expect("the room is served")
}

/// The one line about the one connection that ended.
async fn told_once(gateway: &GatewayProcess) -> Value {
    eventually("an unexpected end is logged", || gateway.find(UNEXPECTED).is_some()).await;
    // The connection is counted out after its line, so a second line would be there now.
    let lines = gateway.find_all(UNEXPECTED);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().expect("one line")
}

async fn connections_become(gateway: &GatewayProcess, wanted: f64) {
    within("the connections are counted", async {
        while gateway.metric("hubbub_gateway_connections").await != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// How many were cut for that reason, and how many messages or bytes waited for them in all.
async fn evicted(gateway: &GatewayProcess, what: &str, reason: &str) -> (f64, f64) {
    let name = |part| format!("hubbub_gateway_eviction_queue_{what}_{part}{{reason=\"{reason}\"}}");
    (gateway.metric(&name("count")).await, gateway.metric(&name("sum")).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_pinged_and_who_answers_stays() {
    // So long that a busy machine does not make a member late.
    let (_file, gateway) = gateway("pongWait: 30s, pingPeriod: 200ms").await;
    let member = Member::of(join(&gateway).await);
    eventually("pings keep coming", || member.pings() >= 5).await;
    assert!(!member.has_ended());
    assert!(gateway.metric("hubbub_gateway_pings_total").await >= 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_answers_a_ping_is_out_after_pong_wait_even_if_it_talks() {
    let (_file, gateway) = gateway("pongWait: 1s, pingPeriod: 100ms").await;
    let mut talker = join(&gateway).await;
    let mut pings = 0;
    let code = loop {
        match talker.next().await {
            Received::Ping(_) => {
                pings += 1;
                talker.send("no pong, but words").await.expect("still open");
            }
            Received::Text(_) => {}
            Received::Close(close) => break close.map(|(code, _)| code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, Some(1013));
    assert!(pings >= 1);
    talker.send_close(1013).await.expect("still open");
    let line = told_once(&gateway).await;
    assert_eq!((&line["reason"], &line["by"]), (&"pong_timeout".into(), &"gateway".into()));
    assert_eq!(evicted(&gateway, "messages", "pong_timeout").await, (1.0, 0.0), "it heard all");
    assert!(line["duration_ms"].as_u64() >= Some(1000), "not before its time: {line}");
    connections_become(&gateway, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_that_nobody_asked_for_counts_as_a_sign_of_life() {
    let (_file, gateway) = gateway("pongWait: 30s, pingPeriod: 200ms").await;
    let mut one = join(&gateway).await;
    one.send_frame(true, Opcode::Pong, b"unasked").await.unwrap();
    one.send("here").await.unwrap();
    assert_eq!(one.next_message().await, Received::Text("here".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_held_back_by_its_rate_is_not_taken_for_dead() {
    let file = RoomsFile::lobby(
        "allowedOrigins: ['*'], requireOrigin: false, limits: {messagesPerSecond: 1, burst: 1}, \
         heartbeat: {pongWait: 2s, pingPeriod: 500ms}",
    );
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    let mut eager = join(&gateway).await;
    // Four seconds of words at once: any pong waits behind them, far beyond pongWait.
    for n in 0..5 {
        eager.send(&format!("{n}")).await.unwrap();
    }
    for n in 0..5 {
        assert_eq!(eager.next_message().await, Received::Text(format!("{n}")));
    }
    assert!(gateway.metric(THROTTLES).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_dropped_after_write_wait_and_others_notice_nothing() {
    let (_file, gateway) = gateway("pongWait: 60s, pingPeriod: 50s, writeWait: 500ms").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(gateway.listen()).await.unwrap();
    let deaf = Client::join_on(socket, LOBBY, None).await.expect("the room is served");
    let (one, two) = (Member::of(join(&gateway).await), Member::of(join(&gateway).await));
    // Less than the megabyte that may wait, more than the kernel holds.
    let words = "x".repeat(16_000);
    for n in 1..=40 {
        one.send(&words).await;
        eventually("it is heard", || one.count() == n && two.count() == n).await;
    }
    let line = told_once(&gateway).await;
    assert_eq!((&line["reason"], &line["by"]), (&"write_timeout".into(), &"gateway".into()));
    let (cut, waited) = evicted(&gateway, "messages", "write_timeout").await;
    assert!(cut == 1.0 && (1.0..=40.0).contains(&waited), "{cut} cut, {waited} messages waited");
    let (cut, waited) = evicted(&gateway, "bytes", "write_timeout").await;
    assert!(cut == 1.0 && (1.0..=640_200.0).contains(&waited), "{cut} cut, {waited} bytes waited");
    connections_become(&gateway, 2.0).await;
    one.send("after").await;
    two.hears("after").await;
    assert!(!one.has_ended() && !two.has_ended());
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_evicts_the_slow_member_alone_with_1013() {
    let file = RoomsFile::lobby(
        "allowedOrigins: ['*'], requireOrigin: false, \
         limits: {messagesPerSecond: 100000, burst: 100000, maxMessageBytes: 20000, sendQueue: 8}",
    );
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    let mut slow = join(&gateway).await;
    let (one, two) = (Member::of(join(&gateway).await), Member::of(join(&gateway).await));
    let mut sent = 0;
    while gateway.find(UNEXPECTED).is_none() {
        let discarded = gateway.metric("hubbub_gateway_deliveries_discarded_total").await;
        if discarded > 0.0 {
            break;
        }
        sent += 1;
        one.send(&format!("{sent:05}{}", "x".repeat(16_000))).await;
        eventually("it is heard", || one.count() == sent && two.count() == sent).await;
    }
    // What the kernel had taken comes first, in order, then the reason.
    let mut got = 0;
    let close = loop {
        match slow.next_message().await {
            Received::Text(text) => {
                got += 1;
                assert!(text.starts_with(&format!("{got:05}")), "in order and without a gap");
            }
            Received::Close(close) => break close,
            other => panic!("{other:?}"),
        }
    };
    assert!(close.is_some_and(|(code, reason)| code == 1013 && reason.contains("too slow")));
    slow.send_close(1013).await.expect("still open");
    let told = told_once(&gateway).await;
    assert_eq!(told["reason"], "queue_full");
    assert_eq!(told["messages_out"], got, "what was thrown away did not go out");
    // The one that was too many, and those that waited but for one that had begun to go out; not a megabyte of them.
    let discarded = gateway.metric("hubbub_gateway_deliveries_discarded_total").await;
    assert!(
        (1.0..=9.0).contains(&discarded),
        "{discarded} messages waited for room in a queue of 8"
    );
    assert_eq!(evicted(&gateway, "messages", "queue_full").await, (1.0, 9.0), "one too many");
    one.send("after").await;
    two.hears("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_vanish_are_logged_once_with_the_cause_and_others_stay() {
    for reset in [true, false] {
        let (_file, gateway) = gateway("pongWait: 60s, pingPeriod: 50s").await;
        let (one, two) = (Member::of(join(&gateway).await), Member::of(join(&gateway).await));
        let mut vanishing = join(&gateway).await;
        connections_become(&gateway, 3.0).await;
        if reset {
            socket2::SockRef::from(&*vanishing.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(vanishing);
        connections_become(&gateway, 2.0).await;
        let line = told_once(&gateway).await;
        assert_eq!((&line["reason"], &line["by"]), (&"peer_gone".into(), &"peer".into()));
        assert_eq!(line["room"], "demo/lobby");
        assert!(line["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{line}");
        one.send("after").await;
        two.hears("after").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farewell_is_answered_with_its_code_and_is_no_news() {
    let (_file, gateway) = gateway("pongWait: 60s, pingPeriod: 50s").await;
    for code in [1000, 1001] {
        let mut polite = join(&gateway).await;
        polite.send_close(code).await.unwrap();
        assert_eq!(polite.close_code().await, Some(code));
        assert_eq!(polite.next().await, Received::End, "the server closes first");
    }
    connections_become(&gateway, 0.0).await;
    assert_eq!(gateway.find(UNEXPECTED), None);
    let mut rude = join(&gateway).await;
    rude.send_close(4999).await.unwrap();
    assert_eq!(rude.close_code().await, Some(4999));
    let line = told_once(&gateway).await;
    assert_eq!((&line["reason"], &line["code"]), (&"peer_closed".into(), &4999.into()));
}
