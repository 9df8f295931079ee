//! Collectors that are away, slow or refuse, and what makes no sense: the members of the real program do not notice.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    ffi::{OsStr, OsString},
    net::{SocketAddr, TcpListener},
    os::unix::ffi::OsStrExt as _,
    process::Command,
    time::{Duration, Instant},
};

use hubbub_testkit::{
    Client, GatewayProcess, Jaeger, NatsServer, OPEN, Received, RoomsFile, within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const QUICK: [&str; 4] = ["--drain-settle", "0s", "--drain-window", "100ms"];
const EXPORTED: &str = "hubbub_gateway_spans_exported_total";
const FAILED: &str = "hubbub_gateway_spans_dropped_total{reason=\"export_failed\"}";
const FULL: &str = "hubbub_gateway_spans_dropped_total{reason=\"queue_full\"}";
const LOST: &str = "spans were lost, because the collector did not take them";

/// Messages that are traced: each makes two spans, many more than may wait.
const MESSAGES: usize = 200;

/// Spans that may wait, and those of the batch that is under way.
const QUEUE: usize = 16;
const BATCH: usize = 8;

/// Handshake, publish and process: all spans until the first member leaves.
const SPANS: f64 = 1.0 + 2.0 * MESSAGES as f64;

/// A gateway that traces everything to this collector, with a short queue.
async fn traced(
    flags: &[OsString],
    endpoint: &str,
    protocol: &str,
    more: &[(&str, &str)],
) -> GatewayProcess {
    let (queue, batch) = (QUEUE.to_string(), BATCH.to_string());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", &queue),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &batch),
    ];
    GatewayProcess::start_with(GATEWAY, flags, &[&variables, more].concat()).await
}

/// Messages through the room, one after the other, each heard before the next.
async fn talk(member: &mut Client) {
    for n in 0..MESSAGES {
        member.send(&n.to_string()).await.unwrap();
        assert_eq!(member.next_message().await, Received::Text(n.to_string()));
    }
}

/// Waits until all spans are exported or lost, but for so many that may wait; gives what is told of them, in this order:
/// exported, failed, too many.
async fn accounted(gateway: &GatewayProcess, but_for: usize) -> [f64; 3] {
    let mut told = [0.0; 3];
    while told.iter().sum::<f64>() < SPANS - but_for as f64 {
        for (metric, told) in [EXPORTED, FAILED, FULL].into_iter().zip(&mut told) {
            *told = gateway.metric(metric).await;
        }
    }
    assert!(told.iter().sum::<f64>() <= SPANS, "each is told once: {told:?}");
    told
}

/// Members get their messages, spans are lost and counted, the log is not flooded, and the drain ends in good order.
async fn nobody_notices(collector: SocketAddr, protocol: &str) {
    let (file, endpoint) = (RoomsFile::lobby(OPEN), format!("http://{collector}"));
    let begun = Instant::now();
    let little_patience = [("OTEL_EXPORTER_OTLP_TIMEOUT", "300")];
    let mut gateway = traced(&file.flags(&QUICK), &endpoint, protocol, &little_patience).await;
    let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    talk(&mut member).await;
    gateway.metric_until(FAILED, |spans| spans > 0.0).await;
    let [exported, ..] = within("all spans", accounted(&gateway, QUEUE + BATCH)).await;
    assert_eq!(exported, 0.0);
    gateway.terminate();
    assert_eq!(member.close_code().await, Some(1012));
    drop(member);
    assert!(gateway.ended().await.success(), "the drain ends in good order");
    let told = gateway.find_all(LOST);
    // The first at once, then one in ten seconds.
    let most = 1 + begun.elapsed().as_secs().div_ceil(10) as usize;
    assert!((1..=most).contains(&told.len()), "told with a limit: {told:#?}");
    assert!(told[0]["error"].is_string() && told[0]["endpoint"].is_string(), "{told:#?}");
    let last = gateway.find("the last spans did not reach the collector").expect("it is told");
    assert!(last["spans"].as_u64() > Some(0) && last["error"].is_string(), "{last}");
}

