//! Looks at rooms and pools as a real Jaeger shows them: each a trace of its own, with what it came to.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;

use hubbub_testkit::{Jaeger, JaegerSpan, http};
use serde_json::json;
use support::{World, process::OperatorProcess};

const SERVICE: &str = "hubbub-operator";
const RIGHTS: &str = include_str!("../../../manifests/operator/rbac.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn each_look_tells_room_generation_outcome_and_writes() {
    let (world, jaeger) = (World::start().await, Jaeger::start().await);
    world.kubectl().apply(RIGHTS).await;
    let endpoint = jaeger.grpc();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", OsStr::new(&endpoint)),
        ("OTEL_BSP_SCHEDULE_DELAY", OsStr::new("50")),
        ("HUBBUB_POD_NAME", OsStr::new("operator-pod")),
    ];
    let account = "hubbub-operator";
    let mut operator = OperatorProcess::start_in(&world, account, "one", &[], &variables).await;
    operator.says("traces are sent by OTLP").await;
    let _gateway = world.gateway("gateway", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    let writes = |span: &JaegerSpan| span.tag("hubbub.writes").parse::<u32>().unwrap_or_default();
    let of = |generation: &'static str| {
        [
            ("hubbub.room", "demo/lobby"),
            ("hubbub.generation", generation),
            ("hubbub.outcome", "done"),
        ]
    };
    let wrote = |found: &[JaegerSpan]| found.iter().any(|span| writes(span) > 0);
    let looks = jaeger.until(SERVICE, &of("1"), wrote).await;
    for look in &looks {
        assert_eq!((look.name.as_str(), look.tag("span.kind").as_str()), ("reconcile", "internal"));
        assert_eq!((&look.parent, look.tag("error").as_str()), (&None, ""));
        assert_eq!(look.resource("service.instance.id"), "one");
        assert_eq!(look.resource("k8s.pod.name"), "operator-pod");
        assert_eq!(jaeger.trace(&look.trace).await.len(), 1, "a look is a trace of its own");
    }
    world.patch_room("lobby", json!({"spec": {"limits": {"burst": 7}}})).await;
    jaeger.until(SERVICE, &of("2"), wrote).await;
    let pool = [("hubbub.pool", "default"), ("hubbub.outcome", "done")];
    jaeger.until(SERVICE, &pool, wrote).await;
    let metrics = http::get(operator.admin(), "/metrics").await.body;
    assert!(metrics.contains("hubbub_operator_spans_exported_total"), "{metrics}");
    operator.terminate();
    assert!(operator.ended().await.success());
}
