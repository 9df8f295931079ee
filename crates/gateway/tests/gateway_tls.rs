//! Members who come in by TLS, with a real client of it: they talk, are cut alone when they are slow, and are sent away as all
//! others are; and what becomes of those who do not speak it, or never come to the end of its handshake.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{ffi::OsString, path::Path, time::Instant};

use hubbub_testkit::{
    Certificates, Client, GatewayProcess, Member, OPEN, Opcode, Received, RoomsFile, Trust,
    eventually, http, raise_descriptors, slow_reader_is_out_alone, within,
};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const PANICS: &str = "hubbub_gateway_panics_total";
const MEBIBYTE: u64 = 1024 * 1024;

fn outcome(label: &str) -> String {
    format!("hubbub_gateway_tls_handshakes_total{{outcome=\"{label}\"}}")
}

/// A gateway that members reach by TLS, and what is needed for it.
struct World {
    gateway: GatewayProcess,
    trust: Trust,
    certificates: Certificates,
    _rooms: RoomsFile,
}

impl World {
    async fn start(spec: &str, more: &[&str]) -> Self {
        let (rooms, certificates) = (RoomsFile::lobby(spec), Certificates::make());
        let mut flags = rooms.flags(more);
        flags.extend(by_tls(&certificates.server(), &certificates.server_key()));
        let gateway = GatewayProcess::start(GATEWAY, &flags).await;
        let trust = Trust::in_authority(&certificates.authority());
        Self { gateway, trust, certificates, _rooms: rooms }
    }

    async fn join(&self) -> Client {
        self.join_trusting(&self.trust).await
    }

    async fn join_trusting(&self, trust: &Trust) -> Client {
        let joined = Client::join_by_tls(self.gateway.listen(), LOBBY, None, trust).await;
        joined.expect("an open room")
    }

    async fn member(&self) -> Member {
        Member::of(self.join().await)
    }

    /// The room works for somebody who has just come.
    async fn serves(&self) {
        let mut client = self.join().await;
        client.send("served").await.unwrap();
        assert_eq!(client.next_message().await, Received::Text("served".to_owned()));
        assert_eq!(self.gateway.metric(PANICS).await, 0.0);
    }
}

