//! Whole runs against a real Centrifugo and a real nats-server, by their own protocols.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail where it stands")]

mod centrifugo;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use centrifugo::{Centrifugo, anybody_may};
use clap::Parser;
use futures_util::StreamExt as _;
use hubbub_load::{
    Cli, Plan, Progress, Report,
    payload::{self, PROBE},
    verify::Faults,
};
use hubbub_testkit::{Auth, NatsConfig, NatsServer};
use serde_json::json;

/// Signed with the secret of [`a_centrifugo_that_wants_tokens_gets_them`]; it never expires.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJsb2FkIn0.\
    5IPW4kNTeOkPY5dMEdNOrGwgc4oZXJgpL7bUqHlUw4o";

/// A short run of 8 members with `options`, which may override those given here.
async fn load(url: &str, options: &[&str]) -> Report {
    let mut arguments = vec!["hubbub-load".to_owned(), url.to_owned()];
    let usual = "--members=8 --rate=100 --warmup=100ms --duration=300ms --tail=30s";
    arguments.extend(usual.split(' ').chain(options.iter().copied()).map(str::to_owned));
    let plan = Plan::new(&Cli::try_parse_from(arguments).unwrap()).unwrap();
    tokio::task::spawn_blocking(move || hubbub_load::run(&plan, &mut Progress::quiet()).unwrap())
        .await
        .unwrap()
}

/// What no such server should fail at: two publishers in each of three channels, and members that come and go.
async fn every_delivery_is_counted(url: &str, protocol: &str) {
    let report = load(url, &[protocol, "--rooms=3", "--publishers=2", "--threads=2"]).await;
    assert!(report.verification.passed, "{report}");
    assert_eq!(report.connecting.connected, 3 * 8);
    // 100 a second for 300 ms in each of 3 rooms; a machine that is busy just then sends the last ones too late.
    assert!((1..=3 * 30).contains(&report.load.sent), "{report}");
    assert_eq!(report.load.latency_ms.count, report.load.sent * 8);

    let report = load(url, &[protocol, "--churn=50", "--duration=1s"]).await;
    assert!(report.verification.passed, "{report}");
    assert!(report.load.leaves > 0 && report.load.joins > 0, "{report}");
}

fn failure(report: &Report) -> &str {
    assert!(!report.verification.passed, "{report}");
    report.connecting.failures.keys().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_of_centrifugo_is_counted() {
    let server = Centrifugo::open().await;
    every_delivery_is_counted(&server.url(), "--protocol=centrifugo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_of_nats_is_counted() {
    let config = NatsConfig { websocket: true, ..NatsConfig::default() };
    let server = NatsServer::start_with(config).await;
    every_delivery_is_counted(server.websocket_url(), "--protocol=nats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_centrifugo_answer_its_pings() {
    let server = Centrifugo::open().await;
    // Who does not answer within half a second is closed.
    let quiet = ["--protocol=centrifugo", "--rate=0", "--duration=4s"];
    let report = load(&server.url(), &quiet).await;
    assert!(report.verification.passed, "{report}");
    assert!(report.load.pings >= 8, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_centrifugo_refuses_is_said() {
    let server = Centrifugo::open().await;
    let report = load(&server.url(), &["--protocol=centrifugo", "--channel=chat:1"]).await;
    assert!(failure(&report).contains("refused to subscribe: unknown channel"), "{report}");

    let rules = json!({ "allow_anonymous_connect_without_token": true });
    let server = Centrifugo::start(rules, anybody_may(&["subscribe_for_anonymous"])).await;
    let report = load(&server.url(), &["--protocol=centrifugo", "--tail=1s"]).await;
    assert!(failure(&report).contains("refused to publish: permission denied"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_centrifugo_that_wants_tokens_gets_them() {
    let rules = json!({ "token": { "hmac_secret_key": "secret-of-the-test" } });
    let server = Centrifugo::start(rules, anybody_may(&[])).await;
    let token = format!("--token={TOKEN}");
    let report = load(&server.url(), &["--protocol=centrifugo", &token]).await;
    assert!(report.verification.passed, "{report}");

    // Told that it is not to come back, no member does.
    let report = load(&server.url(), &["--protocol=centrifugo", "--reconnect"]).await;
    assert!(
        failure(&report).contains("closed with code 3501 before the member was in"),
        "{report}"
    );
    assert_eq!(report.connecting.failures.values().sum::<u64>(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_centrifugo_that_ends_says_so_to_every_member() {
    let server = Centrifugo::open().await;
    let mut run = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .args([&server.url(), "--protocol=centrifugo", "-m8", "--rate=0", "--duration=1h"])
        .args(["--expect-close=3001", "--json=-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    // By then all are in.
    assert!(told.any(|line| line.starts_with("measure")));
    server.terminate();
    let summary: Vec<String> = told.collect();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{summary:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["closes"]["3001"]["count"], &report["asked"]["protocol"]),
        (&json!(8), &json!("centrifugo"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_wants_tokens_gets_them() {
    let auth = Auth::Token("secret-of-the-test".to_owned());
    let config = NatsConfig { auth, websocket: true, ..NatsConfig::default() };
    let server = NatsServer::start_with(config).await;
    let url = server.websocket_url();
    let report = load(url, &["--protocol=nats", "--token=secret-of-the-test"]).await;
    assert!(report.verification.passed, "{report}");
    let report = load(url, &["--protocol=nats", "--token=another"]).await;
    assert!(failure(&report).contains("'Authorization Violation'"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_somebody_says_again_is_doubled() {
    let config = NatsConfig { websocket: true, ..NatsConfig::default() };
    let server = NatsServer::start_with(config).await;
    let client = server.client().await;
    let mut heard = client.subscribe("room-1").await.unwrap();
    client.flush().await.unwrap();
    let echo = async {
        while let Some(message) = heard.next().await {
            let stamp = payload::read(&message.payload).unwrap();
            if stamp.sequence != PROBE {
                client.publish("room-1", message.payload).await.unwrap();
                client.flush().await.unwrap();
                return;
            }
        }
    };
    let (report, ()) = tokio::join!(load(server.websocket_url(), &["--protocol=nats"]), echo);
    assert_eq!(report.verification.faults, Faults { doubled: 8, ..Faults::default() });
}
