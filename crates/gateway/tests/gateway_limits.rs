//! Limits at the door of the real program: by address, by the subject of a token, and for all together. Who is refused is told
//! so before the upgrade, and is counted; everybody else does not notice.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{net::SocketAddr, process::Command};

use hubbub_testkit::{
    Client, GatewayProcess, OPEN, Received, RoomsFile, TokenIssuer, chat_room, eventually, http,
    within,
};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const FORWARDED: &str = "X-Forwarded-For";

async fn gateway(flags: &[&str]) -> (RoomsFile, GatewayProcess) {
    let file = RoomsFile::lobby(OPEN);
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(flags)).await;
    (file, gateway)
}

/// A connection from this address of the loopback network.
async fn socket(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.expect("the gateway listens")
}

async fn join_from(from: &str, gateway: &GatewayProcess) -> Result<Client, http::Answer> {
    Client::join_on(socket(from, gateway.listen()).await, LOBBY, None).await
}

/// Joins by way of a proxy that says so of its client.
async fn join_for(client: &str, gateway: &GatewayProcess) -> Result<Client, http::Answer> {
    Client::join_with(gateway.listen(), LOBBY, None, &[(FORWARDED, client)]).await
}

fn reason(answer: &http::Answer) -> String {
    let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    problem["reason"].as_str().unwrap_or_default().to_owned()
}

async fn refused(gateway: &GatewayProcess, outcome: &str) -> f64 {
    let metric = format!("hubbub_gateway_handshakes_total{{outcome=\"{outcome}\"}}");
    gateway.metric(&metric).await
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_told_to_wait_and_nobody_else() {
    let (_file, gateway) = gateway(&["--requests-per-address", "1"]).await;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        match join_from("127.0.0.2", &gateway).await {
            Ok(client) => inside.push(client),
            Err(answer) => outside.push(answer),
        }
    }
    assert!(inside.len() >= 10, "as many as ten seconds' worth at once");
    let answer = outside.last().expect("the rate is far below what a loop can do");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")), "{answer:?}");
    assert_eq!(reason(answer), "address_rate");
    assert_eq!(refused(&gateway, "address_rate").await, outside.len() as f64);
    // Questions count as well, as they cost as much.
    let question = format!("GET {LOBBY} HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n");
    let mut asked = 0;
    loop {
        let answer = http::request(gateway.listen(), question.as_bytes()).await;
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 200);
        asked += 1;
        assert!(asked < 10_000, "never held back");
    }
    // Another address, and who is in already, do not notice.
    let mut other = join_from("127.0.0.3", &gateway).await.unwrap();
    inside[0].send("here").await.unwrap();
    assert_eq!(other.next_message().await, Received::Text("here".to_owned()));
}

#[tokio::test]
async fn all_together_are_held_to_the_rate_of_the_gateway() {
    let (_file, gateway) = gateway(&["--requests-per-second", "5"]).await;
    let mut outside = Vec::new();
    let mut inside = Vec::new();
    for last in 1..=100 {
        match join_from(&format!("127.0.1.{last}"), &gateway).await {
            Ok(client) => inside.push(client),
            Err(answer) => outside.push(answer),
        }
    }
    assert!(inside.len() >= 5);
    let answer = outside.last().expect("the rate is far below what a loop can do");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{answer:?}");
    assert_eq!(reason(answer), "gateway_rate");
    assert_eq!(refused(&gateway, "gateway_rate").await, outside.len() as f64);
    // Probes are not held back.
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_it_may_and_gets_a_place_back() {
    let (_file, gateway) = gateway(&["--connections-per-address", "3"]).await;
    let attempts = (0..30).map(|_| join_from("127.0.0.2", &gateway));
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for attempt in futures_util::future::join_all(attempts).await {
        match attempt {
            Ok(client) => inside.push(client),
            Err(answer) => outside.push(answer),
        }
    }
    assert_eq!(inside.len(), 3);
    let told: Vec<_> = outside.iter().filter(|answer| answer.status != 0).collect();
    for answer in &told {
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("30")), "{answer:?}");
        assert_eq!(reason(answer), "address_full");
    }
    // Of very many at once the last are ended without a word.
    let silent = (outside.len() - told.len()) as f64;
    let metric = r#"hubbub_gateway_http_sockets_refused_total{reason="address"}"#;
    assert_eq!(gateway.metric(metric).await, silent);
    assert_eq!(refused(&gateway, "address_full").await, told.len() as f64);
    assert!(join_from("127.0.0.3", &gateway).await.is_ok(), "another address");
    // One says goodbye, and one vanishes.
    let mut leaver = inside.pop().unwrap();
    leaver.send_close(1000).await.unwrap();
    assert_eq!(leaver.close_code().await, Some(1000));
    drop(inside.pop());
    for _ in 0..2 {
        let place = async {
            loop {
                if let Ok(client) = join_from("127.0.0.2", &gateway).await {
                    return client;
                }
            }
        };
        inside.push(within("a place that was given back", place).await);
    }
    assert!(join_from("127.0.0.2", &gateway).await.is_err());
}