/// While an export hangs, for the 10 s that it may by default: members are served as ever, spans wait in bounded number,
/// and the end does not wait for the export.
async fn a_hanging_export_holds_nothing_up(endpoint: &str, protocol: &str) {
    let file = RoomsFile::lobby(OPEN);
    let mut gateway = traced(&file.flags(&QUICK), endpoint, protocol, &[]).await;
    let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    talk(&mut member).await;
    // The first export began with the handshake. Had a message waited for it, or for any after it, then that would have
    // come to its end.
    assert_eq!(gateway.metric(FAILED).await, 0.0, "all messages went while the first export hung");
    let [exported, _, full] = within("all spans", accounted(&gateway, QUEUE + BATCH)).await;
    assert_eq!(exported, 0.0);
    assert!(full > 0.0, "more spans than may wait are lost and counted");
    let begun = Instant::now();
    gateway.terminate();
    assert_eq!(member.close_code().await, Some(1012));
    drop(member);
    assert!(gateway.ended().await.success(), "the drain ends in good order");
    // Two promised seconds. What waits is three batches: without a limit of its own it takes more than 20.
    assert!(begun.elapsed() < Duration::from_secs(6), "ended after {:?}", begun.elapsed());
    let told = gateway.find("the last spans did not reach the collector").expect("it is told");
    // What waits, the batch that hangs, and what the end has made: at least the drain.
    let lost = told["spans"].as_f64().unwrap();
    assert!((1.0..=(QUEUE + BATCH) as f64).contains(&lost), "{told}");
}

