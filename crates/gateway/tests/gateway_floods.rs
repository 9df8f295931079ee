//! Clients that take more than their share: of memory, of time, of places. The gateway stays small, and whoever keeps
//! to the rules does not notice.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{
    Client, GatewayProcess, Handshake, Received, RoomsFile, http, raise_descriptors,
    slow_reader_is_out_alone, within,
};
use hubbub_websocket::Opcode;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

const LOBBY: &str = "/rooms/demo/lobby";
const ORIGIN: Option<&str> = Some("https://app.example.com");
const MEBIBYTE: u64 = 1024 * 1024;
const PANICS: &str = "hubbub_gateway_panics_total";

async fn gateway(limits: &str, further: &[&str]) -> (GatewayProcess, RoomsFile) {
    let spec = format!("{{allowedOrigins: [\"*\"], {limits}}}");
    let rooms = RoomsFile::new(&[("lobby", &spec), ("other", &spec)]);
    let mut arguments = rooms.arguments();
    arguments.extend(further.iter().map(|&argument| argument.to_owned()));
    let gateway = GatewayProcess::start(env!("CARGO_BIN_EXE_hubbub-gateway"), &arguments).await;
    (gateway, rooms)
}

async fn join(gateway: &GatewayProcess) -> Client {
    Client::join(gateway.listen(), LOBBY, ORIGIN).await.expect("an open room with places")
}

/// The members of the lobby, as the admin port tells.
async fn members(gateway: &GatewayProcess) -> u64 {
    let answer = http::get(gateway.admin(), "/rooms").await;
    let overview: Value = serde_json::from_str(&answer.body).unwrap();
    overview["rooms"][0]["members"].as_u64().unwrap()
}

/// The room works for somebody who has just come.
async fn serves(gateway: &GatewayProcess) {
    let mut client = join(gateway).await;
    client.send("served").await.unwrap();
    assert_eq!(client.next_message().await, Received::Text("served".to_owned()));
    assert_eq!(gateway.metric(PANICS).await, 0.0);
}

const THROTTLES: &str = "hubbub_gateway_throttles_total{limit=\"messages\"}";

const FAST: &str =
    "limits: {maxMessageBytes: 65536, messagesPerSecond: 100000, burst: 100000, sendQueue: 16}";