#[tokio::test]
async fn only_a_trusted_proxy_says_who_its_clients_are() {
    let flags = ["--connections-per-address", "1", "--trusted-proxies", "127.0.0.1,10.0.0.0/8"];
    let (_file, gateway) = gateway(&flags).await;
    let first = join_for("198.51.100.7", &gateway).await.unwrap();
    // What the client wrote itself stands before what the proxies wrote.
    let forged = join_for("203.0.113.1, 198.51.100.7, 10.1.2.3", &gateway).await.unwrap_err();
    assert_eq!(reason(&forged), "address_full");
    let _other = join_for("198.51.100.8", &gateway).await.unwrap();
    let _six = join_for("2001:db8:0:1::1", &gateway).await.unwrap();
    let neighbour = join_for("2001:db8:0:1::2", &gateway).await.unwrap_err();
    assert_eq!(reason(&neighbour), "address_full", "one customer has the whole /64");
    let _next = join_for("2001:db8:0:2::1", &gateway).await.unwrap();
    // A stranger's word counts for nothing.
    let by_itself = async |client: &str| {
        let socket = socket("127.0.0.9", gateway.listen()).await;
        Client::join_on_with(socket, LOBBY, None, &[(FORWARDED, client)]).await
    };
    let _stays = by_itself("198.51.100.9").await.unwrap();
    assert_eq!(reason(&by_itself("198.51.100.10").await.unwrap_err()), "address_full");
    drop(first);
}

#[tokio::test]
async fn whoever_looks_a_connection_up_sees_the_client_and_not_the_proxy() {
    let (_file, gateway) = gateway(&["--trusted-proxies", "127.0.0.0/8"]).await;
    let id = "0011223344556677";
    let path = format!("{LOBBY}?connection={id}");
    let headers = [(FORWARDED, "198.51.100.7")];
    let _client = Client::join_with(gateway.listen(), &path, None, &headers).await.unwrap();
    let answer = http::get(gateway.admin(), &format!("/rooms?connection={id}")).await;
    let found: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(found["peer"], "198.51.100.7:0", "{found}");
}

#[tokio::test]
async fn a_subject_has_no_more_connections_than_it_may() {
    let issuer = TokenIssuer::new("https://id.example.com/", "one");
    let spec = format!(
        "allowedOrigins: ['*'], requireOrigin: false, auth: {{jwt: {{issuer: 'https://id.example.com/', \
         audiences: [chat], jwks: {{inline: '{}'}}}}}}",
        issuer.jwks()
    );
    let file = RoomsFile::of_text(&chat_room("lobby", &spec));
    let gateway =
        GatewayProcess::start(GATEWAY, &file.flags(&["--connections-per-subject", "2"])).await;
    let enter = |subject: &str, at: u64| {
        // Another token each time: it is the subject that counts.
        let more = serde_json::json!({"sub": subject, "jti": at.to_string()});
        let bearer = format!("Bearer {}", issuer.token_with("chat", &more));
        let listen = gateway.listen();
        async move {
            let headers = [("Authorization", bearer.as_str())];
            Client::join_with(listen, LOBBY, None, &headers).await
        }
    };
    let _one = enter("ada", 1).await.unwrap();
    let two = enter("ada", 2).await.unwrap();
    let answer = enter("ada", 3).await.unwrap_err();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("30")), "{answer:?}");
    assert_eq!(reason(&answer), "subject_full");
    assert_eq!(refused(&gateway, "subject_full").await, 1.0);
    let _other = enter("grace", 4).await.unwrap();
    drop(two);
    let place = async {
        let mut at = 5;
        loop {
            if let Ok(client) = enter("ada", at).await {
                return client;
            }
            at += 1;
        }
    };
    within("a place that was given back", place).await;
}