/// An address where nothing listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A collector that takes connections, and then does this with each.
async fn collector(answer: Option<&'static [u8]>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tasks.spawn(async move {
                let mut buffer = [0; 4096];
                while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    if let Some(answer) = answer {
                        let _ = socket.write_all(answer).await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_not_noticed() {
    nobody_notices(nowhere(), "grpc").await;
    nobody_notices(nowhere(), "http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_is_not_noticed() {
    nobody_notices(collector(None).await, "grpc").await;
    nobody_notices(collector(None).await, "http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_hangs_holds_up_neither_messages_nor_the_end() {
    let silent = format!("http://{}", collector(None).await);
    a_hanging_export_holds_nothing_up(&silent, "grpc").await;
    a_hanging_export_holds_nothing_up(&silent, "http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_froze_gets_spans_again_when_it_goes_on() {
    for protocol in ["grpc", "http/protobuf"] {
        let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
        let endpoint = if protocol == "grpc" { jaeger.grpc() } else { jaeger.http() };
        let gateway = traced(&file.flags(&[]), &endpoint, protocol, &[]).await;
        let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
        gateway.metric_until(EXPORTED, |spans| spans >= 1.0).await;
        jaeger.freeze();
        talk(&mut member).await;
        gateway.metric_until(FULL, |spans| spans > 0.0).await;
        jaeger.thaw();
        within("all spans", accounted(&gateway, 0)).await;
        member.send("after").await.unwrap();
        assert_eq!(member.next_message().await, Received::Text("after".to_owned()));
        jaeger
            .until("hubbub-gateway", &[("messaging.message.body.size", "5")], |spans| {
                spans.len() >= 2
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_not_noticed() {
    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    nobody_notices(collector(Some(refusal)).await, "grpc").await;
    nobody_notices(collector(Some(refusal)).await, "http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_tell_the_collector_who_sends() {
    let file = RoomsFile::lobby(OPEN);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/otlp/", listener.local_addr().unwrap());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret,x-team=chat"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let gateway = GatewayProcess::start_with(GATEWAY, &file.flags(&[]), &variables).await;
    let _member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    let (mut socket, _) = within("an export", listener.accept()).await.unwrap();
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = within("its head", socket.read_buf(&mut request)).await.unwrap();
        assert!(read > 0, "the head ends");
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    assert!(head.starts_with("post /otlp/v1/traces http/1.1\r\n"), "{head}");
    for header in ["authorization: bearer secret\r\n", "x-team: chat\r\n"] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(!gateway.log().join("\n").contains("secret"), "headers are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_traced_message_carries_a_header() {
    let (jaeger, nats, file) =
        (Jaeger::start().await, NatsServer::start().await, RoomsFile::lobby(OPEN));
    let url = nats.url();
    let client = nats.client().await;
    let mut heard = client.subscribe("hubbub.room.demo.lobby").await.unwrap();
    client.flush().await.unwrap();
    for (ratio, traced) in [("0", false), ("1", true)] {
        let endpoint = jaeger.grpc();
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ];
        let flags = file.flags(&["--nats", &url]);
        let gateway = GatewayProcess::start_with(GATEWAY, &flags, &variables).await;
        gateway.metric_until("hubbub_gateway_bus_connected", |connected| connected > 0.0).await;
        let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
        member.send("hello").await.unwrap();
        assert_eq!(member.next_message().await, Received::Text("hello".to_owned()));
        let message = futures_util::StreamExt::next(&mut heard).await.unwrap();
        let headers = message.headers.unwrap_or_default();
        assert_eq!(headers.get("traceparent").is_some(), traced, "ratio {ratio}");
        assert_eq!(headers.len(), usize::from(traced), "and none else");
        // What others put there does no harm.
        for header in ["nonsense", "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-01"] {
            let mut headers = nats::HeaderMap::new();
            headers.insert("traceparent", header);
            let sent =
                client.publish_with_headers("hubbub.room.demo.lobby", headers, header.into());
            sent.await.unwrap();
            assert_eq!(member.next_message().await, Received::Text(header.to_owned()));
            futures_util::StreamExt::next(&mut heard).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_message_keeps_its_trace() {
    let (jaeger, mut nats, file) =
        (Jaeger::start().await, NatsServer::start().await, RoomsFile::lobby(OPEN));
    let (url, endpoint) = (nats.url(), jaeger.http());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let flags = file.flags(&["--nats", &url]);
    let gateway = GatewayProcess::start_with(GATEWAY, &flags, &variables).await;
    gateway.metric_until("hubbub_gateway_bus_connected", |connected| connected > 0.0).await;
    let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    nats.kill9();
    gateway.metric_until("hubbub_gateway_bus_connected", |connected| connected == 0.0).await;
    member.send("held").await.unwrap();
    gateway.metric_until("hubbub_gateway_messages_received_total", |messages| messages > 0.0).await;
    nats.start_again().await;
    assert_eq!(member.next_message().await, Received::Text("held".to_owned()));
    let process = [("hubbub.delivered", "1")];
    let process = jaeger.one("hubbub-gateway", "process hubbub.room.{namespace}.{name}", &process);
    let process = process.await;
    let trace = jaeger.trace(&process.trace).await;
    let publish = trace.iter().find(|span| span.tag("span.kind") == "producer").expect("its begin");
    assert_eq!(process.parent.as_ref(), Some(&publish.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_ends_the_program_with_what_is_right() {
    let file = RoomsFile::lobby(OPEN);
    for (name, value, words) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4317", "such as http://jaeger:4317"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem", "certificates in PEM"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "from 0 to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999999", "at most 100000"),
        ("OTEL_PROPAGATORS", "b3", "give tracecontext"),
    ] {
        let said = refused(&file, name, OsStr::new(value));
        assert!(said.contains(name) && said.contains(value) && said.contains(words), "{said}");
    }
    let said = refused(&file, "OTEL_SERVICE_NAME", OsStr::from_bytes(b"\xff"));
    assert!(said.contains("OTEL_SERVICE_NAME") && said.contains("UTF-8"), "{said}");
}

/// What the program says when it ends for this variable.
fn refused(file: &RoomsFile, name: &str, value: &OsStr) -> String {
    let mut command = Command::new(GATEWAY);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(file.flags(&[])).env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1");
    let output = command.env(name, value).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{name}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn an_example_of_a_slow_handshake_names_its_trace() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
    for (endpoint, traced) in [("", false), (jaeger.grpc().as_str(), true)] {
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
        let gateway = GatewayProcess::start_with(GATEWAY, &file.flags(&[]), &variables).await;
        let _member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
        gateway.metric_until("hubbub_gateway_handshake_seconds_count", |count| count == 1.0).await;
        let metrics = hubbub_testkit::http::get(gateway.admin(), "/metrics").await.body;
        let mut examples = metrics.lines().filter_map(|line| line.split_once("# {trace_id=\""));
        let Some((_, rest)) = examples.next() else {
            assert!(!traced, "{metrics}");
            continue;
        };
        let trace = rest.split('"').next().unwrap().to_owned();
        jaeger.one("hubbub-gateway", "GET /rooms/{namespace}/{name}", &[]).await;
        let spans = jaeger.trace(&trace).await;
        assert_eq!(spans.len(), 1, "{trace}: {spans:#?}");
    }
}
