//! The load generator in a real Jaeger: it calls the gateway, each handshake is one trace over both, and who calls whom
//! shows in the service graph.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::process::Stdio;

use hubbub_testkit::{GatewayProcess, Jaeger, OPEN, RoomsFile, gateway_program, within};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_service_graph_shows_who_calls_the_gateway() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
    let endpoint = jaeger.grpc();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let flags = file.flags(&["--trust-traceparent"]);
    let gateway = GatewayProcess::start_with(gateway_program(), &flags, &variables).await;
    let run = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .arg(format!("ws://{}/rooms/demo/lobby?token=secret", gateway.listen()))
        .args(["--members", "3", "--rate", "20", "--warmup", "100ms", "--duration", "300ms"])
        .args(["--quiet"])
        .envs(variables)
        .stdin(Stdio::null())
        .status();
    assert!(within("the run ends", run).await.unwrap().success());

    let called = [("http.response.status_code", "101")];
    let three = |spans: &[hubbub_testkit::JaegerSpan]| spans.len() == 3;
    let calls = jaeger.until("hubbub-load", &called, three).await;
    jaeger.until("hubbub-gateway", &called, three).await;
    for call in calls {
        assert_eq!(call.tag("span.kind"), "client");
        assert!(!format!("{call:?}").contains("secret"));
        let trace = jaeger.trace(&call.trace).await;
        let answer = trace.iter().find(|span| span.service == "hubbub-gateway").unwrap();
        assert_eq!((trace.len(), answer.parent.as_ref()), (2, Some(&call.id)));
        assert_eq!(jaeger.parent(answer).await, call.id);
    }
    jaeger.edge("hubbub-load", "hubbub-gateway").await;
}