#[tokio::test]
async fn a_token_that_comes_over_the_connection_takes_a_place_of_its_subject_too() {
    let issuer = TokenIssuer::new("https://id.example.com/", "one");
    let spec = format!(
        "allowedOrigins: ['*'], requireOrigin: false, auth: {{anonymous: Read, jwt: {{issuer: 'https://id.example.com/', \
         audiences: [chat], jwks: {{inline: '{}'}}}}}}",
        issuer.jwks()
    );
    let file = RoomsFile::of_text(&chat_room("lobby", &spec));
    let gateway =
        GatewayProcess::start(GATEWAY, &file.flags(&["--connections-per-subject", "1"])).await;
    let token = |subject: &str, at: u64| {
        let more = serde_json::json!({"sub": subject, "jti": at.to_string()});
        format!("\u{1}token {}", issuer.token_with("chat", &more))
    };
    let join = async || {
        let headers = [("Sec-WebSocket-Protocol", "hubbub.v1")];
        Client::join_with(gateway.listen(), LOBBY, None, &headers).await.unwrap()
    };
    let mut first = join().await;
    first.send(&token("ada", 1)).await.unwrap();
    // Its own place is enough for it, however often it renews.
    first.send(&token("ada", 2)).await.unwrap();
    first.send("one").await.unwrap();
    assert_eq!(first.next_message().await, Received::Text("one".to_owned()));
    for at in 3..6 {
        let mut more = join().await;
        more.send(&token("ada", at)).await.unwrap();
        let Received::Close(Some((code, reason))) = more.next_message().await else {
            panic!("the subject has no place left")
        };
        assert_eq!(code, 1013);
        assert!(reason.contains("--connections-per-subject"), "{reason}");
    }
    let closed = r#"hubbub_gateway_connections_closed_total{reason="subject_full",by="gateway"}"#;
    gateway.metric_until(closed, |closed| closed == 3.0).await;
    let mut other = join().await;
    other.send(&token("grace", 6)).await.unwrap();
    other.send("two").await.unwrap();
    for client in [&mut first, &mut other] {
        assert_eq!(client.next_message().await, Received::Text("two".to_owned()));
    }
    // The place is counted at the door as well, and given back with the connection.
    let at_door = async |at: u64| {
        let bearer = token("ada", at).replacen("\u{1}token", "Bearer", 1);
        let headers = [("Authorization", bearer.as_str())];
        Client::join_with(gateway.listen(), LOBBY, None, &headers).await
    };
    assert_eq!(reason(&at_door(7).await.unwrap_err()), "subject_full");
    drop(first);
    let place = async {
        let mut at = 8;
        while at_door(at).await.is_err() {
            at += 1;
        }
    };
    within("a place that was given back", place).await;
}

/// Sockets that never say anything, until their address may have no more of them.
#[tokio::test]
async fn an_address_that_opens_sockets_and_says_nothing_gets_no_more_of_them() {
    let (_file, gateway) = gateway(&["--connections-per-address", "20"]).await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(socket("127.0.0.2", gateway.listen()).await);
    }
    gateway
        .metric_until(r#"hubbub_gateway_http_sockets_refused_total{reason="address"}"#, |refused| {
            refused >= 40.0
        })
        .await;
    let mut client = join_from("127.0.0.3", &gateway).await.unwrap();
    client.send("served").await.unwrap();
    assert_eq!(client.next_message().await, Received::Text("served".to_owned()));
    // Those that were accepted first are still there, and the last were ended.
    let last = silent.last_mut().unwrap();
    let ended = within("the end", last.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

/// More sockets than the limit of open files has room for, of which none says anything.
#[tokio::test]
async fn silent_sockets_leave_files_for_everything_else() {
    let file = RoomsFile::of_text(&chat_room("lobby", OPEN));
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 300; exec "$0" "$@""#, GATEWAY]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]).args(file.flags(&[]));
    let gateway = GatewayProcess::start_command(command).await;
    let mut member = join_from("127.0.0.2", &gateway).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(socket("127.0.0.3", gateway.listen()).await);
    }
    let refused = r#"hubbub_gateway_http_sockets_refused_total{reason="open_files"}"#;
    // 150 remain, of which the member has one.
    gateway.metric_until(refused, |refused| refused >= 100.0).await;
    for probe in ["/livez", "/readyz"] {
        let answer = http::get(gateway.admin(), probe).await;
        assert_eq!(answer.status, 200, "{probe}: {answer:?}");
    }
    assert_eq!(gateway.metric("hubbub_gateway_accept_failures_total").await, 0.0);
    // Files are read, and who is in does not notice.
    file.replace(&(chat_room("lobby", OPEN) + &chat_room("other", OPEN)));
    eventually("the new room is declared", || gateway.find_all("rooms declared").len() > 1).await;
    member.send("here").await.unwrap();
    assert_eq!(member.next_message().await, Received::Text("here".to_owned()));
    // The silent ones are over when their time for a head is.
    let place = async {
        loop {
            if let Ok(client) = join_from("127.0.0.4", &gateway).await {
                return client;
            }
        }
    };
    let mut late = within("a place that a silent socket had", place).await;
    late.send("there").await.unwrap();
    assert_eq!(late.next_message().await, Received::Text("there".to_owned()));
}