fn by_tls(certificate: &Path, key: &Path) -> [OsString; 4] {
    ["--tls-certificate".into(), certificate.into(), "--tls-key".into(), key.into()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_talk_over_tls_1_2_and_1_3() {
    let world = World::start(OPEN, &[]).await;
    let old = Trust::by_tls12(&world.certificates.authority());
    let mut newer = world.join().await;
    let mut older = world.join_trusting(&old).await;
    for (n, opcode) in [Opcode::Text, Opcode::Binary].into_iter().enumerate() {
        for size in [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_536] {
            let payload = vec![b'a' + n as u8; size];
            let message = match opcode {
                Opcode::Text => Received::Text(String::from_utf8(payload.clone()).unwrap()),
                _ => Received::Binary(payload.clone()),
            };
            let (sender, other) =
                if size % 2 == n { (&mut newer, &mut older) } else { (&mut older, &mut newer) };
            sender.send_frame(true, opcode, &payload).await.unwrap();
            assert_eq!(sender.next_message().await, message, "{size} bytes");
            assert_eq!(other.next_message().await, message, "{size} bytes");
        }
    }
    newer.send_frame(true, Opcode::Ping, b"there?").await.unwrap();
    assert_eq!(newer.next().await, Received::Pong(b"there?".to_vec()));
    for mut client in [newer, older] {
        client.send_close(1000).await.unwrap();
        assert_eq!(client.close_code().await, Some(1000));
        assert_eq!(client.next().await, Received::End);
        assert!(client.was_told_the_end(), "TLS is ended in good order, too");
    }
    assert_eq!(world.gateway.metric(&outcome("done")).await, 2.0);
    let told = world.gateway.find("serving").unwrap();
    assert_eq!(told["tls"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_refusals_come_by_tls_and_the_admin_port_stays_plain() {
    let world = World::start("allowedOrigins: ['https://a.example']", &[]).await;
    let listen = world.gateway.listen();
    let verdict = http::get_by_tls(listen, LOBBY, &world.trust).await;
    assert_eq!(verdict.status, 200);
    assert!(verdict.body.contains("demo/lobby"), "{verdict:?}");
    let evil = Some("https://evil.example");
    let refused = Client::join_by_tls(listen, LOBBY, evil, &world.trust).await.unwrap_err();
    assert_eq!(refused.status, 403, "{refused:?}");
    let good = Some("https://a.example");
    Client::join_by_tls(listen, LOBBY, good, &world.trust).await.expect("its origin is allowed");
    assert_eq!(http::get(world.gateway.admin(), "/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_spared_half_of_the_handshake() {
    let world = World::start(OPEN, &[]).await;
    let trust = Trust::remembering(&world.certificates.authority());
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let socket = TcpStream::connect(world.gateway.listen()).await.unwrap();
        let mut stream = trust.connect(socket).await.unwrap();
        // The ticket comes with the first answer at the latest.
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        kinds.push(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

/// The handshake of WebSocket and the first messages at once: they are decrypted together, and only the first is HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_with_the_handshake_is_not_lost() {
    let world = World::start(OPEN, &[]).await;
    for messages in [1, 3, 200] {
        let socket = TcpStream::connect(world.gateway.listen()).await.unwrap();
        let mut stream = world.trust.connect(socket).await.unwrap();
        let mut bytes = format!(
            "GET {LOBBY} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .into_bytes();
        for _ in 0..messages {
            bytes.extend_from_slice(b"\x81\xe4\0\0\0\0"); // 100 bytes of text
            bytes.extend_from_slice(&[b'x'; 100]);
        }
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut got = Vec::new();
        let head = b"\r\n\r\n";
        let whole = |got: &[u8]| {
            let end = got.windows(head.len()).position(|window| window == head);
            end.is_some_and(|end| got.len() - end - head.len() == messages * 102)
        };
        within("all messages", async {
            while !whole(&got) {
                assert!(stream.read_buf(&mut got).await.unwrap() > 0, "it ended early");
            }
        })
        .await;
        assert!(got.starts_with(b"HTTP/1.1 101 "));
    }
    assert_eq!(world.gateway.metric(PANICS).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_at_once_arrive_whole_and_in_order_both_ways() {
    // Less than may wait for a member who is busy saying something itself.
    const EACH: usize = 400;
    let world = World::start(OPEN, &[]).await;
    let (one, two) = (world.member().await, world.member().await);
    let text = |who: &str, n: usize| format!("{who}{n:06}{}", "y".repeat(n * 97 % 2_000));
    for n in 0..EACH {
        one.send(&text("a", n)).await;
        two.send(&text("b", n)).await;
    }
    for member in [&one, &two] {
        eventually("all of it is heard", || member.count() == 2 * EACH).await;
        for who in ["a", "b"] {
            let heard: Vec<_> =
                member.texts().into_iter().filter(|heard| heard.starts_with(who)).collect();
            assert!(heard.iter().enumerate().all(|(n, heard)| *heard == text(who, n)), "{who}");
        }
    }
    assert_eq!(world.gateway.metric(PANICS).await, 0.0);
}

/// A frame that comes byte by byte, each in a record of its own, and one that a record ends in the middle of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_pieces_are_put_together() {
    let world = World::start(OPEN, &[]).await;
    let mut client = world.join().await;
    let mut bytes = b"\x81\x85\0\0\0\0hello\x82\x82\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[1, 2]);
    for byte in bytes {
        client.send_bytes(&[byte]).await.unwrap();
    }
    assert_eq!(client.next_message().await, Received::Text("hello".to_owned()));
    assert_eq!(client.next_message().await, Received::Binary(vec![1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_is_cut_alone() {
    let limits = "allowedOrigins: ['*'], requireOrigin: false, \
         limits: {maxMessageBytes: 65536, messagesPerSecond: 100000, burst: 100000, sendQueue: 16}";
    let world = World::start(limits, &[]).await;
    let (mut sender, mut reader) = (world.join().await, world.join().await);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(world.gateway.listen()).await.unwrap();
    let slow = Client::join_by_tls_on(socket, LOBBY, None, &world.trust).await;
    let mut slow = slow.unwrap();
    let evicted = r#"hubbub_gateway_eviction_queue_messages_count{reason="queue_full"}"#;
    let is_out = async || world.gateway.metric(evicted).await > 0.0;
    slow_reader_is_out_alone(&mut sender, &mut reader, &mut slow, 40 * 1024, is_out).await;
    assert_eq!(world.gateway.metric(PANICS).await, 0.0);
}

/// Whoever takes nothing for `writeWait` is dropped, however little waits: here the end of one message, which is encrypted
/// already and stands in no queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_for_long_is_dropped_though_no_message_waits() {
    let spec = "allowedOrigins: ['*'], requireOrigin: false, \
         limits: {maxMessageBytes: 65536, messagesPerSecond: 100000, burst: 100000, sendQueue: 100}, \
         heartbeat: {pongWait: 1h, pingPeriod: 59m, writeWait: 1s}";
    let world = World::start(spec, &[]).await;
    let mut sender = world.join().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(world.gateway.listen()).await.unwrap();
    let deaf = Client::join_by_tls_on(socket, LOBBY, None, &world.trust).await.unwrap();
    let queued = r#"hubbub_gateway_deliveries_total{path="queued"}"#;
    // Small steps, until the socket is full within one of them.
    while world.gateway.metric(queued).await == 0.0 {
        sender.send(&"x".repeat(8_000)).await.unwrap();
        assert!(matches!(sender.next_message().await, Received::Text(_)));
    }
    let dropped = r#"hubbub_gateway_connections_closed_total{reason="write_timeout",by="gateway"}"#;
    world.gateway.metric_until(dropped, |count| count == 1.0).await;
    drop(deaf);
    world.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_speak_tls_is_told_so() {
    let world = World::start(OPEN, &[]).await;
    let listen = world.gateway.listen();
    let refused = Client::join(listen, LOBBY, None).await.unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("wss://"), "{refused:?}");
    assert_eq!(refused.header("connection"), Some("close"));
    // Neither HTTP nor TLS.
    let mut socket = TcpStream::connect(listen).await.unwrap();
    socket.write_all(b"\0\x01\x02 hello\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the end", socket.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert_eq!(world.gateway.metric(&outcome("not_tls")).await, 2.0);
    world.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_trust_or_speaks_something_else_comes_to_nothing() {
    let world = World::start(OPEN, &[]).await;
    let connect = async || TcpStream::connect(world.gateway.listen()).await.unwrap();
    let stranger = Certificates::make();
    let untrusting = Trust::in_authority(&stranger.authority());
    assert!(untrusting.connect(connect().await).await.is_err());
    let authority = world.certificates.authority();
    let error = Trust::offering(&authority, &["h2"]).connect(connect().await).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let both = Trust::offering(&authority, &["h2", "http/1.1"]);
    let stream = both.connect(connect().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut garbage = connect().await;
    garbage.write_all(b"\x16\x03\x01\0\0").await.unwrap();
    let mut alert = Vec::new();
    let _ = within("the end", garbage.read_to_end(&mut alert)).await;
    assert_eq!(alert.first(), Some(&21), "an alert says that it is none: {alert:?}");
    world.gateway.metric_until(&outcome("failed"), |count| count == 3.0).await;
    // Who only looks whether somebody listens is no failure.
    drop(connect().await);
    world.serves().await;
    assert_eq!(world.gateway.metric(&outcome("failed")).await, 3.0);
}

/// Records that nobody can decrypt end the connection of whoever sent them, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decrypted_ends_one_connection() {
    let world = World::start(OPEN, &[]).await;
    let mut witness = world.join().await;
    let mut liar = world.join().await;
    liar.send("before").await.unwrap();
    assert_eq!(liar.next().await, Received::Text("before".to_owned()));
    liar.socket().write_all(b"\x17\x03\x03\0\x20abcdefghijklmnopqrstuvwxyzabcdef").await.unwrap();
    assert_eq!(liar.next().await, Received::End);
    assert_eq!(witness.next_message().await, Received::Text("before".to_owned()));
    witness.send("still here").await.unwrap();
    assert_eq!(witness.next_message().await, Received::Text("still here".to_owned()));
    world.gateway.metric_until("hubbub_gateway_connections", |open| open == 1.0).await;
    assert_eq!(world.gateway.metric(PANICS).await, 0.0);
}

/// A client that ends TLS in good order, without a word of WebSocket, and leaves its side of the socket open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_tls_is_the_end_of_the_member() {
    let world = World::start(OPEN, &[]).await;
    let mut client = world.join().await;
    client.end_tls().await;
    assert_eq!(client.next().await, Received::End);
    world.gateway.metric_until("hubbub_gateway_connections", |open| open == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_are_cut_and_cost_little_meanwhile() {
    const EACH: usize = 300;
    raise_descriptors();
    let world = World::start(OPEN, &[]).await;
    world.serves().await;
    let before = world.gateway.resident_bytes();
    // From nothing at all to most of what a client says first.
    let hello = client_hello(&world).await;
    let mut halves = Vec::new();
    let begun = Instant::now();
    for n in 0..3 * EACH {
        let mut socket = TcpStream::connect(world.gateway.listen()).await.unwrap();
        let sent = [0, 5, hello.len() - 1][n % 3];
        socket.write_all(&hello[..sent]).await.unwrap();
        halves.push(socket);
    }
    world.serves().await;
    world.gateway.metric_until("hubbub_gateway_http_sockets", |open| open >= 1.0).await;
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MEBIBYTE, "{grown} bytes for {} of them", 3 * EACH);
    for mut half in halves {
        let mut said = Vec::new();
        let _ = within("the cut", half.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "{said:?}");
    }
    assert!(begun.elapsed().as_secs() >= 4, "they have some time");
    let all = 3.0 * EACH as f64;
    world.gateway.metric_until(&outcome("timeout"), |count| count == all).await;
    world.gateway.metric_until("hubbub_gateway_http_sockets", |open| open <= 1.0).await;
    world.serves().await;
}

/// What a client says first, as it stands on the wire.
async fn client_hello(world: &World) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut heard, _) = listener.accept().await.unwrap();
    let mut hello = vec![0; 4096];
    let read = tokio::select! {
        _ = world.trust.connect(socket) => panic!("nobody answers"),
        read = heard.read(&mut hello) => read.unwrap(),
    };
    hello.truncate(read);
    assert!(hello.len() > 100 && hello[0] == 22, "{hello:?}");
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_sends_members_away_with_1012() {
    const MEMBERS: usize = 50;
    let quick = ["--drain-settle", "0s", "--drain-window", "100ms", "--drain-deadline", "30s"];
    let mut world = World::start(OPEN, &quick).await;
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(world.member().await);
    }
    members[0].send("before").await;
    for member in &members {
        member.hears("before").await;
    }
    world.gateway.terminate();
    for member in &members {
        assert_eq!(member.ended().await, Some(1012));
    }
    assert!(world.gateway.ended().await.success());
    let told = world.gateway.find("drained").expect("the receipt is logged");
    assert_eq!((&told["moved"], &told["cut"]), (&MEMBERS.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_member_costs_at_most_24_kibibytes() {
    const MEMBERS: usize = 1_000;
    raise_descriptors();
    let world = World::start(OPEN, &[]).await;
    world.serves().await;
    let before = world.gateway.resident_bytes();
    let mut inside = Vec::with_capacity(MEMBERS);
    for _ in 0..MEMBERS {
        inside.push(world.join().await);
    }
    world.gateway.metric_until("hubbub_gateway_connections", |open| open >= MEMBERS as f64).await;
    let each = world.gateway.resident_bytes().saturating_sub(before) / MEMBERS as u64;
    println!("{each} bytes for each idle member by TLS");
    assert!(each <= 24 * 1024, "{each} bytes for each member");
}