#[tokio::test]
async fn a_flood_of_pings_whose_pongs_nobody_reads_costs_no_memory() {
    let (gateway, _rooms) = gateway(FAST, &[]).await;
    let mut witness = join(&gateway).await;
    serves(&gateway).await;
    let before = gateway.resident_bytes();
    let mut flood = Vec::new();
    for _ in 0..1_000 {
        flood.extend_from_slice(b"\x89\xfd\0\0\0\0");
        flood.extend_from_slice(&[b'p'; 125]);
    }
    let mut client = join(&gateway).await;
    for _ in 0..200 {
        if client.send_bytes(&flood).await.is_err() {
            break; // it was cut already
        }
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    // The flood has 26 MB, and what the gateway needs for itself meanwhile varies by one or two.
    assert!(grown < 4 * MEBIBYTE, "{grown} bytes more");
    assert_eq!(client.close_code().await, Some(1008));
    assert_eq!(witness.next_message().await, Received::Text("served".to_owned()));
    serves(&gateway).await;
}

/// Pings that keep to the rate, and pongs that nobody asked for: both are fine.
#[tokio::test]
async fn a_few_pings_at_once_are_answered() {
    let (gateway, _rooms) = gateway(FAST, &[]).await;
    let mut client = join(&gateway).await;
    for n in 0..20 {
        client.send_frame(true, Opcode::Pong, b"unasked").await.unwrap();
        client.send_frame(true, Opcode::Ping, format!("{n}").as_bytes()).await.unwrap();
        assert_eq!(client.next().await, Received::Pong(format!("{n}").into_bytes()));
    }
}

#[tokio::test]
async fn half_requests_are_all_cut_and_others_come_in_meanwhile() {
    raise_descriptors();
    let (gateway, _rooms) = gateway(FAST, &[]).await;
    let whole =
        Handshake::new(gateway.listen(), LOBBY).with("Origin", "https://a.example").to_bytes();
    let mut halves = Vec::new();
    for n in 0..500 {
        let mut socket = TcpStream::connect(gateway.listen()).await.unwrap();
        // From nothing at all to everything but the last byte.
        let sent = [0, 1, 20, whole.len() / 2, whole.len() - 1][n % 5];
        socket.write_all(&whole[..sent]).await.unwrap();
        halves.push(socket);
    }
    serves(&gateway).await;
    for mut half in halves {
        let mut answer = Vec::new();
        let _ = within("the cut", half.read_to_end(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    // Only the socket that asks is left.
    gateway.metric_until("hubbub_gateway_http_sockets", |open| open <= 1.0).await;
    serves(&gateway).await;
}

/// A request whose body never comes, and one more after an answered request: neither keeps its connection.
#[tokio::test]
async fn requests_that_stop_after_a_whole_one_are_cut_too() {
    let (gateway, _rooms) = gateway(FAST, &[]).await;
    let host = gateway.listen();
    for bytes in [
        format!("POST {LOBBY} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\nabc"),
        format!(
            "POST {LOBBY} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
        ),
        format!("GET {LOBBY} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET {LOBBY} HTTP/1.1\r\nHost: {host}\r\n\r\nGET {LOBBY} HTTP/1.1\r\nHo"),
    ] {
        let mut socket = TcpStream::connect(host).await.unwrap();
        socket.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = within("the cut", socket.read_to_end(&mut answer)).await;
        assert!(answer.starts_with(b"HTTP/1.1 "), "{bytes:?}: {answer:?}");
    }
    serves(&gateway).await;
}

#[tokio::test]
async fn who_never_reads_is_evicted_alone() {
    let (gateway, _rooms) = gateway(FAST, &[]).await;
    let (mut sender, mut reader) = (join(&gateway).await, join(&gateway).await);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(gateway.listen()).await.unwrap();
    let mut slow = Client::join_on(socket, LOBBY, ORIGIN).await.unwrap();
    let is_out = async || members(&gateway).await != 3;
    slow_reader_is_out_alone(&mut sender, &mut reader, &mut slow, 16 * 1024, is_out).await;
    drop(slow);
    let evicted = r#"hubbub_gateway_connections_closed_total{reason="queue_full",by="gateway"}"#;
    gateway.metric_until(evicted, |count| count == 1.0).await;
    assert!(gateway.metric("hubbub_gateway_deliveries_discarded_total").await >= 1.0);
    assert_eq!(gateway.metric(PANICS).await, 0.0);
}

/// Over the rate a member is read more slowly, and that is all: neither its messages nor its pings are lost, and the
/// heartbeat does not take its silence for death.
#[tokio::test]
async fn a_sender_over_its_rate_is_held_back_and_loses_nothing() {
    let limits =
        "limits: {messagesPerSecond: 3, burst: 3}, heartbeat: {pongWait: 4s, pingPeriod: 1s}";
    let (gateway, _rooms) = gateway(limits, &[]).await;
    let (mut sender, mut reader) = (join(&gateway).await, join(&gateway).await);
    for n in 0..30 {
        sender.send(&format!("{n}")).await.unwrap();
        sender.send_frame(true, Opcode::Ping, b"alive?").await.unwrap();
    }
    let all = |mut client: Client| async move {
        let (mut texts, mut pongs) = (0, 0);
        while texts < 30 {
            match client.next().await {
                Received::Text(text) => {
                    assert_eq!(text, format!("{texts}"));
                    texts += 1;
                }
                Received::Ping(payload) => {
                    client.send_frame(true, Opcode::Pong, &payload).await.unwrap();
                }
                Received::Pong(payload) => {
                    assert_eq!(payload, b"alive?");
                    pongs += 1;
                }
                other => panic!("{other:?} after {texts} messages"),
            }
        }
        (client, pongs)
    };
    let ((mut sender, pongs), (kept, none)) =
        futures_util::future::join(all(sender), all(reader)).await;
    reader = kept;
    assert!(pongs >= 1 && none == 0, "{pongs} pongs for the sender, {none} for the reader");
    assert!(gateway.metric(THROTTLES).await >= 20.0);
    sender.send("after").await.unwrap();
    assert_eq!(reader.next_message().await, Received::Text("after".to_owned()));
    assert_eq!(gateway.metric(PANICS).await, 0.0);
}

#[tokio::test]
async fn a_full_room_refuses_until_a_place_is_free() {
    let (gateway, _rooms) = gateway("limits: {maxConnections: 3}", &[]).await;
    let attempts = (0..40).map(|_| Client::join(gateway.listen(), LOBBY, ORIGIN));
    let (mut inside, mut refused) = (Vec::new(), Vec::new());
    for attempt in futures_util::future::join_all(attempts).await {
        match attempt {
            Ok(client) => inside.push(client),
            Err(answer) => refused.push(answer),
        }
    }
    assert_eq!((inside.len(), refused.len()), (3, 37), "exactly as many as there are places");
    for answer in refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("30"), "{answer:?}");
        assert!(answer.body.contains(r#""reason":"room_full""#), "{answer:?}");
    }
    let neighbor = Client::join(gateway.listen(), "/rooms/demo/other", ORIGIN).await;
    assert!(neighbor.is_ok(), "the other room has places of its own");
    // One says goodbye, one just vanishes.
    let mut leaver = inside.pop().unwrap();
    leaver.send_close(1000).await.unwrap();
    assert_eq!(leaver.close_code().await, Some(1000));
    drop(inside.pop());
    for _ in 0..2 {
        inside.push(within("a free place", until_joined(&gateway)).await);
    }
    assert!(Client::join(gateway.listen(), LOBBY, ORIGIN).await.is_err(), "full again");
}

async fn until_joined(gateway: &GatewayProcess) -> Client {
    loop {
        match Client::join(gateway.listen(), LOBBY, ORIGIN).await {
            Ok(client) => return client,
            Err(answer) => assert_eq!(answer.status, 503),
        }
    }
}

#[tokio::test]
async fn a_full_gateway_refuses_in_every_room() {
    let (gateway, _rooms) =
        gateway("limits: {maxConnections: 100}", &["--max-connections", "4"]).await;
    let mut inside = Vec::new();
    for room in ["lobby", "other", "lobby", "other"] {
        let path = format!("/rooms/demo/{room}");
        inside.push(Client::join(gateway.listen(), &path, ORIGIN).await.unwrap());
    }
    for path in [LOBBY, "/rooms/demo/other"] {
        let answer = Client::join(gateway.listen(), path, ORIGIN).await.unwrap_err();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
        assert!(answer.body.contains(r#""reason":"gateway_full""#), "{answer:?}");
    }
    // Who is in does not notice, and the admin port answers.
    inside[0].send("still here").await.unwrap();
    assert_eq!(inside[2].next_message().await, Received::Text("still here".to_owned()));
    assert_eq!(gateway.metric("hubbub_gateway_connections").await, 4.0);
    drop(inside.pop());
    inside.push(within("a free place", until_joined(&gateway)).await);
}

#[tokio::test]
async fn an_idle_member_costs_at_most_16_kibibytes() {
    const MEMBERS: usize = 2_000;
    raise_descriptors();
    let (gateway, _rooms) = gateway("limits: {maxConnections: 3000}", &[]).await;
    serves(&gateway).await;
    let before = gateway.resident_bytes();
    let mut inside = Vec::with_capacity(MEMBERS);
    for _ in 0..MEMBERS {
        inside.push(join(&gateway).await);
    }
    gateway.metric_until("hubbub_gateway_connections", |open| open >= MEMBERS as f64).await;
    let each = gateway.resident_bytes().saturating_sub(before) / MEMBERS as u64;
    assert!(each <= 16 * 1024, "{each} bytes for each member");
}

/// Sends 64 KiB of the smallest messages at once: at 20 a second they would be minutes in memory, were they all read.
#[tokio::test]
async fn what_a_member_may_not_send_yet_waits_in_its_socket_and_not_in_memory() {
    const MEMBERS: usize = 200;
    let (gateway, _rooms) = gateway("limits: {messagesPerSecond: 1, burst: 1}", &[]).await;
    let mut inside = Vec::with_capacity(MEMBERS);
    for _ in 0..MEMBERS {
        inside.push(join(&gateway).await);
    }
    let before = gateway.resident_bytes();
    let flood = b"\x81\x81\0\0\0\0x".repeat(64 * 1024 / 7);
    for member in &mut inside {
        let writes = member.socket().try_write(&flood);
        assert!(writes.is_ok_and(|written| written > 1_000), "a fresh socket takes it");
    }
    gateway.metric_until(THROTTLES, |count| count >= MEMBERS as f64).await;
    let each = gateway.resident_bytes().saturating_sub(before) / MEMBERS as u64;
    assert!(each <= 40 * 1024, "{each} bytes for each member that is held back");
    assert_eq!(gateway.metric("hubbub_gateway_connections").await, MEMBERS as f64);
}

/// Asks for the room's page again and again and reads none of it.
#[tokio::test]
async fn who_takes_no_answer_is_cut() {
    let (gateway, _rooms) = gateway(FAST, &[]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut greedy = socket.connect(gateway.listen()).await.unwrap();
    let request = format!("GET {LOBBY} HTTP/1.1\r\nHost: chat\r\nAccept: text/html\r\n\r\n");
    // Until it is cut, which resets the connection; far more than all buffers hold.
    let asked = async {
        for _ in 0..1_000_000 {
            greedy.write_all(request.as_bytes()).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    assert!(
        within("the cut", asked).await.is_err(),
        "it is cut before it is answered a million times"
    );
    gateway.metric_until("hubbub_gateway_http_sockets", |open| open <= 1.0).await;
    serves(&gateway).await;
}

/// A handshake and nobody there to take the answer: the place is given back.
#[tokio::test]
async fn who_vanishes_during_the_handshake_leaves_no_trace() {
    let (gateway, _rooms) = gateway("limits: {maxConnections: 300}", &[]).await;
    let whole =
        Handshake::new(gateway.listen(), LOBBY).with("Origin", "https://a.example").to_bytes();
    for n in 0..600 {
        let mut socket = TcpStream::connect(gateway.listen()).await.unwrap();
        socket.write_all(&whole).await.unwrap();
        if n % 2 == 0 {
            socket.set_zero_linger().unwrap(); // a reset in place of an end
        }
    }
    gateway.metric_until("hubbub_gateway_connections", |open| open == 0.0).await;
    while members(&gateway).await > 0 {
        tokio::task::yield_now().await;
    }
    serves(&gateway).await;
}
