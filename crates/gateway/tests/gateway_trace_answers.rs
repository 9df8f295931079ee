//! What collectors answer, and what the log and the metrics make of it; and how many refusals they are told of.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    net::{SocketAddr, TcpListener},
    time::Instant,
};

use hubbub_testkit::{
    Certificates, Client, GatewayProcess, Handshake, Jaeger, OPEN, RoomsFile, eventually, within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const EXPORTED: &str = "hubbub_gateway_spans_exported_total";
const LIMITED: &str = "hubbub_gateway_spans_dropped_total{reason=\"limited\"}";
const REJECTED: &str = "hubbub_gateway_spans_dropped_total{reason=\"rejected\"}";

async fn traced(file: &RoomsFile, endpoint: &str, protocol: &str) -> GatewayProcess {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    GatewayProcess::start_with(GATEWAY, &file.flags(&[]), &variables).await
}

/// The error that is logged when this collector does not take the span of a handshake.
async fn error_of(endpoint: &str, protocol: &str) -> String {
    let file = RoomsFile::lobby(OPEN);
    let gateway = traced(&file, endpoint, protocol).await;
    let _member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    let mut told = None;
    eventually("a loss is logged", || {
        told = gateway.find("spans were lost, because the collector did not take them");
        told.is_some()
    })
    .await;
    told.unwrap()["error"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_collector_is_not_reached_is_told_over_both_protocols() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let error = error_of(&format!("http://{nowhere}"), protocol).await;
        assert!(error.contains("Connection refused"), "{protocol}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_the_other_protocol_is_asked_about() {
    let jaeger = Jaeger::start().await;
    let error = error_of(&jaeger.http(), "grpc").await;
    assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf?"), "{error}");
    let error = error_of(&jaeger.grpc(), "http/protobuf").await;
    assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL=grpc?"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_without_tls_is_asked_about() {
    let jaeger = Jaeger::start().await;
    for (endpoint, protocol) in [(jaeger.grpc(), "grpc"), (jaeger.http(), "http/protobuf")] {
        let error = error_of(&endpoint.replace("http:", "https:"), protocol).await;
        assert!(error.contains("give http://"), "{protocol}: {error}");
    }
    let jaeger = Jaeger::start_with_tls(&Certificates::make()).await;
    let error = error_of(&jaeger.grpc().replace("https:", "http:"), "grpc").await;
    assert!(error.contains("wants https://"), "{error}");
}

/// A collector over HTTP that gives every request this answer.
async fn collector(body: &'static [u8]) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                request.extend_from_slice(&buffer[..read]);
                let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if request.len() == end + 4 + length.unwrap().parse::<usize>().unwrap() {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
                    request.clear();
                }
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_the_collector_rejects_are_no_exported_ones() {
    // partial_success: {rejected_spans: 1, error_message: "too old"}
    let endpoint = format!("http://{}", collector(b"\x0a\x0b\x08\x01\x12\x07too old").await);
    let file = RoomsFile::lobby(OPEN);
    let gateway = traced(&file, &endpoint, "http/protobuf").await;
    let _member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    gateway.metric_until(REJECTED, |spans| spans == 1.0).await;
    assert_eq!(gateway.metric(EXPORTED).await, 0.0);
    eventually("its words are logged", || {
        let told = gateway.find("the collector rejects spans, or warns");
        told.is_some_and(|told| told["spans"] == 1 && told["words"] == "\"too old\"")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refused_handshakes_does_not_fill_the_collector() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
    let gateway = traced(&file, &jaeger.grpc(), "grpc").await;
    let (begun, mut made) = (Instant::now(), 0.0);
    // However slow the machine is: some second has more than ten of them.
    within("a limit", async {
        while gateway.metric(LIMITED).await == 0.0 {
            let flood = (0..50).map(|_| async {
                let refused = Handshake::new(gateway.listen(), "/rooms/demo/nowhere");
                assert_eq!(refused.answer().await.status, 404);
            });
            futures_util::future::join_all(flood).await;
            made += 50.0;
        }
    })
    .await;
    // Each second begins with a span of its own, so there are at most as many as have begun.
    let most = 10.0 * (begun.elapsed().as_secs() + 1) as f64;
    let limited = gateway.metric_until(LIMITED, |limited| limited >= made - most).await;
    let exported = gateway.metric_until(EXPORTED, |spans| spans + limited == made).await;
    assert!((1.0..=most).contains(&exported), "{exported} of {made}");
    // Only refusals have that limit.
    for _ in 0..20 {
        drop(Client::join(gateway.listen(), LOBBY, None).await.unwrap());
    }
    gateway.metric_until(EXPORTED, |spans| spans == exported + 40.0).await;
    assert_eq!(gateway.metric(LIMITED).await, limited);
}
