//! A gateway that runs out of memory: it refuses newcomers first, then sends those away who hold most, and lives on.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{Client, GatewayProcess, Member, RoomsFile, http, within};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const SHED: &str = "hubbub_gateway_connections_closed_total{reason=\"memory\",by=\"gateway\"}";

/// What each greedy member makes the gateway hold: nearly all of a message that it does not finish.
const HELD: usize = 900_000;
const GREEDY: usize = 80;

/// Beyond what the gateway has in memory when it begins.
const ROOM_TO_GROW: u64 = 48 << 20;

fn room() -> RoomsFile {
    RoomsFile::lobby(
        "allowedOrigins: ['*'], requireOrigin: false, limits: {maxMessageBytes: 1048576}, \
         heartbeat: {pongWait: 1h, pingPeriod: 59m}",
    )
}

/// What a gateway has in memory that has done nothing.
async fn at_rest() -> u64 {
    let file = room();
    GatewayProcess::start(GATEWAY, &file.flags(&[])).await.resident_bytes()
}

/// Begins a message of a mebibyte and leaves it unfinished.
async fn hold(client: &mut Client) {
    let mut bytes = b"\x82\xff".to_vec();
    bytes.extend_from_slice(&1_048_576_u64.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.resize(bytes.len() + HELD, 0);
    // Who is sent away does not get all of it out.
    let _ = client.send_bytes(&bytes).await;
}

#[tokio::test]
async fn newcomers_are_refused_then_the_greedy_are_sent_away_and_the_rest_talk_on() {
    let limit = (at_rest().await + ROOM_TO_GROW).to_string();
    let file = room();
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&["--memory-limit", &limit])).await;
    assert_eq!(gateway.metric("hubbub_gateway_memory_limit_bytes").await.to_string(), limit);
    let bystander = Member::join(gateway.listen(), LOBBY, None).await.unwrap();
    let other = Member::join(gateway.listen(), LOBBY, None).await.unwrap();
    let mut greedy = Vec::new();
    for _ in 0..GREEDY {
        greedy.push(Client::join(gateway.listen(), LOBBY, None).await.unwrap());
    }
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
    let holding = futures_util::future::join_all(greedy.iter_mut().map(hold));
    let answer = within("a refusal", async {
        let until = async {
            loop {
                match Client::join(gateway.listen(), LOBBY, None).await {
                    Ok(client) => drop(client),
                    Err(answer) => return answer,
                }
            }
        };
        futures_util::future::join(holding, until).await.1
    })
    .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
    assert!(answer.body.contains("\"reason\":\"memory\""), "{answer:?}");
    let shed = gateway.metric_until(SHED, |shed| shed >= 1.0).await;
    assert!(shed < GREEDY as f64, "no more than it takes: {shed}");
    let told = within("somebody is told", async {
        let codes = greedy.iter_mut().map(|client| Box::pin(client.close_code()));
        futures_util::future::select_all(codes).await.0
    })
    .await;
    assert_eq!(told, Some(1013));
    bystander.send("still here").await;
    other.hears("still here").await;
    assert!(!bystander.has_ended() && !other.has_ended(), "who holds nothing stays");
}

#[tokio::test]
async fn a_gateway_that_is_short_of_memory_is_not_ready_until_it_has_some_again() {
    let limit = (at_rest().await + ROOM_TO_GROW).to_string();
    let file = room();
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&["--memory-limit", &limit])).await;
    let mut greedy = Vec::new();
    for _ in 0..GREEDY {
        greedy.push(Client::join(gateway.listen(), LOBBY, None).await.unwrap());
    }
    futures_util::future::join_all(greedy.iter_mut().map(hold)).await;
    let ready = async |wanted: u16| {
        within("readiness", async {
            loop {
                let answer = http::get(gateway.admin(), "/readyz").await;
                if answer.status == wanted {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    let answer = ready(503).await;
    assert!(answer.body.contains("[-] memory: "), "{}", answer.body);
    drop(greedy);
    let answer = ready(200).await;
    assert!(answer.body.contains("[+] memory: "), "{}", answer.body);
    assert!(Client::join(gateway.listen(), LOBBY, None).await.is_ok());
}
